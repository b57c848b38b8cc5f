"""Pairs of a Siamese model on their way through the server: each text once, within every limit."""

import asyncio
import re
from dataclasses import replace

import numpy as np
import pytest
from support.serving import client_of, open_service, until
from support.siamese import add_evidence, make_siamese_folder

from assay.errors import UsageError
from assay.score.bundles import engine_of, open_bundle
from assay.score.classifier import load
from assay.serve.deployment import load_here
from assay.serve.kinds import open_model
from assay.serve.pairs import split_pairs
from assay.serve.refusals import Refusal
from assay.serve.settings import ServeSettings
from assay.serve.tickets import How

pytestmark = pytest.mark.usefixtures("kept_threads")

TEXTS = [f"The cat number {number} sat on the mat, and the dog ran." for number in range(12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Siamese bundle with evidence of words."""
    return add_evidence(make_siamese_folder(tmp_path_factory.mktemp("pairs") / "model"), TEXTS)


def asked(folder, bodies, **settings):
    """The answers to (path, body) requests, and the engine that gave the vectors."""
    engine = engine_of(open_bundle(folder), num_threads=1)

    async def run():
        service, (made,) = open_service(folder, engine=engine, **settings)
        async with client_of(service) as client:
            sent = [client.post(path, json=body) for path, body in bodies]
            answers = await asyncio.gather(*sent)
            counted = (await client.get("/metrics")).text
        return answers, made, counted

    return asyncio.run(run())


def test_each_distinct_text_of_a_batch_is_encoded_once():
    """By their rows: which texts, which two each pair is, and the first pair that each is in."""
    pairs = split_pairs([("a", "b"), ("b", "a"), ("c", "c")])
    assert pairs.texts == ["a", "b", "c"]
    assert (pairs.first_M.tolist(), pairs.second_M.tolist()) == ([0, 1, 2], [1, 0, 2])
    assert pairs.rows == [0, 0, 2]


def test_the_engine_sees_distinct_texts(folder):
    """144 pairs of 12 texts are 12 documents of the device; what is counted is pairs."""
    firsts, seconds = [one for one in TEXTS for _ in TEXTS], TEXTS * 12
    (answer,), engine, counted = asked(folder, [("/predict/batch", {"texts": firsts, "text_pairs": seconds})])
    assert sum(map(len, engine.batches)) == 12
    found = [each["all_probabilities"]["1"] for each in answer.json()]
    np.testing.assert_allclose(found, load(folder).predict(firsts, seconds)["prob_1"].to_numpy(), atol=1e-5)
    assert re.search(r"^te_predict_success(_total)? 144", counted, re.MULTILINE)


def test_what_is_wrong_with_a_pair_is_said_by_its_place(folder):
    """A missing second text, a text that is too long; the others of the request are not answered either."""
    long = "a line " * 200
    bodies = [
        ("/predict", {"text": TEXTS[0]}),
        ("/predict/batch", {"texts": TEXTS[:2], "text_pairs": TEXTS[:1]}),
        ("/predict/batch", {"texts": TEXTS[:2], "text_pairs": [TEXTS[3], long]}),
        ("/predict", {"text": TEXTS[0], "text_pair": long}),
        ("/embed", {"inputs": TEXTS[0]}),
    ]
    answers, _, _ = asked(folder, bodies, on_long="error")
    assert [answer.status_code for answer in answers] == [422, 422, 422, 422, 424]
    said = [answer.json()["error"] for answer in answers]
    assert said[0] == "this model takes pairs of texts; send a second text too"
    assert "1 second texts for 2 texts" in said[1]
    assert said[2] == "pair 1 has more than 32 tokens; shorten it, or send truncate: true"
    assert said[3] == "has more than 32 tokens; shorten it, or send truncate: true"


def test_vectors_that_are_not_finite_are_an_error(folder, monkeypatch):
    """Of the head as of the engine: no pair gets a made-up number."""
    from assay.siamese.scoring import PairScoring

    score = PairScoring.score

    def spoiled(*args):
        scored = score(*args)
        scored.logits_MC[1] = np.nan
        return replace(scored, logits_MC=scored.logits_MC)

    monkeypatch.setattr(PairScoring, "score", spoiled)
    body = {"texts": TEXTS[:3], "text_pairs": TEXTS[3:6]}
    (answer,), _, _ = asked(folder, [("/predict/batch", body)])
    assert (answer.status_code, answer.json()["error"]) == (
        424,
        "the model gave no finite numbers for pair 1",
    )


async def _never():
    await asyncio.sleep(3600)


def test_pairs_wait_and_are_refused_as_documents_are(folder):
    """Distinct texts count against the queue; deadlines drop what waits; a drain answers what was accepted."""

    async def run():
        service, (engine,) = open_service(
            folder, seconds=0.2, budget=16, max_queue=40, max_client_batch_size=20, timeout=0.5
        )
        pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
        deployment = service.admit(service.deployment.num_documents(pairs))
        assert service.deployment.num_documents([("a", "b"), ("c", "d")]) == 4
        assert service.deployment.num_documents([("a", "b")] * 9) == 9
        task = asyncio.ensure_future(deployment.answer(pairs, How(), request_id="id", receive=_never))
        await until(lambda: engine.batches)
        with pytest.raises(Refusal, match="documents wait already"):
            service.admit(36)
        with pytest.raises(Refusal) as caught:
            await task
        assert caught.value.status == 504
        assert deployment.num_waiting == 0
        service.settings = replace(service.settings, timeout=10)
        deployment._settings = service.settings
        task = asyncio.ensure_future(deployment.answer(pairs[:2], How(), request_id="id", receive=_never))
        await asyncio.sleep(0)
        await service.drain()
        _, found = await task
        assert len(found) == 2

    asyncio.run(run())


def test_a_queue_that_cannot_hold_a_request_of_pairs_is_refused_at_the_start(folder):
    """A pair may be two texts."""
    settings = ServeSettings(bundle=str(folder), max_queue=100, max_client_batch_size=60)
    with pytest.raises(UsageError, match="60 pairs of two texts; a queue must hold one request"):
        load_here(settings, str(folder))


def test_its_texts_are_served_too(folder):
    """As an encoder, where that is asked for."""
    assert open_model(str(folder), kind="encoder", pooling="auto").num_outputs == 8
    assert open_model(str(folder), kind="auto", pooling="auto").is_pair is True
