"""The real command under load: engines that are killed, reloads, drains, keys, hostile clients."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from support.bundles import write_bundle
from support.encoders import embed_here, make_encoder_folder
from support.models import write_model
from support.scoring import read_parts, write_parquet
from support.serving import served

import assay
from assay.score.classifier import load

FAKE = ("--engine", "fake")
FRONTS = pytest.mark.parametrize("fronts", ["1", "2"])
"""One process that does all, or two front processes before it."""
TEXTS = [f"document of {number % 100}" for number in range(200)]


class Load:
    """Clients that send one text after another until told to stop."""

    def __init__(self, server, *, num_clients=6, **headers):
        self.server, self.headers = server, headers
        self.answers = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(num_clients)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        self.wait_for(10)
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def wait_for(self, more):
        """Wait until so many more answers have come."""
        wanted, end = len(self.answers) + more, time.monotonic() + 60
        while len(self.answers) < wanted:
            assert time.monotonic() < end, "no answers come"
            time.sleep(0.02)

    def statuses(self):
        """How the requests ended."""
        return {answer[0] for answer in self.answers}

    def _send(self):
        with httpx.Client(base_url=self.server.url, timeout=60, headers=self.headers) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/predict", json={"text": "document of 3"})
                    self.answers.append((answer.status_code, answer.text))
                except httpx.HTTPError as error:
                    self.answers.append((repr(error), ""))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle, and another one that differs."""
    place = tmp_path_factory.mktemp("bundles")
    write_bundle(place / "one")
    write_bundle(place / "two", weight=1.0)
    return place


@pytest.fixture(scope="module")
def server(folder):
    """A server on made-up scores, for the tests that leave it as it was."""
    with served(folder / "one", *FAKE, "--timeout", "20", "--max-body-bytes", "1000000") as running:
        yield running


def is_alive(process_id):
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def memory_kib(server, what):
    """A figure of the server process's memory."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


def until(condition, *, seconds=60):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.05)


def test_it_answers(server):
    """Ready, and the first request is answered like all others."""
    assert server.get("/health").status_code == 200
    one = server.post("/predict", {"text": TEXTS[3]}).json()
    assert server.post("/predict/batch", {"texts": TEXTS}).json()[3] == one


def test_a_real_model(tmp_path):
    """Over a socket, from an engine process: the scores of `assay.load`, and of the new bundle after a reload."""
    bundle, other = write_model(tmp_path / "one"), write_model(tmp_path / "two", seed=1)
    link = tmp_path / "current"
    link.symlink_to(bundle)

    def served_scores():
        answers = running.post("/predict/batch", {"texts": TEXTS}).json()
        return np.array([answer["all_probabilities"]["spam"] for answer in answers])

    with served(link) as running:
        assert "packed bert" in running.get("/info").json()["engines"][0]
        np.testing.assert_allclose(served_scores(), load(bundle).predict(TEXTS)["prob_spam"], atol=1e-5)
        link.unlink()
        link.symlink_to(other)
        running.kill(signal.SIGHUP)
        until(lambda: str(other) in running.get("/info").json()["model_id"])
        np.testing.assert_allclose(served_scores(), load(other).predict(TEXTS)["prob_spam"], atol=1e-5)


def test_an_encoder(tmp_path):
    """Behind a key, from two engine processes: the vectors of an embed run; what is wrong is refused."""
    folder = make_encoder_folder(tmp_path / "encoder", dense=6)
    run = embed_here(write_parquet(tmp_path / "texts.parquet", TEXTS[:50]), folder, tmp_path / "run")
    expected = np.array(read_parts(run)["embedding"].to_pylist(), np.float32)
    flags = ("--devices", "2", "--max-client-batch-size", "20")
    with served(folder, *flags, environment={"ASSAY_API_KEYS": "tests:open-sesame"}) as running:
        key = {"Authorization": "Bearer open-sesame"}
        assert len(running.get("/info", **key).json()["engines"]) == 2
        for path, body, kind in (
            ("/embed", {"inputs": []}, "empty"),
            ("/embed", {"inputs": ["of", ""]}, "empty"),
            ("/embed", {"inputs": [3]}, "validation"),
            ("/embed", {"inputs": ["of"] * 21}, "validation"),
            ("/embed", {"inputs": "of " * 100, "truncate": False}, "tokenizer"),
            ("/v1/embeddings", {"input": ""}, "empty"),
        ):
            assert running.post(path, body).status_code == 401
            answer = running.post(path, body, **key)
            assert answer.status_code == 422
            assert kind in answer.json().values()
        assert running.post("/predict", {"text": "of"}, **key).status_code == 424
        with assay.Client(running.url, "open-sesame") as client:
            np.testing.assert_allclose(client.embed(TEXTS[:50]), expected, atol=1e-5)
        assert running.stop() == 0


def test_a_thousand_connections_at_once(server):
    """All are answered."""
    body = json.dumps({"text": "document of 5"}).encode()
    request = (
        b"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nConnection: close\r\n"
        b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    )
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(1000)]
        for connection in sockets:
            connection.sendall(request)
        answers = [_read_all(connection) for connection in sockets]
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert len({answer.rpartition(b"\r\n\r\n")[2] for answer in answers}) == 1


def _read_all(connection):
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_a_body_of_a_hundred_megabytes(server):
    """Refused for its size, with and without a declared length, and memory does not grow with it."""

    def chunks():
        for _ in range(100):
            yield b" " * 1_000_000

    headers = {"Content-Type": "application/json"}
    for content in (b" " * 100_000_000, chunks()):
        answer = httpx.post(f"{server.url}/predict", content=content, headers=headers, timeout=60)
        assert answer.status_code == 413
    assert memory_kib(server, "VmHWM") < 600_000


def test_vanishing_clients(server):
    """Clients that send half a request, or go before the answer, leave a server that answers others."""
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    head = b"POST /predict/batch HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
    whole = json.dumps({"texts": TEXTS}).encode()
    for rest in (
        b"",
        b"Content-Length: 999\r\n\r\n{",
        b"Content-Length: " + str(len(whole)).encode() + b"\r\n\r\n" + whole,
    ):
        for _ in range(30):
            with socket.create_connection(address, timeout=10) as connection:
                connection.sendall(head + rest)
    assert server.post("/predict", {"text": "of"}).status_code == 200
    until(lambda: "te_queue_size 0.0" in server.get("/metrics").text)


def test_garbage(server):
    """What is not HTTP is refused."""
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(b"\x00\xff\x16\x03\x01 nonsense\r\n\r\n")
        assert b" 400 " in _read_all(connection)
    assert server.get("/health").status_code == 200


def test_an_engine_killed_under_load(server):
    """Every request is answered all the same; health tells, and recovers."""
    (engine,) = server.children()
    with Load(server) as load:
        os.kill(engine, signal.SIGKILL)
        until(lambda: server.get("/health").status_code == 503)
        until(lambda: server.get("/health").status_code == 200)
        load.wait_for(20)
    assert load.statuses() == {200}
    assert len({body for _, body in load.answers}) == 1
    assert server.children() != [engine]
    assert not is_alive(engine)


@FRONTS
def test_reload_under_load(folder, tmp_path, fronts):
    """A new bundle behind the same name: no request fails, and at some point the new one answers all."""
    link = tmp_path / "current"
    link.symlink_to(folder / "one")
    with served(link, *FAKE, "--front-processes", fronts) as running:
        before = running.get("/info").json()["fingerprint"]
        (old,) = running.children()
        with Load(running) as load:
            (tmp_path / "new").symlink_to(folder / "two")
            (tmp_path / "new").replace(link)
            running.kill(signal.SIGHUP)
            until(lambda: running.get("/info").json()["fingerprint"] != before)
            load.wait_for(20)
        assert load.statuses() == {200}
        until(lambda: not is_alive(old))
        until(lambda: len(running.children()) == 1)  # the server collects a dead one in a thread of its own
        said = json.loads(running.wait_for('"event":"serving"'))
        assert said["fingerprint"] == running.get("/info").json()["fingerprint"] != before
        ready = [json.loads(line) for line in running.lines if '"event":"engine_ready"' in line]
        assert ["made-up numbers" in each["engine"] for each in ready] == [True, True]
        assert "WARNING" not in "".join(running.lines), "good news is not a warning"


def test_a_failed_reload_keeps_the_old_bundle(folder, tmp_path):
    """A bundle that cannot be loaded is named in the log; the old one goes on."""
    link = tmp_path / "current"
    link.symlink_to(folder / "one")
    with served(link, *FAKE) as running:
        before = running.get("/info").json()
        link.unlink()
        running.kill(signal.SIGHUP)
        running.wait_for("reload failed")
        assert running.get("/info").json() == before
        assert running.post("/predict", {"text": "of"}).status_code == 200
        assert 'assay_reloads{outcome="failed"} 1.0' in running.get("/metrics").text
        until(lambda: len(running.children()) == 1)


@FRONTS
def test_scores_of_two_bundles_never_mix(tmp_path, fronts):
    """A bundle that was overwritten in place: an engine that starts again finds out, and all is loaded again."""
    bundle = write_bundle(tmp_path / "bundle")
    with served(bundle, *FAKE, "--front-processes", fronts) as running:
        before = running.get("/info").json()["fingerprint"]
        write_bundle(bundle, weight=1.0)
        (engine,) = running.children()
        os.kill(engine, signal.SIGKILL)
        until(lambda: running.get("/info").json()["fingerprint"] != before)
        until(lambda: running.get("/health").status_code == 200)
        assert running.post("/predict", {"text": "of"}).status_code == 200
        until(lambda: len(running.children()) == 1)


@FRONTS
def test_keys_are_revoked_by_reload(folder, tmp_path, fronts):
    """A key that is taken out of the file is refused after SIGHUP; one put in is known; a broken file changes none."""
    keys = tmp_path / "keys"
    keys.write_text("old:one\nstays:two\n")
    with served(folder / "one", *FAKE, "--front-processes", fronts, "--keys-file", str(keys)) as running:

        def status(key):
            return running.get("/info", Authorization=f"Bearer {key}").status_code

        assert [status(key) for key in ("one", "two", "three")] == [200, 200, 401]
        keys.write_text("stays:two\nnew:three\n")
        running.kill(signal.SIGHUP)
        until(lambda: status("three") == 200)
        assert [status(key) for key in ("one", "two")] == [401, 200]
        keys.write_text("no colon\n")
        running.kill(signal.SIGHUP)
        running.wait_for("keys are not read again")
        assert [status(key) for key in ("one", "two", "three")] == [401, 200, 200]
        assert "two" not in "".join(running.lines)


@FRONTS
def test_sigterm_drains(folder, fronts):
    """Requests under way are answered, then the process ends with status 0 and leaves none behind."""
    with (
        served(folder / "one", *FAKE, "--front-processes", fronts) as running,
        ThreadPoolExecutor(8) as threads,
    ):
        children = [*running.children(), *running.children("front")]
        sent = [threads.submit(running.post, "/predict/batch", {"texts": TEXTS * 5}) for _ in range(8)]
        until(lambda: 'te_request_count{method="batch"}' in running.get("/metrics").text)
        assert running.stop() == 0
        statuses = {answer.result().status_code for answer in sent}
        assert 200 in statuses
        assert statuses <= {200, 503}
        until(lambda: not any(map(is_alive, children)), seconds=10)


@FRONTS
def test_a_killed_server_leaves_no_engine(folder, fronts):
    """Engines end when their server does, however it ended."""
    with served(folder / "one", *FAKE, "--front-processes", fronts) as running:
        children = [*running.children(), *running.children("front")]
        assert len(children) == (1 if fronts == "1" else 3)
        running.stop(signal.SIGKILL)
        until(lambda: not any(map(is_alive, children)), seconds=10)


def test_several_engines(folder):
    """`--devices 2` on a CPU: two processes behind one queue; one killed, the other goes on."""
    with served(folder / "one", *FAKE, "--devices", "2") as running:
        first, second = running.children()
        os.kill(first, signal.SIGKILL)
        for _ in range(20):
            assert running.post("/predict", {"text": "of"}).status_code == 200
        assert running.get("/health").status_code == 200
        until(lambda: len(running.children()) == 2)
        assert second in running.children()


def test_a_slow_body_is_given_up(folder):
    """A body that does not come within the timeout is answered 408."""
    with served(folder / "one", *FAKE, "--timeout", "1") as running:
        address = ("127.0.0.1", int(running.url.rpartition(":")[2]))
        with socket.create_connection(address, timeout=30) as connection:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
            )
            assert _read_all(connection).startswith(b"HTTP/1.1 408")


def test_https(folder, tmp_path):
    """TLS by file."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    with served(folder / "one", *FAKE, "--tls-cert", str(certificate), "--tls-key", str(key)) as running:
        assert running.url.startswith("https://")
        import ssl

        context = ssl.create_default_context(cafile=str(certificate))
        answer = httpx.post(f"{running.url}/predict", json={"text": "of"}, verify=context, timeout=30)
        assert answer.status_code == 200
        assert "strict-transport-security" in answer.headers


def run_serve(*arguments, **environment):
    """`assay serve` that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "assay", "serve", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def test_what_cannot_be_served(folder, tmp_path):
    """One line on stderr and status 2: no bundle, a port that is taken, settings that do not fit."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = [
            run_serve(tmp_path / "none"),
            run_serve(folder / "one", "--port", port),
            run_serve(folder / "one", "--timeout", "0"),
            run_serve(folder / "one", "--max-queue", "5"),
            run_serve(folder / "one", "--tls-cert", "cert.pem"),
            run_serve(folder / "one", "--keys-file", tmp_path / "none"),
            run_serve(folder / "one", "--devices", "none"),
            run_serve(folder / "one", "--max-length", "65", "--port", "0"),
            run_serve(folder / "one", "--port", "0", ASSAY_API_KEYS="bad name:key"),
        ]
    for done in found:
        assert done.returncode == 2, done.stderr
        assert done.stderr.splitlines()[-1].startswith("assay: error: ")
        assert "Traceback" not in done.stderr


def test_a_model_that_cannot_be_loaded_ends_the_server(folder, tmp_path):
    """The engine's own error is the command's."""
    broken = write_bundle(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:-1])
    done = run_serve(broken, "--port", "0")
    assert done.returncode == 2
    assert "safetensors" in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_memory_stays_flat(folder):
    """Ten minutes of load, with clients that err and clients that leave: memory is that of the second minute."""
    seconds = float(os.environ.get("ASSAY_SOAK_SECONDS", "600"))
    with served(folder / "one", *FAKE) as running, Load(running):
        address = ("127.0.0.1", int(running.url.rpartition(":")[2]))
        sizes = []
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            running.post("/predict/batch", {"texts": TEXTS})
            running.post("/predict", {"text": 3})
            with socket.create_connection(address, timeout=10) as connection:
                connection.sendall(b"POST /predict HTTP/1.1\r\nHost: t\r\nContent-Length: 99\r\n\r\n{")
            sizes.append(memory_kib(running, "VmRSS"))
        settled = sizes[len(sizes) // 5]
        assert sizes[-1] < 1.1 * settled, (settled, sizes[-1])
