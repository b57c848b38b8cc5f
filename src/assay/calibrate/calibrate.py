"""A bundle and held-out labelled rows in, `calibration.json` out.

    rows -> none seen before -> token ids -> logits -> map, threshold -> cross-validated -> calibration.json

The same encoder and engine as in scoring, so the map fits the logits it will meet. What it says of
the rows that it was fitted on is marked as such; the cross-validated figures are the ones to believe,
and those of `assay evaluate` on rows that no step has seen.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import cast

import numpy as np
from numpy.typing import NDArray

from assay import metrics
from assay._version import __version__
from assay.bundle.bundle import Bundle
from assay.bundle.calibration import save_calibration
from assay.bundle.texts import refuse_other_texts
from assay.calibrate.conformal import fit_half_width, measured_coverage
from assay.calibrate.disjoint import calibration_provenance, refuse_seen, refuse_shared
from assay.calibrate.fit import (
    Examples,
    SelectBy,
    choose_method,
    choose_thresholds,
    cross_validate,
    decide_rows,
    decision_report,
    fit_map,
    quality,
    refuse_other_method,
)
from assay.calibrate.folds import fold_rows
from assay.calibrate.report import CalibrateReport, threshold_text
from assay.calibrate.settings import CalibrateSettings
from assay.calibrate.targets import TargetArray, check_logits_and_targets
from assay.calibrate.thresholds import Goal, as_json
from assay.engine import devices
from assay.engine.engine import Engine
from assay.errors import InputError, StorageError, UsageError
from assay.extras import need_packages
from assay.labelled.labels import generic_names, to_targets
from assay.labelled.read import read_labelled
from assay.labelled.rows import LabelledRows
from assay.metrics import FloatArray, IntArray, ReliabilityBin
from assay.outcome.calibration import Calibration
from assay.outcome.maps import apply_calibration
from assay.score.bundles import encoder_of, engine_of, open_bundle, scorer_of
from assay.score.cascade.bundle import Cascade
from assay.score.labelled import labelled_logits
from assay.tasks import Method, Task
from assay.tokenize.plan import choose_max_length
from assay.tokenize.settings import WINDOWS

FEW_ROWS = 50
_COVERAGE = 0.9
_SELECT_BY: SelectBy = "brier"
_NOT_CROSSED = "not cross-validated: "


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fitted:
    """A calibration with what was measured on the way."""

    calibration: Calibration
    before: dict[str, float]
    after: dict[str, float]
    cross_validated: dict[str, float]
    tried: dict[str, float] = field(default_factory=dict)
    bins_before: tuple[ReliabilityBin, ...] = ()
    bins_after: tuple[ReliabilityBin, ...] = ()
    notes: tuple[str, ...] = ()


def calibrate(settings: CalibrateSettings) -> CalibrateReport:
    """Fits a map to a bundle on `settings.data` and writes its `calibration.json` in one step.

    Raises `InputError` where rows were part of the training or the test, labels are unknown, or no map
    or threshold of the kind asked for suits them; the old file is then untouched.
    """
    bundle = open_bundle(settings.bundle)
    if isinstance(bundle, Cascade):
        raise UsageError(
            f"{bundle.path} is a cascade, whose probabilities assay cascade tune fits; calibrate its models, then tune"
            " it again"
        )
    _check_settings(settings, bundle)
    refuse_other_texts(bundle, are_pairs=settings.text_pair_column is not None)
    devices.check_precision(settings.precision, devices.parse_device(settings.device))
    if not os.access(bundle.path, os.W_OK):
        raise StorageError(
            f"{bundle.path}: calibration.json is written there and it is read-only; copy the bundle"
        )
    rows = read_labelled(settings.data, settings, task=bundle.task)
    test_rows = read_labelled(settings.test_data, settings, task=bundle.task) if settings.test_data else None
    engine = engine_of(
        bundle,
        device=settings.device,
        precision=settings.precision,
        num_threads=settings.num_threads,
    )
    return calibrate_rows(settings, bundle, engine, rows, test_rows)


def calibrate_rows(
    settings: CalibrateSettings,
    bundle: Bundle,
    engine: Engine,
    rows: LabelledRows,
    test_rows: LabelledRows | None = None,
) -> CalibrateReport:
    """As `calibrate`, with the bundle, its engine and the rows handed in."""
    _check_settings(settings, bundle)
    refuse_other_texts(bundle, are_pairs=rows.text_pairs is not None)
    labels = rows.labels if bundle.task is Task.REGRESSION else generic_names(rows.labels, bundle.labels)
    targets = to_targets(labels, bundle.task, bundle.labels)
    notes = refuse_seen(bundle, rows)
    if test_rows is not None:
        refuse_shared(rows, test_rows)
    logits_NC, checked = check_logits_and_targets(
        held_out_logits(settings, bundle, engine, rows), targets, bundle.task
    )
    if bundle.task is Task.REGRESSION:
        fitted = _fit_intervals(settings, logits_NC[:, 0], cast("FloatArray", checked), rows)
    else:
        fitted = _fit_probabilities(settings, bundle, logits_NC, checked, rows)
    calibration = replace(
        fitted.calibration,
        meta={**_meta(settings, bundle, engine, rows), **fitted.calibration.meta},
        provenance=calibration_provenance(rows),
    )
    return CalibrateReport(
        file=save_calibration(bundle.path, calibration),
        calibration=calibration,
        num_rows=rows.num_rows,
        before=fitted.before,
        after=fitted.after,
        cross_validated=fitted.cross_validated,
        tried=fitted.tried,
        bins_before=fitted.bins_before,
        bins_after=fitted.bins_after,
        thresholds={}
        if calibration.threshold is None
        else replace(bundle.decider, calibration=calibration).thresholds,
        notes=(*bundle.notes, *notes, *_few_rows(rows), *fitted.notes, *_lost_threshold(bundle, calibration)),
    )


def _few_rows(rows: LabelledRows) -> tuple[str, ...]:
    """Said where so few rows teach chance more than the model's errors."""
    if rows.num_rows >= FEW_ROWS:
        return ()
    return (f"only {rows.num_rows} rows: too few to tell signal from chance; give a few hundred",)


def _made_worse(before: Mapping[str, float], honest: Mapping[str, float]) -> tuple[str, ...]:
    """Said where rows that the map was not fitted on fare worse with it."""
    worse = [
        f"{metrics.TITLES[name]} {before[name]:.4f} -> {honest[name]:.4f}"
        for name in ("nll", "brier")
        if name in honest and round(honest[name], 4) > round(before[name], 4)
    ]
    if not worse:
        return ()
    note = f"cross-validated, calibration makes it worse: {', '.join(worse)}"
    return (f"{note}; give more rows, or remove calibration.json",)


def _lost_threshold(bundle: Bundle, calibration: Calibration) -> tuple[str, ...]:
    """Said where a threshold was there before: it was one of other probabilities."""
    if (
        bundle.calibration is None
        or bundle.calibration.threshold is None
        or calibration.threshold is not None
    ):
        return ()
    return (
        f"the old threshold {threshold_text(bundle.calibration)} is gone; --threshold-by finds a new one",
    )


def held_out_logits(
    settings: CalibrateSettings, bundle: Bundle, engine: Engine, rows: LabelledRows
) -> NDArray[np.float32]:
    """Logits [N, C] of the rows, uncalibrated, in their order; those of windows reduced to the document's."""
    scorer = scorer_of(
        bundle,
        engine,
        encoder_of(bundle, settings),
        device=settings.device,
        max_batch_tokens=settings.max_batch_tokens,
    )
    return labelled_logits(scorer, rows).logits_NC


def _fit_probabilities(
    settings: CalibrateSettings,
    bundle: Bundle,
    logits_NC: FloatArray,
    targets: TargetArray,
    rows: LabelledRows,
) -> _Fitted:
    examples = Examples(logits_NC=logits_NC, targets=targets, task=bundle.task, labels=bundle.labels)
    goal = _goal(settings)
    notes: list[str] = []
    fold_N, folded_by = _folds(settings, rows, examples.strata, notes)
    method, tried = _method(settings, examples, fold_N, notes)
    fitted = fit_map(method, examples)
    plain_NC = apply_calibration(logits_NC, None, bundle.task)
    calibrated_NC = apply_calibration(logits_NC, fitted, bundle.task)
    threshold = choose_thresholds(calibrated_NC, examples, goal)
    decided, by_label = decision_report(decide_rows(calibrated_NC, bundle.task, threshold), examples)
    before, after = quality(plain_NC, examples), quality(calibrated_NC, examples)
    honest = {} if fold_N is None else _cross_validated(method, examples, fold_N, goal, notes)
    notes += _made_worse(before, honest)
    bins = metrics.reliability_diagram(calibrated_NC, targets)
    at = {"threshold": threshold} if isinstance(threshold, float) else {}
    return _Fitted(
        calibration=replace(
            fitted,
            threshold=threshold,
            opt_metric=_opt_metric(settings, fitted),
            selection_metrics={**after, **at, **decided},
            meta={
                "before": before,
                "cross_validated": honest,
                "cross_validated_by": folded_by,
                **({"select_by": settings.select_by or _SELECT_BY, "compared": tried} if tried else {}),
                **({"threshold_by": dict(as_json(goal))} if goal else {}),
                **({"by_label": by_label} if by_label else {}),
                "reliability": [
                    {"confidence": each.confidence, "accuracy": each.accuracy, "count": each.num_rows}
                    for each in bins
                ],
            },
        ),
        before=before,
        after=after,
        cross_validated=honest,
        tried=tried,
        bins_before=metrics.reliability_diagram(plain_NC, targets),
        bins_after=bins,
        notes=tuple(notes),
    )


def _method(
    settings: CalibrateSettings, examples: Examples, fold_N: IntArray | None, notes: list[str]
) -> tuple[Method, dict[str, float]]:
    """The method asked for, or the best of them and what each was compared by."""
    if settings.method != "auto":
        return settings.method or "temperature", {}
    if fold_N is None:
        raise InputError(f"method=auto compares by cross-validation; {notes[0].removeprefix(_NOT_CROSSED)}")
    known = examples.task.calibration_methods(len(examples.labels))
    method, tried, failed = choose_method(known, examples, fold_N, settings.select_by or _SELECT_BY)
    notes += [f"{name} left out: {reason}" for name, reason in failed.items()]
    return method, tried


def _cross_validated(
    method: Method, examples: Examples, fold_N: IntArray, goal: Goal | None, notes: list[str]
) -> dict[str, float]:
    """Metrics on rows left out of the fit; without those of decisions, or none, where a note says why."""
    try:
        crossed = cross_validate(method, examples, fold_N, goal)
    except InputError as error:
        notes.append(f"{'threshold ' if goal else ''}not cross-validated: on the other folds {error}")
        if goal is None:
            return {}
        without = _cross_validated(method, examples, fold_N, None, notes)
        return {name: without[name] for name in ("num_rows", "nll", "brier", "ece") if name in without}
    decided = decision_report(crossed.decided, examples)[0]
    return {**quality(crossed.probabilities_NC, examples), **decided}


def _fit_intervals(
    settings: CalibrateSettings, values_N: FloatArray, targets_N: FloatArray, rows: LabelledRows
) -> _Fitted:
    errors_N, coverage = targets_N - values_N, settings.coverage or _COVERAGE
    half_width = fit_half_width(errors_N, coverage)
    before = {
        "num_rows": float(len(values_N)),
        "mae": metrics.mae(targets_N, values_N),
        "rmse": metrics.rmse(targets_N, values_N),
    }
    inside = float((np.abs(errors_N) <= half_width).mean())
    notes: list[str] = []
    honest: dict[str, float] = {}
    fold_N, folded_by = _folds(settings, rows, None, notes)
    if fold_N is not None:
        try:
            honest = {**before, "coverage": measured_coverage(errors_N, coverage, fold_N)}
        except InputError as error:
            notes.append(f"coverage not measured: in cross-fitting {error}")
    after = {**before, "coverage": inside, "interval_width": 2 * half_width}
    return _Fitted(
        calibration=Calibration(
            method="conformal",
            half_width=half_width,
            coverage=coverage,
            opt_metric="coverage",
            selection_metrics=after,
            meta={"before": before, "cross_validated": honest, "cross_validated_by": folded_by},
        ),
        before=before,
        after=after,
        cross_validated=honest,
        notes=tuple(notes),
    )


def _folds(
    settings: CalibrateSettings, rows: LabelledRows, strata: IntArray | None, notes: list[str]
) -> tuple[IntArray | None, str]:
    """The fold of each row and how they were made; `None` and a note where there can be none."""
    try:
        fold_N = fold_rows(
            rows.num_rows, num_folds=settings.num_folds, seed=settings.seed, strata=strata, groups=rows.groups
        )
    except InputError as error:
        notes.append(f"{_NOT_CROSSED}{error}")
        return None, "none"
    return fold_N, f"{settings.num_folds} folds{' by group' if rows.groups is not None else ''}"


def _check_settings(settings: CalibrateSettings, bundle: Bundle) -> None:
    """Raises `UsageError` for what this bundle cannot have, before anything is read or run."""
    choose_max_length(bundle, settings.max_length)
    if settings.coverage is not None and bundle.task.is_classifier:
        raise UsageError(
            f"coverage={settings.coverage}; {bundle.path} is a {bundle.task} bundle and intervals are a regression's;"
            " leave --coverage out"
        )
    if settings.method is not None:
        refuse_other_method(settings.method, bundle.task, len(bundle.labels))
    if settings.method in {"auto", "isotonic"} and "isotonic" in Task(bundle.task).calibration_methods(
        len(bundle.labels)
    ):
        need_packages("sklearn", used_by=f"method {settings.method}")
    if settings.threshold_by is None:
        return
    if not bundle.task.takes_threshold(len(bundle.labels)):
        raise UsageError(
            f"threshold_by={settings.threshold_by}; {bundle.path} is a {bundle.task} bundle of"
            f" {len(bundle.labels)} outputs; a threshold needs two labels or a multi-label bundle; leave it out"
        )


def _goal(settings: CalibrateSettings) -> Goal | None:
    if settings.threshold_by is None:
        return None
    given = {
        name: getattr(settings, name)
        for name in ("min_recall", "min_precision", "cost_false_positive", "cost_false_negative")
    }
    return Goal(
        by=settings.threshold_by, **{name: value for name, value in given.items() if value is not None}
    )


def _opt_metric(settings: CalibrateSettings, fitted: Calibration) -> str:
    if settings.threshold_by is not None:
        return settings.threshold_by
    return "brier" if fitted.method == "isotonic" else "nll"


def _meta(
    settings: CalibrateSettings, bundle: Bundle, engine: Engine, rows: LabelledRows
) -> dict[str, object]:
    return {
        "n_samples": rows.num_rows,
        **({"n_groups": len(set(rows.groups))} if rows.groups is not None else {}),
        "max_length": choose_max_length(bundle, settings.max_length),
        "on_long": settings.on_long,
        **({"stride": settings.stride} if settings.on_long in WINDOWS else {}),
        "data": list(settings.data),
        "engine": engine.name,
        "bundle_fingerprint": bundle.fingerprint,
        "tokenizer_fingerprint": bundle.tokenizer_fingerprint,
        "assay_version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
