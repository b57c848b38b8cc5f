"""How far the numbers of sampled documents lie from fp32's: counts that add up over parts. Pure.

A sample in which every document of a run had the same chance is, whatever its size, one drawn without replacement from
all of them: what its counts say of the whole run `binomial` bounds.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from assay.binomial import upper_bound

EDGES = (*(float(f"{digit}e{power}") for power in range(-6, 0) for digit in (1, 2, 5)), 1.0)
"""Differences are counted between these, each cell without its lower edge and with its upper one."""
EDGES_SHOWN = (1e-4, 1e-3, 1e-2, 1e-1)
"""Those that people are told of."""
CONFIDENCE = 0.95
"""Of each bound by itself."""


def sample_rows(unit_name: str, num_rows: int, share: float) -> npt.NDArray[np.int64]:
    """Rows of a unit, rising, each with the chance `share`; they follow from the unit's name."""
    seed = hashlib.sha256(f"parity {unit_name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(seed[:16], "big"))
    chosen = rng.choice(num_rows, size=rng.binomial(num_rows, share), replace=False)
    return np.sort(chosen).astype(np.int64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Differences:
    """What a sample came to."""

    counts: tuple[int, ...] = (0,) * (len(EDGES) + 1)
    """Documents by difference: up to the first edge, between edges, beyond the last."""
    largest: float = 0.0
    """The largest difference; infinity where fp32 gives a number and the run's precision none."""
    labels_changed: int = 0
    """Documents that fp32 gives another label, or set of labels."""
    milliseconds: int = 0
    """For which the device was held; of a padded engine the loading of the model in fp32 included."""

    @property
    def num_documents(self) -> int:
        """Documents compared."""
        return sum(self.counts)

    @classmethod
    def of(
        cls,
        differences_N: npt.NDArray[np.float64],
        changed_N: npt.NDArray[np.bool_],
        *,
        milliseconds: int = 0,
    ) -> Self:
        """Count documents, each with its difference and whether its label is another."""
        cells = np.searchsorted(EDGES, differences_N, side="left")
        return cls(
            counts=tuple(np.bincount(cells, minlength=len(EDGES) + 1).tolist()),
            largest=float(differences_N.max(initial=0.0)),
            labels_changed=int(changed_N.sum()),
            milliseconds=milliseconds,
        )

    def __add__(self, other: "Differences") -> "Differences":
        """Both samples as one."""
        return Differences(
            counts=tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            largest=max(self.largest, other.largest),
            labels_changed=self.labels_changed + other.labels_changed,
            milliseconds=self.milliseconds + other.milliseconds,
        )

    def num_beyond(self, edge: float) -> int:
        """Documents that differ by more than one of `EDGES`."""
        return sum(self.counts[EDGES.index(edge) + 1 :])

    def most_beyond(self, edge: float) -> float:
        """The share of all documents of the run that differ by more than an edge is at most this, with `CONFIDENCE`."""
        return upper_bound(self.num_beyond(edge), self.num_documents, CONFIDENCE)

    def most_changed(self) -> float:
        """The share of all documents that fp32 gives another label is at most this, with `CONFIDENCE`."""
        return upper_bound(self.labels_changed, self.num_documents, CONFIDENCE)

    def quantile(self, share: float) -> float:
        """What `share` of the sampled documents differ by at most: an edge, or the largest difference where less."""
        reached = np.cumsum(self.counts)
        cell = bisect_left(reached.tolist(), share * self.num_documents)
        return self.largest if cell >= len(EDGES) else min(EDGES[cell], self.largest)

    def to_json(self) -> dict[str, Any]:
        """For a part's footer."""
        return {
            "counts": list(self.counts),
            "largest": self.largest if np.isfinite(self.largest) else None,
            "labels_changed": self.labels_changed,
            "milliseconds": self.milliseconds,
        }


def sum_of(footers: Iterable[object]) -> Differences | None:
    """All samples as one, from what footers say; None where none says so, or not as a worker wrote it."""
    total = None
    for footer in footers:
        found = _from_json(footer)
        if found is not None:
            total = found if total is None else total + found
    return total


def _from_json(footer: object) -> Differences | None:
    if not isinstance(footer, dict):
        return None
    try:
        counts = tuple(int(count) for count in footer["counts"])
        largest = footer["largest"]
        found = Differences(
            counts=counts,
            largest=float("inf") if largest is None else float(largest),
            labels_changed=int(footer["labels_changed"]),
            milliseconds=int(footer["milliseconds"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
    return found if len(counts) == len(EDGES) + 1 and min(counts) >= 0 else None
