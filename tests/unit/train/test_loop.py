"""The loop: the losses of a plain loop over transformers, the best weights, early stopping, advice on memory."""

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from support.configs import PACKED_CONFIGS, PADDED_CONFIGS
from support.training import animal_rows, assert_same_curves, plain_training, settings, write_base
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from assay import metrics
from assay.bundle.load import load_bundle
from assay.errors import UsageError, WorkError
from assay.labelled.labels import to_targets
from assay.labelled.rows import LabelledRows
from assay.tasks import Task
from assay.telemetry import format_rate
from assay.train import predict
from assay.train.batches import learning_rate_factor
from assay.train.model import PackedClassifier, PaddedClassifier
from assay.train.step import PassStepper
from assay.train.train import fit

NO_PADS = {"pad_token_id": 0}
FAMILIES = {
    **{name: PACKED_CONFIGS[name] for name in ("bert", "roberta", "distilbert", "modernbert")},
    "deberta-v2": PADDED_CONFIGS["deberta-v2"],
}


@pytest.fixture(scope="session")
def base_of(tmp_path_factory):
    """Makes the folder of an encoder of a family; padding has the tokenizer's id."""
    made = {}

    def make(name):
        if name not in made:
            config = FAMILIES[name]
            values = {key: value for key, value in config.to_dict().items() if key not in NO_PADS}
            config = type(config).from_dict({**values, **NO_PADS})
            made[name] = write_base(tmp_path_factory.mktemp(name), config)
        return made[name]

    return make


@pytest.mark.parametrize("name", FAMILIES)
def test_losses_are_those_of_a_plain_loop(name, base_of, tmp_path):
    """Packed or padded, the curve of a loop over the library's own classifier; the last step has fewer rows."""
    rows, held_out = animal_rows(21, seed=3), animal_rows(8, seed=4)
    chosen = settings(base_of(name), tmp_path / "b", epochs=2, learning_rate=1e-3, dropout=0.0)
    report = fit(chosen, rows, held_out)
    assert len(report.history.losses) == 6
    assert_same_curves(report.history, *plain_training(chosen, rows))


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 4, "gradient_accumulation": 2},
        {"max_batch_tokens": 24},
        {"gradient_checkpointing": True},
    ],
)
@pytest.mark.parametrize("name", ["bert", "deberta-v2"])
def test_how_a_step_is_cut_changes_nothing(name, change, base_of, tmp_path):
    """Accumulated, in passes of few tokens, or computed twice: the step is that of one batch of 8."""
    rows, held_out = animal_rows(21, seed=3), animal_rows(8, seed=4)
    values = {"epochs": 2, "learning_rate": 1e-3, "dropout": 0.0}
    plain = settings(base_of(name), tmp_path / "unused", **values)
    report = fit(settings(base_of(name), tmp_path / "b", **values, **change), rows, held_out)
    assert_same_curves(report.history, *plain_training(plain, rows))


def task_rows(task, num_rows, *, seed):
    """Rows of a task: animals as a set, their number as a score, or the second text's animal."""
    rows = animal_rows(num_rows, seed=seed)
    if task == "multi_label":
        labels = [
            tuple(word for word in ("cat", "dog", "red") if word in text.split()) for text in rows.texts
        ]
    else:
        labels = [1.0 + 2 * ("cat" in text.split()) + ("red" in text.split()) for text in rows.texts]
    return LabelledRows(texts=rows.texts, labels=tuple(labels))


@pytest.mark.parametrize("task", ["multi_label", "regression"])
def test_other_tasks_have_the_losses_of_transformers(task, base, tmp_path):
    """The library's `problem_type` decides on its loss; ours is the same on padded batches, step by step."""
    rows, held_out = task_rows(task, 21, seed=3), task_rows(task, 8, seed=4)
    chosen = settings(base, tmp_path / "b", epochs=2, learning_rate=1e-3, dropout=0.0, task=task)
    report = fit(chosen, rows, held_out)
    assert_same_curves(report.history, *plain_training(chosen, rows))


def test_pairs_have_the_losses_of_transformers(base, tmp_path):
    """Token types of the second text are those of the library's tokenizer."""
    everything = animal_rows(29, seed=3)
    pairs = LabelledRows(
        texts=everything.texts, labels=everything.labels, text_pairs=tuple(reversed(everything.texts))
    )
    rows, held_out = pairs.take(range(21)), pairs.take(range(21, 29))
    chosen = settings(base, tmp_path / "b", epochs=2, learning_rate=1e-3, dropout=0.0, max_length=64)
    report = fit(chosen, rows, held_out)
    assert_same_curves(report.history, *plain_training(chosen, rows))
    assert report.num_truncated == 0


# ---------------------------------------------------------------- tasks learned, and saved


def logits_of(folder, rows):
    """Logits [N, C] by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    texts = [list(rows.texts)] if rows.text_pairs is None else [list(rows.texts), list(rows.text_pairs)]
    with torch.inference_mode():
        return model(**tokenizer(*texts, padding=True, return_tensors="pt")).logits.numpy()


def remeasured(folder, task, rows, names, int_score=None):
    """The validation metrics of a bundle, from its logits under transformers."""
    logits = logits_of(folder, rows)
    outputs = {"single_label": metrics.softmax, "multi_label": metrics.sigmoid}.get(task, np.asarray)(logits)
    return metrics.validation_metrics(Task(task), outputs, to_targets(rows.labels, task, names), int_score)


def assert_saved_as_reported(report, task, rows, int_score=None):
    """The bundle opens in transformers, and has the metrics that the report claims."""
    found = remeasured(report.out, task, rows, report.labels, int_score)
    assert dict(report.validation) == pytest.approx(found, rel=1e-4, abs=1e-5, nan_ok=True)


def test_multi_label_is_learned(base, tmp_path):
    """Any number of labels a row, none included; counts by label go into the bundle."""
    rows, held_out = task_rows("multi_label", 96, seed=1), task_rows("multi_label", 40, seed=2)
    report = fit(
        settings(base, tmp_path / "b", task="multi_label", epochs=12, class_weights="balanced"),
        rows,
        held_out,
    )
    assert report.validation["macro_f1"] >= 0.8
    assert_saved_as_reported(report, "multi_label", held_out)
    bundle = load_bundle(report.out)
    assert (bundle.task, bundle.labels) == ("multi_label", ("cat", "dog", "red"))
    counts = {name: sum(name in label for label in rows.labels) for name in bundle.labels}
    assert bundle.provenance["num_rows_by_label"] == counts


def test_regression_is_learned_with_whole_scores(base, tmp_path):
    """Scores of 1 to 5 by their rank and error, and rounded and clipped by macro-F1; the bundle knows the range."""
    rows, held_out = task_rows("regression", 96, seed=1), task_rows("regression", 40, seed=2)
    chosen = settings(
        base,
        tmp_path / "b",
        task="regression",
        epochs=20,
        int_score_min=1,
        int_score_max=5,
        best_by="int_macro_f1",
    )
    report = fit(chosen, rows, held_out)
    assert report.validation["spearman"] >= 0.8
    assert report.validation["int_macro_f1"] >= 0.6
    assert_saved_as_reported(report, "regression", held_out, (1, 5))
    assert load_bundle(report.out).int_score == (1, 5)


@pytest.mark.parametrize("change", [{"freeze_encoder": True}, {"lora_rank": 4}])
def test_a_part_of_the_model_is_trained(change, base, rows, tmp_path):
    """Head alone, or LoRA: the bundle is a plain model of transformers whose metrics are those reported."""
    report = fit(settings(base, tmp_path / "b", **change), *rows)
    assert_saved_as_reported(report, "single_label", rows[1])
    before = AutoModelForSequenceClassification.from_pretrained(base).bert.state_dict()
    after = AutoModelForSequenceClassification.from_pretrained(report.out).state_dict()
    changed = {key for key, each in before.items() if not torch.equal(after[f"bert.{key}"], each)}
    assert bool(changed) == ("lora_rank" in change)
    assert not [key for key in changed if "embeddings" in key or "norm" in key.lower()]
    assert not [key for key in after if "lora" in key]


def test_lora_learns(base, rows, tmp_path):
    """Updates of rank 8 are enough for the animals."""
    report = fit(
        settings(base, tmp_path / "b", lora_rank=8, lora_alpha=32, epochs=12, learning_rate=1e-2), *rows
    )
    assert report.validation["accuracy"] >= 0.8


def test_lower_layers_learn_slower(base, rows, tmp_path):
    """With a decay of a thousandth a layer the embeddings barely move and the head does."""
    report = fit(settings(base, tmp_path / "b", layer_decay=1e-3, epochs=1, weight_decay=0.0), *rows)
    before = AutoModelForSequenceClassification.from_pretrained(base).bert.state_dict()
    after = AutoModelForSequenceClassification.from_pretrained(report.out).bert.state_dict()

    def moved(name):
        return float((after[name] - before[name]).abs().max())

    query = "encoder.layer.{}.attention.self.query.weight"
    found = [moved("embeddings.word_embeddings.weight"), moved(query.format(0)), moved(query.format(1))]
    assert found == sorted(found)
    assert found[0] < 1e-2 * found[1] < 1e-4 * 5e-3 * 8 * 10
    assert found[2] > 0


@pytest.mark.parametrize("change", [{"class_weights": "balanced"}, {"label_smoothing": 0.2}])
def test_class_weights_and_smoothing_change_what_is_learned(change, base, tmp_path):
    """Both reach the loss: the curve is another one; metrics of validation rows stay as they are defined."""
    everything = animal_rows(120, seed=5)
    dogs = [row for row, label in enumerate(everything.labels) if label == "dog"]
    cats = [row for row, label in enumerate(everything.labels) if label == "cat"]
    rows, held_out = everything.take([*dogs[:45], *cats[:5]]), everything.take([*dogs[45:60], *cats[45:60]])
    plain = fit(settings(base, tmp_path / "a", epochs=2), rows, held_out)
    changed = fit(settings(base, tmp_path / "b", epochs=2, **change), rows, held_out)
    assert changed.history.losses != pytest.approx(plain.history.losses, rel=1e-2)
    assert_saved_as_reported(changed, "single_label", held_out)


# ---------------------------------------------------------------- the weights that are kept


def test_the_best_weights_are_kept_although_later_ones_are_worse(base, rows, tmp_path):
    """By NLL, which ends worse under a wild learning rate: the bundle has the best one's, not the last one's."""
    chosen = settings(
        base,
        tmp_path / "b",
        epochs=6,
        learning_rate=3e-2,
        schedule="constant",
        best_by="nll",
        evaluate_every=3,
    )
    report = fit(chosen, *rows)
    values = [each.metrics["nll"] for each in report.history.validations]
    assert values[-1] > min(values), "the case shows nothing where the last is the best"
    assert report.best.step == 3 * (1 + int(np.argmin(values)))
    assert report.validation["nll"] == min(values)
    assert_saved_as_reported(report, "single_label", rows[1])


def test_validations_come_every_so_many_steps_and_at_the_end(base, rows, tmp_path):
    """Of 16 steps: after 5, 10, 15 and the last one; the mean training loss is that of the steps between."""
    report = fit(settings(base, tmp_path / "b", epochs=2, evaluate_every=5), *rows)
    validations = report.history.validations
    assert [each.step for each in validations] == [5, 10, 15, 16]
    assert [each.epoch for each in validations] == pytest.approx([0.625, 1.25, 1.875, 2.0])
    assert validations[1].train_loss == pytest.approx(np.mean(report.history.losses[5:10]))


@pytest.mark.parametrize("name", ["bert", "deberta-v2"])
def test_looking_at_the_validation_rows_changes_nothing_that_is_learned(name, base_of, tmp_path):
    """Dropout is off while they are looked at and on again afterwards, packed or padded: every loss is the same."""
    rows, held_out = animal_rows(32, seed=3), animal_rows(8, seed=4)
    losses = [
        fit(
            settings(base_of(name), tmp_path / f"{every}", epochs=2, dropout=0.3, evaluate_every=every),
            rows,
            held_out,
        ).history.losses
        for every in (1, None)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("patience", "steps"), [(1, 3), (2, 6), (None, 8)])
def test_patience_ends_the_training_after_so_many_validations_without_a_better_one(
    patience, steps, base, rows, tmp_path, monkeypatch
):
    """Accuracies of 0.5 0.7 0.7 0.9 0.6 0.6 ...: a tie of higher loss is no better one."""
    script = iter([(0.5, 3), (0.7, 2), (0.7, 2.5), (0.9, 2), (0.6, 2), (0.6, 2), (0.6, 2), (0.6, 2)])

    def scripted(*_):
        accuracy, nll = next(script)
        return {"accuracy": accuracy, "nll": nll}

    monkeypatch.setattr(metrics, "validation_metrics", scripted)
    chosen = settings(base, tmp_path / "b", epochs=1, evaluate_every=1, patience=patience)
    report = fit(chosen, *rows)
    assert len(report.history.losses) == steps
    assert report.best.step == (2 if patience == 1 else 4)
    assert f"weights of step {report.best.step} of {steps}" in str(report)


def test_the_last_of_a_metric_that_is_no_number_is_not_the_best(base, rows, tmp_path, monkeypatch):
    """NaN compares with nothing; a number beats it, and it beats no number."""
    script = iter([math.nan, 0.2, math.nan, 0.1, math.nan, 0.0, 0.0, math.nan])
    monkeypatch.setattr(metrics, "validation_metrics", lambda *_: {"accuracy": next(script)})
    report = fit(settings(base, tmp_path / "b", epochs=1, evaluate_every=1), *rows)
    assert report.best.step == 2


# ---------------------------------------------------------------- figures


def test_the_report_counts_what_was_done(base, rows, tmp_path):
    """Rows and tokens with repeats, rows/s over the seconds of training, learning rates as scheduled."""
    report = fit(settings(base, tmp_path / "b", epochs=2, schedule="cosine"), *rows)
    history = report.history
    assert history.num_rows == 128
    assert report.num_tokens == 2 * sum(len(text.split()) + 2 for text in rows[0].texts)
    assert 0 < history.validations[0].seconds < history.validations[1].seconds <= report.seconds
    rate = history.num_rows / report.seconds
    assert f"({format_rate(rate)} rows/s)" in str(report)
    slow = dataclasses.replace(report, seconds=400.0, labels=("score",))
    assert "1 output, in 6:40 (0.32 rows/s)" in str(slow)
    assert f"accuracy {report.validation['accuracy']:.4f}" in str(report)
    factors = [
        learning_rate_factor(step, num_steps=16, num_warmup_steps=2, schedule="cosine") for step in range(16)
    ]
    assert history.learning_rates == pytest.approx([5e-3 * factor for factor in factors])
    assert len(history.losses) == len(history.gradient_norms) == 16


def test_truncated_rows_are_counted_and_trained_on_in_part(base, rows, tmp_path):
    """Rows longer than `max_length` are cut, and counted in the report."""
    report = fit(settings(base, tmp_path / "b", epochs=1, max_length=8), *rows)
    long = [text for text in rows[0].texts if len(text.split()) + 2 > 8]
    assert report.num_truncated == len(long) > 0
    assert report.num_tokens == sum(min(8, len(text.split()) + 2) for text in rows[0].texts)


# ---------------------------------------------------------------- memory


def full(*_, **__):
    """What torch raises where a device is full."""
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("kind", [PackedClassifier, PaddedClassifier])
def test_a_full_device_names_the_budget_that_may_fit(kind, base_of, rows, tmp_path, monkeypatch):
    """Half of the tokens of the pass; the training leaves no bundle."""
    monkeypatch.setattr(kind, "forward", full)
    base = base_of("bert" if kind is PackedClassifier else "deberta-v2")
    with pytest.raises(WorkError, match="does not fit into the device's memory") as caught:
        fit(settings(base, tmp_path / "b"), *rows)
    found = re.search(r"a pass of ([\d,]+) tokens .*; set max_batch_tokens=(\d+) ", str(caught.value))
    assert found is not None
    assert int(found[2]) == int(found[1].replace(",", "")) // 2
    assert not (tmp_path / "b").exists()


def test_a_full_device_with_one_document_is_told_to_cut_documents(base, rows, tmp_path, monkeypatch):
    """No budget would help."""
    monkeypatch.setattr(PackedClassifier, "forward", full)
    with pytest.raises(WorkError, match="it is one document; set max_length="):
        fit(settings(base, tmp_path / "b", batch_size=1), *rows)


def test_a_device_that_is_full_at_the_update_is_told_what_would_shrink_it(base, rows, tmp_path, monkeypatch):
    """No budget of tokens would help there either."""
    monkeypatch.setattr(PassStepper, "update", full)
    with pytest.raises(
        WorkError, match=r"the optimizer's state does not fit.*set num_frozen_layers or lora_rank"
    ):
        fit(settings(base, tmp_path / "b"), *rows)


def test_a_full_device_at_a_validation_names_a_budget_too(base, rows, tmp_path, monkeypatch):
    """Validation passes keep to the budget of training, so that it helps them."""
    forward, sizes = PackedClassifier.forward, []

    def without_gradients(self, batch, seed):
        if not torch.is_grad_enabled():
            sizes.append(batch.shape.num_tokens)
            if batch.shape.num_tokens > 100:
                full()
        return forward(self, batch, seed)

    monkeypatch.setattr(PackedClassifier, "forward", without_gradients)
    with pytest.raises(WorkError, match="set max_batch_tokens="):
        fit(settings(base, tmp_path / "b", epochs=1), *rows)
    sizes.clear()
    fit(settings(base, tmp_path / "b", epochs=1, max_batch_tokens=100, overwrite=True), *rows)
    assert max(sizes) <= 100


# ---------------------------------------------------------------- refused


def test_a_base_that_cannot_batch_is_refused_before_the_first_step(rows, tmp_path):
    """GPT-2 without a padding token classifies one text at a time."""
    base = write_base(tmp_path / "base", PADDED_CONFIGS["gpt2"])
    with pytest.raises(UsageError, match="pad_token_id"):
        fit(settings(base, tmp_path / "b"), *rows, on_progress=lambda _: pytest.fail("a step was done"))


def test_predictions_are_in_the_order_of_the_rows(base, rows, tmp_path, monkeypatch):
    """Whatever the passes were: many small ones give what one large one does."""
    found = []
    for tokens in (10, 4_096):
        monkeypatch.setitem(predict._EVALUATION_TOKENS, "cpu", tokens)
        report = fit(settings(base, tmp_path / f"b{tokens}", epochs=1), *rows)
        found.append(report.validation)
    assert dict(found[0]) == pytest.approx(dict(found[1]), rel=1e-5)
