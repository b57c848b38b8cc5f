"""A client of `assay serve`, sync and async, with the same rules for both.

    with assay.Client("http://127.0.0.1:8000") as client:
        client.predict("Shares fell sharply.").label
        client.predict_batch(texts)                      # any number, in order
        for row in client.stream(rows, text_column="body"): ...

What to send, when to try again and what an answer means is decided by plain functions and one
generator (`exchange`) that touch no socket and no clock, so both clients share them (the idea is that
of `httpx/_auth.py`). The clients themselves only send, wait and keep several requests in flight.

Needs httpx, which the extra `serve` brings. Training, scoring of whole corpora and the TEI routes are
not covered: a client of text-embeddings-inference is a client of this server as it stands.
"""

import asyncio
import contextlib
import itertools
import json
import math
import random
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypedDict, TypeVar, cast
from urllib.parse import urlsplit

from assay.errors import AssayError, InputError, UsageError, WorkError

if TYPE_CHECKING:
    from types import ModuleType

    import httpx

T = TypeVar("T")
R = TypeVar("R")
JsonObject = Mapping[str, Any]
Item = tuple[bytes, bytes | None]
"""A text as JSON, and its second text."""

OK = 200
RETRIED_STATUSES = frozenset({429, 503, 504})
"""Too many requests, not ready, took too long: the same request may do well a moment later."""
REFUSED_STATUSES = frozenset({413, 422, 424})
"""The texts cannot be used, or not together."""
FIRST_WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 8.0
"""Of our own back-off; a `Retry-After` may ask for more."""
MOST_RETRY_AFTER_SECONDS = 120.0
"""A server that asks for a longer wait is not waited for."""
ERRORS_BY_STATUS: Mapping[int, tuple[type[AssayError], str]] = {
    400: (InputError, "look at the request"),
    401: (UsageError, "pass api_key=, a key that the server knows"),
    403: (UsageError, "pass api_key=, a key that may do this"),
    404: (UsageError, "check the address; it must be that of `assay serve`"),
    405: (UsageError, "check the address; it must be that of `assay serve`"),
    413: (InputError, "send less at once"),
    415: (UsageError, "check the address; it must be that of `assay serve`"),
    422: (InputError, "see the limits in client.info()"),
    424: (WorkError, "see what the model takes in client.info(), and the server's log"),
    429: (WorkError, "send less at once, or allow more retries"),
    500: (WorkError, "see the server's log"),
    503: (WorkError, "wait until client.health() is ready"),
    504: (WorkError, "send less at once, or give the server a longer --timeout"),
}
"""What an answer that is none means: the error raised, and the way out."""

NULL, NOT_TEXT, NOT_UTF8, TOO_LARGE = "null", "not_text", "not_utf8", "too_large"
"""Codes in column `error` of streamed rows that were not sent; the first three as in a scored part."""


# ---------------------------------------------------------------- what comes back


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """Where the server spent its time on a request, in milliseconds."""

    tokenize_ms: float
    queue_ms: float
    forward_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What the model says of one text."""

    label: str | None = None
    """The predicted label; single-label models only."""
    confidence: float | None = None
    """Its probability."""
    labels: tuple[str, ...] | None = None
    """The labels that hold; multi-label models only."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Probability of each label, calibrated where the bundle is; empty for regression."""
    score: float | None = None
    """The predicted number; regression only."""
    int_score: int | None = None
    """The same, rounded and clipped, where the bundle has whole scores; regression only."""
    interval: tuple[float, float] | None = None
    """Where the true number lies, as far as the bundle was calibrated for that; regression only."""
    num_tokens: int | None = None
    """Tokens that the model saw; with `details`."""
    truncated: bool | None = None
    """Whether the text was longer than that; with `details`."""
    timings: Timings | None = None
    """Where the time went; with `details`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """One text of a reranked list."""

    index: int
    """Its place in the texts as given."""
    score: float
    """How well it answers the query."""
    text: str | None = None
    """The text, where it was asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """Whether the server answers predictions now."""

    ready: bool
    reason: str = ""
    """Why not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Info:
    """What the server serves, and within which limits."""

    model_id: str
    fingerprint: str
    """Hash of all of the bundle that can change a score."""
    task: str
    """single_label, multi_label or regression."""
    labels: tuple[str, ...]
    is_pair: bool | None
    """Whether the model takes two texts; None where the bundle does not say."""
    version: str
    """Of Assay, on the server."""
    max_client_batch_size: int
    """Most texts of one request."""
    max_body_bytes: int
    """Most bytes of one request."""
    max_text_chars: int
    """Most characters of one text."""
    max_input_length: int
    """Most tokens of a text that the model sees."""
    raw: JsonObject = field(repr=False)
    """The whole answer."""


# ---------------------------------------------------------------- the pure core


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One HTTP request, address relative to the server's."""

    method: str
    path: str
    body: bytes | None = None
    accepts: frozenset[int] = frozenset({OK})
    """Statuses whose answer is given to the caller as it is."""


HEALTH = Request(method="GET", path="/health", accepts=frozenset({OK, 503}))
INFO = Request(method="GET", path="/info")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back for one try."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """A try without an answer."""

    reason: str
    again: bool
    """Whether the connection failed, rather than the time running out or the address being wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """Do nothing for so long."""

    seconds: float


Steps = Generator[Request | Wait, Answer | Lost | None, T]
"""What to do, a step at a time; driven with what came of each: Answer or Lost for a Request, None for a Wait."""


class Retrying(TypedDict):
    """How often to try again, and how the waits are spread: numbers in [0, 1)."""

    retries: int
    jitter: Callable[[], float]


def exchange(request: Request, *, retries: int, jitter: Callable[[], float]) -> Steps[Answer]:
    """The answer to a request, trying again where that can help.

    Waits are exponential with full jitter ("Exponential Backoff And Jitter", AWS, 2015), on top of
    what `Retry-After` asks for. Raises the error of `ERRORS_BY_STATUS` for what is left when the
    retries are used up.
    """
    for tries in itertools.count(1):
        outcome = yield request
        if isinstance(outcome, Answer) and outcome.status in request.accepts:
            return outcome
        if isinstance(outcome, Lost):
            again, asked = outcome.again, 0.0
        else:
            assert outcome is not None, "a request was answered with nothing"
            again, asked = outcome.status in RETRIED_STATUSES, retry_after(outcome.headers)
        if not again or tries > retries or asked > MOST_RETRY_AFTER_SECONDS:
            raise_for(request, outcome, tries)
        backoff = min(FIRST_WAIT_SECONDS * 2.0 ** (tries - 1), LONGEST_WAIT_SECONDS)
        # Those who were told the same second should not all come back in it.
        yield Wait(seconds=asked + backoff * jitter())
    raise AssertionError


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait, 0 where it does not say (RFC 9110, 10.2.3).

    A date counts from the answer's own `Date`, so no clock has to agree with the server's.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        asked, now = parsedate_to_datetime(value), parsedate_to_datetime(headers.get("date", ""))
        return max((asked - now).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return 0.0


def raise_for(request: Request, outcome: Answer | Lost, tries: int) -> NoReturn:
    """Raises what a try that cannot be used means, by `ERRORS_BY_STATUS`."""
    after = f" ({tries} tries)" if tries > 1 else ""
    if isinstance(outcome, Lost):
        msg = f"{request.method} {request.path}: {outcome.reason}{after}; no answer came; check that the server runs"
        raise WorkError(msg)
    kind, way_out = ERRORS_BY_STATUS.get(
        outcome.status, (WorkError, "check the address and the server's log")
    )
    said = error_text(outcome.body)
    msg = f"{request.method} {request.path}: {outcome.status}{f' {said}' if said else ''}{after}; {way_out}"
    raise kind(msg)


def error_text(body: bytes) -> str:
    """The sentence in a server's error answer, on one line; empty where there is none."""
    try:
        content = json.loads(body)
    except ValueError:
        return ""
    said = content.get("error") if isinstance(content, dict) else None
    return " ".join(said.split())[:500] if isinstance(said, str) else ""


def quote(text: object, what: str) -> bytes:
    """A text as JSON in UTF-8; raises InputError for what is no text."""
    if not isinstance(text, str):
        msg = f"{what} is {type(text).__name__}; a text is a string; pass strings"
        raise InputError(msg)
    try:
        return json.dumps(text, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        at, seen = next((at, seen) for at, seen in enumerate(text) if "\ud800" <= seen <= "\udfff")
        msg = f"{what} holds {seen!a} at {at}; a text is valid Unicode; decode it again"
        raise InputError(msg) from None


def batch_request(items: Sequence[Item], *, details: bool) -> Request:
    """`POST /predict/batch` for quoted texts, either all or none of them with a pair."""
    parts = [b'{"texts":[', b",".join(text for text, _ in items), b"]"]
    if items and items[0][1] is not None:
        parts += [b',"text_pairs":[', b",".join(pair for _, pair in items if pair is not None), b"]"]
    parts.append(b',"details":true}' if details else b',"details":false}')
    return Request(method="POST", path="/predict/batch", body=b"".join(parts))


ENVELOPE_BYTES = len(b'{"texts":[],"text_pairs":[],"details":false}')
"""Bytes of a body beside its texts, at the most."""


def item_bytes(item: Item) -> int:
    """Bytes that a quoted text and its pair take in a body, commas included."""
    return len(item[0]) + 1 + (len(item[1]) + 1 if item[1] is not None else 0)


class Packer(Generic[T]):
    """Cuts what comes along into consecutive batches within a count and a size."""

    def __init__(self, *, max_batch: int, max_bytes: int) -> None:
        self._max_batch = max_batch
        self._max_bytes = max_bytes
        self._batch: list[T] = []
        self._size = 0

    def add(self, item: T, size_bytes: int) -> list[T] | None:
        """Take one more; the batch before it, where it no longer fits there.

        An item above the size by itself becomes a batch by itself, for the server to refuse.
        """
        full = None
        if self._batch and (len(self._batch) >= self._max_batch or self._size + size_bytes > self._max_bytes):
            full = self.rest()
        self._batch.append(item)
        self._size += size_bytes
        return full

    def rest(self) -> list[T]:
        """What is left, which may be nothing."""
        batch, self._batch, self._size = self._batch, [], 0
        return batch


def pack(items: Iterable[Item], info: Info) -> Iterator[list[Item]]:
    """Quoted texts in as few requests as the limits of a server allow, order kept."""
    packer: Packer[Item] = Packer(
        max_batch=info.max_client_batch_size, max_bytes=info.max_body_bytes - ENVELOPE_BYTES
    )
    for item in items:
        full = packer.add(item, item_bytes(item))
        if full:
            yield full
    last = packer.rest()
    if last:
        yield last


def one_request(text: str, text_pair: str | None) -> Request:
    """The request for one text, with all that the server tells of it."""
    pair = None if text_pair is None else quote(text_pair, "text_pair")
    return batch_request([(quote(text, "text"), pair)], details=True)


def rerank_request(query: str, texts: Sequence[str], *, raw_scores: bool, return_text: bool) -> Request:
    """`POST /rerank`, as text-embeddings-inference has it."""
    quoted = b",".join(text for text, _ in quote_all(texts, None))
    flags = json.dumps({"raw_scores": raw_scores, "return_text": return_text}).encode()[1:]
    body = b'{"query":' + quote(query, "query") + b',"texts":[' + quoted + b"]," + flags
    return Request(method="POST", path="/rerank", body=body)


def quote_all(texts: Iterable[str], text_pairs: Iterable[str] | None) -> list[Item]:
    """Texts and their pairs as JSON; raises InputError for what is no list of texts."""
    if isinstance(texts, str) or isinstance(text_pairs, str):
        msg = "texts is one string; predict_batch takes a list of them; use predict for one"
        raise InputError(msg)
    first = [quote(text, f"text {number}") for number, text in enumerate(texts)]
    if text_pairs is None:
        return [(text, None) for text in first]
    second = [quote(text, f"second text {number}") for number, text in enumerate(text_pairs)]
    if len(first) != len(second):
        msg = (
            f"{len(first)} texts and {len(second)} second texts; a pair needs both; pass lists of one length"
        )
        raise InputError(msg)
    return list(zip(first, second, strict=True))


def read_json(answer: Answer, kind: type[T], path: str) -> T:
    """The JSON in an answer; raises WorkError for anything else than a `kind`."""
    try:
        content = json.loads(answer.body)
    except ValueError:
        content = None
    if not isinstance(content, kind):
        msg = f"{path}: the answer is no JSON {kind.__name__}; `assay serve` gives one; check the address"
        raise WorkError(msg)
    return content


def read_predictions(answer: Answer, num_texts: int) -> list[Prediction]:
    """The predictions of a batch; raises WorkError unless there is one for each text."""
    content = read_json(answer, list, "/predict/batch")
    if len(content) != num_texts:
        msg = f"/predict/batch: {len(content)} answers to {num_texts} texts; each has one; check the server's version"
        raise WorkError(msg)
    return [read_prediction(item) for item in content]


def read_prediction(content: object) -> Prediction:
    """One prediction from its JSON; raises WorkError where it is none."""
    try:
        item = cast("JsonObject", content)
        labels, interval, timings = item.get("labels"), item.get("interval"), item.get("timings")
        score = item.get("score")
        found = Prediction(
            label=item.get("label"),
            confidence=item.get("confidence"),
            labels=None if labels is None else tuple(labels),
            probabilities=dict(item.get("all_probabilities") or {}),
            score=None if score is None else float(score),
            int_score=item.get("int_score"),
            interval=None if interval is None else (float(interval[0]), float(interval[1])),
            num_tokens=item.get("num_tokens"),
            truncated=item.get("truncated"),
            timings=None if timings is None else read_timings(timings),
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        found = Prediction()
    if found.score is None and not found.probabilities:
        seen = json.dumps(content)[:200]
        msg = f"a prediction is {seen}; it has probabilities or a score; check the server's version"
        raise WorkError(msg)
    return found


def read_timings(content: JsonObject) -> Timings:
    """The server's times from their JSON."""
    return Timings(
        tokenize_ms=float(content["tokenize_ms"]),
        queue_ms=float(content["queue_ms"]),
        forward_ms=float(content["forward_ms"]),
    )


def read_health(answer: Answer) -> Health:
    """Whether the server is ready, and why not."""
    return Health(ready=answer.status == OK, reason="" if answer.status == OK else error_text(answer.body))


def read_info(answer: Answer) -> Info:
    """What the server serves; raises WorkError for an answer that is not of `assay serve`."""
    content = read_json(answer, dict, "/info")
    try:
        return Info(
            model_id=str(content["model_id"]),
            fingerprint=str(content["fingerprint"]),
            task=str(content["task"]),
            labels=tuple(map(str, content["labels"])),
            is_pair=content["is_pair"],
            version=str(content["version"]),
            max_client_batch_size=int(content["max_client_batch_size"]),
            max_body_bytes=int(content["max_body_bytes"]),
            max_text_chars=int(content["max_text_chars"]),
            max_input_length=int(content["max_input_length"]),
            raw=content,
        )
    except (KeyError, TypeError, ValueError) as error:
        msg = f"/info: the answer lacks {error}; `assay serve` gives it; check the address and the server's version"
        raise WorkError(msg) from None


def read_ranks(answer: Answer) -> list[Rank]:
    """Ranks as the server sorted them; raises WorkError where they are none."""
    content = read_json(answer, list, "/rerank")
    try:
        return [
            Rank(index=int(item["index"]), score=float(item["score"]), text=item.get("text"))
            for item in content
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        msg = "/rerank: an item has no index and score; a rank has both; check the server's version"
        raise WorkError(msg) from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What a client was made with."""

    url: str
    api_key: str | None = field(repr=False)
    in_flight: int
    """Requests under way at once, at the most."""


def check_settings(url: str, api_key: str | None, timeout: float, retries: int, in_flight: int) -> Settings:
    """The arguments of a client, checked; raises UsageError."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.query
    except (AttributeError, ValueError):
        is_address = False
    if not is_address:
        msg = f"url {url!r}; an address of a server is needed; pass one such as http://127.0.0.1:8000"
        raise UsageError(msg)
    if api_key is not None and (not api_key or not api_key.isascii() or not api_key.isprintable()):
        msg = "api_key holds characters that a header cannot carry, or none; pass the key as it stands"
        raise UsageError(msg)
    if not 0 < timeout < math.inf:
        msg = f"timeout {timeout}; seconds of a try must be above 0; pass for example 30"
        raise UsageError(msg)
    if retries < 0:
        msg = f"retries {retries}; it must be 0 or more; pass 0 to try once"
        raise UsageError(msg)
    if in_flight < 1:
        msg = f"in_flight {in_flight}; requests under way at once are 1 or more; pass 1 for one after another"
        raise UsageError(msg)
    return Settings(url=url.rstrip("/"), api_key=api_key, in_flight=in_flight)


def headers_of(settings: Settings) -> dict[str, str]:
    """The headers of every request."""
    key = {} if settings.api_key is None else {"Authorization": f"Bearer {settings.api_key}"}
    return {"Content-Type": "application/json", "Accept": "application/json", **key}


# ---------------------------------------------------------------- rows of a stream


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row on its way: its texts as JSON, and what came of them."""

    row: JsonObject
    item: Item | None
    """None where it is not sent."""
    error: str | None = None
    prediction: Prediction | None = None


class Columns:
    """Names of the columns that a stream adds: those of a scored part, in its order.

    num_tokens and truncated (with `details`), error, and the scores by task. Whether a regression has
    an interval and whole scores is learnt from the first prediction.
    """

    def __init__(self, info: Info, *, details: bool) -> None:
        first = ("num_tokens", "truncated", "error") if details else ("error",)
        per_label = tuple(f"prob_{label}" for label in info.labels)
        scores = {
            "regression": ("prediction",),
            "single_label": ("prediction", "probability", *per_label),
        }.get(info.task, per_label)
        self.names = (*first, *scores)

    def learn(self, batch: Sequence[Row]) -> Self:
        """Take what the predictions of a batch have besides."""
        for row in batch:
            if row.prediction is not None:
                more = [
                    name for name in score_columns(row.prediction, details=False) if name not in self.names
                ]
                self.names = (*self.names, *more)
                break
        return self


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

    A request that is refused for what is in it is halved until the text at fault stands alone.
    """
    if not items:
        return []
    request = replace(batch_request(items, details=details), accepts=frozenset({200, *REFUSED_STATUSES}))
    answer = yield from exchange(request, retries=retries, jitter=jitter)
    if answer.status == OK:
        return list(read_predictions(answer, len(items)))
    if len(items) == 1:
        return [error_text(answer.body) or f"status {answer.status}"]
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


def scored_rows(batch: Sequence[Row], columns: Columns, *, details: bool) -> Iterator[dict[str, Any]]:
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
        columns["prediction"] = prediction.score
    if prediction.interval is not None:
        columns["prediction_low"], columns["prediction_high"] = prediction.interval
    if prediction.int_score is not None:
        columns["int_score"] = prediction.int_score
    if prediction.label is not None:
        columns.update(prediction=prediction.label, probability=prediction.confidence)
    columns.update({f"prob_{label}": value for label, value in prediction.probabilities.items()})
    return columns


# ---------------------------------------------------------------- the two clients


class Client:
    """A client of one server. Thread-safe; close it, or use it in a `with` block.

    `timeout` is seconds of one try, `retries` is how often a request is tried again after a lost
    connection, 429, 503 or 504; nothing else is. `in_flight` requests at most are under way at once
    in `predict_batch` and `stream`. `transport` replaces the network, for tests. Errors: UsageError
    for a wrong address or key, InputError for what the server refuses, WorkError for what failed.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 5,
        in_flight: int = 4,
        transport: "httpx.BaseTransport | None" = None,
    ) -> None:
        self._settings = check_settings(url, api_key, timeout, retries, in_flight)
        httpx = _import_httpx()
        self._http = httpx.Client(
            base_url=self._settings.url,
            headers=headers_of(self._settings),
            timeout=timeout,
            # `in_flight` bounds them, and each is used again
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            transport=transport,
        )
        self._retrying = Retrying(retries=retries, jitter=random.random)
        self._info: Info | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def health(self) -> Health:
        """Whether the server is ready, tried once; raises WorkError where nothing answers."""
        return read_health(self._drive(exchange(HEALTH, retries=0, jitter=random.random)))

    def info(self) -> Info:
        """What the server serves, asked anew."""
        self._info = read_info(self._send(INFO))
        return self._info

    def predict(self, text: str, text_pair: str | None = None) -> Prediction:
        """The prediction for one text (and its second, for pair models), with token count and timings."""
        return read_predictions(self._send(one_request(text, text_pair)), 1)[0]

    def predict_batch(
        self, texts: Iterable[str], text_pairs: Iterable[str] | None = None, *, details: bool = False
    ) -> list[Prediction]:
        """A prediction for each text, in order, in as many requests as the server's limits ask for."""
        items = quote_all(texts, text_pairs)
        batches = pack(items, self._info or self.info()) if items else ()

        def work(batch: list[Item]) -> list[Prediction]:
            return read_predictions(self._send(batch_request(batch, details=details)), len(batch))

        return [prediction for found in self._spread(work, batches) for prediction in found]

    def stream(
        self,
        rows: Iterable[JsonObject],
        text_column: str = "text",
        *,
        text_pair_column: str | None = None,
        details: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Each row with its scores added, in order; rows are taken as they are needed.

        The columns are those of a scored part. A row whose text is missing, no text, not Unicode or
        larger than a request may be is not sent, and one that the server refuses has no scores; `error`
        says why. Raises InputError for a row that lacks a column or already has one of the scores.
        """
        info = self._info or self.info()
        check_columns(info, text_pair_column)
        columns = Columns(info, details=details)

        def work(batch: list[Row]) -> list[Row]:
            return self._drive(score_rows(batch, details=details, **self._retrying))

        def batches() -> Iterator[list[Row]]:
            packer = row_packer(info)
            for row in rows:
                ready = read_row(row, text_column, text_pair_column, info)
                full = packer.add(ready, row_bytes(ready))
                if full:
                    yield full
            yield packer.rest()

        for batch in self._spread(work, batches()):
            yield from scored_rows(batch, columns.learn(batch), details=details)

    def rerank(
        self, query: str, texts: Sequence[str], *, raw_scores: bool = False, return_text: bool = False
    ) -> list[Rank]:
        """The texts from the best answer to the query to the worst; pair models of one output or two."""
        request = rerank_request(query, texts, raw_scores=raw_scores, return_text=return_text)
        return read_ranks(self._send(request))

    def _spread(self, work: Callable[[T], R], batches: Iterable[T]) -> Iterator[R]:
        """What `work` makes of each batch, in order, several at once, taking few batches ahead."""
        limit = self._settings.in_flight
        under_way: deque[Future[R]] = deque()
        pool = ThreadPoolExecutor(limit, thread_name_prefix="assay-client")
        try:
            for batch in batches:
                under_way.append(pool.submit(work, batch))
                if len(under_way) >= limit:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            # Whoever stops early should not wait for the back-off of requests that nobody wants.
            pool.shutdown(wait=False, cancel_futures=True)

    def _send(self, request: Request) -> Answer:
        return self._drive(exchange(request, **self._retrying))

    def _drive(self, steps: Steps[T]) -> T:
        outcome: Answer | Lost | None = None
        try:
            while True:
                step = steps.send(outcome)
                if isinstance(step, Wait):
                    time.sleep(step.seconds)
                    outcome = None
                else:
                    outcome = self._try(step)
        except StopIteration as done:
            return cast("T", done.value)

    def _try(self, request: Request) -> Answer | Lost:
        import httpx

        try:
            response = self._http.request(request.method, request.path, content=request.body)
        except httpx.HTTPError as error:
            return lost(error)
        return Answer(status=response.status_code, body=response.content, headers=dict(response.headers))


class AsyncClient:
    """The same as `Client`, to be awaited; for one event loop. Close it with `aclose` or `async with`."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 5,
        in_flight: int = 4,
        transport: "httpx.AsyncBaseTransport | None" = None,
    ) -> None:
        self._settings = check_settings(url, api_key, timeout, retries, in_flight)
        httpx = _import_httpx()
        self._http = httpx.AsyncClient(
            base_url=self._settings.url,
            headers=headers_of(self._settings),
            timeout=timeout,
            # `in_flight` bounds them, and each is used again
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            transport=transport,
        )
        self._retrying = Retrying(retries=retries, jitter=random.random)
        self._info: Info | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def health(self) -> Health:
        """As `Client.health`."""
        return read_health(await self._drive(exchange(HEALTH, retries=0, jitter=random.random)))

    async def info(self) -> Info:
        """As `Client.info`."""
        self._info = read_info(await self._send(INFO))
        return self._info

    async def predict(self, text: str, text_pair: str | None = None) -> Prediction:
        """As `Client.predict`."""
        return read_predictions(await self._send(one_request(text, text_pair)), 1)[0]

    async def predict_batch(
        self, texts: Iterable[str], text_pairs: Iterable[str] | None = None, *, details: bool = False
    ) -> list[Prediction]:
        """As `Client.predict_batch`."""
        items = quote_all(texts, text_pairs)
        batches = pack(items, self._info or await self.info()) if items else ()

        async def work(batch: list[Item]) -> list[Prediction]:
            return read_predictions(await self._send(batch_request(batch, details=details)), len(batch))

        return [prediction async for found in self._spread(work, _each(batches)) for prediction in found]

    async def stream(
        self,
        rows: Iterable[JsonObject] | AsyncIterable[JsonObject],
        text_column: str = "text",
        *,
        text_pair_column: str | None = None,
        details: bool = False,
    ) -> AsyncIterator[dict[str, Any]]:
        """As `Client.stream`; the rows may come from an asynchronous iterator too."""
        info = self._info or await self.info()
        check_columns(info, text_pair_column)
        columns = Columns(info, details=details)

        async def work(batch: list[Row]) -> list[Row]:
            return await self._drive(score_rows(batch, details=details, **self._retrying))

        async def batches() -> AsyncIterator[list[Row]]:
            packer = row_packer(info)
            async for row in _each(rows):
                ready = read_row(row, text_column, text_pair_column, info)
                full = packer.add(ready, row_bytes(ready))
                if full:
                    yield full
            yield packer.rest()

        async with contextlib.aclosing(self._spread(work, batches())) as spread:
            async for batch in spread:
                for row in scored_rows(batch, columns.learn(batch), details=details):
                    yield row

    async def rerank(
        self, query: str, texts: Sequence[str], *, raw_scores: bool = False, return_text: bool = False
    ) -> list[Rank]:
        """As `Client.rerank`."""
        request = rerank_request(query, texts, raw_scores=raw_scores, return_text=return_text)
        return read_ranks(await self._send(request))

    async def _spread(
        self, work: Callable[[T], Coroutine[Any, Any, R]], batches: AsyncIterable[T]
    ) -> AsyncGenerator[R]:
        """What `work` makes of each batch, in order, several at once, taking few batches ahead."""
        limit = self._settings.in_flight
        under_way: deque[asyncio.Task[R]] = deque()
        try:
            async for batch in batches:
                under_way.append(asyncio.create_task(work(batch)))
                if len(under_way) >= limit:
                    yield await under_way.popleft()
            while under_way:
                yield await under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _send(self, request: Request) -> Answer:
        return await self._drive(exchange(request, **self._retrying))

    async def _drive(self, steps: Steps[T]) -> T:
        outcome: Answer | Lost | None = None
        try:
            while True:
                step = steps.send(outcome)
                if isinstance(step, Wait):
                    await asyncio.sleep(step.seconds)
                    outcome = None
                else:
                    outcome = await self._try(step)
        except StopIteration as done:
            return cast("T", done.value)

    async def _try(self, request: Request) -> Answer | Lost:
        import httpx

        try:
            response = await self._http.request(request.method, request.path, content=request.body)
        except httpx.HTTPError as error:
            return lost(error)
        return Answer(status=response.status_code, body=response.content, headers=dict(response.headers))


async def _each(rows: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """The same items, whichever way they come."""
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row


def _import_httpx() -> "ModuleType":
    try:
        import httpx
    except ImportError:
        msg = "package httpx is not installed; assay.Client needs it; pip install httpx"
        raise UsageError(msg) from None
    return httpx


def lost(error: "httpx.HTTPError") -> Lost:
    """What a failed try of httpx means: connections are tried again, time-outs of an answer are not."""
    import httpx

    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        msg = f"{error}; the address or a header cannot be sent; check url="
        raise UsageError(msg)
    again = isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError | httpx.ConnectTimeout)
    said = " ".join(str(error).split())
    return Lost(reason=f"{type(error).__name__}{f': {said}' if said else ''}", again=again)
