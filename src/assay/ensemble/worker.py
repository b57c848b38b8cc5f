"""The process that runs members: `python -m assay.ensemble.worker RUN --device cuda:0`."""

import sys
from collections.abc import Callable
from pathlib import Path

from assay.ensemble.kind import ENSEMBLE
from assay.ensemble.members import Solver
from assay.ensemble.work import EnsembleWork
from assay.errors import RefusedError
from assay.runs.run import Run
from assay.runs.worker import Mailbox, worker_command
from assay.sudoku.puzzles import read_split


def open_ensemble_work(
    run: Run,
    *,
    device: str,
    num_threads: int | None,
    should_stop: Callable[[], bool] = lambda: False,
) -> EnsembleWork:
    """The work of an ensemble run on one device; checkpoints are opened when their turn comes.

    A checkpoint that is no longer the one of the plan raises RefusedError at its turn.
    """
    identity, record = run.manifest.read(ENSEMBLE)
    planned = {
        member.path: fixed.checkpoint for member, fixed in zip(record.members, identity.members, strict=True)
    }

    def open_one(path: str) -> Solver:
        import torch

        from assay.ensemble.reasoners import limit_memory, open_solver

        if num_threads is not None:
            torch.set_num_threads(num_threads)
        limit_memory(device, record.gpu_memory_limit)
        solver = open_solver(
            path,
            device=device,
            precision=identity.precision,
            num_steps=identity.num_steps,
            batch_size=identity.batch_size,
            memory_limit=record.gpu_memory_limit,
            noise=identity.noise,
        )
        if solver.fingerprint != planned[path]:
            raise RefusedError(
                f"{path} is another checkpoint than when the run was planned; put it back, or use another --run"
            )
        return solver

    return EnsembleWork(
        run.manifest,
        read_split(Path(record.data), record.split),
        open_one,
        device=device,
        should_stop=should_stop,
    )


def main() -> int:
    """Parse the driver's arguments and serve units until told to stop."""

    def open_work(run: Run, mailbox: Mailbox, device: str, num_threads: int | None) -> EnsembleWork:
        return open_ensemble_work(
            run, device=device, num_threads=num_threads, should_stop=mailbox.should_stop
        )

    return worker_command(__doc__, open_work)


if __name__ == "__main__":
    sys.exit(main())
