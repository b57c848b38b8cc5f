"""Rows of a source, in order, in bounded batches: ids, texts or token ids, and what is wrong with each.

No row is ever left out. One that has no usable text keeps its place with a null text and an error
code; empty and white-space texts are texts. What concerns a whole file (it is cut short, an id does
not fit its column's type) raises SourceError.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assay.data import csvrows, jsontypes, lines
from assay.data.columns import find_column, type_at, value_type
from assay.data.sources import Columns, Source, id_column, open_arrow, text_files
from assay.data.storage import MAX_READ_AHEAD_BYTES, is_object_url, split_url
from assay.errors import SourceError, StorageError

NULL = "null"
"""The text is null or missing."""
NOT_TEXT = "not_text"
"""The JSON value is no string."""
NOT_UTF8 = "not_utf8"
"""The bytes are no UTF-8, or hold lone surrogates."""
NOT_JSON = "not_json"
"""The line is no JSON object."""
NOT_CSV = "not_csv"
"""The CSV record has another number of fields than the header."""

SOURCE_ROW = "source_row"
"""Name of the id column where the source has none."""

BATCH_ROWS = 8192
BATCH_BYTES = 64 * 1024 * 1024
LOCAL_READ_BYTES = 1024 * 1024

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Consecutive rows of one source; every column has `num_rows` values."""

    start: int
    """Row of the source at which the batch begins."""
    num_rows: int
    """Number of rows."""
    ids: pa.Array | None = None
    """As the source types them, dictionaries decoded; None where it has no id column."""
    texts: pa.Array | None = None
    """large_string, null exactly where the row has an error; None where no text was asked for."""
    text_pairs: pa.Array | None = None
    """The second text, likewise; null where either text has an error."""
    input_ids: pa.Array | None = None
    """list or large_list of uint16 or int32; null or empty where the row has an error."""
    truncated: npt.NDArray[np.bool_] | None = None
    """Of a token part: whether the row's text was cut; None for other sources."""
    second_starts: npt.NDArray[np.int32] | None = None
    """Of a token part of pairs: where the second text begins in each row, 0 for none."""
    labels: pa.Array | None = None
    """As the source types them, dictionaries decoded; CSV: strings; JSON Lines: as these rows show them."""
    groups: pa.Array | None = None
    """Likewise; None where no group column was named."""
    errors: dict[int, str] = field(default_factory=dict)
    """Error code by place in the batch, 0 for its first row."""

    def slice(self, begin: int, length: int) -> "Rows":
        """Rows [begin, begin + length) of this batch, without a copy."""
        return Rows(
            start=self.start + begin,
            num_rows=length,
            ids=_slice(self.ids, begin, length),
            texts=_slice(self.texts, begin, length),
            text_pairs=_slice(self.text_pairs, begin, length),
            input_ids=_slice(self.input_ids, begin, length),
            truncated=None if self.truncated is None else self.truncated[begin : begin + length],
            second_starts=None if self.second_starts is None else self.second_starts[begin : begin + length],
            labels=_slice(self.labels, begin, length),
            groups=_slice(self.groups, begin, length),
            errors={
                index - begin: code for index, code in self.errors.items() if begin <= index < begin + length
            },
        )


def read_rows(
    source: Source, columns: Columns, start: int, stop: int, *, batch_rows: int = BATCH_ROWS
) -> Iterator[Rows]:
    """Rows [start, stop) of `source`, in order, in batches of at most `batch_rows`.

    Memory is bounded by a batch, not by the range: batches get smaller where texts are long.
    Raises SourceError where the file cannot be read or a value does not fit its column.
    """
    with RowReader(columns) as reader:
        yield from reader.read(source, start, stop, batch_rows=batch_rows)


def id_type(source: Source, columns: Columns) -> pa.DataType:
    """The type of the ids: the id column's (dictionaries decoded), int64 where rows are counted."""
    path = id_column(source, columns)
    return pa.int64() if path is None else _scalar_type(source, path)


def id_name(source: Source, columns: Columns) -> str:
    """What the id column of a part is called: "id", or "source_row" where the source has none."""
    return SOURCE_ROW if id_column(source, columns) is None else "id"


class RowReader:
    """Reads ranges of sources and keeps the open file, so that the next range goes on where one stopped.

    Not thread-safe. Close it, or use it as a context manager.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._batch_rows = BATCH_ROWS
        self._uri: str | None = None
        self._batches: Iterator[Rows] = iter(())
        self._rest: Rows | None = None
        self._row = 0

    def __enter__(self) -> Self:
        """The reader itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the file."""
        self.close()

    def read(self, source: Source, start: int, stop: int, *, batch_rows: int = BATCH_ROWS) -> Iterator[Rows]:
        """Rows [start, stop) of `source` in batches of at most `batch_rows`, as `read_rows` gives them."""
        if not 0 <= start <= stop <= source.num_rows:
            wanted = f"rows {start} to {stop} asked for"
            msg = f"{source.uri}: {wanted}, it has {source.num_rows}; plan the run again"
            raise SourceError(msg)
        if start == stop:
            return
        if (self._uri, self._row, self._batch_rows) != (source.uri, start, batch_rows):
            self.close()
            self._batches = _open(source, self._columns, start, batch_rows)
            self._uri, self._row, self._batch_rows = source.uri, start, batch_rows
        while self._row < stop:
            rows = self._next(source)
            length = min(rows.num_rows, stop - self._row)
            self._rest = rows.slice(length, rows.num_rows - length) if length < rows.num_rows else None
            self._row += length
            yield rows if length == rows.num_rows else rows.slice(0, length)

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()
        self._batches = iter(())
        self._uri = self._rest = None

    def _next(self, source: Source) -> Rows:
        if self._rest is not None:
            return self._rest
        try:
            rows = next(self._batches, None)
        except (pa.ArrowException, OSError) as error:
            self.close()
            raise lines.unreadable(source.uri, error) from error
        except StorageError as error:
            self.close()
            raise SourceError(str(error)) from error
        if rows is None:
            self.close()
            msg = f"{source.uri} ends at row {self._row} of {source.num_rows}; it changed or was cut short"
            raise SourceError(msg)
        return rows


def _slice(array: pa.Array | None, begin: int, length: int) -> pa.Array | None:
    return None if array is None else array.slice(begin, length)


def _open(source: Source, columns: Columns, start: int, batch_rows: int) -> Iterator[Rows]:
    """All batches of `source` from row `start` on."""
    rows = int(min(batch_rows, max(1, BATCH_BYTES // max(1.0, source.bytes_per_row))))
    if source.format == "parquet":
        return _table_rows(source, columns, start, rows, _parquet_batches(source, columns, start, rows))
    if source.format == "arrow":
        return _table_rows(source, columns, start, rows, _arrow_batches(source, start))
    if source.format == "jsonl":
        return _json_rows(source, columns, start, rows)
    if source.format == "csv":
        return _csv_rows(source, columns, start, rows)
    return _text_rows(source, columns, start, rows)


# Parquet and Arrow


def _parquet_batches(
    source: Source, columns: Columns, start: int, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Record batches of the wanted columns; the first begins at row `start`."""
    wanted = list({".".join(path): None for path in _paths(source, columns).values()})
    store, path = split_url(source.uri)
    remote = is_object_url(source.uri)
    # Column chunks are streamed through a buffer: a row group of a gigabyte costs no gigabyte.
    with (
        store.open_input(path) as file,
        pq.ParquetFile(
            file, pre_buffer=False, buffer_size=MAX_READ_AHEAD_BYTES if remote else LOCAL_READ_BYTES
        ) as parquet,
    ):
        group, first = 0, 0
        sizes = [parquet.metadata.row_group(index).num_rows for index in range(parquet.num_row_groups)]
        while group < len(sizes) and first + sizes[group] <= start:
            first += sizes[group]
            group += 1
        skip = start - first
        if not wanted:
            yield from _empty_batches(sum(sizes) - start, batch_rows)
            return
        for batch in parquet.iter_batches(
            batch_rows, row_groups=range(group, len(sizes)), columns=wanted, use_threads=False
        ):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            yield batch.slice(skip)
            skip = 0


def _empty_batches(num_rows: int, batch_rows: int) -> Iterator[pa.RecordBatch]:
    for begin in range(0, num_rows, batch_rows):
        rows = pa.nulls(min(batch_rows, num_rows - begin))
        yield pa.record_batch({"": rows})


def _arrow_batches(source: Source, start: int) -> Iterator[pa.RecordBatch]:
    _, batches = open_arrow(source.uri)
    skip = start
    for batch in batches:
        if skip >= batch.num_rows:
            skip -= batch.num_rows
            continue
        yield batch.slice(skip)
        skip = 0


def _table_rows(
    source: Source, columns: Columns, start: int, batch_rows: int, batches: Iterator[pa.RecordBatch]
) -> Iterator[Rows]:
    paths = _paths(source, columns)
    for whole in batches:
        for begin in range(0, whole.num_rows, batch_rows):
            batch = whole.slice(begin, batch_rows)
            found = {role: _column(batch, path) for role, path in paths.items()}
            yield _rows_of(source, start, batch.num_rows, found)
            start += batch.num_rows


def _paths(source: Source, columns: Columns) -> dict[str, tuple[str, ...]]:
    """The columns to read, by what they are read for."""
    if not len(source.schema):
        return {}  # No row of the file shows a column.
    named = {"labels": (columns.label, "--label-column"), "groups": (columns.group, "--group-column")}
    if columns.input_ids is None:
        named |= {
            "texts": (columns.text, "--text-column"),
            "text_pairs": (columns.text_pair, "--text-pair-column"),
        }
    else:
        named |= {"input_ids": (columns.input_ids, "--input-ids-column")}
    paths = {
        role: find_column(source.schema, name, uri=source.uri, option=option)
        for role, (name, option) in named.items()
        if name is not None
    }
    path = id_column(source, columns)
    if path is not None:
        paths["ids"] = path
    return paths | (_token_part_columns(source.schema) if columns.input_ids is not None else {})


def _token_part_columns(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """What `assay tokenize` writes beside the ids; nothing for token ids of another origin."""
    types = {field.name: field.type for field in schema}
    if (types.get("truncated"), types.get("error")) != (pa.bool_(), pa.string()):
        return {}
    named = {"truncated": "truncated", "codes": "error"}
    if types.get("second_start") == pa.int32():
        named["second_starts"] = "second_start"
    return {role: (name,) for role, name in named.items()}


def _column(batch: pa.RecordBatch, path: tuple[str, ...]) -> pa.Array:
    array = batch.column(batch.schema.get_field_index(path[0]))
    # struct_field takes a null struct as null in each of its fields.
    return array if len(path) == 1 else pc.struct_field(array, list(path[1:]))


def _rows_of(source: Source, start: int, num_rows: int, found: dict[str, pa.Array]) -> Rows:
    errors: dict[int, str] = {}
    texts = {role: as_text(found[role], errors) for role in ("texts", "text_pairs") if role in found}
    if errors:
        texts = {role: _null_at(array, errors) for role, array in texts.items()}
    input_ids = None
    if "input_ids" in found:
        input_ids = _as_token_ids(found["input_ids"], source, start)
        errors = dict.fromkeys(_where(input_ids.is_null()), NULL) if input_ids.null_count else {}
    codes = found.get("codes")
    if codes is not None and codes.null_count < num_rows:
        errors.update({index: codes[index].as_py() for index in _where(codes.is_valid())})
    return Rows(
        start=start,
        num_rows=num_rows,
        ids=_as_scalars(found.get("ids")),
        texts=texts.get("texts"),
        text_pairs=texts.get("text_pairs"),
        input_ids=input_ids,
        truncated=_as_numpy(found.get("truncated")),
        second_starts=_as_numpy(found.get("second_starts")),
        labels=_as_scalars(found.get("labels")),
        groups=_as_scalars(found.get("groups")),
        errors=dict(sorted(errors.items())),
    )


def _where(mask: pa.BooleanArray) -> list[int]:
    return [int(index) for index in np.flatnonzero(np.asarray(mask))]


def _as_numpy(array: pa.Array | None) -> Any:  # noqa: ANN401  bool or int32, as the column is
    if array is None:
        return None
    return array.fill_null(pa.scalar(0).cast(array.type)).to_numpy(zero_copy_only=False)


def _as_scalars(array: pa.Array | None) -> pa.Array | None:
    if array is not None and pa.types.is_dictionary(array.type):
        return array.dictionary_decode()
    return array


def as_text(array: pa.Array, errors: dict[int, str]) -> pa.LargeStringArray:
    """The texts of a column of strings or bytes; adds an error for each that is null or no UTF-8."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    for index in _where(array.is_null()) if array.null_count else ():
        errors.setdefault(index, NULL)
    if pa.types.is_null(array.type):
        return array.cast(pa.large_string())
    # Strings are not trusted either: Parquet files hold what their writer put there.
    content = array.cast(pa.large_binary())
    try:
        return content.cast(pa.large_string())
    except pa.ArrowInvalid:
        pass
    values = content.to_pylist()
    for index, value in enumerate(values):
        if value is not None and not _is_utf8(value):
            errors.setdefault(index, NOT_UTF8)
            values[index] = None
    return pa.array(values, pa.large_binary()).cast(pa.large_string())


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _null_at(array: pa.Array, errors: dict[int, str]) -> pa.Array:
    mask = np.zeros(len(array), dtype=bool)
    mask[list(errors)] = True
    if array.null_count == len(errors) and bool((np.asarray(array.is_null()) == mask).all()):
        return array
    return pc.if_else(pa.array(mask), None, array)


def _as_token_ids(array: pa.Array, source: Source, start: int) -> pa.Array:
    """A list or large_list of uint16 or int32; the buffers themselves where the source has these."""
    kind = array.type
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list_view(kind):
        array = array.cast(pa.list_(kind.value_type))
    elif pa.types.is_large_list_view(kind):
        array = array.cast(pa.large_list(kind.value_type))
    if array.flatten().null_count:
        msg = f"{source.uri} from row {start}: a list of token ids holds a null; write the ids without nulls"
        raise SourceError(msg)
    values = array.type.value_type
    if values in {pa.uint16(), pa.int32()}:
        return array
    smallest = pa.uint16() if values == pa.uint8() else pa.int32()
    as_list = pa.large_list if pa.types.is_large_list(array.type) else pa.list_
    try:
        return array.cast(as_list(smallest))
    except pa.ArrowInvalid as error:
        msg = f"{source.uri} from row {start}: a token id is above {_INT32_MAX}; token ids are int32"
        raise SourceError(msg) from error


def _scalar_type(source: Source, path: tuple[str, ...]) -> pa.DataType:
    if not len(source.schema):
        return pa.string()
    kind = value_type(type_at(source.schema, path))
    # JSON shows no type for a column that is null in all the first rows.
    return pa.string() if source.format == "jsonl" and pa.types.is_null(kind) else kind


# JSON Lines


def _json_rows(source: Source, columns: Columns, start: int, batch_rows: int) -> Iterator[Rows]:
    reader = lines.LineReader(source.uri, "jsonl", source.offsets, source.index_rows)
    try:
        for records in reader.read(start, source.num_rows, max_rows=batch_rows, max_bytes=BATCH_BYTES):
            yield _json_batch(source, columns, start, records)
            start += len(records)
    finally:
        reader.close()


def _json_batch(source: Source, columns: Columns, start: int, records: Sequence[bytes]) -> Rows:
    parsed = [jsontypes.parse_object(record) for record in records]
    errors = {index: NOT_JSON for index, value in enumerate(parsed) if value is None}
    objects = [value or {} for value in parsed]

    def column(path: tuple[str, ...] | None, *, is_held_to_type: bool = False) -> pa.Array | None:
        if path is None:
            return None
        values = [_look_up(value, ".".join(path)) for value in objects]
        for index in _with_surrogates(values):
            errors.setdefault(index, NOT_UTF8)
            values[index] = None
        kind = _scalar_type(source, path) if is_held_to_type else jsontypes.infer_type(values)
        return jsontypes.to_array(values, kind, first_row=start, uri=source.uri, column=".".join(path))

    paths = _paths(source, columns)
    ids = column(id_column(source, columns), is_held_to_type=True)
    labels, groups = column(paths.get("labels")), column(paths.get("groups"))
    input_ids = None
    texts: dict[str, list[Any]] = {}
    if columns.input_ids is not None:
        input_ids = _json_token_ids(source, columns.input_ids, start, objects, errors)
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
    return Rows(
        start=start,
        num_rows=len(records),
        ids=ids,
        texts=arrays.get("texts"),
        text_pairs=arrays.get("text_pairs"),
        input_ids=input_ids,
        labels=labels,
        groups=groups,
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
    """Places of the strings, alone or in a list, that no UTF-8 can hold."""
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


def _json_token_ids(
    source: Source, name: str, start: int, objects: Sequence[dict[str, Any]], errors: dict[int, str]
) -> pa.Array:
    values = [_look_up(value, name) for value in objects]
    for index, value in enumerate(values):
        if value is None:
            errors.setdefault(index, NULL)
        elif not _is_token_list(value):
            msg = f"{source.uri} row {start + index}: {name!r} is no list of token ids (0 to {_INT32_MAX})"
            raise SourceError(msg)
    return pa.array(values, pa.list_(pa.int32()))


def _is_token_list(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item <= _INT32_MAX for item in value)


# CSV


def _csv_rows(source: Source, columns: Columns, start: int, batch_rows: int) -> Iterator[Rows]:
    header = source.schema.names
    paths = _paths(source, columns)
    wanted = list(dict.fromkeys(path[0] for path in paths.values()))
    # Record 0 of the file is the header; `offsets` and the reader count rows.
    reader = lines.LineReader(source.uri, "csv", source.offsets, source.index_rows)
    try:
        for records in reader.read(start, source.num_rows, max_rows=batch_rows, max_bytes=BATCH_BYTES):
            table, bad = csvrows.parse_records(records, header, wanted)
            yield _csv_batch(source, paths, start, table, bad)
            start += len(records)
    finally:
        reader.close()


def _csv_batch(
    source: Source, paths: dict[str, tuple[str, ...]], start: int, table: pa.Table, bad: Sequence[int]
) -> Rows:
    errors = dict.fromkeys(bad, NOT_CSV)
    texts: dict[str, pa.Array] = {}
    scalars: dict[str, pa.Array] = {}
    for role, (name,) in paths.items():
        column = table.column(name).combine_chunks()
        if role in {"texts", "text_pairs"}:
            texts[role] = as_text(column, errors)
            continue
        column, broken = csvrows.without_bad_bytes(column)
        for index in broken:
            errors.setdefault(index, NOT_UTF8)
        # A label column may go on with 3.5 after a thousand whole numbers; an id column may not.
        kind = _scalar_type(source, (name,)) if role == "ids" else pa.string()
        scalars[role] = csvrows.to_array(column, kind, first_row=start, uri=source.uri, name=name)
    if errors:
        texts = {role: _null_at(array, errors) for role, array in texts.items()}
    return Rows(
        start=start,
        num_rows=table.num_rows,
        ids=scalars.get("ids"),
        texts=texts.get("texts"),
        text_pairs=texts.get("text_pairs"),
        labels=scalars.get("labels"),
        groups=scalars.get("groups"),
        errors=dict(sorted(errors.items())),
    )


# Text files


def _text_rows(source: Source, columns: Columns, start: int, batch_rows: int) -> Iterator[Rows]:
    paths = _paths(source, columns)
    store, folder, files = text_files(source.uri)
    while start < len(files):
        names: list[str] = []
        contents: list[bytes] = []
        size = 0
        for info in files[start : start + batch_rows]:
            content = store.read_bytes(f"{folder}/{info.path}" if folder else info.path)
            names.append(info.path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
            contents.append(content)
            size += len(content)
            if size >= BATCH_BYTES:
                break
        values: dict[tuple[str, ...], pa.Array] = {
            ("id",): pa.array(names),
            ("text",): pa.array(contents, pa.large_binary()),
        }
        yield _rows_of(source, start, len(names), {role: values[path] for role, path in paths.items()})
        start += len(names)
