"""Bad books through the command line: one line with the value and the way out, the right status, nothing lost."""

import json
import socket

import pytest

from assay.cli.main import main


@pytest.fixture
def assay(tmp_path, capsys, monkeypatch):
    """The command line in this process, from within an empty folder: status, stdout, lines on stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        capsys.readouterr()
        status = main([str(word) for word in words])
        said = capsys.readouterr()
        return status, said.out, said.err.splitlines()

    return run


@pytest.fixture
def refused(assay):
    """The one line with which a command refuses."""

    def run(*words, status=2):
        found, out, lines = assay(*words)
        errors = [line for line in lines if line.startswith("assay: error: ")]
        assert (found, len(errors)) == (status, 1), (found, out, lines)
        assert lines[-1] == errors[0]
        assert ";" in errors[0], "no way out"
        return errors[0].removeprefix("assay: error: ")

    return run


@pytest.fixture
def books(tmp_path):
    """Writes texts by their names into the folder `books`."""

    def write(texts, folder="books"):
        for name, text in texts.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / folder

    return write


class TestGutenberg:
    """`assay gutenberg` where nothing can be fetched."""

    def test_a_missing_contact(self, refused):
        """Nothing is asked for without one."""
        assert "needs --contact" in refused("gutenberg", "fetch", "--ids", "12", "--out", "raw")
        line = refused("gutenberg", "fetch", "--ids", "12", "--out", "raw", "--contact", "me")
        assert "'me'" in line
        assert "--contact you@example.org" in line

    def test_a_mirror_that_is_down(self, refused, tmp_path):
        """Said once, and nothing of the folder is broken: the same command may be run later."""
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            mirror = f"http://127.0.0.1:{closed.getsockname()[1]}"
            words = ["gutenberg", "fetch", "--ids", "12,13", "--out", "raw", "--base", mirror]
            for _ in range(2):
                line = refused(*words, "--contact", "me@example.org", "--tries", "1", status=1)
                assert "cannot be reached" in line
                assert "another mirror" in line

    def test_a_long_range_of_the_publishers_own_site(self, refused, tmp_path):
        """Refused before a request, with the mirrors as the way out."""
        words = ["gutenberg", "fetch", "--range", "1-5000", "--out", "raw", "--contact", "me@example.org"]
        assert "take them from a mirror" in refused(*words)
        assert not (tmp_path / "raw").exists()

    def test_an_archive_that_is_not_one(self, refused, tmp_path):
        """Missing, or of another kind."""
        (tmp_path / "bad.zip").write_text("not a zip")
        assert "cannot be read" in refused("gutenberg", "archive", "--archive", "no.zip", "--out", "raw")
        assert "of another kind" in refused("gutenberg", "archive", "--archive", "bad.zip", "--out", "raw")


SMALL = ("--devices", "1", "--language-check", "off", "--language", "en")
"""One worker, and nothing that needs a package of its own."""


class TestPrepare:
    """`assay prepare books` of what cannot become pairs."""

    @pytest.mark.parametrize(
        ("texts", "said"),
        [
            ({}, "is not a folder; give a folder of .txt files"),
            ({"notes.md": "no book"}, "has no .txt file; give a folder of plain texts"),
            ({"a.html": "<html>", "b.htm": "<html>"}, "2 HTML files and no .txt file; books are plain text"),
            ({"A_b.txt": "<!DOCTYPE html><html>"}, "is HTML; books are plain text"),
            (
                {"index.jsonl": json.dumps({"version": 2})},
                "a record of version 2; this assay reads version 1",
            ),
            ({"index.jsonl": "{nope"}, "index.jsonl:1: not JSON"),
            ({"index.jsonl": ""}, "lists no books; fetch some"),
        ],
    )
    def test_a_source_that_is_not_books(self, refused, books, tmp_path, texts, said):
        """Refused before any work."""
        books(texts)
        assert said in refused("prepare", "books", "books", "--out", "pairs", *SMALL)
