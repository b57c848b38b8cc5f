"""When a call is tried again, and what its failures mean."""

import json

import httpx
import pytest

from assay.client.calls import INFO
from assay.client.connection import lost
from assay.client.wire import Lost, Reply, Wait, exchange, retry_after
from assay.errors import InputError, UsageError, WorkError


def drive(request, outcomes, *, retries=3, jitter=0.5):
    """What an exchange asks for, a step at a time, given the outcomes of its tries; its answer last."""
    steps = exchange(request, retries=retries, jitter=lambda: jitter)
    outcomes = iter(outcomes)
    log, outcome = [], None
    try:
        while True:
            step = steps.send(outcome)
            log.append(step if isinstance(step, Wait) else "try")
            outcome = None if isinstance(step, Wait) else next(outcomes)
    except StopIteration as done:
        return log, done.value


def answer(status=200, content=None, **headers):
    """An answer of the server."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, body=json.dumps(content).encode(), headers=names)


LOST = Lost(reason="ConnectError: refused", again=True)
SLOW = Lost(reason="ReadTimeout", again=False)


@pytest.mark.parametrize("first", [answer(429), answer(503), answer(504), LOST], ids=str)
def test_what_may_do_well_a_moment_later_is_tried_again(first):
    """Too many requests, not ready, too slow and a lost connection each cost a wait and another try."""
    log, got = drive(INFO, [first, answer(200)])
    assert log == ["try", Wait(seconds=0.125), "try"]
    assert got.status == 200


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InputError),
        (401, UsageError),
        (403, UsageError),
        (404, UsageError),
        (413, InputError),
        (422, InputError),
        (424, WorkError),
        (500, WorkError),
        (302, WorkError),
    ],
)
def test_what_would_fail_again_is_not_tried_again(status, error):
    """Any other status is raised at once, with the server's sentence and a way out on one line."""
    with pytest.raises(error, match=f"^GET /info: {status} it is so; ") as caught:
        drive(INFO, [answer(status, {"error": "it\nis so"})])
    assert "\n" not in str(caught.value)


def test_time_running_out_is_not_tried_again():
    """The server may still be at work on it, and twice the load helps nobody."""
    with pytest.raises(WorkError, match="ReadTimeout"):
        drive(INFO, [SLOW])


def test_retries_are_used_up():
    """After so many retries the last failure is raised, with the number of tries."""
    with pytest.raises(WorkError, match=r"429 \(4 tries\); send less at once"):
        drive(INFO, [answer(429)] * 4)
    with pytest.raises(WorkError, match="refused; no answer came"):
        drive(INFO, [LOST], retries=0)


def test_waits_grow_to_a_limit_and_are_spread():
    """Each wait lies between nothing and twice the longest before it, up to eight seconds."""
    for jitter, wanted in ((1.0, [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0]), (0.0, [0.0] * 7)):
        log, _ = drive(INFO, [LOST] * 7 + [answer(200)], retries=7, jitter=jitter)
        assert [step.seconds for step in log if step != "try"] == wanted


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:07 GMT", "date": "Sun, 22 Nov 2026 10:00:00 GMT"}, 7.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:00 GMT", "date": "Sun, 22 Nov 2026 10:00:07 GMT"}, 0.0),
        ({"retry-after": "Sun, 22 Nov 2026 10:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({}, 0.0),
    ],
)
def test_retry_after_is_read_in_both_forms(headers, seconds):
    """Seconds, or a date that counts from the answer's own; anything else says nothing."""
    assert retry_after(headers) == seconds


def test_retry_after_is_honoured():
    """The wait is at least what the server asks for; an hour is not waited for."""
    log, _ = drive(INFO, [answer(429, retry_after="3"), answer(200)])
    assert log[1] == Wait(seconds=3.125)
    with pytest.raises(WorkError, match="429"):
        drive(INFO, [answer(429, retry_after="3600")])


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (httpx.ConnectError("refused"), True),
        (httpx.ConnectTimeout(""), True),
        (httpx.ReadError(""), True),
        (httpx.RemoteProtocolError("disconnected"), True),
        (httpx.ReadTimeout(""), False),
        (httpx.WriteTimeout(""), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_lost_connections_are_tried_again(error, again):
    """A connection that failed or broke is tried again; an answer that never came is not."""
    assert lost(error).again is again
