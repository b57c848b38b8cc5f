"""Properties of merge's writers: whatever the layout, each row keeps its bytes and gets its own score."""

import csv
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.data import grafting
from assay.data.finding import find_sources
from assay.data.sinks.table import write_merged
from assay.data.sources import Columns

SCHEMA = pa.schema([("row", pa.int64()), ("label", pa.string())])


class CountingColumns:
    """Added columns that number the rows and keep the ids they were shown."""

    schema = SCHEMA

    def __init__(self):
        self.ids = []
        self.row = 0

    def take(self, num_rows, ids):
        """The numbers of the next rows."""
        assert ids is None or len(ids) == num_rows
        self.ids += [] if ids is None else ids.to_pylist()
        rows = range(self.row, self.row + num_rows)
        self.row += num_rows
        return pa.table(
            {"row": pa.array(rows, pa.int64()), "label": [f"l{row}" for row in rows]}, schema=SCHEMA
        )

    def metadata(self):
        """Nothing to note."""
        return {}


def merged(path, num_rows=None):
    """Write the one source at `path` again; the output's path and the ids that were shown."""
    (source,) = find_sources([str(path)], columns=Columns(text=None))
    added, out = CountingColumns(), path.with_name("out" + "".join(path.suffixes))
    write_merged(source, Columns(text=None), source.num_rows if num_rows is None else num_rows, added, out)
    return out, added.ids


columns = st.fixed_dictionaries(
    {},
    optional={
        "n": st.integers(-(2**63), 2**63 - 1),
        "f": st.floats(allow_nan=False),
        "s": st.text(st.characters(codec="utf-8"), max_size=6),
        "l": st.lists(st.integers(0, 9), max_size=3),
    },
)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 20), max_size=6),
    row=columns,
    options=st.fixed_dictionaries(
        {
            "compression": st.sampled_from(["none", "snappy", "zstd", "gzip"]),
            "use_dictionary": st.booleans(),
            "data_page_version": st.sampled_from(["1.0", "2.0"]),
            "write_page_index": st.booleans(),
            "store_schema": st.booleans(),
        }
    ),
    limit=st.integers(0, 200),
)
def test_parquet_rows_and_layout(sizes, row, options, limit):
    """Any row-group layout and way of writing: the same columns, the same groups, row k numbered k."""
    num_rows = sum(sizes)
    table = pa.table(
        {"id": [f"i{k}" for k in range(num_rows)], **{key: [value] * num_rows for key, value in row.items()}}
    )
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.parquet"
        with pq.ParquetWriter(path, table.schema, **options) as writer:
            start = 0
            for size in sizes:
                writer.write_table(table.slice(start, size), row_group_size=max(size, 1))
                start += size
        original = pq.read_table(path)
        out, ids = merged(path)
        found = pq.read_table(out)
        metadata = pq.read_metadata(out)
        assert found.select(original.schema.names).equals(original)
        assert found.column("row").to_pylist() == list(range(num_rows))
        assert ids == original.column("id").to_pylist()
        assert [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)] == sizes
        kept = min(limit, num_rows)
        out, ids = merged(path, kept)
        found = pq.read_table(out)
        assert found.select(original.schema.names).equals(original.slice(0, kept))
        assert found.column("row").to_pylist() == list(range(kept))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.dictionaries(
                st.text(max_size=4).filter(lambda key: key not in {"row", "label", "id"}), json_values
            ),
            st.booleans(),
            st.sampled_from([None, 0, 2]),
            st.sampled_from(["", " ", "\r", "\t "]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_json_lines_keep_their_bytes(rows):
    """Any objects in any spelling: each line begins with its own bytes and reads as itself and its score."""
    lines = [
        json.dumps(value, ensure_ascii=ascii_, separators=None if indent is None else (" , ", ":")) + tail
        for value, ascii_, indent, tail in rows
    ]
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "a.jsonl"
        path.write_bytes(content)
        out, _ = merged(path)
        found = out.read_bytes().split(b"\n")
        assert found.pop() == b""
        for row, (line, written, (value, *_)) in enumerate(zip(lines, found, rows, strict=True)):
            original = line.encode("utf-8", "surrogatepass")
            assert written.startswith(original.rstrip()[:-1].rstrip())
            assert json.loads(written.decode("utf-8", "surrogatepass")) == {
                **value,
                "row": row,
                "label": f"l{row}",
            }


numbers = st.integers(-(2**63), 2**63 - 1)


@given(st.dictionaries(st.integers(-(2**15), 2**15 - 1), numbers | st.binary(max_size=300), max_size=20))
def test_thrift_structs_round_trip(values):
    """Fields in any order and of any size are split into what they were joined from."""
    fields = {
        key: (8, grafting._binary(value))
        if isinstance(value, bytes)
        else (6, grafting._encoded(grafting._zigzag(value)))
        for key, value in values.items()
    }
    joined = grafting.join_struct(fields)
    assert grafting.split_struct(joined) == (fields, len(joined))
    assert {key: grafting._number(value) for key, (kind, value) in fields.items() if kind == 6} == {
        key: value for key, value in values.items() if isinstance(value, int)
    }
    nested = grafting.join_list(12, [joined] * 20)
    assert grafting.split_list(nested) == [joined] * 20


class LabelLists(CountingColumns):
    """Added columns of a multi-label run: lists of labels, one of them with marks that CSV and JSON quote."""

    schema = pa.schema([("labels", pa.list_(pa.string()))])
    VALUES = ([], ["a"], None, ["a, b", 'c"d', "é"], ["a"])

    def take(self, num_rows, ids):
        """The lists of the next rows."""
        taken = [self.VALUES[(self.row + row) % len(self.VALUES)] for row in range(num_rows)]
        self.row += num_rows
        return pa.table({"labels": pa.array(taken, pa.list_(pa.string()))}, schema=self.schema)


def test_lists_of_labels_reach_every_format(tmp_path):
    """A list column in Parquet, an array in JSON Lines, the same array as text in CSV; null stays null."""
    pq.write_table(pa.table({"id": [*"abcde"]}), tmp_path / "in.parquet", row_group_size=2)
    (tmp_path / "in.jsonl").write_text("".join(f'{{"id": "{name}"}}\n' for name in "abcde"))
    (tmp_path / "in.csv").write_text("id\n" + "".join(f"{name}\n" for name in "abcde"))
    for source in ("in.parquet", "in.jsonl", "in.csv"):
        (found,) = find_sources([str(tmp_path / source)], columns=Columns(text=None))
        write_merged(found, Columns(text=None), 5, LabelLists(), tmp_path / source.replace("in", "out"))
    wanted = list(LabelLists.VALUES)
    assert pq.read_table(tmp_path / "out.parquet")["labels"].to_pylist() == wanted
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["labels"] for line in lines] == wanted
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as rows:
        cells = [row["labels"] for row in csv.DictReader(rows)]
    assert [json.loads(cell) if cell else None for cell in cells] == wanted
