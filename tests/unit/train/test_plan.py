"""`--dry-run`: what a training would do, the same as it then does, and nothing written."""

import pytest
from support.training import animal_rows, settings

from assay.cli.main import main
from assay.errors import InputError, UsageError
from assay.train.plan import plan
from assay.train.train import fit, train


@pytest.fixture
def data(save_rows):
    """A file of 64 rows; the longest has 17 tokens."""
    return save_rows("train", animal_rows(64, seed=1))


def files_of(folder):
    """Every file and folder with its content."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_a_plan_is_what_the_training_does(base, data, tmp_path):
    """Rows, labels, steps, validations, cut rows and devices are those of the training with the same settings."""
    chosen = {
        "data": (data,),
        "validation_share": 0.25,
        "epochs": 2,
        "batch_size": 5,
        "gradient_accumulation": 2,
        "evaluate_every": 3,
        "max_length": 12,
    }
    planned = plan(settings(base, tmp_path / "b", **chosen))
    report = train(settings(base, tmp_path / "b", **chosen))
    assert planned.labels == report.labels
    assert dict(planned.split.num_rows) == {
        "train": report.num_train_rows,
        "validation": report.num_validation_rows,
    }
    assert planned.num_steps == len(report.history.losses) == 10
    assert planned.num_validations == len(report.history.validations) == 4
    assert planned.num_devices == report.num_devices == 1
    assert planned.rows_per_step == 10
    assert planned.train_lengths.num_truncated == report.num_truncated > 0
    assert planned.train_lengths.longest == 12
    assert planned.tokens_per_step * 10 == pytest.approx(report.num_tokens, rel=0.02)


def test_a_dry_run_writes_nothing_and_trains_nothing(base, data, tmp_path, monkeypatch, capsys):
    """The command prints split, balance, model, lengths, devices and steps, and loads no weights."""
    monkeypatch.setattr("assay.train.train.load_model", lambda *_: pytest.fail("weights were loaded"))
    before = files_of(tmp_path)
    words = ["--base", str(base), "--out", str(tmp_path / "b"), "--max-length", "32", "--dry-run"]
    words += ["--epochs", "1"]
    assert main(["train", "--data", data, *words]) == 0
    assert files_of(tmp_path) == before
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "split: train 58 rows (90.6%), validation 6 rows (9.4%)"
    assert any(line.startswith("cat ") for line in shown)
    for begin in (
        "model    bert, 2 layers, 32 wide; outputs 2",
        "lengths  train 7 to 17 tokens, median ",
        "         validation ",
        "devices  1 x ",
        "steps    4 (0 of them warm-up), each of 16 documents (about ",
    ):
        assert any(line.startswith(begin) for line in shown), (begin, shown)
    assert shown[-2].endswith("; 1 epoch, 1 validation")
    assert shown[-1] == "nothing was trained or written (dry_run)"


@pytest.mark.parametrize(("steps", "shown"), [("3", 3), ("1000", 4)])
def test_a_warm_up_is_a_number_of_steps_or_a_share(steps, shown, base, data, tmp_path, capsys):
    """Steps win over the share, and are all there are at most."""
    words = ["--base", str(base), "--out", str(tmp_path / "b"), "--max-length", "32", "--dry-run"]
    assert main(["train", "--data", data, *words, "--epochs", "1", "--warmup-steps", steps]) == 0
    assert f"steps    4 ({shown} of them warm-up)" in capsys.readouterr().out


def test_two_devices_have_larger_steps(base, data, tmp_path, monkeypatch):
    """Each takes `batch_size` documents; the plan starts no process."""
    monkeypatch.setattr("assay.train.resources.machine.usable_cores", lambda: 2)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    planned = plan(settings(base, tmp_path / "b", data=(data,), devices="2", epochs=1))
    assert (planned.num_devices, planned.rows_per_step, planned.num_steps) == (2, 16, 4)


def test_a_dry_run_refuses_what_a_training_would(base, save_rows, tmp_path):
    """The same line, before anything is trained."""
    data = save_rows("one", animal_rows(20, seed=1, labels=("cat",)))
    with pytest.raises(InputError, match=r"labels \['cat'\]; a classifier needs at least two"):
        plan(settings(base, tmp_path / "b", data=(data,)))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").touch()
    with pytest.raises(UsageError, match="overwrite"):
        plan(settings(base, tmp_path / "b", data=(data,)))


def test_what_trains_does_not_take_a_dry_run_for_its_own(base, rows, data, tmp_path):
    """In Python a training asked for a dry run is refused: its report would be of nothing."""
    for begin in (train, lambda chosen: fit(chosen, *rows)):
        with pytest.raises(UsageError, match="dry_run=True"):
            begin(settings(base, tmp_path / "b", data=(data,), dry_run=True))
    assert not (tmp_path / "b").exists()
