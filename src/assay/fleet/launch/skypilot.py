"""Managed jobs of SkyPilot: one a worker, each on machines of its own.

Not one job of many nodes: there a single machine that is taken away restarts all of them, and RunPod has no such jobs.
A worker that drained ends with 75 and is started again. One that is done ends with 0, which it does only when *every*
unit is published, by whomever; SkyPilot then takes its machine down. The first one proves the run before it ends.

SkyPilot lives in an environment of its own: its click and that of transformers do not go together.
"""

import re
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from assay.errors import UsageError
from assay.exits import DRAINED
from assay.fleet.launch.cloud_settings import SkyPilotSettings
from assay.fleet.launch.gpus import GPUS, spell_gpu
from assay.fleet.launch.job import Job
from assay.fleet.launch.launcher import Say, call_tool

UNTIL = "ASSAY_UNTIL"
"""Variable with the time at which the hours are over, Unix seconds."""
SUBMIT_SECONDS = 1_800.0
"""SkyPilot starts its server, and its controller where there is none yet."""
OWN_NAMES = ("kubernetes", "k8s", "ssh", "slurm")
"""Infrastructure whose machines may have any names of GPUs."""
_TIMED_OUT = 124


def render(job: Job, settings: SkyPilotSettings) -> str:
    """The task, as YAML."""
    task: dict[str, Any] = {"name": job.name, "num_nodes": 1, "resources": _resources(job, settings)}
    if settings.hours is not None:
        task["envs"] = {UNTIL: None}
    if job.env:
        task["secrets"] = dict.fromkeys(job.env)
    if settings.pool is None:
        if volumes := settings.mounts("volumes"):
            task["volumes"] = volumes
        if copies := settings.mounts("copies"):
            task["file_mounts"] = {
                folder: {"source": source, "mode": "COPY"} for folder, source in copies.items()
            }
        if settings.setup:
            task["setup"] = _Block("\n".join(settings.setup) + "\n")
    task["run"] = _Block("\n".join(_run(job, settings)) + "\n")
    head = [
        f"# {job.workers} managed jobs that share {job.run}",
        f"# submit: {start(settings, 'FILE')}",
    ]
    return "\n".join(head) + "\n" + yaml.dump(task, Dumper=_Dumper, sort_keys=False, width=1_000)


class _Block(str):
    """Text that is written as a block of lines."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")
)


def _resources(job: Job, settings: SkyPilotSettings) -> dict[str, Any]:
    resources: dict[str, Any] = {}
    if len(settings.infra) == 1:
        resources["infra"] = settings.infra[0]
    elif settings.infra:
        resources["any_of"] = [{"infra": each} for each in settings.infra]
    if job.gpus:
        resources["accelerators"] = f"{_gpu(job, settings)}:{job.gpus}"
    resources |= {"cpus": f"{job.cpus}+", "memory": f"{job.memory_gib}+"}
    if settings.pool is None:
        resources |= {"disk_size": settings.disk_gb, "use_spot": settings.spot}
        if settings.image is not None:
            resources["image_id"] = f"docker:{settings.image}"
    resources["job_recovery"] = {
        "max_restarts_on_errors": settings.most_failures,
        "recover_on_exit_codes": [DRAINED],
    }
    return resources


def _gpu(job: Job, settings: SkyPilotSettings) -> str:
    if job.gpu_type is None:
        msg = "gpu_type is missing, and SkyPilot looks for machines by it; set for example --gpu-type L40S"
        raise UsageError(msg)
    if settings.pool or any(each.split("/")[0].lower() in OWN_NAMES for each in settings.infra):
        return job.gpu_type
    return spell_gpu("skypilot", job.gpu_type)


def _run(job: Job, settings: SkyPilotSettings) -> Iterator[str]:
    command = shlex.join(("assay", *job.command))
    yield "# Each worker finds its place in SKYPILOT_JOB_RANK and SKYPILOT_NUM_JOBS; others would come first."
    yield "unset RANK WORLD_SIZE"
    if settings.hours is None:
        yield command
        yield "status=$?"
    else:
        over = f"the {settings.hours:g} hours are over; what is published stays"
        yield f"left=$((${{{UNTIL}:?}} - $(date +%s)))"
        yield f'[ "$left" -gt 0 ] || {{ echo "{over}"; exit 1; }}'
        yield f'timeout --signal=TERM --kill-after=60 "$left" {command}'
        yield "status=$?"
        yield f'[ "$status" -ne {_TIMED_OUT} ] || {{ echo "{over}"; exit 1; }}'
    yield "# 0: every unit is published, by whomever. The first worker proves it before its machine goes."
    yield 'if [ "$status" -eq 0 ] && [ "${SKYPILOT_JOB_RANK:-0}" -eq 0 ]; then'
    yield f"    exec {shlex.join(('assay', 'verify', job.run))}"
    yield "fi"
    yield 'exit "$status"'


def check(text: str) -> list[str]:
    """What is wrong with a task that SkyPilot itself would take."""
    task = yaml.safe_load(text)
    resources = task["resources"]
    problems = []
    if task.get("num_nodes", 1) != 1:
        problems.append(
            "num_nodes is above 1: one machine that is taken away would restart all; use --num-jobs"
        )
    if DRAINED not in resources.get("job_recovery", {}).get("recover_on_exit_codes", []):
        problems.append(f"a worker that drains would not come back; add {DRAINED} to recover_on_exit_codes")
    places = [resources.get("infra", ""), *(each.get("infra", "") for each in resources.get("any_of", []))]
    is_free = not any(places) or any(each.split("/")[0].lower() in OWN_NAMES for each in places)
    name = str(resources.get("accelerators", "")).partition(":")[0]
    if name and not is_free and name not in {gpu.skypilot for gpu in GPUS}:
        problems.append(f"accelerator {name!r} is not known, and SkyPilot would look for it for ever")
    if any(value is not None for value in task.get("secrets", {}).values()):
        problems.append("a secret has its value in the file; leave it empty and give it with --secret")
    if any(str(folder).startswith("s3://") and "mode" not in mount for folder, mount in _copies(task)):
        problems.append("a bucket is mounted; a run needs its URL, and copies need mode: COPY")
    return problems


def _copies(task: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for mount in (task.get("file_mounts") or {}).values():
        if isinstance(mount, dict):
            yield mount.get("source", ""), mount


def refuse(job: Job, settings: SkyPilotSettings) -> None:
    """Raise UsageError for a kind of GPU that is not known, or a run in a folder that is only copied."""
    if job.gpus:
        _gpu(job, settings)
    for folder in settings.mounts("copies"):
        if job.run.startswith(f"{folder.rstrip('/')}/") or job.run == folder:
            msg = f"run {job.run} is in a copy that each machine has of its own; give the run's URL, s3://bucket/run"
            raise UsageError(msg)


def submit(text: str, job: Job, settings: SkyPilotSettings, _: Say) -> str:
    """Launch the managed jobs; returns their numbers, as SkyPilot writes them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{job.name}.yaml"
        file.write_text(text, encoding="utf-8")
        command = start(settings, str(file))
        said = call_tool(
            ["sh", "-c", command] if UNTIL in command else shlex.split(command),
            "",
            found_at="in the environment that has SkyPilot",
            tool="sky",
            seconds=SUBMIT_SECONDS,
        )
    found = re.search(r"(?:IDs?|ID:)\s*:?\s*([\d,\s-]*\d)", re.sub(r"\x1b\[[0-9;]*m", "", said))
    return found[1].strip() if found else said


def start(settings: SkyPilotSettings, file: str) -> str:
    """How to submit a file by hand."""
    words = ["sky", "jobs", "launch", "--yes", "--detach-run"]
    if settings.pool is not None:
        words += ["--pool", settings.pool]
    words += ["--num-jobs", str(settings.workers)]
    words += [word for name in settings.env for word in ("--secret", name)]
    until = ""
    if settings.hours is not None:
        until = f' --env {UNTIL}="$(($(date +%s) + {round(settings.hours * 3600)}))"'
    return f"{shlex.join(words)}{until} {shlex.quote(file)}"


def follow(_: Job, __: SkyPilotSettings, submitted: str | None) -> Sequence[str]:
    """The jobs, and the log of the first."""
    first = re.split(r"\D", submitted)[0] if submitted else "JOB"
    return "sky jobs queue", f"sky jobs logs {first or 'JOB'}"


def stop(_: Job, __: SkyPilotSettings, submitted: str | None) -> Sequence[str]:
    """Cancel the jobs by number: by name SkyPilot cancels one alone."""
    return (f"sky jobs cancel {_numbers(submitted)}", "sky status")


def _numbers(submitted: str | None) -> str:
    """`1-3, 7` as a shell takes it: `1 2 3 7`; JOBS where they are not known."""
    if not submitted or not re.fullmatch(r"[\d,\s-]+", submitted):
        return "JOBS"
    numbers: list[int] = []
    for part in re.split(r"[,\s]+", submitted.strip()):
        low, _, high = part.partition("-")
        numbers += range(int(low), int(high or low) + 1)
    return " ".join(map(str, numbers))
