"""The families whose weights run packed, as plain tensors that an engine can lay out as it likes.

Covers sequence classifiers of BERT, RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT, ELECTRA and
ModernBERT. What does not fit (a decoder, relative positions, an activation not listed, RoPE
scaling) is named by `why_not_packed` and left to the padded path.

Axes: V vocabulary, H hidden, I intermediate, D of a head, P pooled hidden, C outputs, N sequences.
"""

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import nn
from transformers import PreTrainedModel

Activation = Literal["gelu", "gelu_tanh", "relu", "silu", "tanh"]

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
"""transformers' names of the activations (`transformers.activations.ACT2FN`) that engines know."""

BERT_LIKE = frozenset({"bert", "electra"})
ROBERTA_LIKE = frozenset({"roberta", "xlm-roberta", "camembert"})
PACKED_FAMILIES = BERT_LIKE | ROBERTA_LIKE | {"distilbert", "modernbert"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear:
    """x @ weight.T + bias."""

    weight: torch.Tensor
    """[out, in]"""
    bias: torch.Tensor | None
    """[out]"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Norm:
    """Layer normalisation over the last axis."""

    weight: torch.Tensor
    """[H]"""
    bias: torch.Tensor | None
    """[H]"""
    eps: float


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
class HeadWeights:
    """The classifier on the pooled hidden state: dense, activation, norm where there is one, out."""

    dense: Linear
    activation: Activation
    norm: Norm | None
    out: Linear

    def __call__(self, pooled_NH: torch.Tensor) -> torch.Tensor:
        """Return the logits [N, C]."""
        hidden_NP = activate(F.linear(pooled_NH, self.dense.weight, self.dense.bias), self.activation)
        if self.norm is not None:
            hidden_NP = F.layer_norm(
                hidden_NP, hidden_NP.shape[-1:], self.norm.weight, self.norm.bias, self.norm.eps
            )
        return F.linear(hidden_NP, self.out.weight, self.out.bias)


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
    pooling: Literal["first", "mean"]
    head: HeadWeights
    max_length: int
    """The most tokens a sequence may have."""

    @property
    def num_outputs(self) -> int:
        """C, the number of logits."""
        return self.head.out.weight.shape[0]

    @property
    def num_token_types(self) -> int:
        """Token types that the model tells apart; 1 where it does not."""
        return 1 if self.token_type_embeddings is None else self.token_type_embeddings.shape[0]


def activate(x: torch.Tensor, activation: Activation) -> torch.Tensor:
    """Return the activation of x, elementwise."""
    match activation:
        case "gelu":
            return F.gelu(x)
        case "gelu_tanh":
            return F.gelu(x, approximate="tanh")
        case "relu":
            return F.relu(x)
        case "silu":
            return F.silu(x)
        case "tanh":
            return torch.tanh(x)


def max_sequence_length(model: PreTrainedModel) -> int:
    """Return the most tokens a sequence may have, special tokens counted."""
    config: Any = model.config
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        # relative positions only (T5 and kin): no bound of the model's own
        return 1 << 20
    # These number positions from pad_token_id + 1 on.
    offset_families = {
        *ROBERTA_LIKE,
        "xlm-roberta-xl",
        "roberta-prelayernorm",
        "data2vec-text",
        "mpnet",
        "xmod",
    }
    if config.model_type in offset_families | {"longformer", "ibert", "luke"}:
        return positions - (config.pad_token_id or 0) - 1
    return positions


def why_not_packed(model: PreTrainedModel) -> str | None:
    """Return why this model must run padded, in a few words; None where it can run packed."""
    config: Any = model.config
    if config.model_type not in PACKED_FAMILIES:
        return f"family {config.model_type!r} has no packed path"
    if not type(model).__name__.endswith("ForSequenceClassification"):
        return f"{type(model).__name__} is not a sequence classifier"
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


def extract_weights(model: PreTrainedModel) -> EncoderWeights | None:
    """Return the model's weights in the one plain shape; None where `why_not_packed` has a reason.

    Tensors are shared with the model where nothing is stacked; dtype and device are the model's.
    """
    if why_not_packed(model) is not None:
        return None
    family = str(model.config.model_type)
    if family == "modernbert":
        return _modernbert(model)
    if family == "distilbert":
        return _distilbert(model)
    return _bert_like(model)


def _activation_names(config: Any) -> list[str]:  # noqa: ANN401 - a transformers config is untyped
    """Every activation that the config names, as strings."""
    names = ("hidden_act", "activation", "hidden_activation", "classifier_activation")
    return [str(getattr(config, name)) for name in names if hasattr(config, name)]


def _linear(module: nn.Module) -> Linear:
    return Linear(weight=cast("torch.Tensor", module.weight).detach(), bias=_bias(module))


def _stacked(*modules: nn.Module) -> Linear:
    parts = [_linear(module) for module in modules]
    biases = [part.bias for part in parts if part.bias is not None]
    return Linear(
        weight=torch.cat([part.weight for part in parts]), bias=torch.cat(biases) if biases else None
    )


def _norm(module: nn.Module) -> Norm:
    norm = cast("nn.LayerNorm", module)
    return Norm(weight=norm.weight.detach(), bias=_bias(module), eps=norm.eps)


def _bias(module: nn.Module) -> torch.Tensor | None:
    bias = cast("torch.Tensor | None", module.bias)
    return None if bias is None else bias.detach()


def _bert_like(model: PreTrainedModel) -> EncoderWeights:
    """BERT, ELECTRA, RoBERTa and kin: post-norm, learned positions, token types."""
    config: Any = model.config
    base: Any = model.base_model
    untyped: Any = model
    embeddings = base.embeddings
    positions = embeddings.position_embeddings.weight.detach()
    pad_position = pad_token_id = None
    if config.model_type in ROBERTA_LIKE:
        pad_token_id = int(config.pad_token_id)
        pad_position = positions[pad_token_id]
        positions = positions[pad_token_id + 1 :]
    layers = tuple(
        LayerWeights(
            qkv=_stacked(layer.attention.self.query, layer.attention.self.key, layer.attention.self.value),
            attention_out=_linear(layer.attention.output.dense),
            attention_norm=_norm(layer.attention.output.LayerNorm),
            up=_linear(layer.intermediate.dense),
            down=_linear(layer.output.dense),
            ffn_norm=_norm(layer.output.LayerNorm),
        )
        for layer in base.encoder.layer
    )
    if config.model_type == "bert":
        head = HeadWeights(
            dense=_linear(base.pooler.dense), activation="tanh", norm=None, out=_linear(untyped.classifier)
        )
    else:
        head = HeadWeights(
            dense=_linear(untyped.classifier.dense),
            activation="gelu" if config.model_type == "electra" else "tanh",
            norm=None,
            out=_linear(untyped.classifier.out_proj),
        )
    return EncoderWeights(
        family=config.model_type,
        num_heads=config.num_attention_heads,
        activation=ACTIVATIONS[config.hidden_act],
        gated=False,
        is_pre_norm=False,
        word_embeddings=embeddings.word_embeddings.weight.detach(),
        position_embeddings=positions,
        pad_position=pad_position,
        pad_token_id=pad_token_id,
        token_type_embeddings=embeddings.token_type_embeddings.weight.detach(),
        embedding_norm=_norm(embeddings.LayerNorm),
        projection=_linear(base.embeddings_project) if hasattr(base, "embeddings_project") else None,
        layers=layers,
        final_norm=None,
        pooling="first",
        head=head,
        max_length=max_sequence_length(model),
    )


def _distilbert(model: PreTrainedModel) -> EncoderWeights:
    """DistilBERT: BERT without token types, its head a ReLU."""
    config: Any = model.config
    base: Any = model.base_model
    untyped: Any = model
    layers = tuple(
        LayerWeights(
            qkv=_stacked(layer.attention.q_lin, layer.attention.k_lin, layer.attention.v_lin),
            attention_out=_linear(layer.attention.out_lin),
            attention_norm=_norm(layer.sa_layer_norm),
            up=_linear(layer.ffn.lin1),
            down=_linear(layer.ffn.lin2),
            ffn_norm=_norm(layer.output_layer_norm),
        )
        for layer in base.transformer.layer
    )
    return EncoderWeights(
        family=config.model_type,
        num_heads=config.n_heads,
        activation=ACTIVATIONS[config.activation],
        gated=False,
        is_pre_norm=False,
        word_embeddings=base.embeddings.word_embeddings.weight.detach(),
        position_embeddings=base.embeddings.position_embeddings.weight.detach(),
        pad_position=None,
        pad_token_id=None,
        token_type_embeddings=None,
        embedding_norm=_norm(base.embeddings.LayerNorm),
        projection=None,
        layers=layers,
        final_norm=None,
        pooling="first",
        head=HeadWeights(
            dense=_linear(untyped.pre_classifier),
            activation="relu",
            norm=None,
            out=_linear(untyped.classifier),
        ),
        max_length=max_sequence_length(model),
    )


def _modernbert(model: PreTrainedModel) -> EncoderWeights:
    """ModernBERT: pre-norm, rotary positions, gated feed-forward, two layers of three see a window."""
    config: Any = model.config
    base: Any = model.base_model
    untyped: Any = model
    layers = []
    rotaries = {
        kind: Rotary(inv_freq=getattr(base.rotary_emb, f"{kind}_inv_freq").detach())
        for kind in set(config.layer_types)
    }
    for layer, kind in zip(base.layers, config.layer_types, strict=True):
        layers.append(
            LayerWeights(
                qkv=_linear(layer.attn.Wqkv),
                attention_out=_linear(layer.attn.Wo),
                attention_norm=None if isinstance(layer.attn_norm, nn.Identity) else _norm(layer.attn_norm),
                up=_linear(layer.mlp.Wi),
                down=_linear(layer.mlp.Wo),
                ffn_norm=_norm(layer.mlp_norm),
                rotary=rotaries[kind],
                window=int(config.sliding_window) if kind == "sliding_attention" else None,
            )
        )
    return EncoderWeights(
        family=config.model_type,
        num_heads=config.num_attention_heads,
        activation=ACTIVATIONS[config.hidden_activation],
        gated=True,
        is_pre_norm=True,
        word_embeddings=base.embeddings.tok_embeddings.weight.detach(),
        position_embeddings=None,
        pad_position=None,
        pad_token_id=None,
        token_type_embeddings=None,
        embedding_norm=_norm(base.embeddings.norm),
        projection=None,
        layers=tuple(layers),
        final_norm=_norm(base.final_norm),
        pooling="mean" if config.classifier_pooling == "mean" else "first",
        head=HeadWeights(
            dense=_linear(untyped.head.dense),
            activation=ACTIVATIONS[config.classifier_activation],
            norm=_norm(untyped.head.norm),
            out=_linear(untyped.classifier),
        ),
        max_length=max_sequence_length(model),
    )
