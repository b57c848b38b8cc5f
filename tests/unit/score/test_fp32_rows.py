"""Rows that overflow in fp16, in runs: they have fp32's scores, and parts, reports and commands count them."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from support.encoders import embed_here, make_encoder_folder
from support.scoring import (
    WORDS,
    Reference,
    make_classifier,
    read_parts,
    score_here,
    stats_of_parts,
    write_parquet,
)
from support.siamese import make_siamese_folder

from assay.embed import place as placing
from assay.engine.precision import Target
from assay.score.classifier import load
from assay.score.report.report import report
from assay.score.settings import ScoreSettings
from assay.score.verb import plan_here

pytestmark = pytest.mark.usefixtures("kept_threads")

LOUD = "bridge"
TEXTS = [
    "a new film",
    "the bridge over the river",
    "results",
    "",
    "a film won",
    "no bridge",
    "the bank warned",
]
LOUD_ROWS = [1, 5]


def make_loud(folder, name="bert.embeddings.word_embeddings.weight"):
    """Make the embedding of one word larger than fp16 can hold."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    tensors = load_file(folder / "model.safetensors")
    tensors[name][vocabulary[LOUD]] *= 1e6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def loud(tmp_path_factory):
    """A classifier that overflows on texts with one word."""
    return make_loud(make_classifier(tmp_path_factory.mktemp("loud") / "model"))


def test_they_have_scores_and_are_marked(loud, tmp_path):
    """The gate passes, no row gets an error, and each part names its rows."""
    assert LOUD in WORDS
    source = write_parquet(tmp_path / "texts.parquet", TEXTS, row_group_rows=2)
    run = score_here(
        source, loud, tmp_path / "run", precision="fp16", unit_rows=4, parity_documents=7, devices="1"
    )
    table = read_parts(run)
    assert table["error"].null_count == len(TEXTS)
    first, second = stats_of_parts(run)
    assert (first["fp32_rows"], first["fp32_row_numbers"]) == (1, [1])
    assert (second["fp32_rows"], second["fp32_row_numbers"]) == (1, [1])
    expected = Reference(loud).logits(TEXTS)
    probability = 1 / (1 + np.exp(expected[:, 0] - expected[:, 1]))
    found = table["prob_positive"].to_numpy()
    np.testing.assert_allclose(found, probability, atol=0.01)
    np.testing.assert_allclose(found[LOUD_ROWS], probability[LOUD_ROWS], atol=1e-5)
    summary = report(run.url)
    assert summary.fp32_rows == 2
    page = run.store.read_bytes("report.html").decode()
    assert "not finite in half precision, run again in fp32" in page


def test_runs_without_them_say_nothing(loud, tmp_path):
    """Footers of a run that holds are as they were."""
    source = write_parquet(tmp_path / "texts.parquet", TEXTS)
    (stats,) = stats_of_parts(score_here(source, loud, tmp_path / "run"))
    assert not [key for key in stats if "fp32" in key]


def test_a_notebook_gives_the_same(loud):
    """`assay.load` has the numbers of a run, these rows included."""
    table = load(loud, precision="fp16").predict(TEXTS[:2])
    expected = load(loud).predict(TEXTS[:2])
    np.testing.assert_allclose(
        table["prob_positive"].to_numpy(), expected["prob_positive"].to_numpy(), atol=0.01
    )


def test_vectors_run_again_too(tmp_path):
    """An embed run, also where its cache has some of them."""
    folder = make_loud(make_encoder_folder(tmp_path / "encoder"), "embeddings.word_embeddings.weight")
    source = write_parquet(tmp_path / "texts.parquet", TEXTS)
    fewer = write_parquet(tmp_path / "fewer.parquet", [TEXTS[0], TEXTS[2]])
    settings = {"precision": "fp16", "cache": str(tmp_path / "cache")}
    embed_here(fewer, folder, tmp_path / "before", **settings)
    run = embed_here(source, folder, tmp_path / "run", **settings)
    (stats,) = stats_of_parts(run)
    assert stats["cached_sequences"] > 0
    assert stats["fp32_row_numbers"] == LOUD_ROWS
    vectors = [vector for vector in read_parts(run)["embedding"].to_pylist() if vector is not None]
    exact = read_parts(embed_here(source, folder, tmp_path / "exact"))["embedding"].to_pylist()
    np.testing.assert_allclose(vectors, [vector for vector in exact if vector is not None], atol=0.02)


def test_pairs_of_a_text_that_was_met_before_are_marked(tmp_path):
    """A Siamese model encodes a text once; every pair with it has a number from fp32."""
    folder = make_loud(make_siamese_folder(tmp_path / "siamese"), "embeddings.word_embeddings.weight")
    firsts = [TEXTS[0], TEXTS[1], TEXTS[2], TEXTS[4]]
    seconds = [TEXTS[2], TEXTS[0], TEXTS[4], TEXTS[1]]
    source = write_parquet(tmp_path / "pairs.parquet", firsts, second=seconds)
    run = score_here(source, folder, tmp_path / "run", precision="fp16", text_pair_column="second")
    (stats,) = stats_of_parts(run)
    assert stats["fp32_row_numbers"] == [1, 3]
    assert read_parts(run)["error"].null_count == 4


def test_a_run_of_auto_takes_bf16_and_says_why(loud, tmp_path, monkeypatch):
    """The plan for a GPU of a model that overflows: said to the user, kept in the record, taken over by who joins."""
    monkeypatch.setattr(placing, "find_gpus", lambda *_: [Target(kind="cuda")])
    source = write_parquet(tmp_path / "texts.parquet", TEXTS)
    chosen = ScoreSettings(sources=(str(source),), bundle=str(loud), run=str(tmp_path / "run"))
    manifest, _, place = plan_here(chosen)
    assert manifest.identity["precision"] == "bf16"
    assert "numbers are in bf16, not fp16: its weights reach" in place.note
    assert manifest.settings["precision_why"].startswith("auto: bf16, since its weights reach")
    holds = make_classifier(tmp_path / "holds")
    manifest, _, place = plan_here(
        ScoreSettings(sources=(str(source),), bundle=str(holds), run=str(tmp_path / "other"))
    )
    assert (manifest.identity["precision"], place.note) == ("fp16", None)
    assert manifest.settings["precision_why"] == (
        "auto: fp16, since weights and activations stay inside its range"
    )
