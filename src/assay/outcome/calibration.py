"""The Calibration value: how logits become probabilities, and probabilities decisions."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from assay.tasks import Method


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A rising curve through points, straight between them and flat beyond: one map of an isotonic fit."""

    x: tuple[float, ...]
    """Uncalibrated probabilities, rising, at least one."""
    y: tuple[float, ...]
    """What each becomes: 0 to 1, never falling."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How logits become probabilities and, where a threshold was chosen, probabilities decisions.

    `outcome.maps.apply_calibration` says what each method does. Which fields a method has:

        temperature   temperature
        vector        scale, bias: one a label
        logistic      scale, bias: one (two labels), or one a label (multi-label)
        isotonic      steps: one (two labels), or one a label
        conformal     half_width, coverage (regression)
    """

    method: Method = "temperature"
    """The kind of map."""
    temperature: float = 1.0
    """Logits are divided by this before softmax or sigmoid; above 0; 1 under other methods."""
    scale: tuple[float, ...] = ()
    """Factors of the logits."""
    bias: tuple[float, ...] = ()
    """What is added to the scaled logits."""
    steps: tuple[Curve, ...] = ()
    """Curves from uncalibrated to calibrated probability."""
    half_width: float | None = None
    """Half of the width of a regression's intervals, in the unit of its targets; 0 or more."""
    coverage: float | None = None
    """Share of the documents whose interval is promised to hold their target, above 0 and below 1."""
    threshold: float | tuple[float, ...] | None = None
    """Probability at which a label holds, one for all or one a label; `None`: arg max, or 0.5."""
    opt_metric: str | None = None
    """What the threshold maximised; without a threshold, what the fit minimised."""
    selection_metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics on the calibration rows, by name: in-sample, so too optimistic."""
    meta: Mapping[str, object] = field(default_factory=dict)
    """Sample counts, cross-validated metrics, fingerprints and dates; changes no number."""
    provenance: Mapping[str, object] = field(default_factory=dict)
    """Hashes of the calibration rows, in the shape of `Bundle.provenance`; changes no number."""
