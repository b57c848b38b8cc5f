"""[pure] What members answered for puzzles, as arrays. Axes: N puzzles, M members, S cells."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.ensemble.grids import Bools, Grids


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcomes:
    """What M members answered for N puzzles; where a member did not run, its values mean nothing."""

    ran_NM: Bools
    failed_NM: Bools
    """It should have run and could not."""
    grids_NMS: Grids
    """Its grid at the last step, in the puzzle's own digits."""
    right_NM: Bools
    """Whether that is the solution, cell by cell."""
    valid_NM: Bools
    """Whether it is full and keeps the rules and the givens."""
    first_valid_step_NM: NDArray[np.int32]
    """The first step whose grid is valid, from 1 on; 0 where none is."""
    first_valid_right_NM: Bools
    """Whether the grid of that step is the solution."""
    halted_NM: Bools
    """Whether the model would have stopped at the last step."""
    q_halt_NM: NDArray[np.float32]
    q_continue_NM: NDArray[np.float32]

    @classmethod
    def none(cls, num_puzzles: int, num_members: int, num_cells: int) -> "Outcomes":
        """Nothing has run."""
        shape = (num_puzzles, num_members)

        def flags() -> Bools:
            return np.zeros(shape, dtype=np.bool_)

        return cls(
            ran_NM=flags(),
            failed_NM=flags(),
            grids_NMS=np.zeros((*shape, num_cells), dtype=np.uint8),
            right_NM=flags(),
            valid_NM=flags(),
            first_valid_step_NM=np.zeros(shape, dtype=np.int32),
            first_valid_right_NM=flags(),
            halted_NM=flags(),
            q_halt_NM=np.zeros(shape, dtype=np.float32),
            q_continue_NM=np.zeros(shape, dtype=np.float32),
        )
