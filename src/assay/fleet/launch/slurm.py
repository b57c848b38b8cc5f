"""An array job of Slurm: a task a worker, which drains ahead of its time limit and is queued again.

Slurm sends SIGUSR1 to the shell of the script alone (`--signal=B:`), so the shell hands it on; SIGTERM, at `scancel`,
preemption and requeue, goes to every process of a task, so the shell only has to live through it, and Slurm itself
knows whether the task comes back. From here what USR1 drained is queued again, and what failed, some times.
"""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from assay.errors import UsageError
from assay.exits import BAD_INPUT, DRAINED, INTERRUPTED, REFUSED
from assay.fleet.launch.job import Job
from assay.fleet.launch.launcher import Say, call_tool
from assay.fleet.launch.settings import SlurmSettings

LEAD_SECONDS = 150
"""From USR1 to the time limit: a drain by USR1 takes 90 s at most, and Slurm keeps time to the minute."""
LEAST_MINUTES = 5
"""Of a time limit, which has to hold a start, some work and the drain."""
TRIES = 3
"""Times that a task came back, for whatever reason, after which one that fails is not queued again."""
ASK_SECONDS = 20.0
"""For the cluster to say what it is."""
DEFAULT_MAX_ARRAY_SIZE = 1001
"""Of Slurm, where slurm.conf says nothing else."""

_BODY = """\
worker= again= drained= stopped=
# Slurm sends USR1 to this shell alone, ahead of the time limit. SIGTERM (scancel, preemption) reaches every process.
trap 'drained=yes; kill -USR1 "$worker"' USR1
trap 'stopped=yes' TERM
# The variables of other launchers would come before those of the array.
unset RANK WORLD_SIZE
{setup}{command} &
worker=$!
while kill -0 "$worker" 2>/dev/null; do wait "$worker"; done
wait "$worker"
status=$?
case "$status" in
{over}) ;;                  # done; bad usage; a run begun with other settings
{goes_on}) again=$drained ;;    # drained, or stopped while it started: the task takes its turn again and goes on
*) [ "${{SLURM_RESTART_COUNT:-0}}" -lt {tries} ] && again=yes ;;
esac
if [ -n "$again" ] && [ -z "$stopped" ]; then
    exec scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$status"
"""


def render(job: Job, settings: SlurmSettings) -> str:
    """The job script."""
    options = "".join(f"#SBATCH --{option}\n" for option in _options(job, settings))
    setup = "".join(f"{line}\n" for line in _setup(job, settings))
    command = shlex.join(("assay", *job.command))
    return f"#!/bin/bash\n{options}\n" + _BODY.format(
        setup=setup,
        command=command,
        tries=TRIES,
        over=f"0 | {BAD_INPUT} | {REFUSED}",
        goes_on=f"{DRAINED} | {INTERRUPTED}",
    )


def _options(job: Job, settings: SlurmSettings) -> Iterator[str]:
    yield f"job-name={job.name}"
    yield f"array=0-{job.workers - 1}"
    yield "nodes=1"
    yield "ntasks=1"
    yield f"cpus-per-task={job.cpus}"
    yield f"mem={job.memory_gib}G"
    if job.gpus:
        yield "gres=" + ":".join(("gpu", *([job.gpu_type] if job.gpu_type else []), str(job.gpus)))
    if settings.hours is not None:
        minutes = round(settings.hours * 60)
        yield f"time={minutes // 60:02}:{minutes % 60:02}:00"
    for name in ("partition", "account", "qos", "constraint"):
        if (value := getattr(settings, name)) is not None:
            yield f"{name}={value}"
    yield "requeue"
    yield f"signal=B:USR1@{LEAD_SECONDS}"
    yield "open-mode=append"
    yield f"output={settings.logs.rstrip('/') or '/'}/%x-%A_%a.log"


def _setup(job: Job, settings: SlurmSettings) -> Iterator[str]:
    yield from settings.setup
    if settings.environment is not None:
        yield f"PATH={shlex.quote(settings.environment.rstrip('/') + '/bin')}:$PATH"
    for name in job.env:
        yield f': "${{{name}:?is not set; export it before sbatch}}"'


def check(text: str) -> list[str]:
    """What is wrong with a job script."""
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", text, re.MULTILINE))
    problems = [
        f"{name} is {value!r}, which Slurm would read as more than one word; take out the space"
        for name, value in options.items()
        if re.search(r"\s", value)
    ]
    if not re.fullmatch(r"0-\d+", options.get("array", "")):
        problems.append("the script has no array from 0: ranks count from there; add #SBATCH --array=0-N")
    if "requeue" not in options:
        problems.append("the script is not requeued after a preemption; add #SBATCH --requeue")
    if options.get("open-mode") != "append":
        problems.append("a task that comes back would empty its log; add #SBATCH --open-mode=append")
    if not re.fullmatch(r"B:USR1@\d+", options.get("signal", "")):
        problems.append(
            f"nothing tells the script of its time limit; add #SBATCH --signal=B:USR1@{LEAD_SECONDS}"
        )
    hours, minutes, _ = map(int, options.get("time", "99:00:00").split(":"))
    if hours * 60 + minutes < LEAST_MINUTES:
        problems.append(
            f"the time limit is {hours * 60 + minutes} minutes; a task drains {LEAD_SECONDS} s before it, so set "
            f"--hours {LEAST_MINUTES / 60:.2f} or more"
        )
    return problems


def refuse(job: Job, settings: SlurmSettings) -> None:
    """Raise UsageError where the array is larger than the cluster takes."""
    asked = settings.max_array_size or _max_array_size()
    most = asked or DEFAULT_MAX_ARRAY_SIZE
    if job.workers > most:
        whose = "as set" if settings.max_array_size else "of this cluster" if asked else "by default"
        msg = (
            f"workers is {job.workers:,} and MaxArraySize {most:,} {whose}; set --workers {most} or less (one may "
            "have several --gpus)" + ("" if asked else ", or --max-array-size where your cluster takes more")
        )
        raise UsageError(msg)


def _max_array_size() -> int | None:
    """What the cluster says, where there is one."""
    scontrol = shutil.which("scontrol")
    if scontrol is None:
        return None
    try:
        done = subprocess.run(
            [scontrol, "show", "config"], capture_output=True, text=True, check=False, timeout=ASK_SECONDS
        )
    except subprocess.TimeoutExpired:
        return None
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    return int(found[1]) if found else None


def submit(text: str, job: Job, settings: SlurmSettings, _: Say) -> str:
    """Submit the script; returns the number of the array job."""
    for name in job.env:
        if name not in os.environ:
            msg = f"env names {name}, which is not set here; export it, sbatch hands it on to the tasks"
            raise UsageError(msg)
    command = ["sbatch", "--parsable", "--export=ALL"]
    if shutil.which("sbatch") is not None:
        try:
            Path(settings.logs).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"logs {settings.logs} cannot be made ({error.strerror}); name another folder"
            raise UsageError(msg) from None
    return call_tool(command, text, found_at="on a login node").partition(";")[0]


def start(_: SlurmSettings, file: str) -> str:
    """How to submit a file by hand."""
    return f"sbatch {shlex.quote(file)}"


def follow(job: Job, settings: SlurmSettings, submitted: str | None) -> Sequence[str]:
    """The tasks, and their logs."""
    number = submitted or "JOB"
    return (
        f"squeue --job {number} --array",
        f"tail -f {shlex.quote(settings.logs.rstrip('/') or '/')}/{job.name}-{number}_*.log",
    )


def stop(_: Job, __: SlurmSettings, submitted: str | None) -> Sequence[str]:
    """Cancel the array: its workers publish what they have in hand if that takes less than 20 seconds."""
    return (f"scancel {submitted or 'JOB'}",)
