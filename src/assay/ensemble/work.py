"""How a batch of puzzles becomes a part: every member in turn, each on the puzzles that are not settled.

A member that fails is left out of the batch, counted and named; the others go on. What a batch holds decides its
rows alone, so any number of workers gives the same. Imports no torch.
"""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from assay.ensemble.grids import Bools
from assay.ensemble.kind import ENSEMBLE
from assay.ensemble.members import Solver, ask, noise_seeds
from assay.ensemble.outcomes import Outcomes
from assay.ensemble.rows import SCHEMA, to_batch
from assay.ensemble.settings import Settled
from assay.errors import RefusedError
from assay.runs.manifest import Manifest
from assay.runs.pipeline import StopRequestedError
from assay.runs.plan import Unit
from assay.sudoku.puzzles import PuzzleSplit
from assay.telemetry import Counters

OpenSolver = Callable[[str], Solver]
"""The solver of a checkpoint's file."""


@dataclass(kw_only=True, slots=True)
class Batch:
    """A batch under way."""

    unit: Unit
    outcomes: Outcomes
    settled_N: Bools
    failures: dict[int, str] = field(default_factory=dict)
    """What a member failed of, by its number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A member's turn at a batch."""

    batch: Batch
    member: int


class EnsembleWork:
    """Runs the batches of an ensemble run. `prepare`, `compute` and `finish` may run in three threads."""

    def __init__(
        self,
        manifest: Manifest,
        puzzles: PuzzleSplit,
        open_solver: OpenSolver,
        *,
        device: str,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Work for the run of `manifest` on its puzzles; `open_solver` is called when a member's turn comes."""
        self.counters = Counters()
        self._identity, self._record = manifest.read(ENSEMBLE)
        self._views = [member.view for member in self._identity.members]
        self._puzzles = puzzles
        self._open_solver = open_solver
        self._solvers: dict[str, Solver | Exception] = {}
        self._device = device
        self._should_stop = should_stop
        self._batch: Batch | None = None
        self._worker = f"{socket.gethostname()}-{os.getpid()}-{device}"

    def load(self) -> str:
        """A line on what runs where; checkpoints are opened at their turns."""
        return f"{len(self._record.members)} members on {self._device}, {self._identity.precision}"

    def prepare(self, unit: Unit) -> Iterator[Turn]:
        """The turn of each member."""
        num_cells = self._puzzles.description.seq_len
        outcomes = Outcomes.none(unit.num_rows, len(self._identity.members), num_cells)
        batch = Batch(unit=unit, outcomes=outcomes, settled_N=np.zeros(unit.num_rows, dtype=np.bool_))
        for member in range(len(self._identity.members)):
            yield Turn(batch=batch, member=member)

    def compute(self, chunk: Turn) -> Turn:
        """Ask the member, and note what is settled now."""
        if self._should_stop():
            raise StopRequestedError
        batch, m = chunk.batch, chunk.member
        rows = np.flatnonzero(~batch.settled_N)
        try:
            self._ask(self._solver(self._record.members[m].path), batch, m, rows)
        except (RefusedError, StopRequestedError):
            raise
        except Exception as error:  # noqa: BLE001  whatever a member dies of, the others go on
            batch.failures[m] = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            batch.outcomes.failed_NM[rows, m] = True
        return chunk

    def finish(self, unit: Unit, computed: Iterator[Turn]) -> Iterator[pa.RecordBatch]:
        """The rows of the batch's part, by puzzle and member."""
        num_members = len(self._identity.members)
        batch: Batch | None = None
        for turn in computed:
            batch = turn.batch
            self.counters.members += 1
            if turn.member < num_members - 1:
                yield pa.RecordBatch.from_pylist([], schema=SCHEMA)  # so that the driver hears of each member
        assert batch is not None, "a run has members"
        self._batch = batch
        self.counters.rows += unit.num_rows
        yield to_batch(batch.outcomes, unit.start)

    @property
    def rows_in(self) -> int:
        """Puzzles of the batch just finished."""
        return 0 if self._batch is None else self._batch.unit.num_rows

    def stats(self) -> dict[str, Any]:
        """Figures of the batch just finished, for the part's footer."""
        failures = {} if self._batch is None else self._batch.failures
        return {
            "num_rows": self.rows_in,
            "failures": {str(member): reason for member, reason in failures.items()},
            "worker": self._worker,
        }

    def _solver(self, path: str) -> Solver:
        """The solver, opened once; raises what kept it from being opened, which is not tried again."""
        if path not in self._solvers:
            try:
                self._solvers[path] = self._open_solver(path)
            except RefusedError:
                raise
            except Exception as error:  # noqa: BLE001  raised below, and again at each turn of its members
                self._solvers[path] = error
        found = self._solvers[path]
        if isinstance(found, Exception):
            raise found
        return found

    def _ask(self, solver: Solver, batch: Batch, m: int, rows: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        if not len(rows):
            return
        place = batch.unit.start + rows
        inputs = np.asarray(self._puzzles.inputs[place], dtype=np.uint8)
        labels = np.asarray(self._puzzles.labels[place], dtype=np.uint8)
        seed = self._identity.members[m].noise_seed
        seeds_N = None if seed is None else noise_seeds(place, seed)
        answers = ask(solver, inputs, labels, view=self._views[m], seeds_N=seeds_N)
        found = batch.outcomes
        found.ran_NM[rows, m] = True
        found.grids_NMS[rows, m] = answers.grids_NS
        found.right_NM[rows, m] = answers.right_N
        found.valid_NM[rows, m] = answers.valid_N
        found.first_valid_step_NM[rows, m] = answers.first_valid_step_N
        found.first_valid_right_NM[rows, m] = answers.first_valid_right_N
        found.halted_NM[rows, m] = answers.passes.halted_N
        found.q_halt_NM[rows, m] = answers.passes.q_halt_N
        found.q_continue_NM[rows, m] = answers.passes.q_continue_N
        batch.settled_N[rows] = is_settled(self._identity.settled, answers.valid_N, answers.right_N)


def is_settled(settled: Settled, valid_N: Bools, right_N: Bools) -> Bools:
    """Which puzzles later members leave out."""
    return {"checked": valid_N, "right": right_N, "never": np.zeros_like(valid_N)}[settled]
