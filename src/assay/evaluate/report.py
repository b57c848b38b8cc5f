"""One HTML file about an evaluation: metrics with intervals, curves, confusions, groups, the worst rows.

The file stands alone: no scripts, no network, light and dark, wide and narrow. Texts are in it only
where the evaluation was told to show them.

Axes: N rows, C classes or labels.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from assay import charts, metrics
from assay.data.storage import replace_file
from assay.errors import InputError
from assay.evaluate.definitions import DEFINITIONS
from assay.evaluate.findings import (
    SLICE_METRICS,
    Evaluated,
    EvaluateReport,
    confusion,
    format_interval,
    format_p,
    format_value,
    reliability,
    to_json_text,
)
from assay.evaluate.measure import Metric, Outcome, Part
from assay.pages import Table, render_page

CURVE_POINTS = 120
"""Points of a precision-recall curve."""
SCORE_BINS = 25
DOTS = 1_200
"""Dots of a scatter plot, evenly spread over the rows."""
SHOWN_LABELS = 5
"""Labels with a curve each, the most frequent first."""
CONFUSION_LABELS = 20
"""Labels up to which the confusion matrix is drawn."""
LISTED_LABELS = 100
LISTED_CONFUSIONS = 20
HIGHLIGHTS = {
    "single_label": ("accuracy", "macro_f1", "auc", "nll", "ece"),
    "multi_label": ("macro_f1", "micro_f1", "auc", "nll", "ece"),
    "regression": ("mae", "rmse", "spearman", "int_macro_f1", "coverage"),
}

Facts = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Figure:
    """A chart with its caption, and its figures as a table."""

    caption: str
    svg: str
    table: Table | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _PartTable:
    """The metrics of some of the rows."""

    name: str
    note: str
    table: Table


@dataclass(frozen=True, kw_only=True, slots=True)
class _Section:
    """A heading with figures, a table, or both."""

    title: str
    note: str = ""
    figures: list[_Figure] = field(default_factory=list)
    table: Table | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Page:
    """What the template shows, ready as text."""

    title: str
    subtitle: str
    highlights: Facts
    warnings: tuple[str, ...]
    parts: list[_PartTable]
    sections: list[_Section]
    intervals: str
    definitions: Facts
    made: Facts
    version: str
    created: str
    chart_style: str = charts.STYLE


def write_report(report: EvaluateReport, out: str) -> None:
    """Writes the page (.html) or the JSON (.json) in one step, to a local path or an object URL."""
    content = (
        to_json_text(report).encode()
        if out.endswith(".json")
        else render_page("assay.evaluate", _page(report))
    )
    replace_file(out, content)


def _page(report: EvaluateReport) -> _Page:
    evaluated, settings = report.bundle, report.settings
    against = "" if report.against is None else f" against {report.against.path.name}"
    groups = "" if report.num_groups is None else f" of {report.num_groups:,} groups"
    return _Page(
        title=f"{evaluated.path.name}{against}, evaluated",
        subtitle=f"{report.num_rows:,} rows{groups} from {', '.join(Path(each).name for each in settings.data)}",
        highlights=_highlights(report),
        warnings=report.warnings,
        parts=[_part(report, part) for part in report.parts],
        sections=[section for section in _sections(report) if section.figures or section.table],
        intervals=_intervals(report),
        definitions=[(DEFINITIONS[name].title, DEFINITIONS[name].text) for name in report.metrics],
        made=_made(report),
        version=report.assay_version,
        created=report.created,
    )


def _highlights(report: EvaluateReport) -> Facts:
    names = [name for name in HIGHLIGHTS[report.bundle.task] if name in report.metrics]
    found = [(DEFINITIONS[name].title, _value(report.metrics[name])) for name in names]
    return [("rows", f"{report.num_rows:,}"), *found]


def _value(metric: Metric) -> str:
    return "undefined" if metric.value is None else format_value(metric.value)


def _part(report: EvaluateReport, part: Part) -> _PartTable:
    header = ["metric", "value", f"{100 * report.settings.confidence:.4g}% interval"]
    if part.against is not None:
        header += ["other bundle", "difference", "interval of the difference", "p"]
    rows = []
    for name, metric in part.metrics.items():
        title = DEFINITIONS[name].title
        if metric.value is None:
            title += f": undefined ({metric.undefined})"
        row = [title, _value(metric), _interval(metric)]
        if part.against is not None and part.differences is not None and name in part.differences:
            difference = part.differences[name]
            row += [
                _value(part.against[name]),
                "-" if difference.value is None else f"{difference.value:+.4f}",
                format_interval(difference),
                format_p(difference.p_value) + (" (McNemar)" if difference.test == "mcnemar" else ""),
            ]
        rows.append(tuple(row))
    note = f"{part.num_rows:,} rows."
    if report.positive_label is not None:
        note += f" Precision, recall, F1, AUC and average precision are of {report.positive_label}."
    return _PartTable(name=part.name, note=note, table=Table(header=tuple(header), rows=rows))


def _interval(metric: Metric) -> str:
    why = metric.interval.undefined
    return format_interval(metric) if why is None or metric.value is None else f"none: {why}"


def _sections(report: EvaluateReport) -> list[_Section]:
    evaluated = report.bundle
    outcome = evaluated.outcome
    if evaluated.task == "regression":
        curves = [_Section(title="Predictions and targets", figures=_regression_figures(outcome))]
    else:
        curves = [
            _Section(
                title="Calibration", note=_calibration_note(evaluated), figures=[_reliability(evaluated)]
            ),
            _ranking(evaluated),
            _Section(title="By label", table=_by_label(evaluated)),
        ]
    return [*curves, _confusion(evaluated), _slices(report), _worst(report)]


# ---------------------------------------------------------------- classifiers


def _reliability(evaluated: Evaluated) -> _Figure:
    outcome = evaluated.outcome
    bins = reliability(outcome)
    before = reliability(outcome.before_calibration()) if evaluated.before else ()
    of_what = "decision" if outcome.task == "multi_label" else "predicted label"
    caption = "Reliability, 15 bins of about as many rows each: on the dashed line probabilities are honest"
    svg = charts.reliability_diagram(
        caption,
        [each.confidence for each in bins],
        [each.accuracy for each in bins],
        [each.num_rows for each in bins],
        before=[(each.confidence, each.accuracy) for each in before],
        x_label=f"mean probability of the {of_what}",
    )
    rows = [(f"{each.confidence:.4f}", f"{each.accuracy:.4f}", f"{each.num_rows:,}") for each in bins]
    table = Table(header=("mean probability", "share right", "rows"), rows=rows, numeric_from=0)
    return _Figure(caption=caption, svg=svg, table=table)


def _calibration_note(evaluated: Evaluated) -> str:
    if not evaluated.before:
        return "The bundle is not calibrated: probabilities are the model's own."
    changes = [
        f"{DEFINITIONS[name].title} {format_value(value)} before, {format_value(evaluated.after[name])} after"
        for name, value in evaluated.before.items()
    ]
    return f"Calibrated by {evaluated.calibration}: {'; '.join(changes)}."


def _ranking(evaluated: Evaluated) -> _Section:
    """Precision-recall curves and histograms of the probabilities, of the most frequent labels."""
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
        svg = charts.line_chart(caption, lines, x_label="recall", y_label="precision")
        figures.append(_Figure(caption=caption, svg=svg))
    figures += [_histogram(evaluated, index) for index in shown]
    note = ""
    if len(evaluated.labels) > max(len(shown), 2):
        note = f"The {len(shown)} most frequent of {len(evaluated.labels):,} labels."
    return _Section(title="Ranking and probabilities", note=note, figures=figures)


def _shown_labels(evaluated: Evaluated) -> list[int]:
    outcome = evaluated.outcome
    if outcome.task == "single_label" and len(evaluated.labels) == 2:
        return [1]
    counts = np.array([_is_label(outcome, index).sum() for index in range(len(evaluated.labels))])
    return sorted(np.argsort(-counts, kind="stable")[:SHOWN_LABELS].tolist())


def _is_label(outcome: Outcome, index: int) -> metrics.IntArray:
    targets = outcome.targets
    found: metrics.IntArray = (targets[:, index] > 0 if targets.ndim == 2 else targets == index).astype(
        np.int64
    )
    return found


def _histogram(evaluated: Evaluated, index: int) -> _Figure:
    """The probability of a label, of rows that carry it and of others."""
    outcome, label = evaluated.outcome, evaluated.labels[index]
    edges = np.linspace(0, 1, SCORE_BINS + 1)
    holds = _is_label(outcome, index) > 0
    is_binary = outcome.task == "single_label" and len(evaluated.labels) == 2
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
    return _Figure(caption=caption, svg=svg, table=Table(header=("probability", *names), rows=rows))


def _by_label(evaluated: Evaluated) -> Table:
    names = list(next(iter(evaluated.by_label.values())))
    titles = {"rows": "rows", "predicted": "predicted"}
    rows = []
    for label, values in list(evaluated.by_label.items())[:LISTED_LABELS]:
        cells = [
            "undefined"
            if isinstance(value, str)
            else f"{value:,.0f}"
            if name in titles
            else format_value(value)
            for name, value in values.items()
        ]
        rows.append((label, *cells))
    header = [titles.get(name) or DEFINITIONS[name].title for name in names]
    return Table(header=("label", *(title.replace(", equal width", "") for title in header)), rows=rows)


def _confusion(evaluated: Evaluated) -> _Section:
    matrix = confusion(evaluated.outcome)
    if matrix is None:
        return _Section(title="Confusion matrix")
    labels = list(evaluated.labels)
    if evaluated.outcome.int_score is not None:
        low, high = evaluated.outcome.int_score
        labels = [str(score) for score in range(low, high + 1)]
    if len(labels) <= CONFUSION_LABELS:
        caption = "Rows by true and predicted label; each cell is as strong as its share of the true label"
        svg = charts.confusion_chart(caption, labels, matrix.tolist())
        return _Section(title="Confusion matrix", figures=[_Figure(caption=caption, svg=svg)])
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong.ravel(), kind="stable")[:LISTED_CONFUSIONS]
    pairs = [(int(at) // len(labels), int(at) % len(labels)) for at in order if wrong.ravel()[at]]
    rows = [
        (
            labels[true],
            labels[said],
            f"{matrix[true, said]:,}",
            f"{matrix[true, said] / matrix[true].sum():.1%}",
        )
        for true, said in pairs
    ]
    table = Table(header=("true", "predicted", "rows", "of the true label"), rows=rows, numeric_from=2)
    return _Section(title="Most frequent confusions", note=f"{len(labels):,} labels.", table=table)


# ---------------------------------------------------------------- regression


def _regression_figures(outcome: Outcome) -> list[_Figure]:
    values, targets = outcome.outputs_NC[:, 0], outcome.targets
    at = np.unique(np.linspace(0, values.size - 1, DOTS).astype(np.int64))
    caption = "Predictions by target; on the dashed line both are equal"
    if at.size < values.size:
        caption += f" ({at.size:,} of {values.size:,} rows)"
    figures = [
        _Figure(
            caption=caption,
            svg=charts.scatter(
                caption, targets[at].tolist(), values[at].tolist(), x_label="target", y_label="prediction"
            ),
        )
    ]
    errors = values - targets
    counts, edges = np.histogram(errors, SCORE_BINS)
    caption = "Rows by error (prediction less target)"
    svg = charts.histogram(caption, edges.tolist(), counts.tolist(), x_label="error", y_label="rows")
    return [*figures, _Figure(caption=caption, svg=svg)]


# ---------------------------------------------------------------- groups, the worst rows, how it was made


def _slices(report: EvaluateReport) -> _Section:
    if not report.slices:
        return _Section(title="Groups")
    names = SLICE_METRICS[report.bundle.task]
    rows = []
    for part in report.slices:
        cells = []
        for name in names:
            metric = part.metrics[name]
            cells += [_value(metric), format_interval(metric)]
        rows.append((part.name, f"{part.num_rows:,}", *cells))
    header = ["group", "rows"]
    for name in names:
        header += [DEFINITIONS[name].title, "interval"]
    note = "Intervals draw the rows of a group."
    if report.num_slices_left_out:
        note = f"The {len(report.slices)} largest of {len(report.slices) + report.num_slices_left_out:,} groups. {note}"
    return _Section(title="Groups", note=note, table=Table(header=tuple(header), rows=rows))


def _worst(report: EvaluateReport) -> _Section:
    worst = report.bundle.worst
    is_regression = report.bundle.task == "regression"
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
    return _Section(
        title="Judged worst",
        note=note,
        table=Table(header=tuple(header), rows=rows, numeric_from=len(header), is_wide=has_texts)
        if rows
        else None,
    )


def _intervals(report: EvaluateReport) -> str:
    settings = report.settings
    if not settings.resamples:
        return "No intervals were asked for."
    method = {"bca": "BCa (Efron 1987)", "percentile": "percentile"}[settings.interval]
    drawn = "whole groups" if report.drawn == "groups" else "rows"
    text = (
        f"Intervals: {100 * settings.confidence:.4g}%, {method} bootstrap of {settings.resamples:,} resamples"
        f" that draw {drawn}, seed {settings.seed}."
    )
    if report.against is not None:
        text += (
            " Differences draw the same rows for both bundles; p is two-sided, of the bootstrap or, for"
            " accuracy of independent rows, of McNemar's exact test. It is not corrected for how many are shown."
        )
    return text


def _made(report: EvaluateReport) -> Facts:
    facts: Facts = [("data", ", ".join(report.settings.data))]
    for name, each in (("bundle", report.bundle), ("other bundle", report.against)):
        if each is None:
            continue
        threshold = "-" if each.threshold is None else str(each.threshold)
        facts += [
            (name, str(each.path)),
            ("its fingerprint", each.fingerprint),
            ("its engine", each.engine),
            ("its calibration", each.calibration),
            ("its threshold", threshold),
            ("tokens at which it cuts", f"{each.max_length:,}"),
            ("texts it cut", f"{each.num_truncated:,} of {report.num_rows:,}"),
            ("seconds, loading included", f"{each.seconds:.1f}"),
        ]
    return facts
