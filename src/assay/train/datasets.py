"""Rows as training wants them: read, split, and checked before the first step.

    sources -> labelled rows -> training and validation rows -> label names, hashes, report, warnings

What cannot work is refused here, in one line with the way out; what is odd but may be meant becomes
a warning line.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from unicodedata import normalize

import numpy as np

from assay.errors import InputError
from assay.extras import has_package, missing_line
from assay.labelled.labels import Label, brief, label_names, names_of
from assay.labelled.near_duplicates import group_near_duplicates
from assay.labelled.provenance import MAX_HASHES, HashArray, packed_hashes, text_hashes
from assay.labelled.read import read_labelled
from assay.labelled.rows import LabelledRows
from assay.labelled.splits import SplitReport, split_report, split_rows, strata, unite_groups
from assay.tasks import Task
from assay.train.settings import TrainSettings

_SHOWN = 5
_LARGEST_TARGET = 1e18


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
    rows = _read(settings, settings.data)
    if settings.validation_data:
        return prepare_given(settings, rows, _read(settings, settings.validation_data))
    _check_targets(rows.labels, Task(settings.task))
    hashes = text_hashes(rows.texts, rows.text_pairs)
    near = group_near_duplicates(rows.texts, rows.text_pairs) if settings.near_duplicates else None
    ties = (hashes.tolist(), near, rows.groups, rows.ids)
    united = unite_groups(*(column for column in ties if column is not None))
    _check_groups(settings, rows, united)
    share = settings.validation_share
    splits = split_rows(
        strata(rows.labels, Task(settings.task)),
        united,
        {"train": 1 - share, "validation": share},
        seed=settings.seed,
        keys=hashes.tolist(),
    )
    train = rows.take([row for row, name in enumerate(splits) if name == "train"])
    validation = rows.take([row for row, name in enumerate(splits) if name == "validation"])
    if not validation.num_rows or not train.num_rows:
        raise InputError(_empty_split(settings, Counter(united)))
    report = split_report(
        {"train": train.labels, "validation": validation.labels},
        Task(settings.task),
        groups=rows.groups,
        near_duplicates=near,
        united=united,
    )
    warnings = []
    wanted = share * rows.num_rows
    if abs(validation.num_rows - wanted) > max(1, wanted / 2):
        warnings.append(
            f"validation has {validation.num_rows:,} rows where validation_share={share} asks for {wanted:,.0f}:"
            " the groups are large"
        )
    return _prepared(settings, train, validation, report, warnings)


def prepare_given(
    settings: TrainSettings, train_rows: LabelledRows, validation_rows: LabelledRows
) -> Prepared:
    """Rows that were split by someone else, checked; a row, id or group on both sides is refused.

    Near-duplicates on both sides are counted and become a warning. Raises `InputError`.
    """
    if validation_rows.num_rows == 0:
        raise InputError(
            "0 validation rows; they choose the epoch; hand in more rows or raise validation_share"
        )
    if train_rows.num_rows == 0:
        raise InputError("0 training rows; there is nothing to learn from; hand in more rows")
    if (train_rows.text_pairs is None) != (validation_rows.text_pairs is None):
        raise InputError(
            "one of training and validation has pairs and the other single texts; give both the same columns"
        )
    _check_targets(train_rows.labels, Task(settings.task))
    _check_targets(validation_rows.labels, Task(settings.task))
    _check_apart(train_rows, validation_rows)
    report = split_report(
        {"train": train_rows.labels, "validation": validation_rows.labels}, Task(settings.task)
    )
    warnings = _near_crossings(train_rows, validation_rows) if settings.near_duplicates else ()
    return _prepared(settings, train_rows, validation_rows, report, tuple(warnings))


def _read(settings: TrainSettings, patterns: tuple[str, ...]) -> LabelledRows:
    return read_labelled(
        patterns,
        task=Task(settings.task),
        text_column=settings.text_column,
        text_pair_column=settings.text_pair_column,
        label_column=settings.label_column,
        group_column=settings.group_column,
        id_column=settings.id_column,
        format=settings.format,
    )


def _prepared(
    settings: TrainSettings,
    train: LabelledRows,
    validation: LabelledRows,
    report: SplitReport,
    warnings: Sequence[str],
) -> Prepared:
    names = _checked_names(train.labels, validation.labels, settings)
    hashes = _hashes(train, validation)
    provenance = {kind: packed_hashes(columns) for kind, columns in hashes.items()}
    return Prepared(
        train=train,
        validation=validation,
        names=names,
        split=report,
        provenance=provenance,
        warnings=(
            *warnings,
            *_look_alikes(names),
            *_without_text(train),
            *_conflicts(train, hashes["text_hashes"]["train"]),
            *_unmeasured(report),
            *_not_kept(hashes, provenance),
        ),
    )


def _hashes(train: LabelledRows, validation: LabelledRows) -> dict[str, dict[str, HashArray]]:
    """Hashes by kind and role."""
    sides = {"train": train, "validation": validation}
    hashes = {"text_hashes": {role: text_hashes(rows.texts, rows.text_pairs) for role, rows in sides.items()}}
    for kind, name in (("id_hashes", "ids"), ("group_hashes", "groups")):
        columns = {role: getattr(rows, name) for role, rows in sides.items()}
        found = {role: text_hashes(column) for role, column in columns.items() if column is not None}
        if found:
            hashes[kind] = found
    return hashes


# ---------------------------------------------------------------- refused


def _check_targets(labels: Sequence[Label], task: Task) -> None:
    """Raise `InputError` for labels of another task, and for targets that are no finite numbers."""
    kinds: dict[Task, type | tuple[type, ...]] = {
        Task.SINGLE_LABEL: (str, Integral),
        Task.MULTI_LABEL: tuple,
        Task.REGRESSION: Real,
    }
    odd = [label for label in labels if not isinstance(label, kinds[task])]
    if odd:
        raise InputError(
            f"{len(odd):,} of {len(labels):,} labels are no {task} labels, such as {odd[0]!r};"
            " single_label wants names, multi_label tuples of names, regression numbers; set task to match"
        )
    if task == Task.REGRESSION:
        sizes_N = np.abs(np.array(labels, dtype=np.float64))
        bad = int((~(sizes_N <= np.finfo(np.float32).max)).sum())
        if not bad and sizes_N.max() > _LARGEST_TARGET:
            raise InputError(
                f"targets up to {sizes_N.max():.3g}; their squared error is infinite in float32; scale them"
            )
        if bad:
            raise InputError(
                f"{bad:,} of {len(labels):,} targets are NaN or infinite; a loss of them is no number; drop these rows"
            )


def _check_groups(settings: TrainSettings, rows: LabelledRows, united: Sequence[int]) -> None:
    """Raise `InputError` for a group that fits into neither split."""
    largest, size = Counter(united).most_common(1)[0]
    room = max(settings.validation_share, 1 - settings.validation_share) * rows.num_rows
    if rows.num_rows == 1 or size <= max(1, room):
        return
    members = [row for row, group in enumerate(united) if group == largest]
    by_column = Counter(rows.groups[row] for row in members).most_common(1)[0] if rows.groups else ("", 0)
    if by_column[1] > room:
        raise InputError(
            f"group {by_column[0]!r} of column {settings.group_column} has {by_column[1]:,} of {rows.num_rows:,} rows,"
            f" the larger split {room:,.0f}; a group lies in one split; choose a finer group column, or name"
            " validation_data"
        )
    raise InputError(
        f"{size:,} of {rows.num_rows:,} rows are tied together (equal or nearly equal texts, groups, ids), the larger"
        f" split has {room:,.0f}; drop the repeats, set near_duplicates = false, or name validation_data"
    )


def _empty_split(settings: TrainSettings, groups: Counter[int]) -> str:
    num_rows, least = groups.total(), min(groups.values())
    share = min(settings.validation_share, 1 - settings.validation_share)
    if len(groups) == 1:
        reason = "all rows are tied together" if num_rows > 1 else "there is one row"
    elif least > share * num_rows:
        reason = f"that is {share * num_rows:,.1f} rows and the smallest group has {least:,}"
    else:
        reason = "each label must occur in training first"
    return (
        f"{num_rows:,} rows at validation_share={settings.validation_share} leave a split empty: {reason};"
        " hand in more rows, change validation_share, or name validation_data"
    )


def _check_apart(train: LabelledRows, validation: LabelledRows) -> None:
    """Raise `InputError` where a text, id or group lies on both sides."""
    hashes = _hashes(train, validation)
    for kind, what, way_out in (
        ("text_hashes", "are training rows too", "remove them from one side"),
        (
            "id_hashes",
            "have the id of a training row",
            "remove them from one side, or name another id column",
        ),
        (
            "group_hashes",
            "have the group of a training row",
            "move whole groups, or leave the group column out",
        ),
    ):
        columns = hashes.get(kind, {})
        if len(columns) == 2:
            num_shared = int(np.isin(columns["validation"], columns["train"]).sum())
            if num_shared:
                raise InputError(
                    f"{num_shared} of {validation.num_rows} validation rows {what};"
                    f" a metric on them means nothing; {way_out}"
                )


def _checked_names(
    train: Sequence[Label], validation: Sequence[Label], settings: TrainSettings
) -> tuple[str, ...]:
    """Names of the outputs; raises `InputError` where nothing can be learned or measured."""
    names = label_names(train, Task(settings.task))
    if settings.task == "regression":
        if len(set(train)) == 1:
            raise InputError(f"all targets are {train[0]}; there is nothing to learn; check the label column")
        if len(set(validation)) == 1 and settings.chosen_by == "spearman":
            raise InputError(
                f"all validation targets are {validation[0]}; their Spearman correlation is not defined;"
                " set best_by = mae, or hand in more rows"
            )
        return names
    if settings.task == "multi_label" and len({frozenset(names_of(label)) for label in train}) == 1:
        raise InputError(
            f"all training rows have the labels {[*map(brief, names_of(train[0])[:_SHOWN])]};"
            " there is nothing to learn; check the label column"
        )
    held = Counter(name for label in validation for name in names_of(label))
    if settings.chosen_by == "auc" and all(held[name] in {0, len(validation)} for name in names):
        raise InputError(
            f"each label holds in all {len(validation):,} validation rows or in none; their AUC is not defined;"
            " set best_by = nll, or hand in more rows"
        )
    if settings.task == "single_label" and len(names) < 2:
        raise InputError(
            f"labels {[*map(brief, names)]}; a classifier needs at least 2; check the label column"
        )
    unknown = sorted({name for label in validation for name in names_of(label)} - set(names))
    if unknown:
        raise InputError(
            f"validation labels {[*map(brief, unknown[:_SHOWN])]} never occur in training; both need the same labels;"
            " add training rows or drop these"
        )
    return names


# ---------------------------------------------------------------- said


def _near_crossings(train: LabelledRows, validation: LabelledRows) -> Iterator[str]:
    if not has_package("rensa"):
        said = missing_line("rensa", used_by="near_duplicates")
        yield f"near-duplicates between training and validation rows were not looked for: {said}"
        return
    pairs = None
    if train.text_pairs is not None and validation.text_pairs is not None:
        pairs = train.text_pairs + validation.text_pairs
    groups = group_near_duplicates(train.texts + validation.texts, pairs)
    trained = set(groups[: train.num_rows])
    num_near = sum(group in trained for group in groups[train.num_rows :])
    if num_near:
        yield (
            f"{num_near:,} of {validation.num_rows:,} validation rows are near-duplicates of training rows:"
            " metrics on them flatter; remove them, or leave validation_data out and let the rows be split"
        )


def _look_alikes(names: Sequence[str]) -> Iterator[str]:
    """Labels whose names differ in a way that hardly tells two labels apart."""
    by_look: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_look[" ".join(normalize("NFKC", name).casefold().split())].append(name)
    for alike in by_look.values():
        if len(alike) > 1:
            yield (
                f"labels {[each[:80] for each in alike[:_SHOWN]]} differ only in case, white space or the encoding of"
                " their characters, and are learned as different ones; write them alike if they are the same"
            )


def _without_text(train: LabelledRows) -> Iterator[str]:
    seconds = train.text_pairs or ("",) * train.num_rows
    count = sum(
        not (first.strip() or second.strip()) for first, second in zip(train.texts, seconds, strict=True)
    )
    if count:
        yield f"{count:,} of {train.num_rows:,} training rows have an empty text: drop them unless they are meant"


def _conflicts(train: LabelledRows, hashes: HashArray) -> Iterator[str]:
    """Equal training texts with different labels."""
    labels_of: dict[int, set[object]] = defaultdict(set)
    keys = hashes.tolist()
    for key, label in zip(keys, train.labels, strict=True):
        labels_of[key].add(frozenset(label) if isinstance(label, tuple) else label)
    torn = {key for key, labels in labels_of.items() if len(labels) > 1}
    if torn:
        yield (
            f"{sum(key in torn for key in keys):,} training rows have a text that another row labels otherwise"
            f" ({len(torn):,} texts): no model can get them all right"
        )


def _unmeasured(report: SplitReport) -> Iterator[str]:
    """Labels without a validation row."""
    missing = [label for label, counts in report.num_rows_by_label.items() if not counts["validation"]]
    if missing:
        yield (
            f"{len(missing):,} of {len(report.num_rows_by_label):,} labels have no validation row, such as"
            f" {[*map(brief, missing[:_SHOWN])]}: nothing is known about them"
        )


def _not_kept(
    hashes: Mapping[str, Mapping[str, HashArray]], kept: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    for kind, columns in hashes.items():
        for role in columns:
            if role not in kept[kind]:
                yield (
                    f"{role} has more than {MAX_HASHES:,} rows: the bundle keeps no {kind} of them,"
                    " so that calibrate and evaluate cannot tell which rows were seen"
                )
