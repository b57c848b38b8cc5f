"""A request on its way through the server: texts, documents of token ids, scores."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from assay.serve.scores import Score

RequestTexts = Sequence[tuple[str, str | None]]
"""The texts of a request in order, each with its second text where it is a pair."""
Side = Literal["right", "left"]
"""Where over-long texts are cut."""


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a request, or one pair, to be tokenized."""

    ticket: "Ticket"
    index: int
    first: str
    second: str | None


@dataclass(slots=True)
class Document:
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
class ScoredText:
    """What became of one text."""

    score: Score
    num_tokens: int
    truncated: bool


@dataclass(slots=True, eq=False)
class Ticket:
    """A request that was accepted. Lives in the event loop."""

    request_id: str
    num_documents: int
    deadline: float
    """Event loop time after which nobody waits for the answer."""
    truncate: bool | None
    """Whether over-long texts are cut; None: as the server was told."""
    truncation_side: Side
    done: "asyncio.Future[list[ScoredText]]"
    arrived_at: float
    """By `time.perf_counter`, as the times below: uvloop counts whole milliseconds."""
    num_tokens: list[int] = field(default_factory=list)
    """Tokens of each text."""
    truncated: list[bool] = field(default_factory=list)
    scores: list[Score | None] = field(default_factory=list)
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
        self.scores = [None] * self.num_documents

    def take(self, index: int, score: Score) -> None:
        """Note a text's score; the last one completes the request."""
        self.scores[index] = score
        self.num_left -= 1
        if self.num_left == 0 and not self.done.done():
            self.done.set_result(
                [
                    ScoredText(found, self.num_tokens[index], self.truncated[index])
                    for index, found in enumerate(self.scores)
                    if found is not None
                ]
            )

    def fail(self, refusal: Exception) -> None:
        """The whole request gets an error for an answer, or none where its client is gone."""
        if not self.done.done():
            self.done.set_exception(refusal)


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""
