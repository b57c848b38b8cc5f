"""From a folder of books to a tuned cascade: stopped after each step and gone on with, nothing is done twice."""

import json
import random
import re
import shutil
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.novels import work_here
from support.training import SPECIALS, TINY_BERT, write_base
from transformers import BertConfig

from assay.cli.main import main
from assay.errors import InputError, RefusedError, UsageError
from assay.pipeline import books
from assay.pipeline.books import pipeline_books
from assay.pipeline.settings import PipelineSettings
from assay.prepare import drawing
from assay.prepare.chunks import verb
from assay.runs import drive
from assay.score.classifier import load

pytestmark = pytest.mark.usefixtures("one_thread", "kept_sigterm")

WORDS = [f"{first}{second}" for first in "bdfgklmnprst" for second in ("a", "en", "is", "or", "um")]
VERBS = (
    "prepare_books",
    "train",
    "calibrate",
    "style_calibrate",
    "cascade_tune",
    "evaluate",
    "write_answers",
)
PREPARE = """
positives = 10
negatives = 10
language_check = "off"
language = "en"
min_gap_sentences = 4
min_chars = 40
mine_trials = 12
devices = "1"
weight_same_period = 0
"""
TRAINING = "epochs = 1\nlearning_rate = 5e-3\nbatch_size = 24\n"


class Killed(BaseException):
    """Stands for a kill: nobody catches it."""


def write_book(path, seed):
    """A book that has words of its own more often than others."""
    rng = random.Random(seed)
    weights = [12 if rng.random() < 0.15 else 1 for _ in WORDS]
    lines = [
        f"The {' '.join(rng.choices(WORDS, weights, k=9))} and {' '.join(rng.choices(WORDS, weights, k=4))}."
        for _ in range(70)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Twenty-four books by twelve authors, a tiny encoder of their words, and files of settings."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "novels").mkdir()
    for number in range(24):
        write_book(folder / "novels" / f"Author{'abcdefghijkl'[number // 2]}_Book{number}.txt", number)
    words = ("the", "and", ".", *WORDS)
    config = BertConfig(**{**TINY_BERT.to_dict(), "vocab_size": len(SPECIALS) + len(words)})
    write_base(folder / "encoder", config, words)
    (folder / "prepare.toml").write_text(PREPARE)
    for name in ("cross", "siamese"):
        (folder / f"{name}.toml").write_text(TRAINING)
    return folder


def put_work_here(patch):
    """Let runs of chunks, pairs and scores work in this process."""
    for module in (verb, drawing):
        patch.setattr(module, "place_few", work_here)
    patch.setattr(drive, "place_processes", work_here)


@pytest.fixture(autouse=True)
def runs_work_here(monkeypatch):
    """Runs of chunks, pairs and scores work in this process."""
    put_work_here(monkeypatch)


def asked(place, out, **changes):
    """The settings of a small pipeline."""
    values = {
        "source": str(place / "novels"),
        "out": str(out),
        "base": str(place / "encoder"),
        **{name: str(place / f"{name}.toml") for name in ("prepare", "cross", "siamese")},
        "recall": 0.5,
        "chunks_per_document": 2,
        "device": "cpu",
        "num_threads": 1,
    }
    return PipelineSettings(**{**values, **changes})


@pytest.fixture(scope="module")
def made(place, tmp_path_factory):
    """A pipeline of one round, and its report."""
    settings = asked(place, tmp_path_factory.mktemp("made") / "out")
    with pytest.MonkeyPatch.context() as patch:
        put_work_here(patch)
        return settings, pipeline_books(settings)


@pytest.fixture(scope="module")
def killed_often(place, tmp_path_factory):
    """A pipeline of two rounds that was killed at the end of each piece of work, before it was written down."""
    out = tmp_path_factory.mktemp("killed") / "out"
    settings, calls, killed = asked(place, out, rounds=2), Counter(), set()
    with pytest.MonkeyPatch.context() as patch:
        put_work_here(patch)

        def deadly(name, real):
            def call(asked_for, **others):
                where = (name, getattr(asked_for, "bundle", None), getattr(asked_for, "out", None))
                calls[where] += 1
                made = real(asked_for, **others)
                if where not in killed:
                    killed.add(where)
                    raise Killed
                return made

            return call

        for name in VERBS:
            patch.setattr(books, name, deadly(name, getattr(books, name)))
        for _ in range(30):
            said = []
            try:
                report = pipeline_books(settings, on_message=said.append)
                break
            except Killed:
                continue
    return settings, report, calls, said


@pytest.mark.slow
def test_killed_at_each_step_it_goes_on(killed_often):
    """Each piece of work is done once more at most; what trains for hours is never trained again."""
    _, report, calls, said = killed_often
    assert Counter(name for name, *_ in calls) == {
        "prepare_books": 3,
        "train": 3,
        "calibrate": 2,
        "style_calibrate": 1,
        "cascade_tune": 1,
        "evaluate": 1,
        "write_answers": 1,
    }
    assert all(number == 1 for (name, *_), number in calls.items() if name == "train")
    assert all(number <= 3 for number in calls.values())
    assert said[0].startswith(
        "done before: pairs, documents, cross, pairs-2, cross-2, siamese, calibrate cross-2"
    )
    assert report.looks_at_test == 1
    assert set(report.test) == {"cross-2", "siamese", "cascade"}


@pytest.mark.slow
def test_an_undisturbed_run_comes_to_the_same(killed_often, place, tmp_path):
    """The same pairs, models and thresholds as of one that was killed a dozen times."""
    settings, report, _, _ = killed_often
    whole = pipeline_books(asked(place, tmp_path / "out", rounds=2))
    for step in ("pairs", "documents", "pairs-2"):
        assert whole.made[step]["files"] == report.made[step]["files"]
    for name, figures in whole.test.items():
        assert figures["auc"]["value"] == pytest.approx(report.test[name]["auc"]["value"], abs=1e-6)
    first, second = (
        json.loads(Path(each, "cascade.json").read_text()) for each in (settings.out, tmp_path / "out")
    )
    assert first["thresholds"] == pytest.approx(second["thresholds"])


def test_another_start_does_nothing(made, monkeypatch):
    """Every step was done before, which is said; the figures are the same."""
    settings, report = made
    for name in VERBS:
        monkeypatch.setattr(books, name, lambda *_, **__: pytest.fail("done twice"))
    said = []
    again = pipeline_books(settings, on_message=said.append)
    assert again.test == report.test
    assert sum(line.startswith("done before: ") for line in said) == 1 + 9


@pytest.mark.slow
def test_mined_negatives_come_from_the_model_before(killed_often):
    """The second round's pairs have negatives that the first cross-encoder chose; tests are of the first round."""
    settings, _, _, _ = killed_often
    rows = pq.read_table(Path(settings.out, "pairs-2", "train.parquet")).to_pylist()
    mined = [row for row in rows if row["neg_type"] == "model_mined"]
    assert len(mined) >= len(rows) / 8
    assert all(row["mined_probability"] is not None for row in mined)
    assert (
        "model_mined"
        not in pq.read_table(Path(settings.out, "pairs", "test.parquet"))["neg_type"].to_pylist()
    )


def test_the_page_leads_to_what_there_is(made):
    """Each link is a file beside the page; splits, models and figures are on it."""
    settings, report = made
    page = Path(settings.out, "report.html").read_text(encoding="utf-8")
    links = re.findall(r'<a href="([^"]+)"', page)
    assert {"cross/train_report.html", "siamese/train_report.html"} <= set(links)
    assert all(Path(settings.out, link).is_file() for link in links)
    assert "no author and no book is in two splits, of 2 data sets" in page
    assert "The test rows were scored once" in page
    assert f"{report.test['cascade']['auc']['value']:.4f}" in page


def test_the_cascade_answers(made):
    """What was tuned is loaded with both models from the folder."""
    settings, _ = made
    cascade = load(Path(settings.out, "cascade.json"))
    table = pq.read_table(Path(settings.out, "pairs", "test.parquet")).slice(0, 4)
    pairs = list(zip(table["text1"].to_pylist(), table["text2"].to_pylist(), strict=True))
    assert cascade.predict(pairs)["error"].null_count == 4


def test_changed_settings_and_books_are_refused(made, place, tmp_path, capsys):
    """The step and what changed are named, with the ways out; a changed file of settings too, and status 3."""
    settings, _ = made
    with pytest.raises(RefusedError, match=r"cascade: recall is 0.6, and was 0.5; .*--overwrite"):
        pipeline_books(asked(place, settings.out, recall=0.6))
    with pytest.raises(RefusedError, match=r"siamese: teacher"):
        pipeline_books(asked(place, settings.out, distil=False))
    shutil.copytree(place / "novels", tmp_path / "novels")
    write_book(tmp_path / "novels" / "Authora_Book99.txt", 99)
    with pytest.raises(RefusedError, match=r"pairs: books: another than before"):
        pipeline_books(asked(place, settings.out, source=str(tmp_path / "novels")))
    (tmp_path / "siamese.toml").write_text(TRAINING.replace("epochs = 1", "epochs = 2"))
    words = ["--base", str(place / "encoder"), "--out", settings.out, "--recall", "0.5"]
    words += ["--prepare", str(place / "prepare.toml"), "--cross", str(place / "cross.toml")]
    words += ["--siamese", str(tmp_path / "siamese.toml"), "--num-threads", "1", "--chunks-per-document", "2"]
    assert main(["pipeline", "books", str(place / "novels"), *words]) == 3
    assert "siamese: epochs is 2, and was 1" in capsys.readouterr().err


def test_other_thresholds_overwrite_the_cascade_alone(made, place, tmp_path, monkeypatch):
    """Models stay; the test rows are scored for a second cascade, and the page says so."""
    settings, report = made
    shutil.copytree(settings.out, tmp_path / "out")
    monkeypatch.setattr(books, "train", lambda *_, **__: pytest.fail("trained again"))
    again = pipeline_books(asked(place, tmp_path / "out", recall=0.6, overwrite=True))
    assert again.made["siamese"]["id"] == report.made["siamese"]["id"]
    assert again.looks_at_test == 2
    assert "for 2 different cascades" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_device_that_is_not_there_is_said_first(place, tmp_path):
    """Not after the hours that training takes."""
    with pytest.raises(UsageError, match="device 'cuda:77' is not there"):
        pipeline_books(asked(place, tmp_path / "out", device="cuda:77"))
    assert not (tmp_path / "out").exists()


def test_too_few_authors_are_one_line(place, tmp_path):
    """Five splits take ten authors; nothing is cut into chunks before that is said."""
    (tmp_path / "novels").mkdir()
    for number in range(18):
        write_book(tmp_path / "novels" / f"Author{'abcdefghi'[number // 2]}_Book{number}.txt", number)
    with pytest.raises(
        InputError, match=r"books of 9 authors; train, validation, .* so 10; add books by others"
    ):
        pipeline_books(asked(place, tmp_path / "out", source=str(tmp_path / "novels")))
    assert not (tmp_path / "out").exists()


def test_a_dry_run_lists_the_steps(place, tmp_path, made, capsys):
    """What is done and what is to do; nothing is written."""
    settings, _ = made
    for out, expected in ((settings.out, "done before"), (str(tmp_path / "new"), "to do      ")):
        words = ["--base", str(place / "encoder"), "--out", out, "--dry-run"]
        assert main(["pipeline", "books", str(place / "novels"), *words]) == 0
        shown = capsys.readouterr().out
        assert "24 by 12 authors" in shown
        assert f"{expected} siamese\n" in shown
    assert not (tmp_path / "new").exists()
