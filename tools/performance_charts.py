"""Bars of measured values as SVG files: one drawing a question, readable in light and dark, ceilings drawn in. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, LABEL, ROW, TOP = 760, 300, 26, 44
"""Pixels: the drawing, its column of names, a bar with its gap, and what is above the first bar."""
ROOM = WIDTH - LABEL - 150
"""Pixels of the longest bar; what is right of it holds its value."""

STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 15px }
.ours { fill: #2563a8 } .other { fill: #9aa4b0 } .quiet { fill: #59636e }
.ceiling { stroke: #b4470f; stroke-width: 2.5 } .one { stroke: #59636e; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .ours { fill: #63a4ee } .other { fill: #6e7781 } .quiet { fill: #9aa4b0 }
  .ceiling { stroke: #f0883e } .one { stroke: #9aa4b0 }
}
</style>"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One bar."""

    label: str
    value: float
    shown: str
    """The value in words, right of the bar."""
    is_ours: bool = True
    """False: what Assay is compared with."""
    ceiling: float | None = None
    """The most that could be had here, in the unit of `value`."""


def bar_drawing(title: str, bars: Sequence[Bar], *, one: str | None = None, ceiling: str = "ceiling") -> str:
    """A drawing of horizontal bars from zero; `one` names a dashed line at 1, for ratios.

    The words `ceiling` explain the marks of those bars that have one.
    """
    longest = max(max(bar.value, bar.ceiling or 0, 1 if one else 0) for bar in bars)
    scale = ROOM / longest
    notes = []
    if one:
        notes.append(f"dashed line: {one}")
    if any(bar.ceiling is not None for bar in bars):
        notes.append(f"thick mark: {ceiling}")
    height = TOP + ROW * len(bars) + (24 if notes else 6)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">',
        f"<title>{escape(title)}</title>",
        STYLE,
        f'<text class="title" x="8" y="22">{escape(title)}</text>',
    ]
    for index, bar in enumerate(bars):
        top = TOP + ROW * index
        length = bar.value * scale
        css = "ours" if bar.is_ours else "other"
        lines.append(f'<text x="{LABEL - 8}" y="{top + 14}" text-anchor="end">{escape(bar.label)}</text>')
        lines.append(f'<rect class="{css}" x="{LABEL}" y="{top}" width="{length:.1f}" height="18" rx="2"/>')
        end = max(bar.value, bar.ceiling or 0)
        if bar.ceiling is not None:
            x = LABEL + bar.ceiling * scale
            lines.append(f'<line class="ceiling" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 2}" y2="{top + 20}"/>')
        lines.append(f'<text x="{LABEL + end * scale + 8:.1f}" y="{top + 14}">{escape(bar.shown)}</text>')
    if one:
        x, bottom = LABEL + scale, TOP + ROW * len(bars) - 4
        lines.append(f'<line class="one" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}"/>')
    if notes:
        lines.append(f'<text class="quiet" x="8" y="{height - 8}">{escape("; ".join(notes))}</text>')
    return "\n".join([*lines, "</svg>\n"])
