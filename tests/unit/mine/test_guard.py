"""A scoring model that drops candidates, and a run that is taken up again."""

import numpy as np
import pytest
from support.embedded import write_embed_run, write_pairs
from support.mining import mine_here, plan_here
from support.models import write_model
from support.siamese import make_siamese_folder, write_cascade_of

import assay
from assay.errors import BundleError, RefusedError
from assay.mine.guard import Guard, open_guard_bundle
from assay.mine.plan import plan_mine
from assay.mine.settings import MineSettings
from assay.mine.worker import open_mine_work
from assay.runs.pipeline import run_unit
from assay.runs.run import create_or_join, open_run

TEXTS = [f"document {number} of {number * 7 % 50}" for number in range(30)]


@pytest.fixture(scope="module")
def vectors():
    """Thirty directions."""
    return np.random.default_rng(4).standard_normal((30, 6)).astype(np.float32)


def test_a_guard_drops_what_it_takes_for_positive(tmp_path, vectors):
    """What stays is below the limit, has the model's own probability, and is the nearest of such candidates."""
    bundle = str(write_model(tmp_path / "guard"))
    corpus = write_embed_run(tmp_path / "corpus", TEXTS, vectors)
    sources = write_pairs(tmp_path / "pairs.parquet", list(zip(TEXTS[:6], TEXTS[6:12], strict=True)))
    rules = {"num_negatives": 3, "range_max": 12}
    every = mine_here(
        tmp_path, sources, (corpus.url,), name="all", **rules | {"num_negatives": 12}
    ).to_pylist()
    said = assay.load(bundle).predict([row["anchor"] for row in every], [row["negative"] for row in every])
    probabilities = said.column("prob_spam").to_numpy()
    limit = float(np.median(probabilities))
    expected = {}
    for row, probability in zip(every, probabilities, strict=True):
        kept = expected.setdefault(row["source_row"], [])
        if probability <= np.float32(limit) and len(kept) < 3:
            kept.append((row["negative"], pytest.approx(float(probability), abs=1e-5)))
    guard = {"guard_bundle": bundle, "guard_max": limit}
    rows = mine_here(
        tmp_path, sources, (corpus.url,), name="guarded", unit_rows=2, **rules, **guard
    ).to_pylist()
    found = {row: [] for row in expected}
    for row in rows:
        if row["negative"] is not None:
            found[row["source_row"]].append((row["negative"], row["guard_probability"]))
    assert found == expected
    unguarded = {
        number: [row["negative"] for row in every if row["source_row"] == number][:3] for number in expected
    }
    assert unguarded != {number: [negative for negative, _ in kept] for number, kept in expected.items()}


def test_a_siamese_model_and_a_cascade_guard_too(tmp_path):
    """What they say is what `assay.load` says; the label may be either."""
    siamese = make_siamese_folder(tmp_path / "siamese")
    cross = write_model(tmp_path / "cross", labels=("0", "1"))
    cascade = write_cascade_of(tmp_path / "cascade", siamese, cross, low=0.3)
    for path, label in ((siamese, "1"), (cascade, "0")):
        bundle, chosen = open_guard_bundle(str(path), label)
        found = Guard(bundle, chosen, device="cpu", num_threads=1).probabilities(TEXTS[:8], TEXTS[8:16])
        expected = assay.load(path).predict(TEXTS[:8], TEXTS[8:16])[f"prob_{label}"].to_numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_model_that_cannot_guard_is_refused(tmp_path, vectors):
    """A number is not a probability, a label must be one of the model's, and of three labels one must be named."""
    corpus = write_embed_run(tmp_path / "corpus", TEXTS, vectors)
    sources = write_pairs(tmp_path / "pairs.parquet", [(TEXTS[0], TEXTS[1])])
    number = str(write_model(tmp_path / "number", labels=("score",), task="regression"))
    with pytest.raises(
        BundleError, match=r"is a regression model; guard_bundle needs the probability of one label"
    ):
        plan_here(tmp_path, sources, (corpus.url,), guard_bundle=number)
    three = str(write_model(tmp_path / "three", labels=("a", "b", "c")))
    with pytest.raises(BundleError, match=r"has 3 labels; say with --guard-label"):
        plan_here(tmp_path, sources, (corpus.url,), guard_bundle=three)
    with pytest.raises(BundleError, match=r"guard_label 'd'; .* has the labels a, b, c; give one of these"):
        plan_here(tmp_path, sources, (corpus.url,), guard_bundle=three, guard_label="d")


def test_a_run_that_was_stopped_goes_on(tmp_path, vectors):
    """What is published stands; the rest is what a run without a stop makes."""
    corpus = write_embed_run(tmp_path / "corpus", TEXTS, vectors)
    sources = write_pairs(tmp_path / "pairs.parquet", list(zip(TEXTS[:12], TEXTS[12:24], strict=True)))
    asked = MineSettings(sources=(sources,), corpus=(corpus.url,), run=str(tmp_path / "mined"), unit_rows=3)
    run, _ = create_or_join(asked.run, plan_mine(asked))
    work = open_mine_work(run, device="cpu", num_threads=1)
    work.load()
    for unit in run.manifest.units()[1:3]:
        run_unit(run, work, unit)
    before = {name: info.modified for name, info in run.part_files().items()}
    again, is_new = create_or_join(asked.run, plan_mine(asked))
    assert not is_new
    assert len(before) == 2
    whole = mine_here(tmp_path, sources, (corpus.url,), name="whole", unit_rows=3)
    resumed = mine_here(tmp_path, sources, (corpus.url,), name="mined", unit_rows=3)
    assert resumed.equals(whole)
    after = open_run(again.url).part_files()
    assert {name: after[name].modified for name in before} == before


def test_an_embed_run_that_was_made_again_is_refused(tmp_path, vectors):
    """A worker that finds another embed run than the plan had stops with one line."""
    corpus = write_embed_run(tmp_path / "corpus", TEXTS, vectors)
    sources = write_pairs(tmp_path / "pairs.parquet", [(TEXTS[0], TEXTS[1])])
    asked = MineSettings(sources=(sources,), corpus=(corpus.url,), run=str(tmp_path / "mined"))
    run, _ = create_or_join(asked.run, plan_mine(asked))
    (tmp_path / "corpus" / "run" / "run.json").unlink()
    for part in (tmp_path / "corpus" / "run" / "parts").iterdir():
        part.unlink()
    write_embed_run(tmp_path / "corpus", TEXTS, vectors, pooling="first_token")
    with pytest.raises(RefusedError, match=r"holds another embed run than when this run was planned"):
        open_mine_work(run, device="cpu", num_threads=1)
