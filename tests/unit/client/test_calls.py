"""What is sent: within the limits, in order, and only texts."""

import json
import math

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_server import LABELS

import assay
from assay.client.calls import batch_call, pack, quote, quote_all
from assay.client.replies import read_info, read_prediction
from assay.client.rows import score_columns
from assay.client.wire import Reply
from assay.errors import InputError, UsageError
from assay.tasks import STAGE_COLUMNS

SAID = {
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
    info = read_info(
        Reply(
            status=200,
            body=json.dumps(
                {**SAID, "max_client_batch_size": max_batch, "max_body_bytes": max_bytes}
            ).encode(),
        )
    )
    sent, sent_pairs = [], []
    for batch in pack(quote_all(texts, second), info):
        body = batch_call(batch, details=False).body
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
        (lambda: quote("a\ud800b", "text 3"), r"text 3 holds '\\ud800' at 1"),
        (lambda: quote(None, "text 0"), "text 0 is NoneType"),
        (lambda: quote_all("one", None), "takes a list"),
        (lambda: quote_all(["a", "b"], ["c"]), "2 texts and 1 second texts"),
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
        ({"url": "http://h", "api_key": 3}, "api_key holds"),
        ({"url": "http://h", "timeout": 0}, "timeout is 0"),
        ({"url": "http://h", "timeout": math.nan}, "timeout is nan; it must be a finite number, above 0"),
        ({"url": "http://h", "timeout": 1e300}, "timeout is 1e"),
        ({"url": "http://h", "timeout": None}, "timeout is None; it must be a number"),
        (
            {"url": "http://h", "retries": -1},
            "retries is -1; it must be at least 0 and at most 1,000; change it",
        ),
        ({"url": "http://h", "retries": 1.5}, "retries is 1.5; it must be a whole number"),
        ({"url": "http://h", "in_flight": 0}, "in_flight is 0"),
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
        return httpx.Response(200, json=SAID)

    with assay.Client("http://h/", "secret-key", transport=httpx.MockTransport(reply)) as client:
        client.info()
        assert seen == ["Bearer secret-key"]
        assert "secret-key" not in repr(vars(client))


def test_a_prefix_in_the_address_is_kept():
    """A server behind a path of a proxy is asked below that path."""
    seen = []

    def reply(request):
        seen.append(str(request.url))
        return httpx.Response(200, json=SAID)

    with assay.Client("https://h/assay/", transport=httpx.MockTransport(reply)) as client:
        client.info()
    assert seen == ["https://h/assay/info"]


def test_what_each_model_of_a_cascade_said_is_kept():
    """By the names of a scored part's columns, in a prediction and a row of a stream; null where none was asked."""
    said = {"stage": "bi-only", "bi_probability": 0.2, "bi_confidence": 0.8, "final_probability": 0.2}
    answer = {"label": "0", "confidence": 0.8, "all_probabilities": {"0": 0.8, "1": 0.2}, **said}
    found = read_prediction({**answer, "same_book": False})
    assert found.stages == {**said, "cross_probability": None, "cross_confidence": None, "same_book": False}
    columns = score_columns(found, details=False)
    assert list(columns) == ["prediction", "probability", "prob_0", "prob_1", *STAGE_COLUMNS]
    assert read_prediction(answer | {"stage": "two-stage"}).stages["stage"] == "two-stage"
    assert read_prediction({"all_probabilities": {"a": 1.0}}).stages is None
