"""A step of HRM or TRM on a GPU: products of the library, everything between them in one kernel each.

Weights are cast once, not at each use. At small batches the host would be the limit: there a step is replayed
from a CUDA graph.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

from assay.engine.graphs import recording
from assay.engine.kernels import triton_hrm, triton_rows
from assay.model.hrm.config import HrmConfig
from assay.model.hrm.network import Carry, Network, Outputs

_GRAPHED_ROWS = 40_000
"""Up to so many rows (puzzles times positions) a step is replayed: about 480 Sudokus."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layer:
    """A layer's weights in the type it runs in."""

    qkv_ED: torch.Tensor
    out_DD: torch.Tensor
    gate_up_ED: torch.Tensor
    """Gates, then ups."""
    interleaved_ED: torch.Tensor | None
    """The same in turn, for the product with its gate; None where that cannot run."""
    down_DI: torch.Tensor


def can_run(config: HrmConfig, device: torch.device, dtype: torch.dtype, positions: int) -> bool:
    """Whether kernels suit this model: half precision, attention over few positions, heads of a power of two."""
    head = config.head_size
    return (
        device.type == "cuda"
        and dtype != torch.float32
        and not config.mlp_t
        and positions <= triton_hrm.MAX_POSITIONS
        and head >= triton_hrm.MIN_HEAD
        and head & (head - 1) == 0
    )


class FusedStep:
    """A network's step on a device by fused kernels; no gradient."""

    def __init__(self, network: Network, dtype: torch.dtype, *, fuses_gate: bool = True) -> None:
        """Copy the weights; `fuses_gate`: whether the feed-forward's first product applies its gate itself."""
        self._network, self._dtype, self._fuses_gate = network, dtype, fuses_gate
        self._config = network.config
        self._turns: dict[int, tuple[torch.Tensor, torch.Tensor] | None] = {}
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the network's weights as they are now."""
        network = self._network
        self._fast = self._layers(network.L_level)
        self._slow = self._fast if self._config.is_trm else self._layers(network.H_level)

    def _layers(self, level: torch.nn.Module) -> list[_Layer]:
        weights = {name: each.to(self._dtype) for name, each in level.named_parameters()}
        inner = self._config.inner_size(self._config.hidden_size)
        tile = triton_hrm.GATE_TILE
        fits = self._fuses_gate and inner % (tile.columns // 2) == 0
        found = []
        for number in range(
            self._config.L_layers if level is self._network.L_level else self._config.H_layers
        ):
            of = f"layers.{number}."
            gate_up = weights[f"{of}mlp.gate_up_proj.weight"]
            found.append(
                _Layer(
                    qkv_ED=weights[f"{of}self_attn.qkv_proj.weight"],
                    out_DD=weights[f"{of}self_attn.o_proj.weight"],
                    gate_up_ED=gate_up,
                    interleaved_ED=triton_hrm.interleaved(gate_up) if fits else None,
                    down_DI=weights[f"{of}mlp.down_proj.weight"],
                )
            )
        return found

    @torch.no_grad()
    def update(self, carry: Carry, x_BPD: torch.Tensor, kinds: str) -> Carry:
        """The carry after some updates, L or H each; see `Network.update`."""
        shape = x_BPD.shape
        z_H, z_L, x = (each.contiguous().view(-1, shape[2]) for each in (carry.z_H, carry.z_L, x_BPD))
        for kind in kinds:
            if kind == "L":
                z_L = self._level(self._fast, triton_hrm.inject(z_L, z_H, x), shape[1])
            else:
                z_H = self._level(self._slow, triton_hrm.inject(z_H, z_L, None), shape[1])
        return Carry(z_H=z_H.view(shape), z_L=z_L.view(shape))

    def __call__(self, carry: Carry, x_BPD: torch.Tensor) -> Carry:
        """The carry after a step."""
        return self.update(carry, x_BPD, "".join(self._config.updates))

    def _level(self, layers: list[_Layer], x_TD: torch.Tensor, positions: int) -> torch.Tensor:
        """The output of a stack, written over its input."""
        config, turns = self._config, self._turns_of(positions, x_TD.device)
        for layer in layers:
            qkv_TE = F.linear(x_TD, layer.qkv_ED)
            heads_TD = triton_hrm.attend(qkv_TE, turns, positions=positions, num_heads=config.num_heads)
            del qkv_TE
            triton_hrm.add_norm(x_TD, F.linear(heads_TD, layer.out_DD), config.rms_norm_eps)
            triton_hrm.add_norm(x_TD, F.linear(self._inner(x_TD, layer), layer.down_DI), config.rms_norm_eps)
        return x_TD

    def _inner(self, x_TD: torch.Tensor, layer: _Layer) -> torch.Tensor:
        inner = layer.down_DI.shape[1]
        if layer.interleaved_ED is not None and triton_hrm.can_gate(x_TD, inner):
            return triton_hrm.gated(x_TD, layer.interleaved_ED)
        both_TE = F.linear(x_TD, layer.gate_up_ED)
        out_TI = both_TE.new_empty((len(both_TE), inner))
        triton_rows.activate_rows(both_TE, "silu", gated=True, out=out_TI)
        return out_TI

    def _turns_of(self, positions: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor] | None:
        if positions not in self._turns:
            self._turns[positions] = triton_hrm.halves(self._network.rotation(positions, device))
        return self._turns[positions]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    carry: Carry
    x_BPD: torch.Tensor
    after: Carry
    outputs: Outputs


class ReplayedStep:
    """A fused step and its heads; small batches are replayed from graphs, one for each size."""

    def __init__(self, network: Network, step: FusedStep) -> None:
        """Record on first use of a size."""
        self._network, self._step = network, step
        self._recorded: dict[torch.Size, _Recorded] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(network.H_init.device)

    def __call__(self, carry: Carry, x_BPD: torch.Tensor) -> tuple[Carry, Outputs]:
        """The carry after a step, and what the heads say; both the caller's own."""
        if x_BPD.shape[0] * x_BPD.shape[1] > _GRAPHED_ROWS or not x_BPD.shape[0]:
            return self._run(carry, x_BPD)
        found = self._recorded.get(x_BPD.shape)
        if found is None:
            self._run(carry, x_BPD)  # compiles what is new at this size
            found = self._recorded[x_BPD.shape] = self._record(carry, x_BPD)
        for own, given in zip(
            (found.carry.z_H, found.carry.z_L, found.x_BPD), (carry.z_H, carry.z_L, x_BPD), strict=True
        ):
            own.copy_(given)
        found.graph.replay()
        outputs = found.outputs
        return (
            Carry(z_H=found.after.z_H.clone(), z_L=found.after.z_L.clone()),
            Outputs(
                logits_BSV=outputs.logits_BSV.clone(),
                q_halt_B=outputs.q_halt_B.clone(),
                q_continue_B=outputs.q_continue_B.clone(),
            ),
        )

    def _run(self, carry: Carry, x_BPD: torch.Tensor) -> tuple[Carry, Outputs]:
        after = self._step(carry, x_BPD)
        return after, self._network.read(after)

    def _record(self, carry: Carry, x_BPD: torch.Tensor) -> _Recorded:
        own = Carry(z_H=carry.z_H.clone(), z_L=carry.z_L.clone())
        x = x_BPD.clone()
        torch.cuda.synchronize(x.device)
        graph = torch.cuda.CUDAGraph()
        with recording(graph, pool=self._pool, stream=self._stream):
            after, outputs = self._run(own, x)
        return _Recorded(graph=graph, carry=own, x_BPD=x, after=after, outputs=outputs)
