"""Both clients, through a socket: predictions, streams, errors."""

import asyncio
import json
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest
from support.fake_server import LABELS, FakeServer, Fault, answer_to, made_up, made_up_vector

import assay
from assay.client import wire
from assay.client.replies import Health, Timings, read_vectors
from assay.client.wire import Reply
from assay.errors import InputError, UsageError, WorkError
from assay.extras import missing_line


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
    monkeypatch.setattr(wire, "FIRST_WAIT_SECONDS", 0.002)


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
    assert got.timings == Timings(tokenize_ms=0.2, queue_ms=1.1, forward_ms=3.3)


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


def test_embed_gives_an_array(use, quick):
    """Vectors to the bit, in order over many requests, through refusals for load; a prompt's name goes along."""
    texts = [f"text {number}" for number in range(30)]
    with FakeServer(task=None) as server:
        server.faults.extend([Fault(429, {"Retry-After": "0"}), Fault(503)])
        got = use(lambda client: client.embed(texts), server.url)
        assert (got.dtype, got.shape) == (np.float32, (30, 3))
        np.testing.assert_array_equal(got, [made_up_vector(text) for text in texts])
        assert max(len(request["input"]) for request in server.requests) == 8
        asked = {"prompt_name": "query: ", "normalize": False, "truncate": True}
        got = use(lambda client: client.embed(iter(["a"]), **asked), server.url)
        np.testing.assert_array_equal(got, [made_up_vector("query: a")])
        assert server.requests[-1] == {"input": ["a"], "encoding_format": "base64", **asked}
        got = use(lambda client: client.embed([]), server.url)
        assert (got.dtype, got.shape) == (np.float32, (0, 3))


def test_embed_says_what_is_wrong(server, use):
    """Texts before they are sent, and a server's own words where its model gives no vectors."""
    for texts, said in (
        ("one", "embed takes a list"),
        (["a", ""], "text 1 is empty"),
        ([3], "text 0 is int"),
    ):
        with pytest.raises(InputError, match=said):
            use(lambda client, texts=texts: client.embed(texts), server.url)
    with pytest.raises(WorkError, match=r"/v1/embeddings: 424 a classifier gives no vectors; see"):
        use(lambda client: client.embed(["a"]), server.url)

    async def stream(client):
        return [row async for row in client.stream([{"text": "a"}])]

    with FakeServer(task=None) as encoder, pytest.raises(UsageError, match="vectors, not scores; use embed"):
        use(stream, encoder.url)


@pytest.mark.parametrize(
    "data", [[], [{"index": 1, "embedding": "AAAAAA=="}], [{"index": 0, "embedding": "AAA"}], 3]
)
def test_an_answer_without_its_vectors_is_an_error(data):
    """Too few, of another place, cut short, or none: no array is made of them."""
    with pytest.raises(WorkError, match="does not hold 1 vectors in base64"):
        read_vectors(Reply(status=200, body=json.dumps({"data": data}).encode()), 1)


def test_health_says_ready_or_why_not(server, use):
    """Health is one try: ready, or the server's reason."""
    assert use(lambda client: client.health(), server.url) == Health(ready=True)
    reply = httpx.MockTransport(lambda _: httpx.Response(503, json={"error": "loading the model"}))
    with assay.Client("http://h", transport=reply) as client:
        assert client.health() == Health(ready=False, reason="loading the model")


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
    """A regression adds its score, interval and whole score; a multi-label model its labels and a column a label."""

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
        assert [list(row) for row in use(work, server.url)] == [
            ["text", "error", "labels", "prob_a", "prob_b"]
        ] * 2


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


def test_without_httpx_the_message_names_the_extra():
    """Where the extra is not installed, making a client says what to install; importing assay still works."""
    script = """
import sys
sys.modules["httpx"] = None
import assay
from assay.errors import AssayError
for kind in (assay.Client, assay.AsyncClient):
    try:
        kind("http://127.0.0.1:1")
    except AssayError as error:
        print(error)
print(sorted({"torch", "numpy", "pyarrow"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True)
    line = missing_line("httpx", used_by="assay.Client") + "\n"
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
