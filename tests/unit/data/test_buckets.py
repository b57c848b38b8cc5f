"""What only buckets have: pages, torn answers, credentials, services that cannot do all."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay.data import object_store
from assay.data.finding import find_sources
from assay.data.object_store import ObjectStore
from assay.data.reading import read_rows
from assay.data.scratch import scratch_file, sweep_scratch
from assay.data.sources import Columns
from assay.data.storage import open_store, split_url
from assay.errors import InputError, SourceError, StorageError, UsageError


@pytest.fixture(params=["s3", "gs"])
def bucket(request, fake_store):
    """A server, and a store in it."""
    return fake_store, ObjectStore(f"{request.param}://bucket/run")


def fail_next(server, kind, fault, times):
    """The next so many requests of a kind fail."""
    left = [fault] * times
    server.plan = lambda seen, _: left.pop() if seen == kind and left else ""


def test_a_listing_takes_a_request_a_page(bucket):
    """A range of names that is just a page is one request, a listing of two and a half pages three."""
    server, store = bucket
    for number in range(2500):
        server.buckets["bucket"].put(f"run/parts/{number:05}", b"", {})
    assert len(list(store.list("parts", after="parts/00000", until="parts/01000"))) == 1000
    assert server.requests == {"list": 1}
    assert [info.path for info in store.list("parts")] == [f"parts/{number:05}" for number in range(2500)]
    assert server.requests == {"list": 4}


def test_a_torn_listing_goes_on(bucket):
    """A listing whose connection is torn in a page shows everything once; one that is always torn is an error."""
    server, store = bucket
    for number in range(1500):
        server.buckets["bucket"].put(f"run/parts/{number:05}", b"", {})
    fail_next(server, "list", "torn", 3)
    assert [info.path for info in store.list()] == [f"parts/{number:05}" for number in range(1500)]
    assert server.requests == {"list": 5}
    fail_next(server, "list", "torn", 100)
    with pytest.raises(StorageError, match="could not be listed"):
        list(store.list())


@pytest.mark.parametrize("fault", ["500", "503", "reset", "torn", "stall"])
def test_a_read_that_fails_is_repeated(fake_store, monkeypatch, fault):
    """An object is read whole, whatever became of the first tries."""
    monkeypatch.setenv("AWS_TIMEOUT", "1s" if fault == "stall" else "30s")
    server, store = fake_store, ObjectStore("s3://bucket/run")
    content = os.urandom(100_000)
    store.create("a", content)
    fail_next(server, "get", fault, 1 if fault == "stall" else 3)
    assert store.read_bytes("a") == content
    assert store.read_bytes("a", 10, 1000) == content[10:1010]


@pytest.mark.parametrize("fault", ["500", "503", "reset", "done, then 500", "done, then reset"])
def test_a_deletion_that_fails_is_repeated(bucket, fault):
    """Objects are gone afterwards, whether a try took effect or not; what is not there is fine."""
    server, store = bucket
    for number in range(5):
        store.create(f"a{number}", b"x")
    fail_next(server, "delete", fault, 2)
    store.delete("a0")
    fail_next(server, "delete", fault, 2)
    store.delete_all(["a1", "none", "a2", "a3"])
    assert [info.path for info in store.list()] == ["a4"]


def test_an_upload_in_pieces_is_whole_or_gone(bucket):
    """A large file is put in pieces; where a piece cannot be put nothing stays of the upload, and the old content."""
    server, store = bucket
    content = os.urandom(12 << 20)
    store.replace("merged", content)
    assert store.read_bytes("merged") == content
    assert server.requests["piece"] > 1
    assert server.uploads == []
    for kind in ("start", "piece", "complete"):
        content = os.urandom(12 << 20)
        fail_next(server, kind, "reset", 1)
        store.replace("merged", content)
        assert store.read_bytes("merged") == content
        assert server.uploads == []
    server.plan = lambda kind, _: "400" if kind == "piece" else ""
    with pytest.raises(StorageError, match="merged: could not be written"):
        store.replace("merged", os.urandom(12 << 20))
    assert server.uploads == []
    server.plan = lambda *_: ""
    assert store.read_bytes("merged") == content


def test_a_part_is_never_put_in_pieces(bucket, tmp_path):
    """What is published takes one put: a process that is killed leaves no upload behind."""
    server, store = bucket
    (tmp_path / "part").write_bytes(os.urandom(12 << 20))
    store.create("part", tmp_path / "part")
    assert server.requests == {"create": 1}


def test_a_service_without_conditional_puts(fake_store):
    """A service that says so is one line with a way out."""
    server, store = fake_store, ObjectStore("s3://bucket/run")
    server.conditional = "refused"
    with pytest.raises(
        InputError, match=r"run: this store has no conditional writes .*; use a bucket that"
    ) as caught:
        store.create("a", b"")
    assert "\n" not in str(caught.value)
    assert server.requests["create"] < 20


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://AKIA:planted/secret+x@bucket/r", "s3://bucket"),
        ("s3://planted@bucket/r", "s3://bucket"),
        ("gs://user:planted@bucket/r", "gs://bucket"),
        ("abfss://user:planted@container@account/r", "abfss://account"),
        ("az://container/r?sv=2024&sig=planted", "az://container"),
        ("s3://bucket/r?X-Amz-Credential=planted&X-Amz-Signature=planted", "s3://bucket"),
        ("gs://bucket?X-Goog-Signature=planted", "gs://bucket"),
    ],
)
@pytest.mark.parametrize("opening", [open_store, split_url])
def test_credentials_in_a_url(opening, url, place):
    """They are refused before anything is written, and are not repeated."""
    with pytest.raises(UsageError, match=r"the URL holds credentials .*in the environment") as caught:
        opening(url)
    assert str(caught.value).startswith(place)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["abfss://container@account/r", "s3://bucket/a@b/c?sign=1", "s3://bucket/a?sigma=b"]
)
def test_what_is_not_a_credential(url):
    """A container before the account, and signs in names, are fine."""
    assert open_store(url).url == url


def test_what_a_killed_process_made_for_a_bucket_is_swept(tmp_path, monkeypatch):
    """The files of a process that was killed go with the next command on a bucket, those of a living one stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    object_store._process_scratch.cache_clear()  # that of this process may lie elsewhere
    killed = (
        "import os, signal; from assay.data.scratch import scratch_file; from assay.data.storage import open_store\n"
        "with scratch_file(open_store('s3://bucket/run')) as path: path.write_text('x'); os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", killed], env=environment, check=False).returncode == -9
    others = tmp_path / "assay-scratch-1-theirs"
    others.mkdir()
    (others / "kept.txt").write_text("a file of someone")
    left = set(tmp_path.rglob("*.scratch"))
    assert len(left) == 1
    store = ObjectStore("s3://bucket/run")
    with scratch_file(store) as living:
        sweep_scratch(ObjectStore("s3://bucket/other"))
        assert {path for path in tmp_path.rglob("*") if path.is_file()} == {living, others / "kept.txt"}
    sweep_scratch(store)
    assert Path(store.scratch()).is_dir()
    object_store._process_scratch.cache_clear()


def test_a_source_of_known_size_is_not_asked_for_it(fake_store, tmp_path):
    """Rows from the middle of a Parquet file cost one request for its footer and one for the row group."""
    pq.write_table(
        pa.table({"text": [f"{row:064}" for row in range(40_000)]}), tmp_path / "a", row_group_size=2_000
    )
    ObjectStore("s3://bucket").create("a.parquet", tmp_path / "a")
    columns = Columns()
    [source] = find_sources(["s3://bucket/a.parquet"], columns=columns)
    fake_store.requests.clear()
    [rows] = read_rows(source, columns, 20_000, 20_010)
    assert rows.texts[0].as_py() == f"{20_000:064}"
    assert fake_store.requests == {"get": 2}
    ObjectStore("s3://bucket").replace("a.parquet", b"shorter")
    with pytest.raises(SourceError, match=r"a\.parquet"):
        next(read_rows(source, columns, 20_000, 20_010))
