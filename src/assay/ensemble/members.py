"""A member at work: its view of puzzles, its model's passes in pieces that fit, its answers in the puzzles' own digits.

Axes: N puzzles, K steps, S cells.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from assay.ensemble.grids import Bools, Grids
from assay.sudoku.views import View

Seeds = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Passes:
    """What a model says of N puzzles as it saw them."""

    grids_KNS: Grids
    """The grid of each step."""
    valid_KN: Bools
    """Whether it is full and keeps the rules and the givens; `checked` of the puzzles as the model saw them."""
    q_halt_N: NDArray[np.float32]
    """Of the last step, as all below."""
    q_continue_N: NDArray[np.float32]
    halted_N: Bools
    """Whether it would stop there."""


class Solver(Protocol):
    """A model that answers puzzles. One thread at a time."""

    def solve(self, puzzles_NS: Grids, seeds_N: Seeds | None) -> Passes:
        """What it says; a puzzle's answer does not depend on those beside it, but for rounding.

        `seeds_N`: of the noise of each puzzle; None without noise.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointAnswers:
    """What a member says of N puzzles, in their own digits."""

    grids_NS: Grids
    """At the last step."""
    right_N: Bools
    valid_N: Bools
    first_valid_step_N: NDArray[np.int32]
    """From 1 on; 0 where no step's grid is valid."""
    first_valid_right_N: Bools
    passes: Passes


def noise_seeds(rows_N: NDArray[np.int64], member_seed: int) -> Seeds:
    """A seed for each puzzle of one member, of its row in the split and the member's own: batches decide nothing."""
    found = [
        int.from_bytes(
            blake2b(f"{member_seed}:{row}".encode(), digest_size=8).digest(), "little", signed=True
        )
        for row in rows_N.tolist()
    ]
    return np.array(found, dtype=np.int64)


def ask(
    solver: Solver, puzzles_NS: Grids, solutions_NS: Grids, *, view: View, seeds_N: Seeds | None = None
) -> CheckpointAnswers:
    """The answers of the member that is `solver` with this view of the puzzles."""
    passes = solver.solve(view.show(puzzles_NS).astype(np.uint8, copy=False), seeds_N)
    back = view.inverse()
    first_N = passes.valid_KN.argmax(axis=0)
    has_valid_N = passes.valid_KN.any(axis=0)
    first_NS = back.show(passes.grids_KNS[first_N, np.arange(len(puzzles_NS))])
    last_NS = back.show(passes.grids_KNS[-1]).astype(np.uint8, copy=False)
    return CheckpointAnswers(
        grids_NS=last_NS,
        right_N=(last_NS == solutions_NS).all(axis=1),
        valid_N=passes.valid_KN[-1],
        first_valid_step_N=np.where(has_valid_N, first_N + 1, 0).astype(np.int32),
        first_valid_right_N=(first_NS == solutions_NS).all(axis=1) & has_valid_N,
        passes=passes,
    )


def in_pieces(
    solve: Callable[[Grids, Seeds | None], Passes],
    puzzles_NS: Grids,
    seeds_N: Seeds | None,
    most_rows: int,
    is_out_of_memory: Callable[[Exception], bool],
) -> tuple[Passes, int]:
    """What `solve` says of pieces of at most `most_rows` puzzles, and the size of piece that fitted.

    A piece that runs out of memory is tried again at half its size, down to a single puzzle; then its error is raised.
    """
    found: list[Passes] = []
    start = 0
    while start < len(puzzles_NS):
        piece = puzzles_NS[start : start + most_rows]
        try:
            found.append(solve(piece, None if seeds_N is None else seeds_N[start : start + most_rows]))
        except Exception as error:
            if not is_out_of_memory(error) or len(piece) == 1:
                raise
            most_rows = -(-len(piece) // 2)
            continue
        start += len(piece)
    return joined(found), most_rows


def joined(several: list[Passes]) -> Passes:
    """Passes of puzzles one after the other, as one."""
    if len(several) == 1:
        return several[0]
    return Passes(
        grids_KNS=np.concatenate([each.grids_KNS for each in several], axis=1),
        valid_KN=np.concatenate([each.valid_KN for each in several], axis=1),
        q_halt_N=np.concatenate([each.q_halt_N for each in several]),
        q_continue_N=np.concatenate([each.q_continue_N for each in several]),
        halted_N=np.concatenate([each.halted_N for each in several]),
    )


def rows_that_fit(
    peak_bytes: Callable[[int], int], *, wanted: int, limit_bytes: int, probes: tuple[int, int] = (16, 64)
) -> int:
    """How many rows a forward pass may have, `wanted` at the most, so that it keeps within a limit; 0 for none.

    `peak_bytes` runs a pass of so many rows and says what memory was taken at its height, all that was held before
    included. Memory is taken to grow in a straight line; what the line promises is tried, and lowered until it holds.
    """
    few, more = (min(each, wanted) for each in probes)
    low = peak_bytes(few)
    if low > limit_bytes:
        return 0
    if more == few:
        return few
    slope = max((peak_bytes(more) - low) / (more - few), 1e-9)
    rows = min(wanted, few + int((limit_bytes - low) / slope))
    while rows > few and peak_bytes(rows) > limit_bytes:
        rows = max(few, rows * 7 // 8)
    return rows
