"""[pure] What an ensemble run found: counts added up batch by batch, then shares, intervals and curves.

Axes: N puzzles, M members.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from assay.ensemble import grids
from assay.ensemble.grids import Bools, is_right
from assay.ensemble.outcomes import Outcomes
from assay.ensemble.pass_at_k import pass_at_k
from assay.ensemble.settings import Settled

LABEL_FREE = ("checked", "checked-any-step", "q-selected", "vote", "halted-majority")
ORACLES = ("any-correct", "vote-top-2", "halted-majority-any")
"""Rules that look at the answers: they measure, and never score."""
_Z95 = 1.959964
RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """So many of so many, with its interval of 95%."""

    correct: int
    total: int

    @property
    def accuracy(self) -> float | None:
        """The share; None of nothing."""
        return self.correct / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of Wilson (1927); None of nothing."""
        if not self.total:
            return None
        n, p = self.total, self.correct / self.total
        center = (p + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
        half = _Z95 * sqrt(p * (1 - p) / n + _Z95**2 / (4 * n * n)) / (1 + _Z95**2 / n)
        return max(0.0, center - half), min(1.0, center + half)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchFinding:
    """What R1 says of a batch."""

    batch_idx: int
    correct: int
    """Puzzles that one member got right."""
    total: int
    """Puzzles that one member ran on: all, but where every member failed."""
    time_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberFinding:
    """What became of a member."""

    name: str
    right: Share
    """Of the puzzles that it ran on."""
    num_valid: int
    num_failed: int
    """Puzzles that it should have run on and could not."""
    failed_batches: int
    error: str | None
    """What it failed of first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chance:
    """An oracle's pass@k."""

    k: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What an ensemble run found."""

    batches: tuple[BatchFinding, ...]
    members: tuple[MemberFinding, ...]
    rules: dict[str, Share]
    """By name, label-free ones first."""
    pass_at_k: tuple[Chance, ...]
    """Over all orders of the members that never failed; () where puzzles were left out by some."""
    in_order: tuple[Share, ...]
    """Puzzles that one of the first 1, 2, ... members got right, in the order given."""
    member_runs: int
    """Puzzles times members that were run."""
    num_members: int
    num_several: int
    """Puzzles with a grid that checks and is not the label: several solutions, or a wrong label."""
    agreement: float | None
    """Share of pairs of members that give the same grid, over puzzles that all of them ran on."""

    @property
    def total(self) -> int:
        """Puzzles."""
        return sum(batch.total for batch in self.batches)

    @property
    def correct(self) -> int:
        """Puzzles that one member got right: an oracle's count."""
        return sum(batch.correct for batch in self.batches)

    @property
    def equal_cost(self) -> tuple[int, Share] | None:
        """How many of the first members as many passes would run in full, and the puzzles that one of these gets right.

        None where no puzzle was left out, so that all members ran in full, and where a member failed.
        """
        if not self.total or self.failed or self.member_runs >= self.total * self.num_members:
            return None
        num_members = max(self.member_runs // self.total, 1)
        return num_members, self.in_order[num_members - 1]

    @property
    def failed(self) -> tuple[MemberFinding, ...]:
        """Members that failed in some batch."""
        return tuple(member for member in self.members if member.failed_batches)


@dataclass(kw_only=True, slots=True)
class EnsembleTally:
    """Counts of an ensemble run, batch by batch."""

    names: Sequence[str]
    checkpoint_M: Sequence[int]
    """Which checkpoint each member is of."""
    settled: Settled
    batches: list[BatchFinding] = field(default_factory=list)
    ran_M: NDArray[np.int64] = field(init=False)
    right_M: NDArray[np.int64] = field(init=False)
    valid_M: NDArray[np.int64] = field(init=False)
    failed_M: NDArray[np.int64] = field(init=False)
    failed_batches_M: NDArray[np.int64] = field(init=False)
    errors: dict[int, str] = field(default_factory=dict)
    rules: dict[str, int] = field(default_factory=dict)
    in_order_M: NDArray[np.int64] = field(init=False)
    right_of: list[Bools] = field(default_factory=list)
    """[N, M] of each batch."""
    num_several: int = 0
    equal_pairs: int = 0
    pairs: int = 0

    def __post_init__(self) -> None:
        """Begin at nothing."""
        for name in ("ran_M", "right_M", "valid_M", "failed_M", "failed_batches_M", "in_order_M"):
            setattr(self, name, np.zeros(len(self.names), dtype=np.int64))

    def add(self, outcomes: Outcomes, *, seconds: float, failures: dict[int, str]) -> None:
        """Count a batch."""
        right_NM = outcomes.right_NM & outcomes.ran_NM
        any_N = grids.any_correct(right_NM)
        self.batches.append(
            BatchFinding(
                batch_idx=len(self.batches),
                correct=int(any_N.sum()),
                total=int(outcomes.ran_NM.any(axis=1).sum()),
                time_seconds=seconds,
            )
        )
        self.ran_M += outcomes.ran_NM.sum(axis=0)
        self.right_M += right_NM.sum(axis=0)
        self.valid_M += (outcomes.valid_NM & outcomes.ran_NM).sum(axis=0)
        self.failed_M += outcomes.failed_NM.sum(axis=0)
        for member, reason in failures.items():
            self.failed_batches_M[member] += 1
            self.errors.setdefault(member, reason)
        self.in_order_M += np.logical_or.accumulate(right_NM, axis=1).sum(axis=0)
        self.right_of.append(right_NM)
        several_N = (outcomes.valid_NM & outcomes.ran_NM & ~right_NM).any(axis=1)
        self.num_several += int(several_N.sum())
        for name, held_N in self._rules(outcomes, right_NM).items():
            self.rules[name] = self.rules.get(name, 0) + int(held_N.sum())
        if self.settled == "never":
            self._count_pairs(outcomes)

    def _rules(self, outcomes: Outcomes, right_NM: Bools) -> dict[str, Bools]:
        ran_NM, halted_NM = outcomes.ran_NM, outcomes.halted_NM & outcomes.ran_NM
        any_step_NM = (outcomes.first_valid_step_NM > 0) & ran_NM
        found = {
            "checked": is_right(grids.checked(outcomes.valid_NM & ran_NM), right_NM),
            "checked-any-step": is_right(grids.checked(any_step_NM), outcomes.first_valid_right_NM),
            "any-correct": grids.any_correct(right_NM),
        }
        if self.settled == "never":
            votes_N2 = grids.vote(outcomes.grids_NMS, outcomes.q_halt_NM, ran_NM, top=2)
            majority_N = grids.halted_majority(
                outcomes.grids_NMS, outcomes.q_halt_NM, halted_NM, self.checkpoint_M
            )
            found |= {
                "q-selected": is_right(grids.q_selected(outcomes.q_halt_NM, ran_NM), right_NM),
                "vote": is_right(votes_N2[:, 0], right_NM),
                "halted-majority": is_right(majority_N, right_NM),
                "vote-top-2": is_right(votes_N2[:, 0], right_NM) | is_right(votes_N2[:, 1], right_NM),
                "halted-majority-any": grids.halted_majority_any(right_NM, halted_NM, self.checkpoint_M),
            }
        return found

    def _count_pairs(self, outcomes: Outcomes) -> None:
        whole_N = outcomes.ran_NM.all(axis=1)
        given_NMS = outcomes.grids_NMS[whole_N]
        for m in range(1, given_NMS.shape[1]):
            equal_NM = (given_NMS[:, :m] == given_NMS[:, m : m + 1]).all(axis=2)
            self.equal_pairs += int(equal_NM.sum())
            self.pairs += equal_NM.size

    def findings(self) -> Findings:
        """What was found."""
        total = sum(batch.total for batch in self.batches)
        members = tuple(
            MemberFinding(
                name=name,
                right=Share(correct=int(self.right_M[m]), total=int(self.ran_M[m])),
                num_valid=int(self.valid_M[m]),
                num_failed=int(self.failed_M[m]),
                failed_batches=int(self.failed_batches_M[m]),
                error=self.errors.get(m),
            )
            for m, name in enumerate(self.names)
        )
        order = [name for name in (*LABEL_FREE, *ORACLES) if name in self.rules]
        return Findings(
            batches=tuple(self.batches),
            members=members,
            rules={name: Share(correct=self.rules[name], total=total) for name in order},
            pass_at_k=self._curve() if self.settled == "never" else (),
            in_order=tuple(Share(correct=int(count), total=total) for count in self.in_order_M),
            member_runs=int(self.ran_M.sum()),
            num_members=len(self.names),
            num_several=self.num_several,
            agreement=self.equal_pairs / self.pairs if self.pairs else None,
        )

    def _curve(self) -> tuple[Chance, ...]:
        """Of the members that never failed; intervals from resamples of the puzzles."""
        whole_M = self.failed_batches_M == 0
        num_whole = int(whole_M.sum())
        if not num_whole or not self.right_of:
            return ()
        counts_N = np.concatenate([right_NM[:, whole_M].sum(axis=1) for right_NM in self.right_of])
        by_count = np.bincount(counts_N, minlength=num_whole + 1)
        drawn_BC = np.random.default_rng(0).multinomial(len(counts_N), by_count / len(counts_N), RESAMPLES)
        chances = []
        for k in range(1, num_whole + 1):
            chance_C = pass_at_k(num_whole, np.arange(num_whole + 1), k)
            values_B = drawn_BC @ chance_C / len(counts_N)
            low, high = np.quantile(values_B, (0.025, 0.975))
            chances.append(
                Chance(
                    k=k, value=float(by_count @ chance_C) / len(counts_N), low=float(low), high=float(high)
                )
            )
        return tuple(chances)


def checkpoints_of(paths: Sequence[str]) -> list[int]:
    """Which checkpoint each member is of, numbered in order: [a, a, b] -> [0, 0, 1]."""
    distinct = list(dict.fromkeys(paths))
    return [distinct.index(path) for path in paths]
