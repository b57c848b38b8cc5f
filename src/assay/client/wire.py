"""[pure] One request, its reply, and when to try again: no socket and no clock.

`exchange` is a generator that says what to do next and is told what came of it, so that the sync and
the async client share it (the idea is that of `httpx/_auth.py`).
"""

import itertools
import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import NoReturn, TypedDict, TypeVar

from assay.errors import AssayError, InputError, UsageError, WorkError

T = TypeVar("T")

OK = 200
RETRIED_STATUSES = frozenset({429, 503, 504})
"""Too many requests, not ready, took too long: the same request may work a moment later."""
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
    431: (UsageError, "pass a shorter api_key= or url="),
    500: (WorkError, "see the server's log"),
    503: (WorkError, "wait until client.health() is ready"),
    504: (WorkError, "send less at once, or give the server a longer --timeout"),
}
"""What an error status means: the error raised, and the way out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One HTTP request, address relative to the server's."""

    method: str
    path: str
    body: bytes | None = None
    accepts: frozenset[int] = frozenset({OK})
    """Statuses whose answer is given to the caller as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What came back for one try."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """A try that got no reply."""

    reason: str
    again: bool
    """Whether the connection failed, rather than the time running out or the address being wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """Wait that long before the next step."""

    seconds: float


Steps = Generator[Call | Wait, Reply | Lost | None, T]
"""What to do, a step at a time; sent what came of each: Reply or Lost for a Call, None for a Wait."""


class Retrying(TypedDict):
    """How often to try again, and how the waits are spread: numbers in [0, 1)."""

    retries: int
    jitter: Callable[[], float]


def exchange(call: Call, *, retries: int, jitter: Callable[[], float]) -> Steps[Reply]:
    """The reply to a call, after as many tries as can help.

    Waits are exponential with full jitter ("Exponential Backoff And Jitter", AWS, 2015), on top of
    what `Retry-After` asks for. Raises the error of `ERRORS_BY_STATUS` for what is left when the
    retries are used up.
    """
    for tries in itertools.count(1):
        outcome = yield call
        if isinstance(outcome, Reply) and outcome.status in call.accepts:
            return outcome
        if isinstance(outcome, Lost):
            again, asked = outcome.again, 0.0
        else:
            assert outcome is not None, "a call was answered with nothing"
            again, asked = outcome.status in RETRIED_STATUSES, retry_after(outcome.headers)
        if not again or tries > retries or asked > MOST_RETRY_AFTER_SECONDS:
            raise_for(call, outcome, tries)
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


def raise_for(call: Call, outcome: Reply | Lost, tries: int) -> NoReturn:
    """Raises what a try that cannot be used means, by `ERRORS_BY_STATUS`."""
    after = f" ({tries} tries)" if tries > 1 else ""
    if isinstance(outcome, Lost):
        msg = (
            f"{call.method} {call.path}: {outcome.reason}{after}; no answer came; check that the server runs"
        )
        raise WorkError(msg)
    kind, way_out = ERRORS_BY_STATUS.get(
        outcome.status, (WorkError, "check the address and the server's log")
    )
    said = error_text(outcome.body)
    msg = f"{call.method} {call.path}: {outcome.status}{f' {said}' if said else ''}{after}; {way_out}"
    raise kind(msg)


def error_text(body: bytes) -> str:
    """The sentence in a server's error answer, on one line; empty where there is none."""
    try:
        content = json.loads(body)
    except ValueError:
        return ""
    said = content.get("error", content.get("message")) if isinstance(content, dict) else None
    return " ".join(said.split())[:500] if isinstance(said, str) else ""
