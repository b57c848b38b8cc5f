"""`assay serve --executor ray` on a cluster of loopback nodes: one server's answers, whatever is lost or read again."""

import signal
import socket
import threading
import time

import httpx
import psutil
import pytest
from support.models import write_model
from support.ray_cluster import LoopbackCluster
from support.serving import served

from assay.cli.main import main

pytest.importorskip("ray")
pytest.importorskip("starlette", reason="needs the extra ray-serve")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings(
        "ignore:Using extra keyword arguments on `Field`"
    ),  # Ray Serve's, at its import
]
TEXTS = [f"document of {number}" for number in range(20)]
KEY = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def cluster():
    """A head, and two nodes of one CPU each."""
    made = LoopbackCluster()
    try:
        for _ in range(2):
            made.add()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A bundle, another one, and a link that leads to the first."""
    folder = tmp_path_factory.mktemp("serve")
    write_model(folder / "one")
    write_model(folder / "two", seed=1)
    (folder / "model").symlink_to("one")
    return folder


def serve_words(cluster):
    """The flags of a server on the cluster, on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    return ("--executor", "ray", "--ray-address", cluster.address, "--num-threads", "1", "--port", port)


def engines(models):
    """The engine processes of this machine that have loaded one of the models."""
    running = [(each, each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"])]
    return [
        each
        for each, words in running
        if "assay.serve.engine_process" in words and any(word.startswith(str(models)) for word in words)
    ]


def answers_of(server):
    """What it says of the texts, one by one and together."""
    one_by_one = [server.post("/predict", {"text": text}, **KEY).json() for text in TEXTS]
    together = server.post("/predict/batch", {"texts": TEXTS}, **KEY).json()
    return [one_by_one, together]


class Asking(threading.Thread):
    """A client that asks until it is refused; an answer that is cut off, or not whole, ends it as an error."""

    def __init__(self, server):
        """Ask this server."""
        super().__init__()
        self.server, self.num_answers, self.end = server, 0, None
        self.start()

    def run(self):
        """Ask for many texts at once."""
        batch = {"texts": [" ".join(["document"] * 30)] * 200}
        while self.end is None:
            try:
                answer = self.server.post("/predict/batch", batch, **KEY)
            except httpx.HTTPError as error:
                self.end = type(error)
                return
            if answer.status_code != 200 or len(answer.json()) != 200:
                self.end = answer.status_code
                return
            self.num_answers += 1


def wait_for(condition, seconds=180.0):
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.2)


def test_replicas_answer_as_one_server_does(cluster, models):
    """Answers, keys and refusals; a bundle that is read again; a replica that is killed; a drain."""
    environment = {"ASSAY_API_KEYS": "own:secret"}
    expected = {}
    for name in ("one", "two"):
        with served(models / name, environment=environment) as server:
            expected[name] = answers_of(server)
            server.stop()
    flags = serve_words(cluster)
    statuses = []
    is_over = threading.Event()

    with served(models / "model", *flags, environment=environment, seconds=300) as server:
        assert answers_of(server) == expected["one"]
        assert server.post("/predict", {"text": "a"}).status_code == 401
        assert server.get("/metrics", **KEY).status_code == 404
        assert server.post("/predict", {"texts": []}, **KEY).status_code == 422
        assert len(engines(models)) == 2

        def ask():
            while not is_over.is_set():
                statuses.append(server.post("/predict", {"text": "a"}, **KEY).status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            (models / "next").symlink_to("two")
            (models / "next").rename(models / "model")
            server.kill(signal.SIGHUP)
            server.wait_for("every replica reads")
            wait_for(lambda: answers_of(server) == expected["two"] and len(engines(models)) == 2)
        finally:
            is_over.set()
            asking.join()
        assert set(statuses) == {200}

        replica = engines(models)[0].parent()
        replica.send_signal(signal.SIGKILL)
        wait_for(
            lambda: len(engines(models)) == 2 and replica.pid not in {each.ppid() for each in engines(models)}
        )
        wait_for(lambda: server.get("/health", **KEY).status_code == 200)
        assert answers_of(server) == expected["two"]

        clients = [Asking(server) for _ in range(4)]
        wait_for(lambda: all(client.num_answers for client in clients))
        server.kill(signal.SIGTERM)
        for client in clients:
            client.join()
        assert {client.end for client in clients} <= {404, 503, httpx.ConnectError}
        assert server.process.wait(120) == 0
    assert not engines(models)


def test_what_cannot_work_is_a_line(cluster, models, capsys):
    """More replicas than there is room for, an address that is taken, a bundle that is none."""

    def refused(*more, folder=models / "one"):
        capsys.readouterr()
        words = ["serve", str(folder), "--executor", "ray", "--ray-address", cluster.address, *more]
        assert main(words) == 2
        return capsys.readouterr().err.splitlines()[-1]

    assert "and a server needs all at once; set --devices 2 or less" in refused(
        "--devices", "5", "--num-threads", "1"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = refused("--port", str(taken.getsockname()[1]), "--num-threads", "1")
    assert "cannot listen on 127.0.0.1:" in line
    assert "choose another --port or --host" in line
    assert "none" in refused(folder=models / "none")
    with pytest.raises(httpx.ConnectError):
        httpx.get("http://127.0.0.1:8000/health")
