"""One rule says what `auto` precision is, for every room that computes."""

import pytest
import torch

from assay.embed import place as module
from assay.embed.place import place
from assay.engine import devices
from assay.engine.precision import (
    Target,
    auto_choices,
    choose_auto,
    choose_auto_for_training,
    common_target,
)
from assay.errors import UsageError
from assay.score.kind import SCORE
from assay.score.settings import ScoreSettings

CPU = Target(kind="cpu")
NEW = Target(kind="cuda")
OLD = Target(kind="cuda", has_bf16=False)


def unasked():
    """Of a precision that was asked for by name."""
    pytest.fail("the model is not looked at")


@pytest.mark.parametrize(
    ("target", "holds", "overflows"), [(CPU, "fp32", "fp32"), (NEW, "fp16", "bf16"), (OLD, "fp16", "fp32")]
)
def test_the_rule(target, holds, overflows):
    """fp32 on a CPU; on a GPU fp16 for a model that holds in it, else bf16, or fp32 where there is none."""
    assert choose_auto(target, lambda: None).precision == holds
    assert choose_auto(target, lambda: "it is too large").precision == overflows
    assert auto_choices(target) == tuple(dict.fromkeys([holds, overflows]))
    assert choose_auto_for_training(target).precision == overflows


def test_no_model_is_looked_at_for_a_cpu():
    """It takes seconds, and would change nothing."""
    assert choose_auto(CPU, lambda: pytest.fail("asked")).why is None


def test_the_choice_says_why():
    """For the record of the run in both cases, and for the user where it is not fp16."""
    fine, large = choose_auto(NEW, lambda: None), choose_auto(NEW, lambda: "its weights reach 70,000")
    assert fine.why == "auto: fp16, since weights and activations stay inside its range"
    assert fine.note is None
    assert large.why == "auto: bf16, since its weights reach 70,000"
    assert large.note == "numbers are in bf16, not fp16: its weights reach 70,000"


def test_devices_of_one_run_take_what_all_have():
    """One old card among new ones decides for all: a run has one precision."""
    assert common_target([NEW, OLD, NEW]) == OLD
    assert common_target([NEW, NEW]) == NEW
    assert common_target([CPU]) == CPU


@pytest.mark.parametrize(("capability", "has_bf16"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_each_card_is_asked_for_itself(monkeypatch, capability, has_bf16):
    """bf16 is a question of the card that computes, not of the one that is current."""
    asked = []
    monkeypatch.setattr(
        torch.cuda, "get_device_capability", lambda device: asked.append(device) or capability
    )
    device = torch.device("cuda:1")
    assert devices.target_of(device) == Target(kind="cuda", has_bf16=has_bf16)
    assert asked == [device]


@pytest.mark.parametrize("reason", [None, "it is too large"])
@pytest.mark.parametrize("cards", [[NEW, NEW], [NEW, OLD], [OLD]])
def test_what_is_planned_is_what_a_worker_would_choose(monkeypatch, cards, reason):
    """The plan of a run and an engine that is loaded with `auto` agree on cards with and without bf16."""
    monkeypatch.setattr(module, "find_gpus", lambda *_: cards)
    monkeypatch.setattr(devices, "target_of", lambda device: common_target(cards))
    planned = place(ScoreSettings(sources=("a",), bundle="b", run="/nowhere/run"), SCORE, lambda: reason)
    assert planned.placement.kind == "cuda"
    assert planned.precision == devices.parse_precision("auto", torch.device("cuda:0"), lambda: reason)


def test_bf16_by_name_is_refused_where_there_is_none(monkeypatch):
    """A card that would emulate it is told of before anything is loaded, with the way out; fp16 is taken."""
    monkeypatch.setattr(module, "find_gpus", lambda *_: [OLD])
    monkeypatch.setattr(devices, "target_of", lambda device: OLD)
    gpu = torch.device("cuda:0")
    asked = {
        name: ScoreSettings(sources=("a",), bundle="b", run="/nowhere/run", precision=name)
        for name in ("bf16", "fp16")
    }
    for refuse in (
        lambda: place(asked["bf16"], SCORE, unasked),
        lambda: devices.check_precision("bf16", gpu),
    ):
        with pytest.raises(UsageError, match=r"precision bf16; the GPU has none .*; use auto, fp16 or fp32"):
            refuse()
    assert (
        place(asked["fp16"], SCORE, unasked).precision
        == devices.parse_precision("fp16", gpu, unasked)
        == "fp16"
    )


def test_only_the_cards_in_use_decide(monkeypatch):
    """An old card that no worker runs on leaves the run of a large model in bf16."""
    monkeypatch.setattr(module, "find_gpus", lambda *_: [NEW, OLD])
    planned = place(
        ScoreSettings(sources=("a",), bundle="b", run="/nowhere/run", devices="1"),
        SCORE,
        lambda: "it is too large",
    )
    assert planned.precision == "bf16"


@pytest.mark.parametrize(
    ("cards", "plan_for", "precision", "computed"),
    [
        ([], None, "auto", "fp32"),
        ([], "cuda", "auto", "fp16"),
        ([], "cuda", "fp16", "fp16"),
        ([], "cpu", "auto", "fp32"),
        ([NEW], "cpu", "auto", "fp32"),
        ([OLD], "cuda", "auto", "fp16"),
        ([], None, "bf16", "bf16"),
    ],
)
def test_planning_for_other_machines(monkeypatch, cards, plan_for, precision, computed):
    """`plan_for` plans for the device named, whatever is here; workers here go where this machine has room."""
    monkeypatch.setattr(module, "find_gpus", lambda *_: cards)
    settings = ScoreSettings(
        sources=("a",), bundle="b", run="/nowhere/run", plan_for=plan_for, precision=precision
    )
    planned = place(settings, SCORE, lambda: None)
    here = "cuda" if cards else "cpu"
    assert planned.precision == computed
    assert planned.placement.kind == here
    assert planned.planned.kind == (plan_for or here)
