"""What each address answers, through the whole application, with an engine that is a function."""

import asyncio
import base64
import gzip
import json

import httpx
import numpy as np
import orjson
import pytest
from support.bundles import write_bundle, write_encoder
from support.models import change_json
from support.serving import JSON, client_of, logits_of, open_service

from assay.errors import BundleError, UsageError
from assay.serve import bodies
from assay.serve.frames import BatchFrame

LABELS = ("ham", "spam")
VECTOR_PATHS = ("/embed", "/v1/embeddings")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Bundles of each task, without weights that count."""
    folder = tmp_path_factory.mktemp("bundles")
    three = {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    change_json(
        write_bundle(folder / "multi") / "config.json", problem_type="multi_label_classification", **three
    )
    change_json(
        write_bundle(folder / "score") / "config.json",
        problem_type="regression",
        id2label={"0": "quality"},
        label2id={"quality": 0},
    )
    write_bundle(folder / "single")
    write_bundle(folder / "pair")
    (folder / "pair" / "assay.json").write_text(json.dumps({"format_version": 1, "is_pair": True}))
    write_bundle(folder / "alone")
    (folder / "alone" / "assay.json").write_text(json.dumps({"format_version": 1, "is_pair": False}))
    write_encoder(folder / "encoder", prompts={"query": "document of ", "passage": ""})
    write_encoder(folder / "raw", normalize=False)
    return folder


def ask(folder, *requests, keys=None, **settings):
    """The answers to (path, body) or (path, body, headers) requests, one after another."""

    async def run():
        service, _ = open_service(folder, **settings)
        async with client_of(service, keys=keys) as client:
            found = []
            for path, body, *headers in requests:
                sent = {**JSON, **(headers[0] if headers else {})}
                if body is None:
                    found.append(await client.get(path, headers=sent))
                else:
                    content = body if isinstance(body, bytes) else json.dumps(body)
                    found.append(await client.post(path, content=content, headers=sent))
            return found

    return asyncio.run(run())


def test_single_label(bundles):
    """Assay's own shape: label, confidence, every probability; nothing else unless asked for."""
    (answer,) = ask(bundles / "single", ("/predict", {"text": "document of 3"}))
    found = answer.json()
    assert list(found) == ["label", "confidence", "all_probabilities"]
    assert tuple(found["all_probabilities"]) == LABELS
    assert sum(found["all_probabilities"].values()) == pytest.approx(1)
    assert found["confidence"] == max(found["all_probabilities"].values())
    assert found["all_probabilities"][found["label"]] == found["confidence"]


@pytest.mark.parametrize("where", ["/predict?details=true", "/predict"])
def test_details(bundles, where):
    """With details, by query or body: tokens, whether it was cut, and where the time went."""
    body = {"text": "document of 3", **({} if "?" in where else {"details": True})}
    (answer,) = ask(bundles / "single", (where, body))
    found = answer.json()
    assert found["num_tokens"] == 5
    assert found["truncated"] is False
    assert set(found["timings"]) == {"tokenize_ms", "queue_ms", "forward_ms"}


def test_multi_label(bundles):
    """The labels that hold, and every probability."""
    (answer,) = ask(bundles / "multi", ("/predict", {"text": "document of 3"}))
    found = answer.json()
    assert found["labels"] == [label for label, value in found["all_probabilities"].items() if value >= 0.5]


def test_regression(bundles):
    """A score and nothing else; in TEI's shape through a sigmoid, and plain as the raw score."""
    plain, tei, raw = ask(
        bundles / "score",
        ("/predict", {"text": "document of 3"}),
        ("/predict", {"inputs": "document of 3"}),
        ("/predict", {"inputs": "document of 3", "raw_scores": True}),
    )
    assert list(plain.json()) == ["score"]
    (raw_score,) = raw.json()
    assert raw_score == {"label": "quality", "score": plain.json()["score"]}
    assert 0 < tei.json()[0]["score"] < 1


def test_batch_keeps_order_and_empty_texts(bundles):
    """Answers come in the order of the texts; equal texts get equal answers."""
    texts = [f"document of {number % 7}" for number in range(40)] + [""]
    (answer,) = ask(bundles / "single", ("/predict/batch", {"texts": texts}), budget=64)
    found = answer.json()
    assert len(found) == len(texts)
    alone = ask(bundles / "single", *[("/predict", {"text": text}) for text in texts[:7]])
    assert found[:7] == [one.json() for one in alone]
    assert found[7:14] == found[:7]


@pytest.mark.parametrize(
    ("inputs", "shape"),
    [
        ("one", "single"),
        (["first", "second"], "single"),
        (["one"], "single"),
        ([["one"], ["two"], ["first", "second"]], 3),
        ([["first", "second"]], 1),
    ],
)
def test_tei_inputs(bundles, inputs, shape):
    """A text or a pair gives a list of scores, a batch a list of these; the likeliest label first."""
    (answer,) = ask(bundles / "single", ("/predict", {"inputs": inputs, "parameters": {"top_k": 3}}))
    found = answer.json()
    lists = [found] if shape == "single" else found
    assert len(lists) == (1 if shape == "single" else shape)
    for scores in lists:
        assert [set(each) for each in scores] == [{"label", "score"}] * 2
        assert scores[0]["score"] >= scores[1]["score"]
    assert answer.headers["x-compute-tokens"]
    assert int(answer.headers["x-total-time"]) >= 0


@pytest.mark.parametrize("path", ["/", "/invocations"])
def test_tei_by_its_host(bundles, path):
    """Who knows the host alone, and SageMaker: `inputs` are predicted, a `query` ranks texts."""
    body = {"query": "document", "texts": ["a 1", "b 2", "c 3"]}
    answer, ranked, same, neither = ask(
        bundles / "single",
        (path, {"inputs": "document of 3"}),
        (path, body),
        ("/rerank", body),
        (path, {"text": "document of 3"}),
    )
    assert {each["label"] for each in answer.json()} == set(LABELS)
    assert ranked.json() == same.json()
    assert sorted(each["index"] for each in ranked.json()) == [0, 1, 2]
    assert (neither.status_code, neither.json()["error"]) == (422, "inputs: Field required")


def test_truncate(bundles):
    """What is too long is cut by default, refused with truncate false, cut again with true under `error`."""
    text = "document " * 100
    cut, refused = ask(
        bundles / "single",
        ("/predict?details=true", {"text": text}),
        ("/predict", {"inputs": text, "truncate": False}),
    )
    assert (cut.json()["truncated"], cut.json()["num_tokens"]) == (True, 64)
    assert (refused.status_code, refused.json()["error_type"]) == (422, "tokenizer")
    strict, asked = ask(
        bundles / "single",
        ("/predict", {"text": text}),
        ("/predict", {"inputs": text, "truncate": True}),
        on_long="error",
    )
    assert strict.status_code == 422
    assert asked.status_code == 200


@pytest.mark.parametrize("on_long", ["truncate", "error"])
def test_truncation_on_the_left(bundles, on_long):
    """With Left a long text loses its beginning: the scores are those of its end; also in a mixed queue."""
    text, end = f"{'first ' * 100}document of 3", f"{'first ' * 59}document of 3"
    start = "first " * 62
    left, left_again, right, of_end, of_start, short = (
        answer.json()
        for answer in ask(
            bundles / "single",
            *(
                ("/predict", {"inputs": inputs, "raw_scores": True, "truncate": True, **more})
                for inputs, more in [
                    (text, {"truncation_direction": "Left"}),
                    (text, {"truncation_direction": "left"}),
                    (text, {"truncation_direction": "Right"}),
                    (end, {}),
                    (start, {}),
                    (end, {"truncation_direction": "Left"}),
                ]
            ),
            on_long=on_long,
        )
    )
    assert left == left_again == of_end == short
    assert right == of_start
    assert left != right
    ranked = {"query": "q", "texts": [text, "b"], "truncate": True, "raw_scores": True}
    scores = [
        {each["index"]: each["score"] for each in answer.json()}
        for answer in ask(
            bundles / "single",
            ("/rerank", {**ranked, "truncation_direction": "Left"}),
            ("/rerank", {**ranked, "texts": [f"{'first ' * 57}document of 3", "b"]}),
            ("/rerank", ranked),
            on_long=on_long,
        )
    ]
    assert scores[0] == scores[1] != scores[2]


def test_truncation_on_the_left_is_never_ignored(bundles):
    """It is refused by servers that read long texts otherwise, by `truncate: false`, and where it is not a side."""
    text = "first " * 100
    left = {"inputs": text, "truncation_direction": "Left"}
    for on_long in ("window-mean", "window-max", "head-tail"):
        refused, right = ask(
            bundles / "single",
            ("/predict", left),
            ("/predict", {**left, "truncation_direction": "Right"}),
            on_long=on_long,
        )
        assert refused.status_code == 422
        assert on_long in refused.json()["error"]
        assert right.status_code == 200
    (refused,) = ask(bundles / "single", ("/predict", left), on_long="error")
    assert refused.json()["error_type"] == "tokenizer"
    uncut, no_side = ask(
        bundles / "single",
        ("/predict", {**left, "truncate": False}),
        ("/rerank", {"query": "q", "texts": [text], "truncation_direction": "Middle"}),
    )
    assert (uncut.status_code, uncut.json()["error_type"]) == (422, "tokenizer")
    assert (no_side.status_code, no_side.json()["error_type"]) == (422, "validation")
    assert "'Left'" in no_side.json()["error"]


def test_windows(bundles):
    """Under a window policy a long text is scored whole: the mean of its windows' logits."""
    text = " ".join(str(number) for number in range(100))
    plain, mean, largest = (
        ask(bundles / "single", ("/predict", {"inputs": [[text]], "raw_scores": True}), on_long=policy)[
            0
        ].json()
        for policy in ("truncate", "window-mean", "window-max")
    )
    assert mean != plain
    assert mean[0][0]["score"] <= largest[0][0]["score"]


def test_rerank(bundles):
    """Texts by score, the best first, with their text where asked for."""
    texts = ["document of 3", "document of 5", "of 9"]
    plain, raw, single = ask(
        bundles / "pair",
        ("/rerank", {"query": "document", "texts": texts}),
        ("/rerank", {"query": "document", "texts": texts, "raw_scores": True, "return_text": True}),
        ("/predict/batch", {"texts": ["document"] * 3, "text_pairs": texts}),
    )
    found = plain.json()
    assert sorted(each["index"] for each in found) == [0, 1, 2]
    assert [each["score"] for each in found] == sorted((each["score"] for each in found), reverse=True)
    assert all("text" not in each for each in found)
    assert all(each["text"] == texts[each["index"]] for each in raw.json())
    by_index = {each["index"]: each["score"] for each in found}
    assert [by_index[index] for index in range(3)] == [
        each["all_probabilities"]["spam"] for each in single.json()
    ]


@pytest.mark.parametrize(
    ("bundle", "path", "body", "status", "kind"),
    [
        ("single", "/predict", {"text": ""}, 422, "empty"),
        ("single", "/predict", {"text": 3}, 422, "validation"),
        ("single", "/predict", {"text": None}, 422, "validation"),
        ("single", "/predict", {"text": "a", "detials": True}, 422, "validation"),
        ("single", "/predict", [], 422, "validation"),
        ("single", "/predict", b"", 422, "validation"),
        ("single", "/predict", b'{"text": NaN}', 422, "validation"),
        ("single", "/predict", b'{"text": "\\ud800"}', 422, "validation"),
        ("single", "/predict", b'{"text": "\xff"}', 422, "validation"),
        ("single", "/predict", b"[" * 100_000, 422, "validation"),
        ("single", "/predict", b'{"text": "a"', 422, "validation"),
        ("single", "/predict?details=yes", {"text": "a"}, 422, "validation"),
        ("single", "/predict", {"inputs": ""}, 422, "empty"),
        ("single", "/predict", {"inputs": []}, 422, "empty"),
        ("single", "/predict", {"inputs": [[]]}, 422, "validation"),
        ("single", "/predict", {"inputs": ["a", 3]}, 422, "validation"),
        ("single", "/predict", {"inputs": [["a", 3]]}, 422, "validation"),
        ("single", "/predict", {"inputs": {"text": "a"}}, 422, "validation"),
        ("single", "/predict", {"inputs": None}, 422, "validation"),
        ("single", "/predict", "a", 422, "validation"),
        ("single", "/invocations", None, 405, "validation"),
        ("single", "/invocations", {"query": "a"}, 422, "validation"),
        ("single", "/predict", {"inputs": ["a", "b", "c"]}, 422, "validation"),
        ("single", "/predict", {"inputs": ["a", ["b"]]}, 422, "validation"),
        ("single", "/predict", {"inputs": 3}, 422, "validation"),
        ("single", "/predict", {"inputs": "a", "truncate": "yes"}, 422, "validation"),
        ("single", "/predict/batch", {"texts": []}, 422, "empty"),
        ("single", "/predict/batch", {"texts": ["a", None]}, 422, "validation"),
        ("single", "/predict/batch", {"texts": ["a"] * 9}, 422, "validation"),
        ("single", "/predict/batch", {"texts": ["a"], "text_pairs": ["b", "c"]}, 422, "validation"),
        ("single", "/predict/batch", {"texts": ["a"], "text_pairs": []}, 422, "validation"),
        ("single", "/predict", {"text": "a" * 101}, 422, "validation"),
        ("single", "/predict", {"text": "a" * 5000}, 413, "validation"),
        ("pair", "/predict", {"text": "a"}, 422, "validation"),
        ("alone", "/predict", {"text": "a", "text_pair": "b"}, 422, "validation"),
        ("alone", "/rerank", {"query": "a", "texts": ["b"]}, 424, "backend"),
        ("multi", "/rerank", {"query": "a", "texts": ["b"]}, 424, "backend"),
        ("single", "/nothing", {"text": "a"}, 404, "validation"),
        ("single", "/health", {"text": "a"}, 405, "validation"),
        ("single", "/predict", None, 405, "validation"),
    ],
)
def test_what_is_refused(bundles, bundle, path, body, status, kind):
    """Each with its status, TEI's kind of error, the request's id, and no text of the request."""
    (answer,) = ask(
        bundles / bundle,
        (path, body, {"X-Request-Id": "me.1"}),
        max_client_batch_size=8,
        max_text_chars=100,
        max_body_bytes=4000 if status == 413 else 200_000,
    )
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind)
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "me.1"
    assert "Traceback" not in answer.text
    assert len(answer.json()["error"]) < 700
    assert "Request" not in answer.json()["error"], "names of ours mean nothing to a client"
    assert "union[" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/predict", {"text": ""}, "text: empty; send at least one character"),
        ("/predict/batch", {"texts": []}, "texts: empty; send at least one text"),
        ("/rerank", {"query": "", "texts": ["a"]}, "query: empty; send at least one character"),
    ],
)
def test_what_is_empty_is_named(bundles, path, body, said):
    """The field that is empty and what it needs, in one sentence."""
    (answer,) = ask(bundles / "single", (path, body))
    assert (answer.status_code, answer.json()["error_type"]) == (422, "empty")
    assert answer.json()["error"] == said


def test_compressed_bodies(bundles):
    """A body that says it is compressed is refused with what to send instead, whatever is in it."""
    body = b'{"text": "document of 3"}'
    found = ask(
        bundles / "single",
        ("/predict", gzip.compress(body), {"Content-Encoding": "gzip"}),
        ("/predict", body, {"Content-Encoding": "br"}),
        ("/predict", body, {"Content-Encoding": "identity"}),
    )
    assert [answer.status_code for answer in found] == [415, 415, 200]
    assert found[0].headers["accept-encoding"] == "identity"
    assert "without Content-Encoding" in found[0].json()["error"]


def test_other_methods_hear_which_there_are(bundles):
    """405 names every method of the address, HEAD with GET."""
    page, health, predict = ask(
        bundles / "single", ("/docs", {"text": "a"}), ("/ping", {"text": "a"}), ("/predict", None)
    )
    assert [answer.status_code for answer in (page, health, predict)] == [405] * 3
    assert [answer.headers["allow"] for answer in (page, health, predict)] == [
        "GET, HEAD",
        "GET, HEAD",
        "POST",
    ]


def test_content_type(bundles):
    """Only JSON is read, so that no other site's form can send texts; parameters of the type do no harm."""
    wrong, right = ask(
        bundles / "single",
        ("/predict", {"text": "a"}, {"Content-Type": "text/plain"}),
        ("/predict", {"text": "a"}, {"Content-Type": "Application/JSON; charset=utf-8"}),
    )
    assert (wrong.status_code, right.status_code) == (415, 200)


def test_a_body_without_a_length_is_bounded(bundles):
    """Chunks are counted as they come."""

    async def run():
        service, _ = open_service(bundles / "single", max_body_bytes=10_000)

        async def chunks():
            for _ in range(100):
                yield b" " * 1000

        async with client_of(service) as client:
            return await client.post("/predict", content=chunks(), headers=JSON)

    assert asyncio.run(run()).status_code == 413


def test_request_ids(bundles):
    """A sensible one is kept, any other replaced."""
    kept, replaced, made = ask(
        bundles / "single",
        ("/live", None, {"X-Request-Id": "abc-1.2"}),
        ("/live", None, {"X-Request-Id": "a\tb" * 3}),
        ("/live", None),
    )
    assert kept.headers["x-request-id"] == "abc-1.2"
    assert len(replaced.headers["x-request-id"]) == len(made.headers["x-request-id"]) == 32


def test_security_headers(bundles):
    """On answers and errors alike; only the page may load anything."""
    for answer in ask(bundles / "single", ("/live", None), ("/nothing", None), ("/", None), ("/docs", None)):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers


def test_info(bundles):
    """TEI's names where they mean the same, and what there is beyond."""
    (answer,) = ask(bundles / "single", ("/info", None))
    found = answer.json()
    assert found["model_type"] == {
        "classifier": {"id2label": {"0": "ham", "1": "spam"}, "label2id": {"ham": 0, "spam": 1}}
    }
    assert (found["task"], found["labels"], found["is_pair"]) == ("single_label", ["ham", "spam"], None)
    assert (found["max_input_length"], found["max_client_batch_size"]) == (64, 1024)
    assert len(found["fingerprint"]) == 32
    assert found["auto_truncate"] is True


def test_metrics(bundles):
    """Counted under TEI's names."""
    *_, answer = ask(
        bundles / "single",
        ("/predict", {"text": "document of 3"}),
        ("/predict/batch", {"texts": ["of", "of 1"]}),
        ("/predict", {"text": ""}),
        ("/rerank", {"query": "a", "texts": ["b"]}),
        ("/metrics", None),
    )
    lines = answer.text.splitlines()
    assert 'te_request_count{method="single"} 1.0' in lines
    assert 'te_request_success{method="batch"} 2.0' in lines
    assert 'te_request_failure{err="empty"} 1.0' in lines
    assert "te_predict_count 3.0" in lines
    assert "te_rerank_count 1.0" in lines
    assert "te_queue_size 0.0" in lines
    assert "assay_ready 1.0" in lines
    assert any(line.startswith("te_request_inference_duration_bucket") for line in lines)
    assert any(line.startswith("te_batch_next_size_sum 4.0") for line in lines)


def test_health_and_live(bundles):
    """Ready and alive; HEAD is answered as GET."""
    health, live = ask(bundles / "single", ("/health", None), ("/live", None))
    assert (health.status_code, live.status_code) == (200, 200)
    assert health.json()["model_loaded"] is True


def test_examples_of_the_document(bundles):
    """Every example of a request in the OpenAPI document is answered."""
    (document,) = ask(bundles / "pair", ("/openapi.json", None))
    made = document.json()
    asked = [
        (path, example["value"])
        for path, methods in made["paths"].items()
        if "post" in methods
        for example in methods["post"]["requestBody"]["content"]["application/json"]["examples"].values()
    ]
    assert len(asked) >= 12
    for name in ("single", "encoder"):
        of_kind = [one for one in asked if (one[0] in VECTOR_PATHS) is (name == "encoder")]
        assert len(of_kind) >= 4
        for (path, body), answer in zip(of_kind, ask(bundles / name, *of_kind), strict=True):
            assert answer.status_code == 200, (path, body, answer.text)


def test_answers_fit_the_document(bundles):
    """Answers validate against the shapes of the document."""
    jsonschema = pytest.importorskip("jsonschema")
    requests = [
        ("/predict", {"text": "a", "details": True}),
        ("/predict", {"inputs": [["a"], ["b"]]}),
        ("/predict/batch", {"texts": ["a", "b"]}),
        ("/rerank", {"query": "a", "texts": ["b"], "return_text": True}),
        ("/invocations", {"query": "a", "texts": ["b"]}),
    ]
    vectors = [
        ("/embed", {"inputs": ["a", "b"]}),
        ("/v1/embeddings", {"input": "a"}),
        ("/v1/embeddings", {"input": ["a", "b"], "encoding_format": "base64"}),
        ("/", {"inputs": "a"}),
    ]
    for name, asked in (("single", requests), ("score", requests), ("encoder", vectors)):
        document, *found = ask(bundles / name, ("/openapi.json", None), *asked)
        made = document.json()
        for (path, _), answer in zip(asked, found, strict=True):
            content = made["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]
            schema = {**content["schema"], "components": made["components"]}
            jsonschema.Draft202012Validator(schema).validate(answer.json())


def test_embed(bundles):
    """A vector for each text in order, of length 1 as the model says; the same in every shape, and at the host."""
    texts = ["document of 3", "of 9 1", "document of 3"]
    one, listed, plain, coded, root, invocations, metrics = ask(
        bundles / "encoder",
        ("/embed", {"inputs": texts[0]}),
        ("/embed", {"inputs": texts, "truncate": True, "parameters": {}}),
        ("/v1/embeddings", {"input": texts, "model": "any", "user": "me"}),
        ("/v1/embeddings", {"input": texts, "encoding_format": "base64"}),
        ("/", {"inputs": texts}),
        ("/invocations", {"inputs": texts}),
        ("/metrics", None),
    )
    vectors = np.array(listed.json(), np.float32)
    assert vectors.shape == (3, 8)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    assert one.json() == [listed.json()[0]] == [listed.json()[2]] != [listed.json()[1]]
    assert root.json() == invocations.json() == listed.json()
    said = plain.json()
    assert [each["embedding"] for each in said["data"]] == listed.json()
    assert [(each["object"], each["index"]) for each in said["data"]] == [("embedding", n) for n in range(3)]
    assert (said["object"], said["model"]) == ("list", str(bundles / "encoder"))
    assert said["usage"] == {"prompt_tokens": 15, "total_tokens": 15}
    assert listed.headers["x-compute-tokens"] == plain.headers["x-compute-tokens"] == "15"
    found = [np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in coded.json()["data"]]
    np.testing.assert_array_equal(found, vectors)
    lines = metrics.text.splitlines()
    assert "te_embed_count 16.0" in lines
    assert "te_embed_success 16.0" in lines
    assert "te_predict_count 0.0" in lines
    assert 'te_request_count{method="single"} 1.0' in lines


def test_vectors_are_written_as_the_shortest_float32(bundles):
    """Numbers in JSON are the shortest that read back to the same float32, not those of a float64."""
    (answer,) = ask(bundles / "encoder", ("/embed", {"inputs": "document of 3"}))
    numbers = json.loads(answer.content, parse_float=str)[0]
    assert [number for number in numbers if number != str(np.float32(number))] == []


@pytest.mark.parametrize(("bundle", "flag", "default"), [
    ("encoder", "auto", 1), ("encoder", "no", None), ("raw", "auto", None), ("raw", "yes", 1),
])  # fmt: skip
def test_normalize(bundles, bundle, flag, default):
    """As the request says, else as the server was told, else as the model's files say; windows included."""
    text = " ".join(str(number) for number in range(100))
    for policy in ("truncate", "window-mean"):
        asked, yes, no = ask(
            bundles / bundle,
            *(("/embed", {"inputs": [text, "of 1"], "normalize": said}) for said in (None, True, False)),
            normalize=flag,
            on_long=policy,
        )
        lengths = np.linalg.norm(np.array(yes.json()), axis=1)
        np.testing.assert_allclose(lengths, 1, rtol=1e-6)
        assert (np.linalg.norm(np.array(no.json()), axis=1) > 1.5).all()
        assert asked.json() == (no if default is None else yes).json()


def test_prompts(bundles):
    """A prompt of the model's files stands before each text where its name is asked for; none does unasked."""
    prompted, same, empty, plain, unknown = ask(
        bundles / "encoder",
        ("/embed", {"inputs": ["3", "7 of 9"], "prompt_name": "query"}),
        ("/v1/embeddings", {"input": ["document of 3", "document of 7 of 9"]}),
        ("/embed", {"inputs": "3", "prompt_name": "passage"}),
        ("/embed", {"inputs": "3"}),
        ("/embed", {"inputs": "3", "prompt_name": "nothing"}),
    )
    assert prompted.json() == [each["embedding"] for each in same.json()["data"]]
    assert empty.json() == plain.json() != prompted.json()[:1]
    assert unknown.status_code == 422
    assert (
        unknown.json()["error"] == "prompt_name: the model has no prompt of this name; it has query, passage"
    )


def test_lengths_of_texts_to_embed(bundles):
    """Cut by default and by `truncate: true`, on the side asked for; refused with false, and by a server told so."""
    text, start, end = f"{'first ' * 100}document of 3", "first " * 62, f"{'first ' * 59}document of 3"
    cut, as_start, left, as_end, refused = ask(
        bundles / "encoder",
        ("/embed", {"inputs": text}),
        ("/embed", {"inputs": start}),
        ("/embed", {"inputs": text, "truncation_direction": "Left"}),
        ("/embed", {"inputs": end}),
        ("/embed", {"inputs": ["of", text], "truncate": False}),
    )
    assert cut.json() == as_start.json() != left.json() == as_end.json()
    assert (refused.status_code, refused.json()["error_type"]) == (422, "tokenizer")
    assert refused.json()["error"] == "text 1 has more than 64 tokens; shorten it, or send truncate: true"
    strict, asked = ask(
        bundles / "encoder",
        ("/v1/embeddings", {"input": text}),
        ("/embed", {"inputs": text, "truncate": True}),
        on_long="error",
    )
    assert (strict.status_code, strict.json()["type"], asked.status_code) == (422, "tokenizer", 200)


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ({"inputs": ""}, "empty", "inputs: empty; send at least one character"),
        ({"inputs": []}, "empty", "inputs: empty; send at least one text"),
        ({"inputs": ["a", ""]}, "empty", "inputs.1: empty; send at least one character"),
        ({"inputs": ["a"] * 9}, "validation", "9 texts in one request; at most 8 are taken"),
        ({"inputs": "a" * 101}, "validation", "101 characters; at most 100 are taken"),
        ({"inputs": 3}, "validation", "inputs: a text or a list of texts is needed"),
        ({"inputs": None}, "validation", "inputs: a text or a list of texts is needed"),
        ({"inputs": ["a", None]}, "validation", "inputs.1: not a text; token ids are not taken"),
        ({"inputs": [[1, 2]]}, "validation", "inputs.0: not a text; token ids are not taken"),
        ({}, "validation", "inputs: Field required"),
        ({"inputs": "a", "truncate": "yes"}, "validation", "truncate: "),
        ({"inputs": "a", "normalize": 1}, "validation", "normalize: "),
        ({"inputs": "a", "dimensions": 4}, "validation", "dimensions: 4; this model gives 8; leave it out"),
    ],
)
def test_what_is_refused_of_vectors(bundles, body, kind, said):
    """Each in one sentence, in TEI's shape and, under /v1/, in that of its routes for clients of OpenAI."""
    renamed = {"input" if name == "inputs" else name: value for name, value in body.items()}
    ours, openai = ask(
        bundles / "encoder",
        ("/embed", body),
        ("/v1/embeddings", renamed, {"X-Request-Id": "me.1"}),
        max_client_batch_size=8,
        max_text_chars=100,
    )
    assert (ours.status_code, ours.json()["error_type"]) == (422, kind)
    assert ours.json()["error"].startswith(said)
    assert openai.json() == {
        "message": ours.json()["error"].replace("inputs", "input"),
        "code": 422,
        "type": kind,
        "request_id": "me.1",
    }


@pytest.mark.parametrize(
    ("bundle", "path", "body", "way_out"),
    [
        ("single", "/embed", {"inputs": "a"}, "ask /predict"),
        ("single", "/v1/embeddings", {"input": "a"}, "ask /predict"),
        ("encoder", "/predict", {"text": "a"}, "ask /embed"),
        ("encoder", "/predict", {"inputs": "a"}, "ask /embed"),
        ("encoder", "/predict/batch", {"texts": ["a"]}, "ask /embed"),
        ("encoder", "/rerank", {"query": "a", "texts": ["b"]}, "ask /embed"),
        ("encoder", "/", {"query": "a", "texts": ["b"]}, "ask /embed"),
    ],
)
def test_the_other_kinds_routes_are_refused(bundles, bundle, path, body, way_out):
    """424 of type backend as TEI has it, with the route that this model answers."""
    (answer,) = ask(bundles / bundle, (path, body))
    said = answer.json()
    assert (answer.status_code, said.get("error_type", said.get("type"))) == (424, "backend")
    assert way_out in said.get("error", said.get("message"))


def test_a_classifier_served_as_an_encoder(bundles):
    """With `model_kind` encoder its head is left out; what has no head is an encoder unless told otherwise."""
    info, answer = ask(
        bundles / "single", ("/info", None), ("/embed", {"inputs": "a"}), model_kind="encoder",
        pooling="first_token",
    )  # fmt: skip
    assert info.json()["model_type"] == {"embedding": {"pooling": "cls"}}
    assert len(answer.json()[0]) == info.json()["dimension"] == 8
    with pytest.raises(BundleError, match="has no classification head"):
        ask(bundles / "encoder", model_kind="classifier")


def test_info_of_an_encoder(bundles):
    """TEI's names, and the length of vectors, whether they have length 1, and the prompts."""
    (answer,) = ask(bundles / "encoder", ("/info", None))
    found = answer.json()
    assert found["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (found["dimension"], found["normalized"], found["is_pair"]) == (8, True, False)
    assert found["prompts"] == {"query": "document of ", "passage": ""}
    assert not found.keys() & {"task", "labels", "calibrated"}


def test_what_cannot_be_embedded_is_not_served(bundles, tmp_path):
    """Windows whose largest numbers are not a vector, and a model that wants a prompt before every text."""
    with pytest.raises(UsageError, match="on_long window-max"):
        ask(bundles / "encoder", on_long="window-max")
    folder = write_encoder(tmp_path / "prompted", prompts={"query": "q: "})
    change_json(folder / "config_sentence_transformers.json", default_prompt_name="query")
    with pytest.raises(BundleError, match="default_prompt_name puts 'q: ' before every text"):
        ask(folder)


def test_full_precision(bundles):
    """Numbers are those of a scored row, bit by bit: float32, not rounded."""
    (answer,) = ask(bundles / "single", ("/predict", {"inputs": "document of 3", "raw_scores": True}))
    scores = {each["label"]: each["score"] for each in answer.json()}
    assert all(abs(score * 4 - round(score * 4)) == 0 for score in scores.values())
    assert logits_of(BatchFrame(*_ids([2, 5, 6, 10, 3])), 2).shape == (1, 2)


def _ids(ids):
    import numpy as np

    return np.array(ids, np.int32), np.array([0, len(ids)], np.int32), None


def test_the_log_has_no_texts(bundles, tmp_path):
    """A line a request, with id, route, status, counts; texts only where asked for."""
    for log_texts in (False, True):
        file = tmp_path / f"log-{log_texts}"

        async def run(file=file, log_texts=log_texts):
            service, _ = open_service(bundles / "single", log_texts=log_texts)
            with file.open("w") as stream:
                async with client_of(service, stream=stream) as client:
                    await client.post("/predict", json={"text": "document of secrets"})
                    await client.post("/predict", json={"text": 3})
                    await client.get("/health")

        asyncio.run(run())
        lines = [orjson.loads(line) for line in file.read_text().splitlines()]
        assert [(line["route"], line["status"]) for line in lines] == [("/predict", 200), ("/predict", 422)]
        assert (lines[0]["documents"], lines[0]["tokens"]) == (1, 5)
        assert lines[0]["request_id"]
        assert ("secrets" in file.read_text()) is log_texts


def test_keys(bundles):
    """Without a known key nothing about the model is told; probes and the page are open."""
    from assay.serve.keys import read_keys

    keys = read_keys(None, {"ASSAY_API_KEYS": "ci:s3cret,web:other"})
    asked = [("/predict", {"text": "a"}), ("/info", None), ("/metrics", None)]
    bearer = {"Authorization": "Bearer s3cret"}
    for answer in ask(
        bundles / "single", *asked, *[(*one, {"Authorization": "Bearer no"}) for one in asked], keys=keys
    ):
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    for answer in ask(bundles / "single", *[(*one, bearer) for one in asked], keys=keys):
        assert answer.status_code == 200
    for answer in ask(bundles / "single", ("/health", None), ("/live", None), ("/", None), keys=keys):
        assert answer.status_code == 200
    (posted,) = ask(bundles / "single", ("/", {"inputs": "a"}), keys=keys)
    assert posted.status_code == 401


def test_rate_limits(bundles):
    """Each key has its own; what is over it is told when to come back."""
    from assay.serve.keys import read_keys

    keys = read_keys(None, {"ASSAY_API_KEYS": "a:one,b:two"})
    one, two = {"Authorization": "Bearer one"}, {"Authorization": "Bearer two"}
    first, second, third, other = ask(
        bundles / "single",
        ("/predict/batch", {"texts": ["a", "b"]}, one),
        ("/predict", {"text": "a"}, one),
        ("/predict", {"text": "a"}, one),
        ("/predict", {"text": "a"}, two),
        keys=keys,
        rate_limit=3,
    )
    assert (first.status_code, second.status_code, third.status_code, other.status_code) == (
        200,
        200,
        429,
        200,
    )
    assert int(third.headers["retry-after"]) >= 1


def test_unexpected_errors_say_nothing(bundles, monkeypatch, caplog):
    """Whatever fails inside, the client learns the request's id and no more."""
    from assay.serve import answers

    def fail(*_):
        raise RuntimeError("secret path /etc/model")

    monkeypatch.setattr(answers, "prediction", fail)
    (answer,) = ask(bundles / "single", ("/predict", {"text": "a"}))
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["request_id"] in caplog.text


def test_httpx_is_answered_with_a_length(bundles):
    """Answers have a length, so that connections are kept."""
    (answer,) = ask(bundles / "single", ("/predict", {"text": "a"}))
    assert isinstance(answer, httpx.Response)
    assert int(answer.headers["content-length"]) == len(answer.content)


BAD_JSON = {
    "empty": (b"", "the body is empty; send a JSON object"),
    "blank": (b" \r\n\t", "the body is empty; send a JSON object"),
    "arrays too deep": (b'{"text":\n' + b"[" * 2_000, "nested too deep at line 2, column 1024"),
    "objects too deep": (b'{"a":' * 2_000 + b"1" + b"}" * 2_000, "nested too deep at line 1, column 5121"),
    "latin-1": ('{"text":\n "Zürich"}'.encode("latin-1"), "not UTF-8: byte 0xfc at line 2, column 4 (byte 12)"),
    "utf-16": ('{"text": "a"}'.encode("utf-16-le").replace(b"a", b"\xe9"), "not UTF-8: byte 0xe9"),
    "utf-16 with its mark": ('{"text": "a"}'.encode("utf-16"), "not UTF-8: byte 0xff at line 1, column 1 (byte 0)"),
    "a surrogate's bytes": (b'{"text": "\xed\xa0\x80"}', "not UTF-8: byte 0xed at line 1, column 11 (byte 10)"),
    "behind other letters": ('{"é":\n"üü\n'.encode() + b"\xff", "not UTF-8: byte 0xff at line 3, column 1 (byte 13)"),
    "cut within a letter": (b'{"text": "\xc3', "not UTF-8: byte 0xc3"),
    "deep and not UTF-8": (b"[" * 2_000 + b"\xff", "not UTF-8: byte 0xff at line 1, column 2001"),
    "a byte order mark": (b'\xef\xbb\xbf{"text": "a"}', "begins with a byte order mark"),
    "cut": (b'{"text": "a', "not JSON: unexpected end of data at line 1, column 12"),
    "a control character": (b'{"text":\n"a\x01"}', "not JSON: unexpected control character in string at line 2"),
    "half a surrogate pair": (b'{"text": "\\ud800"}', "not JSON: no low surrogate in string at line 1"),
    "NaN": (b'{"text":\n NaN}', "not JSON: unexpected character, expected a JSON value at line 2, column 2"),
    "more behind it": (b'{"text": "a"} b', "not JSON: unexpected content after document at line 1, column 15"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_JSON)
def test_json_that_cannot_be_read_says_why_and_where(bundles, name):
    """Each cause has its own true sentence with the place, and no other cause's words."""
    body, words = BAD_JSON[name]
    answer = ask(bundles / "single", ("/predict", body))[0]
    assert answer.status_code == 422
    said = answer.json()["error"]
    assert words in said
    causes = ("is empty", "too deep", "not UTF-8", "byte order mark", "not JSON")
    assert [cause for cause in causes if cause in said] == [cause for cause in causes if cause in words]


def test_json_as_deep_as_allowed_is_read(bundles):
    """Nesting within the limit is not refused for its depth."""
    depth = bodies.MOST_DEPTH
    answer = ask(
        bundles / "single", ("/predict", b'{"text":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}")
    )[0]
    assert answer.status_code == 422
    assert "text" in answer.json()["error"]
    assert "deep" not in answer.json()["error"]
