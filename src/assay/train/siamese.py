"""The Siamese model in training: both texts of a row in one packed batch, a head on their two vectors.

The encoder is a transformers model's own, run as a classifier's is; what makes vectors and compares them are
`PairParts` beside it, which `assay.siamese` and `assay embed` read when they are published.

Axes: S documents, R rows (S / 2), H hidden, D dimensions of a vector, F style features, C outputs.
"""

from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from assay.errors import UsageError
from assay.model import families
from assay.model.families import EncoderWeights
from assay.model.heads import AttentionScores, EmbeddingHead, Projection
from assay.model.parts import Linear
from assay.model.sentence_files import PoolingName
from assay.siamese.files import PairHeadConfig
from assay.siamese.head import PairHead
from assay.siamese.style import StyleScale
from assay.train.inputs import TrainBatch
from assay.train.model import PackedClassifier, live_tensors
from assay.train.settings import TrainSettings

PARTS = "pair_parts"
"""Name of the parts within the model."""


class PairParts(nn.Module):
    """What a Siamese model has beside its encoder."""

    def __init__(self, hidden_size: int, pooling: PoolingName, head: PairHead) -> None:
        """Make new weights from the global generator: a rotation for a projection, equal shares for attention."""
        super().__init__()
        self.pooling = pooling
        self.hidden_size = hidden_size
        self.projection = nn.Linear(hidden_size, head.config.dimension)
        nn.init.orthogonal_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        self.attention = None
        if pooling == "attention":
            self.attention = nn.ModuleDict(
                {"dense": nn.Linear(hidden_size, hidden_size), "score": nn.Linear(hidden_size, 1, bias=False)}
            )
            nn.init.zeros_(self.score.weight)
        self.head = head

    @property
    def dense(self) -> nn.Linear:
        """Return the inner layer of attention pooling."""
        assert self.attention is not None, "attention pooling has weights"
        return cast("nn.Linear", self.attention["dense"])

    @property
    def score(self) -> nn.Linear:
        """Return the outer layer of attention pooling."""
        assert self.attention is not None, "attention pooling has weights"
        return cast("nn.Linear", self.attention["score"])

    def embedding_head(self) -> EmbeddingHead:
        """Return how vectors are made, gradients attached; an engine is given the same from the bundle."""
        attention = None
        if self.attention is not None:
            attention = AttentionScores(dense=_linear(self.dense), score=_linear(self.score))
        return EmbeddingHead(
            pooling="first" if self.pooling == "first_token" else self.pooling,
            hidden_size=self.hidden_size,
            attention=attention,
            projections=(Projection(linear=_linear(self.projection), activation=None),),
            normalized=True,
        )


def _linear(layer: nn.Linear) -> Linear:
    return Linear(weight=layer.weight, bias=layer.bias)


def add_pair_parts(
    model: PreTrainedModel, settings: TrainSettings, names: tuple[str, ...], style: StyleScale
) -> None:
    """Put a head of pairs in the place of the model's own; raises `UsageError` for one that cannot run packed."""
    if len(names) != 2 and settings.contrastive != "none":
        raise UsageError(
            f"contrastive={settings.contrastive} and {len(names)} labels; it takes two, the second of pairs that"
            " belong together; set contrastive=none"
        )
    reason = families.why_not_packed(model.config)
    if reason is not None:
        raise UsageError(
            f"base={settings.base}: {reason}; a Siamese model is trained packed; choose a base of"
            f" {', '.join(sorted(families.PACKED_FAMILIES))}"
        )
    untyped: Any = model
    for name, child in list(model.named_children()):
        if child is not model.base_model:
            setattr(untyped, name, nn.Identity())
    if getattr(model.base_model, "pooler", None) is not None:
        untyped.base_model.pooler = None
    config = PairHeadConfig(
        kind=settings.pair_head,
        dimension=settings.vector_size,
        hidden_size=settings.head_size,
        num_labels=len(names),
        symmetric=settings.symmetric,
        scale=settings.arcface_scale,
        margin=settings.arcface_margin,
        style=style,
    )
    head = PairHead(config, dropout=settings.head_dropout, temperature=settings.temperature)
    setattr(untyped, PARTS, PairParts(untyped.config.hidden_size, settings.vector_pooling, head))


def pair_parts(model: PreTrainedModel) -> PairParts | None:
    """Return the parts that `add_pair_parts` gave a model; None for a classifier."""
    return cast("PairParts | None", getattr(model, PARTS, None))


class SiameseEncoder(PackedClassifier):
    """Pairs of packed texts to logits; in training to all that the loss compares, see `PairOutputs`."""

    def __init__(self, model: PreTrainedModel, *, dtype: torch.dtype, gradient_checkpointing: bool) -> None:
        """Take over the forward pass of a model that `add_pair_parts` has changed."""
        parts = pair_parts(model)
        assert parts is not None, "add_pair_parts comes first"
        self._pair_parts = [parts]  # in a list: it is the model's module, not one more of this one
        super().__init__(model, dtype=dtype, gradient_checkpointing=gradient_checkpointing, has_sides=True)

    def forward(self, batch: TrainBatch, seed: torch.Tensor) -> torch.Tensor:
        """Return the logits [R, C]; in training the rows of `PairOutputs`, float32 [R, C + 2D + 1 + C]."""
        weights, run = self._frame(), self._start(batch, seed)
        vectors_SD = weights.head(self._pooled(weights, batch, run))
        assert batch.sides_R2 is not None, "batches of pairs say which text is which"
        first_RD, second_RD = (vectors_SD[side_R] for side_R in batch.sides_R2.unbind(1))
        assert batch.style_RX is not None, "batches of pairs have style features, if none at all"
        head = self._pair_parts[0].head
        logits_RC = head(first_RD, second_RD, *batch.style_RX.chunk(2, dim=1))
        if not self.training:
            return cast("torch.Tensor", logits_RC)
        # in a column, so that its gradient is that of this rank's rows alone, as every other is
        temperature_R1 = head.temperature.expand(len(logits_RC), 1)
        teacher_RC = torch.zeros_like(logits_RC) if batch.teacher_RC is None else batch.teacher_RC
        return torch.cat([logits_RC, first_RD, second_RD, temperature_R1, teacher_RC], dim=1)

    def _frame(self) -> EncoderWeights:
        tensors = live_tensors(self.model, without=self.layers)
        return families.frame_weights(self._config, tensors, self._pair_parts[0].embedding_head())
