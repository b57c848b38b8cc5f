"""What the head of pairs says of texts that have vectors.

Axes: N texts, M pairs, D dimensions of a vector, F style features, C outputs.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from assay.engine import devices
from assay.siamese.evidence import EvidenceTexts
from assay.siamese.evidence_files import WeighedEvidence
from assay.siamese.files import Siamese
from assay.siamese.head import PairHead
from assay.siamese.reading import ReadTexts
from assay.siamese.style import Features

_PAIRS_AT_ONCE = 8_192
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedTexts:
    """Texts as the head sees them; a row each."""

    vectors_ND: Floats
    """Of length 1; NaN for a text with an error."""
    style_NF: Features
    """Standardised."""
    evidence: EvidenceTexts | None
    """For what words and style say, where the model was trained to see it."""
    truncated_N: npt.NDArray[np.bool_]
    """Whether a text was cut; evidence is drawn from the whole."""
    errors: dict[int, str]
    """Error code by row."""

    @classmethod
    def join(cls, one: "EncodedTexts", two: "EncodedTexts") -> "EncodedTexts":
        """The texts of both, one after the other."""
        num_texts = len(one.vectors_ND)
        evidence = [each.evidence for each in (one, two) if each.evidence is not None]
        return cls(
            vectors_ND=np.concatenate([one.vectors_ND, two.vectors_ND]),
            style_NF=np.concatenate([one.style_NF, two.style_NF]),
            evidence=EvidenceTexts.join(evidence) if evidence else None,
            truncated_N=np.concatenate([one.truncated_N, two.truncated_N]),
            errors=one.errors | {num_texts + row: code for row, code in two.errors.items()},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredPairs:
    """What the model says of pairs; a row each, NaN where one of the texts has an error."""

    logits_MC: Floats
    """Before calibration."""
    cosines_M: Floats
    """Of the two vectors: the similarity that `style_calibration.json` maps to a probability."""


class PairScoring:
    """The head of a Siamese bundle, and what words and style add. Threads may share it."""

    def __init__(self, bundle: Siamese, head: PairHead, *, device: str) -> None:
        """Score with `load_head(bundle)` on a device."""
        self._num_labels = len(bundle.labels)
        self._evidence = bundle.evidence
        self._device = devices.parse_device(device)
        self._head = head.to(self._device)
        self.temperature = float(head.temperature)
        """What cosines were divided by at the end of contrastive training, above 0."""

    @torch.inference_mode()
    def score(self, texts: EncodedTexts, first_M: Ints, second_M: Ints) -> ScoredPairs:
        """What the head says of pairs of rows of `texts`, joined by what words and style say where it is known."""
        vectors_ND = torch.from_numpy(texts.vectors_ND).to(self._device)
        style_NF = torch.from_numpy(texts.style_NF).to(self._device)
        logits, cosines = [], []
        for start in range(0, len(first_M), _PAIRS_AT_ONCE):
            pick = slice(start, start + _PAIRS_AT_ONCE)
            one, two = (torch.from_numpy(rows[pick]).to(self._device) for rows in (first_M, second_M))
            u_MD, v_MD = vectors_ND[one], vectors_ND[two]
            logits.append(self._head(u_MD, v_MD, style_NF[one], style_NF[two]).cpu().numpy())
            cosines.append((u_MD * v_MD).sum(dim=1).cpu().numpy())
        none = np.zeros((0, self._num_labels), dtype=np.float32)
        logits_MC = np.concatenate([none, *logits])
        if self._evidence is not None and texts.evidence is not None:
            log_odds_M = self._evidence.evidence.log_odds(texts.evidence, first_M, second_M)
            logits_MC = joined_logits(self._evidence, logits_MC, log_odds_M)
        return ScoredPairs(logits_MC=logits_MC, cosines_M=np.concatenate([none[:, 0], *cosines]))


def encoded(texts: ReadTexts, vectors_ND: Floats) -> EncodedTexts:
    """Texts with their vectors, as the head sees them."""
    return EncodedTexts(
        vectors_ND=vectors_ND,
        style_NF=texts.features.style_KF,
        evidence=texts.features.evidence,
        truncated_N=texts.tokens.tokens.truncated,
        errors=texts.tokens.errors,
    )


def margins(logits_M2: Floats) -> npt.NDArray[np.float64]:
    """The log-odds of the second of two labels, [M]."""
    return logits_M2[:, 1].astype(np.float64) - logits_M2[:, 0]


def joined_logits(
    weighed: WeighedEvidence, network_M2: Floats, log_odds_M: npt.NDArray[np.float64]
) -> Floats:
    """The logits [M, 2] of a network's and the log-odds of the evidence together."""
    joined_M = weighed.combination(margins(network_M2), log_odds_M)
    return np.column_stack([-joined_M / 2, joined_M / 2]).astype(np.float32)
