"""Fixtures that more than one folder of tests uses."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.fake_store import FakeStore
from support.signals import heed_stopping_signals

from assay.data import creating, storage

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
def store_server():
    """A server of objects on loopback, which has one bucket and no faults."""
    with FakeStore(_BUCKET) as server:
        yield server


@pytest.fixture
def s3_url(store_server, monkeypatch):
    """A fresh `s3://bucket/prefix`, reachable through the environment by this process and its children."""
    reach(monkeypatch, store_server.s3_environment())
    return f"s3://{_BUCKET}/test-{next(_numbers)}"


@pytest.fixture
def google_url(store_server, monkeypatch):
    """The same of Google's kind, `gs://bucket/prefix`."""
    reach(monkeypatch, store_server.google_environment())
    return f"gs://{_BUCKET}/test-{next(_numbers)}"


@pytest.fixture
def fake_store(monkeypatch):
    """A server of objects with a bucket of the name `bucket`, of this test alone, whose faults do not take long."""
    monkeypatch.setattr(creating, "FIRST_PAUSE_SECONDS", 0.001)
    storage._bucket_store.cache_clear()  # the bucket of an earlier test had another port
    with FakeStore() as server:
        reach(monkeypatch, server.s3_environment() | server.google_environment())
        yield server


def reach(monkeypatch, environment):
    """Have this process and its children find a server on loopback by these variables."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


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
