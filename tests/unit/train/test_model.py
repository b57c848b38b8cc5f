"""The packed classifier in training: the transformers model's own logits and gradients, without padding."""

import numpy as np
import pytest
import torch
from support.configs import PACKED_CONFIGS, PADDED_CONFIGS, VOCABULARY
from transformers import AutoModelForSequenceClassification

from assay.tasks import Task
from assay.train.attention import cut_runs
from assay.train.inputs import EncodedRows, filled_shape, host_batch
from assay.train.model import PackedClassifier, PaddedClassifier, make_classifier, state_for_saving
from assay.train.objective import TaskLoss
from assay.train.optimizer import add_lora

LENGTHS = (3, 17, 9, 9, 30, 1)
SEED = torch.zeros(1, dtype=torch.int64)
FAMILIES = {**PACKED_CONFIGS, "deberta-v2": PADDED_CONFIGS["deberta-v2"], "mpnet": PADDED_CONFIGS["mpnet"]}


def make(name, **changes):
    """A random model of the family, without dropout."""
    torch.manual_seed(3)
    config = FAMILIES[name]
    dropouts = {key: 0.0 for key, value in config.to_dict().items() if "dropout" in key and value is not None}
    config = type(config).from_dict({**config.to_dict(), **dropouts, **changes})
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")


def make_rows(lengths=LENGTHS, *, pairs=False, seed=0):
    """Random rows of these lengths, of three labels."""
    rng = np.random.default_rng(seed)
    return EncodedRows(
        flat_ids=rng.integers(5, VOCABULARY, size=sum(lengths)).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        second_starts=np.array([length // 2 for length in lengths], dtype=np.int32) if pairs else None,
        targets=(np.arange(len(lengths)) % 3).astype(np.int64),
        weights=np.ones(len(lengths), dtype=np.float32),
        num_truncated=0,
    )


def alone(model, rows, row):
    """Logits [C] of one row by the transformers model, nothing beside it."""
    start, stop = rows.offsets[row : row + 2]
    inputs = {"input_ids": torch.from_numpy(rows.flat_ids[start:stop].astype(np.int64))[None]}
    if rows.second_starts is not None and getattr(model.config, "type_vocab_size", 0) > 1:
        places = torch.arange(stop - start)
        begin = int(rows.second_starts[row]) or int(stop - start)
        inputs["token_type_ids"] = (places >= begin).long()[None]
    return model(**inputs).logits[0]


def gradients(model):
    """Gradients by name; what has none is left out."""
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def assert_same(found, expected, tolerance=2e-4):
    """Gradients agree, as a share of the largest of each tensor."""
    for name, each in expected.items():
        scale = each.abs().max().clamp_min(1e-2)
        got = found.get(name, torch.zeros_like(each))
        assert ((got - each).abs().max() / scale) < tolerance, name


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_logits_and_gradients_are_those_of_each_document_alone(name, pairs):
    """Packing changes speed alone: the mean loss has the very gradients that transformers gives row by row."""
    model = make(name)
    rows = make_rows(pairs=pairs)
    expected = torch.stack([alone(model, rows, row) for row in range(rows.num_rows)])
    torch.nn.functional.cross_entropy(expected, torch.from_numpy(rows.targets)).backward()
    wanted = gradients(model)
    model.zero_grad()
    classifier = make_classifier(model, dtype=torch.float32, gradient_checkpointing=False)
    assert isinstance(classifier, PackedClassifier) == (name in PACKED_CONFIGS)
    batch = host_batch(rows, np.arange(rows.num_rows), classifier.layout, total_weight=float(rows.num_rows))
    classifier.train()
    logits = classifier(batch, SEED)
    order = np.argsort(-rows.lengths, kind="stable")
    assert torch.allclose(logits, expected[order], atol=2e-4, rtol=1e-3)
    losses = TaskLoss(task=Task.SINGLE_LABEL).of_documents(logits, batch.targets)
    torch.dot(losses, batch.weights_S).backward()
    assert_same(gradients(model), wanted)


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_checkpointing_changes_no_gradient(name):
    """Layers computed twice give what layers computed once do."""
    found = []
    for checkpointing in (False, True):
        model = make(name)
        rows = make_rows()
        classifier = make_classifier(model, dtype=torch.float32, gradient_checkpointing=checkpointing)
        classifier.train()
        batch = host_batch(rows, np.arange(rows.num_rows), classifier.layout, total_weight=1.0)
        TaskLoss(task=Task.SINGLE_LABEL).of_documents(classifier(batch, SEED), batch.targets).sum().backward()
        found.append(gradients(model))
    assert_same(found[1], found[0], tolerance=1e-6)


def test_what_fills_a_batch_up_has_no_part_in_it():
    """Empty documents and spare tokens give the same loss and no gradient, padded attention or not."""
    rows = make_rows()
    shape = filled_shape(int(rows.lengths.sum()), num_documents=10, max_seqlen=30)
    assert shape.num_tokens % 64 == 0
    classifier = make_classifier(make("bert"), dtype=torch.float32, gradient_checkpointing=False)
    batch = host_batch(rows, np.arange(6), classifier.layout, total_weight=6.0, shape=shape)
    bounds = batch.cu_seqlens.numpy()
    assert bounds[-1] == shape.num_tokens
    assert np.diff(bounds).max() <= shape.max_seqlen
    assert np.diff(bounds).min() >= 0
    assert batch.weights_S.sum().item() == pytest.approx(1.0)
    assert np.count_nonzero(batch.weights_S.numpy()) == rows.num_rows
    assert batch.firsts_S.max() < shape.num_tokens


def test_lora_begins_as_the_model_and_is_merged_when_saved():
    """Updates start at zero; saved, they are in the matrices and leave no name of their own."""
    model = make("bert")
    plain = {name: each.clone() for name, each in model.state_dict().items()}
    rows = make_rows()
    before = torch.stack([alone(model, rows, row) for row in range(rows.num_rows)]).detach()
    add_lora(model, rank=2, alpha=4.0)
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert trained
    assert all("lora_" in name or name.startswith("classifier.") for name in trained)
    classifier = make_classifier(model, dtype=torch.float32, gradient_checkpointing=False)
    assert isinstance(classifier, PackedClassifier)
    batch = host_batch(rows, np.arange(rows.num_rows), classifier.layout, total_weight=1.0)
    order = np.argsort(-rows.lengths, kind="stable")
    logits = classifier(batch, SEED)
    assert torch.allclose(logits, before[order], atol=1e-4)
    logits.sum().backward()
    assert all(each.grad is not None for name, each in model.named_parameters() if name in trained)
    with torch.no_grad():
        for name, each in model.named_parameters():
            if "lora_B" in name:
                each.normal_()
    saved = state_for_saving(classifier)
    assert set(saved) == set(plain)
    changed = {name for name in saved if not torch.equal(saved[name], plain[name])}
    assert len(changed) == 13  # six matrices of two layers, and the pooler
    fresh = make("bert")
    fresh.load_state_dict(saved)
    again = torch.stack([alone(fresh, rows, row) for row in range(rows.num_rows)])
    assert torch.allclose(classifier(batch, SEED), again[order], atol=1e-3)


def test_runs_have_little_padding_and_hold_each_document_once():
    """Documents, longest first, are cut where padding would pass one token in eight."""
    lengths = (30, 29, 27, 9, 9, 3, 1)
    runs = cut_runs(lengths)
    assert tuple(length for run in runs for length in run.lengths) == lengths
    for run in runs:
        assert len(run.lengths) * run.lengths[0] * 7 / 8 <= run.num_tokens
    assert [run.first_token for run in runs] == np.cumsum([0, *(run.num_tokens for run in runs)])[
        :-1
    ].tolist()


def test_dropout_is_drawn_in_training_alone():
    """Two passes in training differ, two in evaluation do not."""
    model = make("roberta", hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    classifier = make_classifier(model, dtype=torch.float32, gradient_checkpointing=False)
    rows = make_rows()
    batch = host_batch(rows, np.arange(rows.num_rows), classifier.layout, total_weight=1.0)
    classifier.train()
    assert not torch.equal(classifier(batch, SEED), classifier(batch, SEED))
    classifier.eval()
    assert torch.equal(classifier(batch, SEED), classifier(batch, SEED))


def test_other_families_run_padded():
    """What has no packed path is trained through its own model."""
    assert isinstance(
        make_classifier(make("mpnet"), dtype=torch.float32, gradient_checkpointing=False), PaddedClassifier
    )
