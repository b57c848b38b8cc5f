"""What a notebook holds to texts: strings, lists, series, data frames, Arrow; a bad row gets an error code."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from assay.data.columns import is_textual, value_type
from assay.data.rows import NOT_TEXT, NOT_UTF8, NULL, as_text
from assay.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class GivenTexts:
    """Texts, or pairs of texts, ready to be tokenized."""

    first: pa.Array
    """large_string, null where a row has an error."""
    second: pa.Array | None
    """The second text of each pair; None for single texts."""
    errors: dict[int, str]
    """Error code by row."""

    def __post_init__(self) -> None:
        """Raise InputError where not each row has both texts of a pair."""
        if self.second is not None and len(self.second) != len(self.first):
            raise InputError(
                f"{len(self.first)} texts and {len(self.second)} second texts; a pair needs both;"
                " pass columns of one length"
            )


def read_texts(
    texts: object,
    text_pairs: object = None,
    *,
    text_column: str | None = None,
    text_pair_column: str | None = None,
) -> GivenTexts:
    """The texts of `predict`; raises InputError for what is not a column of texts.

    A table is read by the names of its columns. A list of pairs, each a tuple or list of two, is two columns.
    """
    table = _as_table(texts)
    if table is None and (text_column is not None or text_pair_column is not None):
        raise InputError(
            f"text_column and text_pair_column name columns of a table; texts are {type(texts).__name__};"
            " leave them out, or pass a data frame"
        )
    if table is not None:
        if text_pairs is not None:
            raise InputError(
                "text_pairs beside a table; name its column of second texts with text_pair_column"
            )
        return _given(*_columns(table, text_column, text_pair_column))
    if text_pairs is None and (pairs := _pairs(texts)) is not None:
        return _given([first for first, _ in pairs], [second for _, second in pairs])
    return _given(texts, text_pairs)


def _given(first: object, second: object) -> GivenTexts:
    texts, errors = to_texts(first)
    if second is None:
        return GivenTexts(first=texts, second=None, errors=errors)
    others, other_errors = to_texts(second)
    return GivenTexts(first=texts, second=others, errors={**other_errors, **errors})


def to_texts(values: object) -> tuple[pa.Array, dict[int, str]]:
    """A column of texts as large_string, null where there is an error code; raises InputError."""
    if isinstance(values, str):
        values = [values]
    column = _arrow_column(values)
    if column is not None:
        found: dict[int, str] = {}
        return as_text(column, found), found
    if (
        not isinstance(values, Iterable)
        or isinstance(values, bytes | dict | set | frozenset)
        or getattr(values, "ndim", 1) != 1
    ):
        msg = f"texts are {type(values).__name__}; pass a string, a list of strings or a column of them"
        raise InputError(msg)
    texts: list[str | None] = []
    errors: dict[int, str] = {}
    for row, value in enumerate(values):
        code = _error_code(value)
        if code is not None:
            errors[row] = code
        texts.append(None if code is not None else str(value))
    return pa.array(texts, pa.large_string()), errors


# ---------------------------------------------------------------- tables


def _as_table(values: Any) -> Any:  # noqa: ANN401  whatever a notebook holds
    """What has columns by name: Arrow's table, a pandas frame as it is; None for anything else."""
    if isinstance(values, pa.RecordBatchReader):
        return values.read_all()
    if isinstance(values, pa.Table | pa.RecordBatch):
        return values
    if isinstance(values, str | pa.Array | pa.ChunkedArray) or getattr(values, "ndim", 2) != 2:
        return None
    if hasattr(values, "to_arrow"):  # Polars: a frame, or else a series
        values = values.to_arrow()
        return values if isinstance(values, pa.Table) else None
    if hasattr(values, "columns") and hasattr(values, "iloc"):
        # A frame of pandas may have columns that Arrow does not take: it is asked for those that are named.
        return values
    if hasattr(values, "__arrow_c_stream__"):
        try:
            return pa.table(values)
        except (TypeError, ValueError):
            return None
    return None


def _columns(
    table: Any,  # noqa: ANN401  whatever a notebook holds
    text_column: str | None,
    text_pair_column: str | None,
) -> tuple[object, object]:
    """The columns of a table that hold the texts; the second is None where none is named."""
    is_arrow = isinstance(table, pa.Table | pa.RecordBatch)
    names = list(table.schema.names if is_arrow else table.columns)
    if text_column is None:
        raise InputError(
            f"texts are a table of columns {_listed(names)}; name that of the texts with text_column"
        )
    found = []
    for argument, name in (("text_column", text_column), ("text_pair_column", text_pair_column)):
        if name is not None and names.count(name) != 1:
            how_many = names.count(name) or "none"
            raise InputError(
                f"{argument} {name!r}; {how_many} of the table's columns has this name; give one of {_listed(names)}"
            )
        found.append(None if name is None else table[name])
    return found[0], found[1]


def _listed(names: Sequence[object]) -> str:
    shown = ", ".join(map(str, names[:10]))
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


# ---------------------------------------------------------------- columns and pairs


def _pairs(values: object) -> list[tuple[object, object]] | None:
    """The pairs of a list of them; None where its first rows are something else."""
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        return None
    first = next((value for value in values if not _is_missing(value)), None)
    if not isinstance(first, tuple | list):
        return None
    found: list[tuple[object, object]] = []
    for row, value in enumerate(values):
        if _is_missing(value):
            found.append((None, None))
        elif isinstance(value, tuple | list) and len(value) == 2:
            found.append((value[0], value[1]))
        else:
            raise InputError(
                f"row {row} is {str(value)[:40]!r}; each row of a list of pairs is two texts; pass two"
            )
    return found


def _arrow_column(values: Any) -> pa.Array | None:  # noqa: ANN401  whatever a notebook holds
    """Arrow data, or a Polars series, without a Python loop; None for anything else."""
    if hasattr(values, "to_arrow"):
        values = values.to_arrow()
    if not isinstance(values, pa.Array | pa.ChunkedArray):
        return None
    if not is_textual(values.type):
        msg = f"texts are an Arrow column of {values.type}; pass a column of strings"
        raise InputError(msg)
    if isinstance(values, pa.ChunkedArray):
        # Bytes with 64-bit offsets: chunks of more than 2 GiB become one, and none is decoded yet.
        values = values.cast(value_type(values.type)).cast(pa.large_binary()).combine_chunks()
    return values


def _error_code(value: object) -> str | None:
    """What is wrong with one text: missing, not text, or not UTF-8 (a lone surrogate); None for a good one."""
    if not isinstance(value, str):
        return NULL if _is_missing(value) else NOT_TEXT
    try:
        value.encode()
    except UnicodeEncodeError:
        return NOT_UTF8
    return None


def _is_missing(value: object) -> bool:
    """None, or NaN, NaT or NA as pandas has them, which is not imported for this."""
    if isinstance(value, float):
        return value != value  # noqa: PLR0124  only NaN differs from itself
    return value is None or type(value).__name__ in {"NAType", "NaTType"}
