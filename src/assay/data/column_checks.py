"""Whether a source has the columns asked for, in types that can be read."""

import pyarrow as pa

from assay.data.columns import is_textual, is_token_ids, type_at, value_type
from assay.data.formats.csv import delimiter_hint
from assay.data.formats.table import FORMATS
from assay.data.sources import Columns, Source, column_flag, id_column, named_column
from assay.errors import SourceError


def check_columns(source: Source, columns: Columns) -> None:
    """Raise SourceError where `source` lacks a column of `columns`, or has it in a type that cannot be read."""
    schema = source.schema
    if not len(schema) and not FORMATS[source.format].has_schema:
        return  # No row shows a column: nothing to find wrong.
    if columns.input_ids is None:
        _check_text(source, columns, "text")
        _check_text(source, columns, "text_pair")
    else:
        kind = _kind(source, named_column(source, columns, "input_ids"))
        if kind is not None and not is_token_ids(kind):
            msg = (
                f"{source.uri}: column {columns.input_ids!r} is {kind}; token ids are a list of integers: "
                f"set {column_flag('input_ids')}"
            )
            raise SourceError(msg)
    _check_id(source, columns)
    named_column(source, columns, "label")
    kind = _kind(source, named_column(source, columns, "group"))
    if kind is not None and pa.types.is_nested(value_type(kind)):
        msg = (
            f"{source.uri}: the group column {columns.group!r} is {kind}; "
            f"a group is one value: set {column_flag('group')} to a scalar column"
        )
        raise SourceError(msg)


def _kind(source: Source, path: tuple[str, ...] | None) -> pa.DataType | None:
    return None if path is None else type_at(source.schema, path)


def _check_text(source: Source, columns: Columns, field: str) -> None:
    or_else = ""
    if FORMATS[source.format].is_delimited and source.delimiter:
        hint = delimiter_hint(source.schema.names, source.delimiter, getattr(columns, field))
        if hint or len(source.schema) == 1:
            flag = f"--delimiter {hint}" if hint else "--delimiter"
            or_else = f", or {flag}: no {source.delimiter!r} parts its header"
    kind = _kind(source, named_column(source, columns, field, or_else=or_else))
    # A field of such a format is text, whatever its characters look like.
    if kind is None or FORMATS[source.format].is_all_text or is_textual(kind):
        return
    msg = (
        f"{source.uri}: column {getattr(columns, field)!r} is {kind}; a text column holds strings: "
        f"set {column_flag(field)} to another"
    )
    raise SourceError(msg)


def _check_id(source: Source, columns: Columns) -> None:
    path = id_column(source, columns)
    if path is None:
        return
    shown = type_at(source.schema, path)
    kind = value_type(shown)
    if pa.types.is_nested(kind) or pa.types.is_interval(kind):
        rule = "Parquet keeps no intervals" if pa.types.is_interval(kind) else "an id is one value"
        msg = (
            f"{source.uri}: the id column {'.'.join(path)!r} is {shown}; "
            f"{rule}: set {column_flag('id')} to another scalar column"
        )
        raise SourceError(msg)
