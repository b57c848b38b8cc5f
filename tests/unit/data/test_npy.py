"""Arrays of token ids are sources like any other."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay.data.finding import find_sources, reinspect
from assay.data.reading import read_rows
from assay.data.sinks.table import write_merged
from assay.data.sources import Columns
from assay.errors import RefusedError, SourceError

COLUMNS = Columns(text=None, input_ids="input_ids")


@pytest.fixture
def saved(tmp_path):
    """An array of 40,000 rows, more than are read at once, and its file."""
    array = np.arange(40_000 * 3, dtype=np.int64).reshape(-1, 3)
    np.save(tmp_path / "ids.npy", array)
    return array, tmp_path / "ids.npy"


@pytest.mark.parametrize(("start", "stop"), [(0, 40_000), (16_383, 16_385), (39_999, 40_000)])
def test_rows_of_any_range_are_those_of_the_array(saved, start, stop):
    """Each row is a list of token ids, numbered as it stands."""
    array, path = saved
    (source,) = find_sources([str(path)], columns=COLUMNS)
    assert source.num_rows == len(array)
    found = []
    for rows in read_rows(source, COLUMNS, start, stop):
        assert rows.start == start + len(found)
        found += rows.input_ids.to_pylist()
    np.testing.assert_array_equal(found, array[start:stop])


def test_a_folder_of_arrays_is_read_but_arrays_beside_other_files_are_not(saved):
    """Vectors and labels often lie beside the rows; they become sources only where there is nothing else."""
    _, path = saved
    assert [source.name for source in find_sources([str(path.parent)], columns=COLUMNS)] == ["ids"]
    (path.parent / "rows.jsonl").write_text('{"text": "a"}\n')
    assert [source.format for source in find_sources([str(path.parent)], columns=Columns())] == ["jsonl"]


def test_a_changed_array_is_noticed(saved):
    """The fingerprint is that of the content: one other id is another source."""
    array, path = saved
    (source,) = find_sources([str(path)], columns=COLUMNS)
    array[7, 1] += 1
    np.save(path, array)
    with pytest.raises(RefusedError, match="changed since the run began"):
        reinspect(source)


def test_merge_writes_lists_of_ids_beside_the_new_columns(saved):
    """The rows come out as Parquet, in their order."""
    array, path = saved
    (source,) = find_sources([str(path)], columns=COLUMNS)

    class Numbers:
        schema = pa.schema([("row", pa.int64())])
        next_row = 0

        def take(self, num_rows, ids):
            rows = pa.array(range(self.next_row, self.next_row + num_rows), pa.int64())
            self.next_row += num_rows
            return pa.table([rows], schema=self.schema)

        def metadata(self):
            return {}

    out = path.with_name("out.parquet")
    write_merged(source, COLUMNS, 20_000, Numbers(), out)
    table = pq.read_table(out)
    assert table.column("row").to_pylist() == list(range(20_000))
    assert table.column("input_ids").to_pylist() == array[:20_000].tolist()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(4, dtype=np.int64), "whole numbers in two dimensions"),
        (np.zeros((2, 2)), "array of float64"),
        (np.array([["a"]], dtype=object), "cannot be read"),
    ],
)
def test_what_is_not_rows_of_ids_is_refused(tmp_path, array, message):
    """One line that names the file; nothing pickled is loaded."""
    path = tmp_path / "odd.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(SourceError, match=message):
        find_sources([str(path)], columns=COLUMNS)


def test_an_id_that_no_tokenizer_gives_is_refused_where_it_is_read(tmp_path):
    """A negative number stops the reading, with the numbers seen."""
    path = tmp_path / "odd.npy"
    np.save(path, np.array([[1, -2]]))
    (source,) = find_sources([str(path)], columns=COLUMNS)
    with pytest.raises(SourceError, match="ids from -2 to 1"):
        list(read_rows(source, COLUMNS, 0, 1))
