"""The sources of a run, cut into units; and the one type that their ids share."""

import itertools
from dataclasses import replace

import pyarrow as pa
import pytest

from assay.data.sources import Columns, Source
from assay.errors import SourceError
from assay.runs.cut import cut_sources, id_field
from assay.runs.plan import MIN_UNIT_ROWS, UNITS_OF_A_SMALL_RUN

TEXT = pa.field("text", pa.string())


def make_source(name, num_rows, *, splits=(0,), bytes_per_row=400.0, schema=None):
    """A source of so many rows that lies nowhere."""
    return Source(
        uri=f"/data/{name}.parquet",
        name=name,
        format="parquet",
        size_bytes=1000,
        version="1",
        fingerprint="f" * 32,
        num_rows=num_rows,
        splits=splits,
        schema=schema or pa.schema([TEXT]),
        bytes_per_row=bytes_per_row,
    )


def cut(sources, *, unit_rows=None, limit_rows=None, max_length=512, tokens_per_second=1e5, num_workers=1):
    """Boundaries by plain settings with these changes."""
    return cut_sources(
        sources,
        unit_rows=unit_rows,
        limit_rows=limit_rows,
        max_length=max_length,
        tokens_per_second=tokens_per_second,
        num_workers=num_workers,
    )


def sizes(boundaries):
    """Rows of each unit, all sources together."""
    return [stop - start for cuts in boundaries for start, stop in itertools.pairwise(cuts)]


@pytest.mark.parametrize(
    ("num_rows", "num_workers", "expected"),
    [
        (10_000_000, 4, 400),
        (100_000_000, 4, 1_667),
        (5_000_000, 4, 400),
        (240_000, 4, 24),
    ],
    ids=["a hundred of a minute", "more of a minute", "smaller ones", "ten seconds"],
)
def test_each_of_many_workers_gets_a_hundred_units(num_rows, num_workers, expected):
    """Where rows allow it: 60,000 rows are a minute here, and none is cut below a sixth of that."""
    found = sizes(cut([make_source("a", num_rows)], num_workers=num_workers))
    assert len(found) == pytest.approx(expected, rel=0.01)
    assert min(found) >= 9_990


def test_a_unit_is_about_a_minute():
    """100 tokens a row at 100,000 tokens a second are 60,000 rows a minute."""
    assert max(sizes(cut([make_source("a", 10_000_000)]))) == pytest.approx(60_000, rel=0.01)


def test_no_text_counts_for_more_than_the_limit():
    """Of a row of any length at most `max_length` tokens are done."""
    huge = make_source("a", 10_000_000, bytes_per_row=1e6)
    assert max(sizes(cut([huge], max_length=100))) == pytest.approx(60_000, rel=0.01)


def test_a_small_run_is_shared_too():
    """A run of few minutes is cut in sixteen, but not below 256 rows."""
    assert len(sizes(cut([make_source("a", 16_000)]))) == UNITS_OF_A_SMALL_RUN
    assert min(sizes(cut([make_source("a", 1000)]))) >= MIN_UNIT_ROWS - 6
    assert sizes(cut([make_source("a", 200)])) == [200]


def test_unit_rows_as_asked():
    """Asked for, the number of rows holds; row groups stay whole where they fit."""
    assert cut([make_source("a", 10, splits=(0, 4, 6))], unit_rows=6) == [(0, 6, 10)]


def test_a_limit_takes_the_first_rows():
    """A limit reaches across sources; those beyond it have no unit, and a trial is cut as small as it is."""
    sources = [make_source("a", 100), make_source("b", 100), make_source("c", 100)]
    assert cut(sources, unit_rows=60, limit_rows=130) == [(0, 50, 100), (0, 30), ()]
    assert cut(sources, unit_rows=60, limit_rows=100) == [(0, 50, 100), (), ()]
    assert cut(sources, unit_rows=60, limit_rows=1000) == cut(sources, unit_rows=60)
    many = [make_source("a", 10_000_000)]
    assert max(sizes(cut(many, limit_rows=5000))) <= -(-5000 // UNITS_OF_A_SMALL_RUN)


def test_sources_without_rows():
    """A source of no rows is one unit of none, beside others and alone."""
    assert cut([make_source("a", 0), make_source("b", 3)]) == [(0, 0), (0, 3)]
    assert cut([make_source("a", 0)]) == [(0, 0)]


def test_the_field_of_the_ids():
    """Ids have the type that the sources share, dictionaries decoded; without ids rows are counted."""
    plain = make_source("a", 1, schema=pa.schema([pa.field("id", pa.string()), TEXT]))
    encoded = make_source("b", 1, schema=pa.schema([("id", pa.dictionary(pa.int32(), pa.string())), TEXT]))
    assert id_field([plain, encoded], Columns()) == pa.field("id", pa.string())
    counted = id_field([make_source("a", 1)], Columns())
    assert counted == pa.field("source_row", pa.int64(), nullable=False)


@pytest.mark.parametrize(
    ("kind", "said"), [(None, "absent"), (pa.int32(), "int32"), (pa.large_string(), "large_string")]
)
def test_ids_of_two_types_are_refused(kind, said):
    """A run has ids of one type; the message names both sources."""
    fields = [TEXT] if kind is None else [pa.field("id", kind), TEXT]
    first = make_source("a", 1, schema=pa.schema([pa.field("id", pa.string()), TEXT]))
    other = make_source("b", 1, schema=pa.schema(fields))
    with pytest.raises(SourceError, match=rf"string in /data/a.parquet and {said} in /data/b.parquet"):
        id_field([first, other], Columns())


def make_ids(name, kind, *, num_rows=1):
    """A source whose ids have a type; None: it has no id column; "nothing": it shows no column at all."""
    if kind == "nothing":
        return replace(make_source(name, num_rows), schema=pa.schema([]))
    fields = [] if kind is None else [pa.field("id", kind)]
    return make_source(name, num_rows, schema=pa.schema([*fields, TEXT]))


@pytest.mark.parametrize("empty", [pa.null(), pa.dictionary(pa.int32(), pa.null()), "nothing"], ids=str)
@pytest.mark.parametrize("kind", [pa.int64(), pa.string(), pa.timestamp("ns")], ids=str)
def test_a_source_that_shows_no_id_takes_the_type_of_the_others(empty, kind):
    """A shard without rows, or with null ids alone, neither refuses a run nor decides its type, wherever it stands."""
    for order in ((empty, kind), (kind, empty), (empty, kind, empty, kind)):
        sources = [make_ids(str(number), each) for number, each in enumerate(order)]
        assert id_field(sources, Columns()) == pa.field("id", kind)


def test_sources_that_all_show_no_id():
    """Null ids alone are strings; files that show no column count their rows, unless an id column is named."""
    nothing, null = make_ids("a", "nothing", num_rows=0), make_ids("b", pa.null())
    assert id_field([nothing, null], Columns()) == pa.field("id", pa.string())
    assert id_field([nothing, make_ids("c", None)], Columns()) == pa.field(
        "source_row", pa.int64(), nullable=False
    )
    assert id_field([nothing], Columns()).name == "source_row"
    assert id_field([nothing], Columns(id="id")) == pa.field("id", pa.string())


def test_ids_of_two_types_are_refused_past_an_empty_source():
    """An empty shard does not hide that the others differ, nor that one has no id column."""
    for others in ((pa.int64(), pa.string()), (pa.int64(), None), (None, pa.null())):
        with pytest.raises(SourceError, match="a run has ids of one type"):
            id_field(
                [make_ids("e", "nothing"), *(make_ids(str(k), each) for k, each in enumerate(others))],
                Columns(),
            )
