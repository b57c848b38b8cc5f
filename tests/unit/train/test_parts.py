"""Sampler, objective and stepper come from outside, and train through the same loop."""

import os
import signal
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from support.training import (
    PARTS,
    PullTogether,
    animal_rows,
    assert_same_curves,
    plain_training,
    pull_together,
    settings,
)

from assay.errors import RefusedError
from assay.train.parts import Parts
from assay.train.train import fit

EXACT = {"epochs": 2, "learning_rate": 1e-3, "dropout": 0.0}


@pytest.fixture
def sides():
    """21 rows to train on, 8 to validate on."""
    return animal_rows(21, seed=3), animal_rows(8, seed=4)


def test_an_objective_may_compare_the_rows_of_a_step(base, sides, tmp_path):
    """It gets the outputs of all rows of a step at once; the curve is that of a plain loop with it."""
    chosen = settings(base, tmp_path / "b", **EXACT)
    report = fit(chosen, *sides, parts=PARTS["pull together"])
    assert_same_curves(report.history, *plain_training(chosen, sides[0], loss_of=PullTogether()))


def test_what_such_an_objective_makes_small_is_learned(base, rows, tmp_path):
    """Rows of a label come together."""
    report = fit(settings(base, tmp_path / "b", learning_rate=1e-3), *rows, parts=PARTS["pull together"])
    losses = report.history.losses
    assert np.mean(losses[-8:]) < np.mean(losses[:8]) - 0.1


@pytest.mark.parametrize("change", [{"batch_size": 4, "gradient_accumulation": 2}, {"max_batch_tokens": 40}])
def test_such_a_step_may_be_cut_into_passes(change, base, sides, tmp_path):
    """The loss still sees all of its rows: the curve is that of a plain loop with whole steps."""
    chosen = settings(base, tmp_path / "b", **EXACT, **change)
    report = fit(chosen, *sides, parts=PARTS["pull together"])
    whole = settings(base, tmp_path / "b", **EXACT)
    assert_same_curves(report.history, *plain_training(whole, sides[0], loss_of=PullTogether()))


class LabelByLabel:
    """Steps of four rows of one label each; the rows that are left over are left out."""

    num_epoch_steps = 4

    def epoch_steps(self, epoch):
        cats, dogs = np.arange(0, 21, 2), np.arange(1, 21, 2)
        return [cats[epoch:][:4], dogs[:4], cats[6:10], dogs[4:8]]


def test_a_sampler_decides_which_rows_meet(base, sides, tmp_path):
    """Epoch by epoch the loop trains on its steps and no others."""
    chosen = settings(base, tmp_path / "b", **EXACT)
    report = fit(chosen, *sides, parts=Parts(sampler=lambda *_: LabelByLabel()))
    steps = [each for epoch in range(2) for each in LabelByLabel().epoch_steps(epoch)]
    assert report.history.num_rows == 32
    assert_same_curves(report.history, *plain_training(chosen, sides[0], steps=steps))


class PlainSgd:
    """Gradient descent without anything."""

    can_cut, records, wants_token_ids = True, False, False

    def __init__(self, settings, learner, objective, world):
        self._classifier, self._objective = learner.classifier, objective
        self._device = world.device
        self._rate, self._loss = 0.0, torch.zeros((), device=world.device)

    def stream(self):
        return nullcontext()

    def set_learning_rate(self, learning_rate):
        self._rate = learning_rate

    def run_pass(self, batch, *, seed, is_last):
        batch = batch.to(self._device)
        outputs = self._classifier(batch, torch.zeros(1, dtype=torch.int64, device=self._device))
        loss = self._objective(outputs, batch.targets, batch.weights_S)
        loss.backward()
        self._loss += loss.detach()

    def update(self, token_ids=None):
        found, self._loss = self._loss, torch.zeros((), device=self._device)
        parameters = [each for each in self._classifier.parameters() if each.grad is not None]
        norm = torch.nn.utils.get_total_norm([each.grad for each in parameters])
        with torch.no_grad():
            for each in parameters:
                each.sub_(self._rate * each.grad)
                each.grad.zero_()
        return found, norm

    def end(self):
        pass


def test_a_stepper_decides_how_weights_are_updated(base, sides, tmp_path):
    """The loop hands it passes, and learns losses and norms from it."""
    chosen = settings(
        base, tmp_path / "b", **{**EXACT, "learning_rate": 0.05}, weight_decay=0.0, max_gradient_norm=1e9
    )
    report = fit(chosen, *sides, parts=Parts(stepper=PlainSgd))
    assert_same_curves(report.history, *plain_training(chosen, sides[0], make_optimizer=torch.optim.SGD))


def test_a_training_goes_on_with_the_parts_that_it_began_with(base, sides, tmp_path):
    """Resumed with another objective it is refused, not mixed."""
    chosen = {"evaluate_every": 1, **EXACT}

    def stop(progress):
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        fit(settings(base, tmp_path / "b", **chosen), *sides, on_progress=stop)
    again = settings(base, tmp_path / "b", **chosen, resume=True)
    with pytest.raises(RefusedError):
        fit(again, *sides, parts=Parts(objective=pull_together))
    assert len(fit(again, *sides).history.losses) == 6
