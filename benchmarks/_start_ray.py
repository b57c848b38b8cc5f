"""A Ray cluster of this machine alone, started before a side's time begins and stopped after."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping

import psutil

START_TRIES = 3
START_SECONDS = 120.0
STORE_BYTES = 200 * 2**20


@contextlib.contextmanager
def cluster(
    num_cpus: int, num_gpus: int = 0, *, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, int]]:
    """A Ray cluster of this machine alone, with so much to lend: its address, and the process that holds it.

    Its processes have `environment`, by default that of this one.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",  # what the command `ray` runs, which need not be on the path
        "start",
        "--head",
        "--block",
        f"--port={port}",
        f"--num-cpus={num_cpus}",
        f"--num-gpus={num_gpus}",
    ]
    command += ["--include-dashboard=false", "--disable-usage-stats", f"--object-store-memory={STORE_BYTES}"]
    # by default workers have niceness 15, those of this machine 0
    own = os.environ if environment is None else environment
    environment = {**own, "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
    for _ in range(START_TRIES):
        holder = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if wait_for_node(holder, port):
            break
        end(holder)
    else:
        raise SystemExit("no Ray cluster could be started")
    try:
        yield f"127.0.0.1:{port}", holder.pid
    finally:
        end(holder)


def wait_for_node(holder: "subprocess.Popen[bytes]", port: int) -> bool:
    """Whether a cluster came up with its node."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and holder.poll() is None:
        names = [child.name() for child in psutil.Process(holder.pid).children(recursive=True)]
        if "raylet" in names and psutil.Process(holder.pid).status():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
                time.sleep(5.0)  # the node registers, and starts its first processes
                return holder.poll() is None
        time.sleep(0.5)
    return False


def end(holder: "subprocess.Popen[bytes]") -> None:
    """Kill a process with all that it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(holder.pid)
        for process in (*parent.children(recursive=True), parent):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    holder.wait()
