"""`assay prepare books`, disturbed: killed at a step, on a full disk, without a process a try.

`python -m support.disturbed JOBS`, from within `tests/`: a process that has everything imported forks one child a job,
which runs the command with the work of its workers in itself. Prints a list of [status, stdout, stderr].
"""

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

CHANGES = {"os.rename", "os.link", "os.mkdir", "os.remove", "os.truncate"}
"""What an audit hook hears of, before it happens, when names in a folder change."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One try."""

    words: list[str]
    die_at: str | None = None
    """The process kills itself before the first change of a path that has this in it."""
    most_bytes: int | None = None
    """No file grows beyond this, as on a full disk."""


def run_all(jobs, cwd):
    """What came of each job: (status, stdout, stderr), a negative status for a signal."""
    done = subprocess.run(
        [sys.executable, "-m", "support.disturbed", json.dumps([asdict(job) for job in jobs]), str(cwd)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(each) for each in json.loads(done.stdout)]


def _run(job):
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if not child:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os._exit(_command(job))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read())
    return [status, *said]


def _command(job):
    from assay.cli.main import main

    if job.die_at is not None:
        sys.addaudithook(lambda event, details: _die(job.die_at, event, details))
    if job.most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job.most_bytes, resource.RLIM_INFINITY))
    status = main(job.words)
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _die(step, event, details):
    if event in CHANGES and any(
        step in os.fsdecode(each) for each in details if isinstance(each, str | bytes)
    ):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    import pyarrow as pa
    from support.novels import work_here

    from assay.extras import has_package
    from assay.prepare import drawing
    from assay.prepare.chunks import verb

    pa.array([1])  # which imports pandas, where it is installed: once, not in each child
    for module in (
        "assay.prepare.books",
        *(["assay.labelled.near_duplicates"] if has_package("rensa") else []),
    ):
        importlib.import_module(module)
    drawing.place_few = verb.place_few = work_here
    os.chdir(sys.argv[2])
    json.dump([_run(Job(**job)) for job in json.loads(sys.argv[1])], sys.stdout)
