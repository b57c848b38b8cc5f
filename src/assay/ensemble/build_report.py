"""One HTML file about an ensemble of classifiers: members alone, pooled, calibrated, and what more members buy."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from assay import charts
from assay.ensemble.compare_rules import OrderFigures, RuleFigures
from assay.ensemble.measure import Figures, Measured, OtherWay
from assay.ensemble.second_order import SecondOrderFigures
from assay.ensemble.settings import BuildSettings
from assay.evaluate.bootstrap import Interval
from assay.outcome.calibration import Calibration
from assay.pages import Facts, Figure, Section, Table, render_page


@dataclass(frozen=True, kw_only=True, slots=True)
class _BuildPage:
    """What the template shows, ready as text."""

    title: str
    subtitle: str
    highlights: Facts
    warnings: tuple[str, ...]
    sections: list[Section]
    created: str


def render(
    settings: BuildSettings,
    names: Sequence[str],
    measured: Measured,
    other_ways: Sequence[OtherWay],
    rules: Sequence[RuleFigures],
    orders: Sequence[OrderFigures],
    second_order: Sequence[SecondOrderFigures],
    calibration: Calibration | None,
    notes: Sequence[str],
) -> bytes:
    """The page, as UTF-8."""
    first = next(iter(measured.pooled.values))
    final = measured.calibrated or measured.pooled
    alone = [member.values[first] for member in measured.members]
    page = _BuildPage(
        title="An ensemble of classifiers",
        subtitle=f"{settings.rule} of {len(names)} members, {measured.num_rows:,} test rows",
        highlights=[
            *((name, f"{value:.4f}") for name, value in final.values.items()),
            (f"{first} of the members", f"{min(alone):.4f} to {max(alone):.4f}"),
        ],
        warnings=tuple(notes),
        sections=[
            Section(
                title="Members and ensemble",
                note=(
                    "Members are pooled raw; the calibration is of the pooled outputs, fitted once on validation rows."
                    " Intervals of 95% from resamples of the rows. Passes: forward passes of a document, its cost."
                ),
                table=_table(
                    [
                        *measured.members,
                        measured.pooled,
                        *([measured.calibrated] if measured.calibrated else []),
                    ]
                ),
            ),
            Section(
                title="The pooled members less one",
                note="Of the same rows, uncalibrated; the mean member is one drawn by chance.",
                table=_differences(measured),
            ),
            *([_other_ways(other_ways)] if other_ways else []),
            _by_size(measured),
            *([_rules(rules)] if rules else []),
            *([_orders(orders)] if orders else []),
            *([_second_order(second_order)] if second_order else []),
            Section(title="How it was made", facts=_made(settings, measured, calibration)),
        ],
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return render_page("ensemble", page)


def _table(rows: Sequence[Figures]) -> Table:
    metrics = list(rows[0].values)
    return Table(
        header=("model", "passes", *metrics),
        rows=[
            (
                row.name,
                f"{row.num_members:.3g}",
                *(_shown(row.values[name], row.intervals.get(name)) for name in metrics),
            )
            for row in rows
        ],
    )


def _differences(measured: Measured) -> Table:
    metrics = list(measured.differences[0].values)
    return Table(
        header=("less", *metrics),
        rows=[
            (each.against, *(_shown(each.values[name], each.intervals[name]) for name in metrics))
            for each in measured.differences
        ],
    )


def _other_ways(ways: Sequence[OtherWay]) -> Section:
    metrics = list(ways[0].difference.values)
    return Section(
        title="The same cost spent otherwise",
        note=(
            "Uncalibrated, on the same rows. Passes are those of a member: another model counts by its operations a"
            " token. Pairs: means over the choices of so many members."
        ),
        table=Table(
            header=("instead", "passes", *metrics, *(f"pooled less it: {name}" for name in metrics)),
            rows=[
                (
                    row.figures.name,
                    f"{row.figures.num_members:.3g}",
                    *(f"{row.figures.values[name]:.4f}" for name in metrics),
                    *(
                        _shown(row.difference.values[name], row.difference.intervals[name])
                        for name in metrics
                    ),
                )
                for row in ways
            ],
        ),
    )


def _shown(value: float, found: Interval | None) -> str:
    if found is None or found.low is None or found.high is None:
        return f"{value:.4f}"
    return f"{value:.4f} ({found.low:.4f} to {found.high:.4f})"


def _rules(rules: Sequence[RuleFigures]) -> Section:
    return Section(
        title="The same outputs by rule",
        note=(
            "Members pooled raw. A row without a label of its own counts as wrong. any-correct looks at the answers: it"
            " is what no rule without them can pass, and cannot be deployed."
        ),
        table=Table(
            header=("rule", "accuracy", "less that of mean", "AUC", ""),
            rows=[
                (
                    each.rule,
                    "-" if each.accuracy is None else _shown(each.accuracy, each.interval),
                    "-" if each.difference is None else _shown(each.difference, each.difference_interval),
                    "-" if each.auc is None else f"{each.auc:.4f}",
                    each.note,
                )
                for each in rules
            ],
        ),
    )


def _orders(orders: Sequence[OrderFigures]) -> Section:
    return Section(
        title="The order of the two texts",
        note=(
            "Every pair once as it stands and once with its texts swapped, twice the cost. Both: the mean of the"
            " probabilities of the two."
        ),
        table=Table(
            header=("model", "labels that change", "accuracy", "swapped", "both", "both less as it stands"),
            rows=[
                (
                    each.name,
                    _shown(each.changed, each.changed_interval),
                    f"{each.accuracy:.4f}",
                    f"{each.accuracy_swapped:.4f}",
                    f"{each.accuracy_both:.4f}",
                    _shown(each.gain, each.gain_interval),
                )
                for each in orders
            ],
        ),
    )


def _second_order(figures: Sequence[SecondOrderFigures]) -> Section:
    return Section(
        title="The second order where the first does not decide",
        note=(
            "The bundle reads a pair with its texts swapped only where its labels are close; the margin is fitted on"
            " the validation rows. Changed: pairs whose label is not the one that both orders would give, which is the"
            " error that this admits."
        ),
        table=Table(
            header=("rows", "read twice", "changed", "accuracy", "of both orders", "of the first"),
            rows=[
                (
                    each.rows,
                    f"{each.read_twice.accuracy or 0:.2%}",
                    "{:.2%} ({:.2%} to {:.2%})".format(
                        each.changed.accuracy or 0, *(each.changed.interval or (0, 0))
                    ),
                    f"{each.accuracy:.4f}",
                    f"{each.accuracy_both:.4f}",
                    f"{each.accuracy_first:.4f}",
                )
                for each in figures
            ],
        ),
    )


def _by_size(measured: Measured) -> Section:
    sizes = [int(row.num_members) for row in measured.by_size]
    figures = []
    for name in measured.pooled.values:
        caption = f"{name} by the number of members"
        lines = [charts.Line(name=name, x=sizes, y=[row.values[name] for row in measured.by_size])]
        ends = [row.intervals.get(name) for row in measured.by_size]
        if all(each is not None and each.low is not None for each in ends):
            lines += [
                charts.Line(name=side, x=sizes, y=[float(getattr(each, side)) for each in ends])
                for side in ("low", "high")
            ]
        svg = charts.line_chart(
            caption, lines, x_label="members, and so passes a document", y_label=name, from_zero=False
        )
        figures.append(Figure(caption=caption, svg=svg))
    return Section(
        title="What more members buy",
        note="Means over subsets of the members, pooled raw with equal weights; a model alone is 1.",
        figures=figures,
        table=_table(measured.by_size),
        folded="Figures by number of members",
    )


def _made(settings: BuildSettings, measured: Measured, calibration: Calibration | None) -> Facts:
    disagreement = "-" if measured.disagreement is None else f"{measured.disagreement:.2%} of rows"
    return [
        ("bundle", settings.out),
        ("members", ", ".join(settings.member_paths)),
        ("rule", settings.rule),
        *([("offsets of windows", str(settings.offsets))] if settings.offsets > 1 else []),
        ("weights", settings.weights or "equal"),
        ("validation", ", ".join(settings.validation) or "none"),
        ("test", ", ".join(settings.test)),
        ("calibration of the pooled outputs", "none" if calibration is None else calibration.method),
        ("pairs of members disagree on", disagreement),
    ]
