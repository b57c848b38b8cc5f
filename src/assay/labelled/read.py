"""Labelled rows, read from sources whole; a value that is not a label is counted, shown and refused."""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from assay.data.columns import is_textual
from assay.data.finding import find_sources
from assay.data.ids import python_values
from assay.data.reading import read_rows
from assay.data.rows import SourceRows
from assay.data.sources import Columns, Source
from assay.errors import SourceError
from assay.labelled.labels import Label, brief
from assay.labelled.rows import LabelledRows
from assay.labelled.settings import LabelledSources
from assay.tasks import Task

_L = TypeVar("_L", bound=Label)
_V = TypeVar("_V")
_MAX_FLOAT32 = float(np.finfo(np.float32).max)

_NEEDS: dict[Task, str] = {
    Task.SINGLE_LABEL: "strings, whole numbers or booleans; for lists of labels the task is multi_label",
    Task.MULTI_LABEL: (
        'lists of names, or JSON arrays as text such as ["sports", "tennis"];'
        " for one label a row the task is single_label"
    ),
    Task.REGRESSION: "numbers; for named labels the task is single_label",
}
"""What a label column holds, and the way out where it holds something else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledBatch:
    """Consecutive rows of one source: those that can be used, and what is wrong with the others."""

    source: Source
    start: int
    """Row of the source at which the batch begins."""
    num_rows: int
    """Rows of the batch, the unusable ones included."""
    rows: LabelledRows
    """The usable rows, in order."""
    source_rows: tuple[int, ...]
    """Row of the source of each of them."""
    unusable: dict[int, str]
    """By row of the source, in order: what is wrong with it, such as `without a label`."""


def read_labelled(
    patterns: Sequence[str], settings: LabelledSources, *, task: Task, keys: tuple[str, ...] = ()
) -> LabelledRows:
    """All rows of the sources, in order; `settings` name their columns and their format, `keys` others to read.

    Labels are, by task: a name, from a column of strings, whole numbers or booleans; a tuple of
    names, from a column of lists of them or of JSON arrays as text (no name at all is a label too);
    a number, from any numeric column or numbers as text. Groups and ids become strings.

    Raises `SourceError` where a row has no usable text, label, group or id: a model must not learn
    from a part of what it was given without anyone noticing.
    """
    found: list[LabelledRows] = []
    for source in find_labelled(patterns, settings, keys):
        problems = _Problems()
        found += [batch.rows for batch in _read_source(source, settings, task, problems, keys)]
        if problems.counts:
            raise SourceError(f"{source.uri}: {problems.describe(source.num_rows)}")
    rows = _joined(found, settings, keys)
    if not rows.num_rows:
        raise no_rows(patterns)
    return rows


def find_labelled(
    patterns: Sequence[str], settings: LabelledSources, keys: tuple[str, ...] = ()
) -> list[Source]:
    """The sources that `settings` can be read from, looked at once; raises `SourceError` for others."""
    columns = _columns(settings, keys)
    return find_sources(patterns, format=settings.format, delimiter=settings.delimiter, columns=columns)


def read_batches(
    sources: Sequence[Source], settings: LabelledSources, *, task: Task
) -> Iterator[LabelledBatch]:
    """The rows of the sources as `read_labelled` reads them, a batch at a time; unusable ones are named, not refused.

    Raises `SourceError` where a label column has a type that holds no label of the task.
    """
    for source in sources:
        yield from _read_source(source, settings, task, _Problems())


def no_rows(patterns: Sequence[str]) -> SourceError:
    """The error for sources without any row."""
    return SourceError(f"{', '.join(patterns)}: 0 rows; labelled rows are needed; name other sources")


def _columns(settings: LabelledSources, keys: tuple[str, ...] = ()) -> Columns:
    return Columns(
        text=settings.text_column,
        text_pair=settings.text_pair_column,
        id=settings.id_column,
        label=settings.label_column,
        group=settings.group_column,
        keys=keys,
    )


def _read_source(
    source: Source,
    settings: LabelledSources,
    task: Task,
    problems: "_Problems",
    keys: tuple[str, ...] = (),
) -> Iterator[LabelledBatch]:
    """The batches of one source; what is wrong with its rows is noted in `problems` too."""
    columns = _columns(settings, keys)
    for rows in read_rows(source, columns, 0, source.num_rows):
        noted = _Noted(rows=rows, problems=problems)
        for at, code in rows.errors.items():
            noted.note(at, _Unusable(code))
        if rows.labels is not None and not _may_hold_labels(rows.labels.type, task):
            raise SourceError(
                f"{source.uri}: label column {columns.label!r} is {rows.labels.type};"
                f" a {task} column holds {_NEEDS[task]}"
            )
        labels = _converted(noted, rows.labels, _LABEL_OF[task], missing="without a label")
        groups = _converted(noted, rows.groups, _name, missing="without a group")
        ids = _converted(noted, rows.ids, _name, missing="without an id") if columns.id is not None else None
        named = {name: _keys(column) for name, column in rows.keys.items()}
        usable = [at for at in range(rows.num_rows) if at not in noted.unusable]
        yield LabelledBatch(
            source=source,
            start=rows.start,
            num_rows=rows.num_rows,
            rows=LabelledRows(
                texts=_taken(_texts(rows.texts), usable) or (),
                labels=_taken(labels, usable) or (),
                text_pairs=_taken(_texts(rows.text_pairs), usable) if columns.text_pair is not None else None,
                groups=_taken(groups, usable) if columns.group is not None else None,
                ids=_taken(ids, usable),
                keys={name: tuple(column[at] for at in usable) for name, column in named.items()},
            ),
            source_rows=tuple(rows.start + at for at in usable),
            unusable={rows.start + at: code for at, code in sorted(noted.unusable.items())},
        )


def _joined(found: Sequence[LabelledRows], settings: LabelledSources, keys: tuple[str, ...]) -> LabelledRows:
    """The rows of all batches end to end."""

    def column(take: Callable[[LabelledRows], tuple[Any, ...] | None]) -> tuple[Any, ...]:
        return tuple(chain.from_iterable(take(rows) or () for rows in found))

    return LabelledRows(
        texts=column(lambda rows: rows.texts),
        labels=column(lambda rows: rows.labels),
        text_pairs=column(lambda rows: rows.text_pairs) if settings.text_pair_column is not None else None,
        groups=column(lambda rows: rows.groups) if settings.group_column is not None else None,
        ids=column(lambda rows: rows.ids) if settings.id_column is not None else None,
        keys={name: tuple(chain.from_iterable(rows.keys[name] for rows in found)) for name in keys},
    )


def _keys(column: pa.Array) -> list[str | None]:
    """What rows belong to, as names; None for null and for white space, which a CSV has for it."""
    names = [None if value is None else _name(value) for value in python_values(column)]
    return [name if name is not None and name.strip() else None for name in names]


def _taken(column: Sequence[_V | None] | None, rows: Sequence[int]) -> tuple[_V, ...] | None:
    """The values of these rows, all of which have one."""
    return None if column is None else tuple(value for row in rows if (value := column[row]) is not None)


# ---------------------------------------------------------------- a value of a column as a label


_EVERY_ROW_NEEDS = "every row needs a text and a usable label (group, id where named)"


class _Unusable(Exception):  # noqa: N818  not an error of the program: a finding about one value
    """What is wrong with a value, as it is counted, and what would be right."""

    def __init__(self, code: str, wanted: str = _EVERY_ROW_NEEDS) -> None:
        super().__init__(code)
        self.code = code
        self.wanted = wanted


@dataclass(slots=True)
class _Problems:
    """The rows of a source that cannot be used: how many of each kind, and the first."""

    counts: dict[str, int] = field(default_factory=dict)
    first_row: int = 0
    first: str = ""
    """The value of the first row, where it is one that is shown, and what would be right."""

    def note(self, row: int, found: _Unusable, value: object = None) -> None:
        if not self.counts or row < self.first_row:
            shown = "" if value is None else f", {brief(repr(value))}"
            self.first_row, self.first = row, f"{shown}; {found.wanted}"
        self.counts[found.code] = self.counts.get(found.code, 0) + 1

    def describe(self, num_rows: int) -> str:
        """One line: how many of so many rows, what is wrong, the first value, the way out."""
        found = ", ".join(f"{count:,} {code}" for code, count in self.counts.items())
        return (
            f"{sum(self.counts.values()):,} of {num_rows:,} rows cannot be used ({found}),"
            f" the first is row {self.first_row} (from 0){self.first}; fix or drop these rows"
        )


def _texts(column: pa.Array | None) -> list[str]:
    return [] if column is None else [text or "" for text in column.to_pylist()]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Noted:
    """What is wrong with the rows of one batch, noted for the whole source too."""

    rows: SourceRows
    problems: _Problems
    unusable: dict[int, str] = field(default_factory=dict)
    """By place in the batch, the first thing that was found."""

    def note(self, at: int, found: _Unusable, value: object = None) -> None:
        self.problems.note(self.rows.start + at, found, value)
        self.unusable.setdefault(at, found.code)


def _converted(
    noted: _Noted, column: pa.Array | None, convert: Callable[[object], _L], *, missing: str
) -> list[_L | None]:
    """Each value of a column; None, and a note, for one that cannot be used."""
    converted: list[_L | None] = []
    for at, value in enumerate([] if column is None else python_values(column)):
        try:
            converted.append(convert(_present(value, missing)))
        except _Unusable as found:
            converted.append(None)
            # A row that is broken as a whole is counted as that alone.
            if at not in noted.rows.errors:
                noted.note(at, found, value)
    return converted


def _present(value: object, missing: str) -> object:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise _Unusable(missing)
    return value


def _may_hold_labels(kind: pa.DataType, task: Task) -> bool:
    types = pa.types
    if task == Task.MULTI_LABEL and not is_textual(kind):
        # Lists of every kind; a map is one too, of pairs.
        items = None if types.is_map(kind) else getattr(kind, "value_type", None)
        return items is not None and (
            is_textual(items) or bool(types.is_integer(items) or types.is_boolean(items))
        )
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return is_textual(kind) or bool(is_number or (task == Task.SINGLE_LABEL and types.is_boolean(kind)))


def _name(value: object) -> str:
    """A scalar as a name: 1 and 1.0 are "1", true is "true"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _Unusable("with NaN or infinity for a name")
        return str(int(value)) if value.is_integer() else str(value)
    return str(value)


def _single_label(value: object) -> str:
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            raise _Unusable("with NaN as a label")
        if value != int(value):
            raise _Unusable(
                "with a fraction as a label", "labels are names; for numbers the task is regression"
            )
        return str(int(value))
    return _name(value)


def _label_set(value: object) -> tuple[str, ...]:
    items = value
    if isinstance(value, str | bytes):
        try:
            items = json.loads(value)
        except ValueError:
            items = None
    if not isinstance(items, list) or any(isinstance(item, dict | list | float) for item in items):
        raise _Unusable(
            "with a label that is not a list of names",
            f"write a list, or a JSON array as text: {_as_list(value)}; for one label a row the task is single_label",
        )
    names = tuple(_name(item) for item in items if item is not None)
    if len(names) < len(items) or not all(name.strip() for name in names):
        raise _Unusable("with an empty name in a list", "leave it out of the list")
    if len(set(names)) < len(names):
        raise _Unusable(
            "with a list that names a label twice",
            "write the names of the labels that the row has, not a 0 or 1 for each label",
        )
    return names


def _as_list(value: object) -> str:
    """How a text would be written as a list of names: `a; b` as `["a", "b"]`."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if not isinstance(text, str) or not re.fullmatch(r"[^\[\]{}]{1,40}", text):
        return '["sports", "tennis"]'
    return json.dumps(
        [name for each in re.split(r"[,;|]", text) if (name := each.strip())], ensure_ascii=False
    )


def _number(value: object) -> float:
    assert isinstance(value, str | bytes | int | float | Decimal)
    try:
        number = float(value)
    except ValueError:
        raise _Unusable(
            "with a label that is not a number", "write numbers; for named labels the task is single_label"
        ) from None
    if math.isnan(number):
        raise _Unusable("with NaN as a label")
    if not abs(number) <= _MAX_FLOAT32:
        raise _Unusable("with an infinite label (beyond float32)", "scale the numbers")
    return number


_LABEL_OF: dict[Task, Callable[[object], Label]] = {
    Task.SINGLE_LABEL: _single_label,
    Task.MULTI_LABEL: _label_set,
    Task.REGRESSION: _number,
}
