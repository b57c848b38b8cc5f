"""Checkpoints of a training: whole or not there, the newest whole one found, the older ones gone."""

import dataclasses
import json
import logging
import os
import resource
import subprocess
import sys
import textwrap

import pytest
import torch

from assay.errors import CheckError, RefusedError, StorageError, UsageError
from assay.train import checkpoints, locking
from assay.train.checkpoints import BestWeights, TrainCheckpoint, load, load_best, save, save_best


def make(step, *, size=64, **fields):
    """A checkpoint whose tensors and plain values all hold the step."""
    fields = {
        "fingerprint": "f00d",
        "best": None,
        "values": {"history": [{"loss": 0.1 + 0.2, "step": step}]},
        "model": {"weight": torch.full((size,), float(step)), "bias": torch.tensor(step)},
        "optimizer": {"exp_avg.weight": torch.full((size,), float(step), dtype=torch.bfloat16)},
        **fields,
    }
    return TrainCheckpoint(step=step, **fields)


@pytest.fixture
def folder(tmp_path):
    """The folder of a training's checkpoints."""
    return checkpoints.training_folder(tmp_path / "bundle")


def names(folder):
    """What lies in the folder."""
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_lies_beside_the_bundle(tmp_path):
    """The checkpoints of `out` are in `out.training`, wherever `out` is."""
    assert checkpoints.training_folder(tmp_path / "a.b") == tmp_path / "a.b.training"
    assert checkpoints.training_folder(str(tmp_path / "a") + "/") == tmp_path / "a.training"


def test_a_checkpoint_comes_back_bit_for_bit(folder):
    """Tensors keep their bits, shape and type, plain values their bits; names that were numbers are text."""
    torch.manual_seed(0)
    model = {"w": torch.randn(3, 5).T, "empty": torch.zeros(0, 4), "count": torch.tensor(7)}
    optimizer = {"m": torch.randn(8, dtype=torch.bfloat16), "rng": torch.get_rng_state()}
    values = {"loss": 1 / 3, "best": float("-inf"), "by_epoch": {2: "b", 10: "j"}, "pair": (1, 2)}
    path = save(folder, make(300, model=model, optimizer=optimizer, values=values, best="best-00000200"))
    assert path.name == "step-00000300"
    assert names(path) == ["model.safetensors", "optimizer.safetensors", "state.json"]
    found = load(path)
    assert found.step == 300
    assert (found.fingerprint, found.best) == ("f00d", "best-00000200")
    assert found.values == {
        "loss": 1 / 3,
        "best": float("-inf"),
        "by_epoch": {"2": "b", "10": "j"},
        "pair": [1, 2],
    }
    for expected, tensors in ((model, found.model), (optimizer, found.optimizer)):
        assert set(tensors) == set(expected)
        for name, tensor in tensors.items():
            assert tensor.dtype == expected[name].dtype
            assert torch.equal(tensor, expected[name])


def test_tied_weights_are_written_once(folder):
    """Tied weights come back tied; a slice of another tensor, and one of a larger buffer, as themselves."""
    weight, buffer = torch.randn(1000, 8), torch.randn(1000)
    model = {"embedding": weight, "decoder": weight, "head": weight[:2], "part": buffer[10:20]}
    found = load(save(folder, make(1, model=model))).model
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        name: tensor.tolist() for name, tensor in model.items()
    }
    assert found["decoder"] is found["embedding"]
    assert (folder / "step-00000001" / "model.safetensors").stat().st_size < 1000 * 8 * 4 + 1000


def test_parameters_of_a_module_can_be_saved(folder):
    """A state dict goes in as it is: parameters that require gradients, and a strict load takes it back."""
    module = torch.nn.Linear(3, 2)
    found = load(save(folder, make(1, model=module.state_dict(keep_vars=True)))).model
    other = torch.nn.Linear(3, 2)
    other.load_state_dict(found)
    assert torch.equal(other.weight, module.weight)


def test_the_newest_are_kept(folder):
    """Older checkpoints go once a newer one is there; the newest whole one is found by number, not by name."""
    assert checkpoints.latest(folder) is None
    for step in (5, 99_999_999, 100_000_000):
        save(folder, make(step), keep=2)
    assert names(folder) == ["step-100000000", "step-99999999"]
    assert checkpoints.latest(folder).name == "step-100000000"


def test_a_step_saved_twice(folder):
    """A second checkpoint of a step stands beside the first until the first is pruned, and is the newer."""
    save(folder, make(7, fingerprint="a"))
    save(folder, make(7, fingerprint="b"))
    assert names(folder) == ["step-00000007", "step-00000007.1"]
    assert load(checkpoints.latest(folder)).fingerprint == "b"
    save(folder, make(7, fingerprint="c"), keep=1)
    assert names(folder) == ["step-00000007.2"]


def test_best_weights_stay_while_they_are_named(folder):
    """Best weights go only once no checkpoint that is kept names them, so that every one can be resumed."""
    for step in (1, 2, 3):
        best = save_best(folder, BestWeights(step=step, model={"w": torch.tensor(step)}))
        save(folder, make(step, best=best.name))
    assert names(folder) == ["best-00000002", "best-00000003", "step-00000002", "step-00000003"]
    found = load_best(folder / load(checkpoints.latest(folder)).best)
    assert (found.step, found.model["w"].item()) == (3, 3)
    save(folder, make(4, best="best-00000002"))
    save(folder, make(5, best="best-00000002"))
    assert names(folder) == ["best-00000002", "step-00000004", "step-00000005"]


def test_a_checkpoint_named_as_best_is_kept(folder):
    """A checkpoint may itself hold the best weights; it stays as long as it is named."""
    for step in (1, 2, 3, 4):
        save(folder, make(step, best="step-00000001"), keep=2)
    assert names(folder) == ["step-00000001", "step-00000003", "step-00000004"]


def damage_tensors(path):
    """Flip one bit in the middle of a file."""
    content = bytearray((path / "optimizer.safetensors").read_bytes())
    content[len(content) // 2] ^= 1
    (path / "optimizer.safetensors").write_bytes(bytes(content))


def damage_step(path):
    """Change a number in state.json."""
    text = (path / "state.json").read_text()
    (path / "state.json").write_text(text.replace('"step": 20', '"step": 21'))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_tensors, "optimizer.safetensors is not what was written (its checksum differs)"),
        (lambda path: os.truncate(path / "model.safetensors", 100), "model.safetensors has 100 bytes of "),
        (lambda path: (path / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda path: (path / "state.json").unlink(), "state.json is missing"),
        (lambda path: os.truncate(path / "state.json", 50), "state.json is damaged"),
        (lambda path: (path / "state.json").write_text("[]"), "state.json is damaged"),
        (lambda path: (path / "state.json").write_bytes(b"\xff\x00"), "state.json is damaged"),
        (damage_step, "state.json is damaged"),
    ],
)
def test_a_damaged_newest_falls_back(folder, caplog, damage, said):
    """A damaged checkpoint is passed over with one line that says why; `load` refuses it; training goes on."""
    save(folder, make(10))
    damage(save(folder, make(20)))
    with caplog.at_level(logging.WARNING):
        assert checkpoints.latest(folder) == folder / "step-00000010"
    assert len(caplog.messages) == 1
    assert said in caplog.messages[0]
    assert "step-00000020" in caplog.messages[0]
    with pytest.raises(CheckError, match="step-00000020"):
        load(folder / "step-00000020")
    save(folder, make(12))
    assert names(folder) == ["step-00000010", "step-00000012"]


def test_damaged_best_weights_fall_back_too(folder, caplog):
    """A checkpoint whose best weights are damaged is not complete: the training could not end with them."""
    for step in (1, 2):
        best = save_best(folder, BestWeights(step=step, model={"w": torch.ones(9)}))
        save(folder, make(step, best=best.name))
    os.truncate(folder / "best-00000002" / "model.safetensors", 10)
    assert checkpoints.latest(folder).name == "step-00000001"
    assert "best-00000002" in caplog.messages[0]


def test_nothing_whole(folder, caplog):
    """Where every checkpoint is damaged there is none, and a line for each."""
    for step in (1, 2):
        (save(folder, make(step)) / "state.json").unlink()
    assert checkpoints.latest(folder) is None
    assert len(caplog.messages) == 2
    assert checkpoints.way_out(folder) == "no checkpoint was written yet; run the same command again"


@pytest.mark.parametrize(
    ("version", "words"),
    [(99, "format_version 99; this release reads up to 2; install"), (1, "format_version 1; .*--overwrite")],
)
def test_another_format_is_refused(version, words, folder):
    """A checkpoint of another release is not taken for a damaged one and passed over in silence."""
    path = save(folder, make(1))
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "format_version": version}))
    for read in (checkpoints.latest, lambda _: load(path)):
        with pytest.raises(RefusedError, match=words):
            read(folder)


def test_the_way_out_names_the_last_step(folder):
    """Errors end with the step to go on from."""
    save(folder, make(40))
    assert (
        checkpoints.way_out(folder) == "the last checkpoint is at step 40; run the same command with --resume"
    )


@pytest.mark.parametrize("limit", [2000, 200_000])
def test_a_full_disk_costs_nothing_that_was_there(folder, limit):
    """A checkpoint that cannot be written is a StorageError; the older ones are whole and nothing half lies about."""
    save(folder, make(1))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(
            StorageError, match=r"step-00000002: could not be written \(File too large\); check"
        ):
            save(folder, make(2, size=100_000), keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(folder) == ["step-00000001"]
    assert load(checkpoints.latest(folder)).step == 1


def test_a_full_disk_names_the_way_out(folder, monkeypatch):
    """The reason that the library hides in its own error comes out, with what to do about it."""

    def no_space(*_, metadata):
        del metadata
        raise checkpoints.SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr(checkpoints, "save_file", no_space)
    with pytest.raises(StorageError, match=r"\(No space left on device\); free space on that disk"):
        save(folder, make(1))


def test_one_training_at_a_time(folder):
    """A second training of the same bundle is refused; the folder goes with the lock where it is empty."""
    with (
        locking.locked(folder),
        pytest.raises(UsageError, match="another process trains there"),
        locking.locked(folder),
    ):
        pytest.fail("two hold the lock")
    assert not folder.exists()
    with locking.locked(folder):
        save(folder, make(1))
    assert names(folder) == ["lock", "step-00000001"]
    with locking.locked(folder):
        checkpoints.clear(folder)
    assert not folder.exists()


def test_values_are_frozen():
    """A checkpoint is a value."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        make(1).step = 2


# A writer saves steps 1, 2, 3 ... until it is killed: by its parent at a random moment, or by itself before
# the N-th change of the disk. One process imports torch and forks the writers.
WRITERS = """
    import os, random, shutil, signal, sys, time
    from pathlib import Path
    import torch
    from assay.train import checkpoints
    from assay.train.checkpoints import BestWeights, TrainCheckpoint

    torch.set_num_threads(1)
    folder = Path(sys.argv[1])

    def write(first, calls_left):
        for name in ("fsync", "rename", "rmdir", "unlink", "mkdir"):
            def counted(*arguments, _call=getattr(os, name), **options):
                nonlocal calls_left
                calls_left -= 1
                if calls_left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return _call(*arguments, **options)
            setattr(os, name, counted)
        best = None
        for step in range(first, first + 1000):
            tensors = {"w": torch.full((20_000,), float(step))}
            if step % 3 == 0:
                best = checkpoints.save_best(folder, BestWeights(step=step, model=tensors)).name
            checkpoints.save(folder, TrainCheckpoint(step=step, fingerprint="",
                best=best, values={"step": step}, model=tensors, optimizer=tensors))

    rng = random.Random(int(sys.argv[2]))
    last = killed = 0
    for calls in [*range(1, 60), *([0] * 25)]:
        writer = os.fork()
        if writer == 0:
            write(last + 1, calls)
            os._exit(3)
        if not calls:
            time.sleep(rng.uniform(0.005, 0.08))
            os.kill(writer, signal.SIGKILL)
        assert os.waitpid(writer, 0)[1] == signal.SIGKILL
        killed += 1
        path = checkpoints.latest(folder)
        if path is None:
            assert last == 0
            continue
        found = checkpoints.load(path)
        assert found.step >= last and found.values["step"] == found.step
        for tensors in (found.model, found.optimizer):
            assert tensors["w"].tolist() == [float(found.step)] * 20_000
        if found.best:
            best = checkpoints.load_best(folder / found.best)
            assert best.model["w"][0] == best.step <= found.step
        last = found.step
    assert last > 20
    checkpoints.save(folder, checkpoints.load(path))
    left = [path.name for path in folder.iterdir()]
    assert not any(name.startswith(".") for name in left), left
    assert len([name for name in left if name.startswith("step-")]) == 2, left
    print(killed, last)
"""


def test_a_kill_at_any_moment(folder):
    """Killed at each change of the disk, and at random moments: there is always a whole checkpoint to go on from.

    It is never older than the last one that was there before, nothing is passed over as damaged, and
    what the killed ones left behind goes with the next.
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WRITERS), str(folder), "0"],
        capture_output=True,
        encoding="utf-8",
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("84 ")
    assert done.stderr == ""
