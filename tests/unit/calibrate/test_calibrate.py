"""`calibrate` writes calibration.json from held-out rows alone; an error leaves the bundle as it was."""

import json
import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.bundles import WORDS as WORDS_OF_TWO
from support.bundles import write_bundle
from support.models import write_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification

from assay import metrics
from assay.bundle.calibration import save_calibration
from assay.bundle.description import Description, write_description
from assay.bundle.load import load_bundle
from assay.calibrate.calibrate import calibrate, calibrate_rows, held_out_logits
from assay.calibrate.settings import CalibrateSettings
from assay.engine.fake import FakeEngine
from assay.engine.load import load_engine
from assay.errors import InputError, StorageError, UsageError
from assay.labelled.provenance import count_seen, pack_hashes, text_hashes
from assay.labelled.rows import LabelledRows
from assay.outcome.calibration import Calibration
from assay.outcome.maps import apply_calibration
from assay.score import classifier
from assay.tasks import Task

LABELS = ("low", "mid", "high")
WORDS = tuple(f"w{index}" for index in range(60))


@pytest.fixture
def bundle(tmp_path):
    """Folder of a tiny three-label bundle whose provenance knows one training text."""
    folder = tmp_path / "bundle"
    vocabulary = {word: index for index, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
        initializer_range=1.0,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    write_description(
        folder,
        Description(
            assay_version="0",
            created="",
            task="single_label",
            labels=LABELS,
            max_length=16,
            is_pair=False,
            provenance={"text_hashes": {"train": pack_hashes(text_hashes(["w1 w2 w3"]))}},
        ),
    )
    return folder


@pytest.fixture
def rows():
    """200 texts of random words with random labels."""
    rng = random.Random(0)
    texts = tuple(" ".join(rng.choices(WORDS, k=rng.randint(4, 25))) for _ in range(200))
    return LabelledRows(texts=texts, labels=tuple(rng.choice(LABELS) for _ in texts))


def settings(bundle, **changes):
    """Settings for this bundle."""
    return CalibrateSettings(**{"bundle": str(bundle), "data": ("rows",), "num_threads": 1, **changes})


def labelled_by(logits_NC, labels, temperature, *, seed=0):
    """Labels drawn from softmax(logits / temperature): the temperature to be found."""
    rng = np.random.default_rng(seed)
    probabilities = metrics.softmax(logits_NC / temperature)
    return tuple(labels[rng.choice(len(labels), p=row)] for row in probabilities)


def test_the_file_holds_the_temperature_that_the_rows_ask_for(bundle, tmp_path):
    """Logits too large by 3 get about 3, through sources, tokenizer, engine and file."""
    rng = random.Random(1)
    texts = tuple(" ".join(rng.choices(WORDS, k=rng.randint(4, 25))) for _ in range(3000))
    loaded, engine = load_bundle(bundle), load_engine(bundle, num_threads=1)
    unlabelled = LabelledRows(texts=texts, labels=("low",) * len(texts))
    logits_NC = held_out_logits(settings(bundle), loaded, engine, unlabelled)
    labels = labelled_by(logits_NC, LABELS, 3.0)
    pq.write_table(pa.table({"text": texts, "label": labels}), tmp_path / "rows.parquet")
    report = calibrate(settings(bundle, data=(str(tmp_path / "rows.parquet"),)))
    assert report.calibration.temperature == pytest.approx(3.0, rel=0.15)
    assert report.num_rows == 3000
    assert report.after["nll"] < report.before["nll"]
    assert report.after["ece"] < report.before["ece"]
    assert report.after["accuracy"] == report.before["accuracy"]
    assert sum(each.num_rows for each in report.bins_after) == 3000
    saved = json.loads(report.file.read_text())
    assert saved["method"] == "temperature"
    assert saved["opt_metric"] == "nll"
    assert saved["meta"]["n_samples"] == 3000
    assert saved["meta"]["max_length"] == 16
    assert saved["meta"]["bundle_fingerprint"] == loaded.fingerprint
    after = load_bundle(bundle)
    assert after.calibration == report.calibration
    assert after.fingerprint != loaded.fingerprint


def test_calibrating_again_starts_from_the_plain_logits(bundle, rows):
    """An old calibration.json is replaced, never stacked upon."""
    engine = FakeEngine(output_shape=(3,))
    loaded = load_bundle(bundle)
    logits_NC = held_out_logits(settings(bundle), loaded, engine, rows)
    drawn = LabelledRows(texts=rows.texts, labels=labelled_by(logits_NC, LABELS, 0.5))
    first = calibrate_rows(settings(bundle), loaded, engine, drawn)
    again = calibrate_rows(settings(bundle), load_bundle(bundle), engine, drawn)
    assert again.calibration.temperature == first.calibration.temperature


@pytest.mark.parametrize("on_long", ["head-tail", "window-mean", "window-max"])
def test_long_documents_are_calibrated_as_they_are_scored(bundle, on_long):
    """The map is fitted to the logits that scores under these settings are made of, windows reduced."""
    rng = random.Random(3)
    texts = tuple(" ".join(rng.choices(WORDS, k=rng.randint(4, 80))) for _ in range(200))
    lengths = {"max_length": 14, "on_long": on_long, "stride": 0 if on_long == "head-tail" else 3}
    loaded, engine = load_bundle(bundle), load_engine(bundle, num_threads=1)
    unlabelled = LabelledRows(texts=texts, labels=("low",) * 200)
    logits_NC = held_out_logits(settings(bundle, **lengths), loaded, engine, unlabelled)
    cut_NC = held_out_logits(settings(bundle, max_length=14), loaded, engine, unlabelled)
    assert not np.allclose(logits_NC, cut_NC, atol=1e-3)
    drawn = LabelledRows(texts=texts, labels=labelled_by(logits_NC, LABELS, 2.0))
    report = calibrate_rows(settings(bundle, **lengths), loaded, engine, drawn)
    assert {name: report.calibration.meta.get(name, 0) for name in lengths} == lengths
    scored = classifier.load(bundle, **lengths).predict(texts)
    expected = apply_calibration(logits_NC, report.calibration, Task.SINGLE_LABEL)
    found = np.stack([scored[f"prob_{label}"].to_numpy() for label in LABELS], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_text_that_may_not_be_cut_is_refused(bundle, rows):
    """Under the policy error a long text has no score, so no map is fitted to the others."""
    asked = settings(bundle, max_length=8, on_long="error")
    with pytest.raises(InputError, match=r"\d+ too_long of 200 rows cannot be scored"):
        calibrate_rows(asked, load_bundle(bundle), FakeEngine(output_shape=(3,)), rows)


def test_logits_come_in_the_order_of_the_rows(bundle, rows):
    """Whatever the batches: a row alone has the logits it has among others."""
    engine = FakeEngine(output_shape=(3,))
    loaded = load_bundle(bundle)
    together = held_out_logits(settings(bundle, max_batch_tokens=64), loaded, engine, rows)
    alone = [held_out_logits(settings(bundle), loaded, engine, rows.take([row])) for row in (0, 7, 199)]
    np.testing.assert_array_equal(together[[0, 7, 199]], np.concatenate(alone))


def test_applying_the_report_gives_its_metrics(bundle, rows):
    """`after` is what apply_calibration makes of the logits."""
    engine = FakeEngine(output_shape=(3,))
    loaded = load_bundle(bundle)
    logits_NC = held_out_logits(settings(bundle), loaded, engine, rows)
    drawn = LabelledRows(texts=rows.texts, labels=labelled_by(logits_NC, LABELS, 2.0))
    report = calibrate_rows(settings(bundle), loaded, engine, drawn)
    probabilities = apply_calibration(logits_NC, report.calibration, Task.SINGLE_LABEL)
    indices = np.array([LABELS.index(label) for label in drawn.labels])
    assert metrics.class_report(probabilities, indices) == dict(report.after)


def test_few_rows_and_a_map_that_makes_it_worse_are_said(bundle, rows):
    """40 rows are too few, 200 are not; curves of 200 rows harm a model that is calibrated as it is."""
    loaded, engine = load_bundle(bundle), FakeEngine(output_shape=(3,))
    logits_NC = held_out_logits(settings(bundle), loaded, engine, rows)
    good = LabelledRows(texts=rows.texts, labels=labelled_by(logits_NC, LABELS, 1.0))
    few = calibrate_rows(settings(bundle), loaded, engine, good.take(list(range(40))))
    assert "note: only 40 rows: too few to tell signal from chance; give a few hundred" in str(few)
    harmed = calibrate_rows(settings(bundle, method="isotonic"), loaded, engine, good)
    before, honest = harmed.before["nll"], harmed.cross_validated["nll"]
    assert honest > before
    assert f"calibration makes it worse: NLL {before:.4f} -> {honest:.4f}" in str(harmed)
    assert "note: only" not in str(harmed)
    unsure = LabelledRows(texts=rows.texts, labels=labelled_by(logits_NC, LABELS, 3.0))
    assert "makes it worse" not in str(calibrate_rows(settings(bundle), loaded, engine, unsure))


# ---------------------------------------------------------------- refusals: the old file stays


def test_coverage_is_a_regressions(bundle, rows, old_calibration):
    """A classifier has no intervals; the setting is not ignored."""
    refused(bundle, rows, UsageError, "coverage=0.5; .* leave --coverage out", coverage=0.5)
    assert (bundle / "calibration.json").read_bytes() == old_calibration


@pytest.fixture
def old_calibration(bundle):
    """A calibration.json that must survive a refusal."""
    return save_calibration(bundle, Calibration(temperature=1.25)).read_bytes()


def refused(bundle, rows, error, match, **changes):
    """Asserts the refusal."""
    with pytest.raises(error, match=match):
        calibrate_rows(settings(bundle, **changes), load_bundle(bundle), FakeEngine(output_shape=(3,)), rows)


def test_rows_of_the_training_are_refused(bundle, rows, old_calibration):
    """Counted by role; white space around the text does not hide it."""
    seen = LabelledRows(texts=(" w1 w2 w3\n", *rows.texts), labels=("low", *rows.labels))
    refused(bundle, seen, InputError, "of 201 rows the training of .* has seen 1 as train rows")
    assert (bundle / "calibration.json").read_bytes() == old_calibration


def test_unknown_labels_are_refused(bundle, rows, old_calibration):
    """Both the stray labels and the bundle's are shown."""
    strange = LabelledRows(texts=rows.texts, labels=("huge", *rows.labels[1:]))
    refused(bundle, strange, InputError, r"labels \['huge'\]; .* knows \['low', 'mid', 'high'\]")
    assert (bundle / "calibration.json").read_bytes() == old_calibration


def test_a_plain_folder_without_label_names_takes_numbers(tmp_path):
    """0 and 1 are LABEL_0 and LABEL_1, as in evaluation: what can be evaluated can be calibrated."""
    folder = write_model(tmp_path / "plain", labels=("LABEL_0", "LABEL_1"))
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS_OF_TWO, k=6)) for _ in range(40)]
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": texts, "label": [rng.randrange(2) for _ in texts]}), file)
    assert (
        calibrate(CalibrateSettings(bundle=str(folder), data=(str(file),), method="isotonic")).num_rows == 40
    )


def test_a_read_only_bundle_is_refused_before_a_row_is_read(bundle, monkeypatch):
    """Its calibration would be found and could not be written."""
    monkeypatch.setattr("assay.calibrate.calibrate.os.access", lambda *_: False)
    with pytest.raises(StorageError, match=r"calibration\.json is written there and it is read-only"):
        calibrate(CalibrateSettings(bundle=str(bundle), data=("no such rows.parquet",)))


def test_a_length_beyond_the_model_is_refused(bundle, rows, old_calibration):
    """The model's own limit is shown."""
    refused(bundle, rows, UsageError, "max_length 64; .* takes 1 to 32 tokens", max_length=64)


def test_rows_that_teach_no_temperature_are_refused(bundle, rows, old_calibration):
    """All predictions right: the fit's own error, and the old file stays."""
    loaded = load_bundle(bundle)
    logits_NC = held_out_logits(settings(bundle), loaded, FakeEngine(output_shape=(3,)), rows)
    right = LabelledRows(texts=rows.texts, labels=tuple(LABELS[index] for index in logits_NC.argmax(axis=1)))
    refused(bundle, right, InputError, "predicted right")
    assert (bundle / "calibration.json").read_bytes() == old_calibration


def test_one_label_alone_is_refused(bundle, rows, old_calibration):
    """A calibration that has only met one label knows nothing of the others."""
    alike = LabelledRows(texts=rows.texts, labels=("mid",) * 200)
    refused(bundle, alike, InputError, "all 200 rows are labelled 'mid'")
    assert (bundle / "calibration.json").read_bytes() == old_calibration


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"method": "logistic"},
            "method=logistic; a single_label bundle of 3 outputs takes temperature, vector",
        ),
        ({"method": "conformal"}, "method=conformal"),
        ({"threshold_by": "f1"}, "a single_label bundle of 3 outputs; a threshold needs two labels"),
    ],
)
def test_what_the_bundle_cannot_have_is_refused(bundle, rows, old_calibration, changes, match):
    """Before anything runs, with what it can have."""
    refused(bundle, rows, UsageError, match, **changes)
    assert (bundle / "calibration.json").read_bytes() == old_calibration


def test_a_model_that_gives_nan_is_refused(bundle, rows, old_calibration):
    """Weights that overflow are found before a map is fitted to them."""

    class Broken(FakeEngine):
        def forward(self, batch):
            return super().forward(batch) * float("nan")

    with pytest.raises(InputError, match="200 of 200 rows have logits that are not finite"):
        calibrate_rows(settings(bundle), load_bundle(bundle), Broken(output_shape=(3,)), rows)
    assert (bundle / "calibration.json").read_bytes() == old_calibration


# ---------------------------------------------------------------- disjoint from training, early stopping and test


def with_provenance(bundle, **roles):
    """The bundle, its provenance replaced: `train_texts=[...]`, `validation_groups=[...]` and so on."""
    provenance = {}
    for name, values in roles.items():
        role, kind = name.split("_")
        provenance.setdefault(f"{kind[:-1]}_hashes", {})[role] = pack_hashes(text_hashes(values))
    content = json.loads((bundle / "assay.json").read_text())
    (bundle / "assay.json").write_text(json.dumps({**content, "provenance": provenance}))
    return bundle


def named(rows, **columns):
    """The rows with ids and groups."""
    return LabelledRows(texts=rows.texts, labels=rows.labels, **columns)


@pytest.mark.parametrize(
    ("role", "kind"),
    [("train", "ids"), ("validation", "ids"), ("train", "groups"), ("validation", "groups")],
)
def test_rows_of_a_known_id_or_group_are_refused(bundle, rows, old_calibration, role, kind):
    """One set for early stopping, temperature and threshold is what this stops; an edited text does not hide it."""
    values = tuple(f"{kind} {number // 4}" for number in range(200))
    with_provenance(bundle, train_texts=["other"], **{f"{role}_{kind}": [f"{kind} 7", "else"]})
    count = 4
    refused(
        bundle,
        named(rows, **{kind: values}),
        InputError,
        f"of 200 rows the training of .* has seen {count} as {role} rows by {kind[:-1]}",
    )
    assert (bundle / "calibration.json").read_bytes() == old_calibration


def test_rows_that_chose_the_checkpoint_are_refused(bundle, rows):
    """Early stopping has looked at them: they are as good as trained on."""
    with_provenance(bundle, validation_texts=list(rows.texts[:3]))
    refused(bundle, rows, InputError, "has seen 3 as validation rows;")


@pytest.mark.parametrize("kind", ["text", "id", "group"])
def test_rows_shared_with_the_test_are_refused(bundle, rows, kind):
    """By text, by id and by group; rows of the test that are others pass."""
    ids = tuple(f"id {number}" for number in range(200))
    groups = tuple(f"group {number // 10}" for number in range(200))
    mine = named(rows, ids=ids, groups=groups)
    test = LabelledRows(
        texts=("a text of the test", rows.texts[0] if kind == "text" else "another"),
        labels=("low", "low"),
        ids=("test 1", "id 0" if kind == "id" else "test 2"),
        groups=("group test", "group 0" if kind == "group" else "group test"),
    )
    engine, loaded = FakeEngine(output_shape=(3,)), load_bundle(bundle)
    shared = 10 if kind == "group" else 1
    with pytest.raises(
        InputError, match=f"{shared} of 200 calibration rows share their {kind} with test rows"
    ):
        calibrate_rows(settings(bundle), loaded, engine, mine, test)
    logits_NC = held_out_logits(settings(bundle), loaded, engine, rows)
    good = LabelledRows(texts=rows.texts, labels=labelled_by(logits_NC, LABELS, 2.0), ids=ids, groups=groups)
    assert calibrate_rows(settings(bundle), loaded, engine, good, test.take([0])).num_rows == 200


def test_what_could_not_be_compared_is_said(bundle, rows):
    """A bundle that keeps no ids cannot vouch for them: the report says so, and what the bundle itself has to say."""
    engine, loaded = FakeEngine(output_shape=(3,)), load_bundle(bundle)
    logits_NC = held_out_logits(settings(bundle), loaded, engine, rows)
    good = LabelledRows(
        texts=rows.texts,
        labels=labelled_by(logits_NC, LABELS, 2.0),
        ids=tuple(map(str, range(200))),
    )
    report = calibrate_rows(settings(bundle), loaded, engine, good)
    assert [note.split(":")[0] for note in report.notes] == ["ids not compared with the training"]
    noted = replace(loaded, notes=("a file of another model is not used",))
    report = calibrate_rows(settings(bundle), noted, engine, good)
    assert report.notes[0] == "a file of another model is not used"


def test_the_calibration_rows_are_kept_for_the_test(bundle, rows):
    """Hashes of texts and groups travel in calibration.json, so that an evaluation can find them in its rows."""
    engine, loaded = FakeEngine(output_shape=(3,)), load_bundle(bundle)
    logits_NC = held_out_logits(settings(bundle), loaded, engine, rows)
    good = LabelledRows(
        texts=rows.texts,
        labels=labelled_by(logits_NC, LABELS, 2.0),
        groups=tuple(str(number % 7) for number in range(200)),
    )
    calibrate_rows(settings(bundle), loaded, engine, good)
    kept = load_bundle(bundle).calibration.provenance
    seen = count_seen(text_hashes([rows.texts[3], "new"]), kept)
    assert seen == {"calibration": 1}
    assert count_seen(text_hashes(["6", "7"]), kept, "group") == {"calibration": 1}


# ---------------------------------------------------------------- methods and thresholds


def test_what_is_reported_of_these_rows_is_marked_and_stands_beside_cross_validated_figures(bundle, rows):
    """In-sample figures never stand alone: those of the same map on rows left out are in the report and the file."""
    engine, loaded = FakeEngine(output_shape=(3,)), load_bundle(bundle)
    logits_NC = held_out_logits(settings(bundle), loaded, engine, rows)
    drawn = LabelledRows(texts=rows.texts, labels=labelled_by(logits_NC, LABELS, 3.0))
    report = calibrate_rows(settings(bundle, method="isotonic"), loaded, engine, drawn)
    assert report.after["nll"] < report.cross_validated["nll"]
    assert report.after["brier"] < report.cross_validated["brier"]
    text = str(report)
    assert "(in-sample: evaluate on others)" in text
    assert f"cross-validated NLL {report.cross_validated['nll']:.4f}" in text
    saved = json.loads(report.file.read_text())
    assert saved["meta"]["cross_validated"] == dict(report.cross_validated)
    assert saved["meta"]["cross_validated_by"] == "5 folds"
    assert saved["opt_metric"] == "brier"


@pytest.mark.parametrize("method", ["vector", "isotonic"])
def test_what_is_saved_is_what_is_applied(bundle, rows, method):
    """The loaded bundle gives the probabilities of the report, and each method is another bundle."""
    engine, loaded = FakeEngine(output_shape=(3,)), load_bundle(bundle)
    logits_NC = held_out_logits(settings(bundle), loaded, engine, rows)
    drawn = LabelledRows(texts=rows.texts, labels=labelled_by(logits_NC, LABELS, 3.0))
    plain = calibrate_rows(settings(bundle), loaded, engine, drawn)
    before = load_bundle(bundle).fingerprint
    report = calibrate_rows(settings(bundle, method=method), loaded, engine, drawn)
    after = load_bundle(bundle)
    assert after.calibration == report.calibration
    assert after.fingerprint not in {before, loaded.fingerprint}
    indices = np.array([LABELS.index(label) for label in drawn.labels])
    probabilities = apply_calibration(logits_NC, after.calibration, Task.SINGLE_LABEL)
    assert metrics.class_report(probabilities, indices) == dict(report.after)
    assert report.after["nll"] < plain.after["nll"]


def test_auto_reports_what_it_compared(bundle, rows):
    """By group, with every figure; the choice is the least of them."""
    engine, loaded = FakeEngine(output_shape=(3,)), load_bundle(bundle)
    logits_NC = held_out_logits(settings(bundle), loaded, engine, rows)
    drawn = LabelledRows(
        texts=rows.texts,
        labels=labelled_by(logits_NC, LABELS, 3.0),
        groups=tuple(str(number % 20) for number in range(200)),
    )
    report = calibrate_rows(settings(bundle, method="auto", select_by="ece"), loaded, engine, drawn)
    assert min(report.tried, key=report.tried.get) == report.calibration.method
    assert set(report.tried) == {"temperature", "vector", "isotonic"}
    meta = json.loads(report.file.read_text())["meta"]
    assert meta["compared"] == dict(report.tried)
    assert (meta["select_by"], meta["cross_validated_by"], meta["n_groups"]) == (
        "ece",
        "5 folds by group",
        20,
    )
    assert "chosen by cross-validated ece: " in str(report)


def test_auto_without_enough_groups_is_refused(bundle, rows):
    """There is nothing to compare by; a temperature alone is fitted, and says that it was not put to the test."""
    engine, loaded = FakeEngine(output_shape=(3,)), load_bundle(bundle)
    logits_NC = held_out_logits(settings(bundle), loaded, engine, rows)
    drawn = LabelledRows(
        texts=rows.texts, labels=labelled_by(logits_NC, LABELS, 3.0), groups=("one",) * 100 + ("two",) * 100
    )
    with pytest.raises(InputError, match="method=auto compares by cross-validation; 2 groups"):
        calibrate_rows(settings(bundle, method="auto"), loaded, engine, drawn)
    report = calibrate_rows(settings(bundle), loaded, engine, drawn)
    assert report.cross_validated == {}
    assert "not cross-validated: 2 groups" in str(report)


@pytest.fixture
def pair_of_labels(tmp_path):
    """A tiny bundle of two labels, 400 rows whose labels follow its logits, and its engine."""
    folder = write_bundle(tmp_path / "two")
    rng = random.Random(2)
    texts = tuple(" ".join(rng.choices(WORDS_OF_TWO, k=rng.randint(3, 20))) for _ in range(400))
    loaded, engine = load_bundle(folder), FakeEngine(output_shape=(2,))
    unlabelled = LabelledRows(texts=texts, labels=("ham",) * 400)
    logits_NC = held_out_logits(settings(folder), loaded, engine, unlabelled)
    spread = logits_NC - logits_NC.mean(axis=0)
    labels = labelled_by(spread * 6, ("ham", "spam"), 1.0)
    return folder, LabelledRows(texts=texts, labels=labels), engine


def test_a_threshold_is_found_reported_and_applied(pair_of_labels):
    """calibration.json has all that it promises, and the threshold decides what a scored row says."""
    folder, rows, engine = pair_of_labels
    loaded = load_bundle(folder)
    chosen = settings(folder, method="logistic", threshold_by="precision_at_recall", min_recall=0.9)
    report = calibrate_rows(chosen, loaded, engine, rows)
    saved = json.loads(report.file.read_text())
    assert saved["opt_metric"] == "precision_at_recall"
    assert saved["method"] == "logistic"
    assert 0 < saved["threshold"] < 1
    wanted = {"threshold", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "f0.5", "f2"}
    assert wanted <= set(saved["selection_metrics"])
    assert saved["selection_metrics"]["recall"] >= 0.9
    assert saved["selection_metrics"]["threshold"] == saved["threshold"]
    assert saved["meta"]["threshold_by"] == {"by": "precision_at_recall", "min_recall": 0.9}
    assert {"precision", "recall"} <= set(saved["meta"]["cross_validated"])
    after = load_bundle(folder)
    logits_NC = held_out_logits(chosen, after, engine, rows)
    spam = np.array([label == "spam" for label in rows.labels])
    assert after.decider.decide(logits_NC).label_N[spam].mean() == pytest.approx(
        saved["selection_metrics"]["recall"]
    )


def test_a_threshold_that_is_gone_is_missed(pair_of_labels):
    """A new map without a threshold takes the old one away, which belonged to other probabilities; it is said."""
    folder, rows, engine = pair_of_labels
    calibrate_rows(settings(folder, threshold_by="f1"), load_bundle(folder), engine, rows)
    again = calibrate_rows(settings(folder), load_bundle(folder), engine, rows)
    assert again.calibration.threshold is None
    assert "note: the old threshold 0." in str(again)


def test_a_constraint_is_never_dropped(pair_of_labels):
    """Precision that no threshold reaches: an error with the best there is, and no file."""
    folder, rows, engine = pair_of_labels
    # The surest row of all is wrong, so no threshold has a precision of 1.
    loaded = load_bundle(folder)
    logits_NC = held_out_logits(settings(folder), loaded, engine, rows)
    top = int((logits_NC[:, 1] - logits_NC[:, 0]).argmax())
    labels = tuple("ham" if row == top else label for row, label in enumerate(rows.labels))
    wrong = LabelledRows(texts=rows.texts, labels=labels)
    asked = settings(folder, threshold_by="recall_at_precision", min_precision=1.0)
    with pytest.raises(InputError, match=r"precision 1 is asked for; the best that .* is 0\.\d{4}; lower"):
        calibrate_rows(asked, loaded, engine, wrong)
    assert not (folder / "calibration.json").exists()


def test_a_multi_label_bundle(tmp_path):
    """List labels through a file, a map and a threshold a label, metrics of each label in the file."""
    folder = write_model(tmp_path / "multi", labels=("a", "b", "c"), task="multi_label")
    loaded, engine = load_bundle(folder), load_engine(folder, num_threads=1)
    rng, draw = random.Random(2), np.random.default_rng(2)
    texts = tuple(" ".join(rng.choices(WORDS_OF_TWO, k=rng.randint(3, 20))) for _ in range(300))
    logits_NC = held_out_logits(
        settings(folder), loaded, engine, LabelledRows(texts=texts, labels=((),) * 300)
    )
    holds = draw.random(logits_NC.shape) < metrics.sigmoid(4 * (logits_NC - logits_NC.mean(axis=0)))
    labels = [[name for name, held in zip("abc", row, strict=True) if held] for row in holds]
    pq.write_table(pa.table({"text": texts, "label": labels}), tmp_path / "rows.parquet")
    report = calibrate(
        settings(folder, data=(str(tmp_path / "rows.parquet"),), method="logistic", threshold_by="f1")
    )
    calibration = load_bundle(folder).calibration
    assert calibration == report.calibration
    assert len(calibration.scale) == len(calibration.threshold) == 3
    assert set(report.calibration.meta["by_label"]) == {"a", "b", "c"}
    named = zip("abc", calibration.threshold, strict=True)
    assert [f"  {label} {threshold:.4f}" for label, threshold in named] == [
        line for line in str(report).splitlines() if line[:4] in {"  a ", "  b ", "  c "}
    ]
    table = classifier.load(folder).predict(texts)
    for label, threshold in zip("abc", calibration.threshold, strict=True):
        held = [label in held for held in table["labels"].to_pylist()]
        assert held == (table[f"prob_{label}"].to_numpy() >= np.float32(threshold)).tolist()
    assert report.cross_validated["ece"] < report.before["ece"]
    assert sum(each.num_rows for each in report.bins_after) == 900


def test_a_regression_bundle_has_intervals(tmp_path):
    """The promise is in the file, the measured coverage beside it, and scoring has the bounds."""
    folder = write_model(tmp_path / "regression", labels=("score",), task="regression")
    loaded, engine = load_bundle(folder), load_engine(folder, num_threads=1)
    rng, draw = random.Random(2), np.random.default_rng(2)
    texts = tuple(" ".join(rng.choices(WORDS_OF_TWO, k=rng.randint(3, 20))) for _ in range(400))
    values = held_out_logits(
        settings(folder), loaded, engine, LabelledRows(texts=texts, labels=(0.0,) * 400)
    )[:, 0]
    targets = values + draw.normal(size=400) * 0.3
    report = calibrate_rows(
        settings(folder, coverage=0.8),
        loaded,
        engine,
        LabelledRows(texts=texts, labels=tuple(targets.tolist())),
    )
    calibration = load_bundle(folder).calibration
    assert calibration == report.calibration
    assert (calibration.method, calibration.coverage) == ("conformal", 0.8)
    # 1.28 standard deviations of the noise hold 80% of it.
    assert calibration.half_width == pytest.approx(1.28 * 0.3, rel=0.15)
    assert report.cross_validated["coverage"] == pytest.approx(0.8, abs=0.06)
    assert "coverage 0.8 promised, 0." in str(report)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ((1.0,) * 5, r"5 rows; intervals of coverage 0\.9 need 9"),
        ((1.0, float("nan")) * 10, "10 targets are not finite"),
    ],
)
def test_a_regression_that_cannot_keep_its_promise_is_refused(tmp_path, labels, match):
    """Too few rows for the coverage, or targets that are not numbers."""
    folder = write_model(tmp_path / "regression", labels=("score",), task="regression")
    rows = LabelledRows(texts=tuple(f"document {n}" for n in range(len(labels))), labels=labels)
    with pytest.raises(InputError, match=match):
        calibrate_rows(settings(folder), load_bundle(folder), FakeEngine(output_shape=(1,)), rows)
    with pytest.raises(UsageError, match="a threshold needs two labels"):
        calibrate_rows(
            settings(folder, threshold_by="f1"), load_bundle(folder), FakeEngine(output_shape=(1,)), rows
        )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"threshold_by": "precision_at_recall"}, "needs min_recall; give --min-recall"),
        ({"threshold_by": "recall_at_precision"}, "needs min_precision; give --min-precision"),
        ({"threshold_by": "cost", "cost_false_positive": 1.0}, "needs cost_false_negative"),
        ({"min_recall": 0.9}, "min_recall=0.9 belongs to threshold_by=precision_at_recall"),
        ({"threshold_by": "f1", "cost_false_positive": 1.0}, "belongs to threshold_by=cost"),
        ({"threshold_by": "precision_at_recall", "min_recall": 1.5}, "min_recall is 1.5; it must be above 0"),
        ({"threshold_by": "cost", "cost_false_positive": 0, "cost_false_negative": 0}, "are both 0"),
        (
            {"threshold_by": "cost", "cost_false_positive": -1, "cost_false_negative": 1},
            "cost_false_positive is -1; it must be at least 0",
        ),
        ({"coverage": 1.0}, "coverage is 1.0; it must be above 0 and below 1"),
        (
            {"select_by": "ece"},
            "select_by=ece belongs to method=auto; give --method auto, or leave --select-by out",
        ),
        ({"select_by": "brier", "method": "vector"}, "belongs to method=auto"),
        ({"num_folds": 1}, "num_folds is 1; it must be at least 2"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, match):
    """What belongs to a goal is given with it, and only then."""
    with pytest.raises(UsageError, match=match):
        settings("b", **changes)
