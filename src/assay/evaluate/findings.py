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
from assay.evaluate.measure import EvaluatedRows, Metric, MetricDifference, Part
from assay.evaluate.seen import SeenRows
from assay.evaluate.settings import EvaluateSettings
from assay.metrics import TITLES, IntArray, format_value
from assay.tasks import TWO_LABELS, Task

FORMAT_VERSION = 2
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
    name: str
    """What a report calls it: its folder, with those above where bundles share its name."""
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
    unscored: Mapping[str, int]
    """Rows that it could not score, by error code; they are left out for all bundles."""
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
    seen: SeenRows
    """Rows that were seen when it was made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateReport:
    """What an evaluation found."""

    settings: EvaluateSettings
    num_rows: int
    """Rows that are evaluated."""
    num_rows_left_out: int
    """Rows that one of several bundles could not score."""
    num_groups: int | None
    """Groups of the rows, of both sides where two columns are named; `None` without a group column."""
    drawn: str
    """What intervals draw: `rows`, `groups` or `groups of both sides`."""
    num_blocks: int | None
    """Random blocks of these that are drawn in their stead, of many rows; `None` where each is drawn by itself."""
    bundle: Evaluated
    others: tuple[Evaluated, ...]
    """The bundles it is compared with."""
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
            "num_rows_left_out": self.num_rows_left_out,
            "num_groups": self.num_groups,
            "positive_label": self.positive_label,
            "intervals": {
                "confidence": self.settings.confidence,
                "method": self.settings.interval,
                "resamples": self.settings.resamples,
                "drawn": self.drawn,
                "blocks": self.num_blocks,
                "seed": self.settings.seed,
            },
            "warnings": list(self.warnings),
            "parts": [_part_json(part) for part in self.parts],
            "groups": [_part_json(part) for part in self.slices],
            "num_groups_left_out": self.num_slices_left_out,
            "bundle": _evaluated_json(self.bundle),
            "against": [_evaluated_json(each) for each in self.others],
            "definitions": {name: DEFINITIONS[name] for name in self.metrics},
            "settings": {name: settings[name] for name in sorted(settings)},
        }

    def __str__(self) -> str:
        """A table for people: each metric with its interval, then what must be known of it."""
        against = f", against {', '.join(each.name for each in self.others)}" if self.others else ""
        seconds = sum(each.seconds for each in (self.bundle, *self.others))
        lines = [f"{self.bundle.name}{against}: {self.num_rows:,} rows in {seconds:.1f} s"]
        if self.positive_label is not None:
            lines[0] += f"; precision, recall, F1, AUC and average precision are of {self.positive_label!r}"
        for part in self.parts:
            lines += ["", f"{part.name} ({part.num_rows:,})", *self._tables(part)]
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

    def _tables(self, part: Part) -> list[str]:
        """The metrics of a part, and the differences to each other bundle."""
        interval = f"{100 * self.settings.confidence:.4g}% interval"
        rows = [
            ["", self.bundle.name if self.others else "value", interval, *(each.name for each in self.others)]
        ]
        reasons = []
        for name, metric in part.metrics.items():
            if metric.value is None:
                reasons.append(f"  {TITLES[name]}: undefined ({metric.undefined})")
            else:
                others = [
                    format_metric(other.metrics[name]) if name in other.metrics else "-"
                    for other in part.others
                ]
                rows.append([TITLES[name], format_value(metric.value), format_interval(metric), *others])
        lines = _aligned(rows) + reasons
        for other, compared in zip(self.others, part.others, strict=True):
            rows = [["", *difference_header(self.settings.confidence)]]
            rows += [
                [TITLES[name], *difference_cells(each)]
                for name, each in compared.differences.items()
                if each.value is not None
            ]
            lines += ["", f"{self.bundle.name} less {other.name}", *_aligned(rows)]
        return lines


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


def format_interval(metric: Metric | MetricDifference) -> str:
    """`0.9012 to 0.9345`, or a dash where there is none."""
    low, high = metric.interval.low, metric.interval.high
    return "-" if low is None or high is None else f"{format_value(low)} to {format_value(high)}"


def format_metric(metric: Metric) -> str:
    """The number, or that it is undefined."""
    return "undefined" if metric.value is None else format_value(metric.value)


def difference_header(confidence: float) -> list[str]:
    """What `difference_cells` are."""
    return ["difference", f"{100 * confidence:.4g}% interval", "p"]


def difference_cells(difference: MetricDifference) -> list[str]:
    """The cells of a difference: its value, its interval, p and the test where it is exact."""
    return [
        "-" if difference.value is None else f"{difference.value:+.4f}",
        format_interval(difference),
        _format_p(difference.p_value) + (" (McNemar)" if difference.test == "mcnemar" else ""),
    ]


def _format_p(p_value: float | None) -> str:
    """`0.034`; a dash where there is none."""
    if p_value is None:
        return "-"
    return f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"


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
    return {
        "name": part.name,
        "num_rows": part.num_rows,
        "metrics": {name: _metric_json(metric) for name, metric in part.metrics.items()},
        "against": [
            {
                "metrics": {name: _metric_json(metric) for name, metric in other.metrics.items()},
                "differences": {name: _difference_json(each) for name, each in other.differences.items()},
            }
            for other in part.others
        ],
    }


def _difference_json(difference: MetricDifference) -> dict[str, object]:
    return {
        "value": difference.value,
        **_interval_json(difference),
        "p_value": difference.p_value,
        "test": difference.test,
    }


def _metric_json(metric: Metric) -> dict[str, object]:
    if metric.value is None:
        return {"value": None, "undefined": metric.undefined}
    return {"value": metric.value, **_interval_json(metric)}


def _interval_json(metric: Metric | MetricDifference) -> dict[str, object]:
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
        "name": evaluated.name,
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
        "unscored": dict(evaluated.unscored),
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
