"""Offline equals online: one score from a run, from `assay.load` and over HTTP, alone and in company."""

import asyncio

import numpy as np
import pytest
from support.models import change_json
from support.scoring import make_classifier, make_texts, read_parts, score_here, write_parquet
from support.serving import client_of, open_cascade, open_service
from support.siamese import add_evidence, make_siamese_folder, write_cascade_of

from assay.bundle.calibration import save_calibration
from assay.outcome.calibration import Calibration
from assay.score.bundles import engine_of, open_bundle
from assay.score.cascade.bundle import Cascade
from assay.score.cascade.columns import CASCADE_FIELDS
from assay.score.classifier import load

pytestmark = pytest.mark.usefixtures("kept_threads")

TOLERANCE = 1e-5
THREE = ("ham", "spam", "fowl")
KINDS = {
    "three labels": {"labels": THREE},
    "calibrated": {"labels": THREE, "calibration": {"temperature": 2.5}},
    "threshold": {"calibration": {"temperature": 0.7, "threshold": 0.9}},
    "multi-label": {
        "labels": THREE,
        "problem_type": "multi_label_classification",
        "seed": 3,  # of which texts differ in their labels
        "calibration": {"temperature": 1.7, "threshold": [0.4, 0.5, 0.6]},
    },
    "regression": {"labels": ("quality",)},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for the bundles and sources of this module."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def texts():
    """30 texts, some over the limit of 64 tokens, one empty, one blank, two equal."""
    return make_texts(30)


def over_http(bundle, bodies, **settings):
    """The answers to (path, body) requests: all at once, so that they share batches."""
    opened = open_bundle(bundle)
    stages = (opened.first, opened.second) if isinstance(opened, Cascade) else (opened,)
    engines = [engine_of(stage, num_threads=1) for stage in stages]

    async def run():
        if len(engines) == 2:
            service, _ = open_cascade(bundle, engines=engines, budget=512, **settings)
        else:
            service, _ = open_service(bundle, engine=engines[0], budget=512, **settings)
        async with client_of(service) as client:
            sent = [client.post(path, json=body) for path, body in bodies]
            return [answer.json() for answer in await asyncio.gather(*sent)]

    return asyncio.run(run())


def check_rows(table, answers, labels):
    """Answers agree with the rows of a scored part, whatever the task."""
    rows = table.to_pylist()
    assert len(rows) == len(answers)
    for row, answer in zip(rows, answers, strict=True):
        assert answer["num_tokens"] == row["num_tokens"]
        assert answer["truncated"] == row["truncated"]
        if "score" in answer:
            assert answer["score"] == pytest.approx(row["prediction"], abs=TOLERANCE)
            continue
        for label in labels:
            assert answer["all_probabilities"][label] == pytest.approx(row[f"prob_{label}"], abs=TOLERANCE)
        if "label" in answer:
            assert answer["label"] == row["prediction"]
            assert answer["confidence"] == pytest.approx(row["probability"], abs=TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_served_scores_are_those_of_a_run(kind, place, texts):
    """Alone and in company, calibration and threshold included; and those of `assay.load` too."""
    bundle = make_classifier(place / kind, **KINDS[kind])
    labels = KINDS[kind].get("labels", ("negative", "positive"))
    source = write_parquet(place / f"{kind}.parquet", texts)
    table = read_parts(score_here(source, bundle, place / f"run {kind}"))
    kept = [number for number, text in enumerate(texts) if text]
    alone = [("/predict", {"text": texts[number], "details": True}) for number in kept]
    together, *singly = over_http(bundle, [("/predict/batch", {"texts": texts, "details": True}), *alone])
    check_rows(table, together, labels)
    check_rows(table.take(kept), singly, labels)
    check_rows(load(bundle).predict(texts), together, labels)


def test_labels_that_hold(place, texts):
    """Those whose calibrated probability reaches their own threshold."""
    bundle = make_classifier(place / "holds", **KINDS["multi-label"])
    (answers,) = over_http(bundle, [("/predict/batch", {"texts": texts})])
    limits = dict(zip(THREE, (0.4, 0.5, 0.6), strict=True))
    for answer in answers:
        held = [label for label, value in answer["all_probabilities"].items() if value >= limits[label]]
        assert answer["labels"] == held
    assert len({tuple(answer["labels"]) for answer in answers}) > 1


def test_raw_scores_are_the_models_logits(place, texts):
    """Whatever the calibration; the others are calibrated as everywhere, most probable first."""
    bundle = make_classifier(place / "raw", **KINDS["calibrated"])
    inputs = [[text] for text in texts]
    raw, plain, ours = over_http(
        bundle,
        [
            ("/predict", {"inputs": inputs, "raw_scores": True}),
            ("/predict", {"inputs": inputs}),
            ("/predict/batch", {"texts": texts}),
        ],
    )
    for logits, scores, answer in zip(raw, plain, ours, strict=True):
        by_label = {each["label"]: each["score"] for each in logits}
        scaled = np.exp(np.array([by_label[label] for label in THREE]) / 2.5)
        wanted = dict(zip(THREE, scaled / scaled.sum(), strict=True))
        assert answer["all_probabilities"] == pytest.approx(wanted, abs=1e-4)
        assert {each["label"]: each["score"] for each in scores} == pytest.approx(wanted, abs=1e-4)
        assert scores[0]["label"] == answer["label"]


@pytest.mark.parametrize("on_long", ["head-tail", "window-mean", "window-max"])
def test_long_documents(on_long, place, texts):
    """Every policy for long documents gives a run's scores."""
    bundle = make_classifier(place / on_long, labels=THREE)
    source = write_parquet(place / f"{on_long}.parquet", texts)
    policy = {"on_long": on_long, "stride": 0 if on_long == "head-tail" else 5}
    table = read_parts(score_here(source, bundle, place / f"run {on_long}", **policy))
    (answers,) = over_http(bundle, [("/predict/batch", {"texts": texts, "details": True})], **policy)
    check_rows(table, answers, THREE)


def test_pairs(place, texts):
    """Pairs likewise, also as a batch of text-embeddings-inference and through `/rerank`."""
    bundle = make_classifier(place / "pairs", calibration={"temperature": 1.3})
    others = texts[::-1]
    source = write_parquet(place / "pairs.parquet", texts, other=others)
    table = read_parts(score_here(source, bundle, place / "run pairs", text_pair_column="other"))
    answers, batch, ranks = over_http(
        bundle,
        [
            ("/predict/batch", {"texts": texts, "text_pairs": others, "details": True}),
            ("/predict", {"inputs": [list(pair) for pair in zip(texts, others, strict=True)]}),
            ("/rerank", {"query": texts[0], "texts": texts[1:]}),
        ],
    )
    check_rows(table, answers, ("negative", "positive"))
    for scores, answer in zip(batch, answers, strict=True):
        assert {each["label"]: each["score"] for each in scores} == pytest.approx(
            answer["all_probabilities"], abs=TOLERANCE
        )
    asked = load(bundle).predict([texts[0]] * (len(texts) - 1), texts[1:])
    scores = np.zeros(len(texts) - 1)
    for rank in ranks:
        scores[rank["index"]] = rank["score"]
    np.testing.assert_allclose(scores, asked["prob_positive"].to_numpy(), atol=TOLERANCE)


def test_whole_scores_and_intervals(place, texts):
    """What a regression's bundle adds to a row is in its answer too."""
    bundle = make_classifier(
        place / "whole",
        labels=("quality",),
        calibration={"method": "conformal", "half_width": 0.5, "coverage": 0.9},
    )
    (bundle / "assay.json").write_text("{}")
    change_json(bundle / "assay.json", format_version=1, int_score=[0, 5])
    source = write_parquet(place / "whole.parquet", texts)
    rows = read_parts(score_here(source, bundle, place / "run whole")).to_pylist()
    (answers,) = over_http(bundle, [("/predict/batch", {"texts": texts})])
    for row, answer in zip(rows, answers, strict=True):
        assert answer["int_score"] == row["int_score"]
        assert answer["interval"] == pytest.approx(
            [row["prediction_low"], row["prediction_high"]], abs=TOLERANCE
        )


def siamese(folder, texts):
    """A Siamese bundle with evidence of words, calibrated, with a threshold."""
    made = add_evidence(make_siamese_folder(folder), [text for text in texts if text.strip()])
    save_calibration(made, Calibration(temperature=2.0, threshold=0.45))
    return made


@pytest.mark.parametrize("on_long", ["truncate", "window-mean"])
def test_pairs_of_a_siamese_model(on_long, place, texts):
    """A run's columns, one pair at a time and in batches that share texts; TEI's shapes have the same numbers."""
    bundle = siamese(place / f"siamese {on_long}", texts)
    firsts, seconds = [*texts, *texts[:5]], [*texts[::-1], *texts[3:8]]
    policy = {"on_long": on_long, "stride": 0 if on_long == "truncate" else 5}
    source = write_parquet(place / f"siamese {on_long}.parquet", firsts, other=seconds)
    run = score_here(source, bundle, place / f"run pairs {on_long}", text_pair_column="other", **policy)
    table = read_parts(run)
    kept = [row for row, text in enumerate(firsts) if text][:8]
    alone = [("/predict", {"text": firsts[row], "text_pair": seconds[row], "details": True}) for row in kept]
    pairs = [list(pair) for pair in zip(firsts, seconds, strict=True)]
    together, tei, raw, ranks, *singly = over_http(
        bundle,
        [
            ("/predict/batch", {"texts": firsts, "text_pairs": seconds, "details": True}),
            ("/predict", {"inputs": pairs}),
            ("/predict", {"inputs": pairs, "raw_scores": True}),
            ("/rerank", {"query": texts[0], "texts": texts[1:]}),
            *alone,
        ],
        **policy,
    )
    check_rows(table, together, ("0", "1"))
    check_rows(table.take(kept), singly, ("0", "1"))
    assert len({answer["label"] for answer in together}) == 2
    model = load(bundle, **policy)
    check_rows(model.predict(firsts, seconds), together, ("0", "1"))
    for scores, logits, answer in zip(tei, raw, together, strict=True):
        by_label = {each["label"]: each["score"] for each in scores}
        assert by_label == pytest.approx(answer["all_probabilities"], abs=TOLERANCE)
        of = {each["label"]: each["score"] for each in logits}
        odds = np.log(by_label["1"] / by_label["0"])
        assert (of["1"] - of["0"]) / 2 == pytest.approx(odds, abs=1e-3)
    asked = model.predict([texts[0]] * (len(texts) - 1), texts[1:])["prob_1"].to_numpy()
    found = np.zeros(len(texts) - 1)
    for rank in ranks:
        found[rank["index"]] = rank["score"]
    np.testing.assert_allclose(found, asked, atol=TOLERANCE)


@pytest.mark.parametrize("is_two_sided", [False, True])
def test_a_cascade(is_two_sided, place, texts):
    """A run's columns, stages included, one pair at a time and in batches; and those of `assay.load`."""
    folder = place / f"cascade {is_two_sided}"
    folder.mkdir()
    first = siamese(folder / "a", texts)
    second = make_classifier(folder / "b", labels=("0", "1"), calibration={"temperature": 1.3}, seed=1)
    firsts, seconds = [*texts, *texts[:5]], [*texts[::-1], *texts[3:8]]
    alone = load(first).predict(firsts, seconds)["prob_1"].to_numpy()
    low = float(np.quantile(alone, 0.3))
    assert low < 0.5
    high = max(0.5, float(np.quantile(alone, 0.8))) if is_two_sided else None
    cascade = write_cascade_of(folder, first, second, low=low, high=high)
    source = write_parquet(folder / "pairs.parquet", firsts, other=seconds)
    table = read_parts(score_here(source, cascade, folder / "run", text_pair_column="other"))
    kept = [row for row, text in enumerate(firsts) if text][:6]
    together, tei, *singly = over_http(
        cascade,
        [
            ("/predict/batch", {"texts": firsts, "text_pairs": seconds, "details": True}),
            ("/predict", {"inputs": [list(pair) for pair in zip(firsts, seconds, strict=True)]}),
            *[
                ("/predict", {"text": firsts[row], "text_pair": seconds[row], "details": True})
                for row in kept
            ],
        ],
    )
    check_rows(table, together, ("0", "1"))
    check_rows(table.take(kept), singly, ("0", "1"))
    names = [field.name for field in CASCADE_FIELDS]
    for row, answer in zip(table.to_pylist(), together, strict=True):
        assert {name: answer.get(name) for name in names} == {
            name: pytest.approx(row[name], abs=TOLERANCE) if isinstance(row[name], float) else row[name]
            for name in names
        }
    assert {answer["stage"] for answer in together} == {"bi-only", "two-stage"}
    assert [{each["label"]: each["score"] for each in scores} for scores in tei] == [
        pytest.approx(answer["all_probabilities"], abs=TOLERANCE) for answer in together
    ]
    check_rows(load(cascade).predict(firsts, seconds), together, ("0", "1"))
