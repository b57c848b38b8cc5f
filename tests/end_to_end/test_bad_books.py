"""Bad books through the command line: one line with the value and the way out, the right status, nothing lost."""

import fcntl
import hashlib
import json
import socket
import unicodedata

import pyarrow.parquet as pq
import pytest
from support.disturbed import Job, run_all
from support.novels import work_here, write_novel

from assay.cli.main import main
from assay.prepare import drawing
from assay.prepare.chunks import verb


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

    def test_an_output_that_is_a_file(self, refused, tmp_path):
        """Said as such, and the file stays."""
        (tmp_path / "file").write_text("mine")
        for out in ("file", "file/below"):
            line = refused("gutenberg", "archive", "--archive", "any.zip", "--out", out, status=1)
            assert "a part of the path is a file; name a folder" in line
        assert (tmp_path / "file").read_text() == "mine"

    def test_an_archive_that_is_not_one(self, refused, tmp_path):
        """Missing, or of another kind."""
        (tmp_path / "bad.zip").write_text("not a zip")
        assert "cannot be read" in refused("gutenberg", "archive", "--archive", "no.zip", "--out", "raw")
        assert "of another kind" in refused("gutenberg", "archive", "--archive", "bad.zip", "--out", "raw")


SMALL = ("--devices", "1", "--language-check", "off", "--language", "en", "--chunk-sentences", "5")
"""One worker, nothing that needs a package of its own, chunks of which short books have many."""
MAKE = ("prepare", "books", "books", *SMALL, "--min-gap-sentences", "5")
SPLITS = ("train", "validation", "test")


@pytest.fixture
def here(monkeypatch):
    """Workers do their work in this process."""
    monkeypatch.setattr(drawing, "place_few", work_here)
    monkeypatch.setattr(verb, "place_few", work_here)


@pytest.fixture
def novels(tmp_path):
    """Two short novels by each of six authors in the folder `books`."""
    for number in range(12):
        write_novel(tmp_path / "books" / f"{'abcdef'[number // 2]}_{number}.txt", number, sentences=40)
    return tmp_path / "books"


def digests(out):
    """What the files of pairs are, byte by byte."""
    return [hashlib.sha256((out / f"{name}.parquet").read_bytes()).hexdigest() for name in SPLITS]


def authors_of(out):
    """The authors of the pairs in each split."""
    return {
        name: set(pq.read_table(out / f"{name}.parquet").column("author1").to_pylist()) for name in SPLITS
    }


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
        assert not (tmp_path / "pairs").exists()

    def test_one_author(self, refused, novels, tmp_path):
        """Refused before any work, with the flag that takes them; so are books of which none has an author."""
        for number, path in enumerate(sorted(novels.iterdir())):
            path.rename(novels / f"Austen_{number}.txt")
        for dry in ((), ("--dry-run",)):
            line = refused(*MAKE, "--out", "pairs", *dry)
            assert "12 books of 1 author make 1 group" in line
            assert "--split-by book" in line
        for number, path in enumerate(sorted(novels.iterdir())):
            path.rename(novels / f"{number}.txt")
        assert "12 of 12 books have no author, the first is 0;" in refused(*MAKE, "--out", "pairs")
        assert not (tmp_path / "pairs").exists()

    @pytest.mark.usefixtures("here")
    def test_one_author_split_by_book(self, assay, novels, tmp_path):
        """Splits without a negative are named, and so is what could not be had, by kind."""
        for number, path in enumerate(sorted(novels.iterdir())):
            path.rename(novels / f"Austen_{number}.txt")
        status, out, _ = assay(*MAKE, "--out", "pairs", "--split-by", "book", "--validation-share", "0.05")
        assert status == 0
        assert "lacking   validation has 20 positives and 0 negatives" in out
        assert "missing   metadata 120, random 120, same_author 14, same_period 72; other kinds took" in out

    @pytest.mark.usefixtures("here")
    def test_negatives_that_cannot_be_had(self, refused, novels):
        """Says which kinds and how many."""
        weights = [f"--weight-{kind}" for kind in ("random", "same-author", "metadata")]
        words = [word for weight in weights for word in (weight, "0")]
        line = refused(*MAKE, "--out", "pairs", *words)
        assert "the training books give no negative pair (missing: same_period 480)" in line

    @pytest.mark.usefixtures("here")
    def test_one_book_left_to_train_on(self, refused, novels):
        """Three authors in three splits: no negative can be had, whatever the authors, so that is not asked for."""
        for path in sorted(novels.iterdir())[3:]:
            path.unlink()
        line = refused(*MAKE, "--out", "pairs", "--split-by", "book")
        assert "one book alone is left for training" in line

    @pytest.mark.usefixtures("here")
    def test_books_that_give_nothing_are_named(self, assay, novels, tmp_path):
        """Shorter than a chunk, than two; two books in a file; a page of HTML behind blank lines: each with why."""
        write_novel(novels / "g_short.txt", 20, sentences=7)
        (novels / "h_tiny.txt").write_text("Tiny.\n")
        marked = "\n\n*** START OF THE PROJECT {0} A ***\n\n{1}\n*** END OF THE PROJECT {0} A ***\n"
        two = "".join(
            marked.format("GUTENBERG EBOOK", (novels / f"a_{number}.txt").read_text()[::-1])
            for number in (0, 1)
        )
        (novels / "i_two.txt").write_text(two)
        (novels / "j_page.txt").write_text("\n" * 20_000 + "<!DOCTYPE html><html>")
        status, out, _ = assay(*MAKE, "--out", "pairs")
        assert status == 0
        assert "unused    1 book: h_tiny (shorter than a chunk; give fewer --chunk-sentences)" in out
        assert (
            "unused    1 book: i_two (cleaning would drop too much, or the file holds two books; cut it"
            in out
        )
        assert "unused    1 book: j_page (the file is HTML; convert it to plain text)" in out
        assert "missing   20 positives, and negatives in proportion; those books have no two sides" in out
        codes = json.loads((tmp_path / "pairs/report.json").read_text())["books_unused"]
        assert codes == {"h_tiny": "shorter_than_a_chunk", "i_two": "quarantined", "j_page": "html"}

    @pytest.mark.usefixtures("here")
    def test_a_file_that_may_be_two_novels(self, assay, novels, tmp_path):
        """It is used all the same, and a note names the place."""
        for number in (50, 51):
            write_novel(tmp_path / f"{number}.txt", number, sentences=400)
        one, other = ((tmp_path / f"{number}.txt").read_text() for number in (50, 51))
        (novels / "k_both.txt").write_text(f"{one}\nTHE END\n\nThe Other\n\n{other}")
        status, out, _ = assay(*MAKE, "--out", "pairs")
        assert status == 0
        assert (
            "k_both may hold two books: see 'THE END', 50% into the text; if it does, split the file there"
            in out
        )
        report = json.loads((tmp_path / "pairs/report.json").read_text())
        assert sum("may hold two books" in note for note in report["notes"]) == 1
        assert "k_both" not in report["books_unused"]

    @pytest.mark.usefixtures("here")
    def test_only_short_books(self, refused, books, tmp_path):
        """One chunk a book gives no pair of one book; nothing is chunked where nothing is long enough."""
        for number in range(6):
            write_novel(tmp_path / "books" / f"{'abcdef'[number]}_b.txt", number, sentences=6)
        line = refused(*MAKE, "--out", "pairs")
        assert "give no positive pair (missing: positive" in line
        assert "give longer books, or less than --min-gap-sentences 5" in line
        books({f"{name}_b.txt": "Short.\n" for name in "abcdef"}, "tiny")
        words = ["tiny" if word == "books" and place == 2 else word for place, word in enumerate(MAKE)]
        assert "none of 6 books has a chunk (shorter_than_a_chunk 6)" in refused(*words, "--out", "other")

    @pytest.mark.usefixtures("here")
    def test_odd_names(self, assay, novels, tmp_path):
        """One author however spelled, in one split; line ends and marks that turn a line are shown as such."""
        odd = ["Zo\u00eb_One", unicodedata.normalize("NFD", "Zo\u00eb_One"), "ZO\u00cb_one"]
        odd += [
            "\u05d0\u05d1_\u05e1\u05e4\u05e8",
            "Ann\U0001f600_\U0001f4d6",
            "New\nline_a\nb",
            "\u202eRtl_x",
        ]
        for number, name in enumerate(odd):
            write_novel(novels / f"{name}.txt", 30 + number, sentences=40)
        (novels / "Tiny\nname_\u202ex.TXT").write_text("Tiny.\n")
        status, out, _ = assay(*MAKE, "--out", "pairs")
        assert status == 0
        authors = authors_of(tmp_path / "pairs")
        assert sum("Zo\u00eb" in each for each in authors.values()) == 1
        assert [each for each in authors.values() if "ZO\u00cb" in each] == [
            each for each in authors.values() if "Zo\u00eb" in each
        ]
        assert {"New line", "\u202eRtl", "\u05d0\u05d1", "Ann\U0001f600"} <= set().union(*authors.values())
        assert "Tiny\\nname_\\u202ex" in out
        assert "\u202e" not in out

    def test_names_that_cannot_be_used(self, refused, novels):
        """Two that are one without their endings; one that is not UTF-8."""
        (novels / "a_0.TXT").write_text("words")
        assert "are named a_0 but for case in their endings; rename one" in refused(*MAKE, "--out", "pairs")
        (novels / "a_0.TXT").unlink()
        with open(bytes(novels) + b"/bad\xff_name.txt", "wb") as file:  # noqa: PTH123  no Path has such a name
            file.write(b"words")
        assert "is not UTF-8; rename the file" in refused(*MAKE, "--out", "pairs")

    @pytest.mark.usefixtures("here")
    def test_an_output_folder_that_is_not_ours(self, refused, novels, tmp_path):
        """Nothing in it is written over: other files, the books themselves, a file."""
        other = tmp_path / "other"
        other.mkdir()
        (other / "train.parquet").write_text("mine")
        line = refused(*MAKE, "--out", "other", status=3)
        assert "holds other files (train.parquet), which might be written over" in line
        assert [path.read_text() for path in other.iterdir()] == ["mine"]
        assert "(a_0.txt, a_1.txt, b_2.txt and 9 more)" in refused(*MAKE, "--out", "books", status=3)
        (other / "work").mkdir()
        (other / "work/thesis.md").write_text("mine")
        assert "holds other files" in refused(*MAKE, "--out", "other", status=3)
        (tmp_path / "file").write_text("mine")
        assert "a part of the path is a file" in refused(*MAKE, "--out", "file", status=1)

    @pytest.mark.usefixtures("here")
    def test_two_commands_on_one_folder(self, refused, assay, novels, tmp_path):
        """The second is refused while the first is at work, and takes up what it left once it is gone."""
        (tmp_path / "pairs/work").mkdir(parents=True)
        with (tmp_path / "pairs/work/lock").open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            assert "another command is making a data set in" in refused(*MAKE, "--out", "pairs", status=3)
        assert assay(*MAKE, "--out", "pairs")[0] == 0

    def test_killed_at_every_step(self, novels, tmp_path):
        """By SIGKILL as a step is about to write: the same command goes on, says what stands, and ends the same."""
        words = [*MAKE, "--out", "pairs"]
        steps = (".books.arrow", "chunks-", "books-5-6", "shelf-", ".making", "pair_books", "pairs-")
        steps += (*(f".{name}.parquet" for name in SPLITS), "train.toml", "report.json")
        jobs = [Job(words=words, die_at=step) for step in steps]
        *killed, last, calm = run_all(
            [*jobs, Job(words=words), Job(words=[*MAKE, "--out", "calm"])], tmp_path
        )
        assert [status for status, _, _ in killed] == [-9] * len(steps)
        assert (last[0], calm[0]) == (0, 0), (last, calm)
        said = dict(zip(steps, (err for _, _, err in killed), strict=True))
        assert "5 of 12 units are published; going on with 7." in said["shelf-"]
        assert "All 12 units are published already" in said["pair_books"]
        assert "Duplicates among the chunks were looked for already." in said[".train.parquet"]
        assert last[2].count("published already") == 2
        assert digests(tmp_path / "pairs") == digests(tmp_path / "calm")
        assert sorted(path.name for path in (tmp_path / "pairs").iterdir()) == sorted(
            path.name for path in (tmp_path / "calm").iterdir()
        )

    def test_a_full_disk(self, novels, tmp_path):
        """One line that names the file, wherever it happens; with room the same command ends the same."""
        words = [*MAKE, "--out", "pairs"]
        full = [Job(words=words, most_bytes=most) for most in (300, 5_000, 100_000)]
        *stopped, last, calm = run_all(
            [*full, Job(words=words), Job(words=[*MAKE, "--out", "calm"])], tmp_path
        )
        places = ("books.arrow", "chunks-", "shelf-")
        for (status, _, err), place in zip(stopped, places, strict=True):
            assert status == 1
            line = err.splitlines()[-1]
            assert line.startswith("assay: error: ")
            assert place in line
            assert "rerun the same command" in line
        assert (last[0], calm[0]) == (0, 0), (last, calm)
        assert "12 units are published already" in last[2]
        assert digests(tmp_path / "pairs") == digests(tmp_path / "calm")

    def test_the_same_bytes_for_one_worker_and_two(self, assay, novels, tmp_path, monkeypatch):
        """The whole command: two processes, and one worker in this one."""
        status, _, lines = assay(*MAKE, "--out", "two", "--devices", "2")
        assert status == 0, lines
        monkeypatch.setattr(drawing, "place_few", work_here)
        monkeypatch.setattr(verb, "place_few", work_here)
        assert assay(*MAKE, "--out", "one")[0] == 0
        assert digests(tmp_path / "one") == digests(tmp_path / "two")
