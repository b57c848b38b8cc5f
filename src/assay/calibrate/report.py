"""What a calibration found, as a value and in lines for people."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from assay.metrics import ReliabilityBin
from assay.outcome.calibration import Calibration


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrateReport:
    """What a calibration found."""

    file: Path
    """`calibration.json`."""
    calibration: Calibration
    """What the file says."""
    num_rows: int
    """Rows it was fitted on."""
    before: Mapping[str, float]
    """Metrics of the uncalibrated outputs on these rows."""
    after: Mapping[str, float]
    """The same of the calibrated ones: in-sample, so too kind."""
    cross_validated: Mapping[str, float]
    """The same of rows whose map and threshold were fitted on others; {} where a note says why not."""
    tried: Mapping[str, float] = field(default_factory=dict)
    """auto: what each method was compared by, lower is better."""
    bins_before: tuple[ReliabilityBin, ...] = ()
    """Reliability diagram of the uncalibrated probabilities; () for a regression."""
    bins_after: tuple[ReliabilityBin, ...] = ()
    """The same of the calibrated ones, on these rows."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Each label with the probability from which on it holds; {} where no threshold was chosen."""
    notes: tuple[str, ...] = ()
    """What could not be checked or measured, a sentence each."""

    def __str__(self) -> str:
        """What was fitted and what it changed, for people."""
        lines = [f"calibrated on {self.num_rows:,} rows: {_summary(self.calibration)}"]
        if self.tried:
            scores = ", ".join(f"{method} {score:.4f}" for method, score in self.tried.items())
            lines.append(f"chosen by cross-validated {self.calibration.meta['select_by']}: {scores}")
        lines += self._regression_lines() if self.calibration.method == "conformal" else self._class_lines()
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes), f"wrote {self.file}"])

    def _class_lines(self) -> list[str]:
        shown = {"nll": "NLL", "brier": "Brier", "ece": "ECE"}
        changes = ", ".join(
            f"{title} {self.before[name]:.4f} -> {self.after[name]:.4f}" for name, title in shown.items()
        )
        lines = [f"on these rows {changes} (in-sample: evaluate on others)"]
        if self.cross_validated:
            honest = ", ".join(f"{title} {self.cross_validated[name]:.4f}" for name, title in shown.items())
            lines.append(f"cross-validated {honest} ({self.calibration.meta['cross_validated_by']})")
        if self.calibration.threshold is not None:
            lines += _threshold_lines(self.thresholds, self.calibration.opt_metric)
            for name, values in (
                ("on these rows", self.calibration.selection_metrics),
                ("cross-validated", self.cross_validated),
            ):
                if "precision" in values:
                    figures = ", ".join(
                        f"{each} {values[each]:.4f}" for each in ("accuracy", "precision", "recall", "f1")
                    )
                    lines.append(f"  {name} {figures}")
        return lines

    def _regression_lines(self) -> list[str]:
        promised = f"coverage {self.calibration.coverage:g} promised"
        measured = (
            f"{promised}, {self.cross_validated['coverage']:.4f} measured"
            f" ({self.calibration.meta['cross_validated_by']})"
            if self.cross_validated
            else promised
        )
        return [measured, f"on these rows MAE {self.before['mae']:.4f}, RMSE {self.before['rmse']:.4f}"]


def _summary(calibration: Calibration) -> str:
    method = calibration.method
    if method == "temperature":
        return f"temperature {calibration.temperature:.4f}"
    if method == "conformal":
        return f"intervals of the prediction ± {calibration.half_width:.4f}"
    if method == "isotonic":
        points = sum(len(each.x) for each in calibration.steps)
        return f"isotonic, {points} points"
    return f"{method}, scale {_range(calibration.scale)}, bias {_range(calibration.bias)}"


def _threshold_lines(thresholds: Mapping[str, float], chosen_by: str | None) -> list[str]:
    """Each label with its threshold; of two labels the second has the one there is."""
    if len(thresholds) == 1:
        ((label, threshold),) = thresholds.items()
        return [f"threshold {threshold:.4f} of {label} by {chosen_by}"]
    width = max(map(len, thresholds), default=0)
    return [
        f"thresholds by {chosen_by}",
        *(f"  {label.ljust(width)} {threshold:.4f}" for label, threshold in thresholds.items()),
    ]


def threshold_text(calibration: Calibration) -> str:
    """The threshold of a calibration, or the span of several."""
    threshold = calibration.threshold
    return _range(threshold if isinstance(threshold, tuple) else (threshold or 0.0,))


def _range(values: tuple[float, ...]) -> str:
    low, high = min(values), max(values)
    return f"{low:.4f}" if low == high else f"{low:.4f} to {high:.4f}"
