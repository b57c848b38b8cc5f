"""Tables of books that lie on disk: the same rows back, in whatever order, and no memory for them."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from assay.errors import SourceError
from assay.prepare import listing, tables
from assay.prepare.listing import list_books
from assay.prepare.tables import (
    BATCH_BOOKS,
    DIGEST,
    Column,
    RowsById,
    in_batches,
    map_table,
    take_rows,
    write_table,
)

SCHEMA = pa.schema([pa.field("name", pa.string()), pa.field("numbers", pa.list_(pa.int32()))])
NUM_ROWS = 2 * BATCH_BOOKS + 7


def row(number, *, mark=""):
    """A row; every fifth has no name."""
    return {"name": None if number % 5 == 4 else f"row {number}{mark}", "numbers": [number] * (number % 3)}


def write(path, **changes):
    """A table of more than two batches."""
    rows = [row(number, **changes) for number in range(NUM_ROWS)]
    return write_table(path, SCHEMA, lambda: in_batches(rows, SCHEMA)), rows


def test_a_table_is_mapped_and_holds_its_rows(tmp_path):
    """Arrow has no memory for it; it can be read again by its path."""
    before = pa.total_allocated_bytes()
    table, rows = write(tmp_path / "t.arrow")
    assert pa.total_allocated_bytes() == before
    assert table.to_pylist() == rows
    assert map_table(tmp_path / "t.arrow", SCHEMA).equals(table)
    assert [path.name for path in tmp_path.iterdir()] == ["t.arrow"]


def test_the_header_knows_the_values(tmp_path):
    """The same rows give the same file; one letter in the middle gives another header."""
    for name, mark in (("a", ""), ("b", ""), ("c", "x")):
        write(tmp_path / name, mark=mark)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    digests = [pa.ipc.open_file(str(tmp_path / name)).schema.metadata[DIGEST] for name in ("a", "b", "c")]
    assert digests[0] == digests[1] != digests[2]


def test_what_is_not_the_table_is_refused(tmp_path):
    """No file, another file, and a table of another version; what is there stays where writing fails."""
    table, rows = write(tmp_path / "t.arrow")
    with pytest.raises(SourceError, match="cannot be read"):
        map_table(tmp_path / "none.arrow", SCHEMA)
    (tmp_path / "text.arrow").write_text("text")
    with pytest.raises(SourceError, match="cannot be read"):
        map_table(tmp_path / "text.arrow", SCHEMA)
    with pytest.raises(SourceError, match="another version"):
        map_table(tmp_path / "t.arrow", pa.schema([pa.field("name", pa.string())]))
    assert table.to_pylist() == rows


@pytest.mark.parametrize(
    "rows", [[], [3], list(range(0, NUM_ROWS, 2)), list(range(BATCH_BOOKS - 1, NUM_ROWS))]
)
def test_a_column_gives_the_values_of_its_rows(rows, tmp_path):
    """By place, by slice and one after the other."""
    table, written = write(tmp_path / "t.arrow")
    column = Column(table.column("name"), np.array(rows, dtype=np.int64))
    wanted = [written[each]["name"] for each in rows]
    assert len(column) == len(wanted)
    assert list(column) == wanted
    assert [column[place] for place in range(len(column))] == wanted
    assert column[1:3] == wanted[1:3]


def test_rows_are_taken_in_any_order(tmp_path):
    """From several batches, some twice."""
    table, written = write(tmp_path / "t.arrow")
    rows = np.random.default_rng(0).integers(0, NUM_ROWS, 300)
    assert take_rows(table.to_batches(), rows).to_pylist() == [written[each] for each in rows.tolist()]


def test_rows_are_found_by_their_ids():
    """Whatever batches they come in; an id that is not there has none."""
    ids = [f"book {number}" for number in range(1_000)]
    rows = RowsById(pa.chunked_array([ids[:10], ids[10:]]))
    assert rows.find(pa.array(["book 999", "book", "book 0", "book 10"])).tolist() == [999, -1, 0, 10]
    assert rows.find(pa.array(ids)).tolist() == list(range(1_000))


def test_a_listing_of_many_books_takes_no_more_memory_than_one_of_few(tmp_path, monkeypatch):
    """Python's own, at its peak: of five times as many books a tenth more."""
    for module in (tables, listing):
        monkeypatch.setattr(module, "BATCH_BOOKS", 64)
    peaks = []
    for count in (64, 128, 640):
        folder = tmp_path / f"{count}"
        for number in range(count):
            place = folder / f"author {number // 16}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number} of a long name of a book that is told apart.txt").write_text("words")
        tracemalloc.start()
        found = list_books(str(folder), None, tmp_path / f"{count}.arrow")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        ids = [book.book_id for book in found.books]
        assert len(found.books) == len(set(ids)) == count
        assert ids == sorted(ids)
        assert found.books[-1].book_id == ids[-1]
    # the first, which also imports what reads books, is not looked at
    assert peaks[2] < 1.1 * peaks[1]
