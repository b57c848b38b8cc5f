"""Labelled rows, read from sources whole; a value that is not a label is counted, shown and refused."""

import glob
import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import NoReturn, TypeVar

import numpy as np
import pyarrow as pa

from assay.data.columns import is_textual
from assay.data.finding import find_sources
from assay.data.ids import python_values
from assay.data.reading import read_rows
from assay.data.rows import SourceRows
from assay.data.sources import Columns
from assay.data.storage import is_object_url, local_path
from assay.errors import SourceError
from assay.labelled.labels import Label
from assay.labelled.rows import LabelledRows
from assay.tasks import Task

_L = TypeVar("_L", bound=Label)
_MAX_FLOAT32 = float(np.finfo(np.float32).max)

_NEEDS: dict[Task, str] = {
    Task.SINGLE_LABEL: "strings, whole numbers or booleans; for lists of labels set --task multi_label",
    Task.MULTI_LABEL: "lists of names, or JSON arrays as text; for one label a row set --task single_label",
    Task.REGRESSION: "numbers; for named labels set --task single_label",
}
"""What a label column holds, and the way out where it holds something else."""


def read_labelled(
    patterns: Sequence[str],
    *,
    text_column: str,
    label_column: str,
    task: Task = Task.SINGLE_LABEL,
    text_pair_column: str | None = None,
    group_column: str | None = None,
    id_column: str | None = None,
    format: str | None = None,
) -> LabelledRows:
    """All rows of the sources, in order.

    Labels are, by task: a name, from a column of strings, whole numbers or booleans; a tuple of
    names, from a column of lists of them or of JSON arrays as text (no name at all is a label too);
    a number, from any numeric column or numbers as text. Groups and ids become strings.

    Raises `SourceError` where a row has no usable text, label, group or id: a model must not learn
    from a part of what it was given without anyone noticing.
    """
    columns = Columns(
        text=text_column, text_pair=text_pair_column, id=id_column, label=label_column, group=group_column
    )
    texts: list[str] = []
    labels: list[Label] = []
    pairs: list[str] = []
    groups: list[str] = []
    ids: list[str] = []
    for source in find_sources(patterns, format=format, columns=columns):
        problems: dict[str, list[int]] = defaultdict(list)
        for rows in read_rows(source, columns, 0, source.num_rows):
            for at, code in rows.errors.items():
                problems[code].append(rows.start + at)
            if rows.labels is not None and not _may_hold_labels(rows.labels.type, task):
                raise SourceError(
                    f"{source.uri}: label column {label_column!r} is {rows.labels.type};"
                    f" a {task} column holds {_NEEDS[task]}"
                )
            labels += _converted(rows, rows.labels, _LABEL_OF[task], problems, missing="no label")
            texts += _texts(rows.texts)
            pairs += _texts(rows.text_pairs)
            groups += _converted(rows, rows.groups, _name, problems, missing="no group")
            if id_column is not None:
                ids += _converted(rows, rows.ids, _name, problems, missing="no id")
        if problems:
            found = ", ".join(f"{len(where):,} {code}" for code, where in problems.items())
            first = min(row for where in problems.values() for row in where)
            raise SourceError(
                f"{source.uri}: {found} of {source.num_rows:,} rows, the first at row {first} (from 0);"
                " every row needs a text and a usable label (group, id where named); drop or mend these rows"
            )
    if not texts:
        raise SourceError(f"{', '.join(patterns)}: 0 rows; labelled rows are needed; name other sources")
    return LabelledRows(
        texts=tuple(texts),
        labels=tuple(labels),
        text_pairs=tuple(pairs) if text_pair_column is not None else None,
        groups=tuple(groups) if group_column is not None else None,
        ids=tuple(ids) if id_column is not None else None,
    )


def local_paths(patterns: Sequence[str]) -> list[Path]:
    """The files and folders of this machine that patterns of sources name, resolved; nothing is opened."""
    named = [str(local_path(each)) for each in patterns if not is_object_url(each)]
    found = [path for each in named for path in (each, *glob.glob(each, recursive=True))]  # noqa: PTH207  any root
    return [Path(path).resolve() for path in found]


# ---------------------------------------------------------------- a value of a column as a label


class _Unusable(Exception):  # noqa: N818  no error of the program: a finding about one value
    """What is wrong with a value, as it is counted."""


def _texts(column: pa.Array | None) -> list[str]:
    return [] if column is None else [text or "" for text in column.to_pylist()]


def _converted(
    rows: SourceRows,
    column: pa.Array | None,
    convert: Callable[[object], _L],
    problems: dict[str, list[int]],
    *,
    missing: str,
) -> list[_L]:
    """Each value of a column; one that cannot be used is noted in `problems` by row of the source and left out."""
    converted: list[_L] = []
    for at, value in enumerate([] if column is None else python_values(column)):
        try:
            is_missing = value is None or (isinstance(value, str) and not value.strip())
            converted.append(_refuse(missing) if is_missing else convert(value))
        except _Unusable as found:
            # A row that is broken as a whole is counted as that alone.
            if at not in rows.errors:
                problems[str(found)].append(rows.start + at)
    return converted


def _refuse(code: str) -> NoReturn:
    raise _Unusable(code)


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
            raise _Unusable("NaN or infinite where a name is wanted")
        return str(int(value)) if value.is_integer() else str(value)
    return str(value)


def _single_label(value: object) -> str:
    if isinstance(value, float | Decimal):
        if not math.isfinite(value):
            raise _Unusable("NaN as a label")
        if value != int(value):
            raise _Unusable("fraction as a label (--task regression takes numbers)")
        return str(int(value))
    return _name(value)


def _label_set(value: object) -> tuple[str, ...]:
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, list) or any(isinstance(item, dict | list | float) for item in value):
        raise _Unusable("label that is no list of names")
    names = tuple(_name(item) for item in value if item is not None)
    if len(names) < len(value) or not all(name.strip() for name in names):
        raise _Unusable("list with an empty name")
    if len(set(names)) < len(names):
        raise _Unusable("list that names a label twice (write the names of a row's labels, no 0/1 vector)")
    return names


def _number(value: object) -> float:
    assert isinstance(value, str | bytes | int | float | Decimal)
    try:
        number = float(value)
    except ValueError:
        raise _Unusable("label that is no number") from None
    if math.isnan(number):
        raise _Unusable("NaN as a label")
    if not abs(number) <= _MAX_FLOAT32:
        raise _Unusable("infinite label (beyond float32)")
    return number


_LABEL_OF: dict[Task, Callable[[object], Label]] = {
    Task.SINGLE_LABEL: _single_label,
    Task.MULTI_LABEL: _label_set,
    Task.REGRESSION: _number,
}
