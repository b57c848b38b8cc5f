"""A Slurm of one node on loopback, from Debian's packages `slurm-wlm` and `munge`, for the time of a `with`."""

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
SBIN = "/usr/sbin"
NUM_CPUS = 3
MAX_ARRAY_SIZE = 11
PATIENCE_SECONDS = 240.0
CONF = """\
ClusterName=assay
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
MaxArraySize={max_array_size}
PreemptMode=REQUEUE
PreemptType=preempt/partition_prio
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=64000 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing():
    """Why there can be no cluster here; None where there can."""
    absent = [name for name in (*DAEMONS, "sbatch") if shutil.which(name, path=_path()) is None]
    if absent:
        return f"needs {', '.join(absent)} (Debian: slurm-wlm, munge)"
    return None if os.geteuid() == 0 else "needs root, which the daemons of Slurm run as"


def _path():
    return f"{os.environ['PATH']}:{SBIN}"


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs."""

    environment: dict[str, str]
    """That reaches it."""

    def call(self, *words):
        """What a command of Slurm prints."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def task(self, job, index):
        """What Slurm knows of a task: state, exit code, restarts, reason, by its own names."""
        return dict(re.findall(r"(\w+)=(\S*)", self.call("scontrol", "show", "job", f"{job}_{index}")))

    def wait_for(self, check, what):
        """Wait until something holds."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not check():
            assert time.monotonic() < deadline, (what, self.call("squeue", "--array", "-o", "%i %T %r"))
            time.sleep(0.25)

    def wait_until_over(self, job):
        """Wait until no task of a job is pending, at work or completing."""
        self.wait_for(lambda: not self.call("squeue", "-h", "-j", job, "--array"), f"job {job} is over")

    def start_now(self, job, index):
        """Let a task that was queued again start: Slurm holds it for two minutes.

        Not at once: a node refuses it within a second of its end ("Job credential revoked"), and it fails.
        """
        time.sleep(3)
        self.call("scontrol", "update", f"JobId={job}_{index}", "StartTime=now")


@contextlib.contextmanager
def one_node(folder: Path):
    """A cluster of one node, its files in `folder`; every daemon is ours, and is gone afterwards."""
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    ports = [_free_port() for _ in range(2)]
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(
            host=host,
            folder=folder,
            ctld_port=ports[0],
            slurmd_port=ports[1],
            cpus=NUM_CPUS,
            max_array_size=MAX_ARRAY_SIZE,
        )
    )
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    environment = {**os.environ, "SLURM_CONF": str(conf), "PATH": _path()}
    files = {"key": "munge.key", "socket": "munge.sock", "pid": "munged.pid", "log": "munged.log"}
    munge = [
        f"--{name}{'' if name == 'socket' else '-file'}={folder / file}"
        for name, file in ({**files, "seed": "munged.seed"}).items()
    ]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_daemon(["munged", "--foreground", "--force", *munge], environment, folder))
        cluster = Cluster(environment)
        cluster.wait_for((folder / "munge.sock").exists, "munged is there")
        stack.enter_context(_daemon(["slurmctld", "-D"], environment, folder))
        stack.enter_context(_daemon(["slurmd", "-D", "-N", host], environment, folder))
        cluster.wait_for(lambda: "idle" in _sinfo(environment), "the node is idle")
        yield cluster


def _sinfo(environment):
    done = subprocess.run(
        ["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout


@contextlib.contextmanager
def _daemon(words, environment, folder):
    program = shutil.which(words[0], path=environment["PATH"])
    with (
        (folder / f"{words[0]}.out").open("w") as out,
        subprocess.Popen([program, *words[1:]], env=environment, stdout=out, stderr=out) as process,
    ):
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
