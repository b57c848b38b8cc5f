"""The base of a training: read, given the head that the rows want, and refused where it is not whole."""

from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from assay.errors import BundleError
from assay.model.checkpoint import Checkpoint, read_checkpoint
from assay.model.pretrained import from_pretrained, one_line, quiet, transformers_config
from assay.model.tokenizer_files import read_tokenizer
from assay.train.optimizer import add_lora, freeze
from assay.train.settings import TrainSettings


def load_model(settings: TrainSettings, names: tuple[str, ...]) -> PreTrainedModel:
    """The base with a head for these outputs; new head weights come from the global generator."""
    checkpoint = base_checkpoint(settings.base)
    config = transformers_config(checkpoint)
    config.num_labels = len(names)
    config.id2label = dict(enumerate(names))
    config.label2id = {label: index for index, label in enumerate(names)}
    config.problem_type = settings.predicts.problem_type
    if settings.dropout is not None:
        for name in dropout_names(config.to_dict()):
            setattr(config, name, settings.dropout)
    with quiet():
        try:
            model, found = from_pretrained(checkpoint, config, dtype=torch.float32)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise BundleError(
                f"{settings.base}: transformers cannot make a {config.model_type} classifier of it"
                f" ({one_line(error)}); fix its files, or choose another base"
            ) from error
    _check_weights(settings.base, model, found)
    if settings.lora_rank is not None:
        add_lora(model, rank=settings.lora_rank, alpha=settings.lora_alpha)
    freeze(model, settings)
    return model


def base_checkpoint(base: str) -> Checkpoint:
    """The folder that a training starts from: as a bundle's, but without need of a head or labels."""
    checkpoint = read_checkpoint(base)
    read_tokenizer(base)
    return checkpoint


def _check_weights(base: str, model: PreTrainedModel, found: Mapping[str, Any]) -> None:
    """Raise `BundleError` where the encoder is not what the files hold: parts made up at random, or no numbers.

    New weights are what a head needs, and a pooler, which is one.
    """
    prefix = f"{model.base_model_prefix}."
    missing = {str(name) for name in found["missing_keys"]}
    missing |= {str(key[0] if isinstance(key, tuple) else key) for key in found["mismatched_keys"]}
    made_up = sorted(name for name in missing if name.startswith(prefix) and ".pooler." not in name)
    if made_up:
        raise BundleError(
            f"{base}: {len(made_up)} weights of the {model.config.model_type} encoder are missing or of another"
            f" shape ({', '.join(made_up[:3])}); they would be random; config.json and the weights must be of one"
            " model; copy the whole checkpoint"
        )
    odd = [name for name, each in model.named_parameters() if not torch.isfinite(each).all()]
    if odd:
        raise BundleError(
            f"{base}: {len(odd)} weights hold NaN or infinity ({', '.join(odd[:3])}); training cannot"
            " start from them; copy the checkpoint again, or choose another base"
        )


def dropout_names(config: Mapping[str, object]) -> list[str]:
    """The numbers in a transformers config that are shares of dropout."""
    return [name for name, value in config.items() if "dropout" in name and isinstance(value, float | int)]
