"""`assay.load(path).predict(texts)`: the same engine and the same numbers as a run, in a notebook.

classifier = assay.load("bundle/")
classifier.predict("one text")
classifier.predict(frame["text"])              # pandas, Polars, Arrow, list
classifier.predict(questions, answers)         # pair models
"""

import os
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from assay.bundle.bundle import Bundle
from assay.bundle.load import load_bundle
from assay.bundle.texts import refuse_other_texts
from assay.data.columns import is_textual, value_type
from assay.data.rows import NOT_TEXT, NOT_UTF8, NULL, SourceRows, as_text
from assay.engine.engine import Engine
from assay.engine.load import load_engine
from assay.errors import InputError
from assay.score.chunks import chunks
from assay.score.schema import score_fields
from assay.score.scorer import Scorer
from assay.tokenize.encode import Encoder
from assay.tokenize.plan import choose_max_length
from assay.tokenize.settings import OnLong

BATCH_ROWS = 2_048


class Classifier:
    """A loaded bundle. Not thread-safe: one forward pass at a time."""

    def __init__(self, bundle: Bundle, engine: Engine, encoder: Encoder) -> None:
        """Use `load`."""
        self.bundle = bundle
        """What was loaded: labels, task, calibration, fingerprints."""
        self.engine = engine
        self._encoder = encoder

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs, in the order of the columns."""
        return self.bundle.labels

    def predict(self, texts: object, text_pairs: object = None) -> pa.Table:
        """A row for each text: `num_tokens`, `truncated`, `error`, then the task's score columns.

        Takes one string, or a list, tuple, iterator, NumPy array, pandas or Polars series, Arrow
        array or chunked array of strings; `text_pairs` likewise for pair models. A null or a value
        that is no string becomes a row with an error code and null scores, as in a run. Columns are
        those of a scored part (regression `prediction`; single-label `prediction`, `probability`,
        `prob_<label>`; multi-label `prob_<label>`), calibrated where the bundle is. The table has
        `to_pandas()`; Polars takes it with `pl.from_arrow`. Raises InputError for what is no column
        of texts.
        """
        first, first_errors = to_texts(texts)
        second, second_errors = (None, {}) if text_pairs is None else to_texts(text_pairs)
        refuse_other_texts(self.bundle, are_pairs=second is not None, setting="text_pairs", error=InputError)
        if second is not None and len(second) != len(first):
            msg = f"{len(first)} texts and {len(second)} second texts; a pair needs both; pass columns of one length"
            raise InputError(msg)
        scorer = Scorer(self.bundle, self.engine, self._encoder)
        errors = {**second_errors, **first_errors}
        rows = _batches(first, second, errors)
        schema = pa.schema(score_fields(self.bundle.decider))
        scored = [scorer.score(chunk).columns for chunk in chunks(rows, self._encoder, max_tokens=None)]
        batches = [
            pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
            for columns in scored
        ]
        return pa.Table.from_batches(batches, schema)


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    precision: str = "auto",
    max_length: int | None = None,
    on_long: OnLong = "truncate",
    stride: int = 0,
) -> Classifier:
    """The classifier in a bundle directory, or in any transformers sequence classification directory.

    `device` is `cpu`, `cuda` or `cuda:K`; `max_length`, `on_long` and `stride` are as in `assay
    score`. Raises BundleError for a directory that cannot be loaded or must not be, UsageError for a
    setting out of range.
    """
    bundle = load_bundle(path)
    encoder = Encoder.from_bundle(
        bundle.path, max_length=choose_max_length(bundle, max_length), on_long=on_long, stride=stride
    )
    return Classifier(bundle, load_engine(bundle.path, device=device, precision=precision), encoder)


def to_texts(values: object) -> tuple[pa.Array, dict[int, str]]:
    """A column of texts as large_string, null where there is an error code; raises InputError."""
    if isinstance(values, str):
        values = [values]
    column = _arrow_column(values)
    if column is not None:
        found: dict[int, str] = {}
        return as_text(column, found), found
    # A data frame would iterate over the names of its columns, a set in no order.
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


def _arrow_column(values: Any) -> pa.Array | None:  # noqa: ANN401  whatever a notebook holds
    """Arrow data, or a Polars series, without a Python loop; None for anything else."""
    if hasattr(values, "to_arrow"):
        values = values.to_arrow()
    if isinstance(values, pa.Table | pa.RecordBatch):
        msg = f"texts are a table of {values.num_columns} columns; pass one column of it"
        raise InputError(msg)
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
    """What is wrong with one text: missing, no text, or no UTF-8 (a lone surrogate); None for a good one."""
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


def _batches(first: pa.Array, second: pa.Array | None, errors: dict[int, str]) -> Iterable[SourceRows]:
    for start in range(0, len(first), BATCH_ROWS):
        texts = first.slice(start, BATCH_ROWS)
        stop = start + len(texts)
        yield SourceRows(
            start=start,
            num_rows=len(texts),
            texts=texts,
            text_pairs=None if second is None else second.slice(start, BATCH_ROWS),
            errors={row - start: code for row, code in errors.items() if start <= row < stop},
        )
