"""Finding a column by the name a user gave: dotted paths, nearest names, what a type may be used for."""

import difflib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from assay.errors import SourceError

SHOWN_COLUMNS = 20


def column_path(schema: pa.Schema, name: str) -> tuple[str, ...] | None:
    """The steps from the top of `schema` to the column `name`; None where there is none.

    A literal column name wins over a path into structs: with a column "doc.text" and a struct
    "doc" that has a field "text", "doc.text" is the former.
    """
    return _steps(list(schema), name)


def _steps(fields: list[pa.Field], name: str) -> tuple[str, ...] | None:
    by_name = {field.name: field for field in fields}
    if name in by_name:
        return (name,)
    for cut in range(len(name) - 1, 0, -1):
        field = by_name.get(name[:cut]) if name[cut] == "." else None
        if field is not None and pa.types.is_struct(field.type):
            rest = _steps(_struct_fields(field.type), name[cut + 1 :])
            if rest is not None:
                return (field.name, *rest)
    return None


def type_at(schema: pa.Schema, path: tuple[str, ...]) -> pa.DataType:
    """The type of the column at `path`, as `column_path` gave it."""
    kind = schema.field(path[0]).type
    for step in path[1:]:
        kind = kind.field(step).type
    return kind


def find_column(schema: pa.Schema, name: str, *, uri: str, option: str) -> tuple[str, ...]:
    """The path of the column `name`.

    Raises SourceError with the nearest names where there is none, and where two have the name.
    """
    path = column_path(schema, name)
    if path is not None:
        _refuse_twice(schema, path, uri)
        return path
    names = list(_leaf_names(list(schema)))
    nearest = difflib.get_close_matches(name, names, n=3)
    hint = f"; nearest: {', '.join(map(repr, nearest))}" if nearest else ""
    shown = ", ".join(names[:SHOWN_COLUMNS]) + (", ..." if len(names) > SHOWN_COLUMNS else "")
    msg = f"{uri} has no column {name!r}{hint}. Columns: {shown or '(none)'}. Set {option}."
    raise SourceError(msg)


def value_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values themselves: without dictionary, run ends or extension."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return kind


def values_of(array: pa.Array) -> pa.Array:
    """The values themselves, of the type that `value_type` gives."""
    while array.type != value_type(array.type):
        if isinstance(array.type, pa.BaseExtensionType):
            array = array.storage
        elif pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        else:
            array = without_run_ends(array)
    return array


def without_run_ends(array: pa.Array) -> pa.Array:
    """An array of runs as one of values, of whatever type; any other as it is."""
    if not pa.types.is_run_end_encoded(array.type):
        return array
    # Arrow itself decodes runs of some types only, not of dictionaries
    places = pa.array(range(len(array.values)), pa.int64())
    runs = pa.RunEndEncodedArray.from_arrays(array.run_ends, places).slice(array.offset, len(array))
    values, kind = array.values, array.type.value_type
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):  # which cannot be taken from
        values = values.cast(pa.large_string() if pa.types.is_string_view(kind) else pa.large_binary())
    values = values.take(pc.run_end_decode(runs))
    return values if values.type == kind else values.cast(kind)


def is_textual(kind: pa.DataType) -> bool:
    """True where a column of this type may hold text: strings, bytes, dictionaries of them, all null."""
    kind = value_type(kind)
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_null(kind)
    )


def is_token_ids(kind: pa.DataType) -> bool:
    """True for a list, of any kind, of integers."""
    types = pa.types
    is_list = (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )
    return bool(is_list and (types.is_integer(kind.value_type) or types.is_null(kind.value_type)))


def _refuse_twice(schema: pa.Schema, path: tuple[str, ...], uri: str) -> None:
    fields = list(schema)
    for depth, step in enumerate(path, 1):
        named = [field for field in fields if field.name == step]
        if len(named) > 1:
            msg = (
                f"{uri} has {len(named)} columns named {'.'.join(path[:depth])!r}; "
                "give each column that is read a name of its own"
            )
            raise SourceError(msg)
        fields = _struct_fields(named[0].type) if depth < len(path) else []


def _struct_fields(kind: pa.DataType) -> list[pa.Field]:
    return [kind.field(index) for index in range(kind.num_fields)]


def _leaf_names(fields: list[pa.Field], prefix: str = "") -> Iterator[str]:
    for field in fields:
        if pa.types.is_struct(field.type):
            yield from _leaf_names(_struct_fields(field.type), f"{prefix}{field.name}.")
        else:
            yield prefix + field.name
