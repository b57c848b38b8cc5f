"""A training on a cluster, which may take several attempts: whether there is another, and what it begins with.

A rank that is lost (killed, or its machine gone) ends the attempt of all, and the next goes on from the last
checkpoint. What a rank says of its failure ends the training, as on one machine. Imports no Ray.
"""

import signal
from collections.abc import Callable

from assay.errors import AssayError, WorkError
from assay.exits import INTERRUPTED
from assay.processes import Json
from assay.train.launch import describe_loss, error_of

MOST_IN_A_ROW = 3
"""Attempts that lost a rank and left no newer checkpoint, after which the training is given up."""


class Attempts:
    """What the driver knows of a training, from what the ranks say."""

    def __init__(
        self,
        job: Json,
        *,
        num_processes: int,
        newest: Callable[[], str | None],
        way_out: Callable[[], str],
        on_event: Callable[[Json], None],
        say: Callable[[str], None],
    ) -> None:
        """`job` are the settings; `newest` names the last checkpoint, `way_out` says how to go on by hand."""
        self.result: Json | None = None
        """What rank 0's body returned, under `value`."""
        self.error: AssayError | None = None
        """Why there is no other attempt."""
        self.ids: list[str] = []
        """Of the attempts that began."""
        self._job = job
        self._num_processes = num_processes
        self._newest = newest
        self._way_out = way_out
        self._on_event = on_event
        self._say = say
        self._has_trained = False
        """Whether rank 0 has made a step: what an earlier training left is gone, and checkpoints are of this one."""
        self._num_in_a_row = 0
        self._newest_before: str | None = None
        self._failures: dict[int, Json] = {}
        self._ends: dict[int, Json] = {}
        self._lost: dict[int, str] = {}

    def begin(self, attempt: str) -> Json:
        """What the ranks of a new attempt are told: the job, None where the training is over; earlier attempts."""
        if self.ids and not self.is_over:
            self._judge()
        if self.is_over:
            return {"job": None, "earlier": self.ids}
        earlier = list(self.ids)
        self.ids.append(attempt)
        self._newest_before = self._newest()
        self._failures.clear()
        self._ends.clear()
        self._lost.clear()
        return {
            "job": {**self._job, "resume": self._job["resume"] or self._has_trained},
            "earlier": earlier,
        }

    def take(self, rank: int, event: Json) -> None:
        """What a rank of this attempt said: events of its process, then how that ended."""
        match event:
            case {"event": "failed"}:
                self._failures.setdefault(rank, event)
            case {"event": "ended"}:
                self._ends[rank] = event
            case {"event": "result"} if rank == 0:
                self.result = event
            case _ if rank == 0:
                self._has_trained |= event["event"] == "progress"
                self._on_event(event)

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do: it is trained, whatever became of other ranks, or it failed."""
        return self.result is not None or self.error is not None

    @property
    def is_broken(self) -> bool:
        """Whether the attempt has lost a rank, so that only another one can go on."""
        return bool(self._lost) or any(end["returncode"] for end in self._ends.values())

    def lose(self, rank: int, why: str) -> None:
        """Ray has lost the worker of a rank, in these words."""
        self._lost[rank] = why

    @property
    def unsaved(self) -> AssayError | None:
        """The failure to write a checkpoint, where there was one: disk full or the like."""
        for rank, failure in self._failures.items():
            if failure["kind"] == "StorageError":
                return error_of(self._name(rank), failure, self._way_out)
        return None

    def end(self) -> AssayError | None:
        """The error of the training once there are no attempts any more; None where it ended well."""
        if not self.is_over:
            self._judge()
        if not self.is_over:
            self.error = WorkError(f"the attempts ended without a result; {self._way_out()}")
        return None if self.result is not None else self.error

    def _judge(self) -> None:
        """Decide of the attempt that has ended whether another follows it."""
        loss = self._loss()
        if loss is None:
            rank, failure = next(iter(self._failures.items()), (0, None))
            self.error = (
                WorkError(f"{self._name(rank)} ended and did not say why; {self._way_out()}")
                if failure is None
                else error_of(self._name(rank), failure, self._way_out)
            )
            return
        self._num_in_a_row = self._num_in_a_row + 1 if self._newest() == self._newest_before else 1
        if self._num_in_a_row == MOST_IN_A_ROW:
            self.error = WorkError(
                f"{loss}, {MOST_IN_A_ROW} times in a row without a checkpoint; {self._way_out()}"
            )
            return
        self._say(f"{loss}; starting again from the last checkpoint")

    def _loss(self) -> str | None:
        """The first rank that ended and was neither asked to nor said why; None where there is none.

        By abort(3) C++ libraries die of a peer: such an end counts where there is nothing else.
        """
        silent = [
            (int(end["returncode"]), rank, end)
            for rank, end in self._ends.items()
            if end["returncode"] and not end["was_asked"] and rank not in self._failures
        ]
        for returncode, rank, end in sorted(silent, key=lambda each: each[0] == -signal.SIGABRT):
            if returncode == -signal.SIGABRT and (self._failures or self._lost):
                break
            name = f"{self._name(rank)} on {end['host']}"
            if returncode == INTERRUPTED:
                return f"{name} was stopped by SIGTERM"
            return describe_loss(name, returncode, end["tail"])
        gone = next((rank for rank in self._lost if rank not in self._ends), None)
        return None if gone is None else f"{self._name(gone)} was lost ({self._lost[gone]})"

    def _name(self, rank: int) -> str:
        return f"rank {rank} of {self._num_processes}"
