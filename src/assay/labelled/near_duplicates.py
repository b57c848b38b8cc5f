"""Texts that say nearly the same: found with MinHash, in time about linear in the rows.

Two texts are near-duplicates where at least half of their shingles (three words in a row) are the
same, by Jaccard similarity as MinHash estimates it (Broder 1997; the signatures are those of the
library `rensa`). Rows that share one of 32 bands of a signature are compared (Leskovec, Rajaraman,
Ullman, Mining of Massive Datasets, 3.4): of pairs at 0.5 this finds seven in eight, at 0.6 98.8 in
a hundred, at 0.7 all but one in five thousand. A text that is contained in a much longer one is
not covered.

The result does not depend on the order of the rows, nor on the machine: texts are taken in the
order of their hashes, and words are hashed here rather than by the library.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from assay.data.ids import hash_ids
from assay.extras import need_packages
from assay.labelled.provenance import HashArray, text_hashes
from assay.labelled.splits import roots_of, unite

THRESHOLD = 0.5
"""Share of equal places in two signatures from which on the texts are near-duplicates."""
SHINGLE_WORDS = 3
"""Words in a row that make one shingle."""
NUM_PERMUTATIONS = 128
NUM_BANDS = 32
_SEED = 1
_CHUNK_CHARACTERS = 16_000_000
_CHUNK_TEXTS = 16_384
"""Words and signatures are in memory as Python knows them for so much at a time."""
_COMPARED = 8
"""Rows of a band are compared with so many neighbours: with all in a small band, some in a large one."""

_COMPARED_AT_ONCE = 4_096
"""Signatures in memory, however many there are: two megabytes."""

# Written without spaces: every character is a word.
_NO_SPACES = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"
_NO_WORD = r"[^\p{L}\p{N}\p{M}]+"
_ASCII_WORDS = bytes(
    ord(chr(byte).lower()) if chr(byte).isalnum() else ord(" ") for byte in range(128)
) + bytes(128)
"""For bytes.translate: what lower-casing and the two expressions make of ASCII."""

_ODD = np.uint64(0x9E3779B97F4A7C15)

Indices = NDArray[np.int64]
Signatures = NDArray[np.uint32]


def group_near_duplicates(texts: Sequence[str], text_pairs: Sequence[str] | None = None) -> list[int]:
    """For each text the index of the first text of its group; a text without a twin is its own group.

    Groups are the connected parts of the near-duplicates, so they are transitive; equal texts share
    a group. Of pairs, both texts count, one behind the other. Raises `UsageError` where `rensa` is
    not installed.
    """
    hashes = text_hashes(texts, text_pairs)
    _, first_rows, unique_of_row = np.unique(hashes, return_index=True, return_inverse=True)
    uniques = [texts[row] if text_pairs is None else f"{texts[row]}\n{text_pairs[row]}" for row in first_rows]
    group_of_unique = _group(signatures_of(uniques), np.arange(len(uniques), dtype=np.int64))
    return [int(row) for row in _first_rows(group_of_unique, unique_of_row)]


def group_by_signatures(hashes: HashArray, signatures: Signatures) -> Indices:
    """What `group_near_duplicates` gives for the texts with these `text_hashes` and `signatures_of`, row by row.

    For texts that are read a batch at a time: 520 bytes a row are kept instead of the text, and those of
    signatures that lie in a mapped file are not in memory.
    """
    _, first_rows, unique_of_row = np.unique(hashes, return_index=True, return_inverse=True)
    return _first_rows(_group(signatures, first_rows), unique_of_row)


def _first_rows(group_of_unique: Indices, unique_of_row: Indices) -> Indices:
    """For each row the first row of its group, given the group of each unique text."""
    num_rows = len(unique_of_row)
    first_row_of_group = np.full(len(group_of_unique), num_rows, dtype=np.int64)
    group_of_row = group_of_unique[unique_of_row]
    np.minimum.at(first_row_of_group, group_of_row, np.arange(num_rows))
    return first_row_of_group[group_of_row]


def _group(signatures: Signatures, rows: Indices) -> Indices:
    """The group of each text, as the least index in it; `rows` says where the signature of each lies."""
    parents = np.arange(len(rows), dtype=np.int64)
    width = NUM_PERMUTATIONS // NUM_BANDS
    has_words = np.flatnonzero(_has_words(signatures)[rows])
    for band in range(NUM_BANDS):
        columns = np.ascontiguousarray(signatures[rows[has_words], band * width : (band + 1) * width])
        roots = roots_of(parents)
        pairs = _band_pairs(columns, has_words)
        pairs = pairs[roots[pairs[:, 0]] != roots[pairs[:, 1]]]
        for first, second in pairs[_are_near(signatures, rows[pairs])].tolist():
            unite(parents, first, second)
    return roots_of(parents)


def _has_words(signatures: Signatures) -> NDArray[np.bool_]:
    found = np.zeros(len(signatures), dtype=np.bool_)
    for begin in range(0, len(signatures), _COMPARED_AT_ONCE):
        found[begin : begin + _COMPARED_AT_ONCE] = signatures[begin : begin + _COMPARED_AT_ONCE].any(axis=1)
    return found


def _band_pairs(columns: Signatures, rows: Indices) -> Indices:
    """Pairs of rows [P, 2] whose columns are all equal: all of few such rows, neighbours of many.

    Columns are told apart by a hash, which sorts three times as fast; the signatures of a pair are compared next.
    """
    keys = np.zeros(len(columns), dtype=np.uint64)
    for column in columns.T:
        keys = (keys ^ column) * _ODD
        keys ^= keys >> np.uint64(29)
    order = np.argsort(keys, kind="stable")
    bucket = np.cumsum(np.concatenate([[0], keys[order[1:]] != keys[order[:-1]]])) if len(order) else order
    starts = np.flatnonzero(np.diff(bucket, prepend=-1))
    ordered = rows[order]
    found = [np.zeros((0, 2), dtype=np.int64)]
    for distance in range(1, min(_COMPARED, len(order))):
        same = np.flatnonzero(bucket[distance:] == bucket[:-distance])
        found.append(np.stack([ordered[same], ordered[same + distance]], axis=1))
    # And with the first of its band, which ties a large one together.
    found.append(np.stack([ordered[starts[bucket]], ordered], axis=1) if len(order) else found[0])
    return np.concatenate(found)


def _are_near(signatures: Signatures, pairs: Indices) -> NDArray[np.bool_]:
    near = np.zeros(len(pairs), dtype=np.bool_)
    for begin in range(0, len(pairs), _COMPARED_AT_ONCE):
        first, second = pairs[begin : begin + _COMPARED_AT_ONCE].T
        near[begin : begin + _COMPARED_AT_ONCE] = (signatures[first] == signatures[second]).mean(
            axis=1
        ) >= THRESHOLD
    return near


# ---------------------------------------------------------------- texts to signatures


def signatures_of(texts: Sequence[str]) -> Signatures:
    """MinHash signatures [N, 128], each of its text alone; all 0 where a text has no word.

    Raises `UsageError` where `rensa` is not installed.
    """
    minhash = _minhash()
    signatures = np.zeros((len(texts), NUM_PERMUTATIONS), dtype=np.uint32)
    for begin, end in _chunks(texts):
        shingles, offsets = _shingles(texts[begin:end])
        matrix = minhash.digest_matrix_from_flat_token_hashes(shingles, offsets, NUM_PERMUTATIONS, _SEED)
        signatures[begin:end] = np.array(matrix.to_rows(), dtype=np.uint32)
        signatures[begin:end][np.diff(offsets.astype(np.int64)) == 0] = 0
    return signatures


def _minhash() -> Any:  # noqa: ANN401  the library has no types
    need_packages("rensa", used_by="near_duplicates", or_else="set near_duplicates = false")
    from rensa import RMinHash

    return RMinHash


def _chunks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    begin = size = 0
    for row, text in enumerate(texts):
        size += len(text)
        if size >= _CHUNK_CHARACTERS or row + 1 - begin >= _CHUNK_TEXTS:
            yield begin, row + 1
            begin, size = row + 1, 0
    if begin < len(texts):
        yield begin, len(texts)


def _shingles(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Hashes of the shingles of all texts end to end, and where each text's begin [N + 1]."""
    words, offsets = _words(texts)
    num_words = np.diff(offsets)
    # A text of fewer words is one shingle, of none has none.
    num_shingles = np.where(num_words == 0, 0, np.maximum(1, num_words - SHINGLE_WORDS + 1))
    starts = np.concatenate([[0], np.cumsum(num_shingles)])
    text_of_shingle = np.repeat(np.arange(len(texts)), num_shingles)
    first_words = offsets[text_of_shingle] + np.arange(starts[-1]) - starts[text_of_shingle]
    hashes = np.zeros(starts[-1], dtype=np.uint64)
    for place in range(SHINGLE_WORDS):
        position = first_words + place
        is_there = position < offsets[text_of_shingle + 1]
        word = np.where(is_there, words[np.where(is_there, position, 0)], np.uint64(0))
        # Multiplied in between, so that the order of the words counts; odd, so that no bit is lost.
        hashes = (hashes ^ word) * _ODD
        hashes ^= hashes >> np.uint64(29)
    return hashes, starts.astype(np.uint64)


def _words(texts: Sequence[str]) -> tuple[NDArray[np.uint64], Indices]:
    """Hashes of the words of all texts end to end, in lower case, and where each text's begin [N + 1]."""
    column = pc.utf8_trim_whitespace(pa.array(_spaced(texts), pa.large_binary()).cast(pa.large_string()))
    lists = pc.utf8_split_whitespace(column)
    counts = np.where(np.asarray(pc.equal(column, "")), 0, np.asarray(pc.list_value_length(lists)))
    words = lists.flatten()
    words = words.filter(pc.not_equal(words, ""))
    return hash_ids(words), np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _spaced(texts: Sequence[str]) -> list[bytes]:
    """The words of each text in lower case, with space around each; ASCII, which is faster, apart."""
    spaced = [text.encode().translate(_ASCII_WORDS) if text.isascii() else b"" for text in texts]
    rows = [row for row, text in enumerate(texts) if not text.isascii()]
    column = pa.array([texts[row].encode("utf-8", "replace") for row in rows], pa.large_binary())
    column = pc.utf8_lower(column.cast(pa.large_string()))
    column = pc.replace_substring_regex(column, _NO_SPACES, r" \1 ")
    column = pc.replace_substring_regex(column, _NO_WORD, " ")
    for row, words in zip(rows, column.cast(pa.large_binary()).to_pylist(), strict=True):
        spaced[row] = words
    return spaced
