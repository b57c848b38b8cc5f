"""Checkpoints of HRM and TRM on disk, in two layouts alike.

    official   all_config.yaml beside step_100, step_200, ...  (state dicts that torch has pickled)
    ours       config.json beside step_100.safetensors, ...

A checkpoint is named by its file, or by its folder for the largest step in it. Pickles are read by torch's
weights-only reader; nothing else of a pickle is run.
"""

import hashlib
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file

from assay.errors import BundleError
from assay.model.hrm.config import HrmConfig
from assay.model.hrm.network import Network

OFFICIAL_CONFIG = "all_config.yaml"
OWN_CONFIG = "config.json"
_STEP = re.compile(r"step_(\d+)(\.safetensors)?")
_PREFIX = re.compile(r"^(_orig_mod\.)?(model\.)?(inner\.)?")
_DERIVED = "rotary_emb."
"""Tables that some versions stored; they are computed here."""
_FOLDERS_UP = 4
_HASH_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class HrmCheckpoint:
    """Weights of one training step and what says how to run them."""

    weights: Path
    """step_<N>, or step_<N>.safetensors."""
    config_file: Path
    step: int | None
    """Training step; None for a file of another name."""
    config: HrmConfig
    tensors: Mapping[str, torch.Tensor]
    """By their official names less `model.inner.`, as stored, on the CPU."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the configuration and the weights' file: what decides every number, in hexadecimal."""
        found = hashlib.sha256(self.config_file.read_bytes())
        with self.weights.open("rb") as content:
            while piece := content.read(_HASH_BYTES):
                found.update(piece)
        return found.hexdigest()

    def network(self) -> Network:
        """The model in evaluation mode on the CPU, float32 weights."""
        with torch.random.fork_rng(devices=[]):
            network = Network(self.config)
        network.load_state_dict(
            {
                name: each if name in {"H_init", "L_init"} else each.float()
                for name, each in self.tensors.items()
            },
            assign=True,
        )
        return network.eval().requires_grad_(requires_grad=False)


def weights_file(folder: Path, step: int) -> Path:
    """Where our layout has the weights of a step."""
    return folder / f"step_{step}.safetensors"


def snapshots_of(folder: Path) -> list[tuple[int, Path]]:
    """Checkpoints in a folder, each with its step, in their order."""
    return sorted(
        (int(match[1]), each)
        for each in folder.iterdir()
        if (match := _STEP.fullmatch(each.name)) is not None and each.is_file()
    )


def is_checkpoint(path: Path) -> bool:
    """Whether a file or folder looks like a checkpoint of either layout; reads nothing but names."""
    folder = path if path.is_dir() else path.parent
    return (folder / OFFICIAL_CONFIG).is_file() or bool(path.is_file() and _STEP.fullmatch(path.name))


def read_hrm(path: str | Path, *, seq_len: int | None = None) -> HrmCheckpoint:
    """The checkpoint at a file or in a folder, its weights in memory.

    `seq_len`: cells of a puzzle, where neither a tensor nor the training's dataset.json says; without it any
    number runs. Raises `BundleError` for what is not a checkpoint, of another model, or whose weights and
    configuration disagree.
    """
    given = Path(path)
    weights = _weights(given)
    match = _STEP.fullmatch(weights.name)
    is_own = weights.suffix == ".safetensors"
    config_file = weights.parent / (OWN_CONFIG if is_own else OFFICIAL_CONFIG)
    content = _read_config(config_file, weights)
    tensors = _read_own(weights) if is_own else _read_pickle(weights)
    shapes = {name: tuple(each.shape) for name, each in tensors.items()}
    if is_own:
        config = HrmConfig.from_json(content, where=str(config_file))
    else:
        cells = seq_len if seq_len is not None else _cells_of_data(content, shapes, weights.parent)
        config = HrmConfig.from_official(content, where=str(config_file), shapes=shapes, seq_len=cells)
    if seq_len is not None and config.seq_len != seq_len:
        raise BundleError(
            f"{weights}: of puzzles of {config.seq_len} cells, not of {seq_len}; name a checkpoint of this task"
        )
    _check_shapes(weights, config, shapes)
    return HrmCheckpoint(
        weights=weights,
        config_file=config_file,
        step=int(match[1]) if match else None,
        config=config,
        tensors=tensors,
    )


def require_task(checkpoint: HrmCheckpoint, *, vocab_size: int, seq_len: int) -> HrmConfig:
    """The configuration for data of these sizes; `BundleError` where it was trained on others."""
    config = checkpoint.config
    if config.vocab_size != vocab_size or config.seq_len not in {None, seq_len}:
        own = "any number of" if config.seq_len is None else config.seq_len
        raise BundleError(
            f"{checkpoint.weights}: cells have {config.vocab_size} values and puzzles {own} cells; the data has "
            f"{vocab_size} values and {seq_len} cells; name a checkpoint of this task"
        )
    return replace(config, seq_len=seq_len)


# ---------------------------------------------------------------- which files


def _weights(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise BundleError(
            f"{path}: no such file or folder; name a step_<N> file, or the folder that holds it"
        )
    found = snapshots_of(path)
    if not found:
        raise BundleError(f"{path}: no file step_<N> or step_<N>.safetensors in it; name a training's folder")
    return found[-1][1]


def _read_config(file: Path, weights: Path) -> Mapping[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BundleError(
            f"{weights}: no {file.name} beside it; copy the one that its training wrote into {file.parent}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{file}: cannot be read ({error}); restore the training's own file") from error
    try:
        content = json.loads(text) if file.name == OWN_CONFIG else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise BundleError(f"{file}: {reason}; restore the training's own file") from error
    if not isinstance(content, Mapping):
        raise BundleError(f"{file}: holds no settings; restore the training's own file")
    return content


def _cells_of_data(
    content: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], folder: Path
) -> int | None:
    """Cells of a puzzle by the dataset.json of the training's data, where it is still at hand."""
    paths = content.get("data_paths", content.get("data_path"))
    first = paths[0] if isinstance(paths, list) and paths else paths
    if not isinstance(first, str):
        return None
    absolute = folder.resolve()
    for root in (Path(), absolute, *absolute.parents[:_FOLDERS_UP]):
        try:
            found = json.loads((root / first / "train" / "dataset.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if found.get("vocab_size") == shapes.get("embed_tokens.embedding_weight", (None,))[0]:
            return int(found["seq_len"])
    return None


# ---------------------------------------------------------------- tensors


def _read_own(file: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{file}: cannot be read ({error}); copy it again") from error


def _read_pickle(file: Path) -> dict[str, torch.Tensor]:
    """Tensors of a state dict, of the whole file or under its key `model`, without their prefixes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an odd pickle, which is refused or read all the same
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise BundleError(
            f"{file}: a pickle that holds more than tensors, which would run code; save model.state_dict() alone"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise BundleError(f"{file}: cannot be read ({reason}); copy it again") from error
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping) or not all(
        isinstance(each, torch.Tensor) for each in content.values()
    ):
        raise BundleError(f"{file}: not a state dict of tensors by name; save model.state_dict() alone")
    plain = {_PREFIX.sub("", str(name)): each for name, each in content.items()}
    return {name: each for name, each in plain.items() if not name.startswith(_DERIVED)}


def _check_shapes(weights: Path, config: HrmConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `BundleError` for the first tensor that is missing, unknown or of another shape."""
    wanted = config.shapes()
    for name, shape in wanted.items():
        if name not in shapes:
            raise BundleError(
                f"{weights}: no tensor {name}, which its configuration asks for; it is another model's"
            )
        found = shapes[name]
        if len(found) != len(shape) or any(
            asked is not None and asked != seen for asked, seen in zip(shape, found, strict=True)
        ):
            raise BundleError(
                f"{weights}: {name} is {list(found)}; its configuration asks for {list(shape)}; "
                "use the configuration of the same training"
            )
    unknown = sorted(set(shapes) - set(wanted))
    if unknown:
        raise BundleError(
            f"{weights}: a tensor {unknown[0]} that no {config.architecture} has; it is another model's"
        )
