"""What the pages of the rooms are made of, and one HTML file from a page and the template of a room.

The file stands alone: no scripts, no network, light and dark, wide and narrow. Figures and sections
that more than one room shows are here too. Axes: N rows, C labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import jinja2
import numpy as np
from numpy.typing import NDArray

from assay import charts
from assay._version import __version__

Facts = list[tuple[str, str]]
"""Names and values, as text."""
DOTS = 1_200
"""Dots of a scatter plot at the most, evenly spread over the rows."""
ERROR_BINS = 25
CONFUSION_LABELS = 20
"""Labels up to which the confusion matrix is drawn."""
LISTED_CONFUSIONS = 20
MOST_NARROW_COLUMNS = 3
"""Columns that fit side by side on the narrowest page, 360 px."""
MOST_NARROW_FIGURES = 24
"""Characters of figures, which are never broken, that fit there beside a label of 6 em."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of text under a header; columns from `numeric_from` on are figures, `is_wide` the last one prose."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numeric_from: int = 1
    is_wide: bool = False

    @property
    def layout(self) -> str:
        """Classes of the element: `cards` for a table that is wider than a phone."""
        figures = range(max(self.numeric_from, 1), len(self.header))
        width = sum(max((len(row[column]) for row in self.rows), default=0) for column in figures)
        is_narrow = len(self.header) <= MOST_NARROW_COLUMNS and width <= MOST_NARROW_FIGURES
        names = {"cards": not is_narrow, "wide": self.is_wide}
        return " ".join(name for name, holds in names.items() if holds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A chart with its caption, and its figures as a table that is shown on demand."""

    caption: str
    svg: str
    table: Table | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A heading with a note, figures, facts and a table, each where there is one."""

    title: str
    note: str = ""
    figures: list[Figure] = field(default_factory=list)
    facts: Facts = field(default_factory=list)
    table: Table | None = None
    folded: str = ""
    """The words behind which the table is folded; empty for one that stands open."""


def render_page(folder: str, page: object) -> bytes:
    """The template `report.html.jinja` of a folder such as `train`, filled with `page`, as UTF-8; values are escaped.

    A name that the page lacks is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("assay", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: charts.printable(value) if type(value) is str else value,
    )
    template = environment.get_template(f"{folder}/report.html.jinja")
    return template.render(page=page, chart_style=charts.STYLE, version=__version__).encode()


def reliability_figure(
    caption: str,
    bins: Sequence[tuple[float, float, int]],
    *,
    before: Sequence[tuple[float, float]] = (),
    of_what: str = "predicted label",
) -> Figure:
    """Confidence, accuracy and rows of each bin, drawn and listed; `before` as `charts.reliability_diagram` says."""
    svg = charts.reliability_diagram(caption, bins, before=before, of_what=of_what)
    rows = [(f"{said:.4f}", f"{was:.4f}", f"{count:,}") for said, was, count in bins]
    table = Table(header=("mean probability", "share right", "rows"), rows=rows, numeric_from=0)
    return Figure(caption=caption, svg=svg, table=table)


def confusion_section(which: str, labels: Sequence[str], matrix: NDArray[np.int64]) -> Section:
    """Counts by true and predicted label [C, C] of the rows that `which` names; of many labels the most confused."""
    if len(labels) <= CONFUSION_LABELS:
        caption = (
            f"{which} by true and predicted label; each cell is as strong as its share of the true label"
        )
        svg = charts.confusion_chart(caption, labels, matrix.tolist())
        return Section(title="Confusion matrix", figures=[Figure(caption=caption, svg=svg)])
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong.ravel(), kind="stable")[:LISTED_CONFUSIONS]
    pairs = [divmod(int(at), len(labels)) for at in order if wrong.ravel()[at]]
    rows = [
        (
            labels[true],
            labels[said],
            f"{(count := matrix[true, said]):,}",
            f"{count / matrix[true].sum():.1%}",
        )
        for true, said in pairs
    ]
    table = Table(header=("true", "predicted", "rows", "of the true label"), rows=rows, numeric_from=2)
    return Section(title="Most frequent confusions", note=f"{len(labels):,} labels.", table=table)


def regression_section(which: str, values_N: NDArray[np.number], targets_N: NDArray[np.number]) -> Section:
    """Predictions by target, a dot a row, and the errors of the rows that `which` names."""
    at = np.unique(np.linspace(0, values_N.size - 1, DOTS).astype(np.int64))
    caption = "Predictions by target; on the dashed line both are equal"
    if at.size < values_N.size:
        caption += f" ({at.size:,} of {values_N.size:,} rows)"
    x, y = targets_N[at].tolist(), values_N[at].tolist()
    dots = charts.scatter(caption, x, y, x_label="target", y_label="prediction")
    counts, edges = np.histogram(values_N.astype(np.float64) - targets_N, ERROR_BINS)
    errors = f"{which} by error (prediction less target)"
    bars = charts.histogram(errors, edges.tolist(), counts.tolist(), x_label="error", y_label="rows")
    figures = [Figure(caption=caption, svg=dots), Figure(caption=errors, svg=bars)]
    return Section(title="Predictions and targets", figures=figures)
