"""An ensemble is a bundle like any other, and says what its members say apart, put together."""

import asyncio
import json

import numpy as np
import pytest
from support.scoring import (
    calibrate,
    make_classifier,
    make_texts,
    read_parts,
    score_here,
    tokenize_here,
    write_parquet,
)
from support.serving import client_of, open_service

from assay.bundle.ensemble import read_ensemble
from assay.bundle.load import load_bundle
from assay.calibrate.calibrate import calibrate as calibrate_bundle
from assay.calibrate.settings import CalibrateSettings
from assay.engine.parity import engine_outputs
from assay.engine.sequences import Sequences
from assay.ensemble.build import ensemble_build
from assay.ensemble.settings import BuildSettings
from assay.errors import BundleError, UsageError
from assay.evaluate.evaluate import evaluate
from assay.evaluate.settings import EvaluateSettings
from assay.metrics import nll, softmax
from assay.score.bundles import encoder_of, engine_of, open_bundle
from assay.score.classifier import load
from assay.tokenize.settings import LongDocuments

pytestmark = pytest.mark.usefixtures("kept_threads")

THREE = ("ham", "spam", "fowl")
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for the bundles and sources of this module."""
    return tmp_path_factory.mktemp("ensembles")


@pytest.fixture(scope="module")
def members(place):
    """Three classifiers of three labels; the second has them in another order, the third is calibrated."""
    folders = [
        make_classifier(place / "one", labels=THREE, seed=1),
        make_classifier(place / "two", labels=("fowl", "ham", "spam"), seed=2),
        make_classifier(place / "three", labels=THREE, seed=3),
    ]
    calibrate(folders[2], temperature=3.0, threshold=None)
    return folders


@pytest.fixture(scope="module")
def ensemble(place, members):
    """The mean of the three."""
    out = place / "ensemble"
    ensemble_build(BuildSettings(out=str(out), members=(",".join(map(str, members)),)))
    return out


@pytest.fixture(scope="module")
def source(place):
    """40 texts, some of them over the limit, two equal, one empty."""
    return write_parquet(place / "source.parquet", make_texts(40))


def probabilities(table):
    """The probability columns [N, 3], labels in one order."""
    return np.stack([table[f"prob_{label}"].to_numpy() for label in THREE], axis=1)


def apart(members, source, place, **settings):
    """Each member's raw probabilities from a run of its own."""
    found = []
    for number, member in enumerate(members):
        (member / "calibration.json").unlink(missing_ok=True)
        run = score_here(source, member, place / f"apart-{number}-{len(settings)}", **settings)
        found.append(probabilities(read_parts(run)))
    return np.stack(found)


@pytest.mark.parametrize(
    "settings", [{}, {"on_long": "window-mean", "stride": 8}], ids=["truncated", "windows"]
)
def test_the_mean_of_probabilities_is_that_of_separate_runs(members, ensemble, source, place, settings):
    """Row by row, labels put in one order by name, members' own calibrations left out, long documents too."""
    together = read_parts(score_here(source, ensemble, place / f"together-{len(settings)}", **settings))
    each = apart(members, source, place, **settings)
    np.testing.assert_allclose(probabilities(together), each.mean(axis=0), atol=TOLERANCE)
    likeliest = [THREE[k] for k in each.mean(axis=0).argmax(axis=1)]
    assert together["prediction"].to_pylist() == likeliest
    assert np.abs(each[0] - each.mean(axis=0)).max() > 0.05, "members that differ"


def test_weights_and_the_geometric_mean_are_as_they_say(members, place, source):
    """0.5, 0.3, 0.2 of log probabilities, from separate runs, normalised."""
    out = place / "weighted"
    paths = tuple(map(str, members))
    ensemble_build(BuildSettings(out=str(out), members=paths, rule="logit-mean", weights="5,3,2"))
    found = probabilities(read_parts(score_here(source, out, place / "weighted-run")))
    each = apart(members, source, place / "again")
    expected = softmax((np.log(each) * np.array([0.5, 0.3, 0.2])[:, None, None]).sum(axis=0))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_load_and_http_give_the_numbers_of_a_run(ensemble, source, place):
    """`assay.load(...).predict` and `/predict/batch` equal the scored rows."""
    texts = make_texts(40)[10:30]
    classifier = load(ensemble, num_threads=1)
    assert "3 x" in repr(classifier)
    rows = probabilities(read_parts(score_here(source, ensemble, place / "run")))[10:30]
    np.testing.assert_allclose(probabilities(classifier.predict(texts)), rows, atol=TOLERANCE)
    engine = engine_of(open_bundle(ensemble), num_threads=1)

    async def ask():
        service, _ = open_service(ensemble, engine=engine, budget=512)
        async with client_of(service) as client:
            return (await client.post("/predict/batch", json={"texts": texts})).json()

    answers = asyncio.run(ask())
    served = np.array([[answer["all_probabilities"][label] for label in THREE] for answer in answers])
    np.testing.assert_allclose(served, rows, atol=TOLERANCE)


def test_texts_are_tokenized_once_for_all_members(ensemble, members, source, place):
    """A tokenize run of one member is scored by the ensemble; the parity gate compares with transformers."""
    tokens = tokenize_here(source, members[0], place / "tokens")
    from_ids = read_parts(score_here(tokens.url, ensemble, place / "from-ids", parity_documents=8))
    from_texts = read_parts(score_here(source, ensemble, place / "from-texts"))
    np.testing.assert_allclose(probabilities(from_ids), probabilities(from_texts), atol=TOLERANCE)
    figures = json.loads((place / "from-ids" / "parity.json").read_text())
    assert figures["passed"]
    assert figures["num_documents"] == 8


def labelled(path, texts, seed):
    """Texts with drawn labels."""
    rng = np.random.default_rng(seed)
    rows = [{"text": text, "label": str(rng.choice(THREE))} for text in texts]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_calibration_comes_after_pooling_and_evaluation_sees_it(members, place):
    """Fitted once on validation rows, it lowers the NLL of what is pooled; the best single is chosen on these rows."""
    words = [text or "none" for text in make_texts(120, seed=5, longest=40)]
    words = [f"{number} {text}" for number, text in enumerate(words)]
    validation = labelled(place / "validation.jsonl", words[:80], 0)
    test = labelled(place / "test.jsonl", words[80:], 1)
    out = place / "calibrated"
    result = ensemble_build(
        BuildSettings(
            out=str(out),
            members=tuple(map(str, members)),
            validation=(str(validation),),
            test=(str(test),),
            report=str(place / "report.html"),
            against=(str(members[1]),),
            resamples=100,
        )
    )
    (beside,) = result.other_ways
    assert beside.figures.num_members == 1, "passes of a member: it is one, its labels in another order"
    assert beside.figures.values == pytest.approx(result.measured.members[1].values)
    assert beside.difference.values["nll"] == pytest.approx(
        result.measured.pooled.values["nll"] - beside.figures.values["nll"]
    )
    assert "The same cost spent otherwise" in (place / "report.html").read_text()
    assert result.calibration.method == "temperature"
    assert result.best in result.names
    measured = result.measured
    assert measured.calibrated.values["nll"] < measured.pooled.values["nll"]
    assert measured.calibrated.values["accuracy"] == measured.pooled.values["accuracy"]
    assert measured.pooled.values == pytest.approx(measured.by_size[-1].values)
    mean_nll = np.mean([member.values["nll"] for member in measured.members])
    assert measured.by_size[0].values["nll"] == pytest.approx(mean_nll)
    assert measured.pooled.values["nll"] < mean_nll, (
        "the mean of probabilities is never worse than its members' mean"
    )
    against = measured.differences[-1]
    assert against.values["nll"] == pytest.approx(measured.pooled.values["nll"] - mean_nll)
    assert against.intervals["nll"].low <= against.values["nll"] <= against.intervals["nll"].high
    evaluated = evaluate(EvaluateSettings(bundle=str(out), data=(str(test),), resamples=100))
    for name in ("accuracy", "nll", "brier", "ece"):
        assert evaluated.metrics[name].value == pytest.approx(measured.calibrated.values[name], abs=1e-5)
    by_rule = {each.rule: each.accuracy for each in result.rules}
    assert by_rule["mean"] == measured.pooled.values["accuracy"]
    assert by_rule["majority"] <= by_rule["plurality"] <= by_rule["any-correct"]
    assert result.orders == ()
    page = (place / "report.html").read_text()
    assert "pooled, calibrated" in page
    assert "an oracle: it looks at the answers" in page
    rows = [json.loads(line) for line in test.read_text().splitlines()]
    table = load(out, num_threads=1).predict([row["text"] for row in rows])
    found = nll(probabilities(table).astype(float), [THREE.index(row["label"]) for row in rows])
    assert found == pytest.approx(measured.calibrated.values["nll"], abs=1e-5)


def test_pairs_are_measured_with_their_texts_swapped_too(place):
    """Of each member and of all: how many labels change, and what the mean of both orders gets right."""
    members = [make_classifier(place / f"pairs-{seed}", labels=("no", "yes"), seed=seed) for seed in (7, 8)]
    rng = np.random.default_rng(2)
    words = [f"{number} {text or 'none'}" for number, text in enumerate(make_texts(80, seed=6, longest=30))]
    rows = [
        {"text": one, "other": two, "label": str(rng.choice(["no", "yes"]))}
        for one, two in zip(words[:40], words[40:], strict=True)
    ]
    (place / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = ensemble_build(
        BuildSettings(
            out=str(place / "pairs"),
            members=tuple(map(str, members)),
            test=(str(place / "pairs.jsonl"),),
            text_pair_column="other",
            report=str(place / "pairs.html"),
            resamples=100,
        )
    )
    alone = {
        each.name: each.values["accuracy"] for each in (*result.measured.members, result.measured.pooled)
    }
    assert {each.name: each.accuracy for each in result.orders} == alone
    assert any(each.changed for each in result.orders)
    (otherwise,) = result.other_ways
    assert (otherwise.figures.name, otherwise.figures.num_members) == ("1 member in both orders", 2)
    both = np.mean([each.accuracy_both for each in result.orders[:2]])
    assert otherwise.figures.values["accuracy"] == pytest.approx(both)
    assert "pooled less 1 member in both orders, 2 passes" in str(result)
    swapped = [{**row, "text": row["other"], "other": row["text"]} for row in rows]
    table = load(place / "pairs", num_threads=1).predict([(row["text"], row["other"]) for row in swapped])
    right = [row["label"] == said for row, said in zip(rows, table["prediction"].to_pylist(), strict=True)]
    assert result.orders[-1].accuracy_swapped == pytest.approx(np.mean(right))
    assert {each.rule for each in result.rules if each.auc is not None} == {"mean", "logit-mean", "rank-mean"}
    assert "The order of the two texts" in (place / "pairs.html").read_text()


def test_the_second_order_is_read_where_the_first_does_not_decide(place):
    """The mean of both orders within the margin, the first order's beyond it; loaded, scored and evaluated alike."""
    members = [make_classifier(place / f"turned-{seed}", labels=("no", "yes"), seed=seed) for seed in (7, 8)]
    rng = np.random.default_rng(3)
    words = [f"{number} {text or 'none'}" for number, text in enumerate(make_texts(240, seed=8, longest=30))]
    rows = [
        {"text": one, "other": two, "label": str(rng.choice(["no", "yes"]))}
        for one, two in zip(words[:120], words[120:], strict=True)
    ]
    for name, part in (("fit", rows[:80]), ("seen-once", rows[80:])):
        (place / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))

    def build(name, **changes):
        return ensemble_build(
            BuildSettings(
                out=str(place / name),
                members=tuple(map(str, members)),
                text_pair_column="other",
                resamples=100,
                **changes,
            )
        )

    build("one-order")
    result = build(
        "both-orders",
        validation=(str(place / "fit.jsonl"),),
        test=(str(place / "seen-once.jsonl"),),
        second_order="unsure",
        max_changed=0.05,
        report=str(place / "both-orders.html"),
    )
    margin = result.second_order.margin
    fitted, tested = result.second_orders
    assert (fitted.rows, tested.rows) == ("validation", "test")
    assert fitted.changed.accuracy <= 0.05
    assert 0 < fitted.read_twice.accuracy < 1
    assert "get another label than both orders give" in str(result)
    assert "The second order where the first does not decide" in (place / "both-orders.html").read_text()
    assert 2 < result.measured.pooled.num_members < 4
    ways = {each.figures.name: each.figures for each in result.other_ways}
    assert ways["1 member in both orders"].num_members <= result.measured.pooled.num_members
    if result.measured.pooled.num_members < 3:
        assert ways["2 members in one order"].values["accuracy"] == tested.accuracy_first

    (place / "both-orders" / "calibration.json").rename(place / "put-aside.json")
    one, both = (load(place / name, num_threads=1) for name in ("one-order", "both-orders"))
    pairs = [(row["text"], row["other"]) for row in rows[80:]]
    first, second = (
        np.stack([table["prob_no"].to_numpy(), table["prob_yes"].to_numpy()], axis=1)
        for table in (one.predict(pairs), one.predict([(two, one) for one, two in pairs]))
    )
    twice = np.abs(first[:, 0] - first[:, 1]) <= margin
    assert tested.read_twice.correct == twice.sum()
    expected = np.where(twice[:, None], (first + second) / 2, first)[:, 1]
    np.testing.assert_allclose(both.predict(pairs)["prob_yes"].to_numpy(), expected, atol=TOLERANCE)
    run = score_here(
        place / "seen-once.jsonl", place / "both-orders", place / "turned-run",
        text_pair_column="other", parity_documents=8,
    )  # fmt: skip
    np.testing.assert_allclose(read_parts(run)["prob_yes"].to_numpy(), expected, atol=TOLERANCE)
    engine = engine_of(open_bundle(place / "both-orders"), num_threads=1)

    async def ask():
        service, _ = open_service(place / "both-orders", engine=engine, budget=512)
        async with client_of(service) as client:
            firsts, others = zip(*pairs, strict=True)
            asked = {"texts": list(firsts), "text_pairs": list(others)}
            return (await client.post("/predict/batch", json=asked)).json()

    served = [answer["all_probabilities"]["yes"] for answer in asyncio.run(ask())]
    np.testing.assert_allclose(served, expected, atol=TOLERANCE)
    (place / "put-aside.json").rename(place / "both-orders" / "calibration.json")
    evaluated = evaluate(
        EvaluateSettings(
            bundle=str(place / "both-orders"), data=(str(place / "seen-once.jsonl"),),
            text_pair_column="other", resamples=100,
        )
    )  # fmt: skip
    assert evaluated.metrics["nll"].value == pytest.approx(result.measured.calibrated.values["nll"], abs=1e-5)
    content = json.loads((place / "both-orders" / "ensemble.json").read_text())
    content["second_order"]["margin"] = "wide"
    (place / "both-orders" / "ensemble.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match="build it again with assay ensemble build"):
        open_bundle(place / "both-orders")


def by_hand(members, texts, *, max_length, stride, num_offsets):
    """The mean over members and offsets of the probabilities of the mean logits of each series of windows."""
    found = []
    for member in map(load_bundle, members):
        order = [member.labels.index(label) for label in THREE]
        encoder = encoder_of(
            member, LongDocuments(max_length=max_length, on_long="window-mean", stride=stride)
        )
        capacity = max_length - 2
        step = capacity - stride
        engine = engine_of(member, num_threads=1)
        for k in range(num_offsets):
            second = step * k // num_offsets if k else step
            rows = []
            for text in texts:
                begin, *content, end = encoder.encode_texts([text]).flat_ids.tolist()
                starts = [0]
                if len(content) > capacity:
                    starts += range(second, max(len(content) - stride, second + 1), step)
                windows = [[begin, *content[start : start + capacity], end] for start in starts]
                sequences = Sequences(
                    flat_ids=np.concatenate(windows).astype(np.uint16),
                    offsets=np.cumsum([0, *map(len, windows)]),
                )
                rows.append(engine_outputs(engine, sequences).mean(axis=0)[order])
            found.append(softmax(np.array(rows, dtype=np.float64)))
    return np.mean(found, axis=0)


def test_windows_of_long_documents_at_several_offsets_are_members(members, place):
    """Scored, evaluated, loaded and served alike: the mean over members and offsets; a short text is read once."""
    texts = [f"{number} {text or 'none'}" for number, text in enumerate(make_texts(60, seed=12, longest=70))]
    validation, test = (
        labelled(place / f"{name}-long.jsonl", part, 4)
        for name, part in (("fit", texts[:30]), ("seen", texts[30:]))
    )
    out, windows = place / "offsets", {"max_length": 16, "on_long": "window-mean", "stride": 2}
    both = tuple(map(str, members[:2]))
    result = ensemble_build(
        BuildSettings(
            out=str(out), members=both, offsets=3, test=(str(test),), validation=(str(validation),),
            report=str(place / "offsets.html"), resamples=100, **windows,
        )
    )  # fmt: skip
    one, two = result.names
    assert [each.name for each in result.measured.members] == [
        one, two, f"{one} +1/3", f"{two} +1/3", f"{one} +2/3", f"{two} +2/3"
    ]  # fmt: skip
    assert 2 < result.measured.pooled.num_members < 6, "short documents are read once"
    assert "offsets of windows" in (place / "offsets.html").read_text()
    (out / "calibration.json").rename(place / "put-aside-offsets.json")
    expected = by_hand(members[:2], texts[30:], max_length=16, stride=2, num_offsets=3)
    run = score_here(test, out, place / "offsets-run", parity_documents=8, **windows)
    np.testing.assert_allclose(probabilities(read_parts(run)), expected, atol=TOLERANCE)
    found = load(out, num_threads=1, **windows).predict(texts[30:])
    np.testing.assert_allclose(probabilities(found), expected, atol=TOLERANCE)
    engine = engine_of(open_bundle(out), num_threads=1)

    async def ask():
        service, _ = open_service(out, engine=engine, budget=512, **windows)
        async with client_of(service) as client:
            return (await client.post("/predict/batch", json={"texts": texts[30:]})).json()

    answers = asyncio.run(ask())
    served = np.array([[answer["all_probabilities"][label] for label in THREE] for answer in answers])
    np.testing.assert_allclose(served, expected, atol=TOLERANCE)
    (place / "put-aside-offsets.json").rename(out / "calibration.json")
    evaluated = evaluate(EvaluateSettings(bundle=str(out), data=(str(test),), resamples=100, **windows))
    assert evaluated.metrics["nll"].value == pytest.approx(result.measured.calibrated.values["nll"], abs=1e-5)

    alone = BuildSettings(
        out=str(place / "offsets-of-one"),
        members=both,
        offsets=3,
        validation=(str(validation),),
        max_loss=1.0,
        **windows,
    )
    assert len(ensemble_build(alone).names) == 1, "chosen by what each says of all offsets together"
    with pytest.raises(
        UsageError, match="at 3 offsets of windows, and it cuts none; use on_long window-mean"
    ):
        score_here(test, out, place / "offsets-cut")
    short = {**windows, "max_length": 4, "stride": 1}
    with pytest.raises(UsageError, match="at most 1 offsets differ"):
        load(out, **short)
    content = json.loads((out / "ensemble.json").read_text())
    (out / "ensemble.json").write_text(json.dumps({**content, "offsets": "many"}))
    with pytest.raises(BundleError, match=r"offsets is many, .*; build it again with assay ensemble build"):
        open_bundle(out)


def test_what_a_member_says_of_its_training_is_not_the_ensemble_s(members, place):
    """A report and curves of one training do not stand for all; the member keeps its own."""
    (members[0] / "train_report.html").write_text("one")
    (members[0] / "metrics.jsonl").write_text("{}")
    out = place / "reported"
    ensemble_build(BuildSettings(out=str(out), members=(",".join(map(str, members)),)))
    assert not {"train_report.html", "metrics.jsonl"} & {path.name for path in out.iterdir()}
    assert (out / "members" / "1" / "train_report.html").read_text() == "one"


def test_assay_calibrate_takes_an_ensemble(ensemble, place):
    """The pooled outputs are calibrated where they are; the members' folders stay as they are."""
    words = [f"{number} {text}" for number, text in enumerate(make_texts(60, seed=9, longest=20))]
    rows = labelled(place / "more.jsonl", words, 4)
    before = read_ensemble(ensemble)
    calibrate_bundle(CalibrateSettings(bundle=str(ensemble), data=(str(rows),)))
    after = read_ensemble(ensemble)
    assert after.calibration is not None
    assert after.fingerprint != before.fingerprint
    assert [member.fingerprint for member in after.members] == [
        member.fingerprint for member in before.members
    ]
    (ensemble / "calibration.json").unlink()


# ---------------------------------------------------------------- refusals


def test_members_that_differ_are_refused_with_what_differs(members, place):
    """Other labels, another length: one line, nothing written."""
    other = make_classifier(place / "other-labels", labels=("ham", "spam"), seed=5)
    with pytest.raises(
        BundleError, match=r"differ in labels: .*ham.* and .*leave one out, or train them alike"
    ):
        ensemble_build(BuildSettings(out=str(place / "out"), members=(str(members[0]), str(other))))
    short = make_classifier(place / "short", labels=THREE, seed=6)
    rows = labelled(place / "few.jsonl", ["one", "two", "three"], 0)
    beside = {"test": (str(rows),), "against": (str(other),)}
    with pytest.raises(BundleError, match="--against takes models with the same labels"):
        ensemble_build(BuildSettings(out=str(place / "out"), members=tuple(map(str, members)), **beside))
    (short / "assay.json").write_text(json.dumps({"max_length": 32}))
    with pytest.raises(BundleError, match="differ in max_length: 64 and 32"):
        ensemble_build(BuildSettings(out=str(place / "out"), members=(str(members[0]), str(short))))
    tokenizer = json.loads((short / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = not tokenizer["normalizer"]["lowercase"]
    (short / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BundleError, match="differ in tokenizer"):
        ensemble_build(BuildSettings(out=str(place / "out"), members=(str(members[0]), str(short))))
    with pytest.raises(UsageError, match="each member counts once"):
        ensemble_build(BuildSettings(out=str(place / "out"), members=(str(members[0]), str(members[0]))))
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": "any-correct"}, "rule 'any-correct' looks at the answers"),
        ({"rule": "rank-mean"}, "needs the scores of all documents"),
        ({"rule": "majority"}, "gives a label and no probability"),
        ({"rule": "men"}, "is not known; use mean, logit-mean, soup"),
        ({"members": ("one",)}, "an ensemble has two or more"),
        ({"weights": "1,2"}, "weights are '1,2' for 3 members"),
        ({"weights": "0,0,0"}, "give as many numbers of 0 or more"),
        ({"max_loss": 0.1}, "give --validation"),
        ({"report": "page.html"}, "give --test"),
        ({"rule": "soup"}, "a soup is chosen on validation rows"),
        ({"second_order": "unsure", "text_pair_column": "b"}, "its margin is fitted on validation rows"),
        ({"second_order": "always", "test": ("t",)}, "give --text-pair-column"),
        ({"against": ("larger",)}, "it is measured on test rows; give --test"),
        ({"offsets": 2}, "on_long truncate, which cuts no windows; set --on-long to window-mean"),
        ({"offsets": 2, "text_pair_column": "b"}, "pairs of texts are not cut into windows"),
        (
            {"offsets": 2, "rule": "soup", "validation": ("v",)},
            "a soup is one model and reads a document once",
        ),
        ({"offsets": 65, "on_long": "window-max"}, "offsets is 65"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    """What measures never scores; the rest says the value and the way out."""
    with pytest.raises(UsageError, match=message):
        BuildSettings(**{"out": "out", "members": ("one,two,three",), **changes})


def test_a_member_that_was_exchanged_is_refused(ensemble, place):
    """The fingerprint of each member stands in ensemble.json."""
    weights = ensemble / "members" / "2" / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes((ensemble / "members" / "1" / "model.safetensors").read_bytes())
    with pytest.raises(BundleError, match=r"members/2 is .* or put the member back"):
        open_bundle(ensemble)
    weights.write_bytes(kept)
    assert len(open_bundle(ensemble).members) == 3


def test_what_takes_one_classifier_says_so(ensemble):
    """A command that has no use for several models names a member."""
    with pytest.raises(BundleError, match="is an ensemble, and one classifier is needed here; name a member"):
        load_bundle(ensemble)
