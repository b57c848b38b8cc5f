"""A bundle and held-out labelled rows in, `calibration.json` out.

    rows -> token ids -> logits -> temperature -> calibration.json

The same encoder and engine as in scoring, so the temperature fits the logits it will meet. Not
covered yet: multi-label heads, thresholds, other maps than a temperature.
"""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay import metrics
from assay.bundle import Bundle, Calibration, load_bundle, save_calibration
from assay.calibrate.settings import CalibrateSettings
from assay.calibrate.temperature import apply_calibration, fit_temperature
from assay.engine.engine import Engine
from assay.engine.load import load_engine
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences
from assay.errors import InputError, UsageError
from assay.metrics import IntArray, ReliabilityBin
from assay.tokenize.encode import Encoder
from assay.train.provenance import count_seen, text_hashes
from assay.train.rows import LabelledRows, read_labelled


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrateReport:
    """What a calibration found. All metrics are of the rows that it was fitted on."""

    file: Path
    """`calibration.json`."""
    calibration: Calibration
    """What the file says."""
    num_rows: int
    """Rows it was fitted on."""
    before: Mapping[str, float]
    """Metrics of the plain softmax; see `metrics.class_report`."""
    after: Mapping[str, float]
    """Metrics with the temperature."""
    bins_before: tuple[ReliabilityBin, ...]
    """Reliability diagram of the plain softmax."""
    bins_after: tuple[ReliabilityBin, ...]
    """Reliability diagram with the temperature."""

    def __str__(self) -> str:
        """What was fitted and what it changed, for people."""
        return "\n".join(
            [
                f"calibrated on {self.num_rows:,} rows: temperature {self.calibration.temperature:.4f}",
                (
                    f"on these rows NLL {self.before['nll']:.4f} -> {self.after['nll']:.4f}, "
                    f"ECE {self.before['ece']:.4f} -> {self.after['ece']:.4f} (in-sample: evaluate on others)"
                ),
                f"wrote {self.file}",
            ]
        )


def calibrate(settings: CalibrateSettings) -> CalibrateReport:
    """Fits a temperature to a bundle on `settings.data` and writes its `calibration.json` in one step.

    Raises `InputError` where rows were part of the training, labels are unknown, or no temperature
    can be fitted; the old file is then untouched.
    """
    bundle = load_bundle(settings.bundle)
    rows = read_labelled(
        settings.data,
        text_column=settings.text_column,
        text_pair_column=settings.text_pair_column,
        label_column=settings.label_column,
        format=settings.format,
    )
    engine = load_engine(
        settings.bundle,
        device=settings.device,
        precision=settings.precision,
        num_threads=settings.num_threads,
    )
    return calibrate_rows(settings, bundle, engine, rows)


def calibrate_rows(
    settings: CalibrateSettings, bundle: Bundle, engine: Engine, rows: LabelledRows
) -> CalibrateReport:
    """As `calibrate`, with the bundle, its engine and the rows handed in."""
    labels = _checked_labels(bundle, rows)
    refuse_seen(bundle, rows)
    logits_NC = held_out_logits(settings, bundle, engine, rows)
    temperature = fit_temperature(logits_NC, labels)
    before = metrics.softmax(logits_NC)
    after = apply_calibration(logits_NC, Calibration(temperature=temperature), "single_label")
    calibration = Calibration(
        temperature=temperature,
        opt_metric="nll",
        selection_metrics=metrics.class_report(after, labels),
        meta={
            "n_samples": rows.num_rows,
            "max_length": _max_length(settings, bundle),
            "on_long": settings.on_long,
            "data": list(settings.data),
            "before": metrics.class_report(before, labels),
            "reliability": [
                {"confidence": each.confidence, "accuracy": each.accuracy, "count": each.num_rows}
                for each in _bins(after, labels)
            ],
            "engine": engine.name,
            "bundle_fingerprint": bundle.fingerprint,
            "tokenizer_fingerprint": bundle.tokenizer_fingerprint,
            "assay_version": importlib.metadata.version("assay"),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    return CalibrateReport(
        file=save_calibration(bundle.path, calibration),
        calibration=calibration,
        num_rows=rows.num_rows,
        before=metrics.class_report(before, labels),
        after=metrics.class_report(after, labels),
        bins_before=_bins(before, labels),
        bins_after=_bins(after, labels),
    )


def refuse_seen(bundle: Bundle, rows: LabelledRows) -> None:
    """Raises `InputError` where rows were trained on or chose the checkpoint, as far as the bundle knows."""
    seen = count_seen(text_hashes(rows.texts, rows.text_pairs), bundle.provenance)
    found = ", ".join(f"{count} as {role} rows" for role, count in seen.items() if count)
    if found:
        raise InputError(
            f"of {rows.num_rows} rows the training of {bundle.path} has seen {found};"
            " a calibration on them would be too sure; remove them"
        )


def held_out_logits(
    settings: CalibrateSettings, bundle: Bundle, engine: Engine, rows: LabelledRows
) -> NDArray[np.float32]:
    """Logits [N, C] of the rows, uncalibrated, in their order."""
    encoder = Encoder.from_bundle(
        bundle.path, max_length=_max_length(settings, bundle), on_long=settings.on_long
    )
    pairs = None if rows.text_pairs is None else pa.array(rows.text_pairs, type=pa.large_string())
    tokens = encoder.encode(pa.array(rows.texts, type=pa.large_string()), pairs)
    if tokens.errors:
        raise InputError(
            f"{len(tokens.errors)} of {rows.num_rows} rows cannot be tokenized; drop or mend them"
        )
    sequences = Sequences(
        flat_ids=tokens.flat_ids, offsets=tokens.offsets, second_starts=tokens.second_starts
    )
    logits_NC, _ = run_sequences(engine, sequences, max_batch_tokens=settings.max_batch_tokens)
    return logits_NC


def _max_length(settings: CalibrateSettings, bundle: Bundle) -> int:
    wanted = settings.max_length or bundle.default_max_length
    if wanted > bundle.max_length:
        raise UsageError(f"max_length={wanted}; this bundle takes {bundle.max_length} tokens; lower it")
    return wanted


def _checked_labels(bundle: Bundle, rows: LabelledRows) -> IntArray:
    if bundle.task != "single_label":
        raise UsageError(
            f"{bundle.path}: a {bundle.task} bundle; only single-label ones are calibrated; score it as is"
        )
    index_of_label = {label: index for index, label in enumerate(bundle.labels)}
    unknown = sorted(set(rows.labels) - set(index_of_label))
    if unknown:
        raise InputError(
            f"labels {unknown[:5]}; the bundle knows {list(bundle.labels)[:10]}; check the label column"
        )
    return np.array([index_of_label[str(label)] for label in rows.labels], dtype=np.int64)


def _bins(probabilities_NC: metrics.FloatArray, labels: IntArray) -> tuple[ReliabilityBin, ...]:
    predicted = probabilities_NC.argmax(axis=1)
    return metrics.reliability_bins(probabilities_NC.max(axis=1), predicted == labels)
