"""Progress of a training: rates of late, a line for people, JSON for a log."""

import io
import json
import math

import numpy as np
import pytest
from transformers import BertConfig

from assay.engine.measure import flops, model_shape
from assay.telemetry import bar_line
from assay.train.display import TrainDisplay, live_figures
from assay.train.history import TrainProgress
from assay.train.settings import TrainSettings
from assay.train.speed import Effort, RateWindow, flops_per_token


def progress(step, seconds, *, rows=None, validation=None, **others):
    """A report of the loop: 10 rows of 5 tokens a step, unless told otherwise."""
    rows = 10 * step if rows is None else rows
    values = {
        "epoch": 1,
        "num_epochs": 2,
        "num_steps": 1_000,
        "loss": 0.5,
        "learning_rate": 2e-5,
        "gradient_norm": 1.0,
        "num_tokens": 5 * rows,
    }
    return TrainProgress(
        step=step, seconds=seconds, num_rows=rows, validation=validation, **{**values, **others}
    )


def test_rates_are_those_of_the_newest_steps():
    """100 steps at one a second, then 400 at ten a second: after half a minute the slow start is forgotten."""
    window = RateWindow()
    for step in range(1, 101):
        rates = window.add(progress(step, float(step)))
    assert rates.samples_per_second == pytest.approx(10)
    for step in range(101, 501):
        rates = window.add(progress(step, 100 + (step - 100) / 10))
    assert rates.samples_per_second == pytest.approx(100)
    assert rates.tokens_per_second == pytest.approx(500)
    assert rates.seconds_left == pytest.approx(50)


def test_a_validation_slows_no_rate_but_takes_its_time():
    """10 steps a second with 5 seconds of validation every 50 steps: rates of the steps, both in what is left."""
    window = RateWindow()
    seconds = 0.0
    for step in range(1, 501):
        seconds += 0.1
        rates = window.add(progress(step, seconds))
        if step % 50 == 0:
            seconds += 5
            rates = window.add(progress(step, seconds, validation={"accuracy": 0.5}))
    assert rates.samples_per_second == pytest.approx(100)
    assert rates.seconds_left == pytest.approx(500 * 0.1 + 10 * 5, rel=0.01)
    assert window.validation.step == 500


def test_steps_that_are_read_together_have_one_time():
    """A GPU is read for 25 steps at once; no rate is made of the moment between two of them."""
    window = RateWindow()
    for reading in range(1, 5):
        for step in range(25 * reading - 24, 25 * reading + 1):
            rates = window.add(progress(step, float(reading)))
            assert reading > 1 or rates.samples_per_second is None
    assert rates.samples_per_second == pytest.approx(250)


def test_a_training_that_goes_on_counts_what_it_sees():
    """Rows and seconds of before the interruption are in no rate."""
    window = RateWindow()
    for step in range(501, 511):
        rates = window.add(progress(step, 9_000 + (step - 500) / 10))
    assert rates.samples_per_second == pytest.approx(100)
    assert rates.seconds_left == pytest.approx(49)


def test_the_loss_is_a_mean_of_the_newest_steps():
    """One step's loss says little; the mean is of 50 of them."""
    window = RateWindow()
    for step in range(1, 201):
        rates = window.add(progress(step, float(step), loss=9.0 if step <= 150 else float(step % 2)))
    assert rates.loss == pytest.approx(0.5)


def test_mfu_is_arithmetic_over_time_over_the_peak():
    """1,000 tokens a second at 2 GFLOP a token are 2 of 8 TFLOP/s; without a peak there is none."""
    for peak, expected in ((8e12, 0.25), (None, None)):
        effort = Effort(flops_per_token=2e9, peak_flops=peak)
        window = RateWindow()
        for step in (1, 2, 3):
            told = progress(step, float(step), num_tokens=1_000 * step)
            rates = window.add(effort.added_to(told))
        assert rates.mfu == expected


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        ({}, 3),
        ({"lora_rank": 4}, 2),
        ({"freeze_encoder": True}, 1),
        ({"num_frozen_layers": 3}, 2),
        ({"gradient_checkpointing": True}, 3),
    ],
)
def test_what_is_not_trained_costs_no_backward_pass(change, passes):
    """Forward once, gradients of activations once, of matrices once; frozen layers less; recomputing is not work."""
    config = BertConfig(hidden_size=64, intermediate_size=256, num_hidden_layers=6, num_attention_heads=2)
    settings = TrainSettings(base="b", out="o", data=("d",), **change)
    lengths = np.array([5, 50, 500])
    forward = flops(lengths, model_shape(config)) / 555
    assert flops_per_token(lengths, config, settings) == pytest.approx(passes * forward)


def test_without_a_terminal_progress_is_json():
    """A line a minute and one for each validation, whatever happens between; undefined metrics are null."""
    now = [0.0]
    stream = io.StringIO()
    with TrainDisplay("accuracy", stream=stream, clock=lambda: now[0]) as display:
        for step in range(1, 151):
            now[0] = float(step)
            display.update(progress(step, float(step)))
            if step == 100:
                display.update(progress(step, 100.0, validation={"accuracy": 0.5, "auc": math.nan}))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["step"] for line in lines] == [60, 100]
    assert lines[0] == {
        "event": "progress",
        "task": "train",
        "epoch": 1,
        "num_epochs": 2,
        "step": 60,
        "num_steps": 1_000,
        "loss": 0.5,
        "learning_rate": 2e-5,
        "samples_per_second": 10.0,
        "tokens_per_second": 50.0,
        "mfu": None,
        "seconds": 60.0,
        "seconds_left": 940,
    }
    assert lines[1]["validation"] == {"accuracy": 0.5, "auc": None}


def test_what_goes_on_before_the_first_step_is_shown():
    """The bar's line names it, and for how long, until a step is told of; elsewhere it is a JSON line."""
    stream = io.StringIO()
    with TrainDisplay("accuracy", stream=stream, clock=lambda: 0.0) as display:
        display.phase("loading the base")
        display.update(progress(1, 1.0))
        display.phase("validating after step 1")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert lines == [{"event": "phase", "task": "train", "phase": "loading the base"}]

    now = 0.0
    display = TrainDisplay("accuracy", stream=io.StringIO(), clock=lambda: now)
    display.phase("loading the base")
    now = 65.0
    assert display.line(80).endswith("  0% loading the base, 1:05")
    display.update(progress(500, 1.0))
    assert "50% - samples/s" in display.line(80)
    display.phase("validating after step 500")
    assert display.line(80).endswith(" 50% validating after step 500, 1:05")


def test_the_line_of_a_terminal_holds_every_figure():
    """Rate and time left first, which 80 columns keep; then loss, validation, epoch, step and the rest."""
    window = RateWindow()
    effort = Effort(flops_per_token=1e9, peak_flops=1e11)
    for step in (10, 20):
        window.add(effort.added_to(progress(step, step / 10)))
    newest = effort.added_to(progress(20, 3.0, validation={"accuracy": 0.912}))
    rates = window.add(newest)
    figures = live_figures(newest, rates, window.validation, "accuracy")
    assert figures == [
        "100 samples/s",
        "3:16 left",
        "loss 0.5000",
        "accuracy 0.9120",
        "epoch 1/2",
        "step 20/1,000",
        "lr 2.00e-05",
        "500 tok/s",
        "500% MFU",
    ]
    line = bar_line("train", 0.02, figures, 80)
    assert len(line) <= 80
    assert "2% 100 samples/s, 3:16 left, loss 0.5000" in line
