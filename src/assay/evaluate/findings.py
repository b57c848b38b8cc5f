"""What an evaluation found: as values, as JSON, as a table for people.

Axes: N rows, C classes or labels.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from assay import metrics
from assay.evaluate.definitions import DEFINITIONS
from assay.evaluate.measure import Difference, EvaluatedRows, Metric, Part
from assay.evaluate.seen import Seen
from assay.evaluate.settings import EvaluateSettings
from assay.metrics import TITLES, IntArray, format_value
from assay.tasks import TWO_LABELS, Task

FORMAT_VERSION = 1
"""Version of the JSON object."""
TEXT_SLICES = 10
"""Groups in the table for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Worst:
    """A row that the bundle judges worst."""

    row: int
    """Place among the test rows, from 0."""
    id: str | None
    """Its id, where an id column was named."""
    truth: str
    """Its label or target."""
    predicted: str
    """What the bundle says instead."""
    loss: float
    """Negative log-likelihood; a regression's absolute error."""
    text: str | None
    """The beginning of its text, where texts may be shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """A bundle and all that was found out about it."""

    path: Path
    fingerprint: str
    task: Task
    labels: tuple[str, ...]
    calibration: str
    """Method of the calibration, or `none`."""
    thresholds: Mapping[str, float]
    """Each label with the probability from which on it is decided to hold; {} where the likeliest is predicted."""
    max_length: int
    """Tokens at which texts were cut."""
    notes: tuple[str, ...]
    """What its user should hear: of the bundle itself, and where its calibration was fitted on texts cut otherwise."""
    engine: str
    seconds: float
    """Time of tokenizing and forward passes."""
    num_tokens: int
    num_truncated: int
    outcome: EvaluatedRows
    """Every row's outputs and targets."""
    before: Mapping[str, float]
    """NLL, Brier and ECE of the probabilities before calibration; {} where there is none."""
    after: Mapping[str, float]
    """The same of the calibrated probabilities."""
    by_label: Mapping[str, Mapping[str, float | str]]
    """Metrics of each label against the rest, by label; a text says why one is undefined."""
    worst: tuple[Worst, ...]
    """The rows judged worst, the worst first."""
    seen: Seen
    """Rows that were seen when it was made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateReport:
    """What an evaluation found."""

    settings: EvaluateSettings
    num_rows: int
    num_groups: int | None
    """Groups of the rows; `None` without a group column."""
    drawn: str
    """What intervals draw: `rows` or `groups`."""
    bundle: Evaluated
    against: Evaluated | None
    parts: tuple[Part, ...]
    """All rows first, then those that training has not seen, where it has seen some."""
    slices: tuple[Part, ...]
    """Each group's rows, the largest first."""
    num_slices_left_out: int
    """Groups beyond the largest 50."""
    warnings: tuple[str, ...]
    """What a reader must know before quoting a number, a sentence each."""
    assay_version: str
    created: str
    """When, ISO 8601 with time zone."""
    out: str | None
    """The file that was written."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The bundle's metrics on all rows."""
        return self.parts[0].metrics

    @property
    def positive_label(self) -> str | None:
        """The label that precision and AUC speak of: the second of two; `None` for other bundles."""
        labels = self.bundle.labels
        return labels[1] if self.bundle.task is Task.SINGLE_LABEL and len(labels) == TWO_LABELS else None

    def to_json(self) -> dict[str, object]:
        """All figures as plain JSON values; an undefined one is null, with the reason beside it."""
        settings = asdict(self.settings)
        return {
            "format_version": FORMAT_VERSION,
            "assay_version": self.assay_version,
            "created": self.created,
            "num_rows": self.num_rows,
            "num_groups": self.num_groups,
            "positive_label": self.positive_label,
            "intervals": {
                "confidence": self.settings.confidence,
                "method": self.settings.interval,
                "resamples": self.settings.resamples,
                "drawn": self.drawn,
                "seed": self.settings.seed,
            },
            "warnings": list(self.warnings),
            "parts": [_part_json(part) for part in self.parts],
            "groups": [_part_json(part) for part in self.slices],
            "num_groups_left_out": self.num_slices_left_out,
            "bundle": _evaluated_json(self.bundle),
            "against": None if self.against is None else _evaluated_json(self.against),
            "definitions": {name: DEFINITIONS[name] for name in self.metrics},
            "settings": {name: settings[name] for name in sorted(settings)},
        }

    def __str__(self) -> str:
        """A table for people: each metric with its interval, then what must be known of it."""
        both = "" if self.against is None else f", against {self.against.path.name}"
        lines = [f"{self.bundle.path.name}{both}: {self.num_rows:,} rows in {self.bundle.seconds:.1f} s"]
        if self.positive_label is not None:
            lines[0] += f"; precision, recall, F1, AUC and average precision are of {self.positive_label!r}"
        for part in self.parts:
            lines += ["", f"{part.name} ({part.num_rows:,})", *_table(part, self.settings.confidence)]
        if self.slices:
            names = self.bundle.task.group_metrics
            lines += ["", *_slice_lines(self.slices[:TEXT_SLICES], names)]
            if len(self.slices) + self.num_slices_left_out > TEXT_SLICES:
                lines.append(
                    f"{len(self.slices) + self.num_slices_left_out - TEXT_SLICES:,} groups more: --json"
                )
        lines += [""] if self.warnings else []
        lines += [f"note: {warning}" for warning in self.warnings]
        if self.out is not None:
            lines.append(f"wrote {self.out}")
        return "\n".join(lines)


def to_json_text(report: EvaluateReport) -> str:
    """All figures as one JSON object; never NaN."""
    return json.dumps(report.to_json(), allow_nan=False, ensure_ascii=False)


def confusion(outcome: EvaluatedRows) -> IntArray | None:
    """Rows by true and predicted label [C, C], or whole score; `None` where there are neither."""
    if outcome.task is Task.SINGLE_LABEL:
        return metrics.confusion_matrix(
            outcome.targets.astype(np.int64), outcome.predicted, outcome.outputs_NC.shape[1]
        )
    if outcome.task is Task.REGRESSION and outcome.int_score is not None:
        low, high = outcome.int_score
        true, said = (
            metrics.whole_scores(values, low, high) - low
            for values in (outcome.targets, outcome.outputs_NC[:, 0])
        )
        return metrics.confusion_matrix(true, said, high - low + 1)
    return None


def format_interval(metric: Metric | Difference) -> str:
    """`0.9012 to 0.9345`, or a dash where there is none."""
    low, high = metric.interval.low, metric.interval.high
    return "-" if low is None or high is None else f"{format_value(low)} to {format_value(high)}"


def format_metric(metric: Metric) -> str:
    """The number, or that it is undefined."""
    return "undefined" if metric.value is None else format_value(metric.value)


def difference_cells(other: Metric, difference: Difference) -> list[str]:
    """The cells of a metric of the other bundle: value, difference, its interval, p and the test where it is exact."""
    return [
        format_metric(other),
        "-" if difference.value is None else f"{difference.value:+.4f}",
        format_interval(difference),
        _format_p(difference.p_value) + (" (McNemar)" if difference.test == "mcnemar" else ""),
    ]


def _format_p(p_value: float | None) -> str:
    """`0.034`; a dash where there is none."""
    if p_value is None:
        return "-"
    return f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"


def _table(part: Part, confidence: float) -> list[str]:
    header = ["", "value", f"{100 * confidence:.4g}% interval"]
    if part.against is not None:
        header += ["other", "difference", "its interval", "p"]
    rows = [header]
    reasons = []
    for name, metric in part.metrics.items():
        if metric.value is None:
            reasons.append(f"  {TITLES[name]}: undefined ({metric.undefined})")
            continue
        row = [TITLES[name], format_value(metric.value), format_interval(metric)]
        if part.against is not None and part.differences is not None and name in part.differences:
            row += difference_cells(part.against[name], part.differences[name])
        rows.append(row)
    return _aligned(rows) + reasons


def _slice_lines(slices: Sequence[Part], names: Sequence[str]) -> list[str]:
    rows = [
        [part.name, f"{part.num_rows:,}", *(format_metric(part.metrics[name]) for name in names)]
        for part in slices
    ]
    return _aligned([["group", "rows", *(TITLES[name] for name in names)], *rows])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, figures to the right."""
    widths = [max(len(row[at]) for row in rows if at < len(row)) for at in range(max(map(len, rows)))]
    return [
        "  "
        + "  ".join(
            cell.ljust(widths[at]) if at == 0 else cell.rjust(widths[at]) for at, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]


# ---------------------------------------------------------------- JSON


def _part_json(part: Part) -> dict[str, object]:
    found: dict[str, object] = {
        "name": part.name,
        "num_rows": part.num_rows,
        "metrics": {name: _metric_json(metric) for name, metric in part.metrics.items()},
    }
    if part.against is not None and part.differences is not None:
        found["against"] = {name: _metric_json(metric) for name, metric in part.against.items()}
        found["differences"] = {
            name: {"value": each.value, **_interval_json(each), "p_value": each.p_value, "test": each.test}
            for name, each in part.differences.items()
        }
    return found


def _metric_json(metric: Metric) -> dict[str, object]:
    if metric.value is None:
        return {"value": None, "undefined": metric.undefined}
    return {"value": metric.value, **_interval_json(metric)}


def _interval_json(metric: Metric | Difference) -> dict[str, object]:
    if metric.interval.undefined is not None:
        return {"low": None, "high": None, "no_interval": metric.interval.undefined}
    return {"low": metric.interval.low, "high": metric.interval.high}


def _evaluated_json(evaluated: Evaluated) -> dict[str, object]:
    outcome = evaluated.outcome
    matrix = confusion(outcome)
    is_classifier = evaluated.task.is_classifier
    bins = outcome.reliability() if is_classifier else ()
    seen = evaluated.seen
    return {
        "path": str(evaluated.path),
        "fingerprint": evaluated.fingerprint,
        "task": evaluated.task,
        "labels": list(evaluated.labels),
        "calibration": evaluated.calibration,
        "thresholds": dict(evaluated.thresholds),
        "max_length": evaluated.max_length,
        "engine": evaluated.engine,
        "seconds": round(evaluated.seconds, 3),
        "num_tokens": evaluated.num_tokens,
        "num_truncated": evaluated.num_truncated,
        "seen_before": {
            "is_known": seen.is_known,
            "num_rows": int(seen.row_N.sum()),
            "by": {kind: dict(counts) for kind, counts in seen.counts.items()},
        },
        "before_calibration": dict(evaluated.before),
        "by_label": {
            label: {
                name: {"value": None, "undefined": value} if isinstance(value, str) else value
                for name, value in values.items()
            }
            for label, values in evaluated.by_label.items()
        },
        "confusion": None if matrix is None else matrix.tolist(),
        "reliability": [asdict(each) for each in bins],
        "worst": [asdict(each) for each in evaluated.worst],
    }
