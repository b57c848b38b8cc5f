"""The sample that is measured: from the whole length of the corpus, each row once."""

import pytest
from support.scoring import write_parquet

from assay.data.finding import find_sources
from assay.data.sources import Columns
from assay.score.bench.sample import spread


def rows_of(ranges):
    """The rows that ranges of two sources `a` and `b` name."""
    return [(source.name, row) for source, start, stop in ranges for row in range(start, stop)]


@pytest.fixture
def two_sources(tmp_path):
    """Sources of thirty and seventy rows."""
    for name, count in (("a", 30), ("b", 70)):
        write_parquet(tmp_path / f"{name}.parquet", ["text"] * count)
    return find_sources([str(tmp_path / "*.parquet")], columns=Columns())


@pytest.mark.parametrize("num_documents", [1, 2, 7, 8, 9, 50, 99])
def test_the_sample_is_spread_over_the_sources(two_sources, num_documents):
    """As many rows as asked for, each once, in order, from the whole length of the corpus."""
    rows = rows_of(spread(two_sources, num_documents))
    assert len(rows) == num_documents
    assert rows == sorted(set(rows))
    if num_documents >= 8:
        assert {name for name, _ in rows} == {"a", "b"}
        assert rows[-1] >= ("b", 55), "the last slice lies in the last eighth or so"


def test_a_small_corpus_is_the_sample(two_sources):
    """Where fewer rows are there than asked for, all are taken."""
    assert len(rows_of(spread(two_sources, 1000))) == 100
