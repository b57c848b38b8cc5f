"""[pure] Which of an anchor's neighbours are negatives, in which order, and why the others are not.

The rules and their order are those of `mine_hard_negatives` of sentence-transformers: positives go first, then
margins, then scores; `range_max` counts what is left, `range_min` skips the closest of that, and the rest is
taken from the top or drawn at random. A percentile of the anchor's own candidates comes before the margins.

Axes: B anchors, K neighbours of each, the closest first.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from assay.errors import UsageError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Codes = NDArray[np.uint8]

KEPT, ABSENT, POSITIVE, PERCENTILE, ABSOLUTE_MARGIN, RELATIVE_MARGIN = range(6)
MAX_SCORE, MIN_SCORE, RANGE, GUARD, SPARE = range(6, 11)
REASONS: dict[int, str] = {
    PERCENTILE: "percentile",
    ABSOLUTE_MARGIN: "absolute_margin",
    RELATIVE_MARGIN: "relative_margin",
    MAX_SCORE: "max_score",
    MIN_SCORE: "min_score",
    RANGE: "range",
    GUARD: "guard",
}
"""What may keep a neighbour from being a negative, beside being a positive, by its code."""
TOO_FEW = "corpus"
"""The reason where nothing but positives and the excluded was there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionRules:
    """The rules of one run, as `NegativeRules` describes them."""

    num_negatives: int
    range_min: int
    range_max: int
    max_score: float | None = None
    min_score: float | None = None
    absolute_margin: float | None = None
    relative_margin: float | None = None
    percentile: float | None = None
    sampling_strategy: Literal["top", "random"] = "top"
    seed: int = 0


def choose_range_max(
    asked: int | None, *, range_min: int, num_negatives: int, max_positives: int, is_filtered: bool
) -> int:
    """The most candidates of an anchor: as asked, or as sentence-transformers chooses it.

    `is_filtered` says whether margins, a greatest score, a percentile or a guard may drop some. Raises UsageError
    where the range is too small for the negatives.
    """
    factor = 10 if is_filtered else 1
    range_max = asked if asked is not None else range_min + num_negatives * factor + max_positives
    if num_negatives > range_max - range_min:
        raise UsageError(
            f"range_min {range_min} to range_max {range_max} leaves {max(range_max - range_min, 0)} candidates, "
            f"fewer than num_negatives {num_negatives}; raise range_max, or lower one of the others"
        )
    return range_max


def judge(
    rows_BK: Ints,
    scores_BK: Floats,
    is_positive_BK: NDArray[np.bool_],
    least_positive_B: Floats,
    rules: SelectionRules,
) -> Codes:
    """What becomes of each neighbour: KEPT for candidates, else why not; a row below 0 is ABSENT.

    `least_positive_B` is the similarity of the anchor's least similar positive.
    """
    codes_BK = np.full(rows_BK.shape, KEPT, dtype=np.uint8)
    codes_BK[rows_BK < 0] = ABSENT
    codes_BK[is_positive_BK] = POSITIVE

    def drop(condition_BK: NDArray[np.bool_], code: int) -> None:
        codes_BK[condition_BK & (codes_BK == KEPT)] = code

    if rules.percentile is not None:
        drop(scores_BK > _percentile(scores_BK, codes_BK == KEPT, rules.percentile)[:, None], PERCENTILE)
    least_B1 = least_positive_B[:, None]
    if rules.absolute_margin is not None:
        drop(scores_BK + np.float32(rules.absolute_margin) > least_B1, ABSOLUTE_MARGIN)
    if rules.relative_margin is not None:
        drop(scores_BK > least_B1 - np.abs(least_B1) * np.float32(rules.relative_margin), RELATIVE_MARGIN)
    if rules.max_score is not None:
        drop(scores_BK > np.float32(rules.max_score), MAX_SCORE)
    if rules.min_score is not None:
        drop(scores_BK < np.float32(rules.min_score), MIN_SCORE)
    place_BK = np.cumsum(codes_BK == KEPT, axis=1)
    drop((place_BK <= rules.range_min) | (place_BK > rules.range_max), RANGE)
    return codes_BK


def _percentile(scores_BK: Floats, is_kept_BK: NDArray[np.bool_], percentile: float) -> Floats:
    """Of each anchor's candidates; infinity where it has none."""
    found_B = np.full(len(scores_BK), np.inf, dtype=np.float32)
    some_B = is_kept_BK.any(axis=1)
    if some_B.any():
        values = np.where(is_kept_BK, scores_BK, np.float32(np.nan))[some_B]
        found_B[some_B] = np.nanpercentile(values, percentile, axis=1)
    return found_B


def order_of(codes_K: Codes, rules: SelectionRules, anchor_key: int) -> Ints:
    """Places of the candidates of one anchor in the order in which they are taken.

    The random draw depends on the seed and the anchor's key alone, so neither on units nor on blocks.
    """
    kept = np.flatnonzero(codes_K == KEPT)
    if rules.sampling_strategy == "random":
        return np.random.default_rng((rules.seed, anchor_key)).permutation(kept)
    return kept


def main_reason(codes_K: Codes) -> str:
    """The rule that dropped most of one anchor's neighbours; TOO_FEW where none did."""
    counts = np.bincount(codes_K, minlength=SPARE)
    code = max(REASONS, key=lambda each: int(counts[each]))
    return REASONS[code] if counts[code] else TOO_FEW
