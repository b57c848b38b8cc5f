"""What the commands below `assay launch` share: the command behind `--` is parsed as it will be by every worker."""

import shlex
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from assay.cli import flags
from assay.cli.help import find, parser_of, spelled
from assay.cli.verb import Group, Listed, say
from assay.cli.verbs import ASSAY
from assay.errors import UsageError

if TYPE_CHECKING:
    from assay.fleet.launch.job import Work
    from assay.fleet.launch.settings import LaunchSettings

PLACES = {
    **{
        name: name
        for name in (
            "sources",
            "bundle",
            "corpus",
            "anchors",
            "guard_bundle",
            "cache",
            "data",
            "output",
            "report",
        )
    },
    "checkpoints": "checkpoint_paths",
}
"""Settings of commands on runs that name what a worker opens, beside the run, each with what has its paths."""


def launch_with(name: str, settings: "LaunchSettings") -> int:
    """Print or write the job file, submit it where asked to, and say how to follow and how to stop it."""
    from assay.fleet.launch.launcher import launch
    from assay.fleet.launch.launchers import LAUNCHERS

    launcher = LAUNCHERS[name]
    launched = launch(launcher, settings, read_work(settings.command), say=say)
    if settings.out is None and not settings.submit:
        flags.stdout(launched.text.rstrip("\n"))
    if launched.submitted is not None:
        flags.stdout(launched.submitted)
    else:
        say(f"submit  {launcher.start(settings, settings.out or 'FILE')}")
    for command in launched.follow:
        say(f"follow  {command}")
    for command in launched.stop:
        say(f"stop    {command}")
    return 0


def read_work(command: Sequence[str]) -> "Work":
    """What a command works on, its words parsed by its own flags; raises UsageError for one that no fleet can share."""
    from assay.fleet.launch.job import Work

    words = [word for word in command if word != "--debug"]
    name, node, rest = find(ASSAY, words[1:] if words[:1] == ["assay"] else words)
    verb = node.load() if isinstance(node, Listed) else None
    if verb is None or isinstance(node, Group) or not verb.is_of_a_run:
        shared = [spelled(each)[6:] for each, node in ASSAY.walk() if _is_shared(node)]
        msg = f"{spelled(name)} is not a command that machines share; there is {', '.join(shared)}"
        raise UsageError(msg)
    settings: Any = flags.parse_settings(parser_of(name, node.summary, verb), verb.settings, rest)
    given = {field.name for field in fields(settings)}
    if "world_size" not in given:
        msg = f"{spelled(name)} works on one machine; its steps on runs are shared by assay join RUN"
        raise UsageError(msg)
    for flag in ("rank", "world_size"):
        if getattr(settings, flag) is not None:
            msg = (
                f"--{flag.replace('_', '-')} is not for a command that is launched; each worker finds its own"
            )
            raise UsageError(msg)
    if getattr(settings, "dry_run", False):
        raise UsageError(
            "--dry-run is not for a command that is launched; run the command itself with it, here"
        )
    words = [*name, *rest, *(word for word in command if word == "--debug")]
    if settings.executor != "static":
        if any(word.startswith("--executor") for word in rest):
            msg = f"executor is {settings.executor!r}, and workers that are launched share a run; leave --executor out"
            raise UsageError(msg)
        if name != ("join",):  # which finds its place by itself
            words += ["--executor", "static"]
    if settings.ray_address is not None:
        msg = (
            f"ray_address is {settings.ray_address!r}, and workers that are launched use no Ray; leave it out"
        )
        raise UsageError(msg)
    return Work(
        command=tuple(words),
        run=settings.run,
        places={
            "config": _config_files(rest),
            **{place: _paths(getattr(settings, PLACES[place])) for place in PLACES if place in given},
        },
    )


def _is_shared(node: Listed | Group) -> bool:
    verb = node.load() if isinstance(node, Listed) else None
    names = {field.name for field in fields(verb.settings)} if verb is not None else set()
    return verb is not None and verb.is_of_a_run and "world_size" in names


def _config_files(words: Sequence[str]) -> tuple[str, ...]:
    """The config file that a command names: its workers read it too."""
    pairs = zip(words, [*words[1:], ""], strict=True)
    flags_with_values = [word.split("=", 1) if "=" in word else [word, after] for word, after in pairs]
    return tuple(value for flag, value in flags_with_values if flag == "--config")


def _paths(value: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value or ()


def example(name: str, options: str) -> str:
    """A line for the help of a launcher."""
    command = ("score", "s3://b/corpus/*.parquet", "--bundle", "/model", "--run", "s3://b/run")
    return f"example: assay launch {name} {options} --shared /model -- {shlex.join(command)}"
