"""Charts: honest axes, escaped text, figures in each mark."""

import math
import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from assay import charts

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg):
    """The SVG as a tree; fails where it is not well-formed XML."""
    return ET.fromstring(svg)  # noqa: S314  our own output


def titles(svg):
    """What the chart and its marks are called."""
    return [node.text for node in parse(svg).iter(f"{SVG}title")]


def texts(svg):
    """Place and words of each text."""
    return [(float(node.get("x")), float(node.get("y")), node.text) for node in parse(svg).iter(f"{SVG}text")]


def ticks_of(svg):
    """The numbers beside the y axis."""
    nodes = parse(svg).iter(f"{SVG}text")
    return [float(node.text) for node in nodes if node.get("text-anchor") == "end"]


def heights(svg, css):
    """Heights of the bars of a class."""
    return [float(rect.get("height")) for rect in parse(svg).iter(f"{SVG}rect") if rect.get("class") == css]


def test_each_chart_is_a_named_image():
    """Every chart is well-formed, has the role of an image, and names itself in its first child."""
    drawn = [
        charts.bar_chart("a <b> & c", ["x", "y"], [1, 2]),
        charts.histogram("a <b> & c", [0, 1, 2], [3, 4], x_label="x"),
        charts.line_chart("a <b> & c", [charts.Line(name="l", x=[0, 1], y=[1, 2])], x_label="x", y_label="y"),
        charts.reliability_diagram("a <b> & c", [(0.2, 0.3, 5), (0.9, 0.8, 10)]),
    ]
    for svg in drawn:
        root = parse(svg)
        assert root.get("role") == "img"
        assert root[0].tag == f"{SVG}title"
        assert root[0].text == "a <b> & c"


def test_text_is_escaped_and_printable():
    """Labels cannot bring elements or control characters into the page."""
    svg = charts.bar_chart("t", ["<script>alert(1)</script>", "a\x00\x1b\ud800b", '"quoted"'], [1, 1, 1])
    assert "<script" not in svg
    assert not re.search(r"[\x00-\x08\x1b\ud800]", svg)
    parse(svg)


def test_heights_of_a_histogram_are_proportional_to_its_counts():
    """The axis begins at zero, so twice the count is twice the height."""
    low, high, empty = heights(charts.histogram("t", [0, 1, 2, 3], [500, 1000, 0], x_label="x"), "f0")
    assert high == pytest.approx(2 * low, rel=1e-3)
    assert empty == 0


def test_a_rare_value_can_be_seen():
    """One document in a million still draws a sliver; none draws nothing."""
    most, rare, none = heights(charts.histogram("t", [0, 1, 2, 3], [1_000_000, 1, 0], x_label="x"), "f0")
    assert most > 100
    assert 0 < rare < 1
    assert none == 0


def test_marks_tell_their_figures():
    """Each bar, bin and dot has a title with its exact figures."""
    assert "0.5 to 1: 1,234 documents, 34 of them chosen" in titles(
        charts.histogram("t", [0, 0.5, 1], [1, 1234], x_label="x", highlight=[1, 34], highlight_name="chosen")
    )
    assert "sport: 3 (75.0%)" in titles(charts.bar_chart("t", ["sport", "news"], [3, 1]))
    assert "8 to 13: 2 documents" in titles(
        charts.histogram("t", [4, 8, 13], [1, 2], x_label="x", even_bins=True)
    )
    assert "says 0.900, is right 0.800 of the time (1,000 documents)" in titles(
        charts.reliability_diagram("t", [(0.9, 0.8, 1000)])
    )


def test_lines_leave_out_what_is_not_finite():
    """NaN and infinity in a series are gaps, never coordinates."""
    line = charts.Line(name="loss", x=[0, 1, 2, 3], y=[1.0, math.nan, math.inf, 0.5])
    svg = charts.line_chart("t", [line], x_label="step", y_label="loss", from_zero=False)
    assert not re.search(r"nan|inf", svg.lower().replace("infinity", ""))
    assert len(list(parse(svg).iter(f"{SVG}circle"))) == 2


def test_a_single_point_has_its_place_on_the_axis():
    """One validation: its step is named below the dot."""
    svg = charts.line_chart("t", [charts.Line(name="l", x=[13], y=[0.5])], x_label="step", y_label="y")
    (tick,) = [node for node in parse(svg).iter(f"{SVG}text") if node.text == "13"]
    (dot,) = parse(svg).iter(f"{SVG}circle")
    assert tick.get("x") == dot.get("cx")


def test_lines_are_told_apart_without_colour():
    """Two lines differ in dashes and stand in a legend."""
    lines = [charts.Line(name=name, x=[0, 1], y=[0, 1]) for name in ("train", "held out")]
    svg = charts.line_chart("t", lines, x_label="step", y_label="loss")
    dashes = {path.get("stroke-dasharray") for path in parse(svg).iter(f"{SVG}path") if path.get("class")}
    assert {None, charts.DASHES[1]} <= dashes
    assert ">train<" in svg
    assert ">held out<" in svg


@pytest.mark.parametrize(
    ("low", "high", "options", "expected"),
    [
        (0, 87, {}, [0, 20, 40, 60, 80, 100]),
        (0, 1, {}, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 2, {"whole": True}, [0, 1, 2]),
        (0.3, 9.7, {"inside": True}, [2, 4, 6, 8]),
        (-1.2, 1.1, {}, [-1.5, -1, -0.5, 0, 0.5, 1, 1.5]),
    ],
)
def test_ticks_are_round_numbers_around_the_range(low, high, options, expected):
    """Ticks are 1, 2 or 5 times a power of ten apart and cover the range, or stay inside of it."""
    assert charts.nice_ticks(low, high, **options) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-12, 1e12])
def test_a_range_of_one_value_has_ticks(value):
    """A constant series is drawn like any other."""
    ticks = charts.nice_ticks(value, value)
    assert len(ticks) >= 2
    assert ticks[0] <= value <= ticks[-1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (1200, "1,200"),
        (15000, "15k"),
        (2.5e6, "2.5M"),
        (3e9, "3G"),
        (-20000, "-20k"),
    ],
)
def test_numbers_are_short(value, expected):
    """Axis labels are as short as the number allows."""
    assert charts.format_number(value) == expected


def test_nothing_to_draw_is_drawn_as_nothing():
    """Empty input gives an empty chart, no error."""
    for svg in (
        charts.bar_chart("t", [], []),
        charts.bar_chart("t", ["a"], [0]),
        charts.histogram("t", [0, 1], [0], x_label="x"),
        charts.line_chart("t", [], x_label="x", y_label="y"),
        charts.line_chart("t", [charts.Line(name="l", x=[], y=[])], x_label="x", y_label="y"),
        charts.reliability_diagram("t", []),
    ):
        parse(svg)


def test_confusion_chart_writes_each_cell_with_its_share_of_the_true_label():
    """Counts stand in the cells, shares in the titles; names are escaped."""
    svg = charts.confusion_chart("c", ["ham", "<spam>"], [[8, 2], [0, 5]])
    assert "ham as &lt;spam&gt;: 2 (20.0% of 10)" in svg
    assert "&lt;spam&gt; as &lt;spam&gt;: 5 (100.0% of 5)" in svg
    assert svg.count('class="cell"') == 4
    parse(svg)


def test_confusion_chart_of_many_long_names_turns_them_and_leaves_numbers_to_the_titles():
    """Names that do not fit stand slanted; a true label without rows has no share."""
    names = [f"a label of some length {number}" for number in range(20)]
    svg = charts.confusion_chart("c", names, [[100_000 * (row == 0)] * 20 for row in range(20)])
    assert "rotate(-40" in svg
    assert ">100000<" not in svg
    assert "(0.0% of 0)" in svg
    parse(svg)


def test_steps_chart_outlines_each_series_and_names_it():
    """Two outlines from zero to zero, in colours and dashes, with a legend."""
    svg = charts.steps_chart(
        "s", [0, 0.5, 1], [("yes", [0.2, 0.8]), ("no", [1, 0])], x_label="p", y_label="share"
    )
    assert "<title>yes</title>" in svg
    assert "stroke-dasharray" in svg
    assert svg.count('class="line l0"') == 2  # the outline and the legend
    parse(svg)


def test_scatter_has_one_range_for_both_axes_and_leaves_out_what_is_not_finite():
    """A dot a pair; NaN is not a place."""
    svg = charts.scatter("s", [0.0, 2.0, math.nan], [1.0, 3.0, 1.0], x_label="target", y_label="prediction")
    assert svg.count("<circle") == 2
    parse(charts.scatter("s", [], [], x_label="x", y_label="y"))


def test_reliability_diagram_shows_what_it_was_before():
    """A dashed line and a legend, only where there is a before."""
    without = charts.reliability_diagram("r", [(0.5, 0.4, 10)])
    svg = charts.reliability_diagram("r", [(0.5, 0.4, 10)], before=[(0.6, 0.4), (0.9, 0.5)])
    assert "before calibration" in svg
    assert "before calibration" not in without
    parse(svg)


@pytest.mark.parametrize("length", [3, 26, 45])
def test_a_legend_takes_the_lines_that_its_names_need(length):
    """Five names, short or long, stand whole within the drawing, and the drawing stands below them."""
    names = [f"{n}" * length for n in range(5)]
    lines = [charts.Line(name=name, x=[0, 1], y=[0, 1]) for name in names]
    svg = charts.line_chart("l", lines, x_label="x", y_label="y")
    for name in names:
        x, y = next((float(x), float(y)) for x, y, text in texts(svg) if text == name)
        assert x + charts.CHARACTER * length <= charts.WIDTH
        assert y < min(float(each) for each in re.findall(r'class="grid" d="M[\d.]+ ([\d.]+)H', svg))


@pytest.mark.parametrize("length", [3, 24, 33, 60])
def test_names_of_bars_are_not_cut_where_there_is_room(length):
    """A name stands beside its bar, or above all of the width; either way whole, and the bar stays in the drawing."""
    names = [f"{n}" * length for n in range(3)]
    svg = charts.bar_chart("b", names, [1_000_000, 20, 3])
    assert [text for _, _, text in texts(svg)][::2] == names
    for left, width in re.findall(r'<rect class="f0" x="([\d.]+)" .*? width="([\d.]+)"', svg):
        assert float(left) + float(width) < charts.WIDTH


@pytest.mark.parametrize(("num_labels", "length"), [(2, 40), (5, 30), (10, 18), (20, 14)])
def test_names_of_a_confusion_matrix_are_not_cut_where_there_is_room(num_labels, length):
    """Fewer labels leave more room for their names."""
    names = [chr(ord("a") + n) * length for n in range(num_labels)]
    svg = charts.confusion_chart("c", names, [[1] * num_labels] * num_labels)
    assert [text for _, _, text in texts(svg)].count(names[0]) == 2
    assert "…" not in svg


@pytest.mark.parametrize(
    "ys", [[0.97, 0.97, 0.97], [0.97], [1.0], [0.0], [0.0, 1.0], [0.999, 1.0], [1 + 1e-12, 1 + 2e-12]]
)
@pytest.mark.parametrize("from_zero", [True, False])
def test_an_axis_never_leaves_the_range_of_its_values(ys, from_zero):
    """A share is between 0 and 1, and so is its axis, however little it changes."""
    svg = charts.line_chart(
        "l",
        [charts.Line(name="accuracy", x=range(len(ys)), y=ys)],
        x_label="",
        y_label="",
        from_zero=from_zero,
        y_range=(0, 1),
    )
    ticks = ticks_of(svg)
    assert len(ticks) >= 2
    assert 0 <= min(ticks) <= min(ys)
    assert max(ys) - 1e-9 <= max(ticks) <= 1


def test_an_axis_of_rates_begins_at_zero():
    """Rates that are all 0 have no axis below 0."""
    svg = charts.line_chart(
        "l", [charts.Line(name="r", x=[0, 1], y=[0, 0])], x_label="", y_label="", y_range=(0, math.inf)
    )
    assert min(ticks_of(svg)) == 0


@pytest.mark.parametrize("last", [100, 128, 1_000, 130_000])
def test_the_last_edge_of_growing_bins_is_always_named(last):
    """The axis ends at the last edge and says it, and no two names touch."""
    edges = [0, 1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, last]
    svg = charts.histogram("h", edges, [1] * 12, x_label="", y_label="", even_bins=True)
    bottom = [(x, text) for x, y, text in texts(svg) if y == charts.HEIGHT - charts.BOTTOM + 16]
    assert bottom[-1] == (charts.WIDTH - charts.RIGHT, charts.format_number(last))
    for (x, text), (right, other) in pairwise(bottom):
        assert right - x >= charts.CHARACTER * (len(text) + len(other)) / 2


def test_raw_values_are_drawn_faint():
    """Thin, pale and without dashes, in the curve and in the legend; the smoothed line beside them as ever."""
    lines = [
        charts.Line(name="smoothed", x=[0, 1, 2], y=[3, 2, 1]),
        charts.Line(name="of a step", x=[0, 1, 2], y=[3, 1, 2], is_faint=True),
    ]
    svg = charts.line_chart("t", lines, x_label="step", y_label="loss")
    faint = [path for path in parse(svg).iter(f"{SVG}path") if "faint" in path.get("class")]
    assert [path.get("class") for path in faint] == ["line l1 faint"] * 2
    assert not [path for path in faint if path.get("stroke-dasharray")]
