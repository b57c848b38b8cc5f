"""From chunks to files of pairs: what they hold, and that nothing but the books decides it."""

import hashlib
import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support.novels import chunks_run, work_here

from assay.errors import InputError, RefusedError, UsageError
from assay.prepare import drawing, place
from assay.prepare.books import RECIPE_FILE, Clock, describe_books, pair_books, prepare_books, unwatched
from assay.prepare.chunks import verb
from assay.prepare.settings import BooksSettings
from assay.train.settings import TrainSettings

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def chunks(novels, tmp_path_factory):
    """A finished chunks run over the novels."""
    return chunks_run(novels, tmp_path_factory.mktemp("run"))


def make(novels, chunks, out, *, in_processes=False, **changes):
    """The pairs of the novels in `out`, and the report; drawn in this process unless worker processes are asked for."""
    Path(out, "work").mkdir(parents=True, exist_ok=True)
    rules = {"devices": "1", "positives": 6, "negatives": 12, "min_gap_sentences": 5, **changes}
    settings = BooksSettings(source="novels", out=str(out), **rules)
    said = []
    with pytest.MonkeyPatch.context() as patch:
        if in_processes:
            patch.setattr(place, "BOOKS_OF_A_WORKER", 0)
        else:
            patch.setattr(drawing, "place_few", work_here)
        report = pair_books(settings, novels, chunks, clock=Clock(), watch=unwatched, say=said.append)
    return report, said


def test_the_recipe_trains_either_architecture(made):
    """`assay train train.toml` reads the pairs; a Siamese training finds where both texts are from."""
    out, _ = made
    values = tomllib.loads(Path(out, RECIPE_FILE).read_text(encoding="utf-8"))
    for architecture in ("classifier", "siamese"):
        chosen = TrainSettings(
            base="encoder",
            out="model",
            architecture=architecture,
            **{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()},
        )
        columns = {chosen.text_column, chosen.text_pair_column, chosen.label_column}
        columns |= {*chosen.book_columns, *chosen.author_columns}
        assert len(columns) == 7
        assert columns <= set(pq.read_schema(Path(out, chosen.data[0])).names)


def digests(out):
    """What the three files are, byte by byte."""
    return [hashlib.sha256(Path(out, f"{name}.parquet").read_bytes()).hexdigest() for name in SPLITS]


@pytest.fixture(scope="module")
def made(novels, chunks, tmp_path_factory):
    """A data set of the novels, and its report."""
    out = tmp_path_factory.mktemp("made")
    return out, make(novels, chunks, out)[0]


@pytest.mark.parametrize(
    ("devices", "unit_rows"), [("1", 5), ("2", 1), pytest.param("4", None, marks=pytest.mark.slow)]
)
def test_the_files_are_the_same_bytes_for_any_workers_and_units(
    devices, unit_rows, novels, chunks, made, tmp_path
):
    """One worker or four, a book a unit or five."""
    make(novels, chunks, tmp_path, devices=devices, unit_rows=unit_rows, in_processes=devices != "1")
    assert digests(tmp_path) == digests(made[0])


def test_pairs_are_what_their_columns_say(novels, made):
    """Labels, kinds, authors and the texts of the chunks named; nothing of a book stands in two splits."""
    seen = {}
    texts = {book.book_id: Path(book.path).read_text(encoding="utf-8") for book in novels.books}
    for name in SPLITS:
        rows = pq.read_table(made[0] / f"{name}.parquet").to_pylist()
        assert rows
        for row in rows:
            is_same = row["book1"] == row["book2"]
            assert row["label"] == int(is_same) == int(row["pair_type"] == "positive")
            assert (row["neg_type"] is None) == is_same
            assert row["same_author"] == (row["book1"][0] == row["book2"][0])
            assert (row["neg_type"] == "same_author") <= row["same_author"]
            assert row["text1"] in texts[row["book1"]]
            assert row["text2"] in texts[row["book2"]]
            assert row["chunks1"] != row["chunks2"] or not is_same
            assert row["difficulty"] == ("easy" if row["neg_type"] in {None, "random"} else "hard")
            assert row["task"] == "same_book"
            assert seen.setdefault(row["book1"][0], name) == name
            assert seen.setdefault(row["book2"][0], name) == name


def test_the_edition_is_found_and_never_paired(made):
    """Both lie in one split though their authors differ, and are neither positive nor negative."""
    out, report = made
    assert report.editions == [["b_2", "e_edition"]]
    assert set(report.crossings.values()) == {0}
    rows = [row for name in SPLITS for row in pq.read_table(out / f"{name}.parquet").to_pylist()]
    assert {"b_2", "e_edition"} <= {row["book1"] for row in rows}
    assert not [row for row in rows if {row["book1"], row["book2"]} == {"b_2", "e_edition"}]


def test_the_report_adds_up(made):
    """Counts are those of the files; a book that is too short is named; names leak, made-up typography does not."""
    out, report = made
    for name in SPLITS:
        table = pq.read_table(out / f"{name}.parquet")
        figures = report.splits[name]
        assert figures.pairs == table.num_rows
        assert figures.positives == pc.sum(table["label"]).as_py()
        assert (
            sum(figures.negatives_by_kind.values())
            == figures.easy + figures.hard
            == table.num_rows - figures.positives
        )
    assert report.books_unused == {"f_short": "too_short"}
    assert report.not_had["same_period"] > 0
    assert any("the author's years are known for 0 of 14" in note for note in report.notes)
    assert report.leaks["names as written"].same_book_or_other_author > 0.9
    assert report.splits["train"].pairs_cut == 0
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))["runs"] == report.runs
    assert "names as written" in str(report)


def test_it_goes_on_and_refuses_other_settings(novels, chunks, tmp_path):
    """The same command finds all done; another seed into the same folder is refused."""
    make(novels, chunks, tmp_path)
    before = digests(tmp_path)
    _, said = make(novels, chunks, tmp_path)
    assert "Duplicates among the chunks were looked for already." in said
    assert digests(tmp_path) == before
    with pytest.raises(RefusedError, match=r"\(.*seed was 0, now 2.*\); use another --out"):
        make(novels, chunks, tmp_path, seed=2)
    assert digests(tmp_path) == before


def test_same_author_pairs_are_of_two_books(novels, chunks, tmp_path):
    """The other task has no negatives of the same author; sides of two chunks are twice as long."""
    report, _ = make(novels, chunks, tmp_path, task="same_author", chunks_per_side=2, sides="spread")
    rows = pq.read_table(tmp_path / "train.parquet").to_pylist()
    assert all(row["same_author"] == bool(row["label"]) and row["book1"] != row["book2"] for row in rows)
    assert {len(row["chunks1"]) for row in rows} == {len(row["chunks2"]) for row in rows} == {2}
    assert "same_author" not in report.not_had


def test_what_cannot_be_had_at_all_is_one_line(novels, chunks, tmp_path):
    """A gap longer than the books, kinds that no book can have, and no kind at all."""
    with pytest.raises(InputError, match=r"give no positive pair .*--min-gap-sentences 5000"):
        make(novels, chunks, tmp_path / "a", min_gap_sentences=5000)
    only = {"weight_random": 0, "weight_same_author": 0, "weight_metadata": 0}
    with pytest.raises(InputError, match=r"give no negative pair .*same_period \d+"):
        make(novels, chunks, tmp_path / "b", **only)
    with pytest.raises(UsageError, match="all weights of negatives are 0"):
        make(novels, chunks, tmp_path / "c", **only, weight_same_period=0)


def test_the_whole_way_from_a_folder_of_texts(novels, tmp_path, monkeypatch):
    """Real chunks, all of it below the one folder; asked again, every step finds what it made."""
    monkeypatch.setattr(drawing, "place_few", work_here)
    monkeypatch.setattr(verb, "place_few", work_here)
    settings = BooksSettings(
        source=str(Path(novels.books[0].path).parent),
        out=str(tmp_path / "out"),
        devices="1",
        chunk_sentences=5,
        language="en",
        language_check="off",
        min_gap_sentences=5,
    )
    assert "14 by 6 authors" in describe_books(settings)
    assert not list(tmp_path.iterdir())
    first = prepare_books(settings)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert first.editions == [["b_2", "e_edition"]]
    assert first.books_unused == {"f_short": "shorter_than_a_chunk"}
    assert min(figures.pairs for figures in first.splits.values()) > 0
    before = digests(tmp_path / "out")
    said = []
    prepare_books(settings, say=said.append)
    assert [line[:10] for line in said if "published already" in line] == ["chunks    ", "pairs     "]
    assert digests(tmp_path / "out") == before
    work = sorted((tmp_path / "out" / "work").iterdir())
    with pytest.raises(RefusedError, match=r"chunk_sentences was 5, now 6.*another --out"):
        prepare_books(replace(settings, chunk_sentences=6))
    assert sorted((tmp_path / "out" / "work").iterdir()) == work  # no book is cut for nothing
