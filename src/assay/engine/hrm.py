"""Recurrent reasoning models run step by step: puzzles in, a grid and two halting scores a step out.

    reasoner = load_reasoner("checkpoints/.../step_300", device="cuda")
    for step in reasoner.run(inputs_NS):
        step.grids_NS, step.q_halt_N

A `Trajectory` is the same with a say in it: puzzles that are settled leave between two steps. Only the live
carry is kept. Rows are padded to one of a few fixed batch sizes, so compiled code is used again, and at a given
size a puzzle's numbers do not depend on the others in its batch.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from assay.engine.devices import DTYPES, parse_device, parse_precision
from assay.errors import UsageError
from assay.model.hrm.config import HrmConfig
from assay.model.hrm.files import read_hrm
from assay.model.hrm.halting import wants_to_halt
from assay.model.hrm.network import Carry, Network, Outputs
from assay.model.hrm.noise import Noise, noise_of

if TYPE_CHECKING:
    from assay.engine.hrm_step import ReplayedStep


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What one step says of the puzzles that are still there, in the order of `items_N`."""

    step: int
    """Counted from 1."""
    items_N: NDArray[np.int64]
    """Which puzzles: rows of what the trajectory began with."""
    grids_NS: NDArray[np.uint8]
    """The most likely value of each cell."""
    q_halt_N: NDArray[np.float32]
    """Logit that the grid is right."""
    q_continue_N: NDArray[np.float32]
    """Logit of what going on is worth; of no use in a TRM trained without it."""
    halts_N: NDArray[np.bool_]
    """Whether the model would stop here: q_halt > q_continue, or > 0 in a TRM trained without the latter."""


class Reasoner:
    """A checkpoint on a device, ready to run. Not thread-safe."""

    def __init__(
        self,
        network: Network,
        *,
        device: torch.device,
        dtype: torch.dtype,
        batch_sizes: Sequence[int] = (),
        fingerprint: str = "",
        is_fused: bool = True,
    ) -> None:
        """Take over the network, whose weights are cast to `dtype` once.

        `batch_sizes`: the sizes that batches are padded to; none: as many rows as puzzles. `is_fused`: whether to
        use fused kernels on a GPU, where there are some for the model; else it runs in plain torch.
        """
        self.config: HrmConfig = network.config
        self.fingerprint = fingerprint
        """SHA-256 of weights and configuration; "" for a network that came from no file."""
        self.device, self.dtype = device, dtype
        self.batch_sizes = tuple(sorted(batch_sizes))
        self.is_fused = is_fused
        self._fused: ReplayedStep | None = None
        self._network = network.to(device=device, dtype=dtype).eval()

    @property
    def max_batch_size(self) -> int | None:
        """Most puzzles of a trajectory; None: any number."""
        return self.batch_sizes[-1] if self.batch_sizes else None

    def run(
        self,
        inputs_NS: NDArray[Any],
        identifiers_N: NDArray[Any] | None = None,
        *,
        num_steps: int | None = None,
        noise: Noise | None = None,
    ) -> Iterator[StepResult]:
        """Yield the result of each step, all puzzles in each.

        `num_steps`: by default the `halt_max_steps` of training; more may be asked for. The rest is `begin`'s.
        """
        trajectory = self.begin(inputs_NS, identifiers_N, noise=noise)
        launched = None
        for _ in range(self.config.halt_max_steps if num_steps is None else num_steps):
            following = trajectory.launch()  # so that a GPU has work while the caller looks at what it got
            if launched is not None:
                yield launched.result()
            launched = following
        if launched is not None:
            yield launched.result()

    def begin(
        self,
        inputs_NS: NDArray[Any],
        identifiers_N: NDArray[Any] | None = None,
        *,
        noise: Noise | None = None,
    ) -> "Trajectory":
        """The puzzles before their first step.

        `inputs_NS`: whole numbers below `config.vocab_size`; `identifiers_N`: rows of the table of puzzle
        embeddings, by default 0. Raises `UsageError` for values out of range, puzzles of another number of
        cells, and more puzzles than `max_batch_size`.
        """
        inputs_NS = np.asarray(inputs_NS)
        ids_N = np.zeros(len(inputs_NS), np.int64) if identifiers_N is None else np.asarray(identifiers_N)
        self._check(inputs_NS, ids_N, noise)
        return Trajectory(self, inputs_NS, ids_N, noise)

    def _check(self, inputs_NS: NDArray[Any], ids_N: NDArray[Any], noise: Noise | None) -> None:
        config = self.config
        if inputs_NS.ndim != 2 or ids_N.shape != inputs_NS.shape[:1]:
            raise UsageError(
                f"inputs {inputs_NS.shape} and identifiers {ids_N.shape}; they must be [N, S] and [N]; reshape them"
            )
        num_puzzles, seq_len = inputs_NS.shape
        if config.seq_len not in {None, seq_len}:
            raise UsageError(
                f"puzzles of {seq_len} cells; the model's have {config.seq_len}; give it puzzles of its task"
            )
        if self.batch_sizes and num_puzzles > self.batch_sizes[-1]:
            raise UsageError(
                f"{num_puzzles} puzzles; batches have at most {self.batch_sizes[-1]}; give them in several"
            )
        for name, values, end in (
            ("cell", inputs_NS, config.vocab_size),
            ("identifier", ids_N, config.num_puzzle_identifiers),
        ):
            if values.size and (values.min() < 0 or values.max() >= end):
                raise UsageError(f"a {name} of {values.min()} to {values.max()}; it must be 0 to {end - 1}")
        if noise is not None and noise.seeds_N.shape != (num_puzzles,):
            raise UsageError(
                f"{noise.seeds_N.shape} noise seeds for {num_puzzles} puzzles; give each puzzle one"
            )

    def step(self, carry: Carry, x_BPD: torch.Tensor) -> tuple[Carry, Outputs]:
        """The carry after one step, and what the heads say; on a GPU by fused kernels where there are some."""
        network, positions = self._network, x_BPD.shape[1]
        if self._can_fuse(positions):
            if self._fused is None:
                from assay.engine.hrm_step import FusedStep, ReplayedStep

                self._fused = ReplayedStep(network, FusedStep(network, self.dtype))
            return self._fused(carry, x_BPD)
        after = network.think(carry, x_BPD, network.rotation(positions, x_BPD.device))
        return after, network.read(after)

    def _can_fuse(self, positions: int) -> bool:
        if not self.is_fused or self.device.type != "cuda" or importlib.util.find_spec("triton") is None:
            return False
        from assay.engine.hrm_step import can_run

        return can_run(self.config, self.device, self.dtype, positions)

    def padded_size(self, num_puzzles: int) -> int:
        """Rows of a batch of so many puzzles."""
        return next((size for size in self.batch_sizes if size >= num_puzzles), num_puzzles)

    @property
    def network(self) -> Network:
        """The model, on the device, its weights in the type it runs in."""
        return self._network


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchedStep:
    """A step that a device may still be at."""

    step: int
    items_N: NDArray[np.int64]
    on_host: tuple[torch.Tensor, ...]
    """Grids, q_halt, q_continue and whether to halt, once they are there."""
    is_there: torch.cuda.Event | None

    def result(self) -> StepResult:
        """Wait for it."""
        if self.is_there is not None:
            self.is_there.synchronize()
        grids_NS, q_halt_N, q_continue_N, halts_N = (each.numpy() for each in self.on_host)
        return StepResult(
            step=self.step,
            items_N=self.items_N,
            grids_NS=grids_NS,
            q_halt_N=q_halt_N,
            q_continue_N=q_continue_N,
            halts_N=halts_N,
        )


class Trajectory:
    """Puzzles on their way through a reasoner's steps."""

    def __init__(
        self, reasoner: Reasoner, inputs_NS: NDArray[Any], ids_N: NDArray[Any], noise: Noise | None
    ) -> None:
        """Use `Reasoner.begin`."""
        self._reasoner = reasoner
        self._items_N = np.arange(len(inputs_NS))
        self._step = 0
        self._scale = 0.0 if noise is None else noise.scale
        device, network = reasoner.device, reasoner.network
        size = reasoner.padded_size(len(inputs_NS))
        with torch.inference_mode():
            inputs = _padded(torch.from_numpy(inputs_NS.astype(np.int32)), size).to(device)
            ids = _padded(torch.from_numpy(ids_N.astype(np.int64)), size).to(device)
            self._x_BPD = network.embed(inputs, network.puzzle_vectors(ids), reasoner.dtype)
            self._carry = network.first_carry(size, inputs_NS.shape[1], reasoner.dtype)
            seeds = np.zeros(len(inputs_NS), np.int64) if noise is None else noise.seeds_N
            self._seeds_B = _padded(torch.from_numpy(seeds.astype(np.int64)), size).to(device)

    @property
    def items(self) -> NDArray[np.int64]:
        """The puzzles that are still there, int64 [N]: rows of what the trajectory began with."""
        return self._items_N.copy()

    def step(self) -> StepResult:
        """Run one step of what is there."""
        return self.launch().result()

    def launch(self) -> "LaunchedStep":
        """Begin one step of what is there; a GPU works on it while the caller does something else."""
        reasoner = self._reasoner
        num_puzzles = len(self._items_N)
        self._step += 1
        with torch.inference_mode():
            if self._scale:
                self._disturb()
            self._carry, outputs = reasoner.step(self._carry, self._x_BPD)
            halts = wants_to_halt(reasoner.config, outputs.q_halt_B, outputs.q_continue_B)
            grids = outputs.logits_BSV.argmax(-1).to(torch.uint8)
            found = (grids, outputs.q_halt_B, outputs.q_continue_B, halts)
            on_host = tuple(each[:num_puzzles].to("cpu", non_blocking=True) for each in found)
            is_there = None
            if reasoner.device.type == "cuda":
                is_there = torch.cuda.Event()
                is_there.record(torch.cuda.current_stream(reasoner.device))
        return LaunchedStep(step=self._step, items_N=self.items, on_host=on_host, is_there=is_there)

    def keep(self, places: NDArray[Any]) -> None:
        """Go on with some of the puzzles alone: places in the last result, or a truth value for each.

        The batch shrinks to the smallest size that holds them, and stays as it is where that is its own.
        """
        places = np.asarray(places)
        kept = np.flatnonzero(places) if places.dtype == np.bool_ else places.astype(np.int64)
        self._items_N = self._items_N[kept]
        size = self._reasoner.padded_size(len(kept))
        with torch.inference_mode():
            chosen = torch.from_numpy(kept).to(self._reasoner.device)
            self._x_BPD = _padded(self._x_BPD[chosen], size)
            self._seeds_B = _padded(self._seeds_B[chosen], size)
            self._carry = Carry(
                z_H=_padded(self._carry.z_H[chosen], size), z_L=_padded(self._carry.z_L[chosen], size)
            )

    def _disturb(self) -> None:
        z_L = self._carry.z_L
        drawn = noise_of(self._seeds_B, self._step, z_L.shape[1:]) * self._scale
        self._carry = Carry(z_H=self._carry.z_H, z_L=z_L + drawn.to(z_L.dtype))


def load_reasoner(
    path: str | Path,
    *,
    device: str = "cpu",
    precision: str = "auto",
    batch_sizes: Sequence[int] = (),
    seq_len: int | None = None,
) -> Reasoner:
    """The checkpoint at a file or in a folder (`model.hrm.files.read_hrm`), ready to run.

    `precision`: fp32 or bf16; auto: fp32 on a CPU, on a GPU what the model was trained in. Raises `BundleError`
    for what is not such a checkpoint, `UsageError` for a device that is not there.
    """
    checkpoint = read_hrm(path, seq_len=seq_len)
    place = parse_device(device)
    if precision not in {"auto", "fp32", "bf16"}:
        raise UsageError(
            f"precision {precision!r}; a puzzle model runs in fp32 or bf16; use auto, fp32 or bf16"
        )
    if precision == "auto" and checkpoint.config.forward_dtype == "float32":
        precision = "fp32"
    return Reasoner(
        checkpoint.network(),
        device=place,
        dtype=DTYPES[parse_precision(precision, place, lambda: "a puzzle model runs in fp32 or bf16")],
        batch_sizes=batch_sizes,
        fingerprint=checkpoint.fingerprint,
    )


def _padded(rows: torch.Tensor, size: int) -> torch.Tensor:
    """The rows and zeros up to `size`."""
    missing = size - len(rows)
    return torch.cat((rows, rows.new_zeros((missing, *rows.shape[1:])))) if missing else rows
