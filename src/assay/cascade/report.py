"""One HTML file about a tuning: what each threshold keeps and costs, and the one that was chosen."""

from dataclasses import dataclass

from assay import charts
from assay.cascade.findings import CascadeReport, Point
from assay.pages import Facts, Figure, Section, Table, render_page


@dataclass(frozen=True, kw_only=True, slots=True)
class _CascadePage:
    """What the template shows, ready as text."""

    title: str
    subtitle: str
    highlights: Facts
    warnings: tuple[str, ...]
    sections: list[Section]
    created: str


def render(report: CascadeReport) -> bytes:
    """The page, as UTF-8."""
    point, settings = report.point, report.settings
    page = _CascadePage(
        title="A cascade, tuned",
        subtitle=f"{report.num_pairs:,} pairs, {report.num_with_label:,} of them {report.cascade.labels[1]}",
        highlights=[
            ("reach the second model", f"{point.share:.1%}"),
            ("recall, at least", f"{point.chosen.recall_bound:.4f}"),
            ("cost over the second alone", f"{point.cost:.1%}"),
            ("AUC", f"{point.auc:.4f}"),
            ("accuracy", f"{point.accuracy:.4f}"),
        ],
        warnings=report.notes,
        sections=[
            Section(
                title="What thresholds keep and cost",
                note=(
                    "Recall: of the pairs with the label, the share that the first model does not turn away; its lower"
                    f" bound holds at confidence {settings.confidence:g}. Cost: seconds of both models over those of"
                    " the second for all pairs, as measured on this machine. Accuracy and AUC are of the whole cascade,"
                    " its combination fitted on other pairs."
                ),
                figures=[_keeps(report), _ranks(report)],
                table=_table(report),
                folded="Figures of these and other thresholds",
            ),
            Section(title="Each model alone", table=_alone(report)),
            Section(title="How it was made", facts=_made(report)),
        ],
        created=report.created,
    )
    return render_page("cascade", page)


def _by_share(report: CascadeReport) -> list[Point]:
    return sorted(report.curve, key=lambda point: point.share)


def _keeps(report: CascadeReport) -> Figure:
    points = _by_share(report)
    shares = [point.share for point in points]
    caption = "Recall by the share of pairs that reach the second model"
    svg = charts.line_chart(
        caption,
        [
            charts.Line(name="recall", x=shares, y=[point.chosen.recall for point in points]),
            charts.Line(name="lower bound", x=shares, y=[point.chosen.recall_bound for point in points]),
        ],
        x_label="share of pairs",
        y_label="recall",
        marks=[charts.Mark(x=report.point.share, text="chosen")],
        y_range=(0.0, 1.0),
    )
    return Figure(caption=caption, svg=svg)


def _ranks(report: CascadeReport) -> Figure:
    points = _by_share(report)
    costs = [point.cost for point in points]
    caption = "AUC and accuracy of the cascade by its cost, over that of the second model alone"
    svg = charts.line_chart(
        caption,
        [
            charts.Line(name="AUC", x=costs, y=[point.auc for point in points]),
            charts.Line(name="accuracy", x=costs, y=[point.accuracy for point in points]),
        ],
        x_label="cost",
        y_label="value",
        marks=[charts.Mark(x=report.point.cost, text="chosen")],
        from_zero=False,
        y_range=(0.0, 1.0),
    )
    return Figure(caption=caption, svg=svg)


def _table(report: CascadeReport) -> Table:
    rows = []
    for which, point in [(" (chosen)", report.point), *(("", each) for each in report.curve)]:
        thresholds = point.chosen.thresholds
        high = [] if thresholds.high is None else [f"{thresholds.high:.4f}"]
        rows.append(
            (
                f"{point.share:.1%}{which}",
                f"{thresholds.low:.4f}",
                *high,
                f"{point.chosen.recall:.4f}",
                f"{point.chosen.recall_bound:.4f}",
                f"{point.cost:.1%}",
                f"{point.accuracy:.4f}",
                f"{point.auc:.4f}",
            )
        )
    high_name = ["accepted above"] if report.settings.two_sided else []
    header = ("reach the second", "turned away below", *high_name)
    return Table(header=(*header, "recall", "lower bound", "cost", "accuracy", "AUC"), rows=rows)


def _alone(report: CascadeReport) -> Table:
    rows = [
        (name, f"{each.pairs_per_second:,.1f}", f"{each.accuracy:.4f}", f"{each.auc:.4f}")
        for name, each in (("first", report.first), ("second", report.second))
    ]
    return Table(header=("model", "pairs a second", "accuracy at 0.5", "AUC"), rows=rows)


def _made(report: CascadeReport) -> Facts:
    settings, combination = report.settings, report.cascade.combination
    facts: Facts = [("data", ", ".join(settings.data))]
    for name, each in (("first", report.first), ("second", report.second)):
        facts += [
            (f"{name} model", f"{each.stage.path} ({each.stage.kind})"),
            ("its fingerprint", each.stage.fingerprint),
        ]
    weights = f"{combination.network:.4g}, {combination.evidence:.4g}, bias {combination.bias:.4g}"
    facts += [
        ("recall asked for", f"{settings.recall:g} at confidence {settings.confidence:g}"),
        ("weights of both models' log-odds", weights),
        ("device", settings.device),
        ("authors", "not given" if report.num_authors is None else f"{report.num_authors:,}"),
    ]
    return facts
