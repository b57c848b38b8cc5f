"""One HTML file about an evaluation: metrics with intervals, curves, confusions, groups, the worst rows.

Texts are in it only where the evaluation was told to show them.

Axes: N rows, C classes or labels.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from assay import charts, metrics
from assay.data.storage import replace_file
from assay.errors import InputError
from assay.evaluate.bootstrap import PLAIN_ROWS
from assay.evaluate.definitions import DEFINITIONS
from assay.evaluate.draws import ROUNDS
from assay.evaluate.findings import (
    Evaluated,
    EvaluateReport,
    confusion,
    difference_cells,
    difference_header,
    format_interval,
    format_metric,
    to_json_text,
)
from assay.evaluate.measure import EvaluatedRows, Metric, Part
from assay.metrics import TITLES, format_value
from assay.pages import (
    Facts,
    Figure,
    Section,
    Table,
    confusion_section,
    regression_section,
    reliability_figure,
    render_page,
)
from assay.tasks import Task

CURVE_POINTS = 120
"""Points of a precision-recall curve."""
SCORE_BINS = 25
SHOWN_LABELS = 5
"""Labels with a curve each, the most frequent first."""
LISTED_LABELS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class _EvaluationPage:
    """What the template shows, ready as text."""

    title: str
    subtitle: str
    highlights: Facts
    warnings: tuple[str, ...]
    sections: list[Section]
    meaning: Section
    """Opens `definitions`, the words on each metric shown."""
    definitions: Facts
    made: Section
    created: str


def write_report(report: EvaluateReport, out: str) -> None:
    """Writes the page (.html) or the JSON (.json) in one step, to a local path or an object URL."""
    content = (
        to_json_text(report).encode() if out.endswith(".json") else render_page("evaluate", _page(report))
    )
    replace_file(out, content)


def _page(report: EvaluateReport) -> _EvaluationPage:
    evaluated, settings = report.bundle, report.settings
    against = f" against {', '.join(each.name for each in report.others)}" if report.others else ""
    groups = "" if report.num_groups is None else f" of {report.num_groups:,} groups"
    return _EvaluationPage(
        title=f"{evaluated.name}{against}, evaluated",
        subtitle=f"{report.num_rows:,} rows{groups} from {', '.join(Path(each).name for each in settings.data)}",
        highlights=_highlights(report),
        warnings=report.warnings,
        sections=_sections(report),
        meaning=Section(title="What the numbers are", note=_intervals(report)),
        definitions=[(TITLES[name], DEFINITIONS[name]) for name in report.metrics],
        made=Section(title="How they were made", facts=_made(report)),
        created=report.created,
    )


def _highlights(report: EvaluateReport) -> Facts:
    names = [name for name in report.bundle.task.shown_metrics if name in report.metrics]
    found = [(TITLES[name], format_metric(report.metrics[name])) for name in names]
    return [("rows", f"{report.num_rows:,}"), *found]


def _part(report: EvaluateReport, part: Part) -> list[Section]:
    """The metrics of every bundle beside each other, then the differences to each of the others."""
    interval = f"{100 * report.settings.confidence:.4g}% interval"
    header = ["metric", report.bundle.name if report.others else "value", interval]
    for other in report.others:
        header += [other.name, interval]
    rows = []
    for name, metric in part.metrics.items():
        title = TITLES[name]
        if metric.value is None:
            title += f": undefined ({metric.undefined})"
        row = [title, format_metric(metric), _interval(metric)]
        for compared in part.others:
            theirs = compared.metrics.get(name)
            row += ["-", "-"] if theirs is None else [format_metric(theirs), _interval(theirs)]
        rows.append(tuple(row))
    note = f"{part.num_rows:,} rows."
    if report.positive_label is not None:
        note += f" Precision, recall, F1, AUC and average precision are of {report.positive_label}."
    found = [Section(title=f"Metrics: {part.name}", note=note, table=Table(header=tuple(header), rows=rows))]
    for other, compared in zip(report.others, part.others, strict=True):
        table = Table(
            header=("metric", *difference_header(report.settings.confidence)),
            rows=[(TITLES[name], *difference_cells(each)) for name, each in compared.differences.items()],
        )
        title = f"{report.bundle.name} less {other.name}: {part.name}"
        found.append(Section(title=title, note=f"The same {part.num_rows:,} rows for both.", table=table))
    return found


def _interval(metric: Metric) -> str:
    why = metric.interval.undefined
    return format_interval(metric) if why is None or metric.value is None else f"none: {why}"


def _sections(report: EvaluateReport) -> list[Section]:
    evaluated = report.bundle
    outcome = evaluated.outcome
    parts = [section for part in report.parts for section in _part(report, part)]
    if evaluated.task is Task.REGRESSION:
        curves = [regression_section("Rows", outcome.outputs_NC[:, 0], outcome.targets)]
    else:
        curves = [
            _calibration(report),
            _ranking(report),
            Section(title="By label", table=_by_label(evaluated)),
        ]
    return [*parts, *curves, *_confusion(evaluated), *_slices(report), *_worst(report)]


# ---------------------------------------------------------------- classifiers


def _calibration(report: EvaluateReport) -> Section:
    """Reliability of every bundle, beside each other."""
    if not report.others:
        caption = (
            "Reliability, 15 bins of about as many rows each: on the dashed line probabilities are honest"
        )
        figures = [_reliability(report.bundle, caption)]
        return Section(title="Calibration", note=_calibration_note(report.bundle), figures=figures)
    bundles = (report.bundle, *report.others)
    return Section(
        title="Calibration",
        note=(
            "15 bins of about as many rows each: on the dashed line probabilities are honest. "
            + " ".join(f"{each.name}: {_calibration_note(each)}" for each in bundles)
        ),
        figures=[_reliability(each, f"Reliability of {each.name}") for each in bundles],
    )


def _reliability(evaluated: Evaluated, caption: str) -> Figure:
    outcome = evaluated.outcome
    before = outcome.before_calibration().reliability() if evaluated.before else ()
    return reliability_figure(
        caption,
        [(each.confidence, each.accuracy, each.num_rows) for each in outcome.reliability()],
        before=[(each.confidence, each.accuracy) for each in before],
        of_what="decision" if outcome.task is Task.MULTI_LABEL else "predicted label",
    )


def _calibration_note(evaluated: Evaluated) -> str:
    if not evaluated.before:
        return "The bundle is not calibrated: probabilities are the model's own."
    changes = [
        f"{TITLES[name]} {format_value(value)} before, {format_value(evaluated.after[name])} after"
        for name, value in evaluated.before.items()
    ]
    return f"Calibrated by {evaluated.calibration}: {'; '.join(changes)}."


def _ranking(report: EvaluateReport) -> Section:
    """Precision-recall curves and histograms of the probabilities, of the first bundle's most frequent labels."""
    evaluated = report.bundle
    outcome = evaluated.outcome
    shown = _shown_labels(evaluated)
    lines = []
    for index in shown:
        positive = _is_label(outcome, index)
        try:
            curve = metrics.precision_recall_curve(positive, outcome.outputs_NC[:, index])
        except InputError:
            continue
        at = np.unique(np.linspace(0, curve.recall.size - 1, CURVE_POINTS).astype(np.int64))
        lines.append(
            charts.Line(
                name=evaluated.labels[index],
                x=[0.0, *curve.recall[at].tolist()],
                y=[float(curve.precision[0]), *curve.precision[at].tolist()],
            )
        )
    caption = "Precision at each recall"
    figures = []
    if lines:
        svg = charts.line_chart(caption, lines, x_label="recall", y_label="precision", y_range=(0.0, 1.0))
        figures.append(Figure(caption=caption, svg=svg))
    figures += [_histogram(evaluated, index) for index in shown]
    note = f"Of {evaluated.name}, as all that follows. " if report.others else ""
    if len(evaluated.labels) > max(len(shown), 2):
        note += f"The {len(shown)} most frequent of {len(evaluated.labels):,} labels."
    return Section(title="Ranking and probabilities", note=note, figures=figures)


def _shown_labels(evaluated: Evaluated) -> list[int]:
    outcome = evaluated.outcome
    if outcome.task is Task.SINGLE_LABEL and len(evaluated.labels) == 2:
        return [1]
    counts = np.array([_is_label(outcome, index).sum() for index in range(len(evaluated.labels))])
    return sorted(np.argsort(-counts, kind="stable")[:SHOWN_LABELS].tolist())


def _is_label(outcome: EvaluatedRows, index: int) -> metrics.IntArray:
    targets = outcome.targets
    found: metrics.IntArray = (targets[:, index] > 0 if targets.ndim == 2 else targets == index).astype(
        np.int64
    )
    return found


def _histogram(evaluated: Evaluated, index: int) -> Figure:
    """The probability of a label, of rows that carry it and of others."""
    outcome, label = evaluated.outcome, evaluated.labels[index]
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    holds = _is_label(outcome, index) > 0
    is_binary = outcome.task is Task.SINGLE_LABEL and len(evaluated.labels) == 2
    names = [label, evaluated.labels[0] if is_binary else "others"]
    counts = [np.histogram(outcome.outputs_NC[rows, index], edges)[0] for rows in (holds, ~holds)]
    shares = [each / max(int(each.sum()), 1) for each in counts]
    caption = f"Probability of {label}, by what is true"
    svg = charts.steps_chart(
        caption,
        edges.tolist(),
        [(name, share.tolist()) for name, share in zip(names, shares, strict=True)],
        x_label="probability",
        y_label="share of the rows",
    )
    rows = [
        (f"{low:.2f} to {high:.2f}", f"{one:,}", f"{other:,}")
        for (low, high), one, other in zip(pairwise(edges), *counts, strict=True)
    ]
    return Figure(caption=caption, svg=svg, table=Table(header=("probability", *names), rows=rows))


def _by_label(evaluated: Evaluated) -> Table:
    names = list(next(iter(evaluated.by_label.values())))
    counts = ("rows", "predicted")
    thresholds = evaluated.thresholds
    rows = []
    for label, values in list(evaluated.by_label.items())[:LISTED_LABELS]:
        cells = [
            "undefined"
            if isinstance(value, str)
            else f"{value:,.0f}"
            if name in counts
            else format_value(value)
            for name, value in values.items()
        ]
        if thresholds:
            cells.insert(0, format_value(thresholds[label]) if label in thresholds else "-")
        rows.append((label, *cells))
    header = [name if name in counts else TITLES[name] for name in names]
    if thresholds:
        header.insert(0, "threshold")
    return Table(header=("label", *(title.replace(", equal width", "") for title in header)), rows=rows)


def _confusion(evaluated: Evaluated) -> list[Section]:
    matrix = confusion(evaluated.outcome)
    if matrix is None:
        return []
    labels = evaluated.labels
    if evaluated.outcome.int_score is not None:
        low, high = evaluated.outcome.int_score
        labels = tuple(str(score) for score in range(low, high + 1))
    return [confusion_section("Rows", labels, matrix)]


# ---------------------------------------------------------------- groups, the worst rows, how it was made


def _slices(report: EvaluateReport) -> list[Section]:
    if not report.slices:
        return []
    names = report.bundle.task.group_metrics
    rows = []
    for part in report.slices:
        cells = []
        for name in names:
            metric = part.metrics[name]
            cells += [format_metric(metric), format_interval(metric)]
        rows.append((part.name, f"{part.num_rows:,}", *cells))
    header = ["group", "rows"]
    for name in names:
        header += [TITLES[name], "interval"]
    note = "Intervals draw the rows of a group."
    if report.drawn == "groups of both sides":
        note = "Intervals draw groups of both sides, as above."
    if report.num_slices_left_out:
        note = f"The {len(report.slices)} largest of {len(report.slices) + report.num_slices_left_out:,} groups. {note}"
    return [Section(title="Groups", note=note, table=Table(header=tuple(header), rows=rows))]


def _worst(report: EvaluateReport) -> list[Section]:
    worst = report.bundle.worst
    if not worst:
        return []
    is_regression = report.bundle.task is Task.REGRESSION
    header = ["row", "true", "predicted", "absolute error" if is_regression else "NLL"]
    has_texts = report.settings.show_texts
    rows = []
    for each in worst:
        row = [
            each.id if each.id is not None else str(each.row),
            each.truth,
            each.predicted,
            f"{each.loss:.3f}",
        ]
        rows.append(tuple([*row, each.text or ""] if has_texts else row))
    note = "" if has_texts else "Texts may be private: --show-texts puts their beginnings here."
    header += ["text"] if has_texts else []
    table = Table(header=tuple(header), rows=rows, numeric_from=len(header), is_wide=has_texts)
    return [Section(title="Judged worst", note=note, table=table)]


def _intervals(report: EvaluateReport) -> str:
    settings = report.settings
    if not settings.resamples:
        return "No intervals were asked for."
    method = {"bca": "BCa (Efron 1987)", "percentile": "percentile"}[settings.interval]
    drawn = {
        "groups": "whole groups",
        "groups of both sides": "groups, a pair being there as often as its two groups together",
    }.get(report.drawn, "rows")
    text = (
        f"Intervals: {100 * settings.confidence:.4g}%, {method} bootstrap of {settings.resamples:,} resamples"
        f" that draw {drawn}, seed {settings.seed}."
    )
    if report.num_blocks is not None:
        text += (
            f" Of more than {PLAIN_ROWS:,} rows resamples draw {report.num_blocks:,} random blocks of them, dealt"
            f" {ROUNDS} times; widths are those of drawing each by itself, within a few percent."
        )
    if report.others:
        text += (
            " Differences draw the same rows for all bundles; p is two-sided, of the same intervals (one less the"
            " confidence that just holds 0) or, for accuracy of independent rows, of McNemar's exact test. It is"
            " not corrected for how many are shown."
        )
    return text


def _made(report: EvaluateReport) -> Facts:
    facts: Facts = [("data", ", ".join(report.settings.data))]
    bundles = [("bundle", report.bundle), *(("other bundle", each) for each in report.others)]
    for name, each in bundles:
        facts += [
            (name, str(each.path)),
            ("its fingerprint", each.fingerprint),
            ("its engine", each.engine),
            ("its calibration", each.calibration),
            ("most tokens of a text", f"{each.max_length:,}"),
            (
                "texts that were cut",
                f"{each.num_truncated:,} of {report.num_rows + report.num_rows_left_out:,}",
            ),
            ("seconds, loading included", f"{each.seconds:.1f}"),
        ]
    return facts
