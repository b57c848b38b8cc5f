"""Rows of a source: ids, texts or token ids, and what is wrong with each.

No row is ever left out. One that has no usable text keeps its place with a null text and an error
code; empty and white-space texts are texts.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from assay.data.columns import values_of
from assay.data.ids import plain_ids
from assay.data.sources import KEY, Columns, Source, role_paths
from assay.errors import SourceError

NULL = "null"
"""The text is null or missing."""
NOT_TEXT = "not_text"
"""The JSON value is not a string."""
NOT_UTF8 = "not_utf8"
"""The bytes are not UTF-8, or hold lone surrogates."""
NOT_JSON = "not_json"
"""The line is not a JSON object."""
NOT_CSV = "not_csv"
"""The CSV record has another number of fields than the header."""


BATCH_ROWS = 8192
BATCH_BYTES = 64 * 1024 * 1024
INT32_MAX = 2**31 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRows:
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
    keys: dict[str, pa.Array] = field(default_factory=dict)
    """Likewise, by the names of `Columns.keys`."""
    errors: dict[int, str] = field(default_factory=dict)
    """Error code by place in the batch, 0 for its first row."""

    def slice(self, begin: int, length: int) -> "SourceRows":
        """Rows [begin, begin + length) of this batch, without a copy."""
        return SourceRows(
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
            keys={name: array.slice(begin, length) for name, array in self.keys.items()},
            errors={
                index - begin: code for index, code in self.errors.items() if begin <= index < begin + length
            },
        )


def _slice(array: pa.Array | None, begin: int, length: int) -> pa.Array | None:
    return None if array is None else array.slice(begin, length)


def table_rows(
    source: Source, columns: Columns, start: int, batch_rows: int, batches: Iterator[pa.RecordBatch]
) -> Iterator[SourceRows]:
    """The rows of record batches, of which the first begins at row `start`."""
    paths = role_paths(source, columns)
    for whole in batches:
        for begin in range(0, whole.num_rows, batch_rows):
            batch = whole.slice(begin, batch_rows)
            found = {role: _column(batch, path) for role, path in paths.items()}
            yield rows_of(source, start, batch.num_rows, found)
            start += batch.num_rows


def batches_from(batches: Iterable[pa.RecordBatch], start: int) -> Iterator[pa.RecordBatch]:
    """The record batches without their first `start` rows."""
    for batch in batches:
        if start >= batch.num_rows:
            start -= batch.num_rows
            continue
        yield batch.slice(start)
        start = 0


def _column(batch: pa.RecordBatch, path: tuple[str, ...]) -> pa.Array:
    array = batch.column(batch.schema.get_field_index(path[0]))
    # struct_field takes a null struct as null in each of its fields.
    return array if len(path) == 1 else pc.struct_field(array, list(path[1:]))


def rows_of(source: Source, start: int, num_rows: int, found: dict[str, pa.Array]) -> SourceRows:
    """Rows from columns as Arrow has them, by the roles of `role_paths`."""
    errors: dict[int, str] = {}
    texts = {role: as_text(found[role], errors) for role in ("texts", "text_pairs") if role in found}
    if errors:
        texts = {role: null_at(array, errors) for role, array in texts.items()}
    input_ids = None
    if "input_ids" in found:
        input_ids = _as_token_ids(found["input_ids"], source, start)
        errors = dict.fromkeys(_where(input_ids.is_null()), NULL) if input_ids.null_count else {}
    codes = found.get("codes")
    if codes is not None and codes.null_count < num_rows:
        errors.update({index: codes[index].as_py() for index in _where(codes.is_valid())})
    return SourceRows(
        start=start,
        num_rows=num_rows,
        ids=_as_ids(found.get("ids"), source),
        texts=texts.get("texts"),
        text_pairs=texts.get("text_pairs"),
        input_ids=input_ids,
        truncated=_as_numpy(found.get("truncated")),
        second_starts=_as_numpy(found.get("second_starts")),
        labels=_as_scalars(found.get("labels")),
        groups=_as_scalars(found.get("groups")),
        keys={name: plain_ids(array) for name, array in keys_of(found).items()},
        errors=dict(sorted(errors.items())),
    )


def keys_of(found: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """The columns of `Columns.keys` by their names, among columns by roles."""
    return {role.removeprefix(KEY): array for role, array in found.items() if role.startswith(KEY)}


def _where(mask: pa.BooleanArray) -> list[int]:
    return [int(index) for index in np.flatnonzero(np.asarray(mask))]


def _as_numpy(array: pa.Array | None) -> Any:  # noqa: ANN401  bool or int32, as the column is
    if array is None:
        return None
    return array.fill_null(pa.scalar(0).cast(array.type)).to_numpy(zero_copy_only=False)


def _as_ids(array: pa.Array | None, source: Source) -> pa.Array | None:
    ids = _as_scalars(array)
    if ids is not None and pa.types.is_null(ids.type):
        return pa.nulls(len(ids), source.id_type or pa.string())
    return ids


def _as_scalars(array: pa.Array | None) -> pa.Array | None:
    return None if array is None else plain_ids(array)


def as_text(array: pa.Array, errors: dict[int, str]) -> pa.LargeStringArray:
    """The texts of a column of strings or bytes; adds an error for each that is null or not UTF-8."""
    array = values_of(array)
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


def null_at(array: pa.Array, errors: dict[int, str]) -> pa.Array:
    """The array with nulls at the places of `errors`."""
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
        msg = f"{source.uri} from row {start}: a token id is above {INT32_MAX}; token ids are int32"
        raise SourceError(msg) from error
