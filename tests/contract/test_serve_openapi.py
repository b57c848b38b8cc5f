"""The OpenAPI document holds: whatever fits it, and whatever does not, gets an answer that it names, never a 5xx."""

import contextlib
import json

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.specs.openapi.checks import positive_data_acceptance
from support.bundles import write_bundle
from support.serving import served

FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
PATHS = ("/predict", "/predict/batch", "/rerank", "/", "/invocations")
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(
    [
        "text",
        "text_pair",
        "texts",
        "text_pairs",
        "details",
        "inputs",
        "truncate",
        "truncation_direction",
        "raw_scores",
        "query",
        "return_text",
    ]
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server on made-up scores, which takes single texts and pairs."""
    folder = write_bundle(tmp_path_factory.mktemp("openapi") / "bundle")
    with served(folder, "--engine", "fake", "--max-client-batch-size", "50", "--max-queue", "100") as running:
        yield running


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_the_document_holds(server, mode):
    """Statuses, content types and shapes of answers are those of the document, for right and wrong requests."""
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) == 10
    for operation in operations:
        cases = operation.as_strategy(generation_mode=mode)

        @given(case=cases)
        @FEW
        def check(case):
            # that lists are of one length, and what the model takes, a schema cannot say
            case.call_and_validate(excluded_checks=[positive_data_acceptance])

        with contextlib.suppress(Unsatisfiable):
            check()


@given(
    path=st.sampled_from(PATHS),
    body=st.dictionaries(NAMES, VALUES, max_size=5) | VALUES,
    kind=st.sampled_from(["application/json", "text/plain", "application/json; charset=latin-1", ""]),
)
@settings(parent=FEW, max_examples=150)
def test_any_json(server, path, body, kind):
    """Any JSON value, and what Python writes for JSON that is none, is scored or refused."""
    content = json.dumps(body).encode("utf-8", "surrogatepass")
    answer = httpx.post(f"{server.url}{path}", content=content, headers={"Content-Type": kind})
    assert answer.status_code in {200, 413, 415, 422, 424}
    assert answer.headers["content-type"] == "application/json"
    if answer.status_code != 200:
        assert set(answer.json()) == {"error", "error_type", "request_id"}


@given(path=st.sampled_from(PATHS), content=st.binary(max_size=200))
@FEW
def test_any_bytes(server, path, content):
    """Bytes that are not JSON are refused."""
    answer = httpx.post(f"{server.url}{path}", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in {200, 422}


@given(
    method=st.sampled_from(["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "NONSENSE"]),
    path=st.sampled_from(
        [*PATHS, "/health", "/ping", "/live", "/info", "/metrics", "/docs", "/page.js", "/..", "/%00", "//"]
    ),
)
@FEW
def test_any_method(server, method, path):
    """Other methods and addresses are named, and HEAD has no body."""
    answer = httpx.request(method, f"{server.url}{path}")
    assert answer.status_code in {200, 400, 404, 405}
    if answer.status_code == 405:
        assert answer.headers["allow"]
