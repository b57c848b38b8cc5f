"""The families whose weights run packed, as plain tensors that an engine can lay out as it likes.

They are taken by name from a checkpoint or a model's state; transformers' models, which take seconds
to import, are not needed for it.

Covers sequence classifiers of BERT, RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT, ELECTRA and
ModernBERT, and encoders of these without a head, which are given one. What does not fit (a decoder,
relative positions, an activation not listed, RoPE scaling) is named by `why_not_packed` and left to the padded path.

Axes: V vocabulary, H hidden, I intermediate, D of a head, P pooled hidden, C outputs, N sequences.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch

from assay.model.checkpoint import position_limit
from assay.model.heads import ClassifierHead, Head
from assay.model.parts import ACTIVATIONS, Activation, Linear, Norm

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")

BERT_LIKE = frozenset({"bert", "electra"})
ROBERTA_LIKE = frozenset({"roberta", "xlm-roberta", "camembert"})
_DISTILBERT_EPS = 1e-12
"""DistilBERT's config does not name it."""
PACKED_FAMILIES = BERT_LIKE | ROBERTA_LIKE | {"distilbert", "modernbert"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotary:
    """Rotary positions (Su et al. 2021), halves rotated as in GPT-NeoX."""

    inv_freq: torch.Tensor
    """Angle a position, float32 [D / 2]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerWeights:
    """One encoder layer."""

    qkv: Linear
    """Queries, keys and values stacked, [3H, H]."""
    attention_out: Linear
    attention_norm: Norm | None
    """After the residual (post-norm) or before the attention (pre-norm; None where there is none)."""
    up: Linear
    """[I, H]; with `gated` [2I, H], the activated half first."""
    down: Linear
    ffn_norm: Norm
    rotary: Rotary | None = None
    window: int | None = None
    """A token sees those at most this far away; None for all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderWeights:
    """A whole classifier as tensors; every family in this one shape."""

    family: str
    """config.model_type"""
    num_heads: int
    activation: Activation
    gated: bool
    """Whether the feed-forward is activation(first half) * second half."""
    is_pre_norm: bool
    word_embeddings: torch.Tensor
    """[V, H]; ELECTRA's may be narrower, see `projection`."""
    position_embeddings: torch.Tensor | None
    """[positions, H], row 0 for the first token; None where positions are rotary."""
    pad_position: torch.Tensor | None
    """RoBERTa: the position row [H] of a pad id inside a text, which also does not count; else None."""
    pad_token_id: int | None
    """The id that `pad_position` speaks of; None where padding ids are ordinary ones."""
    token_type_embeddings: torch.Tensor | None
    """[types, H]; None where the family has none."""
    embedding_norm: Norm
    projection: Linear | None
    """ELECTRA: embeddings to hidden."""
    layers: tuple[LayerWeights, ...]
    final_norm: Norm | None
    head: Head
    """What it gives for a sequence, and what it sees of it."""
    max_length: int
    """The most tokens a sequence may have."""

    @property
    def num_token_types(self) -> int:
        """Token types that the model tells apart; 1 where it does not."""
        return 1 if self.token_type_embeddings is None else self.token_type_embeddings.shape[0]


def max_sequence_length(config: Any) -> int:  # noqa: ANN401 - a transformers config is untyped
    """Return the most tokens a sequence may have, special tokens counted, as `checkpoint` reads it."""
    return position_limit(config.to_dict() if hasattr(config, "to_dict") else vars(config))


def why_not_packed(config: Any) -> str | None:  # noqa: ANN401 - a transformers config is untyped
    """Return why a classifier of this config must run padded, in a few words; None where it can run packed."""
    if config.model_type not in PACKED_FAMILIES:
        return f"family {config.model_type!r} has no packed path"
    if getattr(config, "num_hidden_layers", 1) < 1:
        return "the model has no layers"
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return "the model is a decoder"
    if getattr(config, "position_embedding_type", None) not in {None, "absolute"}:
        return f"positions are {config.position_embedding_type!r}"
    for name in _activation_names(config):
        if name not in ACTIVATIONS:
            return f"activation {name!r} has no packed kernel"
    if config.model_type == "modernbert":
        if any(rope.get("rope_type", "default") != "default" for rope in config.rope_parameters.values()):
            return "rotary positions are scaled"
        if config.classifier_pooling not in {"cls", "mean"}:
            return f"pooling {config.classifier_pooling!r} has no packed kernel"
    return None


def extract_weights(model: "PreTrainedModel", head: Head | None = None) -> EncoderWeights | None:
    """Return the model's weights in the one plain shape; None where it is not a classifier that runs packed.

    With `head` the model's own, if it has one, is left out, so that any model of a packed family will do.
    Tensors are shared with the model where nothing is stacked; dtype and device are the model's.
    """
    if head is None and not type(model).__name__.endswith("ForSequenceClassification"):
        return None
    return weights_of(model.config, model.state_dict(), head)


def weights_of(
    config: Any,  # noqa: ANN401 - untyped
    state: Mapping[str, torch.Tensor],
    head: Head | None = None,
) -> EncoderWeights | None:
    """Return the weights of a classifier's state, by transformers' names, in the one plain shape.

    With `head` those of an encoder's state, under that head. None where `why_not_packed` has a reason, or
    where the state lacks a weight that the family has.
    """
    if why_not_packed(config) is not None:
        return None
    if head is not None:
        state = _as_in_a_classifier(config, state)
    try:
        layers = tuple(layer_weights(config, number, state) for number in range(config.num_hidden_layers))
        return replace(frame_weights(config, state, head), layers=layers)
    except KeyError:
        return None


def frame_weights(
    config: Any,  # noqa: ANN401 - untyped
    state: Mapping[str, torch.Tensor],
    head: Head | None = None,
) -> EncoderWeights:
    """Return what `weights_of` does but the layers; KeyError for a weight that is not in the state."""
    make = {"modernbert": _modernbert, "distilbert": _distilbert}.get(config.model_type, _bert_like)
    return make(config, _State(state), head)


def _as_in_a_classifier(config: Any, state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:  # noqa: ANN401 - untyped
    """An encoder's state under the names that its weights have in a classifier."""
    base = {"modernbert": "model", "distilbert": "distilbert"}.get(config.model_type) or _bert_base(config)
    if any(name.startswith(f"{base}.") for name in state):
        return state
    return {f"{base}.{name}": tensor for name, tensor in state.items()}


def layer_name(config: Any, number: int) -> str:  # noqa: ANN401 - a transformers config is untyped
    """Return transformers' name of the module of one encoder layer."""
    if config.model_type in {"modernbert", "distilbert"}:
        stack = "model.layers" if config.model_type == "modernbert" else "distilbert.transformer.layer"
        return f"{stack}.{number}"
    return f"{_bert_base(config)}.encoder.layer.{number}"


def layer_weights(config: Any, number: int, state: Mapping[str, torch.Tensor]) -> LayerWeights:  # noqa: ANN401 - untyped
    """Return the weights of one layer; tensors are the state's own where nothing is stacked.

    KeyError for a weight that is not in the state, which may hold this layer alone.
    """
    make = {"modernbert": _modernbert_layer, "distilbert": _distilbert_layer}.get(
        config.model_type, _bert_like_layer
    )
    return make(config, number, _State(state))


def in_float32(weights: EncoderWeights) -> EncoderWeights:
    """Return the weights in float32, whatever the checkpoint keeps them in."""
    return moved(weights, weights.word_embeddings.device, torch.float32)


def moved(weights: T, device: torch.device, dtype: torch.dtype) -> T:
    """Return the dataclass with every tensor in it, at any depth, on `device` in `dtype`."""

    def move(value: Any) -> Any:  # noqa: ANN401 - fields of any type pass through
        if isinstance(value, torch.Tensor):
            return value.to(device, dtype).contiguous()
        if isinstance(value, tuple):
            return tuple(move(item) for item in value)
        if isinstance(value, Rotary):
            return value
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{field.name: move(getattr(value, field.name)) for field in fields(value)})
        return value

    return cast("T", move(weights))


class _State:
    """Tensors by name, as the parts that layers are made of. KeyError for a name that is not there."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._tensors = tensors

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def tensor(self, name: str) -> torch.Tensor:
        return self._tensors[name]

    def linear(self, name: str) -> Linear:
        return Linear(weight=self.tensor(f"{name}.weight"), bias=self._bias(name))

    def stacked(self, *names: str) -> Linear:
        parts = [self.linear(name) for name in names]
        biases = [part.bias for part in parts if part.bias is not None]
        return Linear(
            weight=torch.cat([part.weight for part in parts]), bias=torch.cat(biases) if biases else None
        )

    def norm(self, name: str, eps: float) -> Norm:
        return Norm(weight=self.tensor(f"{name}.weight"), bias=self._bias(name), eps=eps)

    def _bias(self, name: str) -> torch.Tensor | None:
        return self.tensor(f"{name}.bias") if f"{name}.bias" in self else None


def _activation_names(config: Any) -> list[str]:  # noqa: ANN401 - a transformers config is untyped
    """Every activation that the config names, as strings."""
    names = ("hidden_act", "activation", "hidden_activation", "classifier_activation")
    return [str(getattr(config, name)) for name in names if hasattr(config, name)]


def _bert_like(config: Any, state: _State, head: Head | None) -> EncoderWeights:  # noqa: ANN401 - untyped
    """BERT, ELECTRA, RoBERTa and kin: post-norm, learned positions, token types."""
    base = _bert_base(config)
    eps = config.layer_norm_eps
    positions = state.tensor(f"{base}.embeddings.position_embeddings.weight")
    pad_position = pad_token_id = None
    if config.model_type in ROBERTA_LIKE:
        pad_token_id = int(config.pad_token_id)
        pad_position = positions[pad_token_id]
        positions = positions[pad_token_id + 1 :]
    project = f"{base}.embeddings_project"
    return EncoderWeights(
        family=config.model_type,
        num_heads=config.num_attention_heads,
        activation=ACTIVATIONS[config.hidden_act],
        gated=False,
        is_pre_norm=False,
        word_embeddings=state.tensor(f"{base}.embeddings.word_embeddings.weight"),
        position_embeddings=positions,
        pad_position=pad_position,
        pad_token_id=pad_token_id,
        token_type_embeddings=state.tensor(f"{base}.embeddings.token_type_embeddings.weight"),
        embedding_norm=state.norm(f"{base}.embeddings.LayerNorm", eps),
        projection=state.linear(project) if f"{project}.weight" in state else None,
        layers=(),
        final_norm=None,
        head=head or _bert_like_head(config, state),
        max_length=max_sequence_length(config),
    )


def _bert_like_head(config: Any, state: _State) -> Head:  # noqa: ANN401 - a transformers config is untyped
    if config.model_type == "bert":
        return ClassifierHead(
            pooling="first",
            dense=state.linear("bert.pooler.dense"),
            activation="tanh",
            norm=None,
            out=state.linear("classifier"),
        )
    return ClassifierHead(
        pooling="first",
        dense=state.linear("classifier.dense"),
        activation="gelu" if config.model_type == "electra" else "tanh",
        norm=None,
        out=state.linear("classifier.out_proj"),
    )


def _bert_base(config: Any) -> str:  # noqa: ANN401 - a transformers config is untyped
    """The encoder's name within the classifier."""
    return config.model_type if config.model_type in BERT_LIKE else "roberta"


def _bert_like_layer(config: Any, number: int, state: _State) -> LayerWeights:  # noqa: ANN401 - untyped
    layer = layer_name(config, number)
    attention, eps = f"{layer}.attention", config.layer_norm_eps
    return LayerWeights(
        qkv=state.stacked(*(f"{attention}.self.{part}" for part in ("query", "key", "value"))),
        attention_out=state.linear(f"{attention}.output.dense"),
        attention_norm=state.norm(f"{attention}.output.LayerNorm", eps),
        up=state.linear(f"{layer}.intermediate.dense"),
        down=state.linear(f"{layer}.output.dense"),
        ffn_norm=state.norm(f"{layer}.output.LayerNorm", eps),
    )


def _distilbert(config: Any, state: _State, head: Head | None) -> EncoderWeights:  # noqa: ANN401 - untyped
    """DistilBERT: BERT without token types, its head a ReLU."""
    return EncoderWeights(
        family=config.model_type,
        num_heads=config.n_heads,
        activation=ACTIVATIONS[config.activation],
        gated=False,
        is_pre_norm=False,
        word_embeddings=state.tensor("distilbert.embeddings.word_embeddings.weight"),
        position_embeddings=state.tensor("distilbert.embeddings.position_embeddings.weight"),
        pad_position=None,
        pad_token_id=None,
        token_type_embeddings=None,
        embedding_norm=state.norm("distilbert.embeddings.LayerNorm", _DISTILBERT_EPS),
        projection=None,
        layers=(),
        final_norm=None,
        head=head
        or ClassifierHead(
            pooling="first",
            dense=state.linear("pre_classifier"),
            activation="relu",
            norm=None,
            out=state.linear("classifier"),
        ),
        max_length=max_sequence_length(config),
    )


def _distilbert_layer(config: Any, number: int, state: _State) -> LayerWeights:  # noqa: ANN401 - untyped
    layer = layer_name(config, number)
    return LayerWeights(
        qkv=state.stacked(*(f"{layer}.attention.{part}_lin" for part in "qkv")),
        attention_out=state.linear(f"{layer}.attention.out_lin"),
        attention_norm=state.norm(f"{layer}.sa_layer_norm", _DISTILBERT_EPS),
        up=state.linear(f"{layer}.ffn.lin1"),
        down=state.linear(f"{layer}.ffn.lin2"),
        ffn_norm=state.norm(f"{layer}.output_layer_norm", _DISTILBERT_EPS),
    )


def _modernbert(config: Any, state: _State, head: Head | None) -> EncoderWeights:  # noqa: ANN401 - untyped
    """ModernBERT: pre-norm, rotary positions, gated feed-forward, two layers of three see a window."""
    eps = config.norm_eps
    return EncoderWeights(
        family=config.model_type,
        num_heads=config.num_attention_heads,
        activation=ACTIVATIONS[config.hidden_activation],
        gated=True,
        is_pre_norm=True,
        word_embeddings=state.tensor("model.embeddings.tok_embeddings.weight"),
        position_embeddings=None,
        pad_position=None,
        pad_token_id=None,
        token_type_embeddings=None,
        embedding_norm=state.norm("model.embeddings.norm", eps),
        projection=None,
        layers=(),
        final_norm=state.norm("model.final_norm", eps),
        head=head
        or ClassifierHead(
            pooling="mean" if config.classifier_pooling == "mean" else "first",
            dense=state.linear("head.dense"),
            activation=ACTIVATIONS[config.classifier_activation],
            norm=state.norm("head.norm", eps),
            out=state.linear("classifier"),
        ),
        max_length=max_sequence_length(config),
    )


def _modernbert_layer(config: Any, number: int, state: _State) -> LayerWeights:  # noqa: ANN401 - untyped
    layer, kind, eps = layer_name(config, number), config.layer_types[number], config.norm_eps
    has_norm = f"{layer}.attn_norm.weight" in state
    return LayerWeights(
        qkv=state.linear(f"{layer}.attn.Wqkv"),
        attention_out=state.linear(f"{layer}.attn.Wo"),
        attention_norm=state.norm(f"{layer}.attn_norm", eps) if has_norm else None,
        up=state.linear(f"{layer}.mlp.Wi"),
        down=state.linear(f"{layer}.mlp.Wo"),
        ffn_norm=state.norm(f"{layer}.mlp_norm", eps),
        rotary=_rotary(
            config.hidden_size // config.num_attention_heads,
            float(config.rope_parameters[kind]["rope_theta"]),
        ),
        window=config.local_attention // 2 if kind == "sliding_attention" else None,
    )


@functools.cache
def _rotary(head_size: int, theta: float) -> Rotary:
    """Angles a position; one value for all layers of a kind, so that their tables are made once."""
    exponents = torch.arange(0, head_size, 2, dtype=torch.int64).float() / head_size
    return Rotary(inv_freq=1.0 / (theta**exponents))
