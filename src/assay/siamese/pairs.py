"""Texts to probabilities of pairs: each distinct text is encoded once, whatever the number of its pairs.

    texts -> distinct ones -> vectors (the engine), style, words -> pairs of them -> the head -> logits

N texts in M pairs cost N encodings and M small products.

Axes: N texts, M pairs, D dimensions of a vector, F style features, C outputs.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from assay.embed.forward import Forwarder
from assay.embed.plan import make_encoder
from assay.embed.vectors import Vectors
from assay.engine import devices
from assay.engine.load import load_engine
from assay.engine.sequences import ForwardStats
from assay.errors import InputError
from assay.model.embedding import embedding_head
from assay.model.heads import EmbeddingHead
from assay.outcome.maps import apply_calibration
from assay.siamese.evidence import EvidenceTexts
from assay.siamese.evidence_files import WeighedEvidence
from assay.siamese.files import Siamese, read_siamese
from assay.siamese.head import PairHead, load_head
from assay.siamese.reading import ReadTexts, TextReader
from assay.siamese.style import Features
from assay.tokenize.chunks import EncodedChunk
from assay.tokenize.plan import choose_max_length
from assay.tokenize.settings import OnLong

_log = logging.getLogger(__name__)

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


class SiameseModel:
    """A loaded Siamese bundle. Not thread-safe: one forward pass at a time."""

    def __init__(self, bundle: Siamese, forwarder: Forwarder, head: PairHead, *, device: str) -> None:
        """Use `load_siamese`; the forwarder's engine gives the vectors of `vector_head`."""
        self.bundle = bundle
        """What was loaded: labels, calibration, fingerprint."""
        self.engine = forwarder.engine
        """Gives the vectors."""
        self.device = device
        """Where the forward pass runs."""
        self._reader = TextReader(bundle, forwarder.encoder)
        self._weighed = bundle.evidence
        self._device = devices.parse_device(device)
        self._head = head.to(self._device)
        self._vectors = Vectors(forwarder, normalized=bundle.embedder.normalized("auto"))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs, in the order of the columns."""
        return self.bundle.labels

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """The vectors and style of texts, a row each; give each text once."""
        read = self._reader.read(texts)
        return encoded(read, self.vectors(read.tokens)[0])

    def vectors(self, texts: EncodedChunk) -> tuple[Floats, ForwardStats]:
        """The vectors [N, D] of texts, NaN for one with an error, and what they cost.

        Raises Stopped where the forwarder is told to stop.
        """
        if not texts.num_rows:
            none = np.zeros((0, self.bundle.embedder.dimension), dtype=np.float32)
            return none, ForwardStats(
                num_forward_tokens=0,
                num_padded_tokens=0,
                num_duplicates=0,
                num_batches=0,
                seconds=0.0,
                forward_seconds=0.0,
            )
        forwarded = self._vectors.forward(texts)
        vectors_ND = self._vectors.vectors(forwarded)
        vectors_ND[list(texts.errors)] = np.nan
        return vectors_ND, forwarded.stats

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
        none = np.zeros((0, len(self.labels)), dtype=np.float32)
        logits_MC = np.concatenate([none, *logits])
        if self._weighed is not None and texts.evidence is not None:
            log_odds_M = self._weighed.evidence.log_odds(texts.evidence, first_M, second_M)
            logits_MC = joined_logits(self._weighed, logits_MC, log_odds_M)
        return ScoredPairs(logits_MC=logits_MC, cosines_M=np.concatenate([none[:, 0], *cosines]))

    def logits(self, pairs: Iterable[Sequence[str]]) -> Floats:
        """The logits [M, C] of pairs of texts; NaN for a pair with a text that has no tokens."""
        texts, first_M, second_M = distinct_texts(pairs)
        return self.score(self.encode(texts), first_M, second_M).logits_MC

    def probabilities(self, pairs: Iterable[Sequence[str]]) -> npt.NDArray[np.float64]:
        """The probability of each label for each pair of texts, [M, C], calibrated where the bundle is.

        NaN for a pair with a text that has no tokens. Raises InputError for what is not a pair of strings.
        """
        return apply_calibration(self.logits(pairs), self.bundle.calibration, self.bundle.task)


def encoded(texts: ReadTexts, vectors_ND: Floats) -> EncodedTexts:
    """Texts with their vectors, as the head sees them."""
    return EncodedTexts(
        vectors_ND=vectors_ND,
        style_NF=texts.style_KF,
        evidence=texts.evidence,
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


def distinct_texts(pairs: Iterable[Sequence[str]]) -> tuple[list[str], Ints, Ints]:
    """The texts of pairs, each once, and the rows of the first and of the second of each pair."""
    places: dict[str, int] = {}
    rows: list[int] = []
    for number, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise InputError(f"pair {number} is {pair!r:.80}; two strings are needed; pass (text, text)")
        rows += (places.setdefault(text, len(places)) for text in pair)
    both_M2 = np.array(rows, dtype=np.int64).reshape(-1, 2)
    return list(places), both_M2[:, 0].copy(), both_M2[:, 1].copy()


def load_siamese(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    precision: str = "auto",
    max_length: int | None = None,
    on_long: OnLong = "truncate",
    stride: int = 0,
    num_threads: int | None = None,
    say: Callable[[str], None] | None = None,
) -> SiameseModel:
    """The Siamese model in a folder; settings are those of `assay.load`.

    Raises BundleError for a folder that is not one or is damaged. What the user should hear of the bundle goes
    to `say`, by default as a warning of the log.
    """
    bundle = read_siamese(path)
    embedder = bundle.embedder
    for note in bundle.notes:
        (say or _warn)(note)
    length = bundle.default_max_length if max_length is None else choose_max_length(embedder, max_length)
    engine = load_engine(
        embedder.checkpoint,
        device=device,
        precision=precision,
        num_threads=num_threads,
        head=vector_head(bundle),
    )
    encoder = make_encoder(embedder, max_length=length, on_long=on_long, stride=stride)
    return SiameseModel(bundle, Forwarder(engine, encoder), load_head(bundle), device=device)


def vector_head(bundle: Siamese) -> EmbeddingHead:
    """What makes vectors of the encoder's hidden states."""
    embedder = bundle.embedder
    return embedding_head(
        embedder.checkpoint,
        embedder.files,
        pooling=embedder.pooling("auto"),
        normalized=embedder.normalized("auto"),
    )


def _warn(note: str) -> None:
    _log.warning("%s", note)
