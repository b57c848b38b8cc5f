"""Texts to token ids, in threads beside the event loop, a fair batch at a time; a short text alone in it.

While the threads work, texts gather; a thread that becomes free takes what is there, by the same
policy as the device. The ids are those of `assay score`: the same encoder, the same windows.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, get_args

import numpy as np
import numpy.typing as npt

from assay import machine
from assay.serve.policy import Queue, Waiting
from assay.serve.refusals import Refusal, refusal_of
from assay.serve.tickets import QueuedDocument, Text, TextPlace, Ticket
from assay.siamese.reading import TextFeatures
from assay.tokenize.content import TruncationSide
from assay.tokenize.encode import Encoder
from assay.tokenize.tokens import ID_OUT_OF_RANGE, Tokens

T = TypeVar("T")

MOST_THREADS = 4
BATCH_CHARS = 200_000
BATCH_TEXTS = 128
INLINE_CHARS = 4_000
"""A single text up to this long is tokenized in the event loop: a thread would take longer to wake."""
_log = logging.getLogger(__name__)


class Tokenizer:
    """Makes documents of texts. Threads may share it."""

    def __init__(
        self, encoder: Encoder, features: Callable[[Sequence[str]], TextFeatures] | None = None
    ) -> None:
        """Encode as `encoder` does, but for requests that ask for texts to be cut, or cut on the left.

        `features` gives what of each text joins its vector, where something does; it is noted in the tickets too.
        """
        self.encoder = encoder
        self._features = features
        self._cutting = {side: encoder.truncating(side) for side in get_args(TruncationSide)}

    def warm_up(self) -> None:
        """Encode a text: the first one of a process takes a quarter of a second."""
        self.encoder.encode_texts(["a"])
        if self._features is not None:
            self._features(["a"])

    def documents(self, texts: Sequence[Text]) -> list[QueuedDocument | Refusal]:
        """A document for each text, or why there is none; notes token counts in the tickets."""
        found: list[QueuedDocument | Refusal | None] = [None] * len(texts)
        kinds: dict[tuple[bool, Encoder], list[int]] = {}
        for place, text in enumerate(texts):
            kinds.setdefault((text.second is not None, self._encoder(text.ticket)), []).append(place)
        for (is_pair, encoder), places in kinds.items():
            of_kind = [texts[place] for place in places]
            tokens = encoder.encode_texts(
                [text.first for text in of_kind],
                [text.second or "" for text in of_kind] if is_pair else None,
            )
            for place, made in zip(places, self._split(of_kind, tokens, encoder), strict=True):
                found[place] = made
        if self._features is not None:
            batch = self._features([text.first for text in texts])
            for row, text in enumerate(texts):
                text.ticket.features[text.index] = TextPlace(batch, row)
        return [made for made in found if made is not None]

    def _encoder(self, ticket: Ticket) -> Encoder:
        policy = self.encoder.on_long
        if policy == "truncate" or (policy == "error" and ticket.how.truncate is True):
            return self._cutting[ticket.how.truncation_side]
        return self.encoder

    def _split(
        self, texts: Sequence[Text], tokens: Tokens, encoder: Encoder
    ) -> list[QueuedDocument | Refusal]:
        num_tokens, truncated = tokens.num_tokens.tolist(), tokens.truncated.tolist()
        starts = [0] * len(texts) if tokens.second_starts is None else tokens.second_starts.tolist()
        flat_ids, lengths = _views(tokens, encoder)
        documents: list[QueuedDocument | Refusal] = []
        start = 0
        for row, text in enumerate(texts):
            ticket, index = text.ticket, text.index
            stop = start + sum(lengths[row])
            ticket.num_tokens[index], ticket.truncated[index] = num_tokens[row], truncated[row]
            where = ticket.where(index)
            if tokens.errors.get(row) == ID_OUT_OF_RANGE:
                message = (
                    f"{where}holds a token that the model has no embedding for; leave the token out".strip()
                )
                documents.append(Refusal("invalid", message))
            elif row in tokens.errors or (truncated[row] and ticket.how.truncate is False):
                limit = encoder.max_length
                message = f"{where}has more than {limit} tokens; shorten it, or send truncate: true".strip()
                documents.append(Refusal("too_long", message))
            else:
                documents.append(
                    QueuedDocument(ticket, index, flat_ids[start:stop], lengths[row], starts[row])
                )
            start = stop
        return documents


def _views(tokens: Tokens, encoder: Encoder) -> tuple[npt.NDArray[np.int32], list[list[int]]]:
    """All ids, and for each text the lengths of its views."""
    expanded = encoder.views.expand(tokens.rows)
    lengths: list[list[int]] = [[] for _ in range(tokens.rows.num_sequences)]
    for row, length in zip(
        expanded.row_S.tolist(), np.diff(expanded.sequences.offsets).tolist(), strict=True
    ):
        lengths[row].append(length)
    return expanded.sequences.flat_ids.astype(np.int32), lengths


class TokenizingStage:
    """The threads and what waits for them. Lives in the event loop."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        hand_on: Callable[[Ticket, list[QueuedDocument]], None],
        *,
        num_threads: int | None = None,
    ) -> None:
        """Give the documents of a ticket, as they come, to `hand_on`; `num_threads` at most, by default the cores."""
        self._tokenizer = tokenizer
        self._hand_on = hand_on
        self._queue: Queue[Ticket, Text] = Queue()
        self.num_threads = min(MOST_THREADS, num_threads or machine.usable_cores())
        self._num_busy = 0
        self._is_called = False
        self._threads = ThreadPoolExecutor(self.num_threads, thread_name_prefix="tokenize")

    @property
    def num_documents(self) -> int:
        """Texts that wait."""
        return self._queue.num_documents

    def add(self, ticket: Ticket, texts: list[Text]) -> None:
        """Tokenize these texts of a request."""
        sized = (Waiting(len(text.first) + len(text.second or "") + 1, text) for text in texts)
        self._queue.add(ticket, sized, deadline=ticket.deadline)
        self._start()

    def cancel(self, ticket: Ticket) -> None:
        """Forget what waits of a request."""
        self._queue.cancel(ticket)

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives, done in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """End the threads once they are done."""
        self._threads.shutdown(wait=False)

    def _start(self) -> None:
        """Look at what waits once the event loop has taken in what came together."""
        if not self._is_called:
            self._is_called = True
            asyncio.get_running_loop().call_soon(self._take)

    def _take(self) -> None:
        self._is_called = False
        loop = asyncio.get_running_loop()
        while self._num_busy < self.num_threads and self._queue.num_documents:
            is_idle = self._num_busy == 0
            taken = self._queue.take(loop.time(), budget=BATCH_CHARS, max_documents=BATCH_TEXTS)
            texts = [waiting.document for waiting in taken]
            if is_idle and len(texts) == 1 and taken[0].num_tokens <= INLINE_CHARS:
                self._hand_out(texts, _attempt(self._tokenizer, texts))
            elif texts:
                self._num_busy += 1
                future = loop.run_in_executor(self._threads, _attempt, self._tokenizer, texts)
                future.add_done_callback(lambda done, texts=texts: self._finish(texts, done.result()))  # type: ignore[misc]

    def _finish(self, texts: list[Text], found: "list[QueuedDocument | Refusal]") -> None:
        self._num_busy -= 1
        self._hand_out(texts, found)
        self._start()

    def _hand_out(self, texts: list[Text], found: "list[QueuedDocument | Refusal]") -> None:
        by_ticket: dict[Ticket, list[QueuedDocument]] = {}
        for text, made in zip(texts, found, strict=True):
            if isinstance(made, Refusal):
                text.ticket.fail(made)
                self.cancel(text.ticket)
            else:
                by_ticket.setdefault(text.ticket, []).append(made)
        for ticket, documents in by_ticket.items():
            if not ticket.done.done():
                self._hand_on(ticket, documents)


def _attempt(tokenizer: Tokenizer, texts: list[Text]) -> list[QueuedDocument | Refusal]:
    """The documents, or the same refusal for each where the tokenizer fails."""
    try:
        return tokenizer.documents(texts)
    except BaseException as error:  # noqa: BLE001  a panic in a Rust library is not an Exception
        _log.exception("tokenizing %d texts failed", len(texts))
        return [refusal_of(error if isinstance(error, Exception) else RuntimeError())] * len(texts)
