"""Pages: what is in the file, and that it is there when it is installed."""

import tomllib
from pathlib import Path

import jinja2
import numpy as np
import pytest
from support.rendered import Page

from assay import pages

ROOT = Path(__file__).resolve().parents[2]


def render(title):
    """A page from the template of train, with nothing on it but a title."""
    sections = {name: pages.Section(title=name) for name in ("settings", "versions")}
    nothing = dict.fromkeys(("highlights", "warnings", "sections", "defaults"), ())
    return pages.render_page("train", {"title": title, "subtitle": "", "created": "", **nothing, **sections})


def test_what_is_no_module_is_package_data():
    """Each file beside the modules, templates first of all, is named in the metadata."""
    package = ROOT / "src" / "assay"
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    patterns = tomllib.loads(text)["tool"]["setuptools"]["package-data"]["assay"]
    named = {path for pattern in patterns for path in package.glob(pattern)}
    there = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert named == {path for path in there if path.suffix != ".py"}


def test_a_name_that_the_page_lacks_is_an_error():
    """A template and a page that do not fit never make half a page."""
    with pytest.raises(jinja2.UndefinedError, match="no attribute"):
        pages.render_page("score/report", {"title": "t"})


def test_text_of_any_script_stays_and_control_characters_do_not():
    """Joiners and wide spaces are letters to those who need them; a surrogate cannot be written."""
    words = "\u0645\u06cc\u200c\u062e\u0648 \u65e5\u672c\u3000\u8a9e \U0001f469\u200d\U0001f52c"
    page = Page(render(f"{words} \x00\x1b\ud800").decode())
    assert page.headings[0] == words + " " + 3 * "\N{REPLACEMENT CHARACTER}"


def test_of_many_labels_the_most_frequent_confusions_are_listed():
    """Up to 20 labels a matrix; of more the confused pairs alone, most frequent first, with their shares."""
    names = [f"label {index}" for index in range(21)]
    matrix = np.diag(np.full(21, 6))
    matrix[3, 4], matrix[5, 0] = 2, 4
    assert pages.confusion_section("Rows", names[:20], matrix[:20, :20]).figures
    section = pages.confusion_section("Rows", names, matrix)
    assert section.table.rows == [("label 5", "label 0", "4", "40.0%"), ("label 3", "label 4", "2", "25.0%")]


def test_a_scatter_of_many_rows_takes_some_evenly_and_says_so():
    """At most 1,200 dots, the first and the last row among them; the errors are of all rows."""
    values = np.arange(5_000, dtype=np.float32)
    section = pages.regression_section("Rows", values, values + 1)
    dots, errors = section.figures
    assert dots.svg.count("<circle") == pages.DOTS
    assert "(1,200 of 5,000 rows)" in dots.caption
    assert "<title>1, 0</title>" in dots.svg
    assert "<title>5,000, 4,999</title>" in dots.svg
    assert "5,000 rows</title>" in errors.svg
