"""Sources written again with columns added: same format, same rows, same order.

    parquet        every byte of the original's data, the new column chunks, one footer (`grafting`)
    jsonl          each line's own bytes, the new keys spliced in before its closing brace; a line that
                   holds no JSON object becomes {"_line": <the line>, <the new keys>}
    csv            each record's own bytes, the new fields behind them
    arrow, text    Parquet, row groups of about 64 MiB (text: columns id and text)

gzip and zstd stay what they were. What is dropped: blank lines, which are not rows.
Memory: one row group of the added columns (Parquet), or a few thousand records.
"""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assay.data.columns import without_run_ends
from assay.data.formats.arrow import open_arrow
from assay.data.formats.jsonl import parse_object
from assay.data.formats.lines import BOM, LineFormat, LineReader, compression_of, open_stream
from assay.data.grafting import CannotGraftError, graft_columns
from assay.data.reading import read_rows
from assay.data.row_groups import row_groups
from assay.data.rows import NOT_JSON, SourceRows
from assay.data.sources import Columns, Source, id_column, unreadable
from assay.data.storage import split_url
from assay.errors import InputError

BATCH_ROWS = 65_536
RECORDS = 8_192
RECORDS_BYTES = 16 << 20
GZIP_LEVEL = 6

LINE_KEY = "_line"
"""Key under which a line that is not a JSON object is kept."""

OUTPUT_FORMATS = {"parquet": "parquet", "jsonl": "jsonl", "csv": "csv", "arrow": "parquet", "text": "parquet"}
"""The format that a source of each format is written in."""

_CODECS = {"UNCOMPRESSED": "none", "SNAPPY": "snappy", "GZIP": "gzip", "BROTLI": "brotli", "ZSTD": "zstd"}


class TakenNameError(Exception):
    """A source has a column of the name of one to be added."""

    def __init__(self, uri: str, name: str) -> None:
        super().__init__(f"{uri} has a column {name!r} already")
        self.uri = uri
        self.name = name


class AddedColumns(Protocol):
    """The columns that go beside the rows of one source, given out in row order."""

    @property
    def schema(self) -> pa.Schema:
        """The columns' names and types, as they will be in the output."""
        ...

    def take(self, num_rows: int, ids: pa.Array | None) -> pa.Table:
        """The columns of the next `num_rows` rows, whose ids in the source are `ids` (None: it has none)."""
        ...

    def metadata(self) -> dict[str, str]:
        """What to note in a Parquet footer; asked after the last row."""
        ...


def write_merged(source: Source, columns: Columns, num_rows: int, added: AddedColumns, out: Path) -> None:
    """Write to `out` the first `num_rows` rows of `source` with the columns of `added` behind its own.

    `columns` names the id column. Raises SourceError where the source cannot be read, InputError
    where its types cannot be written, TakenNameError where a row of JSON Lines has a key of the name of
    an added column, OSError where `out` cannot be written.
    """
    if source.format == "parquet":
        _write_parquet(source, columns, num_rows, added, out)
    elif source.format == "jsonl":
        _write_lines(source, columns, num_rows, added, out, "jsonl")
    elif source.format == "csv":
        _write_lines(source, columns, num_rows, added, out, "csv")
    elif source.format == "arrow":
        _write_arrow(source, columns, num_rows, added, out)
    else:
        _write_text(source, num_rows, added, out)


# ------------------------------------------------------------ Parquet


def _write_parquet(source: Source, columns: Columns, num_rows: int, added: AddedColumns, out: Path) -> None:
    store, path = split_url(source.uri)
    try:
        with store.open_input(path) as handle, pq.ParquetFile(handle) as file:
            if num_rows == file.metadata.num_rows:
                _graft_parquet(source, columns, file, added, out)
            else:
                _rewrite_parquet(source, columns, num_rows, file, added, out)
    except (pa.ArrowException, CannotGraftError) as error:
        raise unreadable(source.uri, error) from error
    except OSError as error:
        if error.errno is None:  # pyarrow: a page that cannot be decoded
            raise unreadable(source.uri, error) from error
        raise


def _graft_parquet(
    source: Source, columns: Columns, file: pq.ParquetFile, added: AddedColumns, out: Path
) -> None:
    store, path = split_url(source.uri)
    ids = _Ids(source, columns, file.metadata.num_rows)
    beside = out.with_name(out.name + ".columns")
    try:
        options = _column_options(file.metadata, added.schema)
        with pq.ParquetWriter(beside, added.schema, **options) as writer:
            for size in _row_group_sizes(file.metadata):
                pieces = [added.take(rows, ids.take(rows)) for rows in _pieces(size, BATCH_ROWS)]
                writer.write_table(pa.concat_tables(pieces), row_group_size=max(size, 1))
        with store.open_input(path) as original, out.open("wb") as target:
            graft_columns(original, beside, target, schema=added.schema, metadata=added.metadata())
    finally:
        beside.unlink(missing_ok=True)


def _rewrite_parquet(
    source: Source,
    columns: Columns,
    num_rows: int,
    file: pq.ParquetFile,
    added: AddedColumns,
    out: Path,
) -> None:
    """The first rows of a file, decoded and encoded again, in row groups cut as they were."""
    ids = _Ids(source, columns, num_rows)
    with _table_writer(source, file.schema_arrow, added, out, codecs=_codecs(file.metadata)) as write:
        left = num_rows
        for index, size in enumerate(_row_group_sizes(file.metadata)):
            if left == 0 and index > 0:
                break
            rows = min(size, left)
            taken: list[pa.Table] = []
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[index]):
                kept = batch.slice(0, rows - sum(table.num_rows for table in taken))
                taken.append(_joined(kept, ids, added))
                if sum(table.num_rows for table in taken) == rows:
                    break
            if taken:
                write(pa.concat_tables(taken))
            left -= rows


def _row_group_sizes(metadata: pq.FileMetaData) -> list[int]:
    return [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]


def _pieces(num_rows: int, most: int) -> list[int]:
    """Sizes of at most `most` that add up to `num_rows`; a single 0 for no rows."""
    whole, rest = divmod(num_rows, most)
    return [most] * whole + ([rest] if rest or not whole else [])


def _codecs(metadata: pq.FileMetaData) -> dict[str, str]:
    """The codec of each leaf column, as its first row group has it."""
    if metadata.num_row_groups == 0:
        return {}
    chunks = [metadata.row_group(0).column(index) for index in range(metadata.num_columns)]
    return {chunk.path_in_schema: _CODECS.get(chunk.compression, "zstd") for chunk in chunks}


def _column_options(metadata: pq.FileMetaData, schema: pa.Schema) -> dict[str, object]:
    """How added columns are written: in the codec of the first column, dictionaries for strings alone."""
    codec = next(iter(_codecs(metadata).values()), "zstd")
    strings = [field.name for field in schema if pa.types.is_string(field.type)]
    return {"compression": codec, "use_dictionary": strings or False}


# ------------------------------------------------------------ Arrow and text, to Parquet


def _write_arrow(source: Source, columns: Columns, num_rows: int, added: AddedColumns, out: Path) -> None:
    ids = _Ids(source, columns, num_rows)
    try:
        schema, batches = open_arrow(source.uri)
        tables = (_joined(batch, ids, added) for batch in _first_rows(batches, num_rows))
        with _table_writer(source, _without_run_ends(schema), added, out) as write:
            for group in row_groups(tables):
                write(group)
    except pa.ArrowInvalid as error:
        raise unreadable(source.uri, error) from error


def _without_run_ends(schema: pa.Schema) -> pa.Schema:
    """The schema with columns of runs as columns of values, since Parquet knows no runs (and encodes them anyway)."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_run_end_encoded(field.type) else field
        for field in schema
    ]
    return pa.schema(fields, schema.metadata)


def _not_in_parquet(schema: pa.Schema) -> str:
    """The columns that Parquet cannot hold, by name and type, for a message."""
    found = []
    for field in schema:
        try:
            pq.write_metadata(pa.schema([field]), pa.BufferOutputStream())
        except pa.ArrowNotImplementedError:
            found.append(f"{field.name!r} ({field.type})")
    return ", ".join(found)


def _write_text(source: Source, num_rows: int, added: AddedColumns, out: Path) -> None:
    schema = pa.schema([("id", pa.string()), ("text", pa.large_string())])

    def tables() -> Iterator[pa.Table]:
        for rows in read_rows(source, Columns(text="text", id="id"), 0, num_rows):
            table = pa.Table.from_arrays([rows.ids, rows.texts], schema=schema)
            yield _beside(table, added.take(rows.num_rows, rows.ids))

    with _table_writer(source, schema, added, out) as write:
        for group in row_groups(tables()):
            write(group)


def _joined(batch: pa.RecordBatch, ids: "_Ids", added: AddedColumns) -> pa.Table:
    columns = [without_run_ends(column) for column in batch.columns]
    table = pa.Table.from_arrays(columns, schema=_without_run_ends(batch.schema))
    return _beside(table, added.take(batch.num_rows, ids.take(batch.num_rows)))


def _beside(table: pa.Table, extra: pa.Table) -> pa.Table:
    for field in extra.schema:
        table = table.append_column(field, extra.column(field.name))
    return table


@contextmanager
def _table_writer(
    source: Source,
    schema: pa.Schema,
    added: AddedColumns,
    out: Path,
    *,
    codecs: dict[str, str] | None = None,
) -> Iterator[Callable[[pa.Table], None]]:
    """A function that writes one row group of source columns and added ones."""
    for field in added.schema:
        schema = schema.append(field)
    codec = next(iter(codecs.values()), "zstd") if codecs else "zstd"
    compression: str | dict[str, str] = codec
    if codecs:
        compression = {**codecs, **dict.fromkeys(added.schema.names, codec)}
    try:
        # The name of a list's child is part of its type; Parquet's own name for it would change that.
        options = {"compression": compression, "use_compliant_nested_type": False}
        with pq.ParquetWriter(out, schema, **options) as writer:
            yield lambda table: writer.write_table(table.cast(schema), row_group_size=max(table.num_rows, 1))
            writer.add_key_value_metadata(added.metadata())
    except pa.ArrowNotImplementedError as error:
        columns = _not_in_parquet(schema) or str(error).splitlines()[0]
        msg = f"{source.uri}: Parquet cannot hold {columns}; drop or convert it in the source, and score that"
        raise InputError(msg) from error


def _first_rows(batches: Iterable[pa.RecordBatch], num_rows: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        if num_rows == 0:
            return
        kept = batch.slice(0, num_rows)
        num_rows -= kept.num_rows
        yield kept


# ------------------------------------------------------------ JSON Lines and CSV


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


# ------------------------------------------------------------ ids


class _Ids:
    """The ids of a source's first rows, read in pieces of one size and taken in others."""

    def __init__(self, source: Source, columns: Columns, num_rows: int) -> None:
        only_ids = Columns(text=None, id=columns.id)
        rows = read_rows(source, only_ids, 0, num_rows, batch_rows=BATCH_ROWS)
        self._pieces = (piece.ids for piece in rows if piece.ids is not None)
        self._has_ids = id_column(source, columns) is not None
        self._rest = pa.nulls(0)

    def take(self, num_rows: int) -> pa.Array | None:
        """The next `num_rows` ids; None where the source has no id column, and for no rows."""
        if not self._has_ids or num_rows == 0:
            return None
        taken: list[pa.Array] = []
        while num_rows > 0:
            piece = self._rest if len(self._rest) else next(self._pieces)
            taken.append(piece.slice(0, num_rows))
            self._rest = piece.slice(num_rows)
            num_rows -= len(taken[-1])
        return taken[0] if len(taken) == 1 else pa.concat_arrays(taken)
