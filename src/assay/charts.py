"""Numbers to charts: SVG text for an HTML page. Pure; knows nothing of runs or scores.

Each function returns one `<svg>` element that stands alone: its text is escaped, its first child is
a `<title>` that screen readers speak, and each mark has a `<title>` with its exact figures. Axes of
counts begin at zero. Colours are CSS variables for light and dark pages: put `STYLE` into the page
once. Lengths are in SVG user units; the charts scale with the width that the page gives them.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 440.0
HEIGHT = 220.0
CHARACTER = 6.4
"""Width of a character of the charts' text, about."""
TOP = 14.0
RIGHT = 14.0
BOTTOM = 40.0
BAR_HEIGHT = 24.0
SHORTEST_MARK = 0.75
"""Height of a bar that is not zero, at the least, so that a rare value can be seen at all."""
SHORTEST_BAR = 120.0
"""Room for the longest bar, at the least, where names stand beside the bars."""
NARROWEST_CELL = 22.0
"""Of a confusion matrix: names beside it get the room that such cells leave."""
LEAST_CELL_CHARACTERS = 14
"""Of these names, whatever the cells leave."""
LEGEND_LEFT = 34.0
LEGEND_LINE = 14.0
_CENTRED = 'text-anchor="middle"'
DASHES = ("", "6 3", "2 3", "9 3 2 3", "1 4")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

# Okabe and Ito, "Color Universal Design" (2008): told apart with any colour vision. The dark set is
# the same hues, lighter.
STYLE = """\
:root{--chart-0:#0072b2;--chart-1:#d55e00;--chart-2:#009e73;--chart-3:#a4548a;--chart-4:#8a6d00;
--chart-soft:#a9cce3;--chart-heat:#56b4e9;--chart-axis:#6b7280;--chart-grid:#e2e5ea;--chart-text:#3b424d}
@media (prefers-color-scheme:dark){:root{--chart-0:#56b4e9;--chart-1:#f0864a;--chart-2:#3ccfa0;
--chart-3:#dd9cc4;--chart-4:#e6c229;--chart-soft:#2d5573;--chart-heat:#0072b2;--chart-axis:#8b93a1;--chart-grid:#2e343e;
--chart-text:#c6ccd6}}
svg.chart{display:block;width:100%;height:auto;font:11px system-ui,sans-serif}
svg.chart text{fill:var(--chart-text)}
svg.chart .axis{stroke:var(--chart-axis);fill:none}
svg.chart .grid{stroke:var(--chart-grid);fill:none}
svg.chart .ideal{stroke:var(--chart-axis);stroke-dasharray:4 4;fill:none}
svg.chart .soft{fill:var(--chart-soft)}
svg.chart .heat{fill:var(--chart-heat)}
svg.chart .cell{stroke:var(--chart-grid);fill:none}
svg.chart .f0{fill:var(--chart-0)}
svg.chart .f1{fill:var(--chart-1)}
svg.chart .l0{stroke:var(--chart-0)}
svg.chart .l1{stroke:var(--chart-1)}
svg.chart .l2{stroke:var(--chart-2)}
svg.chart .l3{stroke:var(--chart-3)}
svg.chart .l4{stroke:var(--chart-4)}
svg.chart .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
svg.chart .faint{stroke-width:1;stroke-opacity:0.4}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a line chart: points in the order of x."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    is_faint: bool = False
    """Drawn thin and pale, without dashes: raw values behind a smoothed line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A vertical dashed line at `x` with a word on it."""

    x: float
    text: str


def bar_chart(title: str, labels: Sequence[str], values: Sequence[float]) -> str:
    """Horizontal bars from zero, one a label, each with its value and share of the sum written out.

    Names stand beside the bars, or above them where one is too long for that.
    """
    total = math.fsum(values)
    texts = [_value_and_share(value, total) for value in values]
    right = 8 + CHARACTER * max((len(text) for text in texts), default=0)
    longest = 10 + CHARACTER * max((len(label) for label in labels), default=0)
    is_beside = longest <= WIDTH - right - SHORTEST_BAR
    left = longest if is_beside else 4.0
    above = 0.0 if is_beside else LEGEND_LINE
    most = max(values, default=0) or 1
    tall = BAR_HEIGHT + above
    height = tall * max(len(labels), 1) + 8
    body = []
    for row, (label, value) in enumerate(zip(labels, values, strict=True)):
        top = 4 + row * tall
        middle = top + above + BAR_HEIGHT / 2 + 4
        width = _visible((WIDTH - left - right) * value / most, value)
        if is_beside:
            name = f'<text x="{left - 6:.1f}" y="{middle:.1f}" text-anchor="end">{_text(label)}</text>'
        else:
            name = f'<text x="{left:.1f}" y="{top + 12:.1f}">{_text(_shorten(label, WIDTH - left))}</text>'
        body.append(
            f"<g><title>{_text(label)}: {texts[row]}</title>{name}"
            f'<rect class="f0" x="{left:.1f}" y="{top + above + 3:.1f}" width="{width:.1f}" '
            f'height="{BAR_HEIGHT - 6:.1f}"/>'
            f'<text x="{left + width + 5:.1f}" y="{middle:.1f}">{texts[row]}</text></g>'
        )
    body.append(f'<path class="axis" d="M{left:.1f} 2V{height - 2:.1f}"/>')
    return _svg(title, body, height=height)


def histogram(
    title: str,
    edges: Sequence[float],
    counts: Sequence[int],
    *,
    x_label: str,
    y_label: str = "documents",
    highlight: Sequence[int] | None = None,
    highlight_name: str = "",
    even_bins: bool = False,
) -> str:
    """Counts between `edges` (one more than counts), from zero.

    `highlight` is the part of each count to draw in the strong colour. `even_bins` draws all bins
    equally wide and names their edges, for bins that grow.
    """
    ticks = nice_ticks(0, max(counts, default=0) or 1, whole=True)
    legend = _Legend([("f0", highlight_name), ("soft", "others")] if highlight is not None else [])
    frame = _Frame(
        x_range=(0, len(counts)) if even_bins else (edges[0], edges[-1]),
        y_ticks=ticks,
        x_label=x_label,
        y_label=y_label,
        legend=legend,
    )
    positions = range(len(edges)) if even_bins else edges
    body = legend.body + frame.y_axis()
    for index, count in enumerate(counts):
        left, right = frame.x(positions[index]), frame.x(positions[index + 1])
        inside = highlight[index] if highlight is not None else count
        low, high = format_number(edges[index]), format_number(edges[index + 1])
        detail = f", {inside:,} of them {highlight_name}" if highlight is not None else ""
        body.append(f"<g><title>{_text(f'{low} to {high}: {count:,} {y_label}{detail}')}</title>")
        body += [_column(frame, left, right, count, "soft" if highlight is not None else "f0")]
        body += [_column(frame, left, right, inside, "f0")] if highlight is not None else []
        body.append("</g>")
    body += (
        frame.edge_axis(edges) if even_bins else frame.x_axis(nice_ticks(edges[0], edges[-1], inside=True))
    )
    return _svg(title, body, height=frame.height)


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    marks: Sequence[Mark] = (),
    from_zero: bool = True,
    y_range: tuple[float, float] = (-math.inf, math.inf),
) -> str:
    """Lines over a common x axis; up to five, told apart by colour and dashes.

    Points that are not finite are left out. The y axis begins at zero unless `from_zero` is False
    (a training loss), and never leaves `y_range`, which is what the values can be.
    """
    points = [
        [(x, y) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(x) and math.isfinite(y)]
        for line in lines
    ]
    xs = [x for line in points for x, _ in line] or [0.0, 1.0]
    ys = [y for line in points for _, y in line] or [0.0, 1.0]
    low = min(0.0, *ys) if from_zero else min(ys)
    first, last = min(xs), max(xs)
    is_one = first == last  # it stands in the middle
    classes = [_line_class(index, is_faint=line.is_faint) for index, line in enumerate(lines)]
    named = [(css, line.name) for css, line in zip(classes, lines, strict=True)]
    legend = _Legend(named if len(lines) > 1 else [])
    frame = _Frame(
        x_range=(first - 1, last + 1) if is_one else (first, last),
        y_ticks=nice_ticks(low, max(ys), within=y_range),
        x_label=x_label,
        y_label=y_label,
        legend=legend,
        above=12.0 if marks else 0.0,
    )
    body = legend.body + frame.y_axis()
    body += frame.x_axis([first] if is_one else nice_ticks(first, last, inside=True))
    for mark in marks:
        x = frame.x(mark.x)
        anchor = "end" if x > WIDTH * 0.6 else "start"
        body.append(
            f"<g><title>{_text(mark.text)}</title>"
            f'<path class="ideal" d="M{x:.1f} {frame.top:.1f}V{frame.bottom:.1f}"/>'
            f'<text x="{x + (3 if anchor == "end" else -3):.1f}" y="{frame.top - 4:.1f}" '
            f'text-anchor="{anchor}">{_text(mark.text)}</text></g>'
        )
    for css, line, own in zip(classes, lines, points, strict=True):
        body += _polyline(frame, css, line.name, own)
    return _svg(title, body, height=frame.height)


def steps_chart(
    title: str,
    edges: Sequence[float],
    series: Sequence[tuple[str, Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
) -> str:
    """Histograms over the same `edges` as outlines from zero, up to five, told apart by colour and dashes."""
    most = max((value for _, values in series for value in values), default=0)
    named = [(_line_class(index), name) for index, (name, _) in enumerate(series)]
    legend = _Legend(named if len(series) > 1 else [])
    frame = _Frame(
        x_range=(edges[0], edges[-1]),
        y_ticks=nice_ticks(0, most or 1),
        x_label=x_label,
        y_label=y_label,
        legend=legend,
    )
    body = legend.body + frame.y_axis() + frame.x_axis(nice_ticks(edges[0], edges[-1], inside=True))
    for index, (name, values) in enumerate(series):
        path = f"M{frame.x(edges[0]):.1f} {frame.bottom:.1f}"
        for at, value in enumerate(values):
            path += f"V{frame.y(value):.1f}H{frame.x(edges[at + 1]):.1f}"
        path += f"V{frame.bottom:.1f}"
        body.append(f'<path {_stroke(_line_class(index))} d="{path}"><title>{_text(name)}</title></path>')
    return _svg(title, body, height=frame.height)


def scatter(title: str, x: Sequence[float], y: Sequence[float], *, x_label: str, y_label: str) -> str:
    """A dot a pair on axes of the same range; on the dashed diagonal both are equal. Only finite pairs are drawn."""
    points = [(left, up) for left, up in zip(x, y, strict=True) if math.isfinite(left) and math.isfinite(up)]
    values = [value for point in points for value in point] or [0.0, 1.0]
    ticks = nice_ticks(min(values), max(values))
    frame = _Frame(
        x_range=(ticks[0], ticks[-1]), y_ticks=ticks, x_label=x_label, y_label=y_label, height=300.0
    )
    body = frame.y_axis() + frame.x_axis(ticks)
    body.append(
        f'<path class="ideal" d="M{frame.x(ticks[0]):.1f} {frame.bottom:.1f}'
        f'L{frame.right:.1f} {frame.y(ticks[-1]):.1f}"><title>both are equal</title></path>'
    )
    body += [
        f'<circle class="f0" opacity="0.45" cx="{frame.x(left):.1f}" cy="{frame.y(up):.1f}" r="2.2">'
        f"<title>{format_number(left)}, {format_number(up)}</title></circle>"
        for left, up in points
    ]
    return _svg(title, body, height=frame.height)


def confusion_chart(title: str, labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Rows by true label (down) and predicted label (across), each cell as strong as its share of its row."""
    room = max(WIDTH - 34 - RIGHT - NARROWEST_CELL * len(labels), LEAST_CELL_CHARACTERS * CHARACTER)
    shown = [_shorten(label, room) for label in labels]
    longest = CHARACTER * max((len(label) for label in shown), default=1)
    left = 34 + longest
    size = max((WIDTH - left - RIGHT) / max(len(labels), 1), 1.0)
    tall = min(size, 44.0)
    bottom = 26 + tall * len(labels)
    turned = f"rotate(-90 11 {(26 + bottom) / 2:.1f})"
    body = [
        f'<text x="{left + size * len(labels) / 2:.1f}" y="12" {_CENTRED}>predicted</text>',
        f'<text x="11" y="{(26 + bottom) / 2:.1f}" {_CENTRED} transform="{turned}">true</text>',
    ]
    fits = CHARACTER * len(str(max((max(row) for row in counts), default=0))) + 4 <= size
    for row, name in enumerate(shown):
        top = 26 + tall * row
        total = sum(counts[row])
        middle = top + tall / 2 + 4
        body.append(f'<text x="{left - 6:.1f}" y="{middle:.1f}" text-anchor="end">{_text(name)}</text>')
        for column, count in enumerate(counts[row]):
            x = left + size * column
            share = count / total if total else 0.0
            spoken = f"{labels[row]} as {labels[column]}: {count:,} ({share:.1%} of {total:,})"
            box = f'x="{x:.1f}" y="{top:.1f}" width="{size:.1f}" height="{tall:.1f}"'
            body.append(
                f"<g><title>{_text(spoken)}</title>"
                f'<rect class="heat" opacity="{0.7 * share:.3f}" {box}/><rect class="cell" {box}/>'
            )
            if fits:
                body.append(f'<text x="{x + size / 2:.1f}" y="{middle:.1f}" {_CENTRED}>{count}</text>')
            body.append("</g>")
    turn = max(len(label) for label in shown) * CHARACTER > size - 6 if shown else False
    for column, name in enumerate(shown):
        x, y = left + size * (column + 0.5), bottom + 16
        place = _CENTRED
        if turn:
            x, y = x + 4, bottom + 12
            place = f'text-anchor="end" transform="rotate(-40 {x:.1f} {y:.1f})"'
        body.append(f'<text x="{x:.1f}" y="{y:.1f}" {place}>{_text(name)}</text>')
    return _svg(title, body, height=bottom + (16 + 0.68 * longest if turn else 24))


def reliability_diagram(
    title: str,
    bins: Sequence[tuple[float, float, int]],
    *,
    before: Sequence[tuple[float, float]] = (),
    of_what: str = "predicted label",
) -> str:
    """Accuracy against confidence, both 0 to 1, from bins of (confidence, accuracy, count).

    A dot a bin, its area by the bin's count; empty bins are left out. On the dashed diagonal a
    classifier is right as often as it says it is. `before`: confidence and accuracy of each bin
    before calibration, drawn dashed. `of_what`: whose probabilities they are.
    """
    legend = _Legend([("l0", "as calibrated"), ("l1", "before calibration")] if before else [])
    frame = _Frame(
        x_range=(0, 1),
        y_ticks=[0, 0.2, 0.4, 0.6, 0.8, 1],
        x_label=f"mean probability of the {of_what}",
        y_label="share that is right",
        legend=legend,
        height=300.0,
    )
    body = legend.body + frame.y_axis() + frame.x_axis([0, 0.2, 0.4, 0.6, 0.8, 1])
    body.append(
        f'<path class="ideal" d="M{frame.x(0):.1f} {frame.y(0):.1f}L{frame.x(1):.1f} {frame.y(1):.1f}">'
        "<title>as right as it says</title></path>"
    )
    if before:
        body += _polyline(frame, _line_class(1), "before calibration", before)
    filled = [each for each in bins if each[2] > 0]
    total = sum(count for _, _, count in filled)
    if len(filled) > 1:
        path = "L".join(f"{frame.x(said):.1f} {frame.y(was):.1f}" for said, was, _ in filled)
        body.append(f'<path {_stroke(_line_class(0))} d="M{path}"/>')
    for said, was, count in filled:
        radius = 2 + 8 * math.sqrt(count / total)
        body.append(
            f'<circle class="f0" cx="{frame.x(said):.1f}" cy="{frame.y(was):.1f}" r="{radius:.1f}">'
            f"<title>says {said:.3f}, is right {was:.3f} of the time ({count:,} documents)</title></circle>"
        )
    return _svg(title, body, height=frame.height)


def nice_ticks(
    low: float,
    high: float,
    *,
    whole: bool = False,
    inside: bool = False,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that span `low` to `high`, about five.

    `whole`: no fractions. `inside`: none below `low` or above `high`. `within`: none outside of it, whatever
    the span. Example: 0 to 87 -> 0, 20, 40, 60, 80, 100.
    """
    least, most = within
    low, high = min(max(low, least), most), min(max(high, least), most)
    if not high > low:
        low, high = max(low - (abs(low) or 1) / 2, least), min(high + (abs(high) or 1) / 2, most)
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    if whole:
        step = max(step, 1.0)
    first, last = low / step, high / step
    if inside:
        begin, end = math.ceil(first - 1e-9), math.floor(last + 1e-9)
    else:
        begin, end = math.floor(first + 1e-9), math.ceil(last - 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    ticks = [round(index * step, digits) for index in range(begin, end + 1)]
    return [tick for tick in ticks if least <= tick <= most]


def format_number(value: float) -> str:
    """A number as short as an axis wants it: `0.25`, `1,200`, `15k`, `2.5M`, `3G`."""
    for limit, unit, suffix in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= limit:
            return f"{value / unit:.4g}{suffix}"
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:.4g}"


class _Frame:
    """Where the numbers lie in the drawing."""

    def __init__(
        self,
        *,
        x_range: tuple[float, float],
        y_ticks: Sequence[float],
        x_label: str,
        y_label: str,
        legend: "_Legend | None" = None,
        above: float = 0.0,
        height: float = HEIGHT,
    ) -> None:
        """Leave room for the legend, and for `above` more, over the drawing."""
        lines = 0 if legend is None else legend.num_lines
        self.height = height + LEGEND_LINE * max(lines - 1, 0)
        self.y_ticks = y_ticks
        self.x_label = x_label
        self.y_label = y_label
        self.top = TOP + 4 + LEGEND_LINE * lines + above
        self.bottom = self.height - BOTTOM
        self.left = 26 + CHARACTER * max(len(format_number(tick)) for tick in y_ticks)
        self.right = WIDTH - RIGHT
        self._x_low, x_high = x_range
        self._x_span = (x_high - self._x_low) or 1.0
        self._y_low = y_ticks[0]
        self._y_span = (y_ticks[-1] - y_ticks[0]) or 1.0

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * (value - self._x_low) / self._x_span

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * (value - self._y_low) / self._y_span

    def y_axis(self) -> list[str]:
        middle = (self.top + self.bottom) / 2
        turned = f"rotate(-90 11 {middle:.1f})"
        body = [f'<text x="11" y="{middle:.1f}" {_CENTRED} transform="{turned}">{_text(self.y_label)}</text>']
        for tick in self.y_ticks:
            y = self.y(tick)
            body.append(f'<path class="grid" d="M{self.left:.1f} {y:.1f}H{self.right:.1f}"/>')
            name = format_number(tick)
            body.append(f'<text x="{self.left - 5:.1f}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
        return body

    def x_axis(self, ticks: Sequence[float]) -> list[str]:
        return self._x_axis([(self.x(tick), format_number(tick)) for tick in ticks])

    def edge_axis(self, edges: Sequence[float]) -> list[str]:
        """Named edges of even bins: the last one, and of the others as many as fit: every second, fourth, ..."""
        names = [format_number(edge) for edge in edges]
        room = (self.right - self.left) / max(len(edges) - 1, 1)
        widest = CHARACTER * max(len(name) for name in names) + 8
        step = 1
        while step * room < widest:
            step *= 2
        last = len(names) - 1
        shown = [index for index in range(0, last, step) if (last - index) * room >= widest]
        return self._x_axis([(self.x(index), names[index]) for index in (*shown, last)])

    def _x_axis(self, ticks: Sequence[tuple[float, str]]) -> list[str]:
        body = [f'<path class="axis" d="M{self.left:.1f} {self.bottom:.1f}H{self.right:.1f}"/>']
        for x, name in ticks:
            body.append(f'<path class="axis" d="M{x:.1f} {self.bottom:.1f}v4"/>')
            body.append(f'<text x="{x:.1f}" y="{self.bottom + 16:.1f}" {_CENTRED}>{name}</text>')
        middle = (self.left + self.right) / 2
        label = _text(self.x_label)
        body.append(f'<text x="{middle:.1f}" y="{self.height - 6:.1f}" {_CENTRED}>{label}</text>')
        return body


def _column(frame: _Frame, left: float, right: float, count: float, css: str) -> str:
    tall = _visible(frame.bottom - frame.y(count), count)
    gap = min(1.0, (right - left) / 4)
    return (
        f'<rect class="{css}" x="{left + gap / 2:.2f}" y="{frame.bottom - tall:.2f}" '
        f'width="{right - left - gap:.2f}" height="{tall:.2f}"/>'
    )


def _line_class(index: int, *, is_faint: bool = False) -> str:
    return f"l{index % len(DASHES)}{' faint' if is_faint else ''}"


def _stroke(css: str) -> str:
    """The attributes of a line of a class such as `l1`: its colour, and its dashes unless it is faint."""
    dash = "" if css.endswith(" faint") else DASHES[int(css[1:])]
    return f'class="line {css}"' + (f' stroke-dasharray="{dash}"' if dash else "")


def _polyline(frame: _Frame, css: str, name: str, points: Sequence[tuple[float, float]]) -> list[str]:
    path = "L".join(f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in points)
    body = [f'<path {_stroke(css)} d="M{path}"/>'] if len(points) > 1 else []
    radius = 2.0 if len(points) > 1 else 4.0
    for x, y in points:
        label = f"{name}: {format_number(y)} {frame.y_label} at {format_number(x)} ({frame.x_label})"
        body.append(
            f'<circle class="line {css}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="{radius}" '
            f'pointer-events="all" opacity="{0 if len(points) > 1 else 1}">'
            f"<title>{_text(label)}</title></circle>"
        )
    return body


class _Legend:
    """Lines or boxes with their names over a drawing, in as many lines of text as they need."""

    def __init__(self, entries: Sequence[tuple[str, str]]) -> None:
        self.body: list[str] = []
        self.num_lines = 1 if entries else 0
        x = LEGEND_LEFT
        for css, name in entries:
            shown = _shorten(name, WIDTH - LEGEND_LEFT - 20)
            width = 20 + CHARACTER * len(shown)
            if x > LEGEND_LEFT and x + width > WIDTH:
                x, self.num_lines = LEGEND_LEFT, self.num_lines + 1
            down = LEGEND_LINE * (self.num_lines - 1)
            if css.startswith("l"):
                self.body.append(f'<path {_stroke(css)} d="M{x:.1f} {11 + down:.0f}h16"/>')
            else:
                self.body.append(
                    f'<rect class="{css}" x="{x + 4:.1f}" y="{6 + down:.0f}" width="10" height="10"/>'
                )
            self.body.append(f'<text x="{x + 20:.1f}" y="{15 + down:.0f}">{_text(shown)}</text>')
            x += width + 12


def _visible(length: float, value: float) -> float:
    return max(length, SHORTEST_MARK) if value > 0 else 0.0


def _value_and_share(value: float, total: float) -> str:
    number = f"{value:,.0f}" if value == int(value) else format_number(value)
    return f"{number} ({value / total:.1%})" if total > 0 else number


def _shorten(text: str, room: float) -> str:
    """The text, cut where it is wider than `room`."""
    most = max(int(room / CHARACTER), 2)
    return text if len(text) <= most else text[: most - 1] + "…"


def printable(text: str) -> str:
    """The text with U+FFFD for each character that HTML and XML have no place for."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _text(text: str) -> str:
    return escape(printable(text))


def _svg(title: str, body: Sequence[str], *, height: float = HEIGHT) -> str:
    return (
        f'<svg class="chart" role="img" xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {WIDTH:.0f} {height:.0f}">'
        f"<title>{_text(title)}</title>{''.join(body)}</svg>"
    )
