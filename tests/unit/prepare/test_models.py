"""Negatives that models choose: books near by their vectors, and candidates that a classifier takes for positives."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.encoders import make_encoder_folder
from support.novels import chunks_run, work_here
from support.scoring import make_classifier

import assay
from assay.errors import BundleError, UsageError
from assay.prepare import drawing, place
from assay.prepare.books import Clock, describe_books, pair_books, unwatched
from assay.prepare.mined import best_of_each
from assay.prepare.neighbours import book_neighbours
from assay.prepare.settings import BooksSettings
from assay.runs import drive
from assay.runs.run import open_run

SPLITS = ("train", "validation", "test")
TRIALS = 16
RULES = {"positives": 4, "negatives": 12, "min_gap_sentences": 5, "weight_same_period": 0}


@pytest.fixture(scope="module")
def chunks(novels, tmp_path_factory):
    """A finished chunks run over the novels."""
    return chunks_run(novels, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A classifier of pairs with random weights."""
    return str(make_classifier(tmp_path_factory.mktemp("models") / "pairs", labels=("other", "same")))


def make(novels, chunks, out, *, in_processes=False, **changes):
    """The pairs of the novels in `out`, and the report."""
    Path(out, "work").mkdir(parents=True, exist_ok=True)
    settings = BooksSettings(source="novels", out=str(out), **{"devices": "1", **RULES, **changes})
    said = []
    with pytest.MonkeyPatch.context() as patch:
        if in_processes:
            patch.setattr(place, "BOOKS_OF_A_WORKER", 0)
        else:
            patch.setattr(drawing, "place_few", work_here)
            patch.setattr(drive, "place_processes", work_here)
        report = pair_books(settings, novels, chunks, clock=Clock(), watch=unwatched, say=said.append)
    return report, said


def contents(out):
    """The files of the pairs, byte by byte."""
    return [Path(out, f"{name}.parquet").read_bytes() for name in SPLITS]


def all_rows(out):
    """The rows of all splits."""
    return [row for name in SPLITS for row in pq.read_table(out / f"{name}.parquet").to_pylist()]


@pytest.fixture(scope="module")
def mined(novels, chunks, bundle, tmp_path_factory):
    """A data set with mined negatives, and its report."""
    out = tmp_path_factory.mktemp("mined")
    return out, make(novels, chunks, out, mine_with=bundle, mine_trials=TRIALS)[0]


def test_the_likeliest_candidates_become_negatives(mined, bundle):
    """A third of the negatives, with the model's own probability, which no candidate left out exceeds."""
    out, report = mined
    [folder] = (out / "work").glob("candidates-*")
    candidates = [row for part in folder.glob("parts/*.parquet") for row in pq.read_table(part).to_pylist()]
    said = assay.load(bundle).predict(
        [row["text1"] for row in candidates], [row["text2"] for row in candidates]
    )
    expected = {}
    for row, probability in zip(candidates, said.column("prob_same").to_pylist(), strict=True):
        expected.setdefault(row["book1"], []).append((probability, row["text1"], row["text2"]))
    assert {len(each) for each in expected.values()} == {TRIALS}
    found = {}
    for row in all_rows(out):
        assert (row["neg_type"] == "model_mined") == (row["mined_probability"] is not None)
        if row["neg_type"] == "model_mined":
            assert row["difficulty"] == "hard"
            found.setdefault(row["book1"], []).append((row["mined_probability"], row["text1"], row["text2"]))
    assert found.keys() == expected.keys()
    for book, best in found.items():
        assert len(best) >= 4
        wanted = sorted(expected[book], reverse=True)
        likeliest = [probability for probability, *_ in wanted]
        assert np.std(likeliest) > 0.01
        # a candidate that another kind drew before is passed over
        assert likeliest[0] - likeliest[-1] > 5 * (likeliest[0] - best[0][0])
        np.testing.assert_allclose(
            [each[0] for each in best],
            [probability for probability, *texts in wanted if tuple(texts) in {each[1:] for each in best}],
            atol=1e-5,
        )
        taken = min(each[0] for each in best)
        skipped = [tuple(texts) for probability, *texts in wanted if probability > taken + 1e-4]
        drawn = {(row["text1"], row["text2"]) for row in all_rows(out) if row["book1"] == book}
        assert set(skipped) <= drawn
    assert "model_mined" not in report.not_had
    assert f"{sum(map(len, expected.values())):,} candidates scored by 'same'" in str(report)


def test_no_candidate_crosses_a_split(mined):
    """Both books of every candidate lie in the split of the first, and are not one work."""
    out, report = mined
    split_of = {
        row["book1"]: name for name in SPLITS for row in pq.read_table(out / f"{name}.parquet").to_pylist()
    }
    assert {"candidates", "scores"} <= report.runs.keys()
    [folder] = (out / "work").glob("candidates-*")
    for part in folder.glob("parts/*.parquet"):
        for row in pq.read_table(part).to_pylist():
            assert split_of[row["book2"]] == row["split"] == split_of[row["book1"]]
            assert {row["book1"], row["book2"]} != {"b_2", "e_edition"}
            assert row["book1"] != row["book2"]


def test_a_stopped_scoring_goes_on_and_units_change_nothing(novels, chunks, bundle, mined, tmp_path):
    """Of a data set that lost parts of its scores and all that follows, the rest is what it was; and a book a unit."""
    out = tmp_path / "again"
    shutil.copytree(mined[0], out)
    [scores] = (out / "work").glob("scores-*")
    parts = sorted(scores.glob("parts/*.parquet"))
    kept = {part: part.stat().st_mtime_ns for part in parts[2:]}
    for part in parts[:2]:
        part.unlink()
    for name in SPLITS:
        (out / f"{name}.parquet").unlink()
    # a run knows its source by its place: the copy's candidates are drawn and scored as another run
    make(novels, chunks, out, mine_with=bundle, mine_trials=TRIALS)
    assert contents(out) == contents(mined[0])
    assert all(part.stat().st_mtime_ns == time for part, time in kept.items())
    other = tmp_path / "units"
    make(novels, chunks, other, mine_with=bundle, mine_trials=TRIALS, unit_rows=3)
    assert contents(other) == contents(mined[0])


@pytest.mark.slow
def test_two_workers_choose_the_same(novels, chunks, bundle, mined, tmp_path):
    """In processes of their own."""
    make(novels, chunks, tmp_path, mine_with=bundle, mine_trials=TRIALS, devices="2", in_processes=True)
    assert contents(tmp_path) == contents(mined[0])


def test_another_model_is_another_data_set(novels, chunks, mined, tmp_path):
    """The model's fingerprint is part of what the pairs are."""
    other = str(make_classifier(tmp_path / "other", labels=("other", "same"), seed=1))
    report, _ = make(novels, chunks, tmp_path / "out", mine_with=other, mine_trials=TRIALS)
    assert report.runs["pairs"] != mined[1].runs["pairs"]
    assert contents(tmp_path / "out") != contents(mined[0])


def test_what_cannot_be_mined_is_counted(novels, chunks, bundle, tmp_path):
    """A split of one author has no negative of another author: their number is said, by kind."""
    report, _ = make(
        novels,
        chunks,
        tmp_path,
        mine_with=bundle,
        mine_trials=TRIALS,
        task="same_author",
        weight_same_author=0,
    )
    alone = [name for name in SPLITS if report.splits[name].authors == 1]
    assert alone
    num_books = sum(report.splits[name].books for name in alone)
    assert report.not_had["model_mined"] == num_books * 6
    assert all(report.splits[name].negatives_by_kind == {} for name in alone)


def test_near_books_come_from_an_encoder(novels, chunks, tmp_path):
    """One command embeds a sample of the chunks, and partners are the nearest books by others; it is not done twice."""
    encoder = str(make_encoder_folder(tmp_path / "encoder"))
    settings = {"embed_with": encoder, "weight_random": 0, "weight_same_author": 0, "weight_metadata": 0}
    report, _ = make(novels, chunks, tmp_path / "out", **settings)
    ids = [book.book_id for book in novels.books]
    [folder] = (tmp_path / "out" / "work").glob("vectors-*")
    near = book_neighbours(open_run(str(folder)), ids)
    negatives = [row for row in all_rows(tmp_path / "out") if not row["label"]]
    assert {row["neg_type"] for row in negatives} == {"embedding"}
    for row in negatives:
        assert not row["same_author"]
        assert ids.index(row["book2"]) in near[ids.index(row["book1"])]
    assert report.runs["vectors"] == open_run(str(folder)).manifest.run_id
    assert any(note.startswith("books are near by") for note in report.notes)
    before = contents(tmp_path / "out")
    _, said = make(novels, chunks, tmp_path / "out", **settings)
    assert sum("published already" in line for line in said) == 2
    assert contents(tmp_path / "out") == before


def test_models_that_cannot_do_it_are_refused_at_once(novels, bundle, tmp_path):
    """Before any other work, also of a dry run: one line with the way out."""
    source = str(Path(novels.books[0].path).parent)

    def described(**changes):
        return describe_books(BooksSettings(source=source, out=str(tmp_path / "out"), **changes))

    assert "16 candidates a book, up to 224, scored by" in described(mine_with=bundle, mine_trials=TRIALS)
    with pytest.raises(
        BundleError, match=r"mine_label 'equal'; .* has the labels other, same; give one of these"
    ):
        described(mine_with=bundle, mine_label="equal")
    three = str(make_classifier(tmp_path / "three", labels=("a", "b", "c")))
    with pytest.raises(BundleError, match=r"has 3 labels; say with --mine-label"):
        described(mine_with=three)
    with pytest.raises(BundleError):
        described(embed_with=str(tmp_path))
    with pytest.raises(UsageError, match=r"weight_model_mined is 0.5 and mine_with None; give the model and"):
        described(weight_model_mined=0.5)
    with pytest.raises(UsageError, match=r"weight_embedding is 0.0 and embed_with model; give the model and"):
        described(embed_with="model", weight_embedding=0.0)
    with pytest.raises(UsageError, match=r"mine_label is 'same' and there is no mine_with; add --mine-with"):
        described(mine_label="same")
    assert not (tmp_path / "out").exists()


def test_the_best_of_each_book():
    """The likeliest first, ties by number, and never one without a probability."""
    books = np.array([2, 2, 2, 5, 7, 7, 7])
    probabilities = np.array([0.5, np.nan, 0.5, np.nan, 0.1, 0.9, 0.3], dtype=np.float32)
    found, numbers, kept = best_of_each(books, probabilities, 2)
    assert found.tolist() == [2, 2, 7, 7]
    assert numbers.tolist() == [0, 2, 1, 2]
    assert kept.tolist() == pytest.approx([0.5, 0.5, 0.9, 0.3])
