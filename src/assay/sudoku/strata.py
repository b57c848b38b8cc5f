"""How hard puzzles are, in five strata of the guesses that the solver needs; shares of each. Pure."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from assay.errors import UsageError

STRATA: Mapping[str, int] = {"0": 0, "1-4": 1, "5-9": 5, "10-29": 10, "30+": 30}
"""The least number of guesses of each stratum, in order."""
NAMES = tuple(STRATA)


def strata_of(guesses: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place in `NAMES` of each puzzle's stratum."""
    return np.searchsorted(list(STRATA.values()), guesses, side="right") - 1


def shares_of(words: Sequence[str]) -> dict[str, float]:
    """The share of each stratum that words such as `30+=0.2` give, scaled to 1; {} of no words."""
    weights: dict[str, float] = {}
    for word in words:
        name, _, number = word.partition("=")
        if name not in STRATA or name in weights:
            raise UsageError(
                f"strata has {word!r}; name each of {', '.join(NAMES)} at most once, as in 30+=0.2"
            )
        try:
            weights[name] = float(number)
        except ValueError:
            weights[name] = -1.0
        if not 0 <= weights[name] < float("inf"):
            raise UsageError(f"strata has {word!r}; a share is a number from 0 on, as in 30+=0.2")
    total = sum(weights.values())
    if words and not total:
        raise UsageError(f"strata {', '.join(words)} add up to 0; give one of them more")
    return {name: weights.get(name, 0.0) / total for name in NAMES} if words else {}


class Quotas:
    """How many puzzles of each stratum are still wanted; without shares any will do."""

    def __init__(self, num_puzzles: int, shares: Mapping[str, float]) -> None:
        """`num_puzzles` in all; whole numbers of each stratum, the largest remainders rounded up."""
        self._is_any = not shares
        exact = np.array([num_puzzles * shares.get(name, 0.0) for name in NAMES])
        self._wanted = np.floor(exact).astype(np.int64)
        rest = 0 if self._is_any else num_puzzles - int(self._wanted.sum())
        self._wanted[np.argsort(self._wanted - exact, kind="stable")[:rest]] += 1
        if self._is_any:
            self._wanted = np.array([num_puzzles])

    @property
    def left(self) -> Mapping[str, int]:
        """Puzzles still wanted by stratum, without those of which none is; `any` where it does not matter."""
        names = ("any",) if self._is_any else NAMES
        return {name: int(num) for name, num in zip(names, self._wanted, strict=True) if num}

    def take(self, guesses: NDArray[np.int64]) -> NDArray[np.intp]:
        """Which of these puzzles are wanted, the first ones of each stratum; they are counted off."""
        strata = np.zeros(len(guesses), np.int64) if self._is_any else strata_of(guesses)
        taken = []
        for stratum, wanted in enumerate(self._wanted):
            found = np.flatnonzero(strata == stratum)[:wanted]
            self._wanted[stratum] -= len(found)
            taken.append(found)
        return np.sort(np.concatenate(taken))
