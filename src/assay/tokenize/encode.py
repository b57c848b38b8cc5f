"""Texts in, one flat buffer of token ids out, under one policy for long documents.

The bundle's tokenizer.json is the truth; the `tokenizers` library reads it directly. The library
splits texts into tokens, on all cores; special tokens, truncation and windows are ours, because a
policy for long documents needs the content and the special tokens apart:

    texts -> content ids -> policy: which of them stay -> special tokens around -> `Tokens`

Where the special tokens stand is found by probing (`special_tokens`); how much of a long text must be
tokenized is the matter of `content`. A tokenizer whose special tokens follow no plain template is asked
for everything, truncation included.

Truncation cuts the end away, and the beginning only for `truncating("left")`. Not covered: padding,
and settings that `transformers` reads from tokenizer_config.json only.
"""

import os
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import accumulate, chain, compress, pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Encoding, Tokenizer

from assay.errors import BundleError, RefusedError, UsageError
from assay.model.checkpoint import read_optional_json, vocab_size_of
from assay.model.tokenizer_files import SAVE_TOKENIZER, read_tokenizer, tokenizer_fingerprint
from assay.tokenize.content import ContentReader, TruncationSide, batch_boundaries
from assay.tokenize.cuts import CutRule, find_cut_rule
from assay.tokenize.settings import ONE_PIECE, WINDOWS, OnLong
from assay.tokenize.special_tokens import probe_pair, probe_single, second_type_start
from assay.tokenize.tokens import TOO_LONG, Tokens
from assay.tokenize.views import OffsetWindows, Views, WholeRows, Windows

# Sun et al. 2019 (arXiv:1905.05583, section 5.3.1) keep the first 128 and the last 382 of 510 tokens.
_HEAD_SHARE = 128 / 510
_PROBE = "a \N{SNOWMAN}"
"""A text with a word and a sign that few vocabularies hold: a tokenizer that fails of it would fail within a run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """What becomes of a few documents: `parts` in a row are the ids, `lengths` cut them into rows."""

    parts: list[Sequence[int]]
    lengths: list[int]
    truncated: list[bool]
    second_starts: list[int]
    """Empty for single texts; 0 for a row without a second segment."""


class Encoder:
    """Turns Arrow columns of text into `Tokens` with one bundle's tokenizer and one policy.

    `encode` uses every core (the library's own threads; `TOKENIZERS_PARALLELISM=false` stops that)
    and gives the same ids whatever the batch. Threads may share an encoder.
    """

    @classmethod
    def from_bundle(
        cls,
        path: str | os.PathLike[str],
        *,
        max_length: int,
        on_long: OnLong,
        stride: int = 0,
        fingerprint: str | None = None,
    ) -> "Encoder":
        """The encoder of the tokenizer.json in a bundle.

        `max_length` counts tokens, special ones included. `stride` is the overlap of neighbouring
        windows in tokens, as in `transformers`; the other policies have none. `fingerprint` is that of the
        tokenizer as the caller has read it; `RefusedError` where the folder holds another now. `BundleError` where
        the folder has no usable tokenizer.json, `UsageError` for lengths that leave no room,
        and for a stride without windows.
        """
        file = Path(path) / "tokenizer.json"
        description = read_tokenizer(path)
        try:
            tokenizer = Tokenizer.from_file(str(file))
            tokenizer.encode(_PROBE)
        except Exception as error:  # noqa: BLE001 - the library raises bare Exception for what it cannot parse
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BundleError(f"{file}: not a tokenizer ({reason}); {SAVE_TOKENIZER}") from None
        if not tokenizer.get_vocab_size():
            raise BundleError(f"{file}: the vocabulary is empty; {SAVE_TOKENIZER}")
        found = tokenizer_fingerprint(description)
        if fingerprint not in (None, found):
            msg = f"{file} changed while the model was being loaded; wait until it is whole, then try again"
            raise RefusedError(msg)
        return cls(
            tokenizer,
            fingerprint=found,
            vocab_size=vocab_size_of(read_optional_json(file.parent / "config.json")),
            cut_rule=find_cut_rule(description),
            max_length=max_length,
            on_long=on_long,
            stride=stride,
        )

    def refuse_changed(self, planned: str | None, bundle: str | os.PathLike[str]) -> None:
        """Raise RefusedError where the tokenizer in `bundle` is no longer the one that a run was planned with."""
        if self.fingerprint != planned:
            msg = (
                f"the tokenizer in {os.fspath(bundle)} changed since the run was planned; "
                "put it back, or use another --run"
            )
            raise RefusedError(msg)

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        fingerprint: str,
        vocab_size: int | None,
        cut_rule: CutRule,
        max_length: int,
        on_long: OnLong,
        stride: int,
    ) -> None:
        if on_long not in get_args(OnLong):
            raise UsageError(f"on_long {on_long!r}; no such policy; use one of {', '.join(get_args(OnLong))}")
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._content = ContentReader(tokenizer, cut_rule)
        self._side: TruncationSide = "right"
        self._num_offsets = 1
        self.fingerprint = fingerprint
        """Hash of what the tokenizer does to text, 32 hex digits."""
        self.max_length = max_length
        """Largest number of ids of a row or window, special tokens included."""
        self.on_long: OnLong = on_long
        """The policy for documents over `max_length`."""
        self.stride = stride
        """Overlap of neighbouring windows, in tokens."""
        self.id_type: np.dtype[np.uint16] | np.dtype[np.int32] = _id_type(tokenizer)
        """Type of the ids: uint16 where the vocabulary allows, else int32."""
        limit = np.iinfo(self.id_type).max + 1
        self.vocab_size = limit if vocab_size is None else min(vocab_size, limit)
        """Ids are below this: the model has an embedding for them."""
        self.special_tokens = probe_single(tokenizer)
        """What surrounds a single text; None where it follows no template."""
        self.pair_special_tokens = probe_pair(tokenizer)
        """What surrounds a pair of texts; None where it follows no template."""
        self._check_lengths()

    @property
    def views(self) -> Views:
        """How its rows become what the model is given, and the model's outputs those of rows."""
        how = WINDOWS.get(self.on_long)
        if how is None:
            return WholeRows()
        special = self.special_tokens
        assert special is not None, "windows without fixed special tokens are refused when it is made"
        windows = Windows(
            prefix=special.prefix,
            suffix=special.suffix,
            max_length=self.max_length,
            stride=self.stride,
            how=how,
        )
        if self._num_offsets == 1:
            return windows
        return OffsetWindows(windows=windows, num_offsets=self._num_offsets)

    def at_offsets(self, num_offsets: int) -> "Encoder":
        """This encoder with windows of long documents at so many offsets, their outputs side by side.

        Raises `UsageError` under a policy without windows, and for more offsets than windows are tokens apart.
        """
        if self.on_long not in WINDOWS:
            raise UsageError(
                f"on_long {self.on_long!r}; documents are read at {num_offsets} offsets of windows, and it cuts none;"
                f" use on_long {' or '.join(WINDOWS)}"
            )
        made = copy(self)
        made._num_offsets = num_offsets  # noqa: SLF001  a copy of this
        _ = made.views
        return made

    def truncating(self, side: TruncationSide) -> "Encoder":
        """This encoder under `truncate`, cutting on that side, as `truncation_side` of `transformers` does."""
        made = copy(self)
        made.on_long, made._side = "truncate", side  # noqa: SLF001  a copy of this
        return made

    def encode(self, texts: pa.Array, text_pairs: pa.Array | None = None) -> Tokens:
        """The token ids of each text, or of each pair of texts, in order.

        A null text (or a null half of a pair) is an empty row. `UsageError` for pairs under a
        policy that is defined for single texts only.
        """
        is_usable = _is_valid(texts)
        second: list[str] | None = None
        if text_pairs is not None:
            is_usable &= _is_valid(text_pairs)
            second = list(compress(text_pairs.to_pylist(), is_usable))
        found = self.encode_texts(list(compress(texts.to_pylist(), is_usable)), second)
        if len(found.truncated) == len(is_usable):
            return found
        offsets = np.zeros(len(is_usable) + 1, dtype=np.int64)
        offsets[1:][is_usable] = np.diff(found.offsets)
        truncated = np.zeros(len(is_usable), dtype=np.bool_)
        truncated[is_usable] = found.truncated
        starts = None
        if found.second_starts is not None:
            starts = np.zeros(len(is_usable), dtype=np.int32)
            starts[is_usable] = found.second_starts
        places = np.flatnonzero(is_usable).tolist()
        return Tokens(
            flat_ids=found.flat_ids,
            offsets=np.cumsum(offsets, out=offsets),
            second_starts=starts,
            truncated=truncated,
            errors={places[row]: code for row, code in found.errors.items()},
        )

    def encode_texts(self, texts: list[str], text_pairs: list[str] | None = None) -> Tokens:
        """`encode` of texts that are plain strings, none of them missing."""
        if text_pairs is not None:
            self.check_pairs()
        flat: list[npt.NDArray[Any]] = []
        lengths: list[int] = []
        is_over: list[bool] = []
        second_starts: list[int] = []
        for start, stop in pairwise(batch_boundaries(texts, text_pairs)):
            batch = texts[start:stop]
            rows = self._rows(batch) if text_pairs is None else self._pair_rows(batch, text_pairs[start:stop])
            ids = chain.from_iterable(rows.parts)
            flat.append(np.fromiter(ids, dtype=self.id_type, count=sum(rows.lengths)))
            lengths += rows.lengths
            is_over += rows.truncated
            second_starts += rows.second_starts
        is_error = self.on_long == "error"
        tokens = Tokens(
            flat_ids=flat[0] if len(flat) == 1 else np.concatenate([np.empty(0, self.id_type), *flat]),
            offsets=np.fromiter(accumulate(lengths, initial=0), np.int64, len(lengths) + 1),
            second_starts=np.array(second_starts, dtype=np.int32) if any(second_starts) else None,
            truncated=np.zeros(len(texts), np.bool_) if is_error else np.array(is_over, np.bool_),
            errors=dict.fromkeys(compress(range(len(texts)), is_over), TOO_LONG) if is_error else {},
        )
        return tokens.without_ids_from(self.vocab_size)

    # ------------------------------------------------------------ policies

    def _rows(self, texts: list[str]) -> _Rows:
        special = self.special_tokens
        if special is None:
            return self._library_rows(texts)
        limit = self.max_length - special.num_tokens
        parts: list[Sequence[int]] = []
        lengths: list[int] = []
        truncated: list[bool] = []
        if self.on_long == "head-tail":
            num_head = round(limit * _HEAD_SHARE)
            content = self._content.outer(texts, num_head, limit - num_head)
        elif self.on_long in WINDOWS:
            content = self._content.whole(texts)
        else:
            content, _ = self._content.near(texts, limit, self._side)
        for ids in content:
            is_over = len(ids) > limit and self.on_long not in WINDOWS
            truncated.append(is_over)
            if is_over and self.on_long == "error":
                lengths.append(0)
                continue
            kept: tuple[Sequence[int], ...] = (ids,)
            if is_over and self.on_long == "head-tail":
                kept = (ids[:num_head], ids[len(ids) - limit + num_head :])
            elif is_over:
                kept = (self._cut(ids, limit),)
            parts += (special.prefix, *kept, special.suffix)
            lengths.append(special.num_tokens + (limit if is_over else len(ids)))
        return _Rows(parts=parts, lengths=lengths, truncated=truncated, second_starts=[])

    def _pair_rows(self, texts: list[str], text_pairs: list[str]) -> _Rows:
        special = self.pair_special_tokens
        if special is None:
            return self._library_rows(list(zip(texts, text_pairs, strict=True)))
        limit = self.max_length - special.num_tokens
        rows = _Rows(parts=[], lengths=[], truncated=[], second_starts=[])
        both = texts + text_pairs
        # pairs share texts: each is tokenized once
        numbers = {text: number for number, text in enumerate(dict.fromkeys(both))}
        found, found_cut = self._content.near(list(numbers), limit, self._side)
        content = [found[numbers[text]] for text in both]
        cut = {number for number, text in enumerate(both) if numbers[text] in found_cut}
        if limit % 2:
            # The odd token goes to the longer text; where both are over the limit, only reading them
            # whole tells which one that is.
            pairs = ((number, number + len(texts)) for number in range(len(texts)))
            unclear = [
                number
                for pair in pairs
                if all(len(content[number]) > limit for number in pair)
                for number in cut.intersection(pair)
            ]
            for number, ids in zip(unclear, self._content.whole([both[i] for i in unclear]), strict=True):
                content[number] = ids
        for first, second in zip(content[: len(texts)], content[len(texts) :], strict=True):
            num_first, num_second = _longest_first(len(first), len(second), limit)
            is_over = num_first + num_second < len(first) + len(second)
            rows.truncated.append(is_over)
            if is_over and self.on_long == "error":
                rows.lengths.append(0)
                rows.second_starts.append(0)
                continue
            kept = self._cut(first, num_first), self._cut(second, num_second)
            rows.parts.extend((special.prefix, kept[0], special.middle, kept[1], special.suffix))
            rows.lengths.append(special.num_tokens + num_first + num_second)
            if special.num_middle_of_first is None:
                rows.second_starts.append(0)
            else:
                rows.second_starts.append(len(special.prefix) + num_first + special.num_middle_of_first)
        return rows

    def _library_rows(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> _Rows:
        """Rows of a tokenizer without a template: its own special tokens, its own truncation."""
        encodings = self._tokenizer.encode_batch(texts)
        is_over = [len(encoding) > self.max_length for encoding in encodings]
        if self.on_long == "truncate" and any(is_over):
            # A copy, so that threads which share this encoder never meet a truncating tokenizer.
            truncating = Tokenizer.from_str(self._tokenizer.to_str())
            truncating.enable_truncation(self.max_length, direction=self._side)
            encodings = truncating.encode_batch(texts)
        elif self.on_long == "error":
            encodings = [Encoding() if over else one for one, over in zip(encodings, is_over, strict=True)]
        ids = [encoding.ids for encoding in encodings]
        return _Rows(
            parts=list(ids),
            lengths=[len(row) for row in ids],
            truncated=is_over,
            second_starts=[second_type_start(encoding.type_ids) for encoding in encodings],
        )

    def _cut(self, ids: list[int], num_kept: int) -> list[int]:
        return ids[:num_kept] if self._side == "right" else ids[len(ids) - num_kept :]

    # ------------------------------------------------------------ settings

    def _check_lengths(self) -> None:
        num_special = self.special_tokens.num_tokens if self.special_tokens else 0
        limit = self.max_length - num_special
        if limit < 1:
            raise UsageError(
                f"max_length {self.max_length}; the tokenizer adds {num_special} special tokens; "
                f"use at least {num_special + 1}"
            )
        if self.stride and self.on_long not in WINDOWS:
            raise UsageError(
                f"stride {self.stride}; {self.on_long} cuts no windows that could overlap; "
                f"leave it out, or use on_long {' or '.join(WINDOWS)}"
            )
        if self.stride < 0 or self.stride >= limit:
            raise UsageError(
                f"stride {self.stride}; windows of {limit} tokens must overlap by fewer than that; "
                f"use 0 to {limit - 1}"
            )
        if self.special_tokens is None and self.on_long not in ONE_PIECE:
            raise UsageError(
                f"on_long {self.on_long!r}; this tokenizer's special tokens follow no template; "
                "use truncate or error"
            )

    def check_pairs(self) -> None:
        """Raise `UsageError` where the policy or the length cannot take pairs of texts."""
        if self.on_long not in ONE_PIECE:
            raise UsageError(
                f"on_long {self.on_long!r}; it is for single texts, not for pairs; use truncate or error"
            )
        num_special = self.pair_special_tokens.num_tokens if self.pair_special_tokens else 0
        if self.max_length <= num_special:
            raise UsageError(
                f"max_length {self.max_length}; the tokenizer adds {num_special} special tokens to a pair; "
                f"use at least {num_special + 1}"
            )


def _is_valid(column: pa.Array) -> npt.NDArray[np.bool_]:
    return np.array(column.is_valid(), dtype=np.bool_)


def _longest_first(num_first: int, num_second: int, limit: int) -> tuple[int, int]:
    """Tokens kept of two texts: the shorter one whole where it fits in half of `limit`, else halves.

    The rule of `truncate_encodings` in the `tokenizers` library (src/utils/truncation.rs,
    `LongestFirst`), which `transformers` uses. The odd token goes to the longer text.
    """
    if num_first + num_second <= limit:
        return num_first, num_second
    shorter, longer = sorted((num_first, num_second))
    longer = shorter if shorter > limit else max(shorter, limit - shorter)
    if shorter + longer > limit:
        shorter, longer = limit // 2, limit // 2 + limit % 2
    return (longer, shorter) if num_first > num_second else (shorter, longer)


def _id_type(tokenizer: Tokenizer) -> np.dtype[np.uint16] | np.dtype[np.int32]:
    # Ids of added tokens may leave gaps, so the largest id can lie beyond the vocabulary's size.
    largest_added = max(tokenizer.get_added_tokens_decoder(), default=0)
    vocab_size = max(tokenizer.get_vocab_size(with_added_tokens=True), largest_added + 1)
    return np.dtype(np.uint16) if vocab_size <= np.iinfo(np.uint16).max else np.dtype(np.int32)
