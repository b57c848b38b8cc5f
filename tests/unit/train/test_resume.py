"""Interrupted trainings: killed anywhere they go on bit for bit, or are refused with the way out."""

import dataclasses
import errno
import itertools
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.configs import PADDED_CONFIGS
from support.training import TINY_BERT, animal_rows, fit_forked, settings, write_base

from assay import metrics
from assay.errors import InputError, RefusedError, StorageError, UsageError, WorkError
from assay.train import checkpoints, distributed, loop
from assay.train.checkpoints import latest, load
from assay.train.step import PassStepper
from assay.train.train import fit

EVERY_STEP = 1e-9
"""Minutes between checkpoints, so few that each step has one."""
NUM_STEPS = 24


def choices(base, out, **changes):
    """3 epochs of 8 steps, dropout on, a validation every 3 steps, a checkpoint after each step."""
    values = {"epochs": 3, "evaluate_every": 3, "checkpoint_minutes": EVERY_STEP, **changes}
    return settings(base, out, **values)


def weights(folder):
    """The saved tensors."""
    return load_file(folder / "model.safetensors")


def assert_same_weights(found, expected):
    """Bit for bit."""
    ours, theirs = weights(found), weights(expected)
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]


def without_seconds(history):
    """What does not depend on the clock."""
    validations = [dataclasses.replace(each, seconds=0.0) for each in history.validations]
    return dataclasses.replace(history, seconds=0.0, validations=validations)


def assert_same(report, calm):
    """The weights, the curves and the choice of an uninterrupted training."""
    assert_same_weights(report.out, calm.out)
    assert without_seconds(report.history) == without_seconds(calm.history)
    assert dataclasses.replace(report.best, seconds=0.0) == dataclasses.replace(calm.best, seconds=0.0)


class Killed(BaseException):
    """Ends a training without a chance to clean up what is on disk."""


def killing(step, *, validated=False):
    """A callback that ends the training at a step, or at the validation after it."""

    def on_progress(progress):
        if progress.step == step and validated == (progress.validation is not None):
            raise Killed

    return on_progress


@pytest.fixture(scope="module")
def everything():
    """64 rows to train on and 32 to validate on."""
    rows = animal_rows(96, seed=1)
    return rows.take(range(64)), rows.take(range(64, 96))


@pytest.fixture(scope="module")
def calm(tmp_path_factory, everything):
    """The report of an uninterrupted training, its base beside it."""
    folder = tmp_path_factory.mktemp("calm")
    base = write_base(folder / "base")
    return base, fit(choices(base, folder / "b", checkpoint_minutes=1e6), *everything)


@pytest.mark.parametrize(
    ("step", "validated"), [(2, False), (9, False), (9, True), (10, False), (24, False), (24, True)]
)
def test_a_kill_costs_nothing_but_time(step, validated, calm, everything, tmp_path):
    """Before a validation, after it, in the middle of an epoch and at the end: data order, dropout, best weights."""
    base, expected = calm
    with pytest.raises(Killed):
        fit(choices(base, tmp_path / "b"), *everything, on_progress=killing(step, validated=validated))
    assert not (tmp_path / "b").exists()
    seen = []
    said = []
    report = fit(
        choices(base, tmp_path / "b", resume=True),
        *everything,
        on_progress=lambda progress: seen.append((progress.step, progress.validation is not None)),
        on_message=said.append,
    )
    assert_same(report, expected)
    held = max((number for number in range(step) if number < step), default=0)
    assert [number for number, is_validation in seen if not is_validation] == list(
        range(held + 1, NUM_STEPS + 1)
    )
    assert [number for number, is_validation in seen if is_validation] == [
        number for number in range(3, NUM_STEPS + 1, 3) if number > held
    ]
    assert f"going on after step {held} of {NUM_STEPS}" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"], "checkpoints go with a good end"


def test_killed_again_and_again(calm, everything, tmp_path):
    """Every few steps, always with --resume: each try begins where the one before was."""
    base, expected = calm
    for step in (4, 5, 11, 12, 20):
        with pytest.raises(Killed):
            fit(choices(base, tmp_path / "b", resume=step > 4), *everything, on_progress=killing(step))
    report = fit(choices(base, tmp_path / "b", resume=True), *everything)
    assert_same(report, expected)


def test_training_goes_on_while_a_checkpoint_is_written(calm, everything, tmp_path, monkeypatch):
    """A slow disk stops nothing: steps go on, one validation has no checkpoint, and what is written is as it was."""
    base, expected = calm
    is_free, steps, save = threading.Event(), [], checkpoints.save

    def slow(folder, checkpoint):
        assert is_free.wait(timeout=60), "training waited for its checkpoint"
        steps.append(checkpoint.step)
        return save(folder, checkpoint)

    def on_progress(progress):
        if progress.step == 8:
            is_free.set()
            raise Killed

    monkeypatch.setattr(checkpoints, "save", slow)
    with pytest.raises(Killed):
        fit(choices(base, tmp_path / "b", checkpoint_minutes=1e6), *everything, on_progress=on_progress)
    assert steps == [3], "the validation at step 6 found one on its way"
    assert_same(fit(choices(base, tmp_path / "b", resume=True), *everything), expected)


@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_checkpoint_that_cannot_be_written_ends_the_training(
    calm, everything, tmp_path, monkeypatch, is_stopped
):
    """Of a full disk the user hears, after Ctrl-C too; nothing half is left."""
    base, _ = calm

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def on_progress(progress):
        if is_stopped and progress.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(checkpoints, "save_file", full)
    minutes = 1e6 if is_stopped else EVERY_STEP
    chosen = choices(base, tmp_path / "b", checkpoint_minutes=minutes, evaluate_every=24)
    with pytest.raises(StorageError, match="No space left"):
        fit(chosen, *everything, on_progress=on_progress)
    assert not list(tmp_path.glob("**/step-*"))
    assert not list(tmp_path.glob("**/*.safetensors"))


def test_a_training_that_is_done_needs_no_checkpoint(calm, everything, tmp_path, monkeypatch, caplog):
    """The one on its way fails as the last step ends: the bundle is written all the same."""
    base, expected = calm
    is_over = threading.Event()

    def full(*_, **__):
        assert is_over.wait(timeout=60)
        raise StorageError("disk full; free space")

    def on_progress(progress):
        if progress.step == NUM_STEPS and progress.validation is not None:
            is_over.set()

    monkeypatch.setattr(checkpoints, "save", full)
    chosen = choices(base, tmp_path / "b", checkpoint_minutes=1e6)
    assert_same(fit(chosen, *everything, on_progress=on_progress), expected)
    assert "the last checkpoint was not written: disk full" in caplog.text


def test_what_went_wrong_first_is_what_is_said(calm, everything, tmp_path, monkeypatch, caplog):
    """A checkpoint that fails beside another error is a warning."""
    base, _ = calm
    has_begun = threading.Event()

    def full(*_, **__):
        has_begun.set()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def on_progress(progress):
        if progress.step == 4:
            assert has_begun.wait(timeout=60)
            raise Killed

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(Killed):
        fit(choices(base, tmp_path / "b", checkpoint_minutes=1e6), *everything, on_progress=on_progress)
    assert "the last checkpoint was not written" in caplog.text


def test_the_clock_leaves_interruptions_out(calm, everything, tmp_path):
    """Seconds of a training that was killed are those of both tries, not of the night between."""
    base, _ = calm
    with pytest.raises(Killed):
        fit(choices(base, tmp_path / "b"), *everything, on_progress=killing(20))
    before = load(latest(tmp_path / "b.training")).values["history"]["seconds"]
    time.sleep(2)
    began = time.monotonic()
    report = fit(choices(base, tmp_path / "b", resume=True), *everything)
    assert before < report.seconds < before + time.monotonic() - began
    assert report.seconds == report.history.seconds


@pytest.mark.parametrize("end", ["best", "patience"])
def test_what_a_validation_decided_before_the_kill_still_holds(end, calm, everything, tmp_path, monkeypatch):
    """Best weights of a validation before the kill are those saved; patience goes on to be used up."""
    base, _ = calm
    script = [0.5, 0.9, *[0.6] * 6]

    def training(name, changes, **handed):
        left = iter(script if not handed.get("after") else script[handed["after"] :])
        monkeypatch.setattr(metrics, "validation_metrics", lambda *_: {"accuracy": next(left)})
        return fit(
            choices(base, tmp_path / name, **changes), *everything, on_progress=handed.get("on_progress")
        )

    patience = {"patience": 3} if end == "patience" else {}
    expected = training("calm", patience)
    assert expected.best.step == 6
    assert len(expected.history.losses) == (15 if patience else NUM_STEPS)
    with pytest.raises(Killed):
        training("b", patience, on_progress=killing(11))
    report = training("b", {**patience, "resume": True}, after=3)
    assert_same(report, expected)


def test_a_kill_after_patience_was_used_up_trains_no_more(calm, everything, tmp_path, monkeypatch):
    """The validation that ended the training ends it again."""
    base, _ = calm
    left = iter([0.9, 0.5, 0.5])
    monkeypatch.setattr(metrics, "validation_metrics", lambda *_: {"accuracy": next(left)})
    with pytest.raises(Killed):
        fit(choices(base, tmp_path / "b", patience=1), *everything, on_progress=killing(6, validated=True))
    left = iter([0.5, 0.5])
    report = fit(choices(base, tmp_path / "b", patience=1, resume=True), *everything)
    assert (report.best.step, len(report.history.losses)) == (3, 6)


# ---------------------------------------------------------------- by the kernel, at random moments


@pytest.fixture(scope="module")
def processes():
    """Starts processes that have imported everything, in a tenth of a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["assay.train.train", "support.training"])
    return context


def start(processes, values, everything):
    """A training in a process, and the end of the pipe that its report comes from."""
    receiver, sender = processes.Pipe(duplex=False)
    process = processes.Process(target=fit_forked, args=(values, *everything, sender))
    process.start()
    sender.close()
    return process, receiver


def test_sigkill_at_random_moments(calm, everything, tmp_path, processes):
    """Killed three times by the kernel, wherever it stood, also while it wrote: weights and curves of a calm one."""
    base, expected = calm
    chance = random.Random(0)
    folder = tmp_path / "b.training"
    values = dataclasses.asdict(choices(base, tmp_path / "b", resume=True))
    kills = 0
    while True:
        process, receiver = start(processes, values, everything)
        if kills < 3:
            last = max((path.name for path in folder.glob("step-*")), default="")
            while (
                process.is_alive() and max((path.name for path in folder.glob("step-*")), default="") == last
            ):
                time.sleep(0.001)
            time.sleep(
                chance.uniform(0, 0.04)
            )  # a step takes 0.01 s or more: three kills come before the end
            process.kill()
            kills += process.is_alive() or process.exitcode == -signal.SIGKILL
        process.join(60)
        if process.exitcode == 0:
            content = receiver.recv()
            break
        assert process.exitcode == -signal.SIGKILL
    assert kills == 3
    assert_same_weights(tmp_path / "b", expected.out)
    assert content["history"]["losses"] == expected.history.losses
    assert [each["step"] for each in content["history"]["validations"]] == list(range(3, NUM_STEPS + 1, 3))


def test_sigterm_writes_a_checkpoint_at_the_step_under_way(calm, everything, tmp_path):
    """A preempted machine loses nothing, whatever the minutes between checkpoints."""
    base, expected = calm

    def asked(progress):
        if progress.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        fit(choices(base, tmp_path / "b", checkpoint_minutes=1e6), *everything, on_progress=asked)
    assert load(latest(tmp_path / "b.training")).step == 7
    assert_same(fit(choices(base, tmp_path / "b", resume=True), *everything), expected)


def test_figures_that_come_later_are_whole_where_it_stops(calm, everything, tmp_path, monkeypatch):
    """Read two steps late, as on a GPU: told in order, all of them before a checkpoint, and nothing else changes."""
    base, _ = calm
    expected = fit(choices(base, tmp_path / "a", evaluate_every=12, checkpoint_minutes=1e6), *everything)
    monkeypatch.setattr(loop, "_STEPS_BETWEEN_READINGS", {"cpu": 2})
    told = []

    def on_progress(progress):
        told.append(progress.step)
        if told == [1, 2, 3, 4, 5]:
            os.kill(os.getpid(), signal.SIGTERM)

    late = choices(base, tmp_path / "b", evaluate_every=12, checkpoint_minutes=1e6)
    with pytest.raises(KeyboardInterrupt):
        fit(late, *everything, on_progress=on_progress)
    assert told == list(range(1, 9)), "5 is told of at step 8"
    report = fit(
        dataclasses.replace(late, resume=True), *everything, on_progress=lambda each: told.append(each.step)
    )
    assert sorted(set(told)) == list(range(1, NUM_STEPS + 1))
    assert_same(report, expected)


def test_figures_that_come_later_have_the_time_of_their_steps(calm, everything, tmp_path, monkeypatch):
    """Not that of the reading: a validation reads all at once, and no rate is to jump there."""
    base, _ = calm
    monkeypatch.setattr(loop, "_STEPS_BETWEEN_READINGS", {"cpu": 2})
    update = PassStepper.update

    def slow(self, token_ids):
        time.sleep(0.02)
        return update(self, token_ids)

    monkeypatch.setattr(PassStepper, "update", slow)
    ends = {}

    def on_progress(progress):
        if progress.validation is None:
            ends[progress.step] = progress.seconds

    fit(choices(base, tmp_path / "b", evaluate_every=8), *everything, on_progress=on_progress)
    seconds = [ends[number] for number in range(2, NUM_STEPS + 1, 2)]
    assert min(np.diff(seconds)) >= 0.04
    assert ends[1] == ends[2], "told of together"


def test_a_stop_at_the_last_step_is_finished_by_the_next_try(calm, everything, tmp_path):
    """Nothing is left to train: the best weights become the bundle."""
    base, expected = calm

    def asked(progress):
        if progress.step == NUM_STEPS and progress.validation is None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        fit(choices(base, tmp_path / "b", checkpoint_minutes=1e6), *everything, on_progress=asked)
    again = fit(choices(base, tmp_path / "b", resume=True), *everything)
    assert_same(again, expected)


def test_checkpoints_come_after_validations_and_by_the_clock(calm, everything, tmp_path):
    """With hours between them, a validation still has one."""
    base, _ = calm
    chosen = choices(base, tmp_path / "b", checkpoint_minutes=1e6, evaluate_every=6)
    with pytest.raises(Killed):
        fit(chosen, *everything, on_progress=killing(8))
    held = load(latest(tmp_path / "b.training"))
    assert held.step == 6
    assert held.best == "best-00000006"


# ---------------------------------------------------------------- refused, or started again


@pytest.fixture
def interrupted(calm, everything, tmp_path):
    """The base and the bundle-to-be of a training that was killed at step 5."""
    base, _ = calm
    with pytest.raises(Killed):
        fit(choices(base, tmp_path / "b"), *everything, on_progress=killing(5))
    return base, tmp_path / "b"


def test_without_resume_an_interrupted_training_is_refused(interrupted, everything):
    """The error says what to add, and the checkpoint is still there."""
    base, out = interrupted
    with pytest.raises(
        UsageError, match=r"b\.training holds an interrupted training; .*add --resume or --overwrite"
    ):
        fit(choices(base, out), *everything)
    assert load(latest(out.with_name("b.training"))).step == 4


def test_damaged_checkpoints_are_not_started_over_unasked(interrupted, everything):
    """A training that cannot be gone on with is given up by --overwrite alone."""
    base, out = interrupted
    for file in out.with_name("b.training").glob("step-*/model.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    said = r"whose checkpoints are all damaged; to start again use --overwrite, without --resume"
    for resume in (False, True):
        with pytest.raises(UsageError, match=said):
            fit(choices(base, out, resume=resume), *everything)
    assert list(out.with_name("b.training").glob("step-*"))
    assert fit(choices(base, out, overwrite=True), *everything).out == out


def test_checkpoints_of_another_format_are_replaced_when_asked(interrupted, everything):
    """What an older release left is refused, and the way out that the error names is one."""
    base, out = interrupted
    for file in out.with_name("b.training").glob("step-*/state.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "format_version": 1}))
    for resume in (False, True):
        with pytest.raises(RefusedError, match="start again with --overwrite"):
            fit(choices(base, out, resume=resume), *everything)
    assert "format_version 1" in checkpoints.way_out(out.with_name("b.training"))
    assert fit(choices(base, out, overwrite=True), *everything).out == out


def test_overwrite_starts_again(interrupted, calm, everything):
    """From step 1, with whatever settings; nothing of the other training is left."""
    base, out = interrupted
    seen = []
    report = fit(
        choices(base, out, overwrite=True), *everything, on_progress=lambda each: seen.append(each.step)
    )
    assert seen[0] == 1
    assert_same(report, calm[1])
    assert not out.with_name("b.training").exists()


def test_resume_without_a_checkpoint_begins_at_the_first_step(calm, everything, tmp_path, caplog):
    """A job script may always say --resume; a line says that there was nothing to go on from."""
    base, expected = calm
    report = fit(choices(base, tmp_path / "b", resume=True), *everything)
    assert_same(report, expected)
    assert "no checkpoint to resume from; starting at step 1" in caplog.text


@pytest.mark.parametrize("change", [{"batch_size": 4}, {"gradient_accumulation": 3}])
def test_another_number_of_rows_a_step_is_refused_by_name_before_rows_are_read(
    change, interrupted, everything, monkeypatch
):
    """Only what differs is named, with the value to use again."""
    base, out = interrupted
    monkeypatch.setattr("assay.train.train.prepare_given", lambda *_: pytest.fail("rows were read"))
    had = getattr(choices(base, out), next(iter(change)))
    with pytest.raises(RefusedError, match=rf"that training had {next(iter(change))}={had}; use them again"):
        fit(choices(base, out, resume=True, **change), *everything)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 1e-3},
        {"seed": 1},
        {"epochs": 4},
        {"batch_size": 4},
        {"dropout": 0.2},
        {"lora_rank": 2},
        {"class_weights": "balanced"},
        {"max_length": 16},
        {"evaluate_every": 4},
    ],
)
def test_changed_settings_are_refused(change, interrupted, everything):
    """Going on would mix two trainings; the way out is named."""
    base, out = interrupted
    with pytest.raises(
        RefusedError, match=r"step-00000004: .*use them again, or start again with --overwrite"
    ):
        fit(choices(base, out, resume=True, **change), *everything)


@pytest.mark.parametrize("what", ["text", "order", "label", "validation"])
def test_changed_rows_are_refused(what, interrupted, everything):
    """One word, two rows that change places, one label: the steps to come would not be those that were to come."""
    base, out = interrupted
    train_rows, validation_rows = everything
    texts, labels = list(train_rows.texts), list(train_rows.labels)
    if what == "text":
        texts[5] += " hill"
    elif what == "order":
        # of one label, so that texts and labels are what they were
        texts[0], texts[2] = texts[2], texts[0]
    elif what == "label":
        labels[0] = "dog"
    else:
        validation_rows = validation_rows.take(range(31))
    changed = dataclasses.replace(train_rows, texts=tuple(texts), labels=tuple(labels))
    with pytest.raises(RefusedError, match="settings, rows, base"):
        fit(choices(base, out, resume=True), changed, validation_rows)


@pytest.mark.parametrize("what", ["weights", "config", "tokenizer"])
def test_a_changed_base_is_refused(what, interrupted, everything, tmp_path):
    """Other weights, another dropout, another tokenizer under the same name."""
    base, out = interrupted
    aside = tmp_path / "aside"
    shutil.copytree(base, aside)
    try:
        if what == "weights":
            tensors = load_file(base / "model.safetensors")
            save_file(
                {name: each * 1.5 for name, each in tensors.items()},
                base / "model.safetensors",
                {"format": "pt"},
            )
        else:
            file = base / ("config.json" if what == "config" else "tokenizer.json")
            content = json.loads(file.read_text())
            if what == "config":
                content["hidden_dropout_prob"] = 0.3
            else:
                content["model"]["vocab"] |= {
                    "the": content["model"]["vocab"]["a"],
                    "a": content["model"]["vocab"]["the"],
                }
            file.write_text(json.dumps(content))
        with pytest.raises(RefusedError, match="settings, rows, base"):
            fit(choices(base, out, resume=True), *everything)
    finally:
        shutil.rmtree(base)
        aside.rename(base)


@pytest.mark.parametrize("kind", ["deeper", "other family"])
def test_a_checkpoint_of_another_architecture_is_refused(kind, interrupted, everything, tmp_path):
    """Its tensors would not fit; that is said in a line, before any is loaded."""
    _, out = interrupted
    deeper = type(TINY_BERT).from_dict({**TINY_BERT.to_dict(), "num_hidden_layers": 3})
    other = write_base(tmp_path / "base", deeper if kind == "deeper" else PADDED_CONFIGS["deberta-v2"])
    with pytest.raises(RefusedError, match="start again with --overwrite"):
        fit(choices(other, out, resume=True), *everything)


def test_passes_of_a_step_may_be_cut_otherwise(interrupted, everything):
    """After a full device the same steps go on in smaller passes; checkpoints may come more seldom."""
    base, out = interrupted
    report = fit(choices(base, out, resume=True, max_batch_tokens=40, checkpoint_minutes=9.0), *everything)
    assert len(report.history.losses) == NUM_STEPS


def test_a_batch_may_be_accumulated_otherwise(calm, everything, tmp_path):
    """8 rows a step are 8 rows a step: without dropout the curve is that of one pass."""
    base, _ = calm
    expected = fit(choices(base, tmp_path / "calm", dropout=0.0), *everything)
    with pytest.raises(Killed):
        fit(choices(base, tmp_path / "b", dropout=0.0), *everything, on_progress=killing(13))
    changed = choices(base, tmp_path / "b", dropout=0.0, resume=True, batch_size=4, gradient_accumulation=2)
    report = fit(changed, *everything)
    np.testing.assert_allclose(report.history.losses, expected.history.losses, rtol=1e-4)


def test_ranks_that_see_different_things_are_refused(interrupted, everything, monkeypatch):
    """A host without the checkpoint, or with other rows, would train on something else or wait for ever."""
    base, out = interrupted
    monkeypatch.setattr(distributed, "all_equal", lambda world, value: False)
    with pytest.raises(InputError, match="put data, base and out where every host sees them"):
        fit(choices(base, out, resume=True), *everything)


def test_a_failure_leaves_the_checkpoint_before_it(calm, everything, tmp_path, monkeypatch):
    """A loss that stops being a number at step 6: nothing is published, step 5 can be gone on from."""
    base, expected = calm
    update = PassStepper.update
    steps = itertools.count(1)

    def broken(self, token_ids):
        loss, norm = update(self, token_ids)
        return loss + (math.nan if next(steps) == 6 else 0.0), norm

    with monkeypatch.context() as patch:
        patch.setattr(PassStepper, "update", broken)
        with pytest.raises(WorkError, match=r"loss nan .* at step 6 of 24; they must stay numbers"):
            fit(choices(base, tmp_path / "b"), *everything)
    assert not (tmp_path / "b").exists()
    assert_same(fit(choices(base, tmp_path / "b", resume=True), *everything), expected)
