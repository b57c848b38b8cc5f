"""A mirror is copied from a real rsync daemon on loopback; the ones that are down are one line."""

import os
import shutil
import socket
import subprocess
import threading
import time

import pytest
from support.books import book

from assay.books.index import read_index
from assay.cli.main import main
from assay.errors import UsageError, WorkError
from assay.gutenberg.settings import SyncSettings
from assay.gutenberg.sync import sync

needs_rsync = pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")

MAIN = {
    "1/2/12/12-8.txt": book(12).replace(b"rained", b"rain\xe9d"),
    "1/2/12/12-0.txt": book(12),
    "1/2/12/12.txt": book(12),
    "1/2/12/old/12-0.txt": book(12, title="Older"),
    "1/3/13/13-8.txt": book(13, title="Caf\u00e9").decode().encode("latin-1"),
    "1/3/13/13-h/13.txt": b"<html>",
    "1/3/13/13.html": b"<html>",
    "2/0/20/20.txt": book(20, language="Polish"),
    "0/7/7.txt": book(7),
    "etext90/wam10.txt": book(90),
}
GENERATED = {f"{number}/pg{number}.txt": book(number) for number in (5, 12, 158)}
GENERATED["12/pg12.html"] = b"<html>"


def write(folder, files):
    """Lay out a tree."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    """A daemon with both trees: its address, and the folder of the trees."""
    root = tmp_path_factory.mktemp("mirror")
    write(root / "main", MAIN)
    write(root / "generated", GENERATED)
    port = free_port()
    modules = "".join(f"[{name}]\npath = {root / name}\nread only = yes\n" for name in ("main", "generated"))
    config = root / "rsyncd.conf"
    config.write_text(
        f"use chroot = no\nuid = {os.getuid()}\ngid = {os.getgid()}\n{modules}", encoding="utf-8"
    )
    command = [
        "rsync",
        "--daemon",
        "--no-detach",
        "--address=127.0.0.1",
        f"--port={port}",
        f"--config={config}",
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"rsync://127.0.0.1:{port}", root
    finally:
        process.terminate()
        process.wait(10)


def copied(mirror, out, **others):
    """One sync."""
    return sync(SyncSettings(mirror=mirror, out=str(out), **others))


def files(folder):
    """All files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@needs_rsync
def test_the_best_text_of_each_book_is_copied_and_no_other(daemon, tmp_path):
    """UTF-8 first, older editions and other files never; a second sync files nothing."""
    url, _ = daemon
    gathered = copied(f"{url}/main", tmp_path)
    assert dict(gathered.counts) == {"new": 4}
    assert files(tmp_path / "mirror") == {"1/2/12/12-0.txt", "1/3/13/13-8.txt", "2/0/20/20.txt", "0/7/7.txt"}
    records = {record.gutenberg_id: record for record in read_index(tmp_path / "index.jsonl")}
    assert records[12].raw_path == "mirror/1/2/12/12-0.txt"
    assert records[12].url == f"{url}/main/1/2/12/12-0.txt"
    assert records[13].title == "Caf\u00e9"
    assert dict(copied(f"{url}/main", tmp_path).counts) == {"already": 4}


@needs_rsync
def test_the_generated_tree_too(daemon, tmp_path):
    """Its folders are the books' numbers; a shard has those that begin with its digit."""
    url, _ = daemon
    gathered = copied(f"{url}/generated", tmp_path, digits="1")
    assert gathered.counts["new"] == 2
    assert files(tmp_path / "mirror") == {"12/pg12.txt", "158/pg158.txt"}
    assert copied(f"{url}/generated/", tmp_path, shards=6).counts["new"] == 1


@needs_rsync
def test_wishes_narrow_what_is_copied(daemon, tmp_path):
    """UTF-8 by name alone; a limit; a language."""
    url, _ = daemon
    copied(f"{url}/main", tmp_path / "a", utf8_only=True)
    assert files(tmp_path / "a" / "mirror") == {"1/2/12/12-0.txt"}
    copied(f"{url}/main", tmp_path / "b", limit=1, digits="1")
    assert files(tmp_path / "b" / "mirror") == {"1/2/12/12-0.txt"}
    gathered = copied(f"{url}/main", tmp_path / "c", languages=("pl",))
    assert dict(gathered.counts) == {"language": 3, "new": 1}


@needs_rsync
def test_a_catalogue_keeps_other_languages_from_being_copied(daemon, tmp_path):
    """Nobody is asked for them, and authors get their years."""
    url, _ = daemon
    table = tmp_path / "pg_catalog.csv"
    table.write_text(
        "Text#,Type,Issued,Title,Language,Authors,Subjects,LoCC,Bookshelves\n"
        '12,Text,2020-05-01,The Rain,en,"Author, Ann, 1832-1898",,,\n'
        '20,Text,2020-05-01,The Rain,pl,"Author, Ann, 1832-1898",,,\n',
        encoding="utf-8",
    )
    gathered = copied(f"{url}/main", tmp_path / "out", languages=("en",), catalogue=str(table), digits="12")
    assert gathered.counts["new"] == 2
    assert files(tmp_path / "out" / "mirror") == {"1/2/12/12-0.txt", "1/3/13/13-8.txt"}
    record = read_index(tmp_path / "out" / "index.jsonl")[0]
    assert [(each.birth_year, each.death_year) for each in record.authors] == [(1832, 1898)]


@needs_rsync
def test_a_file_made_again_with_the_same_text_changes_nothing(daemon, tmp_path):
    """Monthly rebuilds change dates in the header; only another text changes the book. Nothing is deleted."""
    url, root = daemon
    mine = root / "main" / "3/0/30/30-0.txt"
    write(root / "main", {"3/0/30/30-0.txt": book(30)})
    try:
        assert dict(copied(f"{url}/main", tmp_path, digits="3").counts) == {"new": 1}
        before = read_index(tmp_path / "index.jsonl")[0]
        mine.write_bytes(book(30).replace(b"May 1, 2020", b"October 12, 2026"))
        assert dict(copied(f"{url}/main", tmp_path, digits="3").counts) == {"unchanged": 1}
        same = read_index(tmp_path / "index.jsonl")[0]
        assert (same.text_sha256, same.processed_path) == (before.text_sha256, before.processed_path)
        assert dict(copied(f"{url}/main", tmp_path, digits="3").counts) == {"already": 1}
        mine.write_bytes(book(30).replace(b"rained", b"snowed"))
        assert dict(copied(f"{url}/main", tmp_path, digits="3").counts) == {"changed": 1}
        changed = read_index(tmp_path / "index.jsonl")[0]
        assert "snowed" in (tmp_path / changed.processed_path).read_text(encoding="utf-8")
    finally:
        mine.unlink()
    assert dict(copied(f"{url}/main", tmp_path, digits="3").counts) == {}
    assert files(tmp_path / "mirror") == {"3/0/30/30-0.txt"}
    assert len(read_index(tmp_path / "index.jsonl")) == 1


@needs_rsync
def test_a_mirror_that_is_down_is_one_line(tmp_path, capsys):
    """Nobody listens: what has come is kept, and the way out is named."""
    arguments = ["--mirror", f"rsync://127.0.0.1:{free_port()}/main", "--out", str(tmp_path)]
    assert main(["gutenberg", "sync", *arguments]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "cannot be reached" in printed
    assert "--mirror" in printed
    assert read_index(tmp_path / "index.jsonl") == []


@needs_rsync
def test_a_module_that_is_not_there_is_one_line(daemon, tmp_path):
    """The daemon's own words are in it."""
    url, _ = daemon
    with pytest.raises(WorkError, match="Unknown module"):
        copied(f"{url}/nothing", tmp_path)


@needs_rsync
@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_something_else_on_that_port_is_one_line(tmp_path, greeting):
    """A port that is closed at once, or speaks another protocol."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            connection.sendall(greeting)
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        mirror = f"rsync://127.0.0.1:{server.getsockname()[1]}/main"
        with pytest.raises(WorkError, match="cannot be reached"):
            copied(mirror, tmp_path, digits="1", timeout_seconds=5)
        thread.join(10)


@needs_rsync
def test_a_silent_mirror_is_left_in_time(tmp_path):
    """It takes the connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        mirror = f"rsync://127.0.0.1:{server.getsockname()[1]}/main"
        with pytest.raises(WorkError, match="cannot be reached"):
            copied(mirror, tmp_path, digits="1", timeout_seconds=1)


def test_no_rsync_is_one_line(tmp_path):
    """Said before anything is made."""
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="install rsync"):
        copied("rsync://127.0.0.1/main", out, rsync="rsync-that-is-not-there")
    assert not out.exists()


@pytest.mark.parametrize(
    "others", [{"mirror": "https://x.org/"}, {"digits": "a"}, {"shards": 7}, {"contact": "me"}]
)
def test_wrong_settings_are_refused(tmp_path, others):
    """Before anybody is asked."""
    with pytest.raises(UsageError):
        SyncSettings(out=str(tmp_path), **others)
