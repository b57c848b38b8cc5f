"""A request on its way through the server: texts, documents of token ids, scores or vectors."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from assay.serve.scores import Score
from assay.serve.vectors import Vector
from assay.siamese.reading import TextFeatures
from assay.tokenize.content import TruncationSide

RequestTexts = Sequence[tuple[str, str | None]]
"""The texts of a request in order, each with its second text where it is a pair."""
TextAnswer = Score | Vector
"""What the model says of one text: a classifier a score, an encoder a vector."""


@dataclass(frozen=True, kw_only=True, slots=True)
class How:
    """How the texts of a request are to be read, and their vectors given."""

    truncate: bool | None = None
    """Whether over-long texts are cut; None: as the server was told."""
    truncation_side: TruncationSide = "right"
    normalize: bool = False
    """Whether vectors are to have length 1."""


@dataclass(frozen=True, slots=True)
class TextPlace:
    """Where what joins the vector of a text is: a row of those of a batch that was read together."""

    batch: TextFeatures
    row: int


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a request, or one pair, to be tokenized."""

    ticket: "Ticket"
    index: int
    first: str
    second: str | None


@dataclass(slots=True)
class QueuedDocument:
    """One text as token ids."""

    ticket: "Ticket"
    index: int
    flat_ids: npt.NDArray[np.int32]
    """Ids of its windows, one after the other; of one window but under a window policy."""
    lengths: list[int]
    """Ids of each window."""
    second_start: int
    """Where the second text of a pair begins, 0 for none."""
    num_tried: int = 0
    """Engines that died of a batch which it was in."""


@dataclass(slots=True)
class AnsweredText:
    """What became of one text."""

    answer: TextAnswer
    num_tokens: int
    truncated: bool

    @property
    def score(self) -> Score:
        """Of a text that a classifier was asked about."""
        assert isinstance(self.answer, Score), "scores are asked of a classifier"
        return self.answer

    @property
    def vector(self) -> Vector:
        """Of a text that an encoder was asked about."""
        assert not isinstance(self.answer, Score), "vectors are asked of an encoder"
        return self.answer


@dataclass(slots=True, eq=False)
class Ticket:
    """A request that was accepted. Lives in the event loop."""

    request_id: str
    num_documents: int
    deadline: float
    """Event loop time after which nobody waits for the answer."""
    how: How
    done: "asyncio.Future[list[AnsweredText]]"
    arrived_at: float
    """By `time.perf_counter`, as the times below: uvloop counts whole milliseconds."""
    rows: Sequence[int] | None = None
    """Which row of the request each document is (first) of, where these are not in the places of its documents."""
    num_tokens: list[int] = field(default_factory=list)
    """Tokens of each text."""
    truncated: list[bool] = field(default_factory=list)
    features: list[TextPlace | None] = field(default_factory=list)
    """What of each text joins its vector, of a Siamese model."""
    answers: list[TextAnswer | None] = field(default_factory=list)
    num_left: int = 0
    estimated_tokens: int = 0
    """Tokens it counts for until it is tokenized."""
    tokenized_at: float = 0.0
    started_at: float = 0.0
    """When its first document went to an engine."""
    forward_seconds: float = 0.0
    """Wall time of the slowest batch that it was in."""

    def __post_init__(self) -> None:
        """Room for every text."""
        self.num_left = self.num_documents
        self.num_tokens = [0] * self.num_documents
        self.truncated = [False] * self.num_documents
        self.features = [None] * self.num_documents
        self.answers = [None] * self.num_documents

    def is_over(self) -> bool:
        """Whether it is answered, or nobody waits any more."""
        return self.done.done()

    def where(self, index: int) -> str:
        """What messages call a text: its row of the request, with a space behind; nothing where there is one row."""
        if self.rows is None:
            return "" if self.num_documents == 1 else f"text {index} "
        return "" if max(self.rows) == 0 else f"pair {self.rows[index]} "

    def take(self, index: int, answer: TextAnswer) -> None:
        """Note a text's answer; the last one completes the request."""
        self.answers[index] = answer
        self.num_left -= 1
        if self.num_left == 0 and not self.done.done():
            self.done.set_result(
                [
                    AnsweredText(found, self.num_tokens[index], self.truncated[index])
                    for index, found in enumerate(self.answers)
                    if found is not None
                ]
            )

    def add(self, other: "Ticket") -> None:
        """Count the times of another ticket, of the same request and later, as this one's."""
        tokenizing, waiting = other.tokenized_at - other.arrived_at, other.started_at - other.tokenized_at
        self.tokenized_at += tokenizing
        self.started_at += tokenizing + waiting
        self.forward_seconds += other.forward_seconds

    def fail(self, refusal: Exception) -> None:
        """The whole request gets an error for an answer, or none where its client is gone."""
        if not self.done.done():
            self.done.set_exception(refusal)


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""
