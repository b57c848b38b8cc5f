"""[pure] Which waiting documents the device gets next.

A batch begins with the document that has waited longest, so that none waits for ever: a document
with k older ones before it is in one of the next k + 1 batches. The rest of the token budget is dealt
out one document a request and round, older requests first: a request of one document does not wait
for the whole of a large one. Documents too long for what is left of the budget are passed over, a
bounded number of times, for shorter ones behind them.

Time is passed in. What has expired or was cancelled is dropped before it costs anything.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT")
DocumentT = TypeVar("DocumentT")

LOOK_AHEAD = 64
"""Documents that a batch passes over before it is closed."""


@dataclass(frozen=True, slots=True)
class Waiting(Generic[DocumentT]):
    """A document in the queue."""

    num_tokens: int
    """Tokens that it costs, special ones and all windows included."""
    document: DocumentT
    """Whatever the caller needs to know of it."""
    is_alone: bool = False
    """Runs in a batch of its own: it was in a batch that ended an engine."""


@dataclass(slots=True)
class _WaitingRequest(Generic[DocumentT]):
    deadline: float
    documents: deque[Waiting[DocumentT]]


class Queue(Generic[KeyT, DocumentT]):
    """Documents of requests, in order of arrival. Not thread-safe; reads no clock."""

    def __init__(self) -> None:
        """An empty queue."""
        self._requests: OrderedDict[KeyT, _WaitingRequest[DocumentT]] = OrderedDict()
        self.num_documents = 0
        """Documents that wait."""
        self.num_tokens = 0
        """Their tokens."""

    def add(
        self, key: KeyT, documents: Iterable[Waiting[DocumentT]], *, deadline: float, is_first: bool = False
    ) -> None:
        """Queue documents of a request; `is_first` puts it before all others (it was there before)."""
        request = self._requests.get(key)
        if request is None:
            request = self._requests[key] = _WaitingRequest(deadline, deque())
        added = list(documents)
        if is_first:
            request.documents.extendleft(reversed(added))
            self._requests.move_to_end(key, last=False)
        else:
            request.documents.extend(added)
        self.num_documents += len(added)
        self.num_tokens += sum(each.num_tokens for each in added)

    def cancel(self, key: KeyT) -> None:
        """Drop what waits of a request; nothing where nothing does."""
        request = self._requests.pop(key, None)
        if request is not None:
            self.num_documents -= len(request.documents)
            self.num_tokens -= sum(each.num_tokens for each in request.documents)

    def take(
        self, now: float, *, budget: int, max_documents: int, is_padded: bool = False
    ) -> list[Waiting[DocumentT]]:
        """The next batch: at most `budget` tokens, unless the first document alone has more.

        With `is_padded` every document counts as the longest of the batch. Requests past their
        deadline are dropped. Empty where nothing is left.
        """
        batch: list[Waiting[DocumentT]] = []
        filling = _Filling(budget=budget, max_documents=max_documents, is_padded=is_padded)
        candidates = list(self._requests)
        while candidates and not filling.is_closed():
            further: list[KeyT] = []
            for key in candidates:
                request = self._requests[key]
                if request.deadline <= now:
                    self.cancel(key)
                elif filling.takes(request.documents[0]):
                    batch.append(self._pop(key, request))
                    if request.documents:
                        further.append(key)
                if filling.is_closed():
                    break
            candidates = further
        return batch

    def _pop(self, key: KeyT, request: _WaitingRequest[DocumentT]) -> Waiting[DocumentT]:
        taken = request.documents.popleft()
        self.num_documents -= 1
        self.num_tokens -= taken.num_tokens
        if not request.documents:
            del self._requests[key]
        return taken


def done_together(begins: Sequence[float], seconds: float) -> float:
    """When workers that begin at these times are all done with work for one of them for so many seconds.

    [0, 4] are done with 2 seconds of work at 2, by the first alone, and with 6 at 5.
    """
    ordered = sorted(begins)
    sums = accumulate(ordered)
    later = [*ordered[1:], math.inf]
    ends = ((seconds + total) / (number + 1) for number, total in enumerate(sums))
    return next(end for end, following in zip(ends, later, strict=True) if end <= following)


@dataclass(slots=True)
class _Filling:
    """A batch being filled: what it holds so far, and whether more may come."""

    budget: int
    max_documents: int
    is_padded: bool
    num_documents: int = 0
    num_tokens: int = 0
    longest: int = 0
    num_passed: int = 0
    is_full: bool = False

    def is_closed(self) -> bool:
        """Whether nothing more goes in."""
        return self.is_full or self.num_passed >= LOOK_AHEAD

    def takes(self, waiting: Waiting[DocumentT]) -> bool:
        """Whether the document goes into the batch; counts it, or that it was passed over."""
        if waiting.is_alone and self.num_documents:
            return self._passes_over()
        longest = max(self.longest, waiting.num_tokens)
        num_tokens = self.num_tokens + waiting.num_tokens
        cost = longest * (self.num_documents + 1) if self.is_padded else num_tokens
        if self.num_documents and cost > self.budget:
            return self._passes_over()
        self.num_documents += 1
        self.num_tokens, self.longest = num_tokens, longest
        self.is_full = waiting.is_alone or cost >= self.budget or self.num_documents >= self.max_documents
        return True

    def _passes_over(self) -> bool:
        self.num_passed += 1
        return False
