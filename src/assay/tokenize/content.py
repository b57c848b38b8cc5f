"""Content ids of texts, without special tokens: no more of a long text is tokenized than a policy keeps.

The library is called on batches of bounded size, and on pieces of long texts; `cuts` says where a text
may be cut without changing the ids.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Literal, cast

from tokenizers import Tokenizer

from assay.tokenize.cuts import CutRule

TruncationSide = Literal["left", "right"]
"""Where a text that is too long loses content."""

# English prose has 4 to 5 characters a token; a head that yields too few tokens is made 8 times longer.
_CHARS_PER_TOKEN = 6
_HEAD_GROWTH = 8
# A cut text must yield this many tokens more than are kept: belt and braces beside the proof in `cuts`.
_MARGIN_TOKENS = 16
# One call into the library: enough to keep the cores busy, little enough that its encodings, about
# 150 bytes a token, stay near 100 MB.
_BATCH_CHARS = 2_000_000
_BATCH_TEXTS = 1024
# Longer texts are tokenized in pieces, which is parallel and bounds memory.
_PIECE_CHARS = 100_000


class ContentReader:
    """Reads the ids of texts with one tokenizer. Threads may share it."""

    def __init__(self, tokenizer: Tokenizer, cut_rule: CutRule) -> None:
        """`tokenizer` neither truncates nor pads."""
        self._tokenizer = tokenizer
        self._cut_rule = cut_rule

    def near(self, texts: list[str], num_kept: int, side: TruncationSide) -> tuple[list[list[int]], set[int]]:
        """Content ids of each text, all or more than are kept, and the numbers of those not read whole."""
        content: list[list[int]] = [[] for _ in texts]
        cut: set[int] = set()
        pending: Sequence[int] = range(len(texts))
        num_chars = (num_kept + _MARGIN_TOKENS) * _CHARS_PER_TOKEN
        while pending:
            ends = [self._end(texts[number], num_chars, side) for number in pending]
            short: list[int] = []
            for number, end, ids in zip(pending, ends, self.whole(ends), strict=True):
                content[number] = ids
                if len(end) == len(texts[number]):
                    continue
                if len(ids) < num_kept + _MARGIN_TOKENS:
                    short.append(number)
                else:
                    cut.add(number)
            pending = short
            num_chars *= _HEAD_GROWTH
        return content, cut

    def _end(self, text: str, num_chars: int, side: TruncationSide) -> str:
        """The end that is kept, of `num_chars` or more; the whole text where it cannot be cut."""
        if side == "right":
            return self._cut_rule.head(text, num_chars)
        return self._cut_rule.tail(text, num_chars) or text

    def outer(self, texts: list[str], num_head: int, num_tail: int) -> list[list[int]]:
        """Content ids of each text, or its first and last ones and more than the sum where it is long."""
        head_chars = (num_head + _MARGIN_TOKENS) * _CHARS_PER_TOKEN
        tail_chars = (num_tail + _MARGIN_TOKENS) * _CHARS_PER_TOKEN
        ends: list[str] = []
        for text in texts:
            head, tail = self._cut_rule.head(text, head_chars), self._cut_rule.tail(text, tail_chars)
            is_shorter = tail is not None and len(head) + len(tail) < len(text)
            ends += (head, cast("str", tail)) if is_shorter else (text, "")
        content = self.whole(ends)
        joined = [head + tail for head, tail in zip(content[::2], content[1::2], strict=True)]
        missing = [
            i
            for i, (head, tail) in enumerate(zip(content[::2], content[1::2], strict=True))
            if ends[2 * i + 1]
            and (len(head) < num_head + _MARGIN_TOKENS or len(tail) < num_tail + _MARGIN_TOKENS)
        ]
        for i, ids in zip(missing, self.whole([texts[i] for i in missing]), strict=True):
            joined[i] = ids
        return joined

    def whole(self, texts: list[str]) -> list[list[int]]:
        """Every id of each text, without special tokens; long texts in pieces."""
        if all(len(text) <= _PIECE_CHARS for text in texts):
            return self._library_ids(texts)
        pieces = [list(self._cut_rule.pieces(text, _PIECE_CHARS)) for text in texts]
        ids = iter(self._library_ids([piece for row in pieces for piece in row]))
        return [list(chain.from_iterable(next(ids) for _ in row)) for row in pieces]

    def _library_ids(self, texts: list[str]) -> list[list[int]]:
        content: list[list[int]] = []
        for start, stop in pairwise(batch_boundaries(texts)):
            encodings = self._tokenizer.encode_batch_fast(texts[start:stop], add_special_tokens=False)
            content += [encoding.ids for encoding in encodings]
        return content


def batch_boundaries(texts: list[str], text_pairs: list[str] | None = None) -> Iterator[int]:
    """Row numbers at which batches of a bounded number of characters start; the last one is the end."""
    yield 0
    start = num_chars = 0
    for row, text in enumerate(texts):
        num_chars += len(text) + (len(text_pairs[row]) if text_pairs else 0)
        if num_chars >= _BATCH_CHARS or row + 1 - start >= _BATCH_TEXTS:
            yield row + 1
            start, num_chars = row + 1, 0
    if start < len(texts):
        yield len(texts)
