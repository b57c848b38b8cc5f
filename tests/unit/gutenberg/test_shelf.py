"""The folder of books survives a kill at any moment, and two commands at once."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.books import book
from support.faulty_http import FaultyServer, reply

from assay.books.index import BookRecord, read_index
from assay.cli.main import main
from assay.gutenberg.shelf import Skip, TextShelf, speaks


def record(number, title="rain"):
    """A record as ingest makes it."""
    return BookRecord(
        source="fetch",
        url=f"http://x.org/{number}.txt",
        gutenberg_id=number,
        author_slug="ann",
        title_slug=title,
        processed_path="",
        size_bytes=3,
    )


def file(shelf, number, text, title="rain"):
    """File one book."""
    return shelf.file(f"pg{number}", record(number, title), text, None)


def test_two_commands_on_one_folder_lose_nothing(tmp_path):
    """Each merges what the other filed; names taken in between are not given twice."""
    one, two = TextShelf(tmp_path), TextShelf(tmp_path)
    assert file(one, 1, "first") == "new"
    assert file(two, 2, "second") == "new"
    one.merge()
    assert file(two, 3, "third") == "new"
    two.merge()
    found = {each.gutenberg_id: each.processed_path for each in read_index(tmp_path / "index.jsonl")}
    assert found == {1: "texts/ann/rain.txt", 2: "texts/ann/rain__pg2.txt", 3: "texts/ann/rain__pg3.txt"}
    texts = {number: (tmp_path / path).read_text(encoding="utf-8") for number, path in found.items()}
    assert texts == {1: "first", 2: "second", 3: "third"}
    assert list((tmp_path / "index_parts").glob("*")) == []


@pytest.mark.parametrize("method", ["replace", "create", "delete"])
@pytest.mark.parametrize("step", range(6))
def test_a_kill_at_any_step_is_made_good(tmp_path, monkeypatch, method, step):
    """Whatever write is the last one: after the same filing again all books and texts are there, once."""

    class Killed(BaseException):
        pass

    def do_all(shelf):
        for number, text in ((1, "first"), (2, "second")):
            if not shelf.is_filed(f"pg{number}"):
                file(shelf, number, text)
        shelf.skip(Skip(key="pg3", reason="missing"))
        shelf.merge()

    shelf = TextShelf(tmp_path)
    real = getattr(type(shelf._store), method)
    left = [step]

    def dies(self, *arguments):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return real(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(type(shelf._store), method, dies)
        with contextlib.suppress(Killed):
            do_all(shelf)
    do_all(TextShelf(tmp_path))
    found = [(each.gutenberg_id, each.processed_path) for each in read_index(tmp_path / "index.jsonl")]
    assert found == [(1, "texts/ann/rain.txt"), (2, "texts/ann/rain__pg2.txt")]
    assert sorted(each.name for each in (tmp_path / "texts" / "ann").iterdir()) == [
        "rain.txt",
        "rain__pg2.txt",
    ]
    assert (tmp_path / "texts/ann/rain.txt").read_text(encoding="utf-8") == "first"
    assert (tmp_path / "texts/ann/rain__pg2.txt").read_text(encoding="utf-8") == "second"
    assert set(TextShelf(tmp_path).skips) == {"pg3"}


def test_a_changed_text_stays_in_its_place(tmp_path):
    """The record tells the new text; the name is the old one."""
    shelf = TextShelf(tmp_path)
    file(shelf, 1, "first", "rain")
    assert file(shelf, 1, "first", "rain") == "unchanged"
    assert file(shelf, 1, "corrected", "rain_and_snow") == "changed"
    shelf.merge()
    (found,) = read_index(tmp_path / "index.jsonl")
    assert found.processed_path == "texts/ann/rain.txt"
    assert (tmp_path / found.processed_path).read_text(encoding="utf-8") == "corrected"


def test_a_text_that_a_kill_left_behind_its_record_is_written(tmp_path):
    """The record was changed and the text was not: filing the book again puts it right."""
    shelf = TextShelf(tmp_path)
    file(shelf, 1, "first")
    file(shelf, 1, "corrected")
    (tmp_path / "texts/ann/rain.txt").write_text("first", encoding="utf-8")
    file(shelf, 1, "corrected")
    assert (tmp_path / "texts/ann/rain.txt").read_text(encoding="utf-8") == "corrected"


@pytest.mark.parametrize(
    ("found", "wanted", "kept"),
    [
        (("en",), (), True),
        ((), ("en",), True),
        (("en",), ("EN",), True),
        (("en", "fr"), ("en",), False),
        (("en", "fr"), ("fr", "en"), True),
    ],
)
def test_every_language_of_a_book_must_be_wanted(found, wanted, kept):
    """A book that names none is kept."""
    assert speaks(found, wanted) is kept


def test_a_killed_command_goes_on_without_asking_twice(tmp_path):
    """SIGKILL in the middle of a fetch; the same command then asks for the rest alone."""
    scripts = {f"/{n}/pg{n}.txt": [reply(body=book(n))] for n in range(1, 13)}
    scripts["/7/pg7.txt"] = [
        [b"HTTP/1.1 200 X\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\n", *([b""] * 3)]
    ]
    with FaultyServer(scripts) as server:
        command = ["gutenberg", "fetch", "--range", "1-12", "--contact", "me@example.org"]
        command += ["--out", str(tmp_path), "--base", server.url(), "--connections", "1"]
        # the seventh book's body never comes, so the command stands there
        process = subprocess.Popen(
            [sys.executable, "-m", "assay", *command],
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in process.stderr:
            if line.startswith("pg6"):
                break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        asked = set(server.asked)
        assert Path(tmp_path / "index_parts").exists()
        server.asked.clear()
        server.scripts["/7/pg7.txt"] = [reply(body=book(7))]
        assert main(command) == 0
        assert set(server.asked) & (asked - {"/7/pg7.txt"}) == set()
    assert [each.gutenberg_id for each in read_index(tmp_path / "index.jsonl")] == list(range(1, 13))
