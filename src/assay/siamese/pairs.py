"""Texts to probabilities of pairs: each distinct text is encoded once, whatever the number of its pairs.

    texts -> distinct ones -> vectors (the engine), style, words -> pairs of them -> the head -> logits

N texts in M pairs cost N encodings and M small products.

Axes: N texts, M pairs, D dimensions of a vector, F style features, C outputs.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from assay.embed.forward import Forwarder
from assay.embed.plan import make_encoder
from assay.embed.vectors import Vectors
from assay.engine.load import load_engine
from assay.engine.sequences import ForwardStats
from assay.model.embedding import embedding_head
from assay.model.heads import EmbeddingHead
from assay.outcome.maps import apply_calibration
from assay.siamese.files import Siamese, read_siamese
from assay.siamese.head import PairHead, load_head
from assay.siamese.reading import TextReader, distinct_texts
from assay.siamese.scoring import EncodedTexts, Floats, Ints, PairScoring, ScoredPairs, encoded
from assay.tokenize.chunks import EncodedChunk
from assay.tokenize.plan import choose_max_length
from assay.tokenize.settings import OnLong

_log = logging.getLogger(__name__)


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
        self._scoring = PairScoring(bundle, head, device=device)
        self._vectors = Vectors(forwarder, normalized=bundle.embedder.normalized("auto"))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs, in the order of the columns."""
        return self.bundle.labels

    @property
    def temperature(self) -> float:
        """What cosines were divided by at the end of contrastive training, above 0."""
        return self._scoring.temperature

    def encode(self, texts: Sequence[str]) -> EncodedTexts:
        """The vectors and style of texts, a row each; give each text once."""
        read = self._reader.read(texts)
        return encoded(read, self.vectors(read.tokens)[0])

    def vectors(self, texts: EncodedChunk) -> tuple[Floats, ForwardStats]:
        """The vectors [N, D] of texts, NaN for one with an error, and what they cost; its sequences are texts.

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
        return vectors_ND, replace(forwarded.stats, fp32_sequences=forwarded.fp32_rows)

    def score(self, texts: EncodedTexts, first_M: Ints, second_M: Ints) -> ScoredPairs:
        """What the head says of pairs of rows of `texts`, joined by what words and style say where it is known."""
        return self._scoring.score(texts, first_M, second_M)

    def logits(self, pairs: Iterable[Sequence[str]]) -> Floats:
        """The logits [M, C] of pairs of texts; NaN for a pair with a text that has no tokens."""
        texts, first_M, second_M = distinct_texts(pairs)
        return self.score(self.encode(texts), first_M, second_M).logits_MC

    def probabilities(self, pairs: Iterable[Sequence[str]]) -> npt.NDArray[np.float64]:
        """The probability of each label for each pair of texts, [M, C], calibrated where the bundle is.

        NaN for a pair with a text that has no tokens. Raises InputError for what is not a pair of strings.
        """
        return apply_calibration(self.logits(pairs), self.bundle.calibration, self.bundle.task)


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
