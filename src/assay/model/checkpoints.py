"""Sequence classifiers from a directory, and what is refused.

Only weights are read: safetensors, or an old `pytorch_model.bin` through torch's weights-only
reader. No code and no other pickle of a checkpoint is ever run.
"""

import contextlib
import json
import pickle
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from assay.errors import BundleError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
_LEGACY = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def load_classifier(path: str | Path, *, dtype: torch.dtype = torch.float32) -> "PreTrainedModel":
    """Return the classifier in evaluation mode on the CPU, its weights in `dtype`.

    Raises BundleError where the directory is no checkpoint, asks for remote code, holds only
    pickles, is truncated, or lacks weights (a head that would be made up at random). Warns
    (UserWarning) where the weights are an old `pytorch_model.bin`.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    folder = Path(path)
    read_config(folder)
    _require_weights(folder)
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            loaded, info = AutoModelForSequenceClassification.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
                # Else transformers reports them on a log and raises an error that names none.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        SafetensorError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        raise BundleError(
            f"{folder} cannot be loaded: {_one_line(error)}; check that the copy is complete"
        ) from error
    _require_complete(folder, info)
    model = cast("PreTrainedModel", loaded)
    return cast("PreTrainedModel", model.eval().requires_grad_(False))  # noqa: FBT003


def load_tensors(path: str | Path) -> dict[str, torch.Tensor] | None:
    """Return a checkpoint's tensors by name, as they lie in its safetensors.

    Takes a fraction of `load_classifier`, which makes a model; None where there are no safetensors or
    they cannot be read: that one says why. Raises BundleError as it does for config.json.
    """
    folder = Path(path)
    read_config(folder)
    index = folder / _SAFETENSORS[1]
    try:
        files = [_SAFETENSORS[0]]
        if index.is_file():
            files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return {name: tensor for file in files for name, tensor in load_file(folder / file).items()}
    except (OSError, ValueError, KeyError, SafetensorError):
        return None


def weight_files(path: str | Path) -> list[Path]:
    """Return config.json and the weights of a checkpoint, sorted."""
    folder = Path(path)
    return sorted([folder / "config.json", *folder.glob("*.safetensors"), *folder.glob("*.bin")])


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json; BundleError where it is missing, not JSON, or asks for remote code."""
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"{folder} has no config.json; give the directory of a transformers classifier"
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{file} cannot be read: {_one_line(error)}; check that the copy is complete"
        ) from error
    if not isinstance(config, dict):
        raise BundleError(f"{file} is not a JSON object; give the directory of a transformers classifier")
    if config.get("auto_map"):
        raise BundleError(
            f"{file} asks for remote code (auto_map); code in a bundle is never run; "
            "convert it to a class of transformers"
        )
    return config


def _require_weights(folder: Path) -> None:
    """BundleError unless there are weights that need no pickle to be trusted; warns for old ones."""
    if any((folder / name).is_file() for name in _SAFETENSORS):
        return
    if any((folder / name).is_file() for name in _LEGACY):
        warnings.warn(
            f"{folder} holds pytorch_model.bin; it is read as weights only, but save it as safetensors",
            stacklevel=3,
        )
        return
    pickles = sorted(
        file.name for file in folder.iterdir() if file.suffix in {".pkl", ".pickle", ".pt", ".bin"}
    )
    if pickles:
        raise BundleError(
            f"{folder} holds {pickles[0]} and no safetensors; pickles are never loaded; save as safetensors"
        )
    raise BundleError(f"{folder} has no model.safetensors; copy the weights beside config.json")


def _require_complete(folder: Path, info: dict[str, Any]) -> None:
    """BundleError where transformers made up a weight that the file lacks or holds in another shape."""
    missing = sorted(str(key) for key in info.get("missing_keys", ()))
    mismatched = sorted(_shapes(*key) for key in info.get("mismatched_keys", ()))
    if mismatched:
        raise BundleError(
            f"{folder} holds {len(mismatched)} weights in another shape than config.json asks for "
            f"({', '.join(mismatched[:3])}); correct the labels or sizes there, or copy the whole checkpoint"
        )
    if missing:
        named = ", ".join(missing[:3])
        raise BundleError(
            f"{folder} lacks {len(missing)} weights ({named}); they would be random; "
            "fine-tune it first, or copy the whole checkpoint"
        )


def _shapes(name: str, held: Sequence[int], wanted: Sequence[int]) -> str:
    """A weight that does not fit, as `classifier.bias: 2, not 3`."""
    return f"{name}: {' x '.join(map(str, held))}, not {' x '.join(map(str, wanted))}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bar and load report: what they say becomes our errors."""
    from transformers.utils import logging as hf_logging

    verbosity = hf_logging.get_verbosity()
    had_bar = hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if had_bar:
            hf_logging.enable_progress_bar()


def _one_line(error: Exception) -> str:
    """First line of an error's message, or its type."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
