"""`assay train` as it is typed: processes that die, signals, torchrun, and refusals with their exit status."""

import json
import re
import signal
import subprocess
import sys
import time

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.training import animal_rows, write_base
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from assay.bundle.load import load_bundle
from assay.cli.main import main
from assay.machine import usable_cores

NUM_CPUS = usable_cores()
pytestmark = pytest.mark.slow
needs_two = pytest.mark.skipif(NUM_CPUS < 2, reason="two processes need two cores")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A config file of 64 rows of training, 8 a step, 12 epochs, a checkpoint after each step."""
    folder = tmp_path_factory.mktemp("job")
    base = write_base(folder / "base")
    everything = animal_rows(96, seed=1)
    for name, rows in (("train", everything.take(range(64))), ("validation", everything.take(range(64, 96)))):
        pq.write_table(pa.table({"text": rows.texts, "label": rows.labels}), folder / f"{name}.parquet")
    config = folder / "train.toml"
    config.write_text(
        f'base = "{base}"\ndata = ["{folder}/train.parquet"]\nvalidation_data = ["{folder}/validation.parquet"]\n'
        "epochs = 12\nbatch_size = 8\nlearning_rate = 2e-3\nmax_length = 32\ncheckpoint_minutes = 1e-9\n"
        'devices = "1"\n'
    )
    return config


def start(*words, launcher=()):
    """`assay train` as a process; under a launcher, which runs it as a module."""
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "assay", "train", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, *, seconds=120):
    """(exit status, stdout, stderr)."""
    with process:
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        finally:
            process.terminate()
    return process.returncode, stdout, stderr


def wait_for_checkpoint(process, out):
    """Return once there is one."""
    folder = out.with_name(f"{out.name}.training")
    while process.poll() is None and not list(folder.glob("step-*")):
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()


def accuracy_of(folder):
    """Share of right labels on the validation rows, by transformers alone."""
    rows = animal_rows(96, seed=1).take(range(64, 96))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.inference_mode():
        logits = model(**tokenizer(list(rows.texts), padding=True, return_tensors="pt")).logits
    predicted = [model.config.id2label[index] for index in logits.argmax(dim=1).tolist()]
    return sum(a == b for a, b in zip(predicted, rows.labels, strict=True)) / rows.num_rows


def reported_accuracy(stdout):
    """What the command says of the saved weights."""
    found = re.search(r"accuracy (\d\.\d+)", stdout)
    assert found is not None, stdout
    return float(found[1])


@needs_two
def test_a_rank_that_dies_ends_the_run_and_another_number_of_devices_goes_on(job, tmp_path):
    """One line names rank, signal and flag; what --resume gives is the bundle that was asked for."""
    out = tmp_path / "b"
    words = (job, "--out", out, "--devices", "2", "--batch-size", "4")
    process = start(*words)
    wait_for_checkpoint(process, out)
    ranks = {each.environ()["RANK"]: each for each in psutil.Process(process.pid).children()}
    assert sorted(ranks) == ["0", "1"]
    ranks["1"].kill()
    status, stdout, stderr = finish(process)
    assert status == 1
    assert stdout == ""
    last = stderr.strip().splitlines()[-1]
    assert re.search(
        r"error: rank 1 of 2 was killed by SIGKILL .*the last checkpoint is at step \d+; .* --resume", last
    ), stderr
    assert "Traceback" not in stderr
    assert not psutil.pid_exists(ranks["0"].pid)
    assert not out.exists()
    status, stdout, stderr = finish(start(job, "--out", out, "--resume"))
    assert status == 0, stderr
    assert re.search(r"going on after step \d+ of 96", stderr)
    assert reported_accuracy(stdout) == pytest.approx(accuracy_of(out), abs=1e-3)
    provenance = load_bundle(out).provenance
    assert provenance["num_steps"] == 96
    assert [each["step"] for each in provenance["validations"]] == list(range(8, 97, 8))
    assert not out.with_name("b.training").exists()


@needs_two
def test_torchrun_starts_the_ranks_and_assay_joins_them(job, tmp_path):
    """Two ranks, one report, one bundle; the flag for devices does not start more."""
    out = tmp_path / "b"
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    words = (job, "--out", out, "--batch-size", "4", "--epochs", "4", "--devices", "2")
    status, stdout, stderr = finish(start(*words, launcher=launcher))
    assert status == 0, stderr
    assert stdout.count("weights of step") == 1
    assert reported_accuracy(stdout) == pytest.approx(accuracy_of(out), abs=1e-3)
    provenance = load_bundle(out).provenance
    assert (provenance["num_devices"], provenance["num_steps"]) == (2, 32)


@pytest.mark.parametrize("devices", ["1", pytest.param("2", marks=needs_two)])
def test_a_stop_writes_a_checkpoint_and_says_how_to_go_on(devices, job, tmp_path):
    """SIGTERM, as a scheduler sends it: status 130; the config with another setting is then refused with 3."""
    out = tmp_path / "b"
    rows = str(8 // int(devices))
    process = start(job, "--out", out, "--devices", devices, "--batch-size", rows)
    wait_for_checkpoint(process, out)
    process.send_signal(signal.SIGTERM)
    status, _, stderr = finish(process)
    assert status == 130, stderr
    found = re.search(r"interrupted: the last checkpoint is at step (\d+); .* --resume", stderr)
    assert found is not None, stderr
    states = [json.loads(each.read_text()) for each in tmp_path.glob("b.training/step-*/state.json")]
    assert max(state["step"] for state in states) == int(found[1])
    assert "Traceback" not in stderr
    assert main(["train", str(job), "--out", str(out), "--resume", "--learning-rate", "1e-3"]) == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="with GPUs their number counts")
@pytest.mark.parametrize(
    ("devices", "said"),
    [
        (str(NUM_CPUS + 1), rf"devices={NUM_CPUS + 1}; .*this machine has {NUM_CPUS} cores; lower it"),
        ("0", r"devices is '0'; it must be auto or a whole number from 1 to 1,024"),
        ("two", r"devices is 'two'; it must be auto or a whole number from 1 to 1,024"),
    ],
)
def test_devices_that_do_not_exist_are_refused(devices, said, job, tmp_path, capsys):
    """In one line, status 2, before any process is started."""
    assert main(["train", str(job), "--out", str(tmp_path / "b"), "--devices", devices]) == 2
    stderr = capsys.readouterr().err
    assert re.search(said, stderr), stderr
    assert not list(tmp_path.iterdir())


def test_nothing_is_asked_of_stdin(job, tmp_path):
    """A job without one, as cron and containers start it."""
    words = ("train", job, "--out", tmp_path / "b", "--epochs", "1")
    done = subprocess.run(
        [sys.executable, "-m", "assay", *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert f"wrote {tmp_path / 'b'}" in done.stdout
