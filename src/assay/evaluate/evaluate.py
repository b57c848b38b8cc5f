"""`assay evaluate`: the steps in order.

    bundle, rows -> what the bundle says of them -> metrics with intervals, of all rows, of those that
    training has not seen, and of each group -> report

With other bundles the same rows go through all of them, and the differences to the first are tested as
pairs. A row that one of them cannot score is left out of all, and counted.

Axes: N rows, C classes or labels.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
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
from assay.evaluate.bootstrap import blocks_drawn
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
from assay.evaluate.warnings import find_warnings, length_notes, pair_warnings
from assay.labelled.labels import generic_names, to_targets
from assay.labelled.read import read_labelled
from assay.labelled.rows import LabelledRows
from assay.metrics import FloatArray, IntArray
from assay.score.bundles import (
    engine_of,
    open_bundle,
    open_scorer,
    parse_precision,
    refuse_lengths,
    refuse_texts,
)
from assay.score.labelled import LabelledLogits, labelled_logits, logits_or_reasons
from assay.tasks import TWO_LABELS, Task

MOST_SLICES = 50
"""Groups whose metrics are found, the largest first."""
SHOWN_WORST = 20
CALIBRATION_METRICS = ("nll", "brier", "ece", "ece_equal_mass")
OnProgress = Callable[[str, float], None]
"""Told what is done now and which share of it is, 0 to 1."""


def _unseen(_step: str, _share: float) -> None:
    """Nobody looks."""


def evaluate(settings: EvaluateSettings, *, on_progress: OnProgress = _unseen) -> EvaluateReport:
    """Evaluates a bundle, or several, on labelled rows; writes `settings.out` where it is given.

    Raises `UsageError` where a setting does not fit the bundle, `SourceError` for rows that cannot be
    read, `InputError` for labels that the bundle does not know and rows that a bundle by itself cannot score.
    """
    _check_named_once(settings)
    bundle, *others = (open_bundle(each) for each in (settings.bundle, *settings.against))
    for other in others:
        _check_comparable(bundle, other)
    for each in (bundle, *others):
        refuse_other_texts(each, are_pairs=settings.text_pair_column is not None)
        refuse_lengths(each, settings)
    devices.check_precision(settings.precision, devices.parse_device(settings.device))
    if settings.out is not None and not is_object_url(settings.out):
        _check_out(settings, local_path(settings.out))
    rows = read_labelled(settings.data, settings, task=bundle.task, keys=settings.group_columns)
    return evaluate_rows(settings, bundle, rows, others=others, on_progress=on_progress)


def evaluate_rows(
    settings: EvaluateSettings,
    bundle: Bundle,
    rows: LabelledRows,
    *,
    others: Sequence[Bundle] = (),
    on_progress: OnProgress = _unseen,
) -> EvaluateReport:
    """As `evaluate`, with the bundles and the rows handed in."""
    if rows.num_rows == 0:
        raise InputError("0 rows; a metric needs some; name sources that hold rows")
    _targets(bundle, rows)  # what is wrong with the labels is said before the forward passes
    sides_N2 = _sides(settings, rows)
    names = _names([each.path for each in (bundle, *others)])
    passes = [
        _forward(
            settings, each, rows, is_alone=not others, advance=partial(on_progress, f"forward pass of {name}")
        )
        for each, name in zip((bundle, *others), names, strict=True)
    ]
    num_given = rows.num_rows
    kept = _scored_by_all(passes, num_given)
    rows = rows.take(kept.tolist())
    first, *compared = (
        _evaluated(settings, each, name, rows, kept, bundle.labels)
        for each, name in zip(passes, names, strict=True)
    )
    resampling = Resampling(
        num_resamples=settings.resamples,
        method=settings.interval,
        confidence=settings.confidence,
        seed=settings.seed,
    )
    sides_N2 = None if sides_N2 is None else sides_N2[kept]
    group_N = sides_N2
    if group_N is None and rows.groups is not None:
        group_N = group_indices(rows.groups)
    drawn_N = None if settings.resample == "rows" else group_N
    parts = _parts(first, compared, resampling, drawn_N, on_progress)
    slices, num_left_out = _slices(first, compared, resampling, rows, sides_N2, on_progress)
    report = EvaluateReport(
        settings=settings,
        num_rows=rows.num_rows,
        num_rows_left_out=num_given - rows.num_rows,
        num_groups=None if group_N is None else int(np.unique(group_N).size),
        num_blocks=blocks_drawn(rows.num_rows, drawn_N),
        drawn="rows" if drawn_N is None else "groups" if sides_N2 is None else "groups of both sides",
        bundle=first,
        others=tuple(compared),
        parts=parts,
        slices=slices,
        num_slices_left_out=num_left_out,
        warnings=(
            *find_warnings(first, compared, parts, rows.groups or (), drawn_N),
            *(pair_warnings(rows) if drawn_N is None and settings.resample == "auto" else ()),
        ),
        assay_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        out=settings.out,
    )
    if report.out is not None:
        write_report(report, report.out)
    return report


# ---------------------------------------------------------------- one bundle


@dataclass(frozen=True, kw_only=True, slots=True)
class _BundleOutputs:
    """What a bundle gave for all rows."""

    bundle: Bundle
    max_length: int
    """Tokens at which texts were cut."""
    engine: str
    seconds: float
    logits: LabelledLogits


def _forward(
    settings: EvaluateSettings,
    bundle: Bundle,
    rows: LabelledRows,
    *,
    is_alone: bool,
    advance: Callable[[float], None],
) -> _BundleOutputs:
    """A bundle's logits of the rows; a bundle that is evaluated alone must score them all."""
    began = time.perf_counter()
    refuse_texts(bundle, settings, are_pairs=rows.text_pairs is not None)
    precision = parse_precision(settings.precision, bundle, device=settings.device)
    make_engine = partial(
        engine_of, device=settings.device, precision=precision, num_threads=settings.num_threads
    )
    scorer = open_scorer(
        bundle, settings, make_engine, device=settings.device, max_batch_tokens=settings.max_batch_tokens
    )
    find = labelled_logits if is_alone else logits_or_reasons
    logits = find(scorer, rows, advance=advance)
    return _BundleOutputs(
        bundle=bundle,
        max_length=scorer.encoder.max_length,
        engine=scorer.description(),
        seconds=time.perf_counter() - began,
        logits=logits,
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """What people call bundles: their folders, with as many of those above as it takes to tell them apart."""
    parts = [path.absolute().parts for path in paths]
    names = [each[-1] for each in parts]
    num_parts = 1
    while len(set(names)) < len(names) and num_parts < max(map(len, parts)):
        num_parts += 1
        names = ["/".join(each[-num_parts:]) for each in parts]
    return names


def _scored_by_all(passes: Sequence[_BundleOutputs], num_rows: int) -> IntArray:
    """The rows that every bundle could score; raises `InputError` where there are none."""
    unscored = {row for each in passes for row in each.logits.unscored}
    kept = np.array([row for row in range(num_rows) if row not in unscored], dtype=np.int64)
    if not kept.size:
        reasons = sorted({code for each in passes for code in each.logits.unscored.values()})
        raise InputError(
            f"none of {num_rows:,} rows is scored by every bundle ({', '.join(reasons)}); they compare on the"
            " same rows; evaluate each by itself to see which fails"
        )
    return kept


def _evaluated(
    settings: EvaluateSettings,
    done: _BundleOutputs,
    name: str,
    rows: LabelledRows,
    kept: IntArray,
    labels: Sequence[str],
) -> Evaluated:
    """What a bundle says of `rows`, those that were kept, its outputs in the order of `labels`."""
    bundle = done.bundle
    targets = _targets(bundle, rows, labels)
    outcome = _outcome(bundle, predict(bundle.decider, done.logits.logits_NC[kept]), targets, labels)
    if rows.text_pairs is not None and bundle.task is Task.SINGLE_LABEL and len(labels) == TWO_LABELS:
        outcome = replace(outcome, unanswered_within=settings.unanswered_within)
    calibration = bundle.calibration
    before, after = {}, {}
    if calibration is not None and bundle.task.is_classifier:
        before, after = (
            {
                name: value
                for name, value in point_values(each, CALIBRATION_METRICS).items()
                if isinstance(value, float)
            }
            for each in (outcome.before_calibration(), outcome)
        )
    return Evaluated(
        path=bundle.path,
        name=name,
        fingerprint=bundle.fingerprint,
        task=bundle.task,
        labels=tuple(labels),
        calibration="none" if calibration is None else calibration.method,
        thresholds=bundle.decider.thresholds,
        max_length=done.max_length,
        notes=(*bundle.notes, *length_notes(bundle, settings, done.max_length)),
        engine=done.engine,
        seconds=done.seconds,
        num_tokens=done.logits.num_tokens,
        num_truncated=done.logits.num_truncated,
        unscored=Counter(done.logits.unscored.values()),
        outcome=outcome,
        before=before,
        after=after,
        by_label={}
        if bundle.task is Task.REGRESSION
        else {label: label_values(outcome, index) for index, label in enumerate(labels)},
        worst=_worst(outcome, rows, labels, show_texts=settings.show_texts),
        seen=find_seen(rows, bundle.provenances),
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


def _targets(
    bundle: Bundle, rows: LabelledRows, labels: Sequence[str] | None = None
) -> IntArray | FloatArray:
    """The rows' labels as indices into `labels`, by default the bundle's own; a regression's targets."""
    labels = bundle.labels if labels is None else labels
    if bundle.task is Task.REGRESSION:
        values = np.array(rows.labels, dtype=np.float64)
        if not np.isfinite(values).all():
            count = int((~np.isfinite(values)).sum())
            raise InputError(
                f"{count} of {values.size} targets are NaN or infinite; a metric needs numbers; drop these rows"
            )
        return values
    targets = to_targets(generic_names(rows.labels, labels), bundle.task, labels)
    return targets.astype(np.int64)


def _sides(settings: EvaluateSettings, rows: LabelledRows) -> IntArray | None:
    """The groups of both sides of each pair, [N, 2], where their columns are named."""
    if not settings.group_columns:
        return None
    columns = []
    for name in settings.group_columns:
        column = tuple(each for each in rows.keys[name] if each is not None)
        if missing := rows.num_rows - len(column):
            raise InputError(
                f"{missing:,} of {rows.num_rows:,} rows have null for {name}; drawing groups needs that of"
                " both sides of every pair; drop or fix these rows"
            )
        columns.append(column)
    return group_indices(*columns)


def _check_named_once(settings: EvaluateSettings) -> None:
    named = [Path(each).resolve() for each in (settings.bundle, *settings.against)]
    twice = [each for each, count in Counter(named).items() if count > 1]
    if twice:
        raise UsageError(f"{twice[0]} is named twice; a bundle does not differ from itself; name it once")


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
    folders = [Path(each).resolve() for each in (settings.bundle, *settings.against)]
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
    first: Evaluated,
    others: Sequence[Evaluated],
    resampling: Resampling,
    group_N: IntArray | None,
    on_progress: OnProgress,
) -> tuple[Part, ...]:
    """All rows, those that no bundle has seen, and those of groups that none has seen."""
    kept: dict[str, IntArray | None] = {"all rows": None}
    row_N, seen_group_N = first.seen.row_N, first.seen.group_N
    for other in others:
        row_N, seen_group_N = row_N | other.seen.row_N, seen_group_N | other.seen.group_N
    if row_N.any() and not row_N.all():
        kept["without rows seen before"] = np.flatnonzero(~row_N)
    if (seen_group_N != row_N).any() and not seen_group_N.all():
        kept["without groups seen before"] = np.flatnonzero(~seen_group_N)
    return tuple(
        _part(name, first, others, resampling, rows, group_N, partial(on_progress, f"resampling {name}"))
        for name, rows in kept.items()
    )


def _slices(
    first: Evaluated,
    others: Sequence[Evaluated],
    resampling: Resampling,
    rows: LabelledRows,
    sides_N2: IntArray | None,
    on_progress: OnProgress,
) -> tuple[tuple[Part, ...], int]:
    """Each group's rows, the largest groups first; and how many groups are left out."""
    if rows.groups is None:
        return (), 0
    rows_of: dict[str, list[int]] = {}
    for row, group in enumerate(rows.groups):
        rows_of.setdefault(group, []).append(row)
    largest = sorted(rows_of.items(), key=lambda item: (-len(item[1]), item[0]))[:MOST_SLICES]
    found: list[Part] = []
    for group, kept in largest:
        on_progress("resampling groups", len(found) / len(largest))
        found.append(
            _part(
                group,
                first,
                others,
                resampling,
                np.array(kept, dtype=np.int64),
                sides_N2,
                lambda _share: None,
            )
        )
    return tuple(found), len(rows_of) - len(largest)


def _part(
    name: str,
    first: Evaluated,
    others: Sequence[Evaluated],
    resampling: Resampling,
    rows: IntArray | None,
    group_N: IntArray | None,
    advance: Callable[[float], None],
) -> Part:
    if rows is None:
        outcomes = [each.outcome for each in (first, *others)]
    else:
        outcomes = [each.outcome.take(rows) for each in (first, *others)]
        group_N = None if group_N is None else group_N[rows]
    return measure(name, outcomes[0], outcomes[1:], resampling, group_N, advance)


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
