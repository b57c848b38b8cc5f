"""Labelled pairs in, the thresholds that keep a recall at the least cost out. Pure: a seed instead of chance.

The recall of a threshold is the share of the pairs with the label that the first model does not turn away. Its
lower bound is one-sided, of Clopper and Pearson (1934), exact for independent pairs: a threshold is the
probability of one of these pairs, so its bound is that of an order statistic, and the bound falls as the
threshold rises, so the highest one that keeps it needs no correction for the number of thresholds tried. None
is above 0.5: a pair that the first model finds likelier than not is not turned away, however many of them the
recall could spare. Pairs of the same authors are not independent: where authors are known they are drawn with
replacement, a pair counting as often as its two authors are drawn together (Snijders & Borgatti 1999), and the
lower of both bounds holds.

Axes: P pairs of one label, K thresholds, B resamples, A authors.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.binomial import lower_bound
from assay.errors import InputError
from assay.metrics import BoolArray, FloatArray, IntArray
from assay.score.cascade.decide import Thresholds

EVEN_RANKS, LOW_RANKS = 200, 100
"""Thresholds that are tried: at so many pairs evenly spread over the ranks, and at so many of the lowest."""
_BLOCK_ELEMENTS = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorResampling:
    """How authors are drawn."""

    authors_PA: IntArray
    """The author of each text of all pairs, [M, 2]; twice the same where a pair has one."""
    num_resamples: int
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptShares:
    """What thresholds keep of the pairs of one label; K of them, rising, so that what is kept falls."""

    threshold_K: FloatArray
    """Pairs below it are lost."""
    share_K: FloatArray
    """Share of the pairs that are kept."""
    bound_K: FloatArray
    """Its lower bound."""

    def highest(self, share: float) -> int | None:
        """The last threshold whose bound is at least `share`; None where there is none."""
        found = np.flatnonzero(self.bound_K >= share)
        return int(found[-1]) if found.size else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenThresholds:
    """Thresholds that keep a recall, and how sure that is."""

    thresholds: Thresholds
    recall: float
    """Of the pairs with the label, the share that the first model does not turn away."""
    recall_bound: float
    """Its lower bound."""
    kept_others: float | None = None
    """Two-sided: of the pairs without it, the share that it does not accept."""
    kept_others_bound: float | None = None
    """Its lower bound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """All thresholds that labelled pairs offer."""

    with_label: KeptShares
    """By the first model's probability."""
    without_label: KeptShares | None
    """By its negative, which a two-sided cascade turns away from."""
    num_with: int
    num_without: int
    confidence: float

    def choose(self, recall: float) -> ChosenThresholds:
        """The thresholds that send the fewest pairs on and keep `recall`.

        Raises `InputError` where none does, with the best that these pairs can show.
        """
        kept = self.with_label
        at = kept.highest(recall)
        if at is None:
            raise self._too_few(kept, recall, self.num_with, "with the label")
        low = float(kept.threshold_K[at])
        found = ChosenThresholds(
            thresholds=Thresholds(low=low),
            recall=float(kept.share_K[at]),
            recall_bound=float(kept.bound_K[at]),
        )
        others = self.without_label
        if others is None:
            return found
        at = others.highest(recall)
        if at is None:
            raise self._too_few(others, recall, self.num_without, "without the label")
        return ChosenThresholds(
            thresholds=Thresholds(low=low, high=-float(others.threshold_K[at])),
            recall=found.recall,
            recall_bound=found.recall_bound,
            kept_others=float(others.share_K[at]),
            kept_others_bound=float(others.bound_K[at]),
        )

    def _too_few(self, kept: KeptShares, recall: float, num_pairs: int, which: str) -> InputError:
        needed = math.ceil(math.log(1 - self.confidence) / math.log(recall))
        return InputError(
            f"recall {recall:g} cannot be shown at confidence {self.confidence:g} on {num_pairs} pairs {which}: the"
            f" best lower bound is {kept.bound_K.max():.4f}; give more pairs (at least {needed} {which}, of more"
            " authors), or lower --recall"
        )


def find_choices(
    first_M: FloatArray,
    holds_M: BoolArray,
    *,
    confidence: float,
    two_sided: bool,
    resampling: AuthorResampling | None = None,
) -> Choices:
    """The thresholds for pairs of both kinds, by the first model's probability of the label."""
    return Choices(
        with_label=_kept(first_M, holds_M, 0.5, confidence, resampling),
        without_label=_kept(-first_M, ~holds_M, -0.5, confidence, resampling) if two_sided else None,
        num_with=int(holds_M.sum()),
        num_without=int((~holds_M).sum()),
        confidence=confidence,
    )


def _kept(
    score_M: FloatArray,
    counts_M: BoolArray,
    most: float,
    confidence: float,
    resampling: AuthorResampling | None,
) -> KeptShares:
    """What thresholds on a score, up to `most`, keep of the pairs that count."""
    rows = np.flatnonzero(counts_M)
    rows = rows[np.argsort(score_M[rows], kind="stable")]
    sorted_P = score_M[rows]
    values = np.unique(sorted_P[sorted_P < most])
    threshold_K = np.append(values[_ranks(values.size)], most)
    lost_K = np.searchsorted(sorted_P, threshold_K)
    kept_K = rows.size - lost_K
    bound_K = lower_bound(kept_K, rows.size, confidence)
    if resampling is not None:
        drawn_K = _drawn_bound(resampling, rows, lost_K, confidence)
        bound_K = np.minimum(bound_K, drawn_K)
    return KeptShares(threshold_K=threshold_K, share_K=kept_K / rows.size, bound_K=bound_K)


def _ranks(count: int) -> NDArray[np.int64]:
    """Which of so many distinct values are tried, rising."""
    even = np.linspace(0, max(count - 1, 0), min(count, EVEN_RANKS)).astype(np.int64)
    return np.union1d(even, np.arange(min(count, LOW_RANKS)))


def _drawn_bound(
    resampling: AuthorResampling, rows: NDArray[np.int64], lost_K: NDArray[np.int64], confidence: float
) -> FloatArray:
    """The share kept that all but 1 - `confidence` of the resamples of authors exceed, [K]."""
    rng = np.random.default_rng(resampling.seed)
    one_P, two_P = resampling.authors_PA[rows].T
    num_authors = int(resampling.authors_PA.max()) + 1
    size = max(1, _BLOCK_ELEMENTS // max(rows.size, num_authors))
    shares = []
    for start in range(0, resampling.num_resamples, size):
        num = min(size, resampling.num_resamples - start)
        drawn_BA = rng.multinomial(num_authors, np.full(num_authors, 1 / num_authors), size=num)
        weight_BP = np.where(one_P == two_P, drawn_BA[:, one_P], drawn_BA[:, one_P] * drawn_BA[:, two_P])
        below_BP = np.concatenate([np.zeros((num, 1)), np.cumsum(weight_BP, axis=1)], axis=1)
        whole_B1 = below_BP[:, -1:]
        # Without any pair of the kind a resample says nothing.
        shares.append(1 - below_BP[:, lost_K][whole_B1[:, 0] > 0] / whole_B1[whole_B1 > 0][:, None])
    share_BK = np.concatenate(shares)
    if not share_BK.size:
        return np.zeros(lost_K.shape)
    bound_K: FloatArray = np.quantile(share_BK, 1 - confidence, axis=0)
    return bound_K
