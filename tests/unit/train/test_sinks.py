"""Figures written down while a training goes on: every step once, whatever happened in between."""

import json
import sys
import warnings

import pytest

from assay.errors import UsageError
from assay.train.settings import TrainSettings
from assay.train.train import fit

STUB = '''
"""Stands for wandb: writes down what it is told."""
import json, os

class Error(Exception):
    pass

def note(*what):
    with open(os.environ["WANDB_STUB"], "a") as file:
        file.write(json.dumps(what) + "\\n")

class Run:
    def __init__(self, id):
        self.id = id or "new"
    def log(self, values, step):
        note("log", step, values)
    def finish(self, exit_code):
        note("finish", exit_code)

def init(**values):
    if "WANDB_REFUSES" in os.environ:
        raise Error("No API key configured.\\nLong advice")
    note("init", values["project"], values["name"], values["id"], values["resume"], values["config"]["epochs"])
    return Run(values["id"])
'''


def settings(base, out, **changes):
    """4 steps an epoch, 3 epochs."""
    values = {
        "base": str(base),
        "out": str(out),
        "data": ("rows",),
        "epochs": 3,
        "batch_size": 16,
        "learning_rate": 5e-3,
        "max_length": 32,
        "num_threads": 1,
    }
    return TrainSettings(**{**values, **changes})


def read(path):
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def interrupt_at(step):
    """A callback that is as good as Ctrl-C after a step."""

    def hear(progress):
        if progress.step == step and progress.validation is None:
            raise KeyboardInterrupt

    return hear


def test_each_step_and_validation_is_a_line_of_the_bundle(base, rows, tmp_path):
    """12 steps and 3 validations, with the figures that the report returns; beside the bundle nothing stays."""
    report = fit(settings(base, tmp_path / "b"), *rows)
    lines = read(tmp_path / "b" / "metrics.jsonl")
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 13))
    assert [line["loss"] for line in steps] == report.history.losses
    assert [line["gradient_norm"] for line in steps] == report.history.gradient_norms
    assert [line["learning_rate"] for line in steps] == report.history.learning_rates
    assert steps[-1]["rows"] == 3 * 64
    validations = [line for line in lines if "validation" in line]
    assert [line["step"] for line in validations] == [4, 8, 12]
    assert [line["validation"] for line in validations] == [
        dict(each.metrics) for each in report.history.validations
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_the_file_is_written_as_the_training_goes(base, rows, tmp_path):
    """After each step its line is there to be read."""
    seen = []

    def look(progress):
        seen.append(read(tmp_path / "b.training" / "metrics.jsonl")[-1]["step"] == progress.step)

    fit(settings(base, tmp_path / "b", epochs=1), *rows, on_progress=look)
    assert seen == [True] * 5


def test_a_resumed_training_has_every_step_once(base, rows, tmp_path):
    """Interrupted two steps after a checkpoint, with half a line at the end: the file is that of an unbroken one."""
    chosen = settings(base, tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        fit(chosen, *rows, on_progress=interrupt_at(10))
    file = tmp_path / "b.training" / "metrics.jsonl"
    assert read(file)[-1]["step"] == 10
    with file.open("a") as content:
        content.write('{"step": 11, "epo')
    fit(settings(base, tmp_path / "b", resume=True), *rows)
    fit(settings(base, tmp_path / "whole"), *rows)
    found, expected = (
        [
            {key: value for key, value in line.items() if key != "seconds"}
            for line in read(tmp_path / name / "metrics.jsonl")
        ]
        for name in ("b", "whole")
    )
    assert found == expected


def test_a_training_that_starts_again_begins_a_new_file(base, rows, tmp_path):
    """With --overwrite nothing of the interrupted training stays in it."""
    with pytest.raises(KeyboardInterrupt):
        fit(settings(base, tmp_path / "b"), *rows, on_progress=interrupt_at(10))
    fit(settings(base, tmp_path / "b", epochs=1, overwrite=True), *rows)
    assert [line["step"] for line in read(tmp_path / "b" / "metrics.jsonl")] == [1, 2, 3, 4, 4]


@pytest.mark.parametrize("where", ["tensorboard", "wandb"])
def test_a_missing_package_is_said_before_any_work(base, rows, tmp_path, monkeypatch, where):
    """One line that names the package."""
    monkeypatch.setitem(sys.modules, where, None)
    with pytest.raises(UsageError, match=f"log_to={where} needs the package {where}.*, or leave log_to out"):
        fit(settings(base, tmp_path / "b", log_to=where), *rows)
    assert list(tmp_path.iterdir()) == []


def curves(folder):
    """Points by name of the curve, as TensorBoard itself reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder))
        events.Reload()
    return {
        name: [(point.step, point.value) for point in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_tensorboard_reads_the_curves(base, rows, tmp_path):
    """Loss, learning rate, gradient norm and each validation metric, also across an interruption, each step once."""
    with pytest.raises(KeyboardInterrupt):
        fit(settings(base, tmp_path / "b", log_to="tensorboard"), *rows, on_progress=interrupt_at(10))
    report = fit(settings(base, tmp_path / "b", log_to="tensorboard", resume=True), *rows)
    (folder,) = (tmp_path / "b.tensorboard").iterdir()
    found = curves(folder)
    assert [step for step, _ in found["train/loss"]] == list(range(1, 13))
    assert [value for _, value in found["train/loss"]] == pytest.approx(report.history.losses)
    assert found.keys() >= {
        "train/learning_rate",
        "train/gradient_norm",
        "validation/accuracy",
        "validation/nll",
    }
    assert [step for step, _ in found["validation/accuracy"]] == [4, 8, 12]
    fit(settings(base, tmp_path / "b", log_to="tensorboard", epochs=1, overwrite=True), *rows)
    assert folder.exists()


@pytest.fixture
def wandb_notes(tmp_path, monkeypatch):
    """A stub of wandb that can be imported; gives what it was told."""
    package = tmp_path / "packages"
    package.mkdir()
    (package / "wandb.py").write_text(STUB)
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.setenv("WANDB_STUB", str(tmp_path / "notes"))
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    yield lambda: [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    sys.modules.pop("wandb", None)


def test_weights_and_biases_gets_each_step_and_goes_on_with_its_run(base, rows, tmp_path, wandb_notes):
    """One run: begun, ended as failed by the interruption, taken up again by its id, ended well."""
    with pytest.raises(KeyboardInterrupt):
        fit(settings(base, tmp_path / "b", log_to="wandb"), *rows, on_progress=interrupt_at(10))
    fit(settings(base, tmp_path / "b", log_to="wandb", resume=True), *rows)
    notes = wandb_notes()
    assert [note[1:] for note in notes if note[0] == "init"] == [
        ["assay", "b", None, None, 3],
        ["assay", "b", "new", "allow", 3],
    ]
    assert [note[1] for note in notes if note[0] == "finish"] == [1, 0]
    logged = [note[1:] for note in notes if note[0] == "log"]
    assert [step for step, values in logged if "validation/accuracy" in values] == [4, 8, 12]
    assert {step for step, values in logged if "train/loss" in values} == set(range(1, 13))
    assert not (tmp_path / "b" / "wandb-id").exists()


def test_a_refusal_of_weights_and_biases_is_one_line(base, rows, tmp_path, wandb_notes, monkeypatch):
    """Without a key nothing is trained, and the line says what can be done."""
    monkeypatch.setenv("WANDB_REFUSES", "1")
    with pytest.raises(UsageError, match=r"log_to=wandb: No API key configured; run `wandb login`"):
        fit(settings(base, tmp_path / "b", log_to="wandb"), *rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packages"]
