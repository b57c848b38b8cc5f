"""JSON Lines and CSV written as they were, with values added to each record.

    jsonl   each line's own bytes, the new keys spliced in before its closing brace; a line that holds no JSON
            object becomes {"_line": <the line>, <the new keys>}
    csv     each record's own bytes, the new fields behind them

gzip and zstd stay what they were. What is dropped: blank lines, which are not rows.
Memory: a few thousand records.
"""

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from assay.data.formats.jsonl import parse_object
from assay.data.formats.lines import BOM, LineFormat, LineReader, compression_of, open_stream
from assay.data.reading import read_rows
from assay.data.rows import NOT_JSON, SourceRows
from assay.data.sinks.sink import AddedColumns, TakenNameError
from assay.data.sources import Columns, Source

RECORDS = 8_192
RECORDS_BYTES = 16 << 20
GZIP_LEVEL = 6

LINE_KEY = "_line"
"""Key under which a line that is not a JSON object is kept."""


def write_jsonl(source: Source, columns: Columns, num_rows: int, added: AddedColumns, out: Path) -> None:
    """A line a row. Raises TakenNameError where one has a key of the name of an added column."""
    _write_lines(source, columns, num_rows, added, out, "jsonl")


def write_csv(source: Source, columns: Columns, num_rows: int, added: AddedColumns, out: Path) -> None:
    """The header, then a record a row."""
    _write_lines(source, columns, num_rows, added, out, "csv")


def _write_lines(
    source: Source, columns: Columns, num_rows: int, added: AddedColumns, out: Path, line_format: LineFormat
) -> None:
    reader = LineReader(source.uri, line_format, source.offsets, source.index_rows)
    spliced = _csv_lines if line_format == "csv" else _json_lines
    try:
        with _line_file(out, compression_of(source.uri)) as target:
            if _has_bom(source.uri):
                target.write(BOM)
            if line_format == "csv" and (header := reader.header()):
                names = [_csv_quoted(name, source.delimiter) for name in added.schema.names]
                target.write(_csv_spliced(header, source.delimiter.join(names).encode(), source.delimiter))
            for rows in read_rows(source, Columns(text=None, id=columns.id), 0, num_rows, batch_rows=RECORDS):
                stop = rows.start + rows.num_rows
                pieces = reader.read(rows.start, stop, max_rows=RECORDS, max_bytes=RECORDS_BYTES)
                records = [record for piece in pieces for record in piece]
                target.write(b"".join(spliced(source, rows, records, added.take(rows.num_rows, rows.ids))))
    finally:
        reader.close()


def _csv_lines(source: Source, rows: SourceRows, records: list[bytes], taken: pa.Table) -> Iterator[bytes]:
    del rows
    for record, fields in zip(records, csv_fields(taken, source.delimiter), strict=True):
        yield _csv_spliced(record, fields, source.delimiter)


def _json_lines(source: Source, rows: SourceRows, records: list[bytes], taken: pa.Table) -> Iterator[bytes]:
    names = [json.dumps(name, ensure_ascii=False).encode() for name in taken.schema.names]
    for index, (record, members) in enumerate(zip(records, json_members(taken), strict=True)):
        if any(name in record for name in names):
            _refuse_taken_name(source, record, taken.schema.names)
        yield _json_spliced(record, members, is_object=rows.errors.get(index) != NOT_JSON)


@contextmanager
def _line_file(out: Path, codec: str | None) -> Iterator[BinaryIO]:
    with out.open("wb") as raw:
        if codec is None:
            yield raw
        elif codec == "gzip":
            with gzip.GzipFile(
                filename="", fileobj=raw, mode="wb", compresslevel=GZIP_LEVEL, mtime=0
            ) as packed:
                yield cast("BinaryIO", packed)
        else:
            with pa.CompressedOutputStream(raw, codec) as packed:
                yield packed


def _has_bom(uri: str) -> bool:
    with open_stream(uri) as stream:
        return bool(stream.read(len(BOM)) == BOM)


def _csv_spliced(record: bytes, fields: bytes, delimiter: str) -> bytes:
    body = record.removesuffix(b"\r")
    return body + delimiter.encode() + fields + record[len(body) :] + b"\n"


def _json_spliced(record: bytes, members: bytes, *, is_object: bool) -> bytes:
    """The line with `members` before its closing brace, all else as it was."""
    if not is_object:
        line = json.dumps(record.decode("utf-8", "backslashreplace"), ensure_ascii=False)
        return f'{{"{LINE_KEY}": {line}, '.encode() + members + b"}\n"
    body = record.rstrip()
    inner = body[:-1].rstrip()
    comma = b"" if inner.lstrip() == b"{" else b", "
    return inner + comma + members + body[len(inner) :] + record[len(body) :] + b"\n"


def _refuse_taken_name(source: Source, record: bytes, names: list[str]) -> None:
    """The bytes hold one of the names; refuse if it is a key of the object and not a part of a value."""
    value = parse_object(record) or {}
    taken = next((name for name in names if name in value), None)
    if taken is not None:
        raise TakenNameError(source.uri, taken)


def json_members(table: pa.Table) -> list[bytes]:
    """Each row as the members of a JSON object, without the braces: `"a": 1, "b": null`."""
    pieces: list[object] = []
    for index, field in enumerate(table.schema):
        key = json.dumps(field.name, ensure_ascii=False)
        pieces += [f"{', ' if index else ''}{key}: ", _json_values(table.column(index))]
    return _row_bytes(pieces, table.num_rows)


def csv_fields(table: pa.Table, delimiter: str = ",") -> list[bytes]:
    """Each row as CSV fields, null as an empty one: `1,,"a, b"`."""
    pieces: list[object] = []
    for index, column in enumerate(table.columns):
        if index:
            pieces.append(delimiter)
        text = _as_text(column)
        if pa.types.is_string(column.type) or pa.types.is_nested(column.type):
            text = _mapped(text, lambda value: _csv_quoted(value, delimiter))
        pieces.append(text.fill_null(""))
    return _row_bytes(pieces, table.num_rows)


def _row_bytes(pieces: list[object], num_rows: int) -> list[bytes]:
    if num_rows == 0:
        return []
    joined = pc.binary_join_element_wise(*pieces, "")
    return cast("list[bytes]", joined.cast(pa.binary()).to_pylist())


def _json_values(column: pa.ChunkedArray) -> pa.ChunkedArray:
    text = _as_text(column)
    kind = column.type
    if pa.types.is_floating(kind):
        text = pc.if_else(pc.fill_null(pc.is_finite(column), False), text, "null")  # noqa: FBT003
    elif not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_nested(kind)):
        text = _mapped(text, lambda value: json.dumps(value, ensure_ascii=False))
    return text.fill_null("null")


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values as strings; floats in the fewest digits that read back as the same float, lists as JSON."""
    if pa.types.is_fixed_size_list(column.type):
        return _vectors_as_text(column)
    if pa.types.is_list(column.type):
        texts = (
            None if each is None else json.dumps(each, ensure_ascii=False) for each in column.to_pylist()
        )
        return pa.chunked_array([pa.array(texts, pa.string())])
    return column.cast(pa.string())


def _vectors_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists of finite numbers, all of one length, as JSON; null stays null."""
    vectors = column.combine_chunks()
    is_there = pc.is_valid(vectors)
    lengths = np.asarray(is_there).astype(np.int64) * column.type.list_size
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    # Arrow knows no shortest form of 16-bit floats.
    numbers = vectors.flatten().cast(pa.float32()).cast(pa.string())
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, numbers), ", ")
    text = pc.binary_join_element_wise("[", joined, "]", "")
    return pa.chunked_array([pc.if_else(is_there, text, pa.scalar(None, pa.string()))])


def _mapped(text: pa.ChunkedArray, change: Callable[[str], str]) -> pa.ChunkedArray:
    """`change` applied once to each distinct value: labels and error codes repeat."""
    encoded = text.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    changed = pa.array([change(value) for value in encoded.dictionary.to_pylist()], pa.string())
    return pa.chunked_array([changed.take(encoded.indices)])


def _csv_quoted(value: str, delimiter: str) -> str:
    if any(character in value for character in f'{delimiter}"\r\n'):
        return '"' + value.replace('"', '""') + '"'
    return value
