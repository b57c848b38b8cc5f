"""Whether a source has the columns asked for, in types that can be read."""

import pyarrow as pa

from assay.data.columns import find_column, is_textual, is_token_ids, type_at, value_type
from assay.data.formats.table import FORMATS
from assay.data.sources import Columns, Source, id_column
from assay.errors import SourceError


def check_columns(source: Source, columns: Columns) -> None:
    """Raise SourceError where `source` lacks a column of `columns`, or has it in a type that cannot be read."""
    schema = source.schema
    if not len(schema) and not FORMATS[source.format].has_schema:
        return  # No row shows a column: nothing to find wrong.
    if columns.input_ids is None:
        _check_text(source, columns.text, "--text-column")
        _check_text(source, columns.text_pair, "--text-pair-column")
    else:
        path = find_column(schema, columns.input_ids, uri=source.uri, option="--input-ids-column")
        kind = type_at(schema, path)
        if not is_token_ids(kind):
            msg = (
                f"{source.uri}: column {columns.input_ids!r} is {kind}; token ids are a list of integers: "
                "set --input-ids-column"
            )
            raise SourceError(msg)
    path_of_id = id_column(source, columns)
    if path_of_id is not None:
        kind = value_type(type_at(schema, path_of_id))
        if pa.types.is_nested(kind) or pa.types.is_interval(kind):
            rule = "Parquet keeps no intervals" if pa.types.is_interval(kind) else "an id is one value"
            msg = (
                f"{source.uri}: the id column {'.'.join(path_of_id)!r} is {type_at(schema, path_of_id)}; "
                f"{rule}: set --id-column to another scalar column"
            )
            raise SourceError(msg)
    if columns.label is not None:
        find_column(schema, columns.label, uri=source.uri, option="--label-column")
    if columns.group is not None:
        path = find_column(schema, columns.group, uri=source.uri, option="--group-column")
        if pa.types.is_nested(value_type(type_at(schema, path))):
            msg = (
                f"{source.uri}: the group column {columns.group!r} is {type_at(schema, path)}; "
                "a group is one value: set --group-column to a scalar column"
            )
            raise SourceError(msg)


def _check_text(source: Source, name: str | None, option: str) -> None:
    if name is None:
        return
    way_out = option
    if FORMATS[source.format].is_delimited and len(source.schema) == 1:
        way_out = f"{option}, or --delimiter: no {source.delimiter!r} parts its header"
    kind = type_at(source.schema, find_column(source.schema, name, uri=source.uri, option=way_out))
    # A field of such a format is text, whatever its characters look like.
    if not FORMATS[source.format].is_all_text and not is_textual(kind):
        msg = f"{source.uri}: column {name!r} is {kind}; a text column holds strings: set {option} to another"
        raise SourceError(msg)
