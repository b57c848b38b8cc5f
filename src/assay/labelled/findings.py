"""What is wrong with labelled rows, as an error in one line with the way out, and what is odd, as a line. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from unicodedata import normalize

import numpy as np

from assay.errors import InputError
from assay.labelled.labels import Label, brief, names_of
from assay.labelled.provenance import HashArray, HashKind
from assay.labelled.rows import LabelledRows
from assay.tasks import Task

SHOWN = 5
"""So many labels are named in a line."""
MANY_LABELS = 100
"""More different labels than this are said; it may be the wrong column."""
_FEW_LABELS = 20
"""So few different labels are never too many, however few rows there are."""
_LONG_LABEL = 40
_LARGEST_TARGET = 1e18
_KINDS: Mapping[Task, type | tuple[type, ...]] = {
    Task.SINGLE_LABEL: (str, Integral),
    Task.MULTI_LABEL: tuple,
    Task.REGRESSION: Real,
}

# ---------------------------------------------------------------- refused


def check_labels(labels: Sequence[Label], task: Task) -> None:
    """Raise `InputError` for labels of another task, and for numbers that are not finite."""
    odd = [label for label in labels if not isinstance(label, _KINDS[task])]
    if odd:
        raise InputError(
            f"{len(odd):,} of {len(labels):,} labels are not {task} labels, such as {odd[0]!r};"
            " single_label wants names, multi_label tuples of names, regression numbers; set task to match"
        )
    if task == Task.REGRESSION:
        _check_numbers(labels)


def check_label_column(labels: Sequence[Label], task: Task, column: str) -> None:
    """Raise `InputError` where labels have not even two rows each: nothing could be learned and measured."""
    names = set(map(str, labels)) if task == Task.SINGLE_LABEL else set()
    if len(names) > _FEW_LABELS and 2 * len(names) > len(labels):
        raise InputError(f"{_too_many(names, labels, column)}; name another one")


def _check_numbers(labels: Sequence[Label]) -> None:
    sizes_N = np.abs(np.array(labels, dtype=np.float64))
    bad = int((~(sizes_N <= np.finfo(np.float32).max)).sum())
    if not bad and sizes_N.max(initial=0) > _LARGEST_TARGET:
        raise InputError(
            f"targets up to {sizes_N.max():.3g}; their squared error is infinite in float32; scale them"
        )
    if bad:
        raise InputError(
            f"{bad:,} of {len(labels):,} targets are NaN or infinite; their loss is not a number; drop these rows"
        )


def check_apart(hashes: Mapping[HashKind, Mapping[str, HashArray]], *, num_validation_rows: int) -> None:
    """Raise `InputError` where a text, id or group lies in `train` and `validation`."""
    for kind, what, way_out in _SHARED:
        columns = hashes.get(kind, {})
        if len(columns) == 2:
            num_shared = int(np.isin(columns["validation"], columns["train"]).sum())
            if num_shared:
                raise InputError(
                    f"{num_shared} of {num_validation_rows} validation rows {what};"
                    f" a metric on them means nothing; {way_out}"
                )


_SHARED: tuple[tuple[HashKind, str, str], ...] = (
    ("text", "are training rows too", "remove them from one side"),
    ("id", "have the id of a training row", "remove them from one side, or name another id column"),
    ("group", "have the group of a training row", "move whole groups, or leave the group column out"),
)


# ---------------------------------------------------------------- said


def many_labels(labels: Sequence[Label], task: Task, column: str) -> Iterator[str]:
    """So many different labels that the column may be another one than was meant."""
    names = {name for label in labels for name in names_of(label)} if task.is_classifier else set()
    if len(names) > MANY_LABELS:
        yield f"{_too_many(names, labels, column)}; is it the right one?"


def look_alikes(names: Sequence[str]) -> Iterator[str]:
    """Labels whose names differ in a way that hardly tells two labels apart."""
    by_look: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_look[" ".join(normalize("NFKC", name).casefold().split())].append(name)
    for alike in by_look.values():
        if len(alike) > 1:
            yield (
                f"labels {[each[:80] for each in alike[:SHOWN]]} differ only in case, white space or the encoding of"
                " their characters, and are learned as different ones; write them alike if they are the same"
            )


def num_without_text(rows: LabelledRows) -> int:
    """How many rows have an empty text; of pairs, a side without one."""
    seconds = rows.text_pairs or rows.texts
    return sum(
        not (first.strip() and second.strip()) for first, second in zip(rows.texts, seconds, strict=True)
    )


def without_text(rows: LabelledRows) -> Iterator[str]:
    """Rows whose text is empty, or a side of a pair."""
    if count := num_without_text(rows):
        yield f"{count:,} of {rows.num_rows:,} training rows have an empty text: drop them unless they are meant"


def refuse_one_sided(rows: LabelledRows, what: str) -> None:
    """Raise `InputError` where a pair has a side without text; `what` says which pairs they are."""
    if count := num_without_text(rows):
        raise InputError(
            f"{count:,} of {rows.num_rows:,} {what} have a side without text; two texts are compared; drop these rows"
        )


def shared_books(train: LabelledRows, validation: LabelledRows, columns: Sequence[str]) -> str | None:
    """A sentence where validation pairs have a text of a book that training pairs have too; else None."""
    if not columns or not train.keys.keys() & validation.keys.keys() >= set(columns):
        return None
    known = {book for name in columns for book in train.keys[name] if book is not None}
    sides = [validation.keys[name] for name in columns]
    rows = [any(book in known for book in books) for books in zip(*sides, strict=True)]
    if not any(rows):
        return None
    example = next(book for books in zip(*sides, strict=True) for book in books if book in known)
    return (
        f"{sum(rows):,} of {len(rows):,} validation pairs are of books of training pairs too,"
        f" such as {brief(example)}"
    )


def conflicts(rows: LabelledRows, hashes: HashArray) -> Iterator[str]:
    """Equal texts with different labels; `hashes` are those of the texts."""
    keys = hashes.tolist()
    torn = conflicting(keys, rows.labels)
    if torn:
        yield (
            f"{sum(key in torn for key in keys):,} training rows have the text of a row with another label"
            f" ({len(torn):,} texts): no model can get them all right"
        )


def conflicting(hashes: Sequence[int], labels: Sequence[Label]) -> set[int]:
    """The hashes that occur with more than one label; the order of the names in a row does not count."""
    first: dict[int, object] = {}
    return {
        key
        for key, label in zip(hashes, map(as_value, labels), strict=True)
        if first.setdefault(key, label) != label
    }


def as_value(label: Label) -> object:
    """A label as what it means: two rows with the same names, in whatever order, have the same."""
    return frozenset(label) if isinstance(label, tuple) else label


def _too_many(names: set[str], labels: Sequence[Label], column: str) -> str:
    """How many different labels there are, and what the column may hold instead."""
    first = list(dict.fromkeys(name for label in labels for name in names_of(label)))
    if all(_is_number(name) for name in names):
        guess = "these look like numbers (for numbers the task is regression) or ids"
    elif sum(map(len, names)) > _LONG_LABEL * len(names):
        guess = "these look like texts"
    else:
        guess = "these may be ids, titles or names"
    counts = Counter(name for label in labels for name in names_of(label))
    once = sum(count == 1 for count in counts.values())
    return (
        f"label column {column!r} has {len(names):,} different labels in {len(labels):,} rows,"
        f" {once:,} of them in one row, such as {[*map(brief, first[:SHOWN])]}: {guess}"
    )


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
