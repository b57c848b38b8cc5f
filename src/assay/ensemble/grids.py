"""[pure] Which member's grid is taken as the ensemble's: one function a rule, named for what it may use.

Label-free, so that they may score:

    checked           the first grid that keeps the givens and the puzzle's rules
    q-selected        the grid of the member that is surest to be done, by q_halt
    vote              the whole grid that most members give, then the higher mean q_halt (the vote of ARC solvers)
    halted-majority   the whole grid of more than half of a checkpoint's halted passes; of several such the one of most
                      checkpoints, then the higher mean q_halt

With labels, so that they measure and never choose:

    any-correct       whether one member is right: an oracle's pass@k
    halted-majority-any   whether more than half of some checkpoint's halted passes are right

Each takes what the members that ran gave, and answers with a member, or `NONE` where it takes no grid. Where puzzles
have one solution, what `checked` takes is right exactly where `any-correct` holds. Ties go to the first member.

Axes: N puzzles, M members, S cells.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from assay.metrics import sigmoid

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]
Grids = NDArray[np.uint8]
Members = NDArray[np.int64]

NONE = -1
"""In place of a member: the rule takes no grid."""
LabelFree = Literal["checked", "checked-any-step", "q-selected", "vote", "halted-majority"]
"""Rules that may score."""
WithLabels = Literal["any-correct", "halted-majority-any"]
"""Rules that need the answers, and so may only measure."""


def checked(is_valid_NM: Bools) -> Members:
    """The first member [N] whose grid is valid: full, by the rules, with the givens kept.

    The valid grids of any step, in place of those of the last, make the rule `checked-any-step`.
    """
    return _first(is_valid_NM)


def q_selected(q_halt_NM: Floats, ran_NM: Bools) -> Members:
    """The member [N] with the largest q_halt."""
    best_N = np.where(ran_NM, q_halt_NM, -np.inf).argmax(axis=1)
    return np.where(ran_NM.any(axis=1), best_N, NONE)


def vote(grids_NMS: Grids, q_halt_NM: Floats, ran_NM: Bools, *, top: int = 1) -> Members:
    """The members [N, top] with the grids of most votes, no two the same; the first that gives each.

    Votes are of whole grids; of equally many the higher mean sigmoid(q_halt) goes first.
    """
    equal_NMM = _equal(grids_NMS, ran_NM)
    votes_NM = equal_NMM.sum(axis=2)
    mean_NM = _mean_over(equal_NMM, sigmoid(q_halt_NM))
    left_NM = ran_NM.copy()
    chosen = []
    for _ in range(top):
        best_N = _most(votes_NM, mean_NM, left_NM)
        chosen.append(best_N)
        left_NM &= ~equal_NMM[np.arange(len(best_N)), best_N] & (best_N != NONE)[:, None]
    return np.stack(chosen, axis=1)


def halted_majority(
    grids_NMS: Grids, q_halt_NM: Floats, halted_NM: Bools, checkpoint_M: Sequence[int]
) -> Members:
    """A member [N] whose grid more than half of the halted passes of its checkpoint give."""
    equal_NMM = _equal(grids_NMS, halted_NM)
    checkpoint = np.asarray(checkpoint_M)
    same_MM = checkpoint[:, None] == checkpoint[None, :]
    votes_NM = (equal_NMM & same_MM).sum(axis=2)
    halted_of_own_NM = (halted_NM[:, None, :] & same_MM).sum(axis=2)
    has_majority_NM = halted_NM & (2 * votes_NM > halted_of_own_NM)
    # a checkpoint has one majority at the most: its first member stands for it
    first_NM = has_majority_NM & ~(np.tril(same_MM, -1) & has_majority_NM[:, None, :]).any(axis=2)
    backing_NM = (equal_NMM & first_NM[:, None, :]).sum(axis=2)
    return _most(backing_NM, _mean_over(equal_NMM, sigmoid(q_halt_NM)), first_NM)


def any_correct(is_correct_NM: Bools) -> Bools:
    """Whether [N] one member is right."""
    return np.asarray(is_correct_NM.any(axis=1))


def halted_majority_any(is_correct_NM: Bools, halted_NM: Bools, checkpoint_M: Sequence[int]) -> Bools:
    """Whether [N] more than half of some checkpoint's halted passes are right; it has none where none halted."""
    checkpoint = np.asarray(checkpoint_M)
    found_N = np.zeros(len(is_correct_NM), dtype=np.bool_)
    for each in np.unique(checkpoint):
        own_M = checkpoint == each
        num_right_N = (is_correct_NM & halted_NM)[:, own_M].sum(axis=1)
        found_N |= 2 * num_right_N > halted_NM[:, own_M].sum(axis=1)
    return found_N


def is_right(chosen_N: Members, is_correct_NM: Bools) -> Bools:
    """Whether [N] the member that a rule took is right; not where it took none."""
    return np.asarray(is_correct_NM[np.arange(len(chosen_N)), chosen_N] & (chosen_N != NONE))


def _first(holds_NM: Bools) -> Members:
    return np.where(holds_NM.any(axis=1), holds_NM.argmax(axis=1), NONE)


def _equal(grids_NMS: Grids, counts_NM: Bools) -> Bools:
    """Whether two members that count give the same grid, [N, M, M]."""
    num_members = grids_NMS.shape[1]
    equal_NMM = np.empty((len(grids_NMS), num_members, num_members), dtype=np.bool_)
    for m in range(num_members):  # a member at a time: N x M x M x S at once would be gigabytes
        equal_NMM[:, m] = (grids_NMS == grids_NMS[:, m : m + 1]).all(axis=2)
    equal_NMM &= counts_NM[:, None, :] & counts_NM[:, :, None]
    return equal_NMM


def _mean_over(equal_NMM: Bools, values_NM: Floats) -> NDArray[np.float64]:
    """The mean value of the members with each member's grid.

    Sums run over the values in rising order, so that it is the same bits in any order of the members.
    """
    order_NM = np.argsort(values_NM, axis=1, kind="stable")
    sorted_NM = np.take_along_axis(np.asarray(values_NM, dtype=np.float64), order_NM, axis=1)
    placed_NMM = np.take_along_axis(equal_NMM, order_NM[:, None, :], axis=2)
    total_NM = np.where(placed_NMM, sorted_NM[:, None, :], 0.0).cumsum(axis=2)[:, :, -1]
    mean_NM: NDArray[np.float64] = total_NM / np.maximum(equal_NMM.sum(axis=2), 1)
    return mean_NM


def _most(votes_NM: NDArray[np.integer], mean_NM: Floats, among_NM: Bools) -> Members:
    """The first member of those with most votes, and of these with the highest mean."""
    votes_NM = np.where(among_NM, votes_NM, -1)
    is_most_NM = among_NM & (votes_NM == votes_NM.max(axis=1, keepdims=True))
    best_N = np.where(is_most_NM, mean_NM, -np.inf).argmax(axis=1)
    return np.where(among_NM.any(axis=1), best_N, NONE)
