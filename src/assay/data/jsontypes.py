"""Arrow types for JSON values: inferred from the first rows, then held to by every later one.

Scalars are bool, int64, float64 or string; integers among floats are floats, any other mixture is
string. Whole numbers beyond int64 are kept as strings, so that no id loses a digit.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from assay.errors import SourceError

MAX_DEPTH = 16
_INT64 = range(-(2**63), 2**63)
_EXACT_FLOAT = range(-(2**53), 2**53 + 1)


def parse_object(line: bytes) -> dict[str, Any] | None:
    """The JSON object on a line, None where it holds none; bytes that are no UTF-8 become lone surrogates."""
    try:
        value = json.loads(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def infer_schema(records: Iterable[bytes]) -> pa.Schema:
    """The columns that the objects on `records` show; empty where no record is an object."""
    kind = pa.null()
    for record in records:
        value = parse_object(record)
        if value is not None:
            kind = _merge(kind, _type_of(value))
    return pa.schema([kind.field(index) for index in range(kind.num_fields)])


def infer_type(values: Iterable[object]) -> pa.DataType:
    """The one type that holds these parsed values: a mixture of scalars is string, no value is null."""
    kind = pa.null()
    for value in values:
        kind = _merge(kind, _type_of(value))
    return kind


def _type_of(value: object, depth: int = 0) -> pa.DataType:
    if value is None:
        return pa.null()
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64() if value in _INT64 else pa.string()
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, str) or depth >= MAX_DEPTH:
        return pa.string()
    if isinstance(value, list):
        items = pa.null()
        for item in value:
            items = _merge(items, _type_of(item, depth + 1))
        return pa.list_(items)
    assert isinstance(value, dict)
    return pa.struct([(_clean(key), _type_of(item, depth + 1)) for key, item in value.items()])


def _merge(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if {one, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.types.is_list(one) and pa.types.is_list(other):
        return pa.list_(_merge(one.value_type, other.value_type))
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        fields = {one.field(index).name: one.field(index).type for index in range(one.num_fields)}
        for index in range(other.num_fields):
            field = other.field(index)
            fields[field.name] = _merge(fields.get(field.name, pa.null()), field.type)
        return pa.struct(list(fields.items()))
    return pa.string()


def _clean(key: str) -> str:
    return key.encode("utf-8", "surrogateescape" if key.isascii() else "replace").decode("utf-8", "replace")


def to_array(
    values: Sequence[object], kind: pa.DataType, *, first_row: int, uri: str, column: str
) -> pa.Array:
    """The values of one column, scalars or lists of scalars, as an array of `kind`.

    Raises SourceError naming the first row whose value does not fit the type that the first rows
    of the file showed. Strings must be valid Unicode.
    """
    if pa.types.is_list(kind):
        return _to_lists(values, kind, first_row=first_row, uri=uri, column=column)
    if pa.types.is_struct(kind):
        kind = pa.string()
    seen = {type(value) for value in values}
    if kind == pa.string() and seen - {str, type(None)}:
        values = [_as_text(value, first_row + index, uri, column) for index, value in enumerate(values)]
    elif kind == pa.string() or _all_fit(kind, seen, values):
        pass
    else:
        row, value = next(
            (first_row + index, value)
            for index, value in enumerate(values)
            if value is not None and not _all_fit(kind, {type(value)}, [value])
        )
        msg = (
            f"{uri} row {row}: {column!r} is {json.dumps(value)[:60]}, the first rows have {kind}; "
            "write all of the column in one type (strings hold any), or name another column"
        )
        raise SourceError(msg)
    return pa.array(values, kind)


def _to_lists(
    values: Sequence[object], kind: pa.ListType, *, first_row: int, uri: str, column: str
) -> pa.ListArray:
    is_text = kind.value_type == pa.string()
    lists: list[list[object] | None] = []
    for row, value in enumerate(values, first_row):
        items = value if isinstance(value, list) else None
        if items is not None and (is_text or any(isinstance(item, (dict, list)) for item in items)):
            items = [_as_text(item, row, uri, column) for item in items]
        lists.append(items)
    return pa.array(lists, kind)


def _all_fit(kind: pa.DataType, seen: set[type], values: Sequence[object]) -> bool:
    seen = seen - {type(None)}
    if kind == pa.bool_():
        return seen <= {bool}
    if kind == pa.int64():
        return seen <= {int} and all(value is None or value in _INT64 for value in values)
    if kind == pa.float64():
        return seen <= {int, float} and (
            int not in seen or all(not isinstance(value, int) or value in _EXACT_FLOAT for value in values)
        )
    return not seen


def _as_text(value: object, row: int, uri: str, column: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (dict, list)):
        shown = json.dumps(value)[:60]
        msg = f"{uri} row {row}: {column!r} is nested ({shown}); name a column of single values"
        raise SourceError(msg)
    return json.dumps(value)
