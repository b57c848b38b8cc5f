"""Fixtures that more than one folder of tests uses."""

import contextlib
import itertools
import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.signals import heed_stopping_signals

CHROMIUM = Path("/usr/bin/chromium")
_BUCKET = "assay-tests"
_numbers = itertools.count()
heed_stopping_signals()
# before anything imports Triton: without a GPU its kernels run in its interpreter
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
# before torch is loaded: tests share their cores, and a thread that waits by spinning takes them from the one it
# waits for; under load a forward pass of a tiny model took twenty times the CPU time
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# notes on engines that passed their self test: of the tests alone, for this session and its children
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="assay-tests-")


def pytest_make_parametrize_id(val, argname):
    """Packed bytes are named by their argument: gzip keeps the time, and each worker must collect the same names."""
    return argname if isinstance(val, bytes) and val.startswith(b"\x1f\x8b") else None


def pytest_collection_modifyitems(items):
    """Tests that need a GPU skip where there is none, and say so."""
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if not needing:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def s3_server():
    """The environment that reaches an S3-compatible server on loopback, which has one bucket."""
    pytest.importorskip("moto.server")
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
    }
    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=_BUCKET)
    yield environment
    server.stop()


@pytest.fixture
def s3_url(s3_server, monkeypatch):
    """A fresh `s3://bucket/prefix`, reachable through the environment by this process and its children."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return f"s3://{_BUCKET}/test-{next(_numbers)}"


@pytest.fixture(scope="module")
def kept_threads():
    """Engines set torch's thread count for the whole process; it is put back."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one_thread(kept_threads):
    """Tiny products are faster on one thread, the more so on a busy machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def kept_sigterm():
    """`main` has SIGTERM stop a command; the signal is given back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def browser():
    """A headless browser; its event loop must end with the module, since tests of others start their own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM.exists():
        pytest.skip(f"needs Chromium at {CHROMIUM}")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def hosting(address, *modules):
    """A host of workers for the time of a `with`, its address."""
    script = Path(__file__).parent / "support" / "worker_host.py"
    # A process that forks must have no threads.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), "serve", str(address), *modules]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as host:
        assert host.stdout.readline() == b"ready\n"
        yield str(address)
        host.kill()


@pytest.fixture(scope="session")
def worker_host(tmp_path_factory):
    """The address of a host that starts fake workers in milliseconds, see support/worker_host.py."""
    with hosting(tmp_path_factory.mktemp("host") / "socket", "support.fake_worker") as address:
        yield address


@pytest.fixture(scope="session")
def score_worker_host(tmp_path_factory):
    """The same of real workers of `assay score`: one import of torch for all of them."""
    heavy = ("torch", "assay.engine.fake", "assay.engine.load", "assay.score.parity", "assay.score.scorer")
    with hosting(tmp_path_factory.mktemp("host") / "socket", "assay.score.worker", *heavy) as address:
        yield address
