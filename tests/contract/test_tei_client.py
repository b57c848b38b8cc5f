"""Clients of text-embeddings-inference (TEI) talk to `assay serve` and notice nothing.

The shapes below are those of TEI's published OpenAPI document (docs/openapi.json of
huggingface/text-embeddings-inference, 1.7), and of its HTTP server where the document is silent:
the order of labels, the headers, the names of the metrics.
"""

import asyncio
import math
from typing import Annotated, Literal

import httpx
import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from support.bundles import write_encoder
from support.models import change_json, write_model
from support.serving import served

huggingface_hub = pytest.importorskip("huggingface_hub")

TEXT = "document of 5"
SECOND = "document 7 of 9"
MAX_LENGTH = 64
CLIENT_BATCH = 16
Count = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    """No member more, none converted."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Prediction(Strict):
    """`Prediction`."""

    label: str
    score: float


class Rank(Strict):
    """`Rank`."""

    index: Count
    score: float
    text: str | None = None


class ClassifierModel(Strict):
    """`ClassifierModel`, of classifiers and rerankers."""

    id2label: dict[str, str]
    label2id: dict[str, Count]


class Classifier(Strict):
    """`ModelType` of a classifier."""

    classifier: ClassifierModel


class Reranker(Strict):
    """`ModelType` of a reranker."""

    reranker: ClassifierModel


class EmbeddingModel(Strict):
    """`EmbeddingModel`."""

    pooling: str


class Embedder(Strict):
    """`ModelType` of an encoder."""

    embedding: EmbeddingModel


class OpenAIEmbedding(Strict):
    """`OpenAICompatEmbedding`."""

    object: Literal["embedding"]
    embedding: list[float] | str
    index: Count


class Usage(Strict):
    """`OpenAICompatUsage`."""

    prompt_tokens: Count
    total_tokens: Count


class OpenAIResponse(Strict):
    """`OpenAICompatResponse`."""

    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: str
    usage: Usage


class OpenAIErrorResponse(BaseModel):
    """`OpenAICompatErrorResponse`, as the server writes it: the document has another name for `type`."""

    model_config = ConfigDict(strict=True, extra="allow")
    message: str
    code: Count
    type: str


class Info(BaseModel):
    """`Info`; members that TEI does not know are welcome."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())
    model_id: str
    model_sha: str | None = None
    model_dtype: str
    model_type: Classifier | Reranker | Embedder
    max_concurrent_requests: Count
    max_input_length: Count
    max_batch_tokens: Count
    max_batch_requests: Count | None = None
    max_client_batch_size: Count
    auto_truncate: bool
    tokenization_workers: Count
    version: str
    sha: str | None = None
    docker_label: str | None = None


class ErrorResponse(BaseModel):
    """`ErrorResponse`; the types as its examples write them, and two that TEI has no word for."""

    model_config = ConfigDict(strict=True, extra="allow")
    error: str
    error_type: Literal[
        "unhealthy", "backend", "overloaded", "validation", "tokenizer", "empty", "timeout", "unauthorized"
    ]


SINGLE = TypeAdapter(list[Prediction])
BATCH = TypeAdapter(list[list[Prediction]])
RANKS = TypeAdapter(list[Rank])
VECTORS = TypeAdapter(list[list[float]])
HEADERS = ("x-compute-tokens", "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time")


@pytest.fixture(autouse=True)
def without_proxy(monkeypatch):
    """Loopback is reached directly, and no token of the machine's owner is sent."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The address of a server of a classifier of three labels."""
    folder = write_model(tmp_path_factory.mktemp("tei") / "news", labels=("world", "sports", "business"))
    with served(folder, "--max-client-batch-size", str(CLIENT_BATCH), "--max-body-bytes", "100000") as server:
        yield server.url


@pytest.fixture(scope="module")
def reranker(tmp_path_factory):
    """The address of a server of a pair model of one output."""
    folder = write_model(tmp_path_factory.mktemp("tei") / "rank", labels=("relevant",), task="regression")
    (folder / "assay.json").write_text("{}")
    change_json(folder / "assay.json", format_version=1, is_pair=True)
    with served(folder, environment={"ASSAY_API_KEYS": "tests:open-sesame"}) as server:
        yield server.url


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The address of a server of an encoder, of made-up vectors."""
    folder = write_encoder(tmp_path_factory.mktemp("tei") / "encoder", prompts={"query": "document of "})
    with served(folder, "--engine", "fake", "--max-client-batch-size", str(CLIENT_BATCH)) as server:
        yield server.url


def post(url, path, body, **headers):
    """The answer to a request."""
    return httpx.post(url + path, json=body, headers=headers, timeout=30)


def rank(url, body):
    """The answer to a rerank, with the key."""
    return post(url, "/rerank", body, authorization="Bearer open-sesame")


def test_one_text_gives_a_flat_list(classifier):
    """A string: every label once, best first, softmax probabilities that sum to 1."""
    answer = post(classifier, "/predict", {"inputs": TEXT})
    assert answer.status_code == 200
    found = SINGLE.validate_json(answer.content)
    assert {one.label for one in found} == {"world", "sports", "business"}
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert sum(one.score for one in found) == pytest.approx(1, abs=1e-6)


def test_a_pair_gives_a_flat_list_and_a_batch_a_list_of_lists(classifier):
    """Two strings are one pair; lists of one or two strings are a batch, answered in order."""
    pair = SINGLE.validate_json(post(classifier, "/predict", {"inputs": [TEXT, SECOND]}).content)
    one = SINGLE.validate_json(post(classifier, "/predict", {"inputs": TEXT}).content)
    batch = post(classifier, "/predict", {"inputs": [[TEXT], [TEXT, SECOND], [TEXT]]})
    found = BATCH.validate_json(batch.content)
    for scores, wanted in zip(found, (one, pair, one), strict=True):
        assert [each.label for each in scores] == [each.label for each in wanted]
        assert [each.score for each in scores] == pytest.approx([each.score for each in wanted], abs=1e-5)
    alone = BATCH.validate_json(post(classifier, "/predict", {"inputs": [[TEXT]]}).content)
    assert len(alone) == 1


def test_raw_scores_are_logits(classifier):
    """With raw_scores the logits come, whose softmax are the probabilities."""
    raw = SINGLE.validate_json(post(classifier, "/predict", {"inputs": TEXT, "raw_scores": True}).content)
    cooked = SINGLE.validate_json(post(classifier, "/predict", {"inputs": TEXT, "raw_scores": False}).content)
    logits = np.array([one.score for one in raw])
    softmax = np.exp(logits) / np.exp(logits).sum()
    assert [one.label for one in raw] == [one.label for one in cooked]
    assert softmax == pytest.approx([one.score for one in cooked], abs=1e-5)


@pytest.mark.parametrize(
    "more", [{}, {"truncate": None}, {"truncate": True}, {"truncation_direction": "Right"}]
)
def test_members_that_may_be_left_out(classifier, more):
    """Each optional member of a request is taken, null included; long texts are cut where info says so."""
    answer = post(classifier, "/predict", {"inputs": "document " * 500, **more})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-compute-tokens"] == str(MAX_LENGTH)


@pytest.mark.parametrize("direction", ["Left", "left"])
def test_truncation_direction(classifier, direction):
    """With Left the beginning of a long text is cut away, of a text and in a batch."""
    long = "document " * 500 + TEXT
    end = "document " * (MAX_LENGTH - 2 - 3) + TEXT
    body = {"inputs": [[long], [TEXT]], "truncation_direction": direction, "raw_scores": True}
    cut, short = BATCH.validate_json(post(classifier, "/predict", body).content)
    for found, text in ((cut, end), (short, TEXT)):
        wanted = SINGLE.validate_json(
            post(classifier, "/predict", {"inputs": text, "raw_scores": True}).content
        )
        assert [one.label for one in found] == [one.label for one in wanted]
        assert [one.score for one in found] == pytest.approx([one.score for one in wanted], abs=1e-5)


def test_a_long_text_is_refused_where_asked(classifier):
    """`truncate: false` and too many tokens: 422 with type tokenizer, for one of a batch too."""
    for inputs in ("document " * 500, [["document"], ["document " * 500]]):
        answer = post(classifier, "/predict", {"inputs": inputs, "truncate": False})
        assert answer.status_code == 422
        assert ErrorResponse.model_validate_json(answer.content).error_type == "tokenizer"


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        ({}, {422}),
        ({"inputs": []}, {400, 422}),
        ({"inputs": ""}, {400, 422}),
        ({"inputs": [["a", "b", "c"]]}, {422}),
        ({"inputs": [["a"]] * (CLIENT_BATCH + 1)}, {413, 422}),
        ({"inputs": "x" * 200_000}, {413}),
        ({"inputs": "x", "truncate": "yes"}, {422}),
    ],
    ids=["nothing", "no inputs", "empty", "three texts", "batch", "body", "type"],
)
def test_errors_have_their_shape(classifier, body, statuses):
    """Every refusal is {"error", "error_type"} with a sentence."""
    answer = post(classifier, "/predict", body)
    assert answer.status_code in statuses
    assert ErrorResponse.model_validate_json(answer.content).error


def test_times_are_in_the_headers(classifier):
    """Tokens and milliseconds of a request stand in the headers that dashboards read."""
    answer = post(classifier, "/predict", {"inputs": TEXT})
    assert all(int(answer.headers[name]) >= 0 for name in HEADERS)
    assert int(answer.headers["x-compute-tokens"]) == 5


def test_info_and_health(classifier):
    """`/info` holds every required member, with the labels of the model; `/health` is 200."""
    info = Info.model_validate_json(httpx.get(f"{classifier}/info").content)
    assert info.model_type.classifier.id2label == {"0": "world", "1": "sports", "2": "business"}
    assert info.model_type.classifier.label2id == {"world": 0, "sports": 1, "business": 2}
    assert (info.max_client_batch_size, info.max_input_length) == (CLIENT_BATCH, MAX_LENGTH)
    assert info.auto_truncate is True
    assert info.model_dtype == "float32", "what is run, where auto was asked for"
    assert httpx.get(f"{classifier}/health").status_code == 200
    assert httpx.get(f"{classifier}/ping").json() == httpx.get(f"{classifier}/health").json()


def test_metrics_have_the_names_that_dashboards_know(classifier):
    """Prometheus text with TEI's counters, by method, and its histograms."""
    post(classifier, "/predict", {"inputs": TEXT})
    answer = httpx.get(f"{classifier}/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    for name in (
        'te_request_count{method="single"}',
        'te_request_success{method="single"}',
        "te_request_duration_sum",
        "te_request_duration_bucket",
        "te_request_tokenization_duration_count",
        "te_request_queue_duration_count",
        "te_request_inference_duration_count",
        "te_batch_next_size_count",
        "te_batch_next_tokens_count",
        "te_queue_size",
    ):
        assert any(line.startswith(name) for line in lines), name


def test_rerank_gives_ranks(reranker):
    """Texts best first by a sigmoid of the score, each with its place; the text only where asked for."""
    texts = [f"document {number} of {10 + number}" for number in range(6)]
    body = {"query": "document 1", "texts": texts}
    found = RANKS.validate_json(rank(reranker, body).content)
    assert sorted(one.index for one in found) == list(range(6))
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score < 1 for score in scores)
    assert all(one.text is None for one in found)
    raw = RANKS.validate_json(rank(reranker, {**body, "raw_scores": True}).content)
    assert [one.index for one in raw] == [one.index for one in found]
    assert [1 / (1 + math.exp(-one.score)) for one in raw] == pytest.approx(scores, abs=1e-5)
    told = RANKS.validate_json(rank(reranker, {**body, "return_text": True, "truncate": True}).content)
    assert [one.text for one in told] == [texts[one.index] for one in told]


@pytest.mark.parametrize("path", ["/", "/invocations"])
def test_a_reranker_ranks_by_its_host_alone(reranker, path):
    """The address of the host, and SageMaker's, rerank; /ping needs no key."""
    body = {"query": "document 1", "texts": [f"document {number}" for number in range(4)]}
    answer = post(reranker, path, body, authorization="Bearer open-sesame")
    found, wanted = (RANKS.validate_json(one.content) for one in (answer, rank(reranker, body)))
    assert [one.index for one in found] == [one.index for one in wanted]
    assert post(reranker, path, body).status_code == 401
    assert httpx.get(f"{reranker}/ping").status_code == 200


def test_rerank_refuses_what_tei_refuses(reranker, classifier):
    """No texts are an error of the request; a model that does not rerank answers 424 with type backend."""
    assert rank(reranker, {"query": "document", "texts": []}).status_code in {400, 413, 422}
    answer = post(classifier, "/rerank", {"query": "document", "texts": ["a"]})
    assert answer.status_code == 424
    assert ErrorResponse.model_validate_json(answer.content).error_type == "backend"


def test_a_reranker_says_that_it_is_one(reranker):
    """`/info` of a pair model of one output names it a reranker; without the key it says nothing."""
    assert httpx.get(f"{reranker}/info").status_code == 401
    info = Info.model_validate_json(
        httpx.get(f"{reranker}/info", headers={"Authorization": "Bearer open-sesame"}).content
    )
    assert info.model_type.reranker.id2label == {"0": "relevant"}


def test_inference_client(classifier):
    """`huggingface_hub.InferenceClient` with nothing but the address, or that of /predict.

    A TEI server answers one text with a flat list, of which this client returns the first: the best.
    """
    wanted = SINGLE.validate_json(post(classifier, "/predict", {"inputs": TEXT}).content)[0]
    for url in (classifier, f"{classifier}/", f"{classifier}/predict"):
        client = huggingface_hub.InferenceClient(url)
        found = client.text_classification(TEXT)
        assert isinstance(found, huggingface_hub.TextClassificationOutputElement)
        assert (found.label, found.score) == (wanted.label, pytest.approx(wanted.score, abs=1e-5))
        top = client.text_classification(TEXT, top_k=1, function_to_apply="softmax")
        assert top.label == wanted.label


def test_inference_client_asks_how_the_server_is(classifier):
    """Its health check and its endpoint info work."""
    client = huggingface_hub.InferenceClient(classifier, provider="hf-inference")
    assert client.health_check() is True
    assert Info.model_validate(client.get_endpoint_info()).max_input_length == MAX_LENGTH


def test_inference_client_with_a_key(reranker):
    """A token goes out as the key; a wrong one is the error that the client's users catch."""
    wrong = huggingface_hub.InferenceClient(reranker, token="wrong")
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError, match="401"):
        wrong.text_classification(TEXT)
    client = huggingface_hub.InferenceClient(reranker, provider="hf-inference", token="open-sesame")
    assert client.get_endpoint_info()["is_pair"] is True


def test_inference_client_says_what_the_server_says(classifier):
    """A refused text raises the client's own error with our sentence in it."""
    client = huggingface_hub.InferenceClient(classifier)
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError, match="413"):
        client.text_classification("x" * 200_000)
    with pytest.raises(huggingface_hub.errors.HfHubHTTPError, match="empty"):
        client.text_classification("")


def test_asynchronous_inference_client(classifier):
    """The asynchronous client too."""

    async def ask():
        async with huggingface_hub.AsyncInferenceClient(classifier) as client:
            return await client.text_classification(TEXT)

    assert asyncio.run(ask()).label in {"world", "sports", "business"}


def test_vectors_have_their_shapes(encoder, classifier):
    """`/embed` always gives a list of vectors, `/v1/embeddings` OpenAI's object; what is wrong has each one's error."""
    (one,) = VECTORS.validate_json(post(encoder, "/embed", {"inputs": TEXT, "truncate": True}).content)
    two = VECTORS.validate_json(
        post(encoder, "/embed", {"inputs": [TEXT, SECOND], "normalize": True}).content
    )
    assert one == two[0] != two[1]
    answer = post(
        encoder, "/v1/embeddings", {"input": [TEXT, SECOND], "model": "m", "encoding_format": "float"}
    )
    said = OpenAIResponse.model_validate_json(answer.content)
    assert [each.embedding for each in said.data] == two
    assert all(name in answer.headers for name in HEADERS)
    info = Info.model_validate_json(httpx.get(f"{encoder}/info").content)
    assert info.model_type == Embedder(embedding=EmbeddingModel(pooling="mean"))
    wrong = post(encoder, "/embed", {"inputs": []})
    assert ErrorResponse.model_validate_json(wrong.content).error_type == "empty"
    wrong = post(encoder, "/v1/embeddings", {"input": "document " * 500, "truncate": False})
    assert OpenAIErrorResponse.model_validate_json(wrong.content).code == wrong.status_code == 422
    for url, path, body in (
        (classifier, "/embed", {"inputs": TEXT}),
        (encoder, "/predict", {"inputs": TEXT}),
    ):
        answer = post(url, path, body)
        assert answer.status_code == 424
        assert ErrorResponse.model_validate_json(answer.content).error_type == "backend"


def test_inference_client_extracts_features(encoder):
    """`feature_extraction` with nothing but the address, its options included."""
    for url in (encoder, f"{encoder}/embed"):
        client = huggingface_hub.InferenceClient(url)
        found = client.feature_extraction(TEXT)
        assert (found.dtype, found.shape) == (np.float32, (1, 8))
        prompted = client.feature_extraction(
            "5", prompt_name="query", truncate=True, truncation_direction="left"
        )
        np.testing.assert_array_equal(prompted, found)
        raw = client.feature_extraction(TEXT, normalize=False)
        np.testing.assert_allclose(raw / np.linalg.norm(raw), found, rtol=1e-5)
        assert np.linalg.norm(raw) != pytest.approx(1)


def test_the_shapes_are_not_empty_promises():
    """What TEI would not send does not pass the shapes above."""
    with pytest.raises(ValidationError):
        SINGLE.validate_python([{"label": "a", "score": "0.5"}])
    with pytest.raises(ValidationError):
        BATCH.validate_python([{"label": "a", "score": 0.5}])
    with pytest.raises(ValidationError):
        RANKS.validate_python([{"index": -1, "score": 0.5}])
