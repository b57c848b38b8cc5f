"""The classifier in training: a transformers model's own parameters, run over packed documents.

The model that transformers made stays whole: its parameters are the ones trained and saved. Only the
arithmetic is ours: no padding, matrices cast once a pass, few passes over the activations, and in the
last layer of a first-token classifier only keys and values of every token. Dropout stands where the
family has it. Families that do not run packed run the transformers model itself, padded.

Axes: T tokens, S documents, R rows, A heads, D of a head, H hidden, I intermediate, C outputs.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from assay.engine.gpu import embedding_tables
from assay.errors import UsageError
from assay.model import families
from assay.model.families import EncoderWeights, LayerWeights
from assay.model.heads import ClassifierHead, attention_of
from assay.model.parts import ACTIVATIONS, Linear, Norm, activate
from assay.train.attention import LengthRun, cut_runs, flash_attention, run_attention
from assay.train.inputs import Layout, TrainBatch
from assay.train.kernels.fused import bias_activation, dropout_add_norm, norm_dropout

_FLASH_TYPES = frozenset({torch.bfloat16, torch.float16})
_SALTS_PER_LAYER = 4
States = tuple[torch.Tensor, torch.Tensor]
"""Hidden states [T, H] twice, for the next product and as the next residual: their gradients meet in one kernel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropouts:
    """Shares of activations dropped, by place."""

    embeddings: float
    attention: float
    """Of the attention's weights."""
    attention_out: float
    inner: float
    """Of the activated feed-forward."""
    ffn_out: float
    head_in: float
    head_out: float


NO_DROPOUT = Dropouts(
    embeddings=0.0, attention=0.0, attention_out=0.0, inner=0.0, ffn_out=0.0, head_in=0.0, head_out=0.0
)


def dropouts_of(config: Any) -> Dropouts:  # noqa: ANN401 - a transformers config is untyped
    """What the config drops, where the family's own model drops it."""
    if config.model_type == "distilbert":
        return replace(
            NO_DROPOUT,
            embeddings=config.dropout,
            attention=config.attention_dropout,
            ffn_out=config.dropout,
            head_out=config.seq_classif_dropout,
        )
    if config.model_type == "modernbert":
        return replace(
            NO_DROPOUT,
            embeddings=config.embedding_dropout,
            attention=config.attention_dropout,
            attention_out=config.attention_dropout,
            inner=config.mlp_dropout,
            head_out=config.classifier_dropout,
        )
    hidden = config.hidden_dropout_prob
    head = getattr(config, "classifier_dropout", None)
    head = hidden if head is None else head
    return Dropouts(
        embeddings=hidden,
        attention=config.attention_probs_dropout_prob,
        attention_out=hidden,
        inner=0.0,
        ffn_out=hidden,
        head_in=0.0 if config.model_type == "bert" else head,
        head_out=head,
    )


class TrainableClassifier(Protocol):
    """What the loop trains: a module that turns batches into logits."""

    layout: Layout
    """What its batches hold."""
    can_fill: bool
    """Whether batches on a GPU may be filled up to few shapes, so that passes can be recorded."""
    num_outputs: int
    """C, the number of logits."""

    @property
    def token_table(self) -> nn.Parameter | None:
        """The parameter [V, H] of which a pass reads the rows of its token ids and no others, if there is one."""
        ...

    def __call__(self, batch: TrainBatch, seed: torch.Tensor) -> torch.Tensor:
        """Return the logits, float32 [S, C]; `seed` is int64 [1] on the device, new in each pass."""
        ...


def make_classifier(
    model: PreTrainedModel, *, dtype: torch.dtype, gradient_checkpointing: bool
) -> "PackedClassifier | PaddedClassifier":
    """The model, on its device, as what is trained: packed where its family can be."""
    # the parameters are looked up once, so a family whose names differ is found out here
    is_packed = (
        type(model).__name__.endswith("ForSequenceClassification")
        and families.weights_of(model.config, live_tensors(model)) is not None
    )
    kind = PackedClassifier if is_packed else PaddedClassifier
    return kind(model, dtype=dtype, gradient_checkpointing=gradient_checkpointing)


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by name: those that are not frozen."""
    return {name: each for name, each in module.named_parameters() if each.requires_grad}


def live_tensors(
    module: nn.Module, prefix: str = "", *, without: Collection[nn.Module] = ()
) -> dict[str, torch.Tensor]:
    """A module's parameters by name, gradients attached; LoRA updates added to their matrices.

    What lies in the modules `without` is left out.
    """
    found: dict[str, torch.Tensor] = {}
    for name, child in module.named_modules(memo=set(without), prefix=prefix):
        for own, parameter in child.named_parameters(recurse=False):
            found[f"{name}.{own}" if name else own] = parameter
        if hasattr(child, "lora_A"):
            lora = cast("Any", child)
            found[f"{name}.weight"] = lora.base_layer.weight + lora.get_delta_weight("default")
            if lora.base_layer.bias is not None:
                found[f"{name}.bias"] = lora.base_layer.bias
    return found


@dataclass(slots=True)
class _PassState:
    """What all layers of one pass share."""

    batch: TrainBatch
    runs: tuple[LengthRun, ...] | None
    """How attention is cut up; None for flash attention."""
    dropouts: Dropouts
    seed: torch.Tensor
    cu_firsts: torch.Tensor
    """Bounds of one query a document, int32 [S + 1]."""
    angles: dict[int, tuple[torch.Tensor, torch.Tensor]]
    """Cosines and sines [T, 1, D] of rotary positions, by their table."""


class PackedClassifier(nn.Module):
    """Packed documents to logits, through the parameters of a transformers classifier."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        dtype: torch.dtype,
        gradient_checkpointing: bool,
        has_sides: bool = False,
    ) -> None:
        """Take over the forward pass of the model's layers; products run in `dtype`."""
        super().__init__()
        self.model = model
        self._config: Any = model.config
        self.num_outputs = int(self._config.num_labels or 1)
        self._dtype = dtype
        self.can_fill = dtype in _FLASH_TYPES
        self._dropouts = dropouts_of(self._config)
        self._checkpointing = gradient_checkpointing
        self._inv_freqs: dict[int, torch.Tensor] = {}
        """Those of rotary tables on the device, by their table; copied in the first pass, which is never recorded."""
        self.layers = [
            model.get_submodule(families.layer_name(self._config, number))
            for number in range(self._config.num_hidden_layers)
        ]
        """The model's own layers, lowest first."""
        for number, layer in enumerate(self.layers):
            # called through the module, so that what hooks on to modules (FSDP) sees each layer run
            layer.forward = MethodType(self._layer_forward(number), layer)
        weights = self._frame()
        _, pads = embedding_tables(weights)
        self.layout = Layout(
            has_types=weights.num_token_types > 1,
            pooling=weights.head.pooling,
            pad_token_id=None if pads is None else pads.pad_token_id,
            pad_row=0 if pads is None else pads.pad_row,
            has_sides=has_sides,
        )

    def forward(self, batch: TrainBatch, seed: torch.Tensor) -> torch.Tensor:
        """Return the logits, float32 [S, C]."""
        weights, run = self._frame(), self._start(batch, seed)
        assert isinstance(weights.head, ClassifierHead), "families have classifier heads"
        return self._head(weights.head, self._pooled(weights, batch, run), run)

    def _pooled(self, weights: EncoderWeights, batch: TrainBatch, run: _PassState) -> torch.Tensor:
        """What the head sees of each document, float32 [S, H]."""
        embedded_TH = self._embed(weights, batch, run)
        states: States = (embedded_TH, embedded_TH)
        for layer in self.layers:
            if self._checkpointing and self.training:
                states = cast("States", checkpoint(layer, states, run, use_reentrant=False))
            else:
                states = layer(states, run)
        return self._pool(weights, states[0], batch).float()

    @property
    def token_table(self) -> nn.Parameter | None:
        """The token embeddings."""
        words = self._frame().word_embeddings
        return words if isinstance(words, nn.Parameter) else None

    def _frame(self) -> EncoderWeights:
        """All weights but those of layers, which fetch their own when they run."""
        return families.frame_weights(self._config, live_tensors(self.model, without=self.layers))

    def _start(self, batch: TrainBatch, seed: torch.Tensor) -> _PassState:
        device = batch.input_ids_T.device
        uses_flash = device.type == "cuda" and self._dtype in _FLASH_TYPES
        runs = None
        if not uses_flash:
            assert batch.lengths is not None, "runs are cut by the lengths of documents"
            runs = cut_runs(batch.lengths)
        return _PassState(
            batch=batch,
            runs=runs,
            dropouts=self._dropouts if self.training else NO_DROPOUT,
            seed=seed,
            cu_firsts=torch.arange(batch.shape.num_documents + 1, dtype=torch.int32, device=device),
            angles={},
        )

    def _embed(self, weights: EncoderWeights, batch: TrainBatch, run: _PassState) -> torch.Tensor:
        """The embedded tokens [T, H], summed in float32."""
        summed = F.embedding(batch.input_ids_T, weights.word_embeddings)
        positions = weights.position_embeddings
        if positions is not None:
            if weights.pad_position is not None:
                positions = torch.cat([positions, weights.pad_position[None]])
            summed = summed + F.embedding(batch.positions_T, positions)
        types = weights.token_type_embeddings
        if types is not None:
            kinds = batch.token_types_T
            summed = summed + (types[0] if kinds is None else F.embedding(kinds, types))
        norm = weights.embedding_norm
        hidden_TH = norm_dropout(
            summed, norm.weight, norm.bias, norm.eps, run.dropouts.embeddings, run.seed, 0, dtype=self._dtype
        )
        if weights.projection is not None:
            hidden_TH = self._product(hidden_TH, weights.projection)
        return hidden_TH

    def _layer_forward(self, number: int) -> Callable[[nn.Module, States, _PassState], States]:
        is_last = number == self._config.num_hidden_layers - 1
        name = families.layer_name(self._config, number)
        salt = _SALTS_PER_LAYER * (number + 1)

        def forward(module: nn.Module, states: States, run: _PassState) -> States:
            weights = families.layer_weights(self._config, number, live_tensors(module, name))
            wants_firsts = is_last and self.layout.pooling == "first"
            # flash attention lines one query up with the document's end, which a window would show
            firsts_only = wants_firsts and weights.window is None
            if weights.rotary is None:
                states = self._post_norm(weights, states, run, salt, firsts_only=firsts_only)
            else:
                hidden_RH = self._pre_norm(weights, states[0], run, firsts_only=firsts_only)
                states = (hidden_RH, hidden_RH)
            if wants_firsts and not firsts_only:
                firsts_SH = states[0].index_select(0, run.batch.firsts_S)
                return firsts_SH, firsts_SH
            return states

        return forward

    def _post_norm(
        self, weights: LayerWeights, states: States, run: _PassState, salt: int, *, firsts_only: bool
    ) -> States:
        """A layer of BERT and kin; the states of every token, or of first tokens [S, H]."""
        hidden_TH, residual_RH = states
        context_RH = self._attend(weights, hidden_TH, run, firsts_only=firsts_only)
        if firsts_only:
            residual_RH = residual_RH.index_select(0, run.batch.firsts_S)
        drops = run.dropouts
        assert weights.attention_norm is not None, "post-norm layers have both norms"
        attended_RH, residual_RH = self._add_norm(
            context_RH,
            weights.attention_out,
            residual_RH,
            weights.attention_norm,
            drops.attention_out,
            run,
            salt,
        )
        inner_RI = bias_activation(
            F.linear(attended_RH, self._cast(weights.up.weight)),
            weights.up.bias,
            ACTIVATIONS[_activation_name(self._config)],
        )
        return self._add_norm(
            inner_RI, weights.down, residual_RH, weights.ffn_norm, drops.ffn_out, run, salt + 1
        )

    def _add_norm(
        self,
        x_RX: torch.Tensor,
        linear: Linear,
        residual_RH: torch.Tensor,
        norm: Norm,
        dropout: float,
        run: _PassState,
        salt: int,
    ) -> States:
        return dropout_add_norm(
            F.linear(x_RX, self._cast(linear.weight)),
            linear.bias,
            residual_RH,
            norm.weight,
            norm.bias,
            eps=norm.eps,
            p=dropout,
            seed=run.seed,
            salt=salt,
        )

    def _pre_norm(
        self, weights: LayerWeights, hidden_TH: torch.Tensor, run: _PassState, *, firsts_only: bool
    ) -> torch.Tensor:
        """A layer of ModernBERT; the states of every token, or of first tokens [S, H]."""
        drops = run.dropouts
        normed_TH = (
            hidden_TH if weights.attention_norm is None else self._norm(hidden_TH, weights.attention_norm)
        )
        context_RH = self._attend(weights, normed_TH, run, firsts_only=firsts_only)
        residual_RH = hidden_TH.index_select(0, run.batch.firsts_S) if firsts_only else hidden_TH
        attended_RH = residual_RH + F.dropout(
            self._product(context_RH, weights.attention_out), drops.attention_out
        )
        both_R2I = self._product(self._norm(attended_RH, weights.ffn_norm), weights.up)
        first_RI, second_RI = both_R2I.chunk(2, dim=-1)
        inner_RI = activate(first_RI, ACTIVATIONS[_activation_name(self._config)]) * second_RI
        return attended_RH + self._product(F.dropout(inner_RI, drops.inner), weights.down)

    def _attend(
        self, weights: LayerWeights, hidden_TH: torch.Tensor, run: _PassState, *, firsts_only: bool
    ) -> torch.Tensor:
        """What attention gathers for every token, or for first tokens [S, H]."""
        width = weights.qkv.weight.shape[0] // 3
        heads = (self._config.num_attention_heads, width // self._config.num_attention_heads)
        batch = run.batch
        if firsts_only:
            both = self._product(hidden_TH, weights.qkv.rows(slice(width, 3 * width)))
            k_TAD, v_TAD = both.unflatten(1, (2, *heads)).unbind(1)
            firsts_SH = hidden_TH.index_select(0, batch.firsts_S)
            q_RAD = self._product(firsts_SH, weights.qkv.rows(slice(0, width))).unflatten(1, heads)
        else:
            q_RAD, k_TAD, v_TAD = self._product(hidden_TH, weights.qkv).unflatten(1, (3, *heads)).unbind(1)
        if weights.rotary is not None:
            cos, sin = self._angles(weights, run)
            k_TAD = _rotated(k_TAD, cos, sin)
            if firsts_only:
                cos, sin = (each.index_select(0, batch.firsts_S) for each in (cos, sin))
            q_RAD = _rotated(q_RAD, cos, sin)
        if run.runs is not None:
            return run_attention(
                q_RAD, k_TAD, v_TAD, run.runs, dropout=run.dropouts.attention, window=weights.window
            ).flatten(1)
        context = flash_attention(
            q_RAD,
            k_TAD,
            v_TAD,
            cu_queries=run.cu_firsts if firsts_only else batch.cu_seqlens,
            cu_seqlens=batch.cu_seqlens,
            max_queries=1 if firsts_only else batch.shape.max_seqlen,
            max_seqlen=batch.shape.max_seqlen,
            dropout=run.dropouts.attention,
            window=weights.window,
        )
        return context.flatten(1)

    def _angles(self, weights: LayerWeights, run: _PassState) -> tuple[torch.Tensor, torch.Tensor]:
        rotary = weights.rotary
        assert rotary is not None, "only rotary layers have angles"
        if id(rotary) not in run.angles:
            if id(rotary) not in self._inv_freqs:
                self._inv_freqs[id(rotary)] = rotary.inv_freq.to(run.batch.positions_T.device)
            angles_TD = run.batch.positions_T[:, None].float() * self._inv_freqs[id(rotary)]
            angles_T1D = torch.cat([angles_TD, angles_TD], dim=1)[:, None]
            run.angles[id(rotary)] = (angles_T1D.cos().to(self._dtype), angles_T1D.sin().to(self._dtype))
        return run.angles[id(rotary)]

    def _pool(self, weights: EncoderWeights, hidden_RH: torch.Tensor, batch: TrainBatch) -> torch.Tensor:
        """The pooled states [S, H]; after a first-token layer they are there already."""
        if weights.final_norm is not None:
            hidden_RH = self._norm(hidden_RH, weights.final_norm)
        if batch.documents_T is None:
            return hidden_RH
        attention = attention_of(weights.head)
        if attention is not None:
            return _attended(attention(hidden_RH), hidden_RH.float(), batch)
        size = (batch.shape.num_documents, hidden_RH.shape[1])
        zeros_SH = hidden_RH.new_zeros(size, dtype=torch.float32)
        sums_SH = zeros_SH.index_add(0, batch.documents_T, hidden_RH.float())
        return sums_SH / batch.cu_seqlens.diff().clamp(min=1)[:, None]

    def _head(self, head: ClassifierHead, pooled_SH: torch.Tensor, run: _PassState) -> torch.Tensor:
        hidden_SP = F.dropout(pooled_SH, run.dropouts.head_in)
        hidden_SP = activate(F.linear(hidden_SP, head.dense.weight, head.dense.bias), head.activation)
        if head.norm is not None:
            hidden_SP = F.layer_norm(
                hidden_SP, hidden_SP.shape[-1:], head.norm.weight, head.norm.bias, head.norm.eps
            )
        return F.linear(F.dropout(hidden_SP, run.dropouts.head_out), head.out.weight, head.out.bias)

    def _norm(self, hidden_TH: torch.Tensor, norm: Norm) -> torch.Tensor:
        bias = None if norm.bias is None else self._cast(norm.bias)
        return F.layer_norm(hidden_TH, hidden_TH.shape[-1:], self._cast(norm.weight), bias, norm.eps)

    def _product(self, x: torch.Tensor, linear: Linear) -> torch.Tensor:
        bias = None if linear.bias is None else self._cast(linear.bias)
        return F.linear(x, self._cast(linear.weight), bias)

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._dtype)


class PaddedClassifier(nn.Module):
    """Any transformers sequence classifier, its documents padded to the longest of the pass."""

    can_fill = False
    token_table = None
    """Unknown: an architecture may look up whatever it likes."""

    def __init__(self, model: PreTrainedModel, *, dtype: torch.dtype, gradient_checkpointing: bool) -> None:
        """Run `model` as it is, under autocast where `dtype` is not float32.

        Raises UsageError for a model that cannot take padding, or cannot checkpoint where it is asked to.
        """
        super().__init__()
        self.model = model
        self._dtype = dtype
        config: Any = model.config
        self.num_outputs = int(config.num_labels or 1)
        self._takes_types = getattr(config, "type_vocab_size", 0) > 1
        self.layout = Layout(has_types=self._takes_types, pooling="first")
        pad_id = getattr(config, "pad_token_id", None)
        if not isinstance(pad_id, int) or pad_id < 0:
            raise UsageError(
                f"pad_token_id={pad_id} in the base's config.json; a {config.model_type} is trained on padded texts;"
                " set it to the id of the tokenizer's padding token"
            )
        self._pad_id = pad_id
        if gradient_checkpointing:
            if not model.supports_gradient_checkpointing:
                raise UsageError(
                    f"gradient_checkpointing; {type(model).__name__} has none; set max_batch_tokens instead"
                )
            untyped: Any = model
            if hasattr(untyped, "activation_checkpointing_enable"):
                untyped.activation_checkpointing_enable()
            else:  # older releases of transformers; the name warns in newer ones
                untyped.gradient_checkpointing_enable()

    def forward(self, batch: TrainBatch, seed: torch.Tensor) -> torch.Tensor:
        """Return the logits, float32 [S, C]; the generator of the device decides on dropout."""
        del seed
        assert batch.lengths is not None, "padding goes by the lengths of documents"
        device = batch.input_ids_T.device
        lengths_S = torch.tensor(batch.lengths, device=device)
        starts_S = batch.cu_seqlens[:-1].long()
        places_L = torch.arange(int(batch.lengths[0]), device=device)
        is_token_SL = places_L < lengths_S[:, None]
        where_SL = torch.where(is_token_SL, starts_S[:, None] + places_L, 0)
        inputs: dict[str, torch.Tensor] = {
            "input_ids": batch.input_ids_T.long()[where_SL].masked_fill(~is_token_SL, self._pad_id),
            "attention_mask": is_token_SL.long(),
        }
        if batch.token_types_T is not None:
            inputs["token_type_ids"] = batch.token_types_T.long()[where_SL].masked_fill(~is_token_SL, 0)
        enabled = self._dtype != torch.float32
        with torch.autocast(device.type, dtype=self._dtype, enabled=enabled):
            logits_SC: torch.Tensor = self.model(**inputs).logits
        return logits_SC.float()


def _attended(scores_T: torch.Tensor, hidden_TH: torch.Tensor, batch: TrainBatch) -> torch.Tensor:
    """The mean of each document's states, weighed by the softmax of its tokens' scores, [S, H]."""
    assert batch.documents_T is not None, "batches say which document a token is of"
    documents_T = batch.documents_T.long()
    none_S = scores_T.new_full((batch.shape.num_documents,), -torch.inf)
    top_S = none_S.scatter_reduce(0, documents_T, scores_T.detach(), "amax")
    shares_T = (scores_T - top_S[documents_T]).exp()
    sums_S = torch.zeros_like(none_S).index_add(0, documents_T, shares_T)
    zeros_SH = hidden_TH.new_zeros(batch.shape.num_documents, hidden_TH.shape[1])
    return zeros_SH.index_add(0, documents_T, hidden_TH * shares_T[:, None]) / sums_S[:, None]


def _activation_name(config: Any) -> str:  # noqa: ANN401 - a transformers config is untyped
    for name in ("hidden_act", "activation", "hidden_activation"):
        if hasattr(config, name):
            return str(getattr(config, name))
    raise AssertionError(f"{config.model_type} names no activation")


def _rotated(x_RAD: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """X with each pair of its two halves turned by the token's angle."""
    left, right = x_RAD.chunk(2, dim=-1)
    return x_RAD * cos + torch.cat([-right, left], dim=-1) * sin


def state_for_saving(classifier: PackedClassifier | PaddedClassifier) -> Mapping[str, torch.Tensor]:
    """The model's tensors under transformers' names, LoRA updates merged in, detached."""
    model = classifier.model
    kept = set(model.state_dict())
    buffers = {name: each for name, each in model.named_buffers() if name in kept}
    parts = (".lora_", ".base_layer.")
    return {
        name: tensor.detach()
        for name, tensor in (live_tensors(model) | buffers).items()
        if not any(part in name for part in parts)
    }
