"""JSON Lines: an object a line, and the Arrow types of the values found in it.

Types are inferred from the first rows, then held to by every later one. Scalars are bool, int64,
float64 or string; integers among floats are floats, any other mixture is string. Whole numbers
beyond int64 are kept as strings, so that no id loses a digit.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from assay.data.formats import lines
from assay.data.formats.format import FileFormat, SourceFile
from assay.data.rows import BATCH_BYTES, INT32_MAX, NOT_JSON, NOT_TEXT, NOT_UTF8, NULL, SourceRows
from assay.data.sources import KEY, Columns, Source, id_column, id_type, role_paths
from assay.errors import SourceError

MAX_DEPTH = 16
_INT64 = range(-(2**63), 2**63)
_EXACT_FLOAT = range(-(2**53), 2**53 + 1)


def inspect(file: SourceFile, name: str, columns: Columns) -> Source:
    """What one pass over the file counts, and the columns that its first rows show."""
    del columns
    scan = lines.scan(file.uri, "jsonl")
    records = lines.sample(file.uri, "jsonl", scan)
    schema = infer_schema(records)
    if records and _is_other_json(records, shows_objects=len(schema) > 0):
        msg = (
            f"{file.uri} is JSON, but not JSON Lines: its first line is not an object but a part of an array or "
            "of a longer object; write one object a line (jq -c '.[]' does)"
        )
        raise SourceError(msg)
    # One bad line alone is a bad row, as it is among good ones; many and no good one are another format.
    if len(records) > 1 and not len(schema) and all(parse_object(record) is None for record in records):
        begins = records[0].removeprefix(lines.BOM)[:40].decode("utf-8", "replace")
        msg = (
            f"{file.uri} is not JSON Lines: none of its first {len(records)} lines is a JSON object, the first "
            f"begins {begins!r}; write one object a line, or name the file's format with --format"
        )
        raise SourceError(msg)
    return lines.line_source(file, name, scan, schema)


def _is_other_json(records: Sequence[bytes], *, shows_objects: bool) -> bool:
    """True for one JSON array or object over many lines, and for lines that are all arrays."""
    first = records[0].removeprefix(lines.BOM).strip()
    if first[:1] == b"[":
        return _goes_on(first) or all(_is_array(record) for record in records)
    return first[:1] == b"{" and not shows_objects and _goes_on(first)


def _is_array(record: bytes) -> bool:
    try:
        return isinstance(json.loads(record), list)
    except (ValueError, RecursionError):
        return False


def _goes_on(line: bytes) -> bool:
    """Whether a line is the beginning of a JSON value that goes on in the next: an error at its very end."""
    text = line.decode("utf-8", "replace")
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return text[error.pos :] in {"", ",", "[", "{"}
    except RecursionError:
        return True
    return False


def read(source: Source, columns: Columns, start: int, batch_rows: int) -> Iterator[SourceRows]:
    """Rows from `start` on."""
    reader = lines.LineReader(source.uri, "jsonl", source.offsets, source.index_rows)
    try:
        for records in reader.read(start, source.num_rows, max_rows=batch_rows, max_bytes=BATCH_BYTES):
            yield _batch(source, columns, start, records)
            start += len(records)
    finally:
        reader.close()


def _batch(source: Source, columns: Columns, start: int, records: Sequence[bytes]) -> SourceRows:
    parsed = [parse_object(record) for record in records]
    errors = {index: NOT_JSON for index, value in enumerate(parsed) if value is None}
    objects = [value or {} for value in parsed]

    def column(path: tuple[str, ...] | None, *, is_ids: bool = False) -> pa.Array | None:
        if path is None:
            return None
        values = [_look_up(value, ".".join(path)) for value in objects]
        for index in _with_surrogates(values):
            errors.setdefault(index, NOT_UTF8)
            values[index] = None
        kind = id_type(source, columns) if is_ids else infer_type(values)
        return to_array(values, kind, first_row=start, uri=source.uri, column=".".join(path))

    paths = role_paths(source, columns)
    ids = column(id_column(source, columns), is_ids=True)
    labels, groups = column(paths.get("labels")), column(paths.get("groups"))
    keys = {name: column(paths.get(f"{KEY}{name}")) for name in columns.keys}
    input_ids = None
    texts: dict[str, list[Any]] = {}
    if columns.input_ids is not None:
        input_ids = _token_ids(source, columns.input_ids, start, objects, errors)
    else:
        named = {"texts": columns.text, "text_pairs": columns.text_pair}
        for role, name in named.items():
            if name is not None:
                texts[role] = [_look_up(value, name) for value in objects]
                _mark_bad_texts(texts[role], errors)
    for values in texts.values():
        for index in errors:
            values[index] = None
    arrays = {role: pa.array(values, pa.large_string()) for role, values in texts.items()}
    return SourceRows(
        start=start,
        num_rows=len(records),
        ids=ids,
        texts=arrays.get("texts"),
        text_pairs=arrays.get("text_pairs"),
        input_ids=input_ids,
        labels=labels,
        groups=groups,
        keys=keys,
        errors=dict(sorted(errors.items())),
    )


def _look_up(value: dict[str, Any], name: str) -> Any:  # noqa: ANN401  JSON holds anything
    """The value at a dotted name, a literal key first; None where there is none."""
    if name in value or "." not in name:
        return value.get(name)
    for cut in range(len(name) - 1, 0, -1):
        below = value.get(name[:cut]) if name[cut] == "." else None
        if isinstance(below, dict):
            found = _look_up(below, name[cut + 1 :])
            if found is not None:
                return found
    return None


def _mark_bad_texts(values: Sequence[object], errors: dict[int, str]) -> None:
    for index, value in enumerate(values):
        if value is None:
            errors.setdefault(index, NULL)
        elif not isinstance(value, str):
            errors.setdefault(index, NOT_TEXT)
    for index in _with_surrogates(values):
        errors.setdefault(index, NOT_UTF8)


def _with_surrogates(values: Sequence[object]) -> list[int]:
    """Places of the strings, alone or in a list, that cannot be written as UTF-8."""
    return [
        index
        for index, value in enumerate(values)
        if not all(_is_encodable(item) for item in (value if isinstance(value, list) else (value,)))
    ]


def _is_encodable(value: object) -> bool:
    if not isinstance(value, str) or value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _token_ids(
    source: Source, name: str, start: int, objects: Sequence[dict[str, Any]], errors: dict[int, str]
) -> pa.Array:
    values = [_look_up(value, name) for value in objects]
    for index, value in enumerate(values):
        if value is None:
            errors.setdefault(index, NULL)
        elif not _is_token_list(value):
            msg = f"{source.uri} row {start + index}: {name!r} is not a list of token ids (0 to {INT32_MAX})"
            raise SourceError(msg)
    return pa.array(values, pa.list_(pa.int32()))


def _is_token_list(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= INT32_MAX for item in value)


def parse_object(line: bytes) -> dict[str, Any] | None:
    """The JSON object on a line, None where it holds none; bytes that are not UTF-8 become lone surrogates."""
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


FORMAT = FileFormat(
    name="jsonl",
    endings=(".jsonl", ".ndjson"),
    inspect=inspect,
    read=read,
    is_compressible=True,
    has_schema=False,
)
