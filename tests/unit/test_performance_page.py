"""The performance page says what the recorded results say, and nothing where there are none."""

import json

import pytest

import check_docs
import performance_page

RESULT = {
    "claim": "merge.speed_vs_duckdb",
    "value": 3.5,
    "unit": "ratio",
    "baseline": "DuckDB join: 1,000 rows/s",
    "hardware": "a | b, 2 cores",
    "versions": {"python": "3.13.1"},
    "date": "2026-11-22",
    "command": "python benchmarks/merge_vs_duckdb.py",
}


@pytest.fixture
def record(tmp_path):
    """Writes results as a benchmark would and returns the page that they give."""

    def write(*results):
        (tmp_path / "benchmarks").mkdir(exist_ok=True)
        lines = "".join(json.dumps(result) + "\n" for result in results)
        (tmp_path / performance_page.RESULTS).write_text(lines, encoding="utf-8")
        return performance_page.performance_page(tmp_path)

    return write


def test_no_result_is_no_claim(tmp_path, record):
    """Without results, or with an empty file, the page has no table and says why."""
    assert "No result has been recorded yet" in performance_page.performance_page(tmp_path)
    assert "|" not in record()


def test_the_last_result_of_a_claim_counts(record):
    """A claim measured twice has one row, with the later value; claims unknown here keep their name."""
    page = record(RESULT, {**RESULT, "claim": "other.claim", "value": 12}, {**RESULT, "value": 4.25})
    rows = [line for line in page.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 2
    assert rows[0].startswith("| Verify and merge, against DuckDB's join on a string id | 4.25 ratio |")
    assert "a \\| b, 2 cores" in rows[0]
    assert rows[1].startswith("| `other.claim` | 12 ratio |")


def test_a_line_that_is_no_result_is_named(record):
    """A result without its baseline is refused, with file and line."""
    with pytest.raises(ValueError, match=r"results\.jsonl:2: no 'baseline'"):
        record(RESULT, {key: value for key, value in RESULT.items() if key != "baseline"})


def test_the_docs_check_compares_the_page(tmp_path, record):
    """A page that is missing or says something else is one problem; the right page is none."""
    page = record(RESULT)
    assert "out of date" in next(iter(check_docs.check_performance(tmp_path)))
    (tmp_path / "docs").mkdir()
    (tmp_path / performance_page.PAGE).write_text(page, encoding="utf-8")
    assert list(check_docs.check_performance(tmp_path)) == []
