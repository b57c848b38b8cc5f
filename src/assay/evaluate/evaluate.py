"""`assay evaluate`: the steps in order.

    bundle, rows -> what the bundle says of them -> metrics with intervals, of all rows, of those that
    training has not seen, and of each group -> report

With a second bundle the same rows go through both, and the differences are tested as pairs.

Axes: N rows, C classes or labels.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from assay import metrics
from assay._version import __version__
from assay.bundle.bundle import Bundle
from assay.bundle.texts import refuse_other_texts
from assay.data.listing import local_paths
from assay.data.storage import is_object_url, local_path, writable_place
from assay.engine import devices
from assay.errors import InputError, UsageError
from assay.evaluate.findings import Evaluated, EvaluateReport, Worst
from assay.evaluate.measure import (
    EvaluatedRows,
    Part,
    Resampling,
    group_indices,
    label_values,
    measure,
    point_values,
)
from assay.evaluate.predict import PredictedRows, predict
from assay.evaluate.report import write_report
from assay.evaluate.seen import find_seen
from assay.evaluate.settings import EvaluateSettings
from assay.labelled.labels import generic_names, to_targets
from assay.labelled.read import read_labelled
from assay.labelled.rows import LabelledRows
from assay.metrics import FloatArray, IntArray
from assay.score.bundles import encoder_of, engine_of, open_bundle, refuse_texts, scorer_of
from assay.tasks import TWO_LABELS, Task
from assay.tokenize.plan import other_lengths

MOST_SLICES = 50
"""Groups whose metrics are found, the largest first."""
FEW_ROWS = 100
FEW_LABEL_ROWS = 10
FEW_SLICE_ROWS = 30
FEW_GROUPS = 20
SHOWN_WORST = 20
CALIBRATION_METRICS = ("nll", "brier", "ece", "ece_equal_mass")


def evaluate(settings: EvaluateSettings) -> EvaluateReport:
    """Evaluates a bundle, or two, on labelled rows; writes `settings.out` where it is given.

    Raises `UsageError` where a setting does not fit the bundle, `SourceError` for rows that cannot be
    read, `InputError` for labels that the bundle does not know and rows that it cannot score.
    """
    bundle = open_bundle(settings.bundle)
    against = None if settings.against is None else open_bundle(settings.against)
    if against is not None:
        _check_comparable(bundle, against)
        refuse_other_texts(against, are_pairs=settings.text_pair_column is not None)
    refuse_other_texts(bundle, are_pairs=settings.text_pair_column is not None)
    devices.parse_precision(settings.precision, devices.parse_device(settings.device))
    if settings.out is not None and not is_object_url(settings.out):
        _check_out(settings, local_path(settings.out))
    rows = read_labelled(settings.data, settings, task=bundle.task)
    return evaluate_rows(settings, bundle, rows, against=against)


def evaluate_rows(
    settings: EvaluateSettings,
    bundle: Bundle,
    rows: LabelledRows,
    *,
    against: Bundle | None = None,
) -> EvaluateReport:
    """As `evaluate`, with the bundles and the rows handed in."""
    if rows.num_rows == 0:
        raise InputError("0 rows; a metric needs some; name sources that hold rows")
    targets = _targets(bundle, rows)
    first = _evaluated(settings, bundle, rows, targets, bundle.labels)
    second = None if against is None else _evaluated(settings, against, rows, targets, bundle.labels)
    resampling = Resampling(
        num_resamples=settings.resamples,
        method=settings.interval,
        confidence=settings.confidence,
        seed=settings.seed,
    )
    group_N = None if rows.groups is None else group_indices(rows.groups)
    by_group = group_N is not None and settings.resample != "rows"
    parts = _parts(first, second, resampling, group_N if by_group else None)
    slices, num_left_out = _slices(first, second, resampling, rows)
    report = EvaluateReport(
        settings=settings,
        num_rows=rows.num_rows,
        num_groups=None if group_N is None else int(group_N.max()) + 1,
        drawn="groups" if by_group else "rows",
        bundle=first,
        against=second,
        parts=parts,
        slices=slices,
        num_slices_left_out=num_left_out,
        warnings=tuple(_warnings(first, second, parts, rows.groups or (), group_N if by_group else None)),
        assay_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        out=settings.out,
    )
    if report.out is not None:
        write_report(report, report.out)
    return report


# ---------------------------------------------------------------- one bundle


def _evaluated(
    settings: EvaluateSettings,
    bundle: Bundle,
    rows: LabelledRows,
    targets: IntArray | FloatArray,
    labels: Sequence[str],
) -> Evaluated:
    """What a bundle says of the rows, its outputs in the order of `labels`."""
    began = time.perf_counter()
    encoder = encoder_of(bundle, settings)
    refuse_texts(bundle, encoder, are_pairs=rows.text_pairs is not None)
    engine = engine_of(
        bundle,
        device=settings.device,
        precision=settings.precision,
        num_threads=settings.num_threads,
    )
    scorer = scorer_of(
        bundle, engine, encoder, device=settings.device, max_batch_tokens=settings.max_batch_tokens
    )
    predictions = predict(scorer, rows)
    seconds = time.perf_counter() - began
    outcome = _outcome(bundle, predictions, targets, labels)
    if rows.text_pairs is not None and bundle.task is Task.SINGLE_LABEL and len(labels) == TWO_LABELS:
        outcome = replace(outcome, unanswered_within=settings.unanswered_within)
    calibration = bundle.calibration
    before, after = {}, {}
    if calibration is not None and bundle.task.is_classifier:
        plain, mapped = point_values(outcome.before_calibration()), point_values(outcome)
        before = {name: value for name in CALIBRATION_METRICS if isinstance(value := plain[name], float)}
        after = {name: value for name in CALIBRATION_METRICS if isinstance(value := mapped[name], float)}
    provenances = [bundle.provenance, *([calibration.provenance] if calibration is not None else [])]
    return Evaluated(
        path=bundle.path,
        fingerprint=bundle.fingerprint,
        task=bundle.task,
        labels=tuple(labels),
        calibration="none" if calibration is None else calibration.method,
        thresholds=bundle.decider.thresholds,
        max_length=encoder.max_length,
        notes=(*bundle.notes, *_length_notes(bundle, settings, encoder.max_length)),
        engine=engine.description(),
        seconds=seconds,
        num_tokens=predictions.num_tokens,
        num_truncated=predictions.num_truncated,
        outcome=outcome,
        before=before,
        after=after,
        by_label={}
        if bundle.task is Task.REGRESSION
        else {label: label_values(outcome, index) for index, label in enumerate(labels)},
        worst=_worst(outcome, rows, labels, show_texts=settings.show_texts),
        seen=find_seen(rows, provenances),
    )


def _outcome(
    bundle: Bundle, predictions: PredictedRows, targets: IntArray | FloatArray, labels: Sequence[str]
) -> EvaluatedRows:
    order = np.array([bundle.labels.index(label) for label in labels], dtype=np.int64)
    if bundle.task is Task.REGRESSION:
        order = np.zeros(1, dtype=np.int64)
    predicted = predictions.predicted
    if bundle.task is Task.SINGLE_LABEL:
        predicted = np.argsort(order)[predicted]
    elif bundle.task is Task.MULTI_LABEL:
        predicted = predicted[:, order]
    return EvaluatedRows(
        task=bundle.task,
        outputs_NC=predictions.outputs_NC[:, order],
        plain_NC=predictions.plain_NC[:, order],
        predicted=predicted,
        targets=targets,
        int_score=bundle.int_score,
        half_width=None if bundle.calibration is None else bundle.calibration.half_width,
    )


def _targets(bundle: Bundle, rows: LabelledRows) -> IntArray | FloatArray:
    if bundle.task is Task.REGRESSION:
        values = np.array(rows.labels, dtype=np.float64)
        if not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            raise InputError(
                f"{count} of {values.size} targets are NaN or infinite; a metric needs numbers; drop these rows"
            )
        return values
    targets = to_targets(generic_names(rows.labels, bundle.labels), bundle.task, bundle.labels)
    return targets.astype(np.int64)


def _check_comparable(bundle: Bundle, against: Bundle) -> None:
    if bundle.task != against.task:
        raise UsageError(
            f"{bundle.path} is {bundle.task} and {against.path} {against.task}; only bundles of one task"
            " compare; name another"
        )
    if bundle.task.is_classifier and set(bundle.labels) != set(against.labels):
        alone = sorted(set(bundle.labels) ^ set(against.labels))
        raise UsageError(
            f"only one of the bundles knows {alone[:5]}; bundles compare on the same labels; name another"
        )


def _check_out(settings: EvaluateSettings, out: Path) -> None:
    """Raise an error where the report cannot be written to `out`, or would replace rows or a part of a bundle."""
    folders = [Path(each).resolve() for each in (settings.bundle, settings.against) if each is not None]
    if out.exists() and any(out.resolve().is_relative_to(each) for each in local_paths(settings.data)):
        raise UsageError(f"out={settings.out} is one of the sources; it would be replaced; name another file")
    if out.exists() and out.resolve().parent in folders:
        raise UsageError(
            f"out={settings.out} is a file of the bundle; it would be replaced; name another file"
        )
    if out.is_dir():
        raise UsageError(f"out={settings.out} is a folder; name a file")
    writable_place(out, f"out={settings.out}")


# ---------------------------------------------------------------- parts of the rows


def _parts(
    first: Evaluated, second: Evaluated | None, resampling: Resampling, group_N: IntArray | None
) -> tuple[Part, ...]:
    """All rows, those that neither bundle has seen, and those of groups that neither has seen."""
    found = [_part("all rows", first, second, resampling, None, group_N)]
    row_N, seen_group_N = first.seen.row_N, first.seen.group_N
    if second is not None:
        row_N, seen_group_N = row_N | second.seen.row_N, seen_group_N | second.seen.group_N
    if row_N.any() and not row_N.all():
        kept = np.flatnonzero(~row_N)
        found.append(_part("without rows seen before", first, second, resampling, kept, group_N))
    if (seen_group_N != row_N).any() and not seen_group_N.all():
        kept = np.flatnonzero(~seen_group_N)
        found.append(_part("without groups seen before", first, second, resampling, kept, group_N))
    return tuple(found)


def _slices(
    first: Evaluated, second: Evaluated | None, resampling: Resampling, rows: LabelledRows
) -> tuple[tuple[Part, ...], int]:
    """Each group's rows, the largest groups first; and how many groups are left out."""
    if rows.groups is None:
        return (), 0
    rows_of: dict[str, list[int]] = {}
    for row, group in enumerate(rows.groups):
        rows_of.setdefault(group, []).append(row)
    largest = sorted(rows_of.items(), key=lambda item: (-len(item[1]), item[0]))[:MOST_SLICES]
    found = [
        _part(group, first, second, resampling, np.array(kept, dtype=np.int64), None)
        for group, kept in largest
    ]
    return tuple(found), len(rows_of) - len(largest)


def _part(
    name: str,
    first: Evaluated,
    second: Evaluated | None,
    resampling: Resampling,
    rows: IntArray | None,
    group_N: IntArray | None,
) -> Part:
    if rows is None:
        return measure(name, first.outcome, None if second is None else second.outcome, resampling, group_N)
    return measure(
        name,
        first.outcome.take(rows),
        None if second is None else second.outcome.take(rows),
        resampling,
        None if group_N is None else group_N[rows],
    )


def row_losses(outcome: EvaluatedRows) -> FloatArray:
    """What each row adds to the NLL (multi-label: summed over labels), or a regression's absolute error, [N]."""
    if outcome.task is Task.REGRESSION:
        return np.abs(outcome.outputs_NC[:, 0] - outcome.targets)
    if outcome.task is Task.MULTI_LABEL:
        said = np.where(outcome.targets > 0, outcome.outputs_NC, 1 - outcome.outputs_NC)
    else:
        rows = np.arange(outcome.num_rows)
        said = outcome.outputs_NC[rows, outcome.targets.astype(np.int64)][:, None]
    summed: FloatArray = -np.log(np.maximum(said, metrics.SMALLEST_PROBABILITY)).sum(axis=1)
    return summed


def _worst(
    outcome: EvaluatedRows, rows: LabelledRows, labels: Sequence[str], *, show_texts: bool
) -> tuple[Worst, ...]:
    losses = row_losses(outcome)
    is_wrong = outcome.predicted != outcome.targets
    wrong_N = is_wrong.any(axis=1) if is_wrong.ndim == 2 else is_wrong
    candidates = np.arange(losses.size) if outcome.task is Task.REGRESSION else np.flatnonzero(wrong_N)
    order = candidates[np.argsort(-losses[candidates], kind="stable")][:SHOWN_WORST]
    return tuple(
        Worst(
            row=int(row),
            id=None if rows.ids is None else rows.ids[row],
            truth=_said(outcome.targets[row], outcome.task, labels),
            predicted=f"{outcome.outputs_NC[row, 0]:.4g}"
            if outcome.task is Task.REGRESSION
            else _said(outcome.predicted[row], outcome.task, labels),
            loss=float(losses[row]),
            text=rows.beginning(int(row)) if show_texts else None,
        )
        for row in order
    )


def _said(value: IntArray | FloatArray, task: Task, labels: Sequence[str]) -> str:
    if task is Task.REGRESSION:
        return f"{float(value):.4g}"
    if task is Task.MULTI_LABEL:
        return ", ".join(label for label, holds in zip(labels, value, strict=True) if holds) or "(none)"
    return labels[int(value)]


# ---------------------------------------------------------------- what a reader must know


def _length_notes(bundle: Bundle, settings: EvaluateSettings, max_length: int) -> list[str]:
    if bundle.calibration is None:
        return []
    note = other_lengths(
        bundle.calibration.meta, max_length=max_length, on_long=settings.on_long, stride=settings.stride
    )
    return [] if note is None else [f"{bundle.path}: {note}"]


def _warnings(
    first: Evaluated,
    second: Evaluated | None,
    parts: Sequence[Part],
    groups: Sequence[str],
    group_N: IntArray | None,
) -> list[str]:
    outcome = first.outcome
    found = []
    for each in (first, second):
        found += [] if each is None else _seen_warnings(each)
        found += [] if each is None else each.notes
    if outcome.num_rows < FEW_ROWS:
        found.append(f"only {outcome.num_rows} rows: every number is rough, and its interval too")
    found += _label_warnings(outcome, first.labels)
    if outcome.task.is_classifier and outcome.num_rows < 10 * metrics.NUM_BINS:
        found.append(
            f"ECE of {outcome.num_rows} rows in {metrics.NUM_BINS} bins is too high: it counts noise as miscalibration"
        )
    if group_N is not None and (num_groups := int(np.unique(group_N).size)) < FEW_GROUPS:
        found.append(
            f"intervals draw {num_groups} groups, too few to be exact; where groups are kinds rather than"
            " clusters of like rows, set --resample rows"
        )
    group_sizes = Counter(groups).values()
    if small := sum(size < FEW_SLICE_ROWS for size in group_sizes):
        found.append(f"{small:,} of {len(group_sizes):,} groups have fewer than {FEW_SLICE_ROWS} rows")
    if second is not None and len(parts) > 1:
        found.append("a bundle has seen some of the rows: compare the two on the other rows, further below")
    if second is not None and first.max_length != second.max_length:
        found.append(
            f"texts are cut at {first.max_length} tokens for one bundle and {second.max_length} for the other"
        )
    return found


def _seen_warnings(evaluated: Evaluated) -> list[str]:
    seen, name = evaluated.seen, evaluated.path.name
    if not seen.is_known:
        return [f"{name} does not say what it was trained on: whether test rows are among it is not known"]
    met = {"train": "trained on", "validation": "chose the checkpoint", "calibration": "were calibrated on"}
    found = [
        f"{count:,} of {seen.row_N.size:,} rows {'share a group with rows that' if kind == 'group' else ''}"
        f" {met.get(role, 'were seen as ' + role)} ({name}, by {kind})".replace("  ", " ")
        for kind, counts in seen.counts.items()
        for role, count in counts.items()
        if count
    ]
    if seen.row_N.all():
        found.append(f"{name} has seen every test row: no number here says how good it is on new ones")
    return found


def _label_warnings(outcome: EvaluatedRows, labels: Sequence[str]) -> list[str]:
    if outcome.task is Task.REGRESSION:
        return []
    if outcome.task is Task.MULTI_LABEL:
        counts = outcome.targets.sum(axis=0)
    else:
        counts = np.bincount(outcome.targets.astype(np.int64), minlength=len(labels))
    absent = [label for label, count in zip(labels, counts, strict=True) if count == 0]
    few = [label for label, count in zip(labels, counts, strict=True) if 0 < count < FEW_LABEL_ROWS]
    found = []
    if absent:
        found.append(f"no row of {_listed(absent)}: nothing here is measured on it")
    if few:
        found.append(f"fewer than {FEW_LABEL_ROWS} rows of {_listed(few)}: their metrics are rough")
    if outcome.task is Task.SINGLE_LABEL and np.unique(outcome.predicted).size == 1 < outcome.num_rows:
        found.append(
            f"every row is predicted {labels[int(outcome.predicted[0])]}: the bundle does not tell labels apart"
        )
    return found


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more labels"
