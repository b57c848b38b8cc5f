"""The engine for any architecture: transformers' own forward pass, padded within like lengths.

Its outputs are the model's own logits, or with a head of ours what that makes of its last hidden states.

Axes: N sequences, B of one forward pass, L tokens with padding, H hidden, C outputs.
"""

import inspect
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from assay.engine.batching import Ints
from assay.engine.engine import Engine
from assay.model.families import max_sequence_length, moved
from assay.model.heads import Head, attention_of
from assay.model.packing import PackedBatch, pack

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_PASS_TOKENS = {"cpu": 64, "cuda": 4096}
"""What starting one more forward pass costs, as tokens of padding that take as long."""
_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""All but cuDNN's: it plans again for each shape, and each batch of a corpus has a new one. On one H100,
RoBERTa-base shape, batches of shapes not seen before: 7,300 docs/s without it, 3,200 with it."""
_SHORT = 2
"""Tokens of the sequence that is padded to see whether padding shows: within a convolution's reach."""
_PADDING_TOLERANCE = {True: 1e-4, False: 2e-2}
"""Largest difference of a logit that rounding explains; fp32, else."""


class PaddedEngine:
    """Forward passes of any `AutoModelForSequenceClassification`, or any encoder, on the CPU or a GPU."""

    name = "padded"
    packed = False
    wants_sorted = True
    device_seconds = None
    deterministic = False
    fp32: Callable[[], Engine] | None = None

    def __init__(
        self,
        model: "PreTrainedModel",
        *,
        device: torch.device | None = None,
        reason: str | None = None,
        max_length: int | None = None,
        head: Head | None = None,
    ) -> None:
        """Run `model` on `device` (None: where it is); `reason` says why not the packed engine.

        `max_length` is the checkpoint's limit; None takes what the model has positions for. With `head`
        the model is one without its own.
        """
        untyped: Any = model
        self._model: Any = untyped.to(device) if device is not None else untyped
        self._device: torch.device = untyped.device
        self._dtype: torch.dtype = untyped.dtype
        self._reason = reason
        config: Any = model.config
        self._head = None if head is None else moved(head, self._device, torch.float32)
        self.output_shape: tuple[int, ...] = (int(config.num_labels),) if head is None else head.output_shape
        self.max_length = max_length or max_sequence_length(model.config)
        self.vocab_size = int(untyped.get_input_embeddings().weight.shape[0])
        self.default_batch_tokens = 131072 if self._device.type == "cuda" else 2048
        self.num_padded_tokens = 0
        # -1 is a way to say that there is none
        pad = config.pad_token_id
        self._pad_token_id = pad if pad is not None and pad >= 0 else None
        takes = inspect.signature(untyped.forward).parameters
        self._takes_types = "token_type_ids" in takes and (getattr(config, "type_vocab_size", 0) or 0) > 1
        self._takes_mask = "attention_mask" in takes
        self._max_sequences: int | None = None
        self._can_pad = False
        self._probe()

    @torch.inference_mode()
    def forward(self, batch: PackedBatch) -> torch.Tensor:
        """Return the outputs, float32 [N, *output_shape] on the CPU."""
        bounds = batch.cu_seqlens.numpy().astype(np.int64)
        lengths = np.diff(bounds)
        order = np.argsort(-lengths, kind="stable")
        logits_NC = torch.empty((len(lengths), *self.output_shape), device=self._device)
        flat_T = batch.input_ids_T.to(self._device, non_blocking=True)
        types_T = batch.token_type_ids_T if self._takes_types else None
        if types_T is not None:
            types_T = types_T.to(self._device, non_blocking=True)
        for rows in self._buckets(lengths, order):
            longest = int(lengths[rows[0]])
            self.num_padded_tokens += longest * len(rows) - int(lengths[rows].sum())
            starts_B = torch.from_numpy(bounds[:-1][rows]).to(self._device, non_blocking=True)
            lengths_B = torch.from_numpy(lengths[rows]).to(self._device, non_blocking=True)
            outputs_BC = self._forward_padded(flat_T, types_T, starts_B, lengths_B, longest)
            logits_NC[torch.from_numpy(rows).to(self._device)] = outputs_BC
        return logits_NC.cpu()

    def description(self) -> str:
        """Return one line: the class, the device, and why not the packed engine."""
        dtype = str(self._dtype).removeprefix("torch.")
        how = (
            "padded to the longest of like lengths"
            if self._can_pad
            else "equal lengths only, without padding"
        )
        because = f" ({self._reason})" if self._reason else ""
        return f"{type(self._model).__name__} on {self._device}, {dtype}, {how}{because}"

    def _buckets(self, lengths: Ints, order: Ints) -> list[Ints]:
        """Rows that run together, longest first: the padding of each costs less than another pass."""
        counts = np.flatnonzero(np.diff(lengths[order], prepend=-1)).tolist()
        allowed = _PASS_TOKENS.get(self._device.type, 64) if self._can_pad else 0
        cuts = [0]
        waste = 0
        for first, last in zip(counts, [*counts[1:], len(order)], strict=True):
            waste += (last - first) * int(lengths[order[cuts[-1]]] - lengths[order[first]])
            if waste > allowed:
                cuts.append(first)
                waste = 0
        cuts.append(len(order))
        pieces = [order[first:last] for first, last in itertools.pairwise(cuts)]
        if self._max_sequences is None:
            return [piece for piece in pieces if len(piece)]
        step = self._max_sequences
        return [piece[k : k + step] for piece in pieces for k in range(0, len(piece), step)]

    def _forward_padded(
        self,
        flat_T: torch.Tensor,
        types_T: torch.Tensor | None,
        starts_B: torch.Tensor,
        lengths_B: torch.Tensor,
        longest: int,
    ) -> torch.Tensor:
        """Outputs [B, C] of sequences padded to `longest`."""
        within_L = torch.arange(longest, device=self._device)
        mask_BL = within_L < lengths_B[:, None]
        where_BL = (starts_B[:, None] + within_L).clamp_(max=flat_T.shape[0] - 1)
        pad = self._pad_token_id if self._pad_token_id is not None else 0
        inputs = {"input_ids": flat_T[where_BL].long().masked_fill_(~mask_BL, pad)}
        if self._takes_mask:
            inputs["attention_mask"] = mask_BL.long()
        if types_T is not None:
            inputs["token_type_ids"] = types_T[where_BL].long().masked_fill_(~mask_BL, 0)
        with sdpa_kernel(_ATTENTION):
            outputs = self._model(**inputs)
        if self._head is None:
            logits_BC: torch.Tensor = outputs.logits
            return logits_BC.float()
        return self._head(_pooled(self._head, outputs.last_hidden_state.float(), mask_BL))

    def _probe(self) -> None:
        """Find out by trying whether sequences may be padded, or batched at all.

        Convolutions see padding, whatever the mask; some decoders take one sequence at a time.
        """
        longest = min(12, self.max_length)
        generator = torch.Generator().manual_seed(1)
        ids = torch.randint(0, self.vocab_size, (longest,), generator=generator).tolist()
        pair = pack([ids, ids])
        try:
            together = self.forward(pair)
        except ValueError:
            self._max_sequences = 1
            return
        if self._pad_token_id is None or not self._takes_mask or longest < _SHORT + 1:
            return
        short = ids[:_SHORT]
        alone = self.forward(pack([short]))[0]
        self._can_pad = True
        padded = self.forward(pack([ids, short]))
        tolerance = _PADDING_TOLERANCE[self._dtype == torch.float32]
        # "<=" is False for NaN
        self._can_pad = bool((padded[1] - alone).abs().max() <= tolerance) and bool(
            (padded[0] - together[0]).abs().max() <= tolerance
        )
        self.num_padded_tokens = 0


def _pooled(head: Head, hidden_BLH: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """The pooled hidden states [B, H] of sequences that begin at 0."""
    if head.pooling == "first":
        return hidden_BLH[:, 0]
    hidden_BLH = hidden_BLH.masked_fill(~mask_BL[..., None], 0.0)
    attention = attention_of(head)
    if attention is None:
        return hidden_BLH.sum(dim=1) / mask_BL.sum(dim=1, keepdim=True)
    scores_BL = attention(hidden_BLH.flatten(0, 1)).view(mask_BL.shape)
    weights_BL = scores_BL.masked_fill(~mask_BL, -torch.inf).softmax(dim=1)
    return (weights_BL[:, None] @ hidden_BLH)[:, 0]
