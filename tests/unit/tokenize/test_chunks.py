"""Rows of a source as chunks of token ids."""

import numpy as np
import pyarrow as pa
import pytest
from support.bundles import write_bundle

from assay.data.rows import SourceRows
from assay.tokenize import chunks as module
from assay.tokenize.chunks import NO_IDS, chunks, stored_tokens, to_chunk
from assay.tokenize.encode import Encoder
from assay.tokenize.tokens import ID_OUT_OF_RANGE, TOO_LONG

IDS = [[2, 7, 3], [2, 3], [2, 9, 9, 9, 3], [], [2, 8, 3]]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The small bundle's encoder, 8 tokens at most."""
    folder = write_bundle(tmp_path_factory.mktemp("bundle"))
    return Encoder.from_bundle(folder, max_length=8, on_long="truncate")


def stored(lists, *, start=0, **fields):
    """Rows of stored token ids."""
    return SourceRows(start=start, num_rows=len(lists), input_ids=lists, **fields)


def rows_of(tokens):
    """Token ids as lists."""
    return [
        tokens.flat_ids[start:stop].tolist()
        for start, stop in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)
    ]


@pytest.mark.parametrize("values", [pa.uint16(), pa.int32(), pa.int64(), pa.uint8()])
@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
def test_every_list_of_integers_gives_the_same_tokens(kind, values, encoder):
    """The ids of the encoder's type, whatever the integers and the list, sliced lists included."""
    lists = pa.array([[1, 1], *IDS, [4]], kind(values)).slice(1, len(IDS))
    tokens = stored_tokens(lists, None, None, encoder)
    assert rows_of(tokens) == IDS
    assert tokens.flat_ids.dtype == np.uint16
    assert tokens.offsets[0] == 0


def test_fixed_size_lists(encoder):
    """Lists of one length, sliced, are lists too."""
    lists = pa.array([[1, 1], [2, 3], [4, 5]], pa.list_(pa.int32(), 2)).slice(1)
    assert rows_of(stored_tokens(lists, None, None, encoder)) == [[2, 3], [4, 5]]


def test_token_parts_are_not_copied(encoder):
    """Ids of the encoder's type are the Arrow buffer itself."""
    lists = pa.array(IDS, pa.list_(pa.uint16()))
    tokens = stored_tokens(lists, None, None, encoder)
    assert np.shares_memory(tokens.flat_ids, lists.values.to_numpy())


def test_a_null_list_is_a_row_without_ids_whatever_its_buffer_hides(encoder):
    """Ids under a null are not read."""
    offsets, values = pa.array([0, 2, 4, 5], pa.int32()), pa.array([1, 2, 3, 4, 5], pa.uint16())
    lists = pa.ListArray.from_arrays(offsets, values, mask=pa.array([False, True, False]))
    assert rows_of(stored_tokens(lists, None, None, encoder)) == [[1, 2], [], [5]]


@pytest.mark.parametrize("values", [pa.uint16(), pa.int32(), pa.int64(), pa.uint64()])
@pytest.mark.parametrize("wrong", [107, 60_000, 70_000, -1, None, 1 << 63])
def test_a_row_with_an_id_that_has_no_embedding_gets_a_code(wrong, values, encoder):
    """The row is emptied and keeps its place; the others go on."""
    try:
        lists = pa.array([[2, 3], [2, wrong, 3], [2, 106, 3]], pa.list_(values))
    except (OverflowError, pa.ArrowInvalid):
        pytest.skip("the type holds no such number")
    rows = SourceRows(start=0, num_rows=3, input_ids=lists)
    chunk = to_chunk(rows, encoder, max_tokens=8)
    assert rows_of(chunk.tokens) == [[2, 3], [], [2, 106, 3]]
    assert chunk.errors == {1: ID_OUT_OF_RANGE}


def test_codes_of_stored_rows(encoder):
    """An empty list, a null and a list over the limit have codes; the code of a token part stands."""
    lists = pa.array([[2, 3], [], None, [5] * 9, []], pa.list_(pa.uint16()))
    chunk = to_chunk(stored(lists, errors={2: "null", 4: "not_utf8"}), encoder, max_tokens=8)
    assert chunk.errors == {1: NO_IDS, 2: "null", 3: "too_long", 4: "not_utf8"}
    assert rows_of(chunk.tokens) == [[2, 3], [], [], [], []]
    whole = to_chunk(stored(lists, errors={2: "null", 4: "not_utf8"}), encoder, max_tokens=None)
    assert whole.tokens.num_tokens.tolist() == [2, 0, 0, 9, 0]


def test_rows_without_ids_are_numbered(encoder):
    """Where the source names no row, its row number does, from the batch's first."""
    texts = pa.array(["of", None, "document 7"], pa.large_string())
    rows = SourceRows(start=40, num_rows=3, texts=texts, errors={1: "null"})
    chunk = to_chunk(rows, encoder, max_tokens=8)
    assert chunk.ids.to_pylist() == [40, 41, 42]
    assert chunk.errors == {1: "null"}
    assert chunk.tokens.num_tokens.tolist() == [3, 0, 4]


def test_batches_are_joined_into_chunks(monkeypatch, encoder):
    """Chunks keep rows, ids, codes and second segments in order, and end at the rows or tokens allowed."""
    monkeypatch.setattr(module, "CHUNK_ROWS", 4)
    monkeypatch.setattr(module, "CHUNK_TOKENS", 100)

    def batch(start, lists, **fields):
        ids = pa.array([f"r{start + row}" for row in range(len(lists))])
        return stored(pa.array(lists, pa.list_(pa.uint16())), start=start, ids=ids, **fields)

    batches = [
        batch(0, [[2, 3], [], [2, 4, 3]]),
        batch(
            3, [[2, 5, 3], [9]], second_starts=np.array([2, 0], np.int32), truncated=np.array([True, False])
        ),
        batch(5, [[1] * 200]),
        batch(6, [[], [7]], errors={0: "null"}),
    ]
    made = list(chunks(iter(batches), encoder, max_tokens=None))
    assert [(chunk.start, chunk.num_rows) for chunk in made] == [(0, 5), (5, 1), (6, 2)]
    first, _, last = made
    assert first.ids.to_pylist() == [f"r{row}" for row in range(5)]
    assert rows_of(first.tokens) == [[2, 3], [], [2, 4, 3], [2, 5, 3], [9]]
    assert first.errors == {1: NO_IDS}
    assert first.tokens.second_starts.tolist() == [0, 0, 0, 2, 0]
    assert first.tokens.truncated.tolist() == [False, False, False, True, False]
    assert last.errors == {0: "null"}


def test_codes_keep_their_rows_when_chunks_are_joined(encoder):
    """The code of a later batch's row counts from the chunk's first row."""
    lists = pa.array([[2, 3], []], pa.list_(pa.uint16()))
    (chunk,) = chunks([stored(lists), stored(lists, start=2)], encoder, max_tokens=8)
    assert chunk.errors == {1: NO_IDS, 3: NO_IDS}
    assert chunk.ids.to_pylist() == [0, 1, 2, 3]


def test_no_batches_no_chunks(encoder):
    """A unit without rows has no chunk."""
    assert list(chunks([], encoder, max_tokens=8)) == []


def test_without_rows(encoder):
    """Emptied rows leave the others as they are."""
    tokens = stored_tokens(pa.array(IDS, pa.list_(pa.uint16())), None, None, encoder)
    assert rows_of(tokens.without_rows(np.array([0, 2]), TOO_LONG)) == [[], [2, 3], [], [], [2, 8, 3]]
