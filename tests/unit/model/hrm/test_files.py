"""Checkpoints of HRM and TRM: both layouts, and what is refused."""

import json
import pickle
import shutil

import pytest
import torch
import yaml
from safetensors.torch import save_file
from support.hrm import OTTER, random_network, small_config, small_trm

from assay.errors import BundleError
from assay.model.hrm.files import is_checkpoint, read_hrm, require_task


@pytest.fixture
def otter(tmp_path):
    """A copy of the official checkpoint that a test may spoil; its training's data is not at hand."""
    return shutil.copytree(OTTER, tmp_path / "run with spaces")


def rewritten(folder, change):
    """The configuration after a change."""
    file = folder / "all_config.yaml"
    content = yaml.safe_load(file.read_text())
    change(content)
    file.write_text(yaml.dump(content))
    return folder


def refusal(path, **options):
    """The one line that refuses a checkpoint."""
    with pytest.raises(BundleError) as caught:
        read_hrm(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_means_its_largest_step(otter):
    """Largest by number, not by name; other files beside do not count."""
    shutil.copy(otter / "step_300", otter / "step_1000")
    (otter / "step_9999_all_preds.0").write_bytes(b"")
    assert read_hrm(otter).step == 1000
    assert read_hrm(otter / "step_300").step == 300
    assert is_checkpoint(otter)
    assert is_checkpoint(otter / "step_300")
    assert not is_checkpoint(otter.parent)


def test_cells_come_from_the_training_s_data_or_from_the_caller(otter):
    """Nothing in an official checkpoint with rotary positions says them."""
    assert read_hrm(OTTER).config.seq_len == 81
    assert read_hrm(otter).config.seq_len is None
    assert read_hrm(otter, seq_len=81).config.seq_len == 81


def test_what_the_official_configuration_leaves_out(otter):
    """forward_dtype is absent and means bfloat16; keys have the prefix of a compiled model."""
    config = read_hrm(otter).config
    assert config.forward_dtype == "bfloat16"
    assert (config.vocab_size, config.num_puzzle_identifiers, config.puzzle_emb_len) == (11, 1, 1)
    assert not config.no_ACT_continue


def test_a_fingerprint_changes_with_weights_and_configuration(otter):
    """Two files of the same bytes are the same model, under any name."""
    first = read_hrm(otter).fingerprint
    shutil.copy(otter / "step_300", otter / "step_301")
    assert read_hrm(otter / "step_301").fingerprint == first
    rewritten(otter, lambda content: content["arch"].update(halt_max_steps=5))
    assert read_hrm(otter).fingerprint != first


def test_a_trm_is_read_in_the_official_layout(tmp_path):
    """Keys without prefixes, `data_paths`, weights under `model`; sizes of positions come from the tensors."""
    config = small_trm(mlp_t=True, forward_dtype="bfloat16")
    network = random_network(config)
    arch = {
        "name": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1",
        "loss": {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy"},
        "H_layers": 0,
        "mlp_t": True,
        "no_ACT_continue": True,
        **{
            name: getattr(config, name)
            for name in (
                "H_cycles",
                "L_cycles",
                "L_layers",
                "hidden_size",
                "num_heads",
                "expansion",
                "halt_max_steps",
                "halt_exploration_prob",
                "puzzle_emb_ndim",
                "puzzle_emb_len",
                "pos_encodings",
            )
        },
    }
    (tmp_path / "all_config.yaml").write_text(yaml.dump({"arch": arch, "data_paths": ["data/nowhere"]}))
    state = {f"model.inner.{name}": each for name, each in network.state_dict().items()}
    torch.save({"model": state, "step": 7}, tmp_path / "step_7")
    found = read_hrm(tmp_path)
    assert found.config == config
    inputs = torch.randint(0, 6, (2, 16))
    carry, vectors = network.first_carry(2, 16, torch.float32), torch.zeros(2, 32)
    assert torch.equal(
        found.network()(carry, inputs, vectors)[1].logits_BSV, network(carry, inputs, vectors)[1].logits_BSV
    )


def test_our_layout_is_read_back(tmp_path):
    """Safetensors beside a config.json."""
    network = random_network(small_config())
    (tmp_path / "config.json").write_text(json.dumps(network.config.to_json()))
    save_file(network.state_dict(), tmp_path / "step_12.safetensors")
    found = read_hrm(tmp_path)
    assert found.step == 12
    assert found.config == network.config
    assert all(torch.equal(each, found.tensors[name]) for name, each in network.state_dict().items())


class Evil:
    """Would run code where a pickle is trusted."""

    def __reduce__(self):
        return (print, ("code was run",))


def test_what_is_not_a_checkpoint_is_refused(otter, tmp_path, capsys):
    """Each in one line that names the file and the way out; no code of a pickle is run."""
    step = otter / "step_300"
    step.write_bytes(pickle.dumps(Evil()))
    assert "save model.state_dict() alone" in refusal(otter)
    torch.save({"epoch": 3, "optimizer": [1, 2]}, step)
    assert "not a state dict" in refusal(otter)
    torch.save([torch.zeros(2)], step)
    assert "not a state dict" in refusal(otter)
    step.write_bytes(b"PK\x03\x04 cut short")
    assert "cannot be read" in refusal(otter)
    step.write_bytes(b"")
    assert "cannot be read" in refusal(otter)
    assert "code was run" not in capsys.readouterr().out
    assert "no such file or folder" in refusal(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "no file step_<N>" in refusal(tmp_path / "empty")


def test_a_missing_or_foreign_configuration_is_refused(otter):
    """all_config.yaml must be there and be that of an HRM or TRM."""
    text = (otter / "all_config.yaml").read_text()
    (otter / "all_config.yaml").unlink()
    assert "no all_config.yaml beside it" in refusal(otter)
    for broken, part in (("a: [", "restore"), ("- 1", "holds no settings"), ("seed: 1", "no section arch")):
        (otter / "all_config.yaml").write_text(broken)
        assert part in refusal(otter)
    (otter / "all_config.yaml").write_text(text)
    for change, part in (
        (lambda content: content["arch"].update(name="models@Transformer"), "arch.name=models@Transformer"),
        (lambda content: content["arch"].pop("H_cycles"), "arch.H_cycles is missing"),
        (lambda content: content["arch"].update(H_cycles="many"), "many"),
        (lambda content: content["arch"].update(L_layers=0), "L_layers=0"),
        (lambda content: content["arch"].update(num_heads=3), "num_heads=3"),
        (lambda content: content["arch"].update(pos_encodings="alibi"), "alibi"),
        (lambda content: content["arch"].update(forward_dtype="float8"), "float8"),
    ):
        assert part in refusal(rewritten(otter, change))
        (otter / "all_config.yaml").write_text(text)


def test_weights_of_another_model_are_refused(otter):
    """Another shape, a layer too few or too many, and weights of something else."""
    text = (otter / "all_config.yaml").read_text()
    for change, part in (
        (lambda content: content["arch"].update(hidden_size=32), "asks for [32]"),
        (lambda content: content["arch"].update(L_layers=3), "no tensor L_level.layers.2"),
        (lambda content: content["arch"].update(L_layers=1), "a tensor L_level.layers.1"),
    ):
        assert part in refusal(rewritten(otter, change))
        (otter / "all_config.yaml").write_text(text)
    torch.save({"classifier.weight": torch.zeros(2, 2)}, otter / "step_300")
    assert "embed_tokens" in refusal(otter)


def test_another_task_is_refused(otter):
    """Puzzles of other sizes than those trained on."""
    with pytest.raises(BundleError, match="6 values and 900 cells; name a checkpoint of this task"):
        require_task(read_hrm(otter), vocab_size=6, seq_len=900)
    assert require_task(read_hrm(otter), vocab_size=11, seq_len=81).seq_len == 81
    with pytest.raises(BundleError, match="puzzles 81 cells"):
        require_task(read_hrm(OTTER), vocab_size=11, seq_len=16)


def test_a_config_of_another_kind_of_model_is_refused(tmp_path):
    """A text classifier's folder is not a puzzle model."""
    save_file({"a": torch.zeros(1)}, tmp_path / "step_1.safetensors")
    assert "no config.json" in refusal(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert "model_type=bert" in refusal(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "hrm", "vocab_size": 3}')
    assert "missing" in refusal(tmp_path)
