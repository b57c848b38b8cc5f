"""One set of score columns and values: of a run's parts, of `predict`, of a client's rows, of evaluation."""

import asyncio
import json

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.scoring import make_classifier, make_texts, read_parts, score_here, write_parquet
from support.serving import client_of, open_service

import assay
from assay.bundle.load import load_bundle
from assay.calibrate.calibrate import held_out_logits
from assay.calibrate.settings import CalibrateSettings
from assay.engine.load import load_engine
from assay.evaluate.evaluate import evaluate
from assay.evaluate.predict import predict
from assay.evaluate.settings import EvaluateSettings
from assay.labelled.rows import LabelledRows
from assay.score.labelled import labelled_logits
from assay.score.merge.merge import merge
from assay.score.scorer import Scorer
from assay.tokenize.encode import Encoder

pytestmark = pytest.mark.usefixtures("kept_threads")

TOLERANCE = 1e-5
MAX_LENGTH = 32
THREE = ("ham", "spam", "fowl")
# of this seed, texts differ in their labels
MULTI = {"labels": THREE, "problem_type": "multi_label_classification", "seed": 3}
BUNDLES = {
    "single": {"labels": THREE},
    "single, calibrated": {"labels": THREE, "calibration": {"temperature": 2.5}},
    "two labels": {},
    "two labels, threshold": {"calibration": {"temperature": 0.7, "threshold": 0.9}},
    "multi": MULTI,
    "multi, thresholds": {**MULTI, "calibration": {"temperature": 1.7, "threshold": [0.4, 0.5, 0.6]}},
    "regression": {"labels": ("quality",)},
    "regression, interval": {
        "labels": ("quality",),
        "calibration": {"method": "conformal", "half_width": 0.5, "coverage": 0.9},
        "int_score": [0, 5],
    },
}
POLICIES = {
    "truncate": {"max_length": MAX_LENGTH},
    "window-mean": {"max_length": MAX_LENGTH, "on_long": "window-mean", "stride": 5},
    "window-max": {"max_length": MAX_LENGTH, "on_long": "window-max", "stride": 5},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for the bundles and sources of this module."""
    return tmp_path_factory.mktemp("columns")


@pytest.fixture(scope="module")
def texts():
    """Texts of up to 150 words, so that most are over the limit of 32 tokens."""
    return make_texts(24)


def bundle_of(place, kind):
    """The bundle of a kind."""
    folder = place / kind
    if not folder.exists():
        options = dict(BUNDLES[kind])
        int_score = options.pop("int_score", None)
        make_classifier(folder, **options)
        if int_score is not None:
            (folder / "assay.json").write_text(json.dumps({"format_version": 1, "int_score": int_score}))
    return folder


def streamed(bundle, texts, policy):
    """What a client's `stream` adds to rows of these texts."""
    engine = load_engine(bundle, num_threads=1)

    async def run():
        service, _ = open_service(bundle, engine=engine, budget=512, **policy)
        async with client_of(service) as http:
            transport = httpx.ASGITransport(app=http.edge)
            async with assay.AsyncClient("http://test", transport=transport) as client:
                rows = [{"text": text} for text in texts]
                return [row async for row in client.stream(rows, details=True)]

    return [{name: value for name, value in row.items() if name != "text"} for row in asyncio.run(run())]


def assert_equal_rows(found, expected):
    """The same columns in the same order, the same values, numbers within the tolerance."""
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        for name, value in one.items():
            wanted = pytest.approx(other[name], abs=TOLERANCE) if isinstance(value, float) else other[name]
            assert value == wanted, name


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", BUNDLES)
def test_columns_are_equal_offline_in_python_and_online(kind, policy, place, texts):
    """Names, order and values, whatever the task, the calibration and the policy for long documents."""
    bundle, settings = bundle_of(place, kind), POLICIES[policy]
    source = write_parquet(place / "source.parquet", texts)
    run = score_here(source, bundle, place / f"run {kind} {policy}", **settings)
    parts = read_parts(run).drop_columns("id")
    table = assay.load(bundle, **settings).predict(texts)
    assert table.schema.remove_metadata() == parts.schema.remove_metadata()
    assert_equal_rows(table.to_pylist(), parts.to_pylist())
    assert_equal_rows(streamed(bundle, texts, settings), parts.to_pylist())


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", BUNDLES)
def test_what_is_evaluated_and_calibrated_is_what_is_scored(kind, policy, place, texts):
    """Evaluation judges the values of the columns; a calibration is fitted to the logits behind them."""
    folder, settings = bundle_of(place, kind), POLICIES[policy]
    bundle, engine = load_bundle(folder), load_engine(folder, num_threads=1)
    rows = LabelledRows(texts=tuple(texts), labels=("",) * len(texts))
    table = assay.load(folder, **settings).predict(texts)
    encoder = Encoder.from_bundle(
        folder,
        max_length=settings["max_length"],
        on_long=settings.get("on_long", "truncate"),
        stride=settings.get("stride", 0),
    )
    evaluated = predict(bundle.decider, labelled_logits(Scorer(bundle, engine, encoder), rows).logits_NC)
    names = [name for name in table.column_names if name.startswith("prob_")] or ["prediction"]
    scored = np.stack([table[name].to_numpy() for name in names], axis=1)
    np.testing.assert_allclose(evaluated.outputs_NC, scored, atol=TOLERANCE)
    if "labels" in table.column_names:
        held = [[label in row for label in bundle.labels] for row in table["labels"].to_pylist()]
        assert evaluated.predicted.tolist() == np.array(held, dtype=int).tolist()
    elif table.schema.field("prediction").type == pa.string():
        assert [bundle.labels[index] for index in evaluated.predicted] == table["prediction"].to_pylist()
    asked = CalibrateSettings(bundle=str(folder), data=("rows",), **settings)
    logits_NC = held_out_logits(asked, bundle, engine, rows)
    np.testing.assert_allclose(bundle.decider.decide(logits_NC).values_NC, scored, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("kind", "column", "metric"),
    [
        ("two labels, threshold", "prediction", "accuracy"),
        ("multi, thresholds", "labels", "subset_accuracy"),
    ],
)
def test_decided_labels_of_pairs(kind, column, metric, place):
    """By the thresholds of the calibration, alike in `predict`, in merged files and in evaluation."""
    texts = [text for text in make_texts(24, seed=4) if text.strip()]
    others = texts[::-1]
    bundle = bundle_of(place, kind)
    folder = place / f"pairs {column}"
    folder.mkdir()
    source = write_parquet(folder / "pairs.parquet", texts, pair=others)
    run = score_here(source, bundle, folder / "run", text_pair_column="pair")
    merge(run.url, str(folder / "merged"))
    merged = pq.read_table(folder / "merged" / "pairs.parquet")
    decided = merged[column].combine_chunks()
    table = assay.load(bundle).predict(list(zip(texts, others, strict=True)))
    assert table[column].to_pylist() == decided.to_pylist()
    write_parquet(folder / "labelled.parquet", texts, pair=others, label=decided)
    settings = EvaluateSettings(
        bundle=str(bundle), data=(str(folder / "labelled.parquet"),), text_pair_column="pair", resamples=0
    )
    assert evaluate(settings).metrics[metric].value == 1.0
