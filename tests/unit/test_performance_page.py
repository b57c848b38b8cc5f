"""The performance page and its charts say what the recorded results say, and nothing where there are none."""

import json
from xml.etree import ElementTree as ET

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
    """Writes results as a benchmark would and returns the files that they give, by path."""

    def write(*results):
        (tmp_path / "benchmarks").mkdir(exist_ok=True)
        lines = "".join(json.dumps(result) + "\n" for result in results)
        (tmp_path / performance_page.RESULTS).write_text(lines, encoding="utf-8")
        return performance_page.performance_files(tmp_path)

    return write


def test_no_result_is_no_claim(tmp_path, record):
    """Without results, or with an empty file, the page has no table and says why."""
    (page,) = performance_page.performance_files(tmp_path).values()
    assert "No result has been recorded yet" in page
    assert "|" not in record()[performance_page.PAGE]


def test_the_last_result_of_a_claim_counts(record):
    """A claim measured twice has one row, with the later value; claims unknown here keep their name."""
    page = record(RESULT, {**RESULT, "claim": "other.claim", "value": 12}, {**RESULT, "value": 4.25})[
        performance_page.PAGE
    ]
    rows = [line for line in page.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 2
    assert rows[0].startswith("| Verify and merge, against DuckDB's join on a string id | 4.25 ratio |")
    assert "a \\| b, 2 cores" in rows[0]
    assert rows[1].startswith("| `other.claim` | 12 ratio |")


def test_a_line_that_is_no_result_is_named(record):
    """A result without its baseline is refused, with file and line."""
    with pytest.raises(ValueError, match=r"results\.jsonl:2: no 'baseline'"):
        record(RESULT, {key: value for key, value in RESULT.items() if key != "baseline"})


def test_a_question_is_answered_with_recorded_figures_alone(record):
    """A sentence has the last value of each of its claims; one that lacks a claim is left out, as are its bars."""
    memory = {**RESULT, "claim": "merge.memory_vs_duckdb", "value": 0.2}
    files = record(RESULT, {**RESULT, "value": 4.25}, memory)
    page = files[performance_page.PAGE]
    assert "runs at **4.25** times the rate of DuckDB's join" in page
    assert "![Verify and merge over DuckDB's join, 10 million rows](performance/merging.svg)" in page
    assert page.count("\n## How ") == 1
    assert sorted(files) == ["docs/performance.md", "docs/performance/merging.svg"]
    assert "DuckDB's join" not in record(RESULT)[performance_page.PAGE].partition("## All results")[0]


def test_a_chart_draws_what_was_recorded(record):
    """Bars are as long as their values, a ceiling is marked, and both schemes of colour are there."""
    sides = {"teraflops": 300, "docs_per_second": 900, "ceiling_share": 0.5}
    details = {"ours": sides, "baseline": {**sides, "teraflops": 150, "ceiling_share": 0.25}}
    claim = "h100.roberta_base.bf16.docs_per_second"
    files = record({**RESULT, "claim": claim, "value": 900.0, "details": details})
    svg = files["docs/performance/scoring-gpu.svg"]
    drawing = ET.fromstring(svg)  # noqa: S314  our own drawing
    space = "{http://www.w3.org/2000/svg}"
    ours, other = drawing.findall(f"{space}rect")
    assert float(ours.get("width")) == pytest.approx(2 * float(other.get("width")), abs=0.2)
    (mark, *_) = [line for line in drawing.findall(f"{space}line") if line.get("class") == "ceiling"]
    begin = float(ours.get("x"))
    assert float(mark.get("x1")) - begin == pytest.approx(2 * float(ours.get("width")), abs=0.2)
    assert "300, 900 docs/s" in svg
    assert "prefers-color-scheme: dark" in svg


def test_the_docs_check_compares_the_page_and_its_charts(tmp_path, record):
    """A file that is missing, says something else or is one too many is a problem; the right ones are none."""
    record(RESULT)
    assert all("out of date" in problem for problem in check_docs.check_performance(tmp_path))
    performance_page.write(tmp_path)
    assert list(check_docs.check_performance(tmp_path)) == []
    old = tmp_path / performance_page.CHARTS / "old.svg"
    old.write_text("<svg/>", encoding="utf-8")
    assert len(list(check_docs.check_performance(tmp_path))) == 1
    performance_page.write(tmp_path)
    assert not old.exists()
    next((tmp_path / performance_page.CHARTS).glob("*.svg")).write_text("<svg/>", encoding="utf-8")
    assert len(list(check_docs.check_performance(tmp_path))) == 1
