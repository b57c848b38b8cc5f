"""One file to the chunks of its book, or to the code of what is wrong with it.

The main path is `chunk_book`: decode and clean, find the language, cut into sentences, put these together in
windows, take a sample of them, drop what is not worth keeping.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from assay.books.cleaning import clean_book, decode_book
from assay.books.second_book import SecondBook, find_second_book
from assay.books.sentences import split_sentences
from assay.books.windows import (
    SentenceWindows,
    sample_order,
    windows_of_sentences,
    windows_of_tokens,
)
from assay.prepare.chunks.languages import language_of, language_of_book
from assay.prepare.chunks.passages import Passages
from assay.prepare.chunks.quality import FLAWS, flaw_of
from assay.prepare.chunks.settings import ChunkRules

if TYPE_CHECKING:  # takes a tenth of the time that a worker needs to start
    from assay.tokenize.counting import CountTokens

NOT_TEXT = "not_text"
"""The file holds NUL characters in its text, or no text at all."""
HTML = "html"
"""The file is an HTML page."""
QUARANTINED = "quarantined"
"""Cleaning would drop too much, or the file holds two books."""
SHORTER_THAN_A_CHUNK = "shorter_than_a_chunk"
OTHER_LANGUAGE = "other_language"
"""Every chunk is in another language than the book is said to be in."""
NO_GOOD_CHUNK = "no_good_chunk"
"""There are chunks, and each is too short or holds few letters."""

NUM_LANGUAGE_SAMPLE = 8
NUM_COUNTED_TWICE = 4
"""Chunks whose tokens are counted as a whole, to see that they are the sum of those of its sentences."""
_HTML = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A piece of a book."""

    number: int
    """Among all windows of the book, in the order of the text."""
    start: int
    """First character in the cleaned text."""
    stop: int
    """One past the last."""
    num_sentences: int
    num_tokens: int | None
    text: str
    """In the normal forms that were asked for."""
    text_hash: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkedBook:
    """What came of one file."""

    chunks: tuple[Chunk, ...] = ()
    """In the order of the text."""
    language: str | None = None
    error: str | None = None
    """Why there is no chunk."""
    second_book: SecondBook | None = None
    """Where the file seems to hold another book; its chunks are made all the same."""
    counts: Counter[str] = field(default_factory=Counter)
    """`sentences`, `windows`, `not_sampled`, and dropped chunks by flaw."""


def chunk_book(
    content: bytes, book_id: str, rules: ChunkRules, count_tokens: "CountTokens | None" = None
) -> ChunkedBook:
    """The chunks of the book that a file holds. The same bytes, id and rules give the same chunks anywhere."""
    text = decode_book(content).text
    if "\0" in text or not text.strip():
        return ChunkedBook(error=NOT_TEXT)
    if _HTML.match(text):
        return ChunkedBook(error=HTML)
    language = rules.language
    if not rules.cleaned:
        cleaned = clean_book(text)
        if cleaned.quarantined is not None:
            return ChunkedBook(error=QUARANTINED)
        text = cleaned.text
        if language is None and len(cleaned.header.languages) == 1:
            language = cleaned.header.languages[0]
    if language is None and rules.language_check != "off":
        language = language_of_book(text)
    return _Chunker(text, book_id, language, rules, count_tokens).chunk()


class _Chunker:
    """A cleaned text on its way to chunks."""

    def __init__(
        self,
        text: str,
        book_id: str,
        language: str | None,
        rules: ChunkRules,
        count_tokens: "CountTokens | None",
    ) -> None:
        self._text = text
        self._book_id = book_id
        self._language = language
        self._rules = rules
        self._count_tokens = count_tokens
        self._spans = split_sentences(text, language or "")
        self._sentence_tokens: list[int] | None = None
        self._counts: Counter[str] = Counter(sentences=len(self._spans))

    def chunk(self) -> ChunkedBook:
        windows, passages = self._windows()
        self._counts["windows"] = len(windows)
        if not len(windows):
            return self._failed(SHORTER_THAN_A_CHUNK)
        kept = dict(self._good(windows, passages))
        if not kept:
            return self._failed(OTHER_LANGUAGE if self._counts["other_language"] else NO_GOOD_CHUNK)
        numbers = sorted(kept)
        texts = [kept[number] for number in numbers]
        tokens = self._tokens_of(windows, numbers, texts)
        chunks = []
        for number, text, num_tokens in zip(numbers, texts, tokens, strict=True):
            first, stop = windows[number].tolist()
            chunk = Chunk(
                number=number,
                start=int(self._spans[first, 0]),
                stop=int(self._spans[stop - 1, 1]),
                num_sentences=stop - first,
                num_tokens=num_tokens,
                text=text,
                text_hash=passages.hash(first, stop),
            )
            chunks.append(chunk)
        return ChunkedBook(
            chunks=tuple(chunks),
            language=self._language,
            second_book=find_second_book(self._text),
            counts=self._counts,
        )

    def _failed(self, code: str) -> ChunkedBook:
        return ChunkedBook(error=code, language=self._language, counts=self._counts)

    def _windows(self) -> tuple[SentenceWindows, Passages]:
        rules = self._rules
        if rules.chunk_tokens is None:
            windows = windows_of_sentences(
                len(self._spans), size=rules.chunk_sentences, overlap=rules.overlap_sentences
            )
            return windows, self._cut(np.unique(windows).tolist())
        assert self._count_tokens is not None, "a budget of tokens has a tokenizer"
        passages = self._cut(range(len(self._spans) + 1))
        self._sentence_tokens = self._count_tokens(passages.pieces)
        self._counts["sentences_over_budget"] = sum(
            count > rules.chunk_tokens for count in self._sentence_tokens
        )
        windows = windows_of_tokens(
            self._sentence_tokens, budget=rules.chunk_tokens, overlap=rules.overlap_sentences
        )
        return windows, passages

    def _cut(self, cuts: Iterable[int]) -> Passages:
        return Passages(self._text, self._spans, self._language or "", self._rules, cuts=cuts)

    def _good(self, windows: SentenceWindows, passages: Passages) -> Iterator[tuple[int, str]]:
        """The chunks that are kept: number and text, in the order in which the sample takes them."""
        order = sample_order(len(windows), seed=self._rules.seed, book_id=self._book_id)
        num_kept = 0
        for number, text in self._in_language(self._without_flaws(order, windows, passages)):
            num_kept += 1
            yield number, text
            if num_kept == self._rules.max_chunks:
                break
        self._counts["not_sampled"] = len(windows) - num_kept - sum(self._counts[flaw] for flaw in FLAWS)

    def _without_flaws(
        self, order: Sequence[int], windows: SentenceWindows, passages: Passages
    ) -> Iterator[tuple[int, str]]:
        rules = self._rules
        for number in order:
            first, stop = windows[number].tolist()
            text = passages.text(first, stop)
            flaw = flaw_of(
                text,
                min_chars=rules.min_chars,
                min_letters=rules.min_letters,
                num_ascii=passages.num_ascii(first, stop),
            )
            if flaw is None:
                yield number, text
            else:
                self._counts[flaw] += 1

    def _in_language(self, found: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        """Those in the book's language; of a book whose first eight all are, the others are not looked at."""
        check = self._rules.language_check
        is_suspect = check == "every"
        for place, (number, text) in enumerate(found):
            is_looked_at = check != "off" and (is_suspect or place < NUM_LANGUAGE_SAMPLE)
            if is_looked_at and language_of(text) != self._language:
                is_suspect = True
                self._counts["other_language"] += 1
            else:
                yield number, text

    def _tokens_of(
        self, windows: SentenceWindows, numbers: Sequence[int], texts: Sequence[str]
    ) -> Sequence[int | None]:
        """Tokens of the kept chunks; those of its sentences together, where the tokenizer counts so."""
        if self._count_tokens is None:
            return [None] * len(texts)
        if self._sentence_tokens is not None:
            counts = self._sentence_tokens
            sums = [sum(counts[first:stop]) for first, stop in windows[list(numbers)].tolist()]
            if self._count_tokens(texts[:NUM_COUNTED_TWICE]) == sums[:NUM_COUNTED_TWICE]:
                return sums
        return self._count_tokens(texts)
