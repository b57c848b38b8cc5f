"""A cascade of two tiny models: tuned, written, loaded and asked, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.models import change_json, write_model
from support.scoring import read_parts, score_here
from support.siamese import make_siamese_folder

from assay.api import (
    BenchSettings,
    CalibrateSettings,
    CascadeTuneSettings,
    EvaluateSettings,
    ScoreSettings,
    TokenizeSettings,
    bench,
    calibrate,
    cascade_tune,
    evaluate,
    load,
    tokenize,
    verify,
)
from assay.bundle.calibration import save_calibration
from assay.calibrate.folds import fold_rows
from assay.cascade.stages import open_stages
from assay.errors import BundleError, InputError, RefusedError, UsageError
from assay.metrics import auc
from assay.outcome.calibration import Calibration
from assay.runs.figures import read_figures
from assay.runs.run import create_or_join
from assay.score.bundles import open_bundle
from assay.score.cascade.columns import CASCADE_FIELDS
from assay.score.cascade.decide import combined, fit_combination
from assay.score.verb import plan_here
from assay.score.worker import open_score_work

pytestmark = pytest.mark.usefixtures("one_thread")

NUM_PAIRS = 240


def make_pairs():
    """Pairs of 60 texts, so that most texts are in several."""
    rng = np.random.default_rng(5)
    texts = [" ".join(["document of", *map(str, rng.integers(100, size=6))]) for _ in range(60)]
    return [(texts[one], texts[two]) for one, two in rng.integers(60, size=(NUM_PAIRS, 2))]


PAIRS = make_pairs()


def write_pairs(file, labels, **columns):
    """The first pairs with these labels, as `assay prepare books` names columns."""
    one, two = zip(*PAIRS[: len(labels)], strict=True)
    pq.write_table(pa.table({"text1": one, "text2": two, "label": labels, **columns}), file)
    return str(file)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two models, and pairs whose label the second knows better than the first."""
    folder = tmp_path_factory.mktemp("cascade")
    make_siamese_folder(folder / "first")
    write_model(folder / "second", labels=("0", "1"))
    change_json(folder / "second" / "config.json", max_position_embeddings=64)
    first, second = open_stages(folder / "first", folder / "second", num_threads=1)
    one, two = (stage.probabilities(PAIRS, "1")[0] for stage in (first, second))
    score = 0.4 * _ranked(one) + _ranked(two) + np.random.default_rng(1).normal(scale=0.1, size=NUM_PAIRS)
    authors = [f"author {number}" for number in np.random.default_rng(2).integers(30, size=NUM_PAIRS)]
    labels = (score > np.median(score)).astype(int).tolist()
    write_pairs(folder / "pairs.parquet", labels, author1=authors, author2=authors[::-1], id=range(NUM_PAIRS))
    return folder


def _ranked(values):
    return np.argsort(np.argsort(values)) / len(values)


def close(answers, others):
    """Whether two tables say the same, but for the last digits: other texts may be beside them in a batch."""
    rows = zip(answers.to_pylist(), others.to_pylist(), strict=True)
    return all(one == pytest.approx(other, abs=1e-5) for one, other in rows)


def settings_of(place, folder, **changes):
    """Settings of a tuning on the pairs of `place`."""
    values = {
        "first": str(place / "first"),
        "second": str(place / "second"),
        "data": (str(place / "pairs.parquet"),),
        "out": str(folder / "cascade.json"),
        "recall": 0.8,
        "num_threads": 1,
    }
    return CascadeTuneSettings(**{**values, **changes})


@pytest.fixture(scope="module")
def tuned(place, tmp_path_factory):
    """The report of a one-sided tuning."""
    return cascade_tune(settings_of(place, tmp_path_factory.mktemp("tuned")))


def test_tuning_says_what_the_cascade_does_to_its_pairs(place, tuned):
    """Share and recall are those that the loaded cascade has on the same pairs; some are decided, some go on."""
    answers = load(tuned.settings.out, num_threads=1).predict(PAIRS).to_pylist()
    goes_on = np.array([each["stage"] == "two-stage" for each in answers])
    holds = np.array(pq.read_table(place / "pairs.parquet").column("label").to_pylist()) == 1
    assert 0 < goes_on.mean() < 1
    assert tuned.point.share == goes_on.mean()
    assert tuned.point.chosen.recall == pytest.approx(goes_on[holds].mean())
    assert tuned.point.chosen.recall >= tuned.point.chosen.recall_bound >= 0.8
    assert tuned.second.auc > tuned.first.auc
    shares = [point.share for point in tuned.curve]
    assert shares == sorted(shares, reverse=True)
    assert [point.chosen.recall_bound for point in tuned.curve] == sorted(
        (point.chosen.recall_bound for point in tuned.curve), reverse=True
    )
    first, second = (NUM_PAIRS / each.pairs_per_second for each in (tuned.first, tuned.second))
    assert tuned.point.cost == pytest.approx((first + tuned.point.share * second) / second)


def test_accuracy_and_auc_are_of_combinations_that_were_fitted_on_other_pairs(tuned, place):
    """By hand: each fold's combination is of the other folds; that of all pairs would be too kind."""
    first, second = (
        stage.probabilities(PAIRS, "1")[0]
        for stage in open_stages(place / "first", place / "second", num_threads=1)
    )
    holds = np.array(pq.read_table(place / "pairs.parquet").column("label").to_pylist()) == 1
    fold = fold_rows(NUM_PAIRS, num_folds=5, seed=0, strata=holds.astype(np.int64))
    both = np.empty(NUM_PAIRS)
    for left_out in (fold == number for number in range(5)):
        combination = fit_combination(first[~left_out], second[~left_out], holds[~left_out])
        both[left_out] = combined(combination, first[left_out], second[left_out])
    low = tuned.cascade.thresholds.low
    final = np.where(first < low, first, both)
    assert tuned.point.auc == pytest.approx(auc(holds, final))
    assert tuned.point.accuracy == pytest.approx((((final >= 0.5) & (first >= low)) == holds).mean())
    in_sample = np.where(first < low, first, combined(tuned.cascade.combination, first, second))
    assert auc(holds, in_sample) != pytest.approx(tuned.point.auc, abs=1e-9)


def test_answers_are_those_of_both_models_and_their_combination(tuned, place):
    """R2's fields: of decided pairs the first model's alone, of the others both, put together by hand."""
    cascade = load(tuned.settings.out, num_threads=1)
    answers = cascade.predict(PAIRS)
    assert answers.schema.names[-7:] == [field.name for field in CASCADE_FIELDS]
    stages = open_stages(cascade.bundle.first.path, cascade.bundle.second.path, num_threads=1)
    first, second = (stage.probabilities(PAIRS, "1")[0] for stage in stages)
    low, weights = (
        cascade.bundle.thresholds.low,
        json.loads(Path(tuned.settings.out).read_text())["combination"],
    )
    for row, each in enumerate(answers.to_pylist()):
        one, two = first[row], second[row]
        assert each["bi_probability"] == pytest.approx(one, abs=1e-6)
        assert each["bi_confidence"] == pytest.approx(max(one, 1 - one), abs=1e-6)
        assert each["prob_1"] == each["final_probability"]
        assert each["prob_0"] == pytest.approx(1 - each["prob_1"], abs=1e-6)
        assert each["prediction"] == str(int(each["same_book"]))
        assert each["probability"] == each[f"prob_{each['prediction']}"]
        if one < low:
            assert each["stage"] == "bi-only"
            assert each["final_probability"] == each["bi_probability"]
            assert (each["same_book"], each["cross_probability"], each["cross_confidence"]) == (
                False,
                None,
                None,
            )
            continue
        odds = weights["first"] * np.log(one / (1 - one)) + weights["second"] * np.log(two / (1 - two))
        final = 1 / (1 + np.exp(-(odds + weights["bias"])))
        assert each["stage"] == "two-stage"
        assert each["cross_probability"] == pytest.approx(two, abs=1e-5)
        assert each["cross_confidence"] == pytest.approx(max(two, 1 - two), abs=1e-5)
        assert each["final_probability"] == pytest.approx(final, abs=1e-5)
        assert each["same_book"] == (final >= 0.5)


def test_the_second_model_sees_only_what_is_left_open(tuned, monkeypatch):
    """Counted at its door: the pairs that go on, and none where all are decided."""
    cascade = load(tuned.settings.out, num_threads=1)
    second = cascade._scorer.second
    seen, forward = [], second.forward

    def counting(chunk):
        seen.append(chunk.num_rows)
        return forward(chunk)

    monkeypatch.setattr(second, "forward", counting)
    stages = cascade.predict(PAIRS).column("stage").to_pylist()
    assert sum(seen) == stages.count("two-stage")
    decided = [pair for pair, stage in zip(PAIRS, stages, strict=True) if stage == "bi-only"]
    seen.clear()
    cascade.predict(decided)
    assert seen == []
    assert cascade.predict([], []).num_rows == 0
    with pytest.raises(InputError, match="takes pairs of texts"):
        cascade.predict(["ab"])


def test_the_file_and_the_page_hold_what_was_found(tuned):
    """Fingerprints, labels, thresholds, curve; the page shows both charts and the note on authors."""
    content = json.loads(Path(tuned.settings.out).read_text())
    assert content["labels"] == ["0", "1"]
    assert content["first"] == {
        "path": content["first"]["path"],
        "kind": "siamese",
        "fingerprint": tuned.first.stage.fingerprint,
    }
    assert content["second"]["kind"] == "classifier"
    assert content["thresholds"] == {"low": tuned.point.chosen.thresholds.low, "high": None}
    assert len(content["curve"]) == len(tuned.curve) > 10
    assert content["chosen"]["share"] == tuned.point.share
    page = Path(tuned.page).read_text()
    assert page.count("<svg") == 2
    assert "pairs of the same authors are not" in page
    assert "reach the second model" in str(tuned)


def test_two_sided_with_authors(place, tmp_path):
    """Pairs above `high` are accepted without the second model; authors are drawn, so the bound is no higher."""
    plain = cascade_tune(settings_of(place, tmp_path, recall=0.6))
    report = cascade_tune(
        settings_of(
            place, tmp_path, recall=0.6, two_sided=True, author_columns=("author1", "author2"), resamples=200
        )
    )
    assert report.num_authors == 30
    assert report.point.chosen.thresholds.low <= plain.point.chosen.thresholds.low
    answers = load(report.settings.out, num_threads=1).predict(PAIRS).to_pylist()
    high = report.cascade.thresholds.high
    accepted = [each for each in answers if each["bi_probability"] > high + 1e-6]
    assert accepted
    assert all(each["stage"] == "bi-only" and each["same_book"] for each in accepted)


def planned(tuned, source, run, **changes):
    """Settings of a run of the cascade over pairs."""
    values = {"text_column": "text1", "text_pair_column": "text2", "devices": "1", "num_threads": 1}
    return ScoreSettings(
        sources=(str(source),), bundle=tuned.settings.out, run=str(run), **{**values, **changes}
    )


def test_a_run_is_a_run_like_any_other(tuned, tmp_path):
    """Sharded, gone on with, exactly once; ids kept, a null text an error code, the rest as `predict` says."""
    one, two = zip(*PAIRS[:40], strict=True)
    table = pa.table({"text1": [*one, None], "text2": [*two, "x"], "id": [f"p{n}" for n in range(41)]})
    pq.write_table(table, tmp_path / "pairs.parquet")
    run = score_here(
        tmp_path / "pairs.parquet",
        tuned.settings.out,
        tmp_path / "run",
        text_column="text1",
        text_pair_column="text2",
        unit_rows=9,
        parity_documents=8,
    )
    assert len(run.part_files()) == 5
    assert verify(run.url).holds
    answers = read_parts(run)
    common = ["id", "num_tokens", "truncated", "error", "prediction", "probability", "prob_0", "prob_1"]
    assert answers.column_names == [*common, *(field.name for field in CASCADE_FIELDS)]
    assert answers.column("id").to_pylist() == table.column("id").to_pylist()
    last = answers.to_pylist()[-1]
    assert (last["error"], last["final_probability"], last["stage"]) == ("null", None, None)
    expected = load(tuned.settings.out, num_threads=1).predict(PAIRS[:40])
    assert close(answers.slice(0, 40).drop_columns("id"), expected)
    assert len(read_figures(run)) == 2  # each model was held to the plain path


def test_a_run_belongs_to_its_models(tuned, place, tmp_path):
    """A model that changed is refused at the planning and by a worker; so are other lengths, and token ids."""
    own = shutil.copytree(Path(tuned.settings.out).parent, tmp_path / "own")
    shutil.copytree(place / "first", own / "first")
    shutil.copytree(place / "second", own / "second")
    content = json.loads((own / "cascade.json").read_text())
    for name in ("first", "second"):
        content[name]["path"] = "elsewhere"
    (own / "cascade.json").write_text(json.dumps(content))
    bundle = open_bundle(own)
    assert bundle.fingerprint == open_bundle(tuned.settings.out).fingerprint
    pairs = place / "pairs.parquet"
    settings = replace(planned(tuned, pairs, tmp_path / "run"), bundle=str(own))
    run = create_or_join(settings.run, plan_here(settings)[0])[0]
    save_calibration(own / "second", Calibration(temperature=2.0))
    with pytest.raises(BundleError, match="thresholds belong to one model, its calibration included"):
        open_score_work(run, device="cpu", num_threads=1)
    (own / "second" / "calibration.json").unlink()
    change_json(own / "cascade.json", thresholds={"low": 0.001, "high": None})
    with pytest.raises(RefusedError, match="put it back, or use another --run"):
        open_score_work(run, device="cpu", num_threads=1)
    shutil.rmtree(own / "first")
    with pytest.raises(
        BundleError, match=r"its first model is neither at .*elsewhere nor at .*first; put the"
    ):
        open_bundle(own)
    for changes in ({"max_length": 16}, {"on_long": "window-mean", "stride": 3}, {"on_long": "error"}):
        with pytest.raises(
            UsageError, match=r"is a cascade, whose models read texts as they were tuned; leave"
        ):
            plan_here(planned(tuned, pairs, tmp_path / "other", **changes))
    with pytest.raises(UsageError, match="is a cascade and takes the texts of pairs themselves"):
        plan_here(planned(tuned, pairs, tmp_path / "other", input_ids_column="ids"))
    with pytest.raises(UsageError, match="takes pairs of texts; give the second with --text-pair-column"):
        plan_here(planned(tuned, pairs, tmp_path / "other", text_pair_column=None))


def test_an_evaluation_is_of_the_whole_and_knows_what_was_tuned_on(tuned, place, tmp_path):
    """AUC of the final probabilities; the tuning pairs count as seen, as those of either model's training do."""
    columns = {"text_column": "text1", "text_pair_column": "text2", "num_threads": 1, "resamples": 100}
    report = evaluate(
        EvaluateSettings(bundle=tuned.settings.out, data=(str(place / "pairs.parquet"),), **columns)
    )
    answers = load(tuned.settings.out, num_threads=1).predict(PAIRS)
    holds = np.array(pq.read_table(place / "pairs.parquet").column("label").to_pylist()) == 1
    assert report.metrics["auc"].value == pytest.approx(auc(holds, answers["final_probability"].to_numpy()))
    assert report.bundle.seen.counts["text"]["tuning"] == NUM_PAIRS


def test_what_takes_no_cascade_says_what_does(tuned, place, tmp_path):
    """A calibration of the whole, token ids, a measurement; and an unknown flag names the one that takes it."""
    pairs = str(place / "pairs.parquet")
    columns = {"text_column": "text1", "text_pair_column": "text2"}
    with pytest.raises(UsageError, match="is a cascade, whose probabilities assay cascade tune fits"):
        calibrate(CalibrateSettings(bundle=tuned.settings.out, data=(pairs,), **columns))
    with pytest.raises(BundleError, match="is a cascade of two models; here one classifier is needed"):
        tokenize(TokenizeSettings(sources=(pairs,), bundle=tuned.settings.out, run=str(tmp_path), **columns))
    with pytest.raises(UsageError, match="is a cascade; what a pair costs"):
        bench(BenchSettings(sources=(pairs,), bundle=tuned.settings.out, **columns))


def test_a_changed_model_is_refused(tuned, place, tmp_path):
    """Other weights or another calibration are another fingerprint, whichever stage it is; the same copied is fine."""
    out = tmp_path / "cascade.json"
    content = json.loads(Path(tuned.settings.out).read_text())
    copied = shutil.copytree(place / "second", tmp_path / "copied")
    entries = {"first": {**content["first"], "path": str(place / "first")}}
    entries["second"] = {**content["second"], "path": "copied"}
    out.write_text(json.dumps({**content, **entries}))
    load(out, num_threads=1)
    load(tmp_path, num_threads=1)
    save_calibration(copied, Calibration(temperature=2.0))
    said = r"tuned for the model \w+, and .* is \w+; thresholds belong to one"
    with pytest.raises(BundleError, match=said):
        load(out, num_threads=1)
    make_siamese_folder(tmp_path / "other", seed=3)
    entries["first"]["path"] = "other"
    out.write_text(json.dumps({**content, **entries}))
    with pytest.raises(BundleError, match=said):
        load(out, num_threads=1)


def test_models_that_do_not_go_together_are_refused(place, tmp_path):
    """Other labels, a model of single texts, and one of three labels: each in a line with the way out."""
    write_model(tmp_path / "names", labels=("ham", "spam"))
    with pytest.raises(
        BundleError, match=r"knows the labels 0, 1 and .* ham, spam; the stages of a cascade have the"
    ):
        cascade_tune(settings_of(place, tmp_path, second=str(tmp_path / "names")))
    write_model(tmp_path / "single", labels=("0", "1"))
    (tmp_path / "single" / "assay.json").write_text(json.dumps({"format_version": 1, "is_pair": False}))
    with pytest.raises(BundleError, match="takes single texts; a cascade takes models of pairs"):
        cascade_tune(settings_of(place, tmp_path, second=str(tmp_path / "single")))
    write_model(tmp_path / "three", labels=("0", "1", "2"))
    with pytest.raises(
        BundleError, match="single_label model of 3 outputs; a stage of a cascade tells two labels"
    ):
        cascade_tune(settings_of(place, tmp_path, first=str(tmp_path / "three")))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([1] * 30, "all 30 pairs have the label 1; a threshold needs pairs of both labels; add the others"),
        ([0] * 30, "all 30 pairs have the label 0;"),
        ([1] * 28 + [0] * 2, "2 pairs of one label; 5 or more of each are needed"),
        ([1] * 20 + [2] * 10, r"labels \['2'\]; the model knows \['0', '1'\]"),
        ([1] * 10 + [0] * 20, "recall 0.95 cannot be shown at confidence 0.95 on 10 pairs with the label"),
        ([], "0 rows; labelled rows are needed"),
    ],
)
def test_pairs_that_teach_nothing_are_refused(place, tmp_path, labels, said):
    """One line each; nothing is written."""
    data = write_pairs(tmp_path / "pairs.parquet", pa.array(labels, pa.int64())) if labels else None
    if data is None:
        data = str(tmp_path / "pairs.parquet")
        pq.write_table(pq.read_table(place / "pairs.parquet").slice(0, 0), data)
    with pytest.raises(InputError, match=said):
        cascade_tune(settings_of(place, tmp_path, data=(data,), recall=0.95))
    assert not (tmp_path / "cascade.json").exists()


def test_a_side_without_text_is_refused(place, tmp_path):
    """Two texts are compared: a pair with one of white space has nothing to say of thresholds."""
    table = pq.read_table(place / "pairs.parquet")
    texts = ["\t ", *table.column("text1").to_pylist()[1:]]
    pq.write_table(table.set_column(0, "text1", pa.array(texts)), tmp_path / "pairs.parquet")
    with pytest.raises(InputError, match=r"1 of 240 pairs have a side without text; .* drop these rows"):
        cascade_tune(settings_of(place, tmp_path, data=(str(tmp_path / "pairs.parquet"),)))


@pytest.mark.parametrize("recall", [0.0, 1.0])
def test_a_recall_of_all_or_none_is_refused(place, tmp_path, recall):
    """No sample shows a recall of 1, and 0 asks for nothing."""
    with pytest.raises(
        UsageError, match=r"recall is .*; it must be above 0 and below 1; set for example 0.95"
    ):
        settings_of(place, tmp_path, recall=recall)


def test_what_does_not_suit_the_files_is_refused(tuned, place, tmp_path):
    """Names of outputs, too many authors, a file that is not a cascade's."""
    with pytest.raises(UsageError, match=r"a cascade is a \.json file"):
        settings_of(place, tmp_path, out="cascade.html")
    with pytest.raises(UsageError, match="names 3 columns; a pair has two texts"):
        settings_of(place, tmp_path, author_columns=("a", "b", "c"))
    content = json.loads(Path(tuned.settings.out).read_text())
    file = tmp_path / "broken.json"
    for name, value in (
        ("labels", ["0"]),
        ("thresholds", {"low": None}),
        ("thresholds", {"low": 0.7}),
        ("thresholds", {"low": 0.1, "high": 0.4}),
        ("combination", {"first": -1}),
    ):
        file.write_text(json.dumps({**content, name: value}))
        with pytest.raises(
            BundleError, match=f"{name} is .*, which is not a cascade's; run assay cascade tune"
        ):
            load(file)


def test_pairs_that_a_model_was_calibrated_on_are_refused(place, tmp_path):
    """Thresholds on them would be too sure: the bundle's calibration says which rows it saw."""
    from assay.calibrate.disjoint import calibration_provenance
    from assay.labelled.rows import LabelledRows

    one, two = zip(*PAIRS[:3], strict=True)
    seen = calibration_provenance(LabelledRows(texts=one, text_pairs=two, labels=("0", "1", "0")))
    second = shutil.copytree(place / "second", tmp_path / "second")
    save_calibration(second, Calibration(provenance=seen))
    with pytest.raises(InputError, match=r"of 240 pairs were seen when .*second was trained or calibrated"):
        cascade_tune(settings_of(place, tmp_path, second=str(second)))
