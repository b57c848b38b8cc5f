"""The recipes of novels: jobs within a time limit, and claims from the lines that they left."""

import importlib
import os
import time
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "recipes" / "novels"


@pytest.fixture
def module(monkeypatch):
    """A module of the folder by its name, as its scripts import it."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    return importlib.import_module


def cascade_line(row, auc, *, split=0, share=0.0):
    """What a job says of a row of its cascade."""
    return {
        "kind": "cascade",
        "question": "same book, mixed",
        "row": row,
        "auc": auc,
        "share_to_second": share,
        "split": split,
        "seed": 0,
    }


def cascade_lines(*, cross, both, cascade):
    """Those of two splits."""
    rows = {
        "first stage: network, words and style": 0.8,
        "cross-encoder": cross,
        "both on every pair": both,
        "cascade, cheapest that keeps .99": cascade,
    }
    return [cascade_line(row, auc, split=split) for row, auc in rows.items() for split in (0, 1)]


def cost_line(seconds, *, is_large):
    """What the timing of a cascade says."""
    rows = ("cross-encoder", "first stage: network, words and style", "cascade, cheapest that keeps .99")
    line = {
        "kind": "cost",
        "task": "same_book",
        "is_large": is_large,
        "pairs": 1_000 if is_large else 20,
        "texts": 40,
        "seconds": dict(zip(rows, seconds, strict=True)),
        "over_cross_encoder": {row: each / seconds[0] for row, each in zip(rows, seconds, strict=True)},
    }
    return line | ({"auc": 0.81, "share_to_second": 0.1} if is_large else {})


def test_at_the_time_limit_the_jobs_at_work_are_stopped(module, capsys):
    """A run that is out of time neither waits for its jobs nor yields lines of theirs."""
    began = time.monotonic()
    done = list(
        module("timed_jobs").run_jobs(
            [600, 600], time.sleep, num_processes=2, initializer=int, initargs=(), until=0.0
        )
    )
    assert done == []
    assert time.monotonic() - began < 300
    assert "the time is up: 2 of 2 jobs are left" in capsys.readouterr().out


def test_a_job_that_fails_says_why_and_the_others_go_on(module, tmp_path, capsys):
    """One split that cannot be measured does not cost the others."""
    (tmp_path / "there").mkdir()
    done = list(
        module("timed_jobs").run_jobs(
            [str(tmp_path / "missing"), str(tmp_path)],
            os.listdir,
            num_processes=1,
            initializer=int,
            initargs=(),
            until=time.monotonic() + 600,
        )
    )
    assert done == [["there"]]
    assert "a job failed: FileNotFoundError" in capsys.readouterr().out


def test_a_cascade_is_not_compared_with_a_stage_at_chance(module):
    """Where the cross-encoder knows nothing, both stages on every pair are what the cascade has to keep."""
    tables = module("cascade_tables")
    (claim,) = tables.claims_of(cascade_lines(cross=0.5, both=0.8, cascade=0.76))
    assert claim.value == pytest.approx(0.95)
    assert "alone (0.500) and both stages on every pair (0.800)" in claim.baseline
    assert claim.details["cascades_that_ask_no_second_stage"] == 2


def test_a_cascade_is_compared_with_the_cross_encoder_where_that_is_better(module):
    """A combination that harms the second stage makes no easier baseline."""
    (claim,) = module("cascade_tables").claims_of(cascade_lines(cross=0.9, both=0.8, cascade=0.81))
    assert claim.value == pytest.approx(0.9)


def test_the_cost_names_the_case_where_the_cascade_is_slower(module):
    """A ratio on pairs that share texts stands beside that on pairs that do not."""
    lines = [
        *cascade_lines(cross=0.5, both=0.8, cascade=0.8),
        cost_line((10.0, 1.0, 2.0), is_large=True),
        cost_line((0.2, 0.5, 0.6), is_large=False),
    ]
    claim = module("cascade_tables").claims_of(lines)[1]
    assert claim.value == pytest.approx(0.2)
    assert "first stage alone 0.100; the cascade on 20 pairs of 40 chunks 3.00" in claim.baseline


def test_no_claim_without_lines(module):
    """A run of which no job has ended claims nothing, one without timing no cost."""
    tables = module("cascade_tables")
    assert tables.claims_of([]) == []
    assert len(tables.claims_of(cascade_lines(cross=0.5, both=0.8, cascade=0.8))) == 1


def test_what_is_steady_in_a_book_and_differs_between_books_counts_most(module):
    """A word that varies as much within a book as between books says nothing of its author."""
    habits, chunk_pairs = module("habits"), module("chunk_pairs")
    draw = np.random.default_rng(0)
    books = [f"A{book}_x" for book in range(20) for _ in range(10)]
    chunks = chunk_pairs.Chunks(texts=[""] * 200, books=books, authors=books, places=[0] * 200)
    steady_C = np.repeat(draw.normal(size=20), 10) + draw.normal(scale=0.1, size=200)
    scales = habits.BookShares.of(np.column_stack([steady_C, draw.normal(size=200)]), chunks).scales(books)
    high, low = np.array([[2.0, 2.0]]), np.array([[-2.0, -2.0]])
    steady, loose = np.array([True, False]), np.array([False, True])
    alike, apart = scales.ratio(high, high, 1), scales.ratio(high, low, 1)
    assert alike > 0 > apart
    of_loose = scales.ratio(np.where(loose, high, 0), np.where(loose, low, 0), 1)
    of_steady = scales.ratio(np.where(steady, high, 0), np.where(steady, low, 0), 1)
    assert of_steady < 3 * of_loose


def test_scales_are_of_other_authors_than_a_pair_has(module):
    """What a pair's own books look like has no part in how it is judged: the regression sees what it will see later."""
    habits, chunk_pairs = module("habits"), module("chunk_pairs")
    draw = np.random.default_rng(1)
    authors = [f"A{author}" for author in range(5) for _ in range(8)]
    books = [f"{author}_{number % 2}" for number, author in enumerate(authors)]
    chunks = chunk_pairs.Chunks(texts=[""] * 40, books=books, authors=authors, places=[0] * 40)
    sides = chunk_pairs.Sides.of([((0,), (1,))], [((0,), (8,))])

    def numbers(shares_CK):
        books_of = {"words": habits.BookShares.of(shares_CK, chunks)}
        counted = habits.Habits(words_CK=None, shares={"words": shares_CK}, books=books_of)
        return habits.ratios(counted, chunks, sorted(set(authors)), sides)["words"]

    shares_CK = draw.normal(size=(40, 3))
    moved_CK = shares_CK.copy()
    moved_CK[2:8] += 50  # other chunks of the first author
    assert numbers(shares_CK) == pytest.approx(numbers(moved_CK))
    moved_CK[16:24] += 50
    assert numbers(shares_CK) != pytest.approx(numbers(moved_CK))


def test_windows_may_overlap_where_a_protocol_has_them(module, tmp_path):
    """A step below the length of a chunk gives chunks that share sentences, and no more than asked for."""
    sentences = [f"This is sentence number {number} of a long and quiet novel." for number in range(120)]
    (tmp_path / "Someone_Book.txt").write_text(" ".join(sentences), encoding="utf-8")
    chunk_pairs = module("chunk_pairs")
    apart, overlapping, few = (
        chunk_pairs.read_chunks(tmp_path, "en", mask=False, **options).places
        for options in ({}, {"step": 10}, {"step": 10, "most": 3})
    )
    assert np.diff(apart).min() == 14
    assert np.diff(overlapping).min() == 10
    assert len(few) == 3
