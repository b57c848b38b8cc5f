"""Columns added to a Parquet file without decoding what is there.

A Parquet footer names each column chunk by its absolute offset, so a file grows by columns like this:
the bytes of the original up to its footer, the column chunks of a second file that has the same row
groups, and one footer for both. Every page, encoding, codec, statistic, bloom filter and page index
of the original stays as it is, to the byte; the cost is that of copying the file.

Footers are Thrift structs in the compact protocol. They are split and joined here field by field;
what is not changed is never interpreted, so fields newer than this module are carried along.
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md

Not covered: encrypted files (their footers are signed); CannotGraftError says so.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

MAGIC = b"PAR1"
TAIL_BYTES = 8  # length of the footer, magic
COPY_BYTES = 1 << 20
ARROW_SCHEMA = b"ARROW:schema"

# FileMetaData
_SCHEMA, _ROW_GROUPS, _KEY_VALUES, _COLUMN_ORDERS, _ENCRYPTION = 2, 4, 5, 7, 8
# SchemaElement, RowGroup, ColumnChunk
_NUM_CHILDREN = 5
_COLUMNS, _TOTAL_BYTE_SIZE, _NUM_ROWS, _TOTAL_COMPRESSED_SIZE = 1, 2, 3, 6
_FILE_OFFSET, _META_DATA = 2, 3
_PAGE_OFFSETS = (9, 10, 11)  # ColumnMetaData: data, index and dictionary page
# Offsets that files written here by pyarrow's defaults do not have, and that are not moved.
_UNMOVED_CHUNK_FIELDS = (4, 6)  # ColumnChunk: offset index, column index
_BLOOM_FILTER_OFFSET = 14

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_LONG_LIST = 15

Fields = dict[int, tuple[int, bytes]]
"""A struct as field id -> (type, value in its own encoding), in the order of the file."""


class CannotGraftError(Exception):
    """The file's footer cannot be extended; the file must be rewritten instead."""


def graft_columns(
    original: pa.NativeFile, added: Path, out: BinaryIO, *, schema: pa.Schema, metadata: Mapping[str, str]
) -> None:
    """Write to `out` the Parquet file `original` with the columns of the Parquet file `added` behind its own.

    `added` must have the row groups of `original`, row for row; `schema` is its Arrow schema, and
    `metadata` goes into the footer's key-value pairs, over what stood there under the same keys.
    Raises CannotGraftError before a byte is written where the footer does not allow it.
    """
    with pa.OSFile(str(added), "rb") as chunks:
        footer, data_end = _read_footer(original)
        added_footer, added_end = _read_footer(chunks)
        delta = data_end - len(MAGIC)
        try:
            joined = _join_footers(footer, added_footer, delta, schema, metadata)
        except (IndexError, KeyError, ValueError) as error:
            msg = f"its footer is not understood ({error})"
            raise CannotGraftError(msg) from error
        _copy(original, 0, data_end, out)
        _copy(chunks, len(MAGIC), added_end, out)
    out.write(joined + len(joined).to_bytes(4, "little") + MAGIC)


def _read_footer(file: pa.NativeFile) -> tuple[bytes, int]:
    """The footer's bytes, and where it begins."""
    size = file.size()
    file.seek(max(0, size - TAIL_BYTES))
    tail = file.read(TAIL_BYTES)
    start = size - TAIL_BYTES - int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or start < len(MAGIC):
        msg = "it does not end in a plain Parquet footer"
        raise CannotGraftError(msg)
    file.seek(start)
    return file.read(size - TAIL_BYTES - start), start


def _copy(file: pa.NativeFile, start: int, stop: int, out: BinaryIO) -> None:
    file.seek(start)
    while start < stop:
        buffer = file.read_buffer(min(COPY_BYTES, stop - start))
        if len(buffer) == 0:
            msg = "it ended before its footer"
            raise CannotGraftError(msg)
        out.write(buffer)
        start += len(buffer)


def _join_footers(
    footer: bytes, added_footer: bytes, delta: int, schema: pa.Schema, metadata: Mapping[str, str]
) -> bytes:
    fields, _ = split_struct(footer)
    added, _ = split_struct(added_footer)
    if _ENCRYPTION in fields:
        msg = "it is encrypted"
        raise CannotGraftError(msg)
    fields[_SCHEMA] = _LIST, _join_schemas(fields[_SCHEMA][1], added[_SCHEMA][1])
    fields[_ROW_GROUPS] = _LIST, _join_row_groups(fields[_ROW_GROUPS][1], added[_ROW_GROUPS][1], delta)
    fields[_KEY_VALUES] = _LIST, _join_key_values(fields.get(_KEY_VALUES), schema, metadata)
    if _COLUMN_ORDERS in fields:
        orders = split_list(fields[_COLUMN_ORDERS][1]) + split_list(added[_COLUMN_ORDERS][1])
        fields[_COLUMN_ORDERS] = _LIST, join_list(_STRUCT, orders)
    return join_struct(fields)


def _join_schemas(original: bytes, added: bytes) -> bytes:
    """The schema tree, flattened depth first: the root's new children go to the end."""
    root, *elements = split_list(original)
    added_root, *added_elements = split_list(added)
    fields, _ = split_struct(root)
    added_fields, _ = split_struct(added_root)
    fields[_NUM_CHILDREN] = _I32, _sum(fields[_NUM_CHILDREN], added_fields[_NUM_CHILDREN])
    return join_list(_STRUCT, [join_struct(fields), *elements, *added_elements])


def _join_row_groups(original: bytes, added: bytes, delta: int) -> bytes:
    groups, added_groups = split_list(original), split_list(added)
    if len(groups) != len(added_groups):
        msg = f"it has {len(groups)} row groups, the columns to add have {len(added_groups)}"
        raise CannotGraftError(msg)
    return join_list(
        _STRUCT, [_join_row_group(*pair, delta) for pair in zip(groups, added_groups, strict=True)]
    )


def _join_row_group(original: bytes, added: bytes, delta: int) -> bytes:
    fields, _ = split_struct(original)
    added_fields, _ = split_struct(added)
    if fields[_NUM_ROWS] != added_fields[_NUM_ROWS]:
        msg = "its row groups have other rows than the columns to add"
        raise CannotGraftError(msg)
    chunks = split_list(fields[_COLUMNS][1])
    chunks += [_moved_chunk(chunk, delta) for chunk in split_list(added_fields[_COLUMNS][1])]
    fields[_COLUMNS] = _LIST, join_list(_STRUCT, chunks)
    for size in (_TOTAL_BYTE_SIZE, _TOTAL_COMPRESSED_SIZE):
        if size in fields:
            fields[size] = _I64, _sum(fields[size], added_fields[size])
    return join_struct(fields)


def _moved_chunk(chunk: bytes, delta: int) -> bytes:
    """A column chunk whose pages lie `delta` bytes further on."""
    fields, _ = split_struct(chunk)
    meta, _ = split_struct(fields[_META_DATA][1])
    if any(key in fields for key in _UNMOVED_CHUNK_FIELDS) or _BLOOM_FILTER_OFFSET in meta:
        msg = "the columns to add have a page index or a bloom filter"
        raise CannotGraftError(msg)
    for key in _PAGE_OFFSETS:
        if key in meta:
            meta[key] = _I64, _moved(meta[key][1], delta)
    fields[_META_DATA] = _STRUCT, join_struct(meta)
    fields[_FILE_OFFSET] = _I64, _moved(fields[_FILE_OFFSET][1], delta)
    return join_struct(fields)


def _join_key_values(
    original: tuple[int, bytes] | None, schema: pa.Schema, metadata: Mapping[str, str]
) -> bytes:
    """The footer's key-value pairs; `ARROW:schema`, where there is one, gets the new fields too."""
    values = {key.encode(): value.encode() for key, value in metadata.items()}
    pairs: list[bytes] = []
    for pair in split_list(original[1]) if original else []:
        fields, _ = split_struct(pair)
        key = _text(fields[1][1])
        if key == ARROW_SCHEMA and 2 in fields:
            fields[2] = _BINARY, _binary(_extended_schema(_text(fields[2][1]), schema, values))
        if key not in values:
            pairs.append(join_struct(fields))
    pairs += [
        join_struct({1: (_BINARY, _binary(key)), 2: (_BINARY, _binary(value))})
        for key, value in values.items()
    ]
    return join_list(_STRUCT, pairs)


def _extended_schema(encoded: bytes, added: pa.Schema, values: Mapping[bytes, bytes]) -> bytes:
    try:
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded)))
    except pa.ArrowException as error:
        msg = f"its Arrow schema cannot be read ({error})"
        raise CannotGraftError(msg) from error
    for field in added:
        schema = schema.append(field)
    # pyarrow reads a schema's metadata from here, other readers from the footer's pairs.
    schema = schema.with_metadata({**(schema.metadata or {}), **values})
    return base64.b64encode(schema.serialize().to_pybytes())


def split_struct(data: bytes, start: int = 0) -> tuple[Fields, int]:
    """The fields of the struct at `start`, and where it ends."""
    fields: Fields = {}
    position, field_id = start, 0
    while header := data[position]:
        position += 1
        kind, step = header & 15, header >> 4
        if step:
            field_id += step
        else:
            number, position = _varint(data, position)
            field_id = _unzigzag(number)
        end = _skip(data, position, kind)
        fields[field_id] = kind, data[position:end]
        position = end
    return fields, position + 1


def join_struct(fields: Fields) -> bytes:
    """The struct of these fields, which need not be in order."""
    out = bytearray()
    previous = 0
    for field_id, (kind, value) in fields.items():
        step = field_id - previous
        if 0 < step <= 15:
            out.append(step << 4 | kind)
        else:
            out.append(kind)
            out += _encoded(_zigzag(field_id))
        out += value
        previous = field_id
    out.append(0)
    return bytes(out)


def split_list(data: bytes) -> list[bytes]:
    """The elements of a list, each in its own encoding."""
    kind, count, position = _list_header(data, 0)
    elements = []
    for _ in range(count):
        end = _skip(data, position, kind, in_list=True)
        elements.append(data[position:end])
        position = end
    return elements


def join_list(kind: int, elements: list[bytes]) -> bytes:
    """The list of these elements, all of type `kind`."""
    if len(elements) < _LONG_LIST:
        header = bytes([len(elements) << 4 | kind])
    else:
        header = bytes([_LONG_LIST << 4 | kind]) + _encoded(len(elements))
    return header + b"".join(elements)


def _skip(data: bytes, position: int, kind: int, *, in_list: bool = False) -> int:
    """Where the value of type `kind` at `position` ends."""
    if kind in {_I16, _I32, _I64}:
        while data[position] >= 128:
            position += 1
        return position + 1
    if kind == _BINARY:
        length, position = _varint(data, position)
        return position + length
    if kind == _STRUCT:
        return _skip_struct(data, position)
    if kind in {_LIST, _SET}:
        kind, count, position = _list_header(data, position)
        for _ in range(count):
            position = _skip(data, position, kind, in_list=True)
        return position
    if kind in {_TRUE, _FALSE}:
        return position + in_list  # a field's header holds its value; an element is a byte
    if kind == _BYTE:
        return position + 1
    if kind == _DOUBLE:
        return position + 8
    msg = f"type {kind} at byte {position}"
    raise ValueError(msg)


def _skip_struct(data: bytes, position: int) -> int:
    while header := data[position]:
        position += 1
        if not header >> 4:
            _, position = _varint(data, position)
        position = _skip(data, position, header & 15)
    return position + 1


def _list_header(data: bytes, position: int) -> tuple[int, int, int]:
    """The elements' type, how many there are, and where the first begins."""
    header = data[position]
    count, position = header >> 4, position + 1
    if count == _LONG_LIST:
        count, position = _varint(data, position)
    return header & 15, count, position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A base-128 number, low bits first, and where it ends."""
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position
        shift += 7


def _encoded(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _zigzag(number: int) -> int:
    return number << 1 if number >= 0 else -number * 2 - 1


def _unzigzag(number: int) -> int:
    return number >> 1 if not number & 1 else -(number >> 1) - 1


def _number(value: bytes) -> int:
    return _unzigzag(_varint(value, 0)[0])


def _sum(first: tuple[int, bytes], second: tuple[int, bytes]) -> bytes:
    return _encoded(_zigzag(_number(first[1]) + _number(second[1])))


def _moved(value: bytes, delta: int) -> bytes:
    offset = _number(value)
    # 0 is what writers put where there is no such page.
    return _encoded(_zigzag(offset + delta if offset > 0 else offset))


def _text(value: bytes) -> bytes:
    length, start = _varint(value, 0)
    return value[start : start + length]


def _binary(content: bytes) -> bytes:
    return _encoded(len(content)) + content
