"""A bundle that says what it takes, single texts or pairs, is given the other by no command without a word."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.models import write_model
from support.scoring import tokenize_here

from assay.calibrate.calibrate import calibrate
from assay.calibrate.settings import CalibrateSettings
from assay.errors import InputError, UsageError
from assay.evaluate.evaluate import evaluate
from assay.evaluate.settings import EvaluateSettings
from assay.runs.placement import place_workers
from assay.score.bench.bench import bench
from assay.score.bench.settings import BenchSettings
from assay.score.classifier import load
from assay.score.plan import plan_score
from assay.score.settings import ScoreSettings
from assay.tokenize.plan import plan_tokenize
from assay.tokenize.settings import TokenizeSettings

REFUSALS = {
    True: r"one text a row; .* takes pairs of texts; give the second with {}",
    False: r"pairs of texts; .* takes single texts; leave {} out",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A source of pairs with labels, and bundles that take pairs, single texts, or do not say."""
    place = tmp_path_factory.mktemp("pairs")
    table = {"text": ["document 1", "of 2"], "other": ["of 3", "document 4"], "label": ["ham", "spam"]}
    pq.write_table(pa.table(table), place / "rows.parquet")
    write_model(place / "None")
    for is_pair in (True, False):
        folder = shutil.copytree(place / "None", place / str(is_pair))
        content = {"format_version": 1, "is_pair": is_pair}
        (folder / "assay.json").write_text(json.dumps(content), encoding="utf-8")
    return place


def score(place, **settings):
    """`assay score`, as far as its plan."""
    chosen = ScoreSettings(sources=(str(place / "rows.parquet"),), run=str(place / "run"), **settings)
    plan_score(chosen, place_workers("auto", num_gpus=0), "fp32")


def tokenize(place, **settings):
    """`assay tokenize`, as far as its plan."""
    plan_tokenize(
        TokenizeSettings(sources=(str(place / "rows.parquet"),), run=str(place / "tokens"), **settings)
    )


def run_calibrate(place, **settings):
    """`assay calibrate`."""
    calibrate(CalibrateSettings(data=(str(place / "rows.parquet"),), **settings))


def run_evaluate(place, **settings):
    """`assay evaluate`."""
    evaluate(EvaluateSettings(data=(str(place / "rows.parquet"),), **settings))


def evaluate_against(place, *, bundle, **settings):
    """`assay evaluate`, the bundle as the second of two."""
    run_evaluate(place, bundle=str(place / "None"), against=(bundle,), **settings)


def run_bench(place, **settings):
    """`assay bench`."""
    bench(BenchSettings(sources=(str(place / "rows.parquet"),), **settings))


@pytest.mark.parametrize("is_pair", [True, False])
@pytest.mark.parametrize(
    "command", [score, tokenize, run_calibrate, run_evaluate, evaluate_against, run_bench]
)
def test_a_command_says_what_the_bundle_takes(command, is_pair, place):
    """Pairs for a model of single texts, and single texts for one of pairs, are refused with the way out."""
    other = None if is_pair else "other"
    with pytest.raises(UsageError, match=REFUSALS[is_pair].format("--text-pair-column")):
        command(place, bundle=str(place / str(is_pair)), text_pair_column=other)
    assert not (place / "run").exists()


@pytest.mark.parametrize("is_pair", [True, False])
def test_predict_says_what_the_bundle_takes(is_pair, place):
    """In Python the way out names the argument."""
    pairs = () if is_pair else (["of 3"],)
    with pytest.raises(InputError, match=REFUSALS[is_pair].format("text_pairs")):
        load(place / str(is_pair)).predict(["document 1"], *pairs)


def test_a_list_of_pairs_was_no_argument_of_its_own(place):
    """Pairs in the one list that `predict` got: the way out is another list, there is no argument to leave out."""
    with pytest.raises(
        InputError, match="takes single texts; pass a list of strings, or use a model of pairs"
    ):
        load(place / "False").predict([("document 1", "of 3")])


@pytest.mark.parametrize("is_pair", [True, False])
def test_stored_token_ids_say_what_they_are(is_pair, place, tmp_path):
    """A token run of pairs is not a source for a model of single texts, nor the other way round."""
    other = None if is_pair else "other"
    tokenize_here(place / "rows.parquet", place / "None", tmp_path / "tokens", text_pair_column=other)
    chosen = ScoreSettings(
        sources=(str(tmp_path / "tokens"),), bundle=str(place / str(is_pair)), run=str(tmp_path / "run")
    )
    with pytest.raises(UsageError, match=REFUSALS[is_pair].format("--text-pair-column of assay tokenize")):
        plan_score(chosen, place_workers("auto", num_gpus=0), "fp32")


@pytest.mark.parametrize("bundle", ["None", "right"])
@pytest.mark.parametrize("are_pairs", [True, False])
def test_what_fits_is_taken(bundle, are_pairs, place):
    """A bundle that does not say takes either, one that says takes its own."""
    classifier = load(place / (str(are_pairs) if bundle == "right" else bundle))
    table = classifier.predict(["document 1"], *((["of 3"],) if are_pairs else ()))
    assert table["error"].to_pylist() == [None]
