"""Jobs over splits and seeds within a time limit: what is done is on the disk, what is not is left out."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

from assay.errors import AssayError

Lines = list[dict[str, Any]]


def run_jobs(
    jobs: Sequence[Any],
    work: Callable[[Any], Lines],
    *,
    num_processes: int,
    initializer: Callable[..., None],
    initargs: tuple[object, ...],
    until: float,
) -> Iterator[Lines]:
    """The lines of each job as it ends; at `until` (of `time.monotonic`) those still at work are stopped.

    A job that fails says why and gives no lines: the others are worth having. Processes share the cores: each one's
    libraries are told to take as many threads as come to it.
    """
    threads = str(max(1, (os.cpu_count() or 1) // num_processes))
    os.environ |= {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
    with ProcessPoolExecutor(
        num_processes, mp_context=get_context("spawn"), initializer=initializer, initargs=initargs
    ) as pool:
        waiting = {pool.submit(work, job) for job in jobs}
        while waiting:
            done, waiting = wait(
                waiting, timeout=max(0.1, until - time.monotonic()), return_when=FIRST_COMPLETED
            )
            for future in done:
                try:
                    yield future.result()
                except (AssayError, RuntimeError, ValueError, OSError) as error:
                    print(f"a job failed: {type(error).__name__}: {error}", flush=True)
            if waiting and time.monotonic() > until:
                print(f"the time is up: {len(waiting)} of {len(jobs)} jobs are left", flush=True)
                for (
                    process
                ) in active_children():  # a training takes SIGTERM for a wish and goes on for a while
                    process.kill()
                pool.shutdown(cancel_futures=True)
                return


def append_lines(file: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Add lines of JSON to a file."""
    with file.open("a", encoding="utf-8") as out:
        out.writelines(json.dumps(line) + "\n" for line in lines)


def read_lines(file: Path) -> Lines:
    """The lines of a file; none where there is no file."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
