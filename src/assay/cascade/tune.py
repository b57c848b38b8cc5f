"""`assay cascade tune`: the steps in order.

    two models, labelled pairs -> none seen before -> both models' probabilities, timed -> combination, thresholds
    -> what each threshold costs and keeps -> the cheapest that keeps the recall -> JSON and a page

Axes: M pairs.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from assay import metrics
from assay._version import __version__
from assay.calibrate.folds import fold_rows
from assay.cascade.choose import AuthorResampling, Choices, ChosenThresholds, find_choices
from assay.cascade.findings import Alone, CascadeReport, Point
from assay.cascade.report import render
from assay.cascade.settings import CascadeTuneSettings
from assay.cascade.stages import Pairs, Stage, open_stages
from assay.data.storage import local_path, replace_file, writable_place
from assay.errors import InputError, UsageError
from assay.evaluate.seen import find_seen
from assay.extras import need_packages
from assay.labelled.findings import refuse_one_sided
from assay.labelled.labels import generic_names, to_targets
from assay.labelled.provenance import hashes_of, packed_provenance
from assay.labelled.read import read_labelled
from assay.labelled.rows import LabelledRows
from assay.labelled.settings import LabelledSources
from assay.metrics import BoolArray, FloatArray
from assay.score.cascade.decide import Answers, Thresholds, answer, combined, fit_combination
from assay.score.cascade.files import CascadeFile, StageEntry, write_cascade
from assay.tasks import Task

CURVE_POINTS = 60
FEW_AUTHORS = 20
NUM_FOLDS = 5
_WARM_UP_PAIRS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scored:
    """Both models' probabilities of the label."""

    first_M: FloatArray
    second_M: FloatArray
    holds_M: BoolArray
    crossed_M: FloatArray
    """Both combined, by a combination that other pairs were fitted on."""
    seconds: tuple[float, float]

    def answers(self, thresholds: Thresholds) -> Answers:
        """What a cascade says of the pairs."""
        return answer(
            thresholds,
            self.first_M,
            lambda rows: self.second_M[rows],
            lambda _, __, rows: self.crossed_M[rows],
        )

    def point(self, chosen: ChosenThresholds) -> Point:
        """What thresholds do to the pairs."""
        answers = self.answers(chosen.thresholds)
        share = float(answers.goes_on_M.mean())
        first, second = self.seconds
        return Point(
            chosen=chosen,
            share=share,
            cost=(first + share * second) / second,
            accuracy=float((answers.holds_M == self.holds_M).mean()),
            auc=metrics.auc(self.holds_M, answers.final_M),
        )


def cascade_tune(settings: CascadeTuneSettings) -> CascadeReport:
    """Finds the thresholds of two models on labelled pairs; writes `settings.out` and a page beside it.

    The cheapest thresholds whose recall has a lower bound of `settings.recall` are taken; accuracy and AUC are of
    combinations that were fitted on other pairs. Raises `InputError` where pairs were seen in training or
    calibration, have one label alone, or show no such recall; `BundleError` for models that are not two of pairs
    with the same two labels.
    """
    need_packages("sklearn", used_by="assay cascade tune")
    out = local_path(settings.out)
    if out.is_dir():
        raise UsageError(f"out={settings.out} is a folder; name a file")
    writable_place(out, f"out={settings.out}")
    stages = open_stages(
        settings.first, settings.second, device=settings.device, num_threads=settings.num_threads
    )
    labels = (stages[0].labels[0], stages[0].labels[1])
    rows = _read(settings)
    holds_M = to_targets(generic_names(rows.labels, labels), Task.SINGLE_LABEL, labels).astype(np.int64) == 1
    _refuse_one_label(holds_M, labels)
    refuse_one_sided(rows, "pairs")
    _refuse_seen(stages, rows)
    scored = _score(settings, stages, rows, holds_M, labels[1])
    resampling = _resampling(settings, rows)
    choices = find_choices(
        scored.first_M,
        holds_M,
        confidence=settings.confidence,
        two_sided=settings.two_sided,
        resampling=resampling,
    )
    chosen = choices.choose(settings.recall)
    cascade = CascadeFile(
        labels=labels,
        thresholds=chosen.thresholds,
        combination=fit_combination(scored.first_M, scored.second_M, holds_M),
        first=_entry(stages[0], out),
        second=_entry(stages[1], out),
        provenance=packed_provenance(hashes_of({"tuning": rows})),
    )
    report = CascadeReport(
        settings=settings,
        cascade=cascade,
        point=scored.point(chosen),
        curve=tuple(scored.point(each) for each in _levels(choices)),
        first=_alone(cascade.first, scored.first_M, holds_M, scored.seconds[0]),
        second=_alone(cascade.second, scored.second_M, holds_M, scored.seconds[1]),
        num_pairs=rows.num_rows,
        num_with_label=int(holds_M.sum()),
        num_authors=None if resampling is None else int(resampling.authors_PA.max()) + 1,
        page=str(Path(settings.out).with_suffix(".html")),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    report = replace(report, notes=tuple(_notes(report)))
    _write(report)
    return report


def _read(settings: CascadeTuneSettings) -> LabelledRows:
    columns = LabelledSources(
        text_column=settings.text_column,
        text_pair_column=settings.text_pair_column,
        label_column=settings.label_column,
        format=settings.format,
        delimiter=settings.delimiter,
    )
    return read_labelled(settings.data, columns, task=Task.SINGLE_LABEL, keys=settings.author_columns)


def _refuse_one_label(holds_M: BoolArray, labels: tuple[str, str]) -> None:
    if holds_M.all() or not holds_M.any():
        label = labels[int(holds_M.all())]
        raise InputError(
            f"all {holds_M.size:,} pairs have the label {label}; a threshold needs pairs of both labels; add the others"
        )


def _refuse_seen(stages: Sequence[Stage], rows: LabelledRows) -> None:
    for stage in stages:
        if num_seen := int(find_seen(rows, stage.bundle.provenances).row_N.sum()):
            raise InputError(
                f"{num_seen:,} of {rows.num_rows:,} pairs were seen when {stage.path} was trained or calibrated;"
                " thresholds on them would be too sure; give other pairs"
            )


def _score(
    settings: CascadeTuneSettings,
    stages: tuple[Stage, Stage],
    rows: LabelledRows,
    holds_M: BoolArray,
    label: str,
) -> _Scored:
    pairs = list(zip(rows.texts, rows.text_pairs or (), strict=True))
    (first_M, first_seconds), (second_M, second_seconds) = (_timed(stage, pairs, label) for stage in stages)
    return _Scored(
        first_M=first_M,
        second_M=second_M,
        holds_M=holds_M,
        crossed_M=_crossed(first_M, second_M, holds_M, settings.seed),
        seconds=(first_seconds, second_seconds),
    )


def _timed(stage: Stage, pairs: Pairs, label: str) -> tuple[FloatArray, float]:
    stage.probabilities(pairs[:_WARM_UP_PAIRS], label)
    began = time.perf_counter()
    found_M, errors = stage.probabilities(pairs, label)
    seconds = time.perf_counter() - began
    bad = np.flatnonzero(~np.isfinite(found_M))
    if bad.size:
        code = errors.get(int(bad[0]), "a probability that is not a number")
        raise InputError(
            f"{bad.size:,} of {len(pairs):,} pairs have no probability by {stage.path}, the first is pair {bad[0]}"
            f" ({code}); figures must be of all pairs; drop or fix these"
        )
    return found_M, seconds


def _crossed(first_M: FloatArray, second_M: FloatArray, holds_M: BoolArray, seed: int) -> FloatArray:
    """Both models combined, each fold of the pairs by a combination fitted on the others."""
    fewest = int(min(holds_M.sum(), (~holds_M).sum()))
    if fewest < NUM_FOLDS:
        raise InputError(
            f"{fewest} pairs of one label; {NUM_FOLDS} or more of each are needed; add such pairs"
        )
    fold_M = fold_rows(holds_M.size, num_folds=NUM_FOLDS, seed=seed, strata=holds_M.astype(np.int64))
    crossed_M = np.empty(first_M.shape)
    for fold in range(NUM_FOLDS):
        out = fold_M == fold
        combination = fit_combination(first_M[~out], second_M[~out], holds_M[~out])
        crossed_M[out] = combined(combination, first_M[out], second_M[out])
    return crossed_M


def _resampling(settings: CascadeTuneSettings, rows: LabelledRows) -> AuthorResampling | None:
    """The authors of the pairs; raises `InputError` where one is missing."""
    if not settings.author_columns:
        return None
    columns = [rows.keys[name] for name in settings.author_columns]
    for name, column in zip(settings.author_columns, columns, strict=True):
        if num_missing := column.count(None):
            raise InputError(
                f"{num_missing:,} of {rows.num_rows:,} pairs have no {name}; authors are drawn, so each pair needs"
                " one; fill it, or leave --author-columns out"
            )
    _, code = np.unique(np.array(columns, dtype=object).astype(str), return_inverse=True)
    codes_CM: NDArray[np.int64] = code.reshape(len(columns), -1).astype(np.int64)
    return AuthorResampling(
        authors_PA=np.stack([codes_CM[0], codes_CM[-1]], axis=1),
        num_resamples=settings.resamples,
        seed=settings.seed,
    )


def _levels(choices: Choices) -> Iterator[ChosenThresholds]:
    """Thresholds over the whole range of what can be kept, the fewest pairs turned away first."""
    bounds = np.unique(choices.with_label.bound_K)[::-1]
    most = 1.0 if choices.without_label is None else float(choices.without_label.bound_K.max())
    bounds = bounds[(bounds > 0) & (bounds <= most)]
    for at in np.unique(np.linspace(0, bounds.size - 1, min(CURVE_POINTS, bounds.size)).astype(np.int64)):
        yield choices.choose(float(bounds[at]))


def _alone(entry: StageEntry, probability_M: FloatArray, holds_M: BoolArray, seconds: float) -> Alone:
    return Alone(
        stage=entry,
        pairs_per_second=probability_M.size / seconds,
        accuracy=float(((probability_M >= 0.5) == holds_M).mean()),
        auc=metrics.auc(holds_M, probability_M),
    )


def _entry(stage: Stage, out: Path) -> StageEntry:
    path = os.path.relpath(stage.path, out.absolute().parent)
    return StageEntry(path=path, kind=stage.kind, fingerprint=stage.bundle.fingerprint)


def _notes(report: CascadeReport) -> Iterator[str]:
    """What a reader must know before trusting the cascade."""
    if report.num_authors is None:
        yield (
            "no --author-columns: the bound takes pairs for independent; pairs of the same authors are not, so it is"
            " too sure of them"
        )
    elif report.num_authors < FEW_AUTHORS:
        yield f"{report.num_authors} authors: too few to say how the recall varies between authors"
    if report.point.share == 1:
        yield "every pair reaches the second model: a lower --recall or a better first model saves something"
    elif report.point.cost >= 1:
        yield "the cascade costs more than the second model alone: the first model is too slow for what it decides"
    if report.point.auc < report.first.auc:
        yield "the first model alone ranks the pairs better than the cascade: the second does not help"


# ---------------------------------------------------------------- what is written


def _write(report: CascadeReport) -> None:
    settings = report.settings
    found = {
        "chosen": _point_content(report.point),
        "asked": {
            "recall": settings.recall,
            "confidence": settings.confidence,
            "two_sided": settings.two_sided,
            "bound": "clopper-pearson"
            if report.num_authors is None
            else "the lower of clopper-pearson and a bootstrap of authors",
        },
        "alone": {
            name: {"pairs_per_second": each.pairs_per_second, "accuracy": each.accuracy, "auc": each.auc}
            for name, each in (("first", report.first), ("second", report.second))
        },
        "curve": [_point_content(each) for each in report.curve],
        "meta": {
            "data": list(settings.data),
            "num_pairs": report.num_pairs,
            "num_with_label": report.num_with_label,
            "num_authors": report.num_authors,
            "device": settings.device,
            "resamples": settings.resamples,
            "seed": settings.seed,
            "assay_version": __version__,
            "created": report.created,
            "notes": list(report.notes),
        },
    }
    write_cascade(settings.out, report.cascade, found)
    replace_file(report.page, render(report))


def _point_content(point: Point) -> dict[str, float | None]:
    chosen = point.chosen
    return {
        "low": chosen.thresholds.low,
        "high": chosen.thresholds.high,
        "recall": chosen.recall,
        "recall_bound": chosen.recall_bound,
        "kept_others": chosen.kept_others,
        "kept_others_bound": chosen.kept_others_bound,
        "share": point.share,
        "cost": point.cost,
        "accuracy": point.accuracy,
        "auc": point.auc,
    }
