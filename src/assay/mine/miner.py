"""The negatives of anchors: the nearest of the corpus, judged, drawn and guarded.

Axes: B anchors, K neighbours of each.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.mine.pairs import NumberedPairs
from assay.mine.search import Searcher
from assay.mine.select import GUARD, KEPT, SelectionRules, judge, main_reason, order_of
from assay.mine.store import Floats, Ints, VectorStore

Guarding = Callable[[list[str], list[str]], Floats]
"""Anchors and candidates to probabilities of being positive; NaN for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Negatives:
    """The negatives of anchors, those of one anchor together, the closest first."""

    offsets: Ints
    """Where those of each anchor begin; one more at the end."""
    rows: Ints
    """Places in the corpus."""
    scores: Floats
    ranks: Ints
    """Place among the anchor's neighbours, from 1, positives counted."""
    probabilities: Floats
    """The guard's; NaN without one."""
    reasons: dict[int, str]
    """Of anchors with fewer negatives than asked: the rule that dropped most of their neighbours."""


class Miner:
    """Finds negatives; holds stores, pairs and the search."""

    def __init__(
        self,
        *,
        anchors: VectorStore,
        corpus: VectorStore,
        pairs: NumberedPairs,
        searcher: Searcher,
        rules: SelectionRules,
        max_positives: int,
        guard: Guarding | None = None,
        guard_max: float = 1.0,
    ) -> None:
        """Mine `corpus` for anchors of `anchors`, which may be the same store."""
        self.anchors, self.corpus, self.pairs = anchors, corpus, pairs
        self._searcher, self._rules = searcher, rules
        self._window = rules.range_max + max_positives
        self._guard, self._guard_max = guard, np.float32(guard_max)

    def positive_scores(self, anchors_N: Ints, positives_N: Ints) -> Floats:
        """The similarity of each pair of places."""
        distinct, places = np.unique(anchors_N, return_inverse=True)
        return self._searcher.scores(self.anchors.vectors.take(distinct), places, positives_N)

    def negatives(self, anchors_B: Ints) -> Negatives:
        """The negatives of anchors that have a pair each, by their places."""
        vectors = self.anchors.vectors.take(anchors_B)
        groups = None if self.anchors.groups is None else self.anchors.groups[anchors_B]
        keys_B = self.anchors.text_keys[anchors_B]
        own_B = self.corpus.by_text.find(keys_B)
        found = self._searcher.nearest(vectors, groups, self._window + 1)
        rows_BK, scores_BK = without(found.rows_BK, found.scores_BK, own_B, self._window)

        owner_P, positives_P = self.pairs.positives_of(anchors_B)
        positive_scores_P = self._searcher.scores(vectors, owner_P, positives_P)
        least_B = np.full(len(anchors_B), np.inf, dtype=np.float32)
        np.minimum.at(least_B, owner_P, positive_scores_P)
        is_positive_BK = among(rows_BK, owner_P, positives_P, self.corpus.num_rows)
        codes_BK = judge(rows_BK, scores_BK, is_positive_BK, least_B, self._rules)
        taken_BK, probabilities_BK = self._take(anchors_B, rows_BK, codes_BK, keys_B)

        counts_B = taken_BK.sum(axis=1)
        _, places = np.nonzero(taken_BK)
        short = np.flatnonzero(counts_B < self._rules.num_negatives)
        return Negatives(
            offsets=np.concatenate([[0], np.cumsum(counts_B)]).astype(np.int64),
            rows=rows_BK[taken_BK],
            scores=scores_BK[taken_BK],
            ranks=places + 1,
            probabilities=probabilities_BK[taken_BK],
            reasons={int(anchor): main_reason(codes_BK[anchor]) for anchor in short},
        )

    def _take(
        self, anchors_B: Ints, rows_BK: Ints, codes_BK: NDArray[np.uint8], keys_B: NDArray[np.uint64]
    ) -> tuple[NDArray[np.bool_], Floats]:
        """Which candidates are taken, and what the guard said of them; codes of those it drops become GUARD."""
        wanted = self._rules.num_negatives
        probabilities_BK = np.full(rows_BK.shape, np.nan, dtype=np.float32)
        if self._guard is None and self._rules.sampling_strategy == "top":
            is_kept_BK = codes_BK == KEPT
            return is_kept_BK & (np.cumsum(is_kept_BK, axis=1) <= wanted), probabilities_BK
        taken_BK = np.zeros(rows_BK.shape, dtype=bool)
        waiting = {
            anchor: list(order_of(codes_BK[anchor], self._rules, int(key)))
            for anchor, key in enumerate(keys_B.tolist())
        }
        while waiting:
            asked: list[tuple[int, int]] = []
            for anchor, order in list(waiting.items()):
                missing = wanted - int(taken_BK[anchor].sum())
                asked += [(anchor, int(place)) for place in order[:missing]]
                waiting[anchor] = order[missing:]
                if not missing or not order:
                    del waiting[anchor]
            if not asked:
                break
            anchor_Q, place_Q = np.array(asked, dtype=np.int64).T
            accepted_Q = np.ones(len(asked), dtype=bool)
            if self._guard is not None:
                probability_Q = self._guarded(anchors_B[anchor_Q], rows_BK[anchor_Q, place_Q])
                probabilities_BK[anchor_Q, place_Q] = probability_Q
                accepted_Q = probability_Q <= self._guard_max  # NaN is not
            taken_BK[anchor_Q, place_Q] = accepted_Q
            codes_BK[anchor_Q[~accepted_Q], place_Q[~accepted_Q]] = GUARD
        return taken_BK, probabilities_BK

    def _guarded(self, anchors: Ints, rows: Ints) -> Floats:
        assert self._guard is not None
        assert self.anchors.texts is not None
        assert self.corpus.texts is not None
        return self._guard(self.anchors.texts.take(anchors), self.corpus.texts.take(rows))


def without(rows_BK: Ints, scores_BK: Floats, own_B: Ints, window: int) -> tuple[Ints, Floats]:
    """The neighbours less the anchor's own text, at most `window` of them."""
    is_own_BK = (rows_BK == own_B[:, None]) & (rows_BK >= 0)
    order = np.argsort(is_own_BK, axis=1, kind="stable")
    rows_BK = np.take_along_axis(np.where(is_own_BK, -1, rows_BK), order, axis=1)
    scores_BK = np.take_along_axis(np.where(is_own_BK, np.float32(-np.inf), scores_BK), order, axis=1)
    return rows_BK[:, :window], scores_BK[:, :window]


def among(rows_BK: Ints, owner_P: Ints, positives_P: Ints, num_rows: int) -> NDArray[np.bool_]:
    """Whether each neighbour is a positive of its anchor."""
    anchors_B1 = np.arange(len(rows_BK))[:, None]
    return np.isin(anchors_B1 * num_rows + rows_BK, owner_P * num_rows + positives_P) & (rows_BK >= 0)
