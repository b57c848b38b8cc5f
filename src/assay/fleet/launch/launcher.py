"""What a launcher is, and the steps that all share: make the job, render, check, submit, say what follows."""

import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from assay.errors import UsageError, WorkError
from assay.fleet.launch.job import Job, Work, make_job
from assay.fleet.launch.settings import LaunchSettings

S_contra = TypeVar("S_contra", bound=LaunchSettings, contravariant=True)
S = TypeVar("S", bound=LaunchSettings)
Say = Callable[[str], None]
"""Takes a line for people."""
TOOL_SECONDS = 120.0
"""For a launcher's tool to answer."""


class Launcher(Protocol[S_contra]):
    """One way to start workers on many machines: a module with these functions."""

    def render(self, job: Job, settings: S_contra, /) -> str:
        """The job file. Pure: the same text for the same values."""
        ...

    def check(self, text: str, /) -> Sequence[str]:
        """What is wrong with a job file, a line each, beyond what a schema knows. Pure."""
        ...

    def refuse(self, job: Job, settings: S_contra, /) -> None:
        """Raise UsageError for a job that this launcher cannot start; it may ask the cluster."""
        ...

    def submit(self, text: str, job: Job, settings: S_contra, say: Say, /) -> str:
        """Submit a job file; returns what the launcher calls it. Raises UsageError where its tool is not installed."""
        ...

    def start(self, settings: S_contra, file: str, /) -> str:
        """The command that submits a file by hand."""
        ...

    def follow(self, job: Job, settings: S_contra, submitted: str | None, /) -> Sequence[str]:
        """Commands that show how it goes, given what it is called, or None where it is not submitted yet."""
        ...

    def stop(self, job: Job, settings: S_contra, submitted: str | None, /) -> Sequence[str]:
        """Commands that stop it and lose nothing that is published."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Launched:
    """A job file, and what became of it."""

    job: Job
    text: str
    submitted: str | None
    """What the launcher calls it; None where it was not submitted."""
    follow: tuple[str, ...]
    stop: tuple[str, ...]


def launch(launcher: Launcher[S], settings: S, work: Work, *, say: Say = lambda _: None) -> Launched:
    """Render and check the job, write it to `settings.out`, and submit it where asked to.

    Raises UsageError for what cannot work, before anything is submitted, and WorkError where the launcher's tool
    refuses it.
    """
    job = make_job(settings, work)
    launcher.refuse(job, settings)
    text = launcher.render(job, settings)
    if problems := launcher.check(text):
        raise UsageError(problems[0])
    if settings.out is not None:
        _write(settings.out, text)
    submitted = launcher.submit(text, job, settings, say) if settings.submit else None
    return Launched(
        job=job,
        text=text,
        submitted=submitted,
        follow=(f"assay status {shlex.quote(job.run)}", *launcher.follow(job, settings, submitted)),
        stop=tuple(launcher.stop(job, settings, submitted)),
    )


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"out {path} cannot be written ({error.strerror}); name a file in a folder that is there"
        raise UsageError(msg) from None


def call_tool(
    command: Sequence[str],
    text: str,
    *,
    found_at: str,
    tool: str | None = None,
    seconds: float = TOOL_SECONDS,
) -> str:
    """What a launcher's tool prints when it is given a job file on stdin.

    Raises UsageError where it is not installed (`found_at`: where people have it), and WorkError with its own words
    where it fails. `tool` is the one to look for where a shell starts it.
    """
    tool = tool or command[0]
    if shutil.which(tool) is None:
        msg = (
            f"--submit needs {tool}, which is not on the PATH here; run this {found_at}, or leave --submit out and "
            "submit the file there"
        )
        raise UsageError(msg)
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        msg = f"{tool} did not answer within {seconds:.0f} s; see whether the job was submitted before another try"
        raise WorkError(msg) from None
    if done.returncode:
        msg = f"{tool} failed with status {done.returncode}: {done.stderr.strip() or done.stdout.strip()}"
        raise WorkError(msg)
    return done.stdout.strip()
