"""Models and tensors of a checkpoint, in memory.

Which files they come from `model.checkpoint` decides. Only weights are read: safetensors, or an old
`pytorch_model.bin` through torch's weights-only reader. No code and no other pickle is ever run.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from assay.errors import BundleError
from assay.garbage import not_collecting
from assay.model.checkpoint import Checkpoint, read_checkpoint
from assay.telemetry import format_number_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_classifier(path: str | Path, *, dtype: torch.dtype = torch.float32) -> "PreTrainedModel":
    """Return the classifier of a folder in evaluation mode on the CPU, its weights in `dtype`.

    Raises BundleError as `read_checkpoint` does, and where weights are missing (a head that would be made
    up at random) or of another shape.
    """
    checkpoint = read_checkpoint(path)
    config = transformers_config(checkpoint)
    try:
        with quiet():
            model, info = from_pretrained(checkpoint, config, dtype=dtype)
    except Exception as error:  # sizes and ids of the config fail as any kind of error deep in a library
        raise _not_loaded(checkpoint, error) from error
    _require_complete(checkpoint.path, info)
    return cast("PreTrainedModel", cast("Any", model).eval().requires_grad_(False))  # noqa: FBT003


def load_encoder(path: str | Path, *, dtype: torch.dtype = torch.float32) -> "PreTrainedModel":
    """Return the encoder of a folder, without any head, in evaluation mode on the CPU, its weights in `dtype`.

    Takes any checkpoint of the encoder, a classifier's too. Raises BundleError as `load_classifier` does.
    """
    checkpoint = read_checkpoint(path)
    config = transformers_config(checkpoint)
    if getattr(config, "is_encoder_decoder", False):
        raise BundleError(
            f"{checkpoint.path}: {config.model_type} has an encoder and a decoder, and no one hidden state a token; "
            "use a model that is an encoder alone"
        )
    try:
        with quiet():
            model, info = from_pretrained(checkpoint, config, dtype=dtype, headless=True)
    except Exception as error:  # sizes and ids of the config fail as any kind of error deep in a library
        raise _not_loaded(checkpoint, error) from error
    # a pooler is a part of a head: what is pooled here are hidden states
    missing = [key for key in info.get("missing_keys", ()) if not str(key).startswith("pooler.")]
    _require_complete(checkpoint.path, {**info, "missing_keys": missing})
    return cast("PreTrainedModel", cast("Any", model).eval().requires_grad_(False))  # noqa: FBT003


def _not_loaded(checkpoint: Checkpoint, error: Exception) -> BundleError:
    return BundleError(
        f"{checkpoint.path} cannot be loaded: {one_line(error)}; "
        "check that config.json is that of these weights and the copy is complete"
    )


def transformers_config(checkpoint: Checkpoint) -> Any:  # noqa: ANN401 - a transformers config is untyped
    """Return the config as transformers reads it; BundleError where it cannot."""
    try:
        with quiet():
            from transformers import AutoConfig

            return AutoConfig.from_pretrained(checkpoint.path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a value of any kind may stand there, and each config has checks of its own
        raise BundleError(
            f"{checkpoint.path / 'config.json'}: transformers cannot read it ({one_line(error)}); "
            "correct it, or save the model again"
        ) from error


def from_pretrained(
    checkpoint: Checkpoint,
    config: Any,  # noqa: ANN401 - a transformers config is untyped
    *,
    dtype: torch.dtype,
    headless: bool = False,
) -> tuple["PreTrainedModel", dict[str, Any]]:
    """Return transformers' classifier of these very weights, and its report of what did not fit.

    With `headless` the encoder alone.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification

    kind: Any = AutoModel if headless else AutoModelForSequenceClassification
    loaded, info = kind.from_pretrained(
        checkpoint.path,
        config=config,
        dtype=dtype,
        use_safetensors=checkpoint.is_safetensors,
        local_files_only=True,
        trust_remote_code=False,
        weights_only=True,
        # Else transformers reports them on a log and raises an error that names none.
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    return cast("PreTrainedModel", loaded), info


def load_tensors(checkpoint: Checkpoint) -> dict[str, torch.Tensor] | None:
    """Return a checkpoint's tensors by name, as they lie in its safetensors.

    Takes a fraction of `load_classifier`, which makes a model; None where there are no safetensors or
    they cannot be read: that one says why.
    """
    if not checkpoint.is_safetensors:
        return None
    try:
        return {name: tensor for file in checkpoint.weights for name, tensor in load_file(file).items()}
    except (OSError, SafetensorError):
        return None


def _require_complete(folder: Path, info: dict[str, Any]) -> None:
    """BundleError where transformers made up a weight that the file lacks or holds in another shape."""
    missing = sorted(str(key) for key in info.get("missing_keys", ()))
    mismatched = sorted(_shapes(*key) for key in info.get("mismatched_keys", ()))
    if mismatched:
        raise BundleError(
            f"{folder} holds {format_number_of(len(mismatched), 'weight')} in another shape than config.json asks for "
            f"({', '.join(mismatched[:3])}); correct the labels or sizes there, or copy the whole checkpoint"
        )
    if missing:
        named = ", ".join(missing[:3])
        raise BundleError(
            f"{folder} lacks {format_number_of(len(missing), 'weight')} ({named}) that config.json asks for; they "
            "would be random; fine-tune it first, correct config.json, or copy the whole checkpoint"
        )


def _shapes(name: str, held: Sequence[int], wanted: Sequence[int]) -> str:
    """A weight that does not fit, as `classifier.bias: 2, not 3`."""
    return f"{name}: {' x '.join(map(str, held))}, not {' x '.join(map(str, wanted))}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bar and load report: what they say becomes our errors.

    What it imports meanwhile, much of itself and of torch, is not gone through for garbage.
    """
    with not_collecting():
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


def one_line(error: Exception) -> str:
    """Return the kind of an error and the first sentence of its message, for a message of ours."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text.split('. ')[0][:200].rstrip('.')}"
