"""One step of HRM or TRM on a carry, in plain torch: what every faster forward is measured against.

Axes: B puzzles, S cells, P positions (the puzzle embedding's, then the cells), D hidden, V values of a cell.

Weights are float32 and cast where they are used, so the same module serves float32 and bfloat16. The numerics
(order of sums, what is float32) are those of the official code, to the bit on a CPU.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import nn

from assay.model.hrm.config import HrmConfig

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_HALF_VARIANCE = 0.707106781
_START_BIAS = -5.0
"""Of both halting heads: nothing halts at first."""
Turns = tuple[torch.Tensor, torch.Tensor]
Rotation = Turns | None
"""Cosines and sines [P, head], float32; None where positions are not rotated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Carry:
    """What a puzzle's reasoning has come to."""

    z_H: torch.Tensor
    """Slow state [B, P, D]."""
    z_L: torch.Tensor
    """Fast state [B, P, D]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """What a step says of each puzzle."""

    logits_BSV: torch.Tensor
    q_halt_B: torch.Tensor
    """Logit that the grid is right, float32."""
    q_continue_B: torch.Tensor
    """Logit of what going on is worth, float32."""


class CastLinear(nn.Module):
    """A product whose weights are cast to what comes in."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(truncated_normal((outputs, inputs), std=inputs**-0.5))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x @ weight.T + bias in the type of x."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.weight.to(x.dtype), bias)


class CastEmbedding(nn.Module):
    """A table of vectors."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding_weight = nn.Parameter(truncated_normal((rows, width), std=width**-0.5))


class SwiGlu(nn.Module):
    """Gated feed-forward over the last axis."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up_proj = CastLinear(width, 2 * inner)
        self.down_proj = CastLinear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return down(silu(gate) * up)."""
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        down: torch.Tensor = self.down_proj(F.silu(gate) * up)
        return down


class Attention(nn.Module):
    """Attention of every position to every other, without mask."""

    def __init__(self, config: HrmConfig) -> None:
        super().__init__()
        self._num_heads, self._head_size = config.num_heads, config.head_size
        self.qkv_proj = CastLinear(config.hidden_size, 3 * config.hidden_size)
        self.o_proj = CastLinear(config.hidden_size, config.hidden_size)

    def forward(self, x_BPD: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        """Return the heads' sums of values, projected, [B, P, D]."""
        num_puzzles, positions, _ = x_BPD.shape
        qkv = self.qkv_proj(x_BPD).view(num_puzzles, positions, 3, self._num_heads, self._head_size)
        query, key, value = qkv.unbind(2)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        heads = F.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        )
        attended: torch.Tensor = self.o_proj(heads.transpose(1, 2).reshape(x_BPD.shape))
        return attended


class Layer(nn.Module):
    """Mixing over positions, then over the hidden values; each with residual and norm after."""

    def __init__(self, config: HrmConfig) -> None:
        super().__init__()
        self._eps = config.rms_norm_eps
        self._across = config.mlp_t
        if config.mlp_t:
            assert config.seq_len is not None, "a feed-forward over positions knows their number"
            positions = config.num_positions(config.seq_len)
            self.mlp_t = SwiGlu(positions, config.inner_size(positions))
        else:
            self.self_attn = Attention(config)
        self.mlp = SwiGlu(config.hidden_size, config.inner_size(config.hidden_size))

    def forward(self, x_BPD: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        """Return the layer's output [B, P, D]."""
        if self._across:
            x_BDP = x_BPD.transpose(1, 2)
            x_BPD = rms_norm(x_BDP + self.mlp_t(x_BDP), self._eps).transpose(1, 2)
        else:
            x_BPD = rms_norm(x_BPD + self.self_attn(x_BPD, rotation), self._eps)
        return rms_norm(x_BPD + self.mlp(x_BPD), self._eps)


class Level(nn.Module):
    """A stack of layers."""

    def __init__(self, config: HrmConfig, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(num_layers))

    def forward(self, z_BPD: torch.Tensor, injected_BPD: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        """Return the stack over z + injected, whose sum is not normalized."""
        x_BPD = z_BPD + injected_BPD
        for layer in self.layers:
            x_BPD = layer(x_BPD, rotation)
        return x_BPD


class PuzzleEmbedding(nn.Module):
    """A vector for each kind of puzzle; a buffer, since training gives it an optimizer of its own."""

    weights: torch.Tensor

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(rows, width))


class Network(nn.Module):
    """An HRM or TRM with random weights, whose tensors have their official names less `model.inner.`."""

    H_init: torch.Tensor
    L_init: torch.Tensor

    def __init__(self, config: HrmConfig) -> None:
        """Draw the weights from torch's generator."""
        super().__init__()
        self.config = config
        hidden = config.hidden_size
        self.embed_tokens = CastEmbedding(config.vocab_size, hidden)
        self.lm_head = CastLinear(hidden, config.vocab_size)
        self.q_head = CastLinear(hidden, 2, bias=True)
        if config.puzzle_emb_ndim:
            self.puzzle_emb = PuzzleEmbedding(config.num_puzzle_identifiers, config.puzzle_emb_ndim)
        if config.pos_encodings == "learned":
            assert config.seq_len is not None, "learned positions have a number"
            self.embed_pos = CastEmbedding(config.num_positions(config.seq_len), hidden)
        if not config.is_trm:
            self.H_level = Level(config, config.H_layers)
        self.L_level = Level(config, config.L_layers)
        start = DTYPES[config.forward_dtype]
        self.register_buffer("H_init", truncated_normal((hidden,), std=1.0).to(start))
        self.register_buffer("L_init", truncated_normal((hidden,), std=1.0).to(start))
        with torch.no_grad():
            self.q_head.weight.zero_()
            assert self.q_head.bias is not None, "made with a bias"
            self.q_head.bias.fill_(_START_BIAS)

    @property
    def slow_level(self) -> nn.Module:
        """The stack that updates the slow state."""
        return self.L_level if self.config.is_trm else self.H_level

    def first_carry(self, num_puzzles: int, seq_len: int, dtype: torch.dtype) -> Carry:
        """The carry that every puzzle starts from."""
        shape = (num_puzzles, self.config.num_positions(seq_len), self.config.hidden_size)
        return Carry(
            z_H=self.H_init.to(dtype).expand(shape).contiguous(),
            z_L=self.L_init.to(dtype).expand(shape).contiguous(),
        )

    def reset(self, carry: Carry, fresh_B: torch.Tensor) -> Carry:
        """The carry with fresh puzzles at the start."""
        fresh = fresh_B.view(-1, 1, 1)
        return Carry(
            z_H=torch.where(fresh, self.H_init.to(carry.z_H.dtype), carry.z_H),
            z_L=torch.where(fresh, self.L_init.to(carry.z_L.dtype), carry.z_L),
        )

    def embed(
        self, inputs_BS: torch.Tensor, puzzle_vectors_BW: torch.Tensor | None, dtype: torch.dtype
    ) -> torch.Tensor:
        """What is injected in each update, [B, P, D]: the puzzle's vector in front of the cells', scaled."""
        config = self.config
        x_BPD = F.embedding(inputs_BS.to(torch.int32), self.embed_tokens.embedding_weight.to(dtype))
        if puzzle_vectors_BW is not None:
            room = config.puzzle_emb_len * config.hidden_size - config.puzzle_emb_ndim
            vectors = F.pad(puzzle_vectors_BW.to(dtype), (0, room))
            x_BPD = torch.cat((vectors.view(-1, config.puzzle_emb_len, config.hidden_size), x_BPD), dim=1)
        if config.pos_encodings == "learned":
            x_BPD = _HALF_VARIANCE * (x_BPD + self.embed_pos.embedding_weight.to(dtype))
        return math.sqrt(config.hidden_size) * x_BPD

    def puzzle_vectors(self, identifiers_B: torch.Tensor) -> torch.Tensor | None:
        """Rows of the table of puzzle embeddings [B, W]; None where there is none."""
        return self.puzzle_emb.weights[identifiers_B] if self.config.puzzle_emb_ndim else None

    def rotation(self, positions: int, device: torch.device) -> Rotation:
        """Cosines and sines of the positions, for both levels."""
        if self.config.pos_encodings != "rope" or self.config.mlp_t:
            return None
        return rotation_of(positions, self.config.head_size, self.config.rope_theta, device)

    def think(self, carry: Carry, x_BPD: torch.Tensor, rotation: Rotation) -> Carry:
        """The carry after a step's updates; gradients flow through the last of them, `HrmConfig.updates`."""
        before, after = self.config.updates
        with torch.no_grad():
            carry = self.update(carry, x_BPD, rotation, before)
        return self.update(carry, x_BPD, rotation, after)

    def update(self, carry: Carry, x_BPD: torch.Tensor, rotation: Rotation, kinds: str) -> Carry:
        """The carry after some updates, L or H each."""
        z_H, z_L = carry.z_H, carry.z_L
        for kind in kinds:
            if kind == "L":
                z_L = self.L_level(z_L, z_H + x_BPD, rotation)
            else:
                z_H = self.slow_level(z_H, z_L, rotation)
        return Carry(z_H=z_H, z_L=z_L)

    def read(self, carry: Carry) -> Outputs:
        """What the heads say of the slow state."""
        q_B2 = self.q_head(carry.z_H[:, 0]).float()
        logits_BSV = self.lm_head(carry.z_H)[:, self.config.puzzle_emb_len :]
        return Outputs(logits_BSV=logits_BSV, q_halt_B=q_B2[:, 0], q_continue_B=q_B2[:, 1])

    def forward(
        self, carry: Carry, inputs_BS: torch.Tensor, puzzle_vectors_BW: torch.Tensor | None
    ) -> tuple[Carry, Outputs]:
        """Return the carry after one step, without gradient, and what the heads say of it."""
        x_BPD = self.embed(inputs_BS, puzzle_vectors_BW, carry.z_H.dtype)
        after = self.think(carry, x_BPD, self.rotation(x_BPD.shape[1], x_BPD.device))
        return Carry(z_H=after.z_H.detach(), z_L=after.z_L.detach()), self.read(after)


def rms_norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    """Return x over the root of the mean of its squares, without weights; computed in float32."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


def rotation_of(
    positions: int, head_size: int, theta: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines [P, head] (Su et al. 2021), the second half of a head as the first; float32."""
    places = torch.arange(0, head_size, 2, dtype=torch.float32, device=device)
    angles = torch.outer(
        torch.arange(positions, dtype=torch.float32, device=device), 1.0 / (theta ** (places / head_size))
    )
    both = torch.cat((angles, angles), dim=-1)
    return both.cos(), both.sin()


def rotate(x_BPNA: torch.Tensor, rotation: Turns) -> torch.Tensor:
    """Return heads [B, P, N, head] turned by their positions, in float32 and back."""
    cosines, sines = (each.unsqueeze(1) for each in rotation)
    wide = x_BPNA.float()
    first, second = wide.chunk(2, dim=-1)
    return (wide * cosines + torch.cat((-second, first), dim=-1) * sines).to(x_BPNA.dtype)


def truncated_normal(shape: tuple[int, ...], *, std: float) -> torch.Tensor:
    """Draws of a normal cut at two deviations and widened so that what is left has deviation `std`.

    `torch.nn.init.trunc_normal_` leaves a deviation of 0.88 `std`; the official code does not.
    """
    edge = math.erf(2 / math.sqrt(2))
    density = math.exp(-2.0) / math.sqrt(2 * math.pi)
    wider = std / math.sqrt(1 - 4 * density / edge)
    drawn = torch.empty(shape).uniform_(-edge, edge)
    return drawn.erfinv_().mul_(math.sqrt(2) * wider).clamp_(-2 * wider, 2 * wider)
