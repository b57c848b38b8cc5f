"""One suite for every kind of store: what works in a folder works in a bucket."""

import ctypes
import errno
import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay.data import creating, object_store, storage
from assay.data.object_store import ObjectStore
from assay.data.storage import LocalStore, open_store, split_url
from assay.errors import InputError, StorageError, UsageError


@pytest.fixture(params=["local", "s3", "google"])
def store(request, tmp_path):
    """A store that is empty and holds no folder yet."""
    if request.param == "local":
        return open_store(tmp_path / "root")
    return open_store(request.getfixturevalue(f"{request.param}_url"))


def test_a_new_store_is_empty(store):
    """Nothing is there before anything is written, and looking makes nothing."""
    assert list(store.list()) == []
    assert list(store.list("parts")) == []
    assert store.info("run.json") is None
    store.delete("run.json")


def test_create_publishes_once(store):
    """The first create wins, any later one is told so and changes nothing."""
    assert store.create("parts/a b.bin", b"first") is True
    assert store.create("parts/a b.bin", b"second") is False
    assert store.read_bytes("parts/a b.bin") == b"first"


def test_one_of_many_creators_wins(store):
    """Of eight threads that publish at once, exactly one is told that it did."""
    start = threading.Barrier(8)
    won = []

    def publish(number):
        start.wait()
        if store.create("run.json", b"%d" % number):
            won.append(number)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read_bytes("run.json") == b"%d" % won[0]


def test_create_over_what_is_no_file(tmp_path):
    """A folder or a broken link under the name is no published file: it is named, not taken for one."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("folder", "link"):
        with pytest.raises(StorageError, match=rf"{name} is in the way.*remove it"):
            LocalStore(str(tmp_path)).create(name, b"content")


@pytest.mark.parametrize("place", ["scratch", "elsewhere"])
def test_create_takes_a_file_over(store, place, tmp_path):
    """A file handed to create is gone afterwards, whether it was published or not."""
    for published in (True, False):
        folder = store.scratch() if place == "scratch" else tmp_path
        file = folder / "part.tmp"
        file.write_bytes(b"x" * 100_000)
        assert store.create("parts/a.parquet", file) is published
        assert not file.exists()
    assert store.read_bytes("parts/a.parquet") == b"x" * 100_000


def test_replace_overwrites(store, tmp_path):
    """Replace puts new content over old, from bytes and from a file, which it takes over."""
    store.replace("status.json", b"one")
    assert store.read_bytes("status.json") == b"one"
    file = tmp_path / "new"
    file.write_bytes(b"two" * 3_000_000)
    store.replace("status.json", file)
    assert store.read_bytes("status.json") == b"two" * 3_000_000
    assert not file.exists()


def test_list_is_recursive_and_sorted(store):
    """A listing shows all files below a folder, sorted by path, and takes the folder by whole names."""
    for path in ("b/2", "b/1", "a", "b.x", "b/c/3", "bb/1"):
        store.create(path, path.encode())
    assert [info.path for info in store.list()] == ["a", "b.x", "b/1", "b/2", "b/c/3", "bb/1"]
    assert [info.path for info in store.list("b")] == ["b/1", "b/2", "b/c/3"]
    assert [info.path for info in store.list("b/")] == ["b/1", "b/2", "b/c/3"]
    assert [info.size_bytes for info in store.list("b")] == [3, 3, 5]


def test_what_a_disk_cannot_list_is_named(tmp_path):
    """A link that leads to itself is one line with the way out, as any error of the disk in the middle of a listing."""
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StorageError, match=rf"{tmp_path}/loop: could not be listed .* remove the link"):
        list(LocalStore(tmp_path).list())
    (tmp_path / "loop").unlink()
    (tmp_path / "broken").symlink_to("nowhere")
    assert list(LocalStore(tmp_path).list()) == []


def test_info_names_size_and_version(store):
    """Info gives the size, a recent time, and a version that a change changes; a folder is not a file."""
    store.create("d/a", b"12345")
    before = store.info("d/a")
    assert (before.path, before.size_bytes) == ("d/a", 5)
    assert abs(before.modified - time.time()) < 60
    assert store.info("d") is None
    assert next(store.list()) == before
    store.replace("d/a", b"54321")
    assert store.info("d/a").version != before.version


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (3, None, b"3456789"),
        (3, 4, b"3456"),
        (8, 100, b"89"),
        (10, 5, b""),
        (50, None, b""),
        (0, 0, b""),
    ],
)
def test_read_bytes_of_a_range(store, start, length, expected):
    """A range gives what there is of it, nothing beyond the end."""
    store.create("f", b"0123456789")
    assert store.read_bytes("f", start, length) == expected


def test_an_empty_file(store):
    """An empty file can be published, read and listed."""
    assert store.create("empty", b"")
    assert store.read_bytes("empty") == b""
    assert store.read_bytes("empty", 0, 10) == b""
    assert store.open_input("empty").read() == b""


def test_delete_removes(store):
    """Delete removes a file; doing it twice is fine."""
    store.create("f", b"1")
    store.delete("f")
    store.delete("f")
    assert store.info("f") is None


def test_open_input_reads_parquet(store):
    """A Parquet reader reads a file through the store, whole and by row group."""
    table = pa.table({"id": range(10_000), "text": [f"text {i}" * 20 for i in range(10_000)]})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=1000)
    store.create("t.parquet", sink.getvalue())
    file = pq.ParquetFile(store.open_input("t.parquet"))
    assert file.read_row_group(7).equals(table.slice(7000, 1000))
    assert pq.read_table(store.open_input("t.parquet")).equals(table)


def test_reading_what_is_not_there(store):
    """A missing file is named, with a way out."""
    for read in (store.read_bytes, store.open_input):
        with pytest.raises(StorageError, match=r"nothing\.txt.*check the (path|URL)"):
            read("nothing.txt")


def test_a_seekable_file_reads_like_its_bytes(s3_url):
    """Seeking and reading at random gives what a file in memory gives."""
    content = os.urandom(3_000_000)
    store = open_store(s3_url)
    store.create("f", content)
    remote = object_store._RangeFile(store, "f", len(content))
    local = io.BytesIO(content)
    for offset, length in [
        (2_999_000, 2000),
        (0, 10),
        (10, 100),
        (2_000_000, 1_500_000),
        (5, 0),
        (4, -1),
        (9_999_999, 5),
    ]:
        assert remote.seek(offset) == local.seek(offset)
        assert remote.read(length) == local.read(length)


def test_a_footer_costs_two_requests(s3_url, monkeypatch):
    """Opening a Parquet file in a bucket takes one look at its size and one read of its end."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": range(200_000)}), sink)
    store = open_store(s3_url)
    store.create("t.parquet", sink.getvalue())
    reads = []
    read_bytes = ObjectStore.read_bytes

    def counted(self, *args):
        reads.append(args)
        return read_bytes(self, *args)

    monkeypatch.setattr(ObjectStore, "read_bytes", counted)
    assert pq.read_metadata(store.open_input("t.parquet")).num_rows == 200_000
    assert len(reads) == 1


def test_a_bucket_that_is_not_there(s3_url):
    """A wrong bucket is one line with the URL and a way out, for reading and for writing."""
    store = open_store(s3_url.replace("assay-tests", "no-such-bucket"))
    for act in (lambda: list(store.list()), lambda: store.create("a", b""), lambda: store.read_bytes("a")):
        with pytest.raises(StorageError, match=r"s3://no-such-bucket.*; check the URL") as caught:
            act()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
@pytest.mark.parametrize("step", ["write_bytes", "fsync", "link", "mkdir"])
@pytest.mark.parametrize("method", ["create", "replace"])
def test_a_disk_that_refuses(tmp_path, monkeypatch, number, step, method):
    """A full, read-only or forbidden disk is one line with path and way out, and leaves no file behind."""
    store = LocalStore(tmp_path)
    store.scratch()
    step = "replace" if (method, step) == ("replace", "link") else step

    def refuse(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(storage.Path if step in {"write_bytes", "mkdir", "replace"} else os, step, refuse)
        with pytest.raises(StorageError, match=r"(part\.bin|tmp).*could not be .*; ") as caught:
            getattr(store, method)("parts/part.bin", b"content")
    assert "\n" not in str(caught.value)
    assert list(store.list()) == []


def test_a_filesystem_without_hard_links(tmp_path, monkeypatch):
    """Where link(2) is refused, a rename without replacement keeps the promise."""
    store = LocalStore(tmp_path)

    def no_links(*_args):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(storage.os, "link", no_links)
    assert store.create("parts/a", b"first") is True
    assert store.create("parts/a", b"second") is False
    assert store.read_bytes("parts/a") == b"first"
    assert [info.path for info in store.list()] == ["parts/a"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP])
def test_a_filesystem_that_cannot_create_once(tmp_path, monkeypatch, number):
    """Where a rename replaces what is there too, the disk is refused in one line, and no file is left."""
    store = LocalStore(tmp_path)

    def no_links(*_args):
        raise OSError(errno.EPERM, "no links here")

    class Libc:
        def __init__(self, *_, **__):
            ctypes.set_errno(number)

        def renameat2(self, *_):
            return -1

    monkeypatch.setattr(storage.os, "link", no_links)
    monkeypatch.setattr(storage.ctypes, "CDLL", Libc)
    with pytest.raises(
        InputError, match=r"parts: this file system has neither hard links.*; use a local disk"
    ) as caught:
        store.create("parts/a", b"first")
    assert "\n" not in str(caught.value)
    assert list(store.list()) == []


def test_a_file_where_a_folder_should_be(tmp_path):
    """A root that is a file is named with a way out."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="name a folder"):
        LocalStore(tmp_path / "file").create("a", b"")


def test_published_files_are_synced_before_they_get_their_name(tmp_path, monkeypatch):
    """The content is on the disk before the name is, the name before create returns."""
    steps = []
    fsync, link = os.fsync, os.link
    monkeypatch.setattr(storage.os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd)))
    monkeypatch.setattr(storage.os, "link", lambda *args: (steps.append("link"), link(*args)))
    (tmp_path / "parts").mkdir()
    LocalStore(tmp_path).create("parts/a", b"content")
    assert steps == ["fsync", "link", "fsync"]


def test_listing_many_files_is_fast(tmp_path):
    """Thousands of published parts are listed in a fraction of a second."""
    parts = tmp_path / "parts"
    parts.mkdir()
    for number in range(4_000):
        (parts / f"source-{number:05d}.parquet").touch()
    begin = time.process_time()
    assert sum(1 for _ in LocalStore(tmp_path).list("parts")) == 4_000
    assert time.process_time() - begin < 0.5


def test_scratch_is_local_and_writable(store):
    """Scratch is a folder on this machine; beside the parts on disk, the process's own for a bucket."""
    folder = store.scratch()
    assert folder.is_dir()
    assert folder == store.scratch()
    (folder / "file").write_bytes(b"x")
    (folder / "file").unlink()


def _write_a_folder(path):
    with storage.writing("out.html"):
        path.write_text("")


def test_writing_names_the_file(tmp_path):
    """An OSError inside `writing` becomes one line with the path and a way out."""
    with pytest.raises(StorageError, match=r"out\.html: could not be written \(Is a directory\); "):
        _write_a_folder(tmp_path)


def test_urls(tmp_path, monkeypatch):
    """A store says where it is as the user would, made absolute; opening touches nothing."""
    monkeypatch.chdir(tmp_path)
    assert open_store("runs/r1").url == str(tmp_path / "runs/r1")
    assert open_store(f"file://{tmp_path}/a%20b").url == f"{tmp_path}/a b"
    assert open_store("s3://bucket/some/prefix/").url == "s3://bucket/some/prefix"
    assert list(tmp_path.iterdir()) == []


def test_split_url(tmp_path):
    """A file's URI is cut into its folder or its bucket, and its path there."""
    store, path = split_url("s3://bucket/a/b c?.parquet")
    assert (store.url, path) == ("s3://bucket", "a/b c?.parquet")
    store, path = split_url(str(tmp_path / "a.parquet"))
    assert (store.url, path) == (str(tmp_path), "a.parquet")


@pytest.mark.parametrize("opening", [open_store, split_url])
def test_an_unknown_scheme(opening):
    """A URL that no store can open is refused with the schemes that one can."""
    with pytest.raises(UsageError, match=r"ftp://host/a: no store for ftp://.*s3://"):
        opening("ftp://host/a")


def test_a_url_without_a_bucket():
    """It is refused, and is not a folder with a colon in its name."""
    with pytest.raises(UsageError, match=r"s3:// names no bucket; write s3://bucket/folder"):
        open_store("s3://")


@pytest.fixture(params=["s3", "gs"])
def faulty(request, fake_store):
    """A server that fails on order, and a store in it."""
    return fake_store, object_store.ObjectStore(f"{request.param}://bucket/run")


@pytest.mark.parametrize(
    "orders",
    [
        ["409"],
        ["409"] * 5,
        ["500"],
        ["503", "500"],
        ["reset"],
        ["reset", "409", "reset"],
        ["done, then 500"],
        ["done, then reset"],
        ["409", "done, then stall"],
    ],
    ids="; ".join,
)
@pytest.mark.parametrize("as_file", [False, True], ids=["bytes", "file"])
def test_a_create_whose_answer_was_lost_or_a_conflict(faulty, tmp_path, monkeypatch, orders, as_file):
    """The call publishes in the end and says so, whether its put took effect before the fault or not."""
    server, store = faulty
    for name in ("AWS_TIMEOUT", "GOOGLE_TIMEOUT"):
        monkeypatch.setenv(name, "1s" if "stall" in str(orders) else "30s")
    server.orders = list(orders)
    content = b"x" * 1000
    if as_file:
        (tmp_path / "content").write_bytes(content)
    assert store.create("parts/a", tmp_path / "content" if as_file else content) is True
    assert store.read_bytes("parts/a") == content
    assert store.create("parts/a", b"other") is False
    assert store.read_bytes("parts/a") == content
    assert not (tmp_path / "content").exists()


@pytest.mark.parametrize("orders", [[], ["500"], ["reset"], ["409"], ["other, then 409"]], ids="; ".join)
def test_a_create_that_another_won(faulty, orders):
    """Where another's object is there, of the same content even, the call says that it did not publish."""
    server, store = faulty
    if "other" not in str(orders):
        assert store.create("parts/a", b"the same") is True
    server.orders = list(orders)
    assert store.create("parts/a", b"the same") is False


@pytest.mark.parametrize("order", ["409", "reset"])
def test_a_create_that_never_succeeds(faulty, order):
    """Tries end: after a bounded number of them the error names the object."""
    server, store = faulty
    server.orders = [order] * 100
    with pytest.raises(StorageError, match="://bucket/run/parts/a: could not be written"):
        store.create("parts/a", b"x")
    assert server.puts == creating.PUT_TRIES


def test_one_of_many_creators_wins_where_requests_fail(faulty):
    """Of many callers at once, with faults before and after the effect, exactly one gets True."""
    server, store = faulty
    for number in range(5):
        server.orders = ["409", "reset", "done, then reset", "409", "done, then 500", "500", "reset"]
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda k, n=number: store.create(f"parts/{n}", b"%d" % k), range(8)))
        assert won.count(True) == 1
        assert store.read_bytes(f"parts/{number}") == b"%d" % won.index(True)


def test_a_replace_that_meets_another(faulty):
    """A conflict of two puts is tried again; the last content is there."""
    server, store = faulty
    server.orders = ["409", "reset", "409"]
    store.replace("status", b"one")
    assert store.read_bytes("status") == b"one"
    server.orders = ["409"] * 100
    with pytest.raises(StorageError, match="could not be written"):
        store.replace("status", b"two")
