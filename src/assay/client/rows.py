"""[pure] Rows of a stream: what is sent of each, and the columns that it gets."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from assay.client.calls import ENVELOPE_BYTES, Item, Packer, batch_call, item_bytes, quote
from assay.client.replies import Info, JsonObject, Prediction, read_predictions
from assay.client.wire import OK, Steps, error_text, exchange
from assay.errors import InputError, UsageError
from assay.tasks import INT_SCORE, INTERVAL, LABELS, PREDICTION, PROBABILITY, Task, probability_column

REFUSED_STATUSES = frozenset({413, 422, 424})
"""The texts cannot be used, or not together."""
NULL, NOT_TEXT, NOT_UTF8, TOO_LARGE = "null", "not_text", "not_utf8", "too_large"
"""Codes in column `error` of streamed rows that were not sent; the first three as in a scored part."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row on its way: its texts as JSON, and what came of them."""

    row: JsonObject
    item: Item | None
    """None where it is not sent."""
    error: str | None = None
    prediction: Prediction | None = None


class StreamColumns:
    """Names of the columns that a stream adds: those of a scored part, in its order.

    num_tokens and truncated (with `details`), error, and the scores by task. Whether a regression has
    an interval and whole scores is known from the first prediction.
    """

    def __init__(self, info: Info, *, details: bool) -> None:
        first = ("num_tokens", "truncated", "error") if details else ("error",)
        self.names = (*first, *_task(info).score_columns(info.labels))

    def learn(self, batch: Sequence[Row]) -> Self:
        """Add the columns that the predictions of a batch have beyond these."""
        for row in batch:
            if row.prediction is not None:
                more = [
                    name for name in score_columns(row.prediction, details=False) if name not in self.names
                ]
                self.names = (*self.names, *more)
                break
        return self


def _task(info: Info) -> Task:
    """What the model predicts; raises UsageError where it is an encoder."""
    if info.task is None:
        msg = f"the server's model {info.model_id} is an encoder; it gives vectors, not scores; use embed"
        raise UsageError(msg)
    return info.task


def check_columns(info: Info, text_pair_column: str | None) -> None:
    """Raises InputError where the model takes pairs and no second column is given, or the other way round."""
    if info.is_pair is True and text_pair_column is None:
        msg = "text_pair_column is None; this model takes pairs of texts; name the column of the second"
        raise InputError(msg)
    if info.is_pair is False and text_pair_column is not None:
        msg = f"text_pair_column {text_pair_column!r}; this model takes single texts; leave it out"
        raise InputError(msg)


def row_packer(info: Info) -> Packer[Row]:
    """Cuts rows by the limits of a server."""
    return Packer(max_batch=info.max_client_batch_size, max_bytes=info.max_body_bytes - ENVELOPE_BYTES)


def row_bytes(row: Row) -> int:
    """Bytes that a row takes in a body; one that is not sent takes none."""
    return 0 if row.item is None else item_bytes(row.item)


def read_row(row: JsonObject, text_column: str, text_pair_column: str | None, info: Info) -> Row:
    """A row of a stream, ready to send; one that cannot be sent carries its error code.

    Raises InputError for a row that lacks the column.
    """
    texts: list[bytes] = []
    for column in (text_column, *(() if text_pair_column is None else (text_pair_column,))):
        if column not in row:
            msg = f"column {column!r} is not in a row of {', '.join(map(str, row))}; each row has it; pass text_column="
            raise InputError(msg)
        value = row[column]
        if not isinstance(value, str):
            return Row(row=row, item=None, error=NULL if value is None else NOT_TEXT)
        try:
            texts.append(quote(value, column))
        except InputError:
            return Row(row=row, item=None, error=NOT_UTF8)
        if len(value) > info.max_text_chars:
            return Row(row=row, item=None, error=TOO_LARGE)
    item = (texts[0], texts[1] if text_pair_column is not None else None)
    if item_bytes(item) > info.max_body_bytes - ENVELOPE_BYTES:
        return Row(row=row, item=None, error=TOO_LARGE)
    return Row(row=row, item=item)


def score_items(
    items: Sequence[Item], *, details: bool, retries: int, jitter: Callable[[], float]
) -> Steps[list[Prediction | str]]:
    """A prediction for each text, or why it has none.

    A call that is refused for its content is halved until the text at fault stands alone.
    """
    if not items:
        return []
    call = replace(batch_call(items, details=details), accepts=frozenset({200, *REFUSED_STATUSES}))
    reply = yield from exchange(call, retries=retries, jitter=jitter)
    if reply.status == OK:
        return list(read_predictions(reply, len(items)))
    if len(items) == 1:
        return [error_text(reply.body) or f"status {reply.status}"]
    half = len(items) // 2
    found = yield from score_items(items[:half], details=details, retries=retries, jitter=jitter)
    rest = yield from score_items(items[half:], details=details, retries=retries, jitter=jitter)
    return found + rest


def score_rows(
    batch: Sequence[Row], *, details: bool, retries: int, jitter: Callable[[], float]
) -> Steps[list[Row]]:
    """The rows of a batch with their predictions, or errors."""
    items = [row.item for row in batch if row.item is not None]
    found = iter((yield from score_items(items, details=details, retries=retries, jitter=jitter)))
    done = []
    for row in batch:
        if row.item is None:
            done.append(row)
            continue
        one = next(found)
        done.append(replace(row, error=one) if isinstance(one, str) else replace(row, prediction=one))
    return done


def scored_rows(batch: Sequence[Row], columns: StreamColumns, *, details: bool) -> Iterator[dict[str, Any]]:
    """The rows with their scores, those without one with nulls.

    Raises InputError for a row that has one of the columns already.
    """
    for row in batch:
        taken = [name for name in columns.names if name in row.row]
        if taken:
            msg = f"a row has a column {taken[0]!r} already; the scores are named so; rename the column"
            raise InputError(msg)
        scores = {} if row.prediction is None else score_columns(row.prediction, details=details)
        yield {**row.row, **dict.fromkeys(columns.names), "error": row.error, **scores}


def score_columns(prediction: Prediction, *, details: bool) -> dict[str, Any]:
    """The columns of one prediction."""
    columns: dict[str, Any] = {}
    if details:
        columns = {"num_tokens": prediction.num_tokens, "truncated": prediction.truncated}
    if prediction.score is not None:
        columns[PREDICTION] = prediction.score
    if prediction.interval is not None:
        columns.update(zip(INTERVAL, prediction.interval, strict=True))
    if prediction.int_score is not None:
        columns[INT_SCORE] = prediction.int_score
    if prediction.label is not None:
        columns |= {PREDICTION: prediction.label, PROBABILITY: prediction.confidence}
    if prediction.labels is not None:
        columns[LABELS] = list(prediction.labels)
    columns |= {probability_column(label): value for label, value in prediction.probabilities.items()}
    return {**columns, **(prediction.stages or {})}
