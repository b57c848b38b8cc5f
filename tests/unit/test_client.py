"""The client: what it sends, when it tries again, what it makes of answers; sync and async alike."""

import asyncio
import json
import subprocess
import sys
import threading
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_server import LABELS, FakeServer, Fault, answer_to, made_up

import assay
from assay import client as core
from assay.errors import InputError, UsageError, WorkError

INFO = {
    "model_id": "m",
    "fingerprint": "f",
    "task": "single_label",
    "labels": list(LABELS),
    "is_pair": None,
    "version": "0",
    "max_client_batch_size": 4,
    "max_body_bytes": 300,
    "max_text_chars": 100,
    "max_input_length": 8,
}


def drive(request, outcomes, *, retries=3, jitter=0.5):
    """What an exchange asks for, a step at a time, given the outcomes of its tries; its answer last."""
    steps = core.exchange(request, retries=retries, jitter=lambda: jitter)
    outcomes = iter(outcomes)
    log, outcome = [], None
    try:
        while True:
            step = steps.send(outcome)
            log.append(step if isinstance(step, core.Wait) else "try")
            outcome = None if isinstance(step, core.Wait) else next(outcomes)
    except StopIteration as done:
        return log, done.value


def answer(status=200, content=None, **headers):
    """An answer of the server."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return core.Answer(status=status, body=json.dumps(content).encode(), headers=names)


LOST = core.Lost(reason="ConnectError: refused", again=True)
SLOW = core.Lost(reason="ReadTimeout", again=False)


@pytest.fixture
def server():
    """A server of made-up scores."""
    with FakeServer() as fake:
        yield fake


@pytest.fixture(params=["sync", "async"])
def use(request):
    """Does something with a client, as a coroutine function over the async one or the sync one in its shape."""

    class Awaitable:
        """The sync client, awaited; so that one test text serves both."""

        def __init__(self, *args, **options):
            self._client = assay.Client(*args, **options)

        def __getattr__(self, name):
            method = getattr(self._client, name)
            if name == "stream":

                async def stream(*args, **options):
                    rows = method(*args, **options)
                    try:
                        for row in rows:
                            yield row
                    finally:
                        rows.close()

                return stream

            async def call(*args, **options):
                return method(*args, **options)

            return call

        async def __aenter__(self):
            self._client.__enter__()
            return self

        async def __aexit__(self, *error):
            self._client.__exit__(*error)

    kind = Awaitable if request.param == "sync" else assay.AsyncClient

    def run(work, url, *args, **options):
        async def main():
            async with kind(url, *args, **options) as client:
                return await work(client)

        return asyncio.run(main())

    return run


@pytest.fixture
def quick(monkeypatch):
    """Back-off of a hundredth, so that retries take no time."""
    monkeypatch.setattr(core, "FIRST_WAIT_SECONDS", 0.002)


# ---------------------------------------------------------------- when to try again


@pytest.mark.parametrize("first", [answer(429), answer(503), answer(504), LOST], ids=str)
def test_what_may_do_well_a_moment_later_is_tried_again(first):
    """Too many requests, not ready, too slow and a lost connection each cost a wait and another try."""
    log, got = drive(core.INFO, [first, answer(200)])
    assert log == ["try", core.Wait(seconds=0.125), "try"]
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
        drive(core.INFO, [answer(status, {"error": "it\nis so"})])
    assert "\n" not in str(caught.value)


def test_time_running_out_is_not_tried_again():
    """The server may still be at work on it, and twice the load helps nobody."""
    with pytest.raises(WorkError, match="ReadTimeout"):
        drive(core.INFO, [SLOW])


def test_retries_are_used_up():
    """After so many retries the last failure is raised, with the number of tries."""
    with pytest.raises(WorkError, match=r"429 \(4 tries\); send less at once"):
        drive(core.INFO, [answer(429)] * 4)
    with pytest.raises(WorkError, match="refused; no answer came"):
        drive(core.INFO, [LOST], retries=0)


def test_waits_grow_to_a_limit_and_are_spread():
    """Each wait lies between nothing and twice the longest before it, up to eight seconds."""
    for jitter, wanted in ((1.0, [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0]), (0.0, [0.0] * 7)):
        log, _ = drive(core.INFO, [LOST] * 7 + [answer(200)], retries=7, jitter=jitter)
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
    assert core.retry_after(headers) == seconds


def test_retry_after_is_honoured():
    """The wait is at least what the server asks for; an hour is not waited for."""
    log, _ = drive(core.INFO, [answer(429, retry_after="3"), answer(200)])
    assert log[1] == core.Wait(seconds=3.125)
    with pytest.raises(WorkError, match="429"):
        drive(core.INFO, [answer(429, retry_after="3600")])


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
    assert core.lost(error).again is again


# ---------------------------------------------------------------- what is sent


@given(
    st.lists(st.tuples(st.text(max_size=60), st.text(max_size=60)), max_size=40),
    st.integers(1, 7),
    st.integers(100, 400),
    st.booleans(),
)
def test_requests_keep_within_the_limits_and_the_order(pairs, max_batch, max_bytes, is_pair):
    """Every text goes out once, in order; no request has more texts or bytes than the server takes."""
    texts = [first for first, _ in pairs]
    second = [other for _, other in pairs] if is_pair else None
    info = core.read_info(
        core.Answer(
            status=200,
            body=json.dumps(
                {**INFO, "max_client_batch_size": max_batch, "max_body_bytes": max_bytes}
            ).encode(),
        )
    )
    sent, sent_pairs = [], []
    for batch in core.pack(core.quote_all(texts, second), info):
        body = core.batch_request(batch, details=False).body
        content = json.loads(body)
        assert 1 <= len(batch) <= max_batch
        assert len(body) <= max_bytes or len(batch) == 1
        sent += content["texts"]
        sent_pairs += content.get("text_pairs", [])
    assert sent == texts
    assert sent_pairs == (second or [])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: core.quote("a\ud800b", "text 3"), r"text 3 holds '\\ud800' at 1"),
        (lambda: core.quote(None, "text 0"), "text 0 is NoneType"),
        (lambda: core.quote_all("one", None), "takes a list"),
        (lambda: core.quote_all(["a", "b"], ["c"]), "2 texts and 1 second texts"),
    ],
)
def test_what_is_no_text_is_refused_before_it_is_sent(call, words):
    """Lone surrogates, nulls and a bare string raise InputError with their place."""
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"url": "localhost:8000"}, "url 'localhost:8000'"),
        ({"url": "ftp://host"}, "url 'ftp://host'"),
        ({"url": "http://[::1"}, "url"),
        ({"url": None}, "url None"),
        ({"url": "http://h", "api_key": "line\nbreak"}, "api_key"),
        ({"url": "http://h", "api_key": ""}, "api_key"),
        ({"url": "http://h", "timeout": 0}, "timeout 0"),
        ({"url": "http://h", "retries": -1}, "retries -1"),
        ({"url": "http://h", "in_flight": 0}, "in_flight 0"),
    ],
)
def test_a_client_checks_its_arguments(arguments, words):
    """A wrong argument raises UsageError, naming the value."""
    for kind in (assay.Client, assay.AsyncClient):
        with pytest.raises(UsageError, match=words.replace("[", r"\[")):
            kind(**arguments)


def test_the_key_is_sent_and_never_shown():
    """The key goes into the header of each request, and into no repr."""
    seen = []

    def reply(request):
        seen.append(request.headers["authorization"])
        return httpx.Response(200, json=INFO)

    with assay.Client("http://h/", "secret-key", transport=httpx.MockTransport(reply)) as client:
        client.info()
        assert seen == ["Bearer secret-key"]
        assert "secret-key" not in repr(vars(client))


def test_a_prefix_in_the_address_is_kept():
    """A server behind a path of a proxy is asked below that path."""
    seen = []

    def reply(request):
        seen.append(str(request.url))
        return httpx.Response(200, json=INFO)

    with assay.Client("https://h/assay/", transport=httpx.MockTransport(reply)) as client:
        client.info()
    assert seen == ["https://h/assay/info"]


# ---------------------------------------------------------------- what comes back


def test_predict_gives_a_typed_prediction(server, use):
    """One text: label, confidence, every probability, tokens and timings."""
    got = use(lambda client: client.predict("Shares fell."), server.url)
    wanted = answer_to("Shares fell.", details=True)
    assert (got.label, got.confidence, got.probabilities) == (
        wanted["label"],
        wanted["confidence"],
        wanted["all_probabilities"],
    )
    assert (got.num_tokens, got.truncated) == (4, False)
    assert got.timings == core.Timings(tokenize_ms=0.2, queue_ms=1.1, forward_ms=3.3)


def test_each_task_and_pairs(use):
    """A regression gives a score, a multi-label model the labels that hold, a pair model takes two texts."""
    with FakeServer(task="regression", labels=("quality",)) as server:
        got = use(lambda client: client.predict("fine"), server.url)
        assert (got.score, got.label) == (answer_to("fine", task="regression")["score"], None)
    with FakeServer(task="multi_label") as server:
        got = use(lambda client: client.predict("fine"), server.url)
        assert got.labels == tuple(label for label, value in got.probabilities.items() if value >= 0.3)
    with FakeServer(is_pair=True) as server:
        got = use(lambda client: client.predict_batch(["a", "b"], ["c", "d"]), server.url)
        assert [one.label for one in got] == [answer_to("ac")["label"], answer_to("bd")["label"]]


def test_predict_batch_keeps_order_over_many_requests(server, use):
    """More texts than one request takes come back in order, several requests at once but no more than asked."""
    texts = [f"text {number}" for number in range(101)]
    got = use(lambda client: client.predict_batch(texts), server.url, in_flight=3)
    assert [one.probabilities for one in got] == [made_up(text) for text in texts]
    assert [len(request["texts"]) for request in server.requests].count(8) == 12
    assert server.most_at_once <= 3


def test_no_texts_ask_nothing(server, use):
    """An empty list gives an empty list without a request."""
    assert use(lambda client: client.predict_batch([]), server.url) == []
    assert server.requests == []


def test_a_busy_server_loses_no_text(server, use, quick):
    """Refusals for load in the middle of a batch leave no gap and no double."""
    server.faults.extend([Fault(429, {"Retry-After": "0"}), Fault(503), Fault(504), Fault(429)])
    texts = [f"text {number}" for number in range(50)]
    got = use(lambda client: client.predict_batch(texts), server.url)
    assert [one.probabilities for one in got] == [made_up(text) for text in texts]


def test_a_server_that_is_not_there(use, quick):
    """A refused connection is tried again and then said in one line."""
    with pytest.raises(WorkError, match=r"GET /info: ConnectError.*\(3 tries\); no answer came"):
        use(lambda client: client.info(), "http://127.0.0.1:9", retries=2)


def test_health_says_ready_or_why_not(server, use):
    """Health is one try: ready, or the server's reason."""
    assert use(lambda client: client.health(), server.url) == core.Health(ready=True)
    reply = httpx.MockTransport(lambda _: httpx.Response(503, json={"error": "loading the model"}))
    with assay.Client("http://h", transport=reply) as client:
        assert client.health() == core.Health(ready=False, reason="loading the model")


def test_rerank_gives_ranks(server, use):
    """Texts best first, each with its place as given."""
    texts = ["one", "two", "three"]
    got = use(lambda client: client.rerank("which?", texts, return_text=True), server.url)
    scores = [made_up("which?" + text)["World"] for text in texts]
    assert [rank.score for rank in got] == sorted(scores, reverse=True)
    assert all(rank.text == texts[rank.index] and rank.score == scores[rank.index] for rank in got)


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"{}",
        b"[]",
        b"[1]",
        b'[{"label": "x"}]',
        b'[{"score": "x"}]',
        b'[{"score": 1, "interval": [1]}]',
        b'[{"score": 1, "timings": {}}]',
        b'[{"score": 1}, {"score": 1}]',
    ],
)
def test_an_answer_that_is_none_is_said_so(body):
    """A page of some proxy, or JSON of another server, raises WorkError and gives no made-up value."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body))
    with assay.Client("http://h", transport=transport) as client, pytest.raises(WorkError):
        client.predict("text")
    with assay.Client("http://h", transport=transport) as client, pytest.raises(WorkError):
        client.info()
    if body != b"[]":
        with assay.Client("http://h", transport=transport) as client, pytest.raises(WorkError):
            client.rerank("query", ["text"])


# ---------------------------------------------------------------- streams


def test_a_stream_adds_the_columns_of_a_scored_part(server, use):
    """Each row comes back as it was, in order, with its scores; rows without a text say why."""
    rows = [
        {"id": 1, "body": "one"},
        {"id": 2, "body": None},
        {"id": 3, "body": 7},
        {"id": 4, "body": "\ud800"},
        {"id": 5, "body": "x" * 60_000},
        {"id": 6, "body": "six"},
    ]

    async def work(client):
        return [row async for row in client.stream(rows, text_column="body", details=True)]

    got = use(work, server.url)
    assert [{"id": row["id"], "body": row["body"]} for row in got] == rows
    assert [row["error"] for row in got] == [None, "null", "not_text", "not_utf8", "too_large", None]
    columns = ["num_tokens", "truncated", "error", "prediction", "probability"]
    assert all(list(row) == ["id", "body", *columns, *(f"prob_{one}" for one in LABELS)] for row in got)
    wanted = answer_to("six", details=True)
    assert (got[5]["prediction"], got[5]["prob_World"]) == (
        wanted["label"],
        wanted["all_probabilities"]["World"],
    )
    assert got[1]["prediction"] is got[1]["prob_World"] is None
    assert sum(len(request["texts"]) for request in server.requests) == 2


def test_a_row_that_the_server_refuses_costs_no_other(server, use):
    """A request refused for one of its texts is halved until that text stands alone with its error."""
    rows = [{"text": "refuse me" if number in {3, 17} else f"row {number}"} for number in range(20)]

    async def work(client):
        return [row async for row in client.stream(rows)]

    got = use(work, server.url)
    assert [row["text"] for row in got] == [row["text"] for row in rows]
    for number, row in enumerate(got):
        if number in {3, 17}:
            assert (row["error"], row["prediction"]) == ("a text holds what it must not", None)
        else:
            assert (row["error"], row["prob_World"]) == (None, made_up(f"row {number}")["World"])


def test_a_stream_of_each_task(use):
    """A regression adds its score, interval and whole score; a multi-label model a column a label."""

    async def work(client):
        rows = [{"text": None}, {"text": "fine"}]
        return [row async for row in client.stream(rows)]

    with FakeServer(task="regression", labels=("quality",)) as server:
        score = answer_to("fine", task="regression")["score"]
        scores = {
            "prediction": score,
            "prediction_low": score - 0.5,
            "prediction_high": score + 0.5,
            "int_score": round(score),
        }
        assert use(work, server.url) == [
            {"text": None, "error": "null", **dict.fromkeys(scores)},
            {"text": "fine", "error": None, **scores},
        ]
    with FakeServer(task="multi_label", labels=("a", "b")) as server:
        assert [list(row) for row in use(work, server.url)] == [["text", "error", "prob_a", "prob_b"]] * 2


def test_pairs_in_a_stream(use):
    """A pair model needs the column of the second text, another model refuses it, before anything is sent."""
    rows = [{"q": "why?", "a": "because"}, {"q": "why?", "a": None}]

    async def work(client, column):
        return [row async for row in client.stream(rows, "q", text_pair_column=column)]

    with FakeServer(is_pair=True) as server:
        got = use(lambda client: work(client, "a"), server.url)
        assert got[0]["prob_World"] == made_up("why?because")["World"]
        assert got[1]["error"] == "null"
        with pytest.raises(InputError, match="takes pairs"):
            use(lambda client: work(client, None), server.url)
    with FakeServer() as server, pytest.raises(InputError, match="takes single texts"):
        use(lambda client: work(client, "a"), server.url)


def test_a_stream_takes_rows_as_they_are_needed(server, use):
    """An endless source is fine: no more rows are taken than requests under way can hold."""
    taken = []

    def rows():
        while True:
            taken.append(len(taken))
            yield {"text": f"row {taken[-1]}"}

    async def work(client):
        stream = client.stream(rows())
        got = [await anext(stream) for _ in range(20)]
        await stream.aclose()
        return got

    got = use(work, server.url, in_flight=2)
    assert [row["prob_World"] for row in got] == [made_up(f"row {number}")["World"] for number in range(20)]
    assert len(taken) <= 20 + 3 * 8
    assert server.most_at_once <= 2


def test_a_stream_from_an_asynchronous_source(server):
    """The async client takes rows from an asynchronous iterator too."""

    async def rows():
        for number in range(30):
            await asyncio.sleep(0)
            yield {"text": f"row {number}"}

    async def main():
        async with assay.AsyncClient(server.url) as client:
            return [row["prob_World"] async for row in client.stream(rows())]

    assert asyncio.run(main()) == [made_up(f"row {number}")["World"] for number in range(30)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"body": "x"}, "column 'text' is not in a row of body"),
        ({"text": "x", "prediction": 1}, "column 'prediction' already"),
    ],
)
def test_a_stream_refuses_rows_it_would_spoil(server, use, row, words):
    """A row without the column, or with a column of the scores' names, raises InputError."""

    async def work(client):
        return [found async for found in client.stream([row])]

    with pytest.raises(InputError, match=words):
        use(work, server.url)


def test_an_error_in_a_stream_comes_after_the_rows_before_it(server, use, quick):
    """Rows before the failed request are given out; then the error is raised and nothing hangs."""
    rows = [{"text": "break down" if number == 30 else f"row {number}"} for number in range(200)]
    got = []

    async def work(client):
        async for row in client.stream(rows):
            got.append(row)  # noqa: PERF401  what came before the error is the point

    with pytest.raises(WorkError, match="500"):
        use(work, server.url)
    assert [row["text"] for row in got] == [f"row {number}" for number in range(24)]


def test_leaving_a_stream_early_does_not_wait(server):
    """Breaking out of the loop ends at once, though requests are held."""
    server.hold_after(2)
    with assay.Client(server.url, in_flight=4) as client:
        stream = client.stream({"text": f"row {number}"} for number in range(1000))
        next(stream)
        began = time.monotonic()
        stream.close()
        assert time.monotonic() - began < 1
        server.open()
    for thread in threading.enumerate():
        if thread.name.startswith("assay-client"):
            thread.join(5)


# ---------------------------------------------------------------- the package


def test_without_httpx_the_message_names_the_extra():
    """Where the extra is not installed, making a client says what to install; importing assay still works."""
    script = """
import sys
sys.modules["httpx"] = None
import assay
for kind in (assay.Client, assay.AsyncClient):
    try:
        kind("http://127.0.0.1:1")
    except assay.client.AssayError as error:
        print(error)
print(sorted({"torch", "numpy", "pyarrow"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True)
    line = "package httpx is not installed; assay.Client needs it; pip install httpx\n"
    assert done.stdout == 2 * line + "[]\n"


def test_both_clients_offer_the_same():
    """Every method of one is a method of the other, with the same arguments."""
    import inspect

    def offers(kind):
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") and name not in {"close", "aclose"}
        }

    assert offers(assay.Client) == offers(assay.AsyncClient)
