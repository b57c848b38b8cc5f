"""The loss of each document: transformers' own, whatever the task, before the mean."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from sklearn.utils.class_weight import compute_sample_weight
from support.configs import PADDED_CONFIGS, VOCABULARY
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from assay.tasks import Task
from assay.train.objective import TaskLoss, balanced_weights, positive_weights

TARGETS = {
    "single_label": torch.tensor([0, 2, 1, 2]),
    "multi_label": torch.tensor([[0.0, 0, 0], [1, 0, 1], [1, 1, 1], [0, 1, 0]]),
    "regression": torch.tensor([-1.5, 0.0, 2.0, 5.0]),
}
PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


@pytest.mark.parametrize("task", TARGETS)
def test_the_mean_is_the_loss_of_transformers(task):
    """A padded batch through the library's classifier, its problem_type set: the same loss and gradients."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=1 if task == "regression" else 3,
        problem_type=PROBLEM_TYPES[task],
    )
    model = BertForSequenceClassification(config).eval()
    ids = torch.randint(5, VOCABULARY, (4, 9))
    mask = (torch.arange(9) < torch.tensor([9, 4, 7, 2])[:, None]).long()
    outputs = model(input_ids=ids * mask, attention_mask=mask, labels=TARGETS[task])
    losses = TaskLoss(task=Task(task)).of_documents(outputs.logits, TARGETS[task])
    assert losses.shape == (4,)
    assert losses.mean().item() == pytest.approx(outputs.loss.item(), rel=1e-6)
    ours, theirs = (
        torch.autograd.grad(each, model.classifier.weight, retain_graph=True)[0]
        for each in (losses.mean(), outputs.loss)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_label_smoothing_is_torchs():
    """0.1 of the target spread over all labels."""
    logits = torch.randn(4, 3)
    smoothed = TaskLoss(task=Task.SINGLE_LABEL, label_smoothing=0.1).of_documents(
        logits, TARGETS["single_label"]
    )
    expected = F.cross_entropy(logits, TARGETS["single_label"], label_smoothing=0.1)
    assert smoothed.mean().item() == pytest.approx(expected.item(), rel=1e-6)


def test_balanced_weights_are_those_of_scikit_learn():
    """Their mean is 1, and each label weighs the same in all; a label without rows takes no part."""
    targets = np.array([0, 0, 0, 0, 0, 1, 2, 2])
    expected = compute_sample_weight("balanced", targets)
    np.testing.assert_allclose(balanced_weights(targets, 3), expected, rtol=1e-6)
    np.testing.assert_allclose(balanced_weights(targets, 5), expected, rtol=1e-6)
    assert balanced_weights(targets, 3).mean() == pytest.approx(1.0)


def test_weighted_rows_give_torchs_weighted_mean():
    """Losses times weights, over the weights of the step: `cross_entropy` with weights of classes."""
    logits, targets = torch.randn(8, 3), torch.tensor([0, 0, 0, 0, 0, 1, 2, 2])
    weights = torch.from_numpy(balanced_weights(targets.numpy(), 3))
    ours = (TaskLoss(task=Task.SINGLE_LABEL).of_documents(logits, targets) * weights).sum() / weights.sum()
    of_class = torch.tensor([weights[targets == number][0] for number in range(3)])
    assert ours.item() == pytest.approx(F.cross_entropy(logits, targets, weight=of_class).item(), rel=1e-6)


def test_positive_weights_balance_each_label_by_itself():
    """Rows without over rows with a label; 1 where no row has it; the loss is torch's with `pos_weight`."""
    targets = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 0], [0, 0, 1]], dtype=np.float32)
    weights = positive_weights(targets)
    assert weights == pytest.approx((3.0, 1.0, 1 / 3))
    logits = torch.randn(4, 3)
    losses = TaskLoss(task=Task.MULTI_LABEL, positive_weights=weights).of_documents(
        logits, torch.from_numpy(targets)
    )
    expected = F.binary_cross_entropy_with_logits(
        logits, torch.from_numpy(targets), pos_weight=torch.tensor(weights)
    )
    assert losses.mean().item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_padded_family_computes_the_same_loss():
    """Its own forward with labels, against ours on its logits."""
    config = PADDED_CONFIGS["mpnet"]
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    ids = torch.randint(5, VOCABULARY, (4, 6))
    outputs = model(input_ids=ids, labels=TARGETS["single_label"])
    losses = TaskLoss(task=Task.SINGLE_LABEL).of_documents(outputs.logits, TARGETS["single_label"])
    assert losses.mean().item() == pytest.approx(outputs.loss.item(), rel=1e-6)
