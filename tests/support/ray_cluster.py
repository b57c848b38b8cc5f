"""A Ray cluster on loopback: nodes that come and go, each a raylet with its workers."""

import contextlib
import os
import signal
import time

import psutil

TRIES = 3
STORE_BYTES = 80 * 2**20


class LoopbackCluster:
    """A head that lends nothing, and nodes of one CPU each."""

    def __init__(self):
        """Start the head; on a busy machine it may die while it starts, and is tried again."""
        os.environ.update(
            RAY_USAGE_STATS_ENABLED="0",
            RAY_AUTH_MODE="disabled",
            RAY_enable_open_telemetry="0",
            RAY_worker_niceness="0",  # 15 by default, which a busy machine never gets to
        )
        from ray.cluster_utils import Cluster

        for attempt in range(TRIES):
            try:
                self._cluster = Cluster(
                    initialize_head=True,
                    head_node_args={
                        "num_cpus": 0,
                        "include_dashboard": False,
                        "object_store_memory": STORE_BYTES,
                    },
                )
                break
            except Exception:
                if attempt == TRIES - 1:
                    raise
        self.address = self._cluster.address

    def add(self, **options):
        """One more node."""
        options = {"num_cpus": 1, "object_store_memory": STORE_BYTES, **options}
        for attempt in range(TRIES):
            try:
                return self._cluster.add_node(**options)
            except Exception:
                if attempt == TRIES - 1:
                    raise
        return None

    def lose(self, node):
        """SIGKILL of a node: its raylet, and all that it or its workers started."""
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        processes = [raylet, *raylet.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        return len(processes)

    def close(self):
        """Stop all that is left."""
        for node in list(self._cluster.list_all_nodes()):
            with contextlib.suppress(Exception):
                node.kill_all_processes(check_alive=False, allow_graceful=False)


def remote_workers():
    """The processes of this machine that an actor of ours holds, by actor."""
    found = {}
    for process in psutil.process_iter(["name", "cmdline"]):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "RemoteWorker" in " ".join(process.info["cmdline"] or []):
                found[process.pid] = [child.pid for child in process.children()]
    return found


def wait_until(condition, seconds=120.0):
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)
