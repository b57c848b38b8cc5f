"""Rows as training wants them: read, split, and checked before the first step.

    sources -> labelled rows -> training and validation rows -> label names, hashes, report, warnings

What cannot work is refused here, in one line with the way out; what is odd but may be meant becomes
a warning line.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from assay.errors import InputError
from assay.extras import has_package, missing_line
from assay.labelled.division import SplitRules, divide, num_near
from assay.labelled.findings import (
    SHOWN,
    check_apart,
    check_label_column,
    check_labels,
    conflicts,
    look_alikes,
    many_labels,
    refuse_one_sided,
    shared_books,
    without_text,
)
from assay.labelled.labels import Label, brief, label_names, names_of
from assay.labelled.provenance import MAX_HASHES, HashArray, HashKind, hashes_of, packed_provenance
from assay.labelled.read import read_labelled
from assay.labelled.rows import LabelledRows
from assay.labelled.splits import SplitReport, split_report
from assay.tasks import Task
from assay.train.settings import TrainSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Rows that can be trained on, and what is known about them."""

    train: LabelledRows
    """Rows to learn from, in the order of the sources."""
    validation: LabelledRows
    """Rows that choose the checkpoint; they share no text, id or group with the others."""
    names: tuple[str, ...]
    """Names of the outputs, in their order."""
    split: SplitReport
    """Sizes and balance, for people."""
    provenance: Mapping[str, Mapping[str, str]]
    """`text_hashes`, and `id_hashes` and `group_hashes` where there are such columns, by role, packed."""
    warnings: tuple[str, ...]
    """One line each about what is odd."""


def prepare_rows(settings: TrainSettings) -> Prepared:
    """The rows of `settings.data`, split or beside those of `settings.validation_data`, checked.

    Raises `SourceError`, `InputError` or `UsageError` where a training on them cannot work.
    """
    task = settings.predicts
    rows = _read(settings, settings.data)
    if settings.validation_data:
        return prepare_given(settings, rows, _read(settings, settings.validation_data))
    check_labels(rows.labels, task)
    check_label_column(rows.labels, task, settings.label_column)
    rules = SplitRules(
        validation_share=settings.validation_share,
        near_duplicates=settings.near_duplicates,
        seed=settings.seed,
    )
    division = divide(rows, task, rules)
    sides = {"train": division.train, "validation": division.validation}
    warnings = list(division.warnings)
    if settings.is_siamese and (
        shared := shared_books(division.train, division.validation, settings.book_columns)
    ):
        warnings.append(
            f"{shared}: metrics on them are too good; name a group_column, or give validation_data of other books"
        )
    return _prepared(settings, sides, hashes_of(sides), division.report, warnings)


def prepare_given(
    settings: TrainSettings, train_rows: LabelledRows, validation_rows: LabelledRows
) -> Prepared:
    """Rows that were split by someone else, checked; a row, id or group on both sides is refused.

    Near-duplicates on both sides are counted and become a warning. Raises `InputError`.
    """
    if validation_rows.num_rows == 0:
        raise InputError("0 validation rows; they choose the epoch; give more rows or raise validation_share")
    if train_rows.num_rows == 0:
        raise InputError("0 training rows; there is nothing to learn from; give more rows")
    if (train_rows.text_pairs is None) != (validation_rows.text_pairs is None):
        raise InputError(
            "one of training and validation has pairs and the other single texts; give both the same columns"
        )
    task = settings.predicts
    check_labels(train_rows.labels, task)
    check_labels(validation_rows.labels, task)
    sides = {"train": train_rows, "validation": validation_rows}
    hashes = hashes_of(sides)
    check_apart(hashes, num_validation_rows=validation_rows.num_rows)
    if settings.is_siamese and (shared := shared_books(train_rows, validation_rows, settings.book_columns)):
        raise InputError(
            f"{shared}; a metric on them means nothing; move whole books, or leave book_columns out"
        )
    report = split_report({role: rows.labels for role, rows in sides.items()}, task)
    warnings = _near_crossings(train_rows, validation_rows) if settings.near_duplicates else ()
    return _prepared(settings, sides, hashes, report, warnings)


def _read(settings: TrainSettings, patterns: tuple[str, ...]) -> LabelledRows:
    keys = (*settings.book_columns, *settings.author_columns) if settings.is_siamese else ()
    rows = read_labelled(patterns, settings, task=settings.predicts, keys=keys)
    return rows if settings.limit_rows is None else rows.sample(settings.limit_rows, seed=settings.seed)


def _prepared(
    settings: TrainSettings,
    sides: Mapping[str, LabelledRows],
    hashes: Mapping[HashKind, Mapping[str, HashArray]],
    report: SplitReport,
    warnings: Iterable[str],
) -> Prepared:
    train, validation = sides["train"], sides["validation"]
    if settings.is_siamese:
        refuse_one_sided(train, "training pairs")
        refuse_one_sided(validation, "validation pairs")
    names = _checked_names(train.labels, validation.labels, settings)
    provenance = packed_provenance(hashes)
    return Prepared(
        train=train,
        validation=validation,
        names=names,
        split=report,
        provenance=provenance,
        warnings=(
            *warnings,
            *many_labels(train.labels, settings.predicts, settings.label_column),
            *look_alikes(names),
            *without_text(train),
            *conflicts(train, hashes["text"]["train"]),
            *_unmeasured(report),
            *_not_kept(hashes, provenance),
        ),
    )


# ---------------------------------------------------------------- refused


def _checked_names(
    train: Sequence[Label], validation: Sequence[Label], settings: TrainSettings
) -> tuple[str, ...]:
    """Names of the outputs; raises `InputError` where nothing can be learned or measured."""
    names = label_names(train, settings.predicts)
    if settings.predicts is Task.REGRESSION:
        if len(set(train)) == 1:
            raise InputError(f"all targets are {train[0]}; there is nothing to learn; check the label column")
        if len(set(validation)) == 1 and settings.chosen_by == "spearman":
            raise InputError(
                f"all validation targets are {validation[0]}; their Spearman correlation is not defined;"
                " set best_by = mae, or give more rows"
            )
        return names
    if settings.predicts is Task.MULTI_LABEL and len({frozenset(names_of(label)) for label in train}) == 1:
        raise InputError(
            f"all training rows have the labels {[*map(brief, names_of(train[0])[:SHOWN])]};"
            " there is nothing to learn; check the label column"
        )
    held = Counter(name for label in validation for name in names_of(label))
    if settings.chosen_by == "auc" and all(held[name] in {0, len(validation)} for name in names):
        raise InputError(
            f"each label holds in all {len(validation):,} validation rows or in none; their AUC is not defined;"
            " set best_by = nll, or give more rows"
        )
    if settings.predicts is Task.SINGLE_LABEL and len(names) < 2:
        raise InputError(
            f"labels {[*map(brief, names)]}; a classifier needs at least two; check the label column"
        )
    unknown = sorted({name for label in validation for name in names_of(label)} - set(names))
    if unknown:
        raise InputError(
            f"validation labels {[*map(brief, unknown[:SHOWN])]} never occur in training; both need the same labels;"
            " add training rows or drop these"
        )
    return names


# ---------------------------------------------------------------- said


def _near_crossings(train: LabelledRows, validation: LabelledRows) -> Iterator[str]:
    if not has_package("rensa"):
        said = missing_line("rensa", used_by="near_duplicates")
        yield f"near-duplicates between training and validation rows were not looked for: {said}"
    elif count := num_near(train, validation):
        yield (
            f"{count:,} of {validation.num_rows:,} validation rows are near-duplicates of training rows:"
            " metrics on them are too good; remove them, or leave validation_data out and let the rows be split"
        )


def _unmeasured(report: SplitReport) -> Iterator[str]:
    """Labels without a validation row."""
    missing = [label for label, counts in report.num_rows_by_label.items() if not counts["validation"]]
    if missing:
        yield (
            f"{len(missing):,} of {len(report.num_rows_by_label):,} labels have no validation row, such as"
            f" {[*map(brief, missing[:SHOWN])]}: how good the model is on them is not measured"
        )


def _not_kept(
    hashes: Mapping[HashKind, Mapping[str, HashArray]], kept: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    for kind, columns in hashes.items():
        for role in columns:
            if role not in kept.get(f"{kind}_hashes", {}):
                yield (
                    f"{role} has more than {MAX_HASHES:,} rows: the bundle keeps no {kind} hashes of them,"
                    " so that calibrate and evaluate cannot tell which rows were seen"
                )
