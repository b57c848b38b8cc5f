"""Labelled pairs of documents to `style_calibration.json`: the main path of `assay style calibrate`.

    rows -> none seen before -> chunks -> k of each document -> one number a pair -> map, cross-validated, for each k

Axes: M pairs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from assay import metrics
from assay._version import __version__
from assay.books.windows import sample_order
from assay.bundle.calibration import STYLE_CALIBRATION_FILE
from assay.calibrate.affine import fit_logistic
from assay.calibrate.disjoint import refuse_seen
from assay.calibrate.folds import fold_rows
from assay.calibrate.isotonic import fit_isotonic
from assay.compare.compare import document_rules, oriented, positive_label
from assay.compare.reading import read_text
from assay.compare.settings import StyleCalibrateSettings
from assay.compare.style_calibration import StyleCalibration, StyleMap, describe, write_style_calibration
from assay.errors import InputError
from assay.extras import need_packages
from assay.labelled.labels import generic_names, to_targets
from assay.labelled.read import read_labelled
from assay.labelled.rows import LabelledRows
from assay.metrics import FloatArray, IntArray
from assay.outcome.calibration import Calibration
from assay.outcome.maps import map_scores
from assay.siamese.documents import Document, DocumentCutter, compare_documents, encode_documents
from assay.siamese.files import read_siamese
from assay.siamese.pairs import SiameseModel, load_siamese
from assay.siamese.settings import Aggregate
from assay.tasks import Task

Bools = npt.NDArray[np.bool_]
_BY_DEFAULT = (1, 2, 4, 8, 16, 32)
_METHODS = ("logistic", "isotonic")
"""The plainer first: it is chosen where both are equally good."""
_MEASURED = ("brier", "ece")


@dataclass(frozen=True, kw_only=True, slots=True)
class StyleReport:
    """What a calibration of documents found."""

    file: Path
    """`style_calibration.json`."""
    calibration: StyleCalibration
    """What it says."""
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """A line a number of chunks, then notes."""
        return "\n".join(
            [
                f"calibrated for documents: {self.file}",
                *describe(self.calibration.maps),
                *(f"note: {note}" for note in self.notes),
            ]
        )


def style_calibrate(
    settings: StyleCalibrateSettings, *, say: Callable[[str], None] | None = None
) -> StyleReport:
    """Fits maps from the number that compares two documents to the probability that they belong together.

    One for each number of chunks; where `settings` names none, one that too few pairs have is left out, and a note says
    so. Raises InputError where rows were part of the training, have one label alone, or have no documents of so many
    chunks; the old file is then untouched.
    """
    need_packages("sklearn", used_by="assay style calibrate")
    bundle = read_siamese(settings.bundle)
    label = positive_label(bundle, settings.label)
    rows = read_labelled(settings.data, settings, task=Task.SINGLE_LABEL)
    notes = refuse_seen(bundle, rows)
    if settings.paths:
        rows = _with_texts(rows)
    labels = generic_names(rows.labels, bundle.labels)
    holds_M = to_targets(labels, Task.SINGLE_LABEL, bundle.labels) == label
    if holds_M.all() or not holds_M.any():
        raise InputError(
            f"all {rows.num_rows} pairs are labelled {rows.labels[0]!r}; a calibration needs pairs of both labels; add"
            " others"
        )
    model = load_siamese(
        settings.bundle,
        device=settings.device,
        max_length=settings.max_length,
        num_threads=settings.num_threads,
        say=say,
    )
    cutter = DocumentCutter(bundle, settings, max_length=settings.max_length or bundle.default_max_length)
    pairs = _Pairs.cut(cutter, rows)
    aggregate: Aggregate = settings.aggregate or "vectors"
    maps = []
    for num_chunks in _numbers_of_chunks(settings, pairs, holds_M):
        kept_M = pairs.with_chunks(num_chunks)
        score_M = oriented(
            pairs.scores(model, num_chunks, kept_M, aggregate, settings.seed), aggregate, label
        )
        groups = None if rows.groups is None else [rows.groups[row] for row in np.flatnonzero(kept_M)]
        try:
            maps.append(_fit(settings, num_chunks, score_M, holds_M[kept_M], groups))
        except InputError as error:
            if settings.num_chunks or not maps:  # it was asked for, or there is no other
                raise
            notes = (*notes, f"no map of {num_chunks} chunks: {error}")
    calibration = StyleCalibration(
        bundle_fingerprint=model.bundle.fingerprint,
        meta=_meta(
            settings, cutter, bundle.path, document_rules(cutter, settings, aggregate, bundle.labels[label])
        ),
        maps=tuple(maps),
    )
    file = bundle.path / STYLE_CALIBRATION_FILE if settings.out is None else Path(settings.out)
    write_style_calibration(file, calibration)
    return StyleReport(file=file, calibration=calibration, notes=notes)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pairs:
    """Distinct documents, and which two each pair is."""

    documents: tuple[Document, ...]
    first_M: IntArray
    second_M: IntArray

    @classmethod
    def cut(cls, cutter: DocumentCutter, rows: LabelledRows) -> "_Pairs":
        assert rows.text_pairs is not None, "the settings ask for a second text"
        places: dict[str, int] = {}
        first, second = (
            np.array([places.setdefault(text, len(places)) for text in side], dtype=np.int64)
            for side in (rows.texts, rows.text_pairs)
        )
        documents = tuple(cutter.cut(text, name=f"document {number + 1}") for text, number in places.items())
        return cls(documents=documents, first_M=first, second_M=second)

    def sizes(self) -> IntArray:
        """The chunks of the shorter document of each pair, [M]."""
        sizes = np.array([len(document.passages) for document in self.documents])
        found: IntArray = np.minimum(sizes[self.first_M], sizes[self.second_M])
        return found

    def with_chunks(self, num_chunks: int) -> Bools:
        """Which pairs have two documents of so many chunks."""
        found: Bools = self.sizes() >= num_chunks
        return found

    def scores(
        self, model: SiameseModel, num_chunks: int, kept_M: Bools, aggregate: Aggregate, seed: int
    ) -> FloatArray:
        """The number that compares the documents of these pairs, each made of so many of its chunks."""
        first, second = self.first_M[kept_M], self.second_M[kept_M]
        used, places = np.unique(np.concatenate([first, second]), return_inverse=True)
        parts = [_part(self.documents[number], num_chunks, seed) for number in used.tolist()]
        encoded = encode_documents(model, parts)
        return compare_documents(model, encoded, places[: len(first)], places[len(first) :], aggregate)


def _part(document: Document, num_chunks: int, seed: int) -> Document:
    """A document of so many of its chunks, the same in each of its pairs."""
    order = sample_order(len(document.passages), seed=seed, book_id=document.text)
    return document.take(sorted(order[:num_chunks]))


def _numbers_of_chunks(settings: StyleCalibrateSettings, pairs: _Pairs, holds_M: Bools) -> list[int]:
    """Those asked for, else powers of two as far as pairs of both labels have them."""

    def has_both(num_chunks: int) -> bool:
        kept = holds_M[pairs.with_chunks(num_chunks)]
        return bool(kept.any() and not kept.all())

    if not settings.num_chunks:
        return [num_chunks for num_chunks in _BY_DEFAULT if has_both(num_chunks)]
    asked = sorted({int(number) for number in settings.num_chunks})
    for num_chunks in asked:
        if not has_both(num_chunks):
            raise InputError(
                f"num_chunks {num_chunks}; no pairs of both labels have two documents of as many, the longest pair has"
                f" {int(pairs.sizes().max())}; give longer documents or a smaller number"
            )
    return asked


def _fit(
    settings: StyleCalibrateSettings,
    num_chunks: int,
    score_M: FloatArray,
    holds_M: Bools,
    groups: Sequence[str] | None,
) -> StyleMap:
    """The map of the method asked for, or of the one that is better on pairs held out together."""
    fold_M = fold_rows(
        len(score_M),
        num_folds=settings.num_folds,
        seed=settings.seed,
        strata=holds_M.astype(np.int64),
        groups=groups,
    )
    measured: dict[str, Mapping[str, float]] = {}
    failed: list[str] = []
    for method in _METHODS if settings.method == "auto" else (settings.method,):
        try:
            measured[method] = _cross_validated(method, score_M, holds_M, fold_M)
        except InputError as error:
            failed.append(str(error))
    if not measured:
        raise InputError(f"pairs of {num_chunks} chunks: {failed[0]}")
    scores = {method: found[settings.select_by] for method, found in measured.items()}
    chosen = min(scores, key=lambda method: scores[method])
    return StyleMap(
        num_chunks=num_chunks,
        num_pairs=len(score_M),
        map=_fit_map(chosen, score_M, holds_M),
        scores=scores,
        cross_validated=measured[chosen],
    )


def _fit_map(method: str, score_M: FloatArray, holds_M: Bools) -> Calibration:
    if holds_M.all() or not holds_M.any():
        raise InputError(
            f"{len(holds_M)} pairs are of one label; a map needs both in all folds but one; add pairs or lower"
            " --num-folds"
        )
    if method == "isotonic":
        return Calibration(method="isotonic", steps=(fit_isotonic(score_M, holds_M),))
    scale, bias = fit_logistic(score_M, holds_M)
    return Calibration(method="logistic", scale=(scale,), bias=(bias,))


def _cross_validated(
    method: str, score_M: FloatArray, holds_M: Bools, fold_M: IntArray
) -> Mapping[str, float]:
    """Metrics of probabilities of each fold by the map of the others."""
    probability_M = np.empty(len(score_M))
    for fold in np.unique(fold_M):
        held_out = fold_M == fold
        fitted = _fit_map(method, score_M[~held_out], holds_M[~held_out])
        probability_M[held_out] = map_scores(score_M[held_out], fitted)
    report = metrics.class_report(
        np.stack([1 - probability_M, probability_M], axis=1), holds_M.astype(np.int64)
    )
    return {**{name: report[name] for name in _MEASURED}, "auc": metrics.auc(holds_M, score_M)}


def _with_texts(rows: LabelledRows) -> LabelledRows:
    """The rows with the texts of the files that they name, each read once."""
    assert rows.text_pairs is not None, "the settings ask for a second text"
    texts = {path: read_text(path) for path in (*rows.texts, *rows.text_pairs)}
    return replace(
        rows,
        texts=tuple(texts[path] for path in rows.texts),
        text_pairs=tuple(texts[path] for path in rows.text_pairs),
    )


def _meta(
    settings: StyleCalibrateSettings, cutter: DocumentCutter, folder: Path, rules: Mapping[str, object]
) -> Mapping[str, object]:
    return {
        **rules,
        "overlap": 0,
        "topk": None,
        "max_length": cutter.max_length,
        "model_dir": str(folder),
        "selection_metric": settings.select_by,
        "n_splits": settings.num_folds,
        "method_requested": settings.method,
        "group_column": settings.group_column,
        "seed": settings.seed,
        "assay_version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
