"""Layers and heads that weights hold and a classifier does not use: transformers leaves them out, with a warning.

Told by the names of tensors alone, for any family that numbers its layers as transformers does.
"""

import re
from collections.abc import Iterable, Mapping

_LAYER = re.compile(r"(?P<stack>(?:.*?\.)?(?:layers?|h|blocks?))\.(?P<number>\d+)\.")
"""The outermost numbered stack in a tensor's name: `bert.encoder.layer.11.output.dense.bias`."""
_DEPTHS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "encoder_layers")
"""Names of the number of layers, by family; of an encoder and a decoder, the encoder's."""
_DECODER_DEPTHS = ("decoder_layers", "num_decoder_layers")
_OTHER_HEADS = (
    "cls.predictions",
    "cls.seq_relationship",
    "discriminator_predictions",
    "generator_lm_head",
    "generator_predictions",
    "lm_head",
    "lm_predictions",
    "mask_predictions",
    "qa_outputs",
    "vocab_layer_norm",
    "vocab_projector",
    "vocab_transform",
)
"""Heads of transformers' models for other tasks: masked words, next sentences, replaced words, answers in a text."""


def heads_left_out(tensors: Iterable[str]) -> tuple[str, ...]:
    """[pure] The heads for other tasks, which no classifier uses."""
    names = tuple(tensors)
    return tuple(head for head in _OTHER_HEADS if any(name.startswith(f"{head}.") for name in names))


def layers_left_out(config: Mapping[str, object], tensors: Iterable[str]) -> tuple[str, ...]:
    """[pure] What each stack of layers holds beyond the config's number of layers, a clause each."""
    held: dict[str, int] = {}
    for name in tensors:
        if found := _LAYER.match(name):
            stack = found["stack"]
            held[stack] = max(held.get(stack, 0), int(found["number"]) + 1)
    clauses = []
    for stack, count in sorted(held.items()):
        of_decoder = config.get("is_encoder_decoder") is True and "decoder." in f"{stack}."
        names = _DECODER_DEPTHS if of_decoder else _DEPTHS
        name = next((name for name in names if _is_depth(config.get(name))), "")
        wanted = config.get(name)
        # Funnel's blocks have layers of their own, counted by num_hidden_layers too
        if isinstance(wanted, int) and wanted < count and "block_sizes" not in config:
            last = f" to {count - 1}" if count - 1 > wanted else ""
            clauses.append(
                f"{name} is {wanted} and the weights hold {count}: {stack}.{wanted}{last} left out"
            )
    return tuple(clauses)


def _is_depth(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
