"""Documents of many chunks: each chunk is encoded once, however many documents and pairs it is in.

    text -> sentences -> chunks -> vectors and style, once each -> means of a document, words of the whole
    two documents -> one number: the higher, the likelier that they have the model's second label

By the aggregate this number is

    vectors   the log-odds of the head on the means of both documents' vectors and style
    logits    the mean of the log-odds over all pairs of a chunk of one and a chunk of the other
    attention as vectors, but of means in which a chunk counts the more the nearer it is to the other document
    cosine    the cosine of both means of vectors; nothing else joins it

To all but the cosine what words and style say is joined, where the model was trained to see it. Words are those of the
whole documents; what depends on the length of a text (style, number of words) is the mean of the chunks, so that it
stays in the range that the model was trained on.

Axes: N documents, K and L chunks of two of them, M pairs of documents, D dimensions of a vector.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from assay.books.normal_forms import find_names, mask_names, normalise_typography
from assay.books.sentences import split_sentences
from assay.books.windows import windows_of_tokens
from assay.errors import InputError, UsageError
from assay.metrics import softmax
from assay.siamese.evidence import EvidenceTexts
from assay.siamese.files import Siamese
from assay.siamese.pairs import SiameseModel
from assay.siamese.scoring import EncodedTexts, Floats, Ints, margins
from assay.siamese.settings import Aggregate, DocumentRules
from assay.tokenize.counting import CountTokens, open_encoder, token_counter

Numbers = npt.NDArray[np.float64]
_PAIRS_AT_ONCE = 32_768
MOST_PAIRS = 4_096
"""Of passages of two documents that are all set against each other to show which speak for and against it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """A chunk of a document."""

    start: int
    """First character in the document as it was given."""
    stop: int
    """One past the last."""
    text: str
    """In the normal form of the rules."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """A text and its chunks."""

    name: str
    """What messages call it."""
    text: str
    """The whole, in the normal form of the rules."""
    passages: tuple[Passage, ...]
    """At least one, in order."""

    @property
    def num_words(self) -> int:
        """Words of the whole text, between white space."""
        return len(self.text.split())

    @property
    def share_in_passages(self) -> float:
        """How much of the text is in its chunks, 0 to 1: sentences longer than a chunk and a short end are not."""
        held = sum(len(passage.text) for passage in self.passages)
        return min(1.0, held / max(1, len(self.text)))

    def take(self, numbers: Sequence[int]) -> "Document":
        """The document that is made of these chunks alone."""
        passages = tuple(self.passages[number] for number in numbers)
        return replace(self, passages=passages, text=" ".join(passage.text for passage in passages))


class DocumentCutter:
    """Cuts texts into the chunks that a model takes."""

    def __init__(self, bundle: Siamese, rules: DocumentRules, *, max_length: int) -> None:
        """Take the tokenizer of `bundle`; raises UsageError for chunks over `max_length` tokens."""
        encoder = open_encoder(bundle.path)
        special = encoder.special_tokens
        room = max_length - (0 if special is None else special.num_tokens)
        if rules.chunk_tokens is not None and rules.chunk_tokens > room:
            raise UsageError(
                f"chunk_tokens is {rules.chunk_tokens}; {bundle.path} reads {room} of a text; lower it, or raise"
                " --max-length where the model allows it"
            )
        self.max_length = max_length
        """Tokens that the model reads of a text, special ones included."""
        self.chunk_tokens = rules.chunk_tokens or room
        """Most tokens of a chunk, without special ones."""
        self._rules = rules
        self._language = bundle.head.style.language
        self._count_tokens: CountTokens = token_counter(encoder)

    def cut(self, text: str, *, name: str) -> Document:
        """The document with its chunks; one whose text is shorter than a chunk, or has no sentence that fits, is one.

        Raises InputError for a text of white space alone.
        """
        spans = split_sentences(text, self._language).tolist()
        if not spans:
            raise InputError(f"{name}: no text; two texts are compared; give one with words")
        normal = self._normal_form(text)
        counts = self._count_tokens([normal(start, stop) for start, stop in spans])
        windows = windows_of_tokens(counts, budget=self.chunk_tokens, overlap=0).tolist()
        passages = []
        for first, stop in windows or [(0, len(spans))]:
            start, end = spans[first][0], spans[stop - 1][1]
            passages.append(Passage(start=start, stop=end, text=normal(start, end)))
        return Document(name=name, text=normal(0, len(text)), passages=tuple(passages))

    def _normal_form(self, text: str) -> Callable[[int, int], str]:
        names = find_names(text, self._language) if self._rules.mask_names else frozenset[str]()

        def normal(start: int, stop: int) -> str:
            piece = text[start:stop]
            if self._rules.mask_names:
                piece = mask_names(piece, self._language, names)
            return normalise_typography(piece) if self._rules.typography == "normal" else piece

        return normal


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedDocuments:
    """Documents as the model sees them."""

    chunks: EncodedTexts
    """A row a distinct chunk."""
    rows: tuple[Ints, ...]
    """Rows of `chunks` of each document, without those that have no tokens."""
    passages: tuple[Ints, ...]
    """Which of the document's passages these are."""
    wholes: EncodedTexts
    """A row a document: means of its chunks, words of the whole."""


def encode_documents(model: SiameseModel, documents: Sequence[Document]) -> EncodedDocuments:
    """The documents as `model` sees them, each distinct chunk run through the encoder once.

    Raises InputError for a document of which no chunk has a token.
    """
    places: dict[str, int] = {}
    found = [
        np.array([places.setdefault(each.text, len(places)) for each in document.passages], dtype=np.int64)
        for document in documents
    ]
    chunks = model.encode(list(places))
    passages = [np.flatnonzero(~np.isin(rows, list(chunks.errors))) for rows in found]
    for document, kept in zip(documents, passages, strict=True):
        if not len(kept):
            raise InputError(f"{document.name}: no token that the model knows; give a text with words")
    rows = tuple(each[kept] for each, kept in zip(found, passages, strict=True))
    vectors_ND = _means(chunks.vectors_ND, rows)
    vectors_ND /= np.maximum(np.linalg.norm(vectors_ND, axis=1, keepdims=True), 1e-12)
    return EncodedDocuments(
        chunks=chunks,
        rows=rows,
        passages=tuple(passages),
        wholes=EncodedTexts(
            vectors_ND=vectors_ND.astype(np.float32),
            style_NF=_means(chunks.style_NF, rows).astype(np.float32),
            evidence=_evidence(model.bundle, chunks.evidence, rows, documents),
            truncated_N=np.array([chunks.truncated_N[each].any() for each in rows], dtype=np.bool_),
            errors={},
        ),
    )


def _evidence(
    bundle: Siamese, chunks: EvidenceTexts | None, rows: Sequence[Ints], documents: Sequence[Document]
) -> EvidenceTexts | None:
    if bundle.evidence is None or chunks is None:
        return None
    return EvidenceTexts(
        lexical=bundle.evidence.evidence.lexicon.encode(document.text for document in documents),
        style_NF=_means(chunks.style_NF, rows).astype(np.float32),
        num_words_N=_means(chunks.num_words_N[:, None], rows)[:, 0],
    )


def _means(values: Floats | Numbers, rows: Sequence[Ints]) -> Numbers:
    found: Numbers = np.array([values[each].mean(axis=0, dtype=np.float64) for each in rows])
    return found.reshape(len(rows), values.shape[1])


def compare_documents(
    model: SiameseModel, documents: EncodedDocuments, first_M: Ints, second_M: Ints, aggregate: Aggregate
) -> Numbers:
    """One number for each pair of documents, [M]; see the top of the module."""
    wholes = documents.wholes
    if aggregate == "cosine":
        return model.score(wholes, first_M, second_M).cosines_M.astype(np.float64)
    if aggregate == "vectors":
        return margins(model.score(wholes, first_M, second_M).logits_MC)
    if aggregate == "attention":
        network_M = _attended(model, documents, first_M, second_M)
    else:
        network_M = np.array(
            [
                sum(float(block.sum()) for block in _network(model, documents, one, two))
                / (len(documents.rows[one]) * len(documents.rows[two]))
                for one, two in zip(first_M.tolist(), second_M.tolist(), strict=True)
            ]
        )
    weighed = model.bundle.evidence
    if weighed is None or wholes.evidence is None:
        return network_M
    return weighed.combination(network_M, weighed.evidence.log_odds(wholes.evidence, first_M, second_M))


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedPassages:
    """What the model says of pairs of passages of two documents."""

    first_K: Ints
    """Which passages of the first document."""
    second_L: Ints
    """Which of the second."""
    log_odds_KL: Floats
    """Of each pair of these."""


def compare_passages(
    model: SiameseModel, documents: EncodedDocuments, first: int, second: int, *, most_pairs: int = MOST_PAIRS
) -> ComparedPassages:
    """The log-odds that the model gives pairs of passages of two documents: of all, where they are few.

    Of documents with more than `most_pairs`, the passages of each that say most for and against it when they are
    set against the whole of the other document are paired: K + L small products instead of K x L.
    """
    one, two = (np.arange(len(documents.rows[side])) for side in (first, second))
    if len(one) * len(two) > most_pairs:
        most = max(2, math.isqrt(most_pairs))
        one = _strongest(model, documents, first, second, most)
        two = _strongest(model, documents, second, first, most)
    rows = documents.rows[first][one], documents.rows[second][two]
    found = [margins(model.score(documents.chunks, *pairs).logits_MC) for pairs in _pairs(*rows)]
    return ComparedPassages(
        first_K=documents.passages[first][one],
        second_L=documents.passages[second][two],
        log_odds_KL=np.concatenate(found).astype(np.float32).reshape(len(one), len(two)),
    )


def _strongest(model: SiameseModel, documents: EncodedDocuments, side: int, other: int, most: int) -> Ints:
    """Places in `documents.rows[side]` of the passages with the highest and the lowest log-odds against the other."""
    rows = documents.rows[side]
    if len(rows) <= most:
        return np.arange(len(rows))
    texts = EncodedTexts.join(documents.chunks, documents.wholes)
    whole = np.full(len(rows), len(documents.chunks.vectors_ND) + other)
    order = np.argsort(margins(model.score(texts, rows, whole).logits_MC), kind="stable")
    found: Ints = np.sort(np.concatenate([order[: most // 2], order[-(most - most // 2) :]]))
    return found


def _attended(model: SiameseModel, documents: EncodedDocuments, first_M: Ints, second_M: Ints) -> Numbers:
    """The log-odds of the network on means by attention, [M]: the other document's mean vector is the query.

    Weights are the softmax of the chunks' cosines to it over the temperature that cosines had in training (dot-product
    attention, Luong et al. 2015, without weights of its own): a passage that is near the other text counts more.
    """
    chunks, wholes = documents.chunks, documents.wholes
    vectors, styles = [], []
    for one, two in zip(first_M.tolist(), second_M.tolist(), strict=True):
        for side, other in ((one, two), (two, one)):
            rows = documents.rows[side]
            cosines_K = chunks.vectors_ND[rows].astype(np.float64) @ wholes.vectors_ND[other]
            weights_K = softmax(cosines_K[None] / model.temperature)[0]
            mean_D = weights_K @ chunks.vectors_ND[rows]
            vectors.append(mean_D / max(float(np.linalg.norm(mean_D)), 1e-12))
            styles.append(weights_K @ chunks.style_NF[rows])
    both = EncodedTexts(
        vectors_ND=np.array(vectors, dtype=np.float32).reshape(-1, chunks.vectors_ND.shape[1]),
        style_NF=np.array(styles, dtype=np.float32).reshape(-1, chunks.style_NF.shape[1]),
        evidence=None,
        truncated_N=np.zeros(len(vectors), dtype=np.bool_),
        errors={},
    )
    place_M = 2 * np.arange(len(first_M))
    return margins(model.score(both, place_M, place_M + 1).logits_MC)


def _network(model: SiameseModel, documents: EncodedDocuments, first: int, second: int) -> Iterator[Numbers]:
    """The log-odds of the network alone, a block of pairs of chunks at a time."""
    chunks = replace(documents.chunks, evidence=None)
    for pairs in _pairs(documents.rows[first], documents.rows[second]):
        yield margins(model.score(chunks, *pairs).logits_MC)


def _pairs(one: Ints, two: Ints) -> Iterator[tuple[Ints, Ints]]:
    """All pairs of two lists of rows in blocks, so that memory does not grow with their product."""
    for start in range(0, len(one) * len(two), _PAIRS_AT_ONCE):
        place = np.arange(start, min(start + _PAIRS_AT_ONCE, len(one) * len(two)))
        yield one[place // len(two)], two[place % len(two)]
