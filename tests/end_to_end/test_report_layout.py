"""The tables of reports in a headless browser: every column can be seen at every width."""

from types import SimpleNamespace

import pytest

from assay.pages import Section, Table, render_page

TABLES = {
    "two columns": Table(header=("label", "rows"), rows=[("entertainment", "1,234")]),
    "three columns": Table(
        header=("metric", "value", "95% interval"), rows=[("average precision", "0.9903", "0.9839 to 0.9952")]
    ),
    "counts and shares of two splits": Table(
        header=("label", "train, 1,234,567 rows", "validation, 123,456 rows"),
        rows=[("entertainment", "1,234,567 (17.35%)", "123,456 (17.35%)"), ("x" * 60, "1 (0.0%)", "1 (0.0%)")],
    ),
    "by label": Table(
        header=("label", "rows", "predicted", "precision", "recall", "F1", "AUC", "average precision", "Brier", "ECE"),
        rows=[("a label of several words, as some are", "12,345", "12,345", *["0.9876"] * 7), ("x" * 80, *["1"] * 9)],
    ),
    "counts and shares": Table(
        header=("label", "predicted", "mean probability", "probability 0.5 or more"),
        rows=[("entertainment", "1,234,567 (17.35%)", "0.1739", "1,234,567 (17.35%)")],
    ),
    "texts": Table(
        header=("row", "true", "predicted", "NLL", "text"),
        rows=[("entertainment/194.txt", "entertainment", "business", "4.791", "word " * 60)],
        numeric_from=5, is_wide=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("width", [360, 390, 640, 1280])
@pytest.mark.parametrize("name", TABLES)
def test_every_column_of_a_table_can_be_seen(browser, name, width):
    """No cell lies outside of the page, nothing scrolls sideways, and a card tells the column of each value."""
    empty = Section(title="Empty")
    page = SimpleNamespace(
        title="A page", subtitle=f"trained on {'b' * 80}", highlights=[("median_absolute_deviation", "0.9876")],
        warnings=(f"{'w' * 90} is odd",), created="now", meaning=empty, definitions=[], made=empty,
        sections=[Section(title="Table", note="n" * 90, table=TABLES[name])],
    )  # fmt: skip
    context = browser.new_context(viewport={"width": width, "height": 800})
    shown = context.new_page()
    shown.set_content(render_page("evaluate", page).decode())
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    for term in shown.locator("dt").all():
        assert term.evaluate("one => one.scrollWidth - one.clientWidth") == 0
    assert shown.locator(".scroll").evaluate("one => one.scrollWidth - one.clientWidth") == 0
    cells = shown.locator("tbody th, tbody td")
    assert cells.count() == len(TABLES[name].rows) * len(TABLES[name].header)
    for index in range(cells.count()):
        box = cells.nth(index).bounding_box()
        assert box["width"] > 0
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    if "cards" in TABLES[name].layout and width <= 640:
        told = cells.nth(1).evaluate("one => getComputedStyle(one, '::before').content")
        assert told == f'"{TABLES[name].header[1]}"'
    context.close()
