"""Several front processes before one set of engines: what holds for a server holds for all of them together."""

import http.client
import json
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from support.bundles import write_bundle
from support.models import write_model
from support.serving import served
from support.siamese import add_evidence, make_siamese_folder, write_cascade_of

from assay.score.classifier import load

FLAGS = ("--engine", "fake", "--front-processes", "3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle."""
    return write_bundle(tmp_path_factory.mktemp("fronts") / "bundle")


def until(condition, *, seconds=60):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.05)


def ask(server, texts):
    """Status and headers of the answer, on a connection of its own, which the kernel gives to one of the processes."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    path, body = (
        ("/predict", {"text": texts}) if isinstance(texts, str) else ("/predict/batch", {"texts": texts})
    )
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def front_of(answer):
    """Which process answered: the first half of the ids that it gives."""
    return answer.headers["x-request-id"][:16]


def samples(server):
    """The numbers of /metrics."""
    return dict(re.findall(r"^(\S+) (\S+)$", server.get("/metrics").text, re.MULTILINE))


def test_limits_and_metrics_are_those_of_all(folder):
    """A key's rate is let in once, not once a process; and what every process counted is in one sum."""
    with served(folder, *FLAGS, "--rate-limit", "1") as server:
        # paid for in the 99 minutes that follow
        assert ask(server, ["of"] * 100).status == 200
        answers = [ask(server, "of") for _ in range(60)]
        assert {answer.status for answer in answers} == {429}
        assert len({front_of(answer) for answer in answers}) == 3
        found = samples(server)
        assert float(found['te_request_count{method="single"}']) == 60
        assert float(found['te_request_success{method="batch"}']) == 1
        assert float(found['te_request_failure{err="overloaded"}']) == 60
        assert float(found["te_predict_success"]) == float(found["te_batch_next_size_sum"]) == 100
        assert float(found["assay_ready"]) == 1


def test_a_killed_front_is_replaced_and_the_others_answer(folder):
    """Only requests of the process that ended are lost; soon there are as many as before, which answer all."""
    with served(folder, *FLAGS) as server:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            kept = front_of(client.post("/predict", json={"text": "of"}))
            fronts = server.children("front")
            assert len(fronts) == 3
            for victim in fronts:
                os.kill(victim, signal.SIGKILL)
                try:
                    answer = client.post("/predict", json={"text": "of"})
                except httpx.HTTPError:
                    break  # it was the one that had this connection
                assert (answer.status_code, front_of(answer)) == (200, kept)
                until(lambda: len(server.children("front")) == 3)
        # connections wait for the process that is being started
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: ask(server, "of"), range(30)))
        assert {answer.status for answer in answers} <= {200, 503}
        until(lambda: server.get("/health").status_code == 200)
        until(lambda: len(server.children("front")) == 3)
        assert float(samples(server)["assay_front_restarts"]) >= 1
        assert server.stop() == 0


def test_answers_are_those_of_one_process(tmp_path):
    """By every process, single texts and lists: the scores of `assay.load`."""
    bundle = write_model(tmp_path / "bundle")
    texts = [f"document of {number}" for number in range(40)]
    expected = load(bundle).predict(texts)["prob_spam"].to_pylist()
    with served(bundle, "--front-processes", "2", "--on-long", "window-mean", "--max-length", "64") as server:
        with ThreadPoolExecutor(8) as threads:
            single = list(threads.map(lambda text: server.post("/predict", {"text": text}), texts))
        found = [answer.json()["all_probabilities"]["spam"] for answer in single]
        assert found == pytest.approx(expected, abs=1e-5)
        listed = server.post("/predict/batch", {"texts": texts}).json()
        found = [answer["all_probabilities"]["spam"] for answer in listed]
        assert found == pytest.approx(expected, abs=1e-5)
        details = server.post("/predict?details=true", {"text": texts[0]}).json()["timings"]
        assert 0 < details["forward_ms"] < 10_000
        assert 0 <= details["queue_ms"] < 10_000


@pytest.mark.slow
def test_a_share_in_fp32_of_several_engines(tmp_path):
    """All texts run in fp32 too, windows as documents; the sums are of two engines, the differences the answers'."""
    bundle = write_model(tmp_path / "bundle")
    texts = [f"document of {number} " * (1 + 15 * (number % 2)) for number in range(30)]
    scores = load(bundle, precision="fp32", max_length=16, on_long="window-mean").predict(texts)
    exact = [*map(float, scores["prob_spam"].to_pylist())]
    flags = ("--precision", "bf16", "--parity-share", "1", "--devices", "2", "--front-processes", "2")
    with served(bundle, *flags, "--on-long", "window-mean", "--max-length", "16", seconds=240) as server:
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda text: server.post("/predict", {"text": text}), texts))
        found = [answer.json()["all_probabilities"]["spam"] for answer in answers]
        apart = sum(abs(one - other) for one, other in zip(found, exact, strict=True))
        until(lambda: float(samples(server)["assay_parity_documents"]) == len(texts))
        counted = samples(server)
        assert apart > 1e-3
        assert float(counted["assay_parity_difference_sum"]) == pytest.approx(apart, abs=1e-4)
        assert float(counted['assay_parity_most_beyond{difference="0.1"}']) == pytest.approx(
            1 - 0.05 ** (1 / len(texts))
        )
        assert float(counted["assay_parity_dropped"]) == 0


def test_a_cascade(tmp_path):
    """Both models are asked through the same processes: the answers of `assay.load`, and nothing is left waiting."""
    texts = [f"The cat number {number} sat on the mat, and the dog ran." for number in range(6)]
    add_evidence(make_siamese_folder(tmp_path / "first"), texts)
    write_model(tmp_path / "second", labels=("0", "1"))
    cascade = write_cascade_of(tmp_path, tmp_path / "first", tmp_path / "second", low=0.0)
    expected = load(cascade).predict(texts, texts[::-1])["final_probability"].to_pylist()
    with served(cascade, "--front-processes", "2", seconds=120) as server:
        answers = server.post("/predict/batch", {"texts": texts, "text_pairs": texts[::-1]}).json()
        assert [each["final_probability"] for each in answers] == pytest.approx(expected, abs=1e-5)
        assert {each["stage"] for each in answers} == {"two-stage"}
        assert float(samples(server)["te_queue_size"]) == 0
        assert server.stop() == 0


def test_a_port_that_is_taken_is_refused(folder):
    """Processes of one server share a port; a second server does not come between them."""
    with served(folder, *FLAGS) as server:
        second = served(folder, *FLAGS, "--port", server.url.rpartition(":")[2])
        with pytest.raises(AssertionError, match="cannot listen on"):
            second.__enter__()
