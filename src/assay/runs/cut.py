"""The sources of a run, cut into units; and the one type that their ids share."""

from collections.abc import Sequence

import pyarrow as pa

from assay.data.sources import (
    SOURCE_ROW,
    Columns,
    Source,
    id_column,
    id_type,
    shown_id_type,
    shows_no_column,
)
from assay.errors import SourceError
from assay.runs.plan import choose_unit_rows, limit_boundaries, plan_boundaries, share_unit_rows

BYTES_PER_TOKEN = 4.0
"""Of English text and a vocabulary of 30,000; only sizes units."""


def cut_sources(
    sources: Sequence[Source],
    *,
    unit_rows: int | None,
    limit_rows: int | None,
    max_length: int,
    tokens_per_second: float,
    num_workers: int,
) -> list[tuple[int, ...]]:
    """The unit boundaries of each source: units of `unit_rows`, or of about a minute, or as `share_unit_rows` says.

    `tokens_per_second` of each of the workers.
    """
    total = sum(source.num_rows for source in sources)
    if unit_rows is None:
        num_bytes = sum(source.bytes_per_row * source.num_rows for source in sources)
        tokens_per_row = min(num_bytes / max(total, 1) / BYTES_PER_TOKEN, max_length)
        minute = choose_unit_rows(tokens_per_row=tokens_per_row, tokens_per_second=tokens_per_second)
        planned = total if limit_rows is None else min(total, limit_rows)
        unit_rows = share_unit_rows(minute, num_rows=planned, num_workers=num_workers)
    return cut_evenly(sources, unit_rows, limit_rows)


def cut_evenly(
    sources: Sequence[Source], unit_rows: int, limit_rows: int | None = None
) -> list[tuple[int, ...]]:
    """The unit boundaries of each source, `unit_rows` a unit at the most; only the first `limit_rows` rows of all."""
    boundaries = []
    rows_left = limit_rows
    for source in sources:
        cuts = plan_boundaries(source.num_rows, source.splits, unit_rows)
        if rows_left is not None:
            cuts = limit_boundaries(cuts, rows_left)
            rows_left -= cuts[-1] if cuts else 0
        boundaries.append(cuts)
    return boundaries


def id_field(sources: Sequence[Source], columns: Columns) -> pa.Field:
    """The first column of a part: `id` with the type that all sources share, or `source_row`.

    A source that shows no id, having no rows or only nulls, takes the type of the others. Raises
    SourceError where some sources have an id column and others have none, or another type.
    """
    shown = [source for source in sources if not shows_no_column(source)] or list(sources[:1])
    first = next((each for each in shown if not pa.types.is_null(shown_id_type(each, columns))), shown[0])
    named = id_column(first, columns) is not None
    kind = id_type(first, columns)
    for source in shown:
        is_named = id_column(source, columns) is not None
        if is_named != named or shown_id_type(source, columns) not in {kind, pa.null()}:
            msg = (
                f"ids are {_kind(first, columns)} in {first.uri} and {_kind(source, columns)} in {source.uri}; "
                "a run has ids of one type; score them in two runs, or cast one"
            )
            raise SourceError(msg)
    return pa.field("id" if named else SOURCE_ROW, kind, nullable=named)


def _kind(source: Source, columns: Columns) -> str:
    return "absent" if id_column(source, columns) is None else str(shown_id_type(source, columns))
