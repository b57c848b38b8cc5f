"""Rows that overflow in fp16, in runs: they have fp32's scores, and parts, reports and commands count them."""

import json
import re

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from support.encoders import embed_here, make_encoder_folder
from support.scoring import (
    WORDS,
    Reference,
    make_classifier,
    open_work,
    read_parts,
    score_here,
    stats_of_parts,
    write_parquet,
)
from support.siamese import make_siamese_folder

from assay.embed import drive as driving
from assay.embed import place as placing
from assay.engine.precision import Target
from assay.errors import RangeError
from assay.runs.driver import Outcome
from assay.runs.pipeline import run_unit
from assay.runs.run import create_or_join, open_run
from assay.runs.verify import require, verify
from assay.score.classifier import load
from assay.score.report.report import report
from assay.score.settings import ScoreSettings
from assay.score.verb import plan_here, score

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


def test_a_unit_of_errors_alone_has_none(loud, tmp_path):
    """Nothing ran, so nothing runs again."""
    source = write_parquet(tmp_path / "nulls.parquet", [None] * 3)
    run = score_here(source, loud, tmp_path / "run", precision="fp16")
    assert read_parts(run)["error"].to_pylist() == ["null"] * 3
    assert "fp32_rows" not in stats_of_parts(run)[0]


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


# ---------------------------------------------------------------- a corpus that is larger than the model's own numbers


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """A classifier that holds on made-up documents, and leaves the margin on texts with one word."""
    folder = make_classifier(tmp_path_factory.mktemp("crowded") / "model")
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    tensors = load_file(folder / "model.safetensors")
    tensors["bert.embeddings.word_embeddings.weight"][vocabulary[LOUD], 0] = 12_000.0
    tensors["bert.embeddings.position_embeddings.weight"][:, 0] = 12_000.0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def driven_here(monkeypatch):
    """Runs whose workers are of this process; the list gets the precision of each try."""
    tried = []

    def drive(settings, manifest, module, placement, **heard):
        run, _ = create_or_join(settings.run, manifest)
        tried.append(run.manifest.identity["precision"])
        work, description = open_work(run)
        for unit in run.manifest.units():
            run_unit(run, work, unit)
        return run, Outcome(
            units_total=1,
            units_found=0,
            units_published=1,
            counters=work.counters,
            seconds=1.0,
            ready_seconds=1.0,
            descriptions=(description,),
        )

    monkeypatch.setattr(driving, "drive_workers", drive)
    return tried


def settings_of(tmp_path, bundle, **changed):
    """A run that is planned for GPUs."""
    source = write_parquet(tmp_path / "texts.parquet", TEXTS)
    run = str(tmp_path / "run")
    settings = {"run": run, "plan_for": "cuda", "parity_documents": 7, "devices": "1", **changed}
    return ScoreSettings(sources=(str(source),), bundle=str(bundle), **settings)


def test_a_run_of_auto_is_planned_again_for_its_corpus(crowded, tmp_path, driven_here):
    """The gate looks at the sample's activations; nothing is published in fp16, and the record says why."""
    said = []
    result = score(settings_of(tmp_path, crowded), on_message=said.append)
    assert driven_here == ["fp16", "bf16"]
    assert result.precision == result.manifest.identity["precision"] == "bf16"
    why = result.manifest.settings["precision_why"]
    assert re.fullmatch(
        r"auto: bf16, since on 7 documents of the corpus its activations reach 2\d,\d\d\d, .*", why
    )
    assert [
        line for line in said if line.startswith("the run is planned again in bf16, not fp16: on 7 documents")
    ]
    require(verify(result.run_url))
    assert result.parity["passed"]
    summary = report(result.run_url)
    assert summary.parity_passed
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "another kind of worker" not in page
    assert "since on 7 documents of the corpus its activations reach" in page
    assert score(settings_of(tmp_path, crowded), on_message=said.append).precision == "bf16"
    assert driven_here == ["fp16", "bf16", "bf16"]


def test_a_model_that_was_never_looked_at_is_looked_at_by_the_worker(tmp_path, driven_here):
    """So that the first start is as quick as others; the next command on the machine knows before it plans."""
    model = make_loud(make_classifier(tmp_path / "model"))
    said = []
    result = score(settings_of(tmp_path, model, parity_documents=0), on_message=said.append)
    assert driven_here == ["fp16", "bf16"]
    assert [
        line for line in said if line.startswith("the run is planned again in bf16, not fp16: its weights")
    ]
    assert result.manifest.settings["precision_why"].startswith("auto: bf16, since its weights reach")
    require(verify(result.run_url))
    other = settings_of(tmp_path, model, parity_documents=0, run=str(tmp_path / "other"))
    score(other, on_message=said.append)
    assert driven_here == ["fp16", "bf16", "bf16"]
    assert said[-1].startswith("numbers are in bf16, not fp16: its weights reach")


def test_fp16_that_was_asked_for_stays(crowded, tmp_path, driven_here):
    """Nobody who names it is overruled: rows that overflow run again in fp32."""
    assert score(settings_of(tmp_path, crowded, precision="fp16")).precision == "fp16"
    assert driven_here == ["fp16"]


def test_a_run_with_parts_is_not_planned_again(crowded, tmp_path, driven_here):
    """Parts in fp16, which nobody should have published, are not mixed with others."""
    settings = settings_of(tmp_path, crowded)
    run, _ = create_or_join(settings.run, plan_here(settings)[0])
    run.store.create("parts/foreign.parquet", b"a part")
    with pytest.raises(
        RangeError, match=r"run is in fp16, and on 7 documents .*; with a new --run use --precision"
    ):
        score(settings)
    assert open_run(settings.run).manifest.identity["precision"] == "fp16"
