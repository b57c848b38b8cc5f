"""One value a job: the command that every worker runs, how many there are and what each needs.

What cannot work on many machines is refused here, whatever the launcher: a run that others cannot see, a name that
is not valid everywhere, a credential in plain sight.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from assay.data.storage import check_url, is_object_url, local_path
from assay.errors import UsageError
from assay.fleet.launch.settings import LaunchSettings
from assay.runs.ranks import RANK_VARIABLES

MOST_NAME = 63
"""Characters of a DNS label (RFC 1123), which names of pods and hosts are."""
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_PLACE = {name for launcher in RANK_VARIABLES for name in (launcher.rank, *launcher.world_sizes)}
_MADE = {"run", "cache", "output", "report"}
"""Places that a command makes where they are not there."""
_GLOB = re.compile(r"[*?\[]")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a launched command works on, as its own settings say."""

    command: tuple[str, ...]
    """Its words, without `assay`; the same for every worker, which finds its rank in the environment."""
    run: str
    """Path or URL of the run."""
    places: Mapping[str, Sequence[str]]
    """Every other path or URL that a worker opens, by the setting that names it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """So many workers that run one command."""

    name: str
    """A DNS label that stays one with `-<rank>` behind it."""
    command: tuple[str, ...]
    """Words after `assay`, the same for every worker."""
    run: str
    """URL or absolute path of the run."""
    workers: int
    gpus: int
    """Of a worker."""
    gpu_type: str | None
    cpus: int
    """Of a worker."""
    memory_gib: int
    """Of a worker."""
    env: tuple[str, ...]
    """Names of the environment variables that workers need."""


def make_job(settings: LaunchSettings, work: Work) -> Job:
    """The job that settings and command ask for; raises UsageError for what cannot work on many machines."""
    for variable in settings.env:
        if not _VARIABLE.fullmatch(variable):
            shown = variable.partition("=")[0]
            msg = f"env has {shown!r} with more than a name; give names alone, values are never written into a job"
            raise UsageError(msg)
        if variable in _PLACE:
            msg = f"env has {variable}, which tells a worker its place among the others; leave it out"
            raise UsageError(msg)
    shared = [_shared_folder(folder) for folder in settings.shared_folders()]
    for setting, paths in ({"run": (work.run,)} | dict(work.places)).items():
        for path in paths:
            _refuse_unseen(setting, path, shared)
            if settings.is_submitted_from_the_fleet() and setting not in _MADE:
                _refuse_missing(setting, path)
    return Job(
        name=_name(settings, work.run),
        command=work.command,
        run=work.run,
        workers=settings.workers,
        gpus=settings.gpus,
        gpu_type=settings.gpu_type,
        cpus=settings.cpus,
        memory_gib=settings.memory_gib,
        env=settings.env,
    )


def _shared_folder(folder: str) -> Path:
    if not PurePosixPath(folder).is_absolute():
        msg = f"shared has {folder!r}, which is relative; write {local_path(folder)}"
        raise UsageError(msg)
    if not (path := local_path(folder)).name:
        msg = f"shared has {folder!r}, the whole disk of a machine; name the folders in it that are shared"
        raise UsageError(msg)
    return path


def _refuse_unseen(setting: str, path: str, shared: Sequence[Path]) -> None:
    """Raise UsageError for a path that is not the same file on every machine."""
    if is_object_url(path):
        check_url(path)
        return
    place = local_path(path)
    if not path.startswith(("/", "~", "file://")):
        msg = f"{setting} is {path!r}, and workers start in folders of their own; write {place}"
        raise UsageError(msg)
    if not any(place.is_relative_to(folder) for folder in shared):
        url = "give a URL (s3://bucket/...), or " if setting != "bundle" else ""
        msg = (
            f"{setting} {path} is a path of this machine, which others may not see; {url}name the shared disk or "
            f"the folder of the image that it is in: --shared {place.parent if place.parent.name else place}"
        )
        raise UsageError(msg)


def _refuse_missing(setting: str, path: str) -> None:
    """Raise UsageError for a path that is not there, on a disk that the workers share with this machine."""
    if not is_object_url(path) and not _GLOB.search(path) and not local_path(path).exists():
        msg = f"{setting} {path} is not there, and every worker would find that out; check the path"
        raise UsageError(msg)


def _name(settings: LaunchSettings, run: str) -> str:
    """The name as given, or made of the run's last folder; raises UsageError for one that is not a DNS label."""
    most = MOST_NAME - len(f"-{settings.workers - 1}")
    if settings.name is None:
        last = re.sub(r"[^a-z0-9]+", "-", PurePosixPath(run).name.lower()).strip("-")
        return f"assay-{last}"[:most].rstrip("-")
    if not _LABEL.fullmatch(settings.name) or len(settings.name) > most:
        msg = (
            f"name is {settings.name!r}; it must be a DNS label, small letters, digits and dashes, of at most {most} "
            f"characters with {settings.workers:,} workers; set for example --name assay-scores"
        )
        raise UsageError(msg)
    return settings.name
