"""The head of a sentence encoder, made of what its files hold."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from assay.errors import BundleError
from assay.model.checkpoint import Checkpoint
from assay.model.heads import AttentionScores, EmbeddingHead, Pooling, Projection
from assay.model.parts import Linear
from assay.model.sentence_files import PoolingName, SentenceFiles, hidden_size_of, module_weights

_POOLINGS: dict[PoolingName, Pooling] = {"mean": "mean", "first_token": "first", "attention": "attention"}


def embedding_head(
    checkpoint: Checkpoint, files: SentenceFiles, *, pooling: PoolingName, normalized: bool
) -> EmbeddingHead:
    """Return the head of a checkpoint, its weights read from the module files.

    Raises BundleError where weights are missing or of a shape that does not fit.
    """
    size = hidden_size = hidden_size_of(checkpoint)
    projections = []
    for each in files.dense:
        linear = _linear(each.folder, "linear", (each.num_outputs, size))
        projections.append(Projection(linear=linear, activation=each.activation))
        size = each.num_outputs
    return EmbeddingHead(
        pooling=_POOLINGS[pooling],
        hidden_size=hidden_size,
        attention=_attention(files, hidden_size) if pooling == "attention" else None,
        projections=tuple(projections),
        normalized=normalized,
    )


def _attention(files: SentenceFiles, hidden_size: int) -> AttentionScores:
    folder = files.pooling_folder
    assert folder is not None, "attention pooling comes from the module files"
    dense = _linear(folder, "dense", (None, hidden_size))
    score = _linear(folder, "score", (1, dense.weight.shape[0]))
    return AttentionScores(dense=dense, score=score)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    file = module_weights(folder)
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        msg = f"{file}: {error}; the weights must be complete; copy or save the model again"
        raise BundleError(msg) from None


def _linear(folder: Path, name: str, shape: tuple[int | None, int]) -> Linear:
    """A module's linear layer in float32; None in the shape is any number."""
    tensors = _weights(folder)
    weight, bias = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
    outputs, inputs = shape
    fits = weight is not None and weight.ndim == 2 and weight.shape[1] == inputs
    if weight is None or not fits or outputs not in (None, weight.shape[0]):
        held = "missing" if weight is None else " x ".join(map(str, weight.shape))
        wanted = " x ".join("any" if size is None else str(size) for size in shape)
        msg = f"{folder}: {name}.weight is {held}; {wanted} is needed; copy or save the model again"
        raise BundleError(msg)
    return Linear(weight=weight.float(), bias=None if bias is None else bias.float())
