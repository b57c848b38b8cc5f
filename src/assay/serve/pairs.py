"""Pairs of a Siamese model: the texts of a request, each once, and what becomes of their vectors.

    pairs -> distinct texts -> documents, as single texts are (tokens, style, words; vectors by the engines)
                            -> the head of pairs -> scores

Nothing is imported that takes long: the head, which needs torch, is loaded where a Siamese model is.

Axes: K distinct texts, M pairs, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from assay.embed.unit_length import unit_length
from assay.serve.refusals import Refusal
from assay.serve.scores import Score, scores_of
from assay.serve.tickets import AnsweredText, RequestTexts, TextPlace, Ticket
from assay.siamese.files import Siamese
from assay.siamese.reading import TextFeatures, distinct_texts, text_features
from assay.tokenize.encode import Encoder
from assay.tokenize.settings import WINDOWS

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitPairs:
    """The pairs of a request as texts."""

    texts: list[str]
    """Each once, [K]."""
    first_M: Ints
    """Which is the first of each pair."""
    second_M: Ints
    """Which is the second."""

    @property
    def rows(self) -> list[int]:
        """The first pair that each text is in, [K]."""
        _, found = np.unique(np.stack([self.first_M, self.second_M], axis=1), return_index=True)
        rows: list[int] = (found // 2).tolist()
        return rows


def split_pairs(texts: RequestTexts) -> SplitPairs:
    """The distinct texts of pairs; of each row both texts are there."""
    found, first_M, second_M = distinct_texts([(first, second or "") for first, second in texts])
    return SplitPairs(texts=found, first_M=first_M, second_M=second_M)


class PairJoiner:
    """Makes scores of the vectors of texts. Threads may share it."""

    def __init__(self, bundle: Siamese, encoder: Encoder) -> None:
        """Load the head of pairs, and torch with it; on the CPU, in fp32."""
        import torch

        from assay.siamese.head import load_head
        from assay.siamese.scoring import PairScoring

        # the engines have the cores: a head is small
        torch.set_num_threads(1)
        self._bundle = bundle
        self._scoring = PairScoring(bundle, load_head(bundle), device="cpu")
        # windows are brought together here, as a run does it
        self._normalizes = bundle.embedder.normalized("auto") and encoder.on_long in WINDOWS

    def features(self, texts: Sequence[str]) -> TextFeatures:
        """What of whole texts joins their vectors, a row each."""
        return text_features(self._bundle, texts)

    def answers(self, pairs: SplitPairs, ticket: Ticket, found: Sequence[AnsweredText]) -> list[AnsweredText]:
        """A score for each pair, from the vectors of its texts; raises Refusal where one is not finite."""
        from assay.siamese.scoring import EncodedTexts

        vectors_KD = np.stack([each.vector for each in found])
        features = _in_order([place for place in ticket.features if place is not None])
        truncated_K = np.array(ticket.truncated, dtype=np.bool_)
        scored = self._scoring.score(
            EncodedTexts(
                vectors_ND=unit_length(vectors_KD) if self._normalizes else vectors_KD,
                style_NF=features.style_KF,
                evidence=features.evidence,
                truncated_N=truncated_K,
                errors={},
            ),
            pairs.first_M,
            pairs.second_M,
        )
        scores = scores_of(self._bundle.decider, scored.logits_MC)
        num_tokens_K = np.array(ticket.num_tokens)
        num_tokens = (num_tokens_K[pairs.first_M] + num_tokens_K[pairs.second_M]).tolist()
        truncated = (truncated_K[pairs.first_M] | truncated_K[pairs.second_M]).tolist()
        return [
            AnsweredText(_finite(score, row), num_tokens[row], truncated[row])
            for row, score in enumerate(scores)
        ]


def _finite(score: Score | None, row: int) -> Score:
    if score is None:
        raise Refusal("backend", f"the model gave no finite numbers for pair {row}")
    return score


def _in_order(places: Sequence[TextPlace]) -> TextFeatures:
    """The features of texts that were read in several batches, in the order of the texts."""
    batches = list({id(place.batch): place.batch for place in places}.values())
    number = {id(batch): k for k, batch in enumerate(batches)}
    batch_K = np.array([number[id(place.batch)] for place in places])
    row_K = np.array([place.row for place in places])
    taken = [batch.take(row_K[batch_K == k]) for k, batch in enumerate(batches)]
    order = np.argsort(batch_K, kind="stable")
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return TextFeatures.join(taken).take(back)
