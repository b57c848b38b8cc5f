"""DeBERTa-v2 and v3 classifiers (He et al. 2021) as plain tensors that an engine can lay out as it likes.

Covers `DebertaV2ForSequenceClassification` with relative positions or without, shared projections or
not, logarithmic buckets or none. A convolution after the first layer (v2-xlarge and larger) sees
padding, so that only equal lengths may share a batch: `why_not_packed` leaves it to the padded path.

Axes: V vocabulary, E embedding, H hidden, A heads, D of a head, P rows of relative
positions, C outputs.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import nn

from assay.model.families import EncoderWeights, LayerWeights, max_sequence_length
from assay.model.heads import ClassifierHead
from assay.model.parts import ACTIVATIONS, Linear, Norm

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FAMILY = "deberta-v2"
"""config.model_type of both v2 and v3."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PositionWeights:
    """The relative positions of one layer, projected: constants of the weights."""

    keys_APD: torch.Tensor | None
    """What queries meet (c2p); None where the model has no such term."""
    queries_APD: torch.Tensor | None
    """What keys meet (p2c); None where the model has no such term."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DebertaWeights:
    """A whole classifier as tensors.

    Score of query i and key j, before softmax: `score_scale` * (q_i k_j + q_i keys[p] + k_j queries[p])
    with p = `relative_rows`[i - j + max_length - 1].
    """

    encoder: EncoderWeights
    """What BERT has too. Its position embeddings may be None, its `projection` is."""
    embedding_projection: Linear | None
    """Embeddings [E] to hidden [H], before the norm; None where E is H."""
    positions: tuple[PositionWeights, ...]
    """One for each layer."""
    relative_rows: torch.Tensor
    """Row of the position tensors for each distance from -(max_length - 1) on, int32 [2 max_length - 1]."""
    score_scale: float
    """1 / sqrt(D * terms of the score)"""


def why_not_packed(model: "PreTrainedModel") -> str | None:
    """Return why this model must run padded, in a few words; None where `extract_weights` takes it."""
    config: Any = model.config
    if config.model_type != FAMILY:
        return f"family {config.model_type!r} is not {FAMILY}"
    if type(model).__name__ != "DebertaV2ForSequenceClassification":
        return f"{type(model).__name__} is not a sequence classifier"
    if getattr(config, "conv_kernel_size", 0) > 0:
        return "a convolution after the first layer has no packed kernel"
    for name in (config.hidden_act, config.pooler_hidden_act):
        if str(name) not in ACTIVATIONS:
            return f"activation {name!r} has no packed kernel"
    return None


def extract_weights(model: "PreTrainedModel", *, max_length: int | None = None) -> DebertaWeights | None:
    """Return the model's weights as plain tensors; None where `why_not_packed` has a reason.

    `max_length` is the checkpoint's limit; None takes what the model has positions for.
    Tensors are shared with the model where nothing is stacked or worked out; dtype and device are
    the model's.
    """
    if why_not_packed(model) is not None:
        return None
    config: Any = model.config
    base: Any = model.base_model
    untyped: Any = model
    embeddings = base.embeddings
    span = _span(config)
    attention = base.encoder.layer[0].attention.self
    relative_PH = _relative_embeddings(base.encoder, span)
    encoder = EncoderWeights(
        family=config.model_type,
        num_heads=attention.num_attention_heads,
        activation=ACTIVATIONS[config.hidden_act],
        gated=False,
        is_pre_norm=False,
        word_embeddings=embeddings.word_embeddings.weight.detach(),
        position_embeddings=_table(embeddings.position_embeddings),
        pad_position=None,
        pad_token_id=None,
        token_type_embeddings=_table(embeddings.token_type_embeddings),
        embedding_norm=_norm(embeddings.LayerNorm),
        projection=None,
        layers=tuple(_layer(layer) for layer in base.encoder.layer),
        final_norm=None,
        head=ClassifierHead(
            pooling="first",
            dense=_linear(untyped.pooler.dense),
            activation=ACTIVATIONS[config.pooler_hidden_act],
            norm=None,
            out=_linear(untyped.classifier),
        ),
        max_length=max_length or max_sequence_length(model.config),
    )
    # the terms count even where relative attention is off
    num_terms = 1 + len({"c2p", "p2c"}.intersection(config.pos_att_type or ()))
    return DebertaWeights(
        encoder=encoder,
        embedding_projection=None if embeddings.embed_proj is None else _linear(embeddings.embed_proj),
        positions=tuple(_positions(layer.attention.self, relative_PH) for layer in base.encoder.layer),
        relative_rows=relative_rows(
            encoder.max_length,
            span=span,
            num_buckets=int(getattr(config, "position_buckets", -1)),
            max_distance=_max_distance(config),
        ),
        score_scale=1.0 / math.sqrt(attention.attention_head_size * num_terms),
    )


def relative_rows(max_length: int, *, span: int, num_buckets: int, max_distance: int) -> torch.Tensor:
    """Return the row of the position tensors for each distance query - key, int32 [2 max_length - 1].

    Entry k is for distance k - (max_length - 1). Rows are bucket + `span`, held within 0 and
    2 `span` - 1. Up to half of `num_buckets` a distance is its own bucket, farther ones share
    buckets that widen up to `max_distance`; without buckets (not positive) each has its own. The
    arithmetic, its float32 included, is that of transformers' `make_log_bucket_position`.
    """
    distance = torch.arange(-(max_length - 1), max_length)
    buckets = distance
    middle = num_buckets // 2
    if num_buckets > 0 and max_distance > 0:
        far = torch.where(distance.abs() < middle, torch.tensor(middle - 1), distance.abs())
        widest = torch.log(torch.tensor((max_distance - 1) / middle))
        logarithmic = torch.ceil(torch.log(far / middle) / widest * (middle - 1)) + middle
        buckets = torch.where(far <= middle, distance.to(logarithmic.dtype), logarithmic * distance.sign())
    return torch.clamp(buckets.long() + span, 0, 2 * span - 1).to(torch.int32)


def _max_distance(config: Any) -> int:  # noqa: ANN401 - a transformers config is untyped
    """The farthest distance that the buckets reach."""
    farthest = int(getattr(config, "max_relative_positions", -1))
    return farthest if farthest >= 1 else int(config.max_position_embeddings)


def _span(config: Any) -> int:  # noqa: ANN401 - a transformers config is untyped
    """Half the rows of the relative embeddings."""
    num_buckets = int(getattr(config, "position_buckets", -1))
    return num_buckets if num_buckets > 0 else _max_distance(config)


@torch.no_grad()
def _relative_embeddings(encoder: Any, span: int) -> torch.Tensor | None:  # noqa: ANN401 - a transformers module is untyped
    """The embeddings of relative positions as the projections take them, float32 [P, H]."""
    if not encoder.relative_attention:
        return None
    embeddings_PH: torch.Tensor = encoder.rel_embeddings.weight[: 2 * span].float()
    if "layer_norm" not in encoder.norm_rel_ebd:
        return embeddings_PH
    norm = encoder.LayerNorm
    return F.layer_norm(
        embeddings_PH, embeddings_PH.shape[-1:], norm.weight.float(), norm.bias.float(), norm.eps
    )


def _layer(layer: Any) -> LayerWeights:  # noqa: ANN401 - a transformers module is untyped
    attention = layer.attention.self
    parts = (attention.query_proj, attention.key_proj, attention.value_proj)
    return LayerWeights(
        qkv=Linear(
            weight=torch.cat([part.weight.detach() for part in parts]),
            bias=torch.cat([part.bias.detach() for part in parts]),
        ),
        attention_out=_linear(layer.attention.output.dense),
        attention_norm=_norm(layer.attention.output.LayerNorm),
        up=_linear(layer.intermediate.dense),
        down=_linear(layer.output.dense),
        ffn_norm=_norm(layer.output.LayerNorm),
    )


def _positions(attention: Any, relative_PH: torch.Tensor | None) -> PositionWeights:  # noqa: ANN401
    keys = queries = None
    shared = attention.share_att_key
    if relative_PH is not None and "c2p" in attention.pos_att_type:
        projection = attention.key_proj if shared else attention.pos_key_proj
        keys = _by_head(projection, relative_PH, attention.num_attention_heads)
    if relative_PH is not None and "p2c" in attention.pos_att_type:
        projection = attention.query_proj if shared else attention.pos_query_proj
        queries = _by_head(projection, relative_PH, attention.num_attention_heads)
    return PositionWeights(keys_APD=keys, queries_APD=queries)


@torch.no_grad()
def _by_head(projection: nn.Linear, relative_PH: torch.Tensor, num_heads: int) -> torch.Tensor:
    """The projected relative positions of each head, [A, P, D]."""
    linear = _linear(projection)
    bias = None if linear.bias is None else linear.bias.float()
    projected_PH = F.linear(relative_PH, linear.weight.float(), bias).to(linear.weight.dtype)
    return projected_PH.view(len(projected_PH), num_heads, -1).transpose(0, 1).contiguous()


def _linear(module: nn.Linear) -> Linear:
    bias = cast("torch.Tensor | None", module.bias)
    return Linear(weight=module.weight.detach(), bias=None if bias is None else bias.detach())


def _norm(module: nn.LayerNorm) -> Norm:
    return Norm(weight=module.weight.detach(), bias=module.bias.detach(), eps=module.eps)


def _table(module: nn.Embedding | None) -> torch.Tensor | None:
    return None if module is None else module.weight.detach()
