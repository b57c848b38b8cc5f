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
from support.bundles import write_bundle, write_encoder
from support.serving import served

FEW = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
PATHS = ("/predict", "/predict/batch", "/rerank", "/", "/invocations", "/embed", "/v1/embeddings")
OF_ENCODERS = ("/embed", "/v1/embeddings")
FLAGS = ("--engine", "fake", "--max-client-batch-size", "50", "--max-queue", "100")
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
        "input",
        "normalize",
        "prompt_name",
        "dimensions",
        "encoding_format",
    ]
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server on made-up scores, which takes single texts and pairs."""
    folder = write_bundle(tmp_path_factory.mktemp("openapi") / "bundle")
    with served(folder, *FLAGS) as running:
        yield running


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A server of made-up vectors."""
    folder = write_encoder(tmp_path_factory.mktemp("openapi") / "encoder")
    with served(folder, *FLAGS) as running:
        yield running


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
@pytest.mark.parametrize("kind", ["server", "encoder"])
def test_the_document_holds(request, kind, mode):
    """Statuses, content types and shapes of answers are those of the document, for right and wrong requests."""
    url = request.getfixturevalue(kind).url
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) == 12
    for operation in operations:
        if (operation.path in OF_ENCODERS) is not (kind == "encoder"):
            continue
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
def test_any_json(server, encoder, path, body, kind):
    """Any JSON value, and what Python writes for JSON that is none, is scored or refused."""
    content = json.dumps(body).encode("utf-8", "surrogatepass")
    asked = encoder if path in OF_ENCODERS else server
    answer = httpx.post(f"{asked.url}{path}", content=content, headers={"Content-Type": kind})
    assert answer.status_code in {200, 413, 415, 422, 424}
    assert answer.headers["content-type"] == "application/json"
    if answer.status_code != 200:
        of_openai = {"message", "code", "type", "request_id"}
        said = of_openai if path.startswith("/v1/") else {"error", "error_type", "request_id"}
        assert set(answer.json()) == said


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
