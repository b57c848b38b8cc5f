"""HRM on one GPU, ours against plain torch: a member of an ensemble, small batches, a training step.

    python benchmarks/gpu/hrm.py --part correct
    python benchmarks/gpu/hrm.py --part pieces
    python benchmarks/gpu/hrm.py --part member --record
    python benchmarks/gpu/hrm.py --part small --record
    python benchmarks/gpu/hrm.py --part train --record

The default shape: hidden 512, 8 heads, 4 + 4 layers, two cycles of two, 82 positions, bf16, random weights (the time
does not depend on them; trajectories of random deep models are chaotic, so results are compared where they must
agree: at the first step, and on a small model of the official code's outputs). The baseline is the same module in
plain torch with float32 weights cast at each use, as the official code is: eager, and under `torch.compile` with
fixed shapes. No loss is computed for it, though the official evaluation computes one each step.

member: 2,323 puzzles, 16 steps. small: 64 puzzles, three checkpoints one after the other. train: a batch of 768, both
forward passes, backward and update; the baseline is compiled with its losses as the official code is, with our
update. Rounds of all sides alternate; the value is a ratio of medians. pieces: what a layer is made of.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from _setup import ceilings, chosen_device, finish, free_memory, parser

from assay.engine.hrm import Reasoner
from assay.model.hrm.config import HrmConfig
from assay.model.hrm.files import read_hrm
from assay.model.hrm.halting import Draws, Puzzles, empty_places, judged_step, take_in
from assay.model.hrm.network import Network

DEFAULT = HrmConfig(
    architecture="hrm", vocab_size=11, seq_len=81, num_puzzle_identifiers=1, puzzle_emb_ndim=512, puzzle_emb_len=1,
    H_cycles=2, L_cycles=2, H_layers=4, L_layers=4, hidden_size=512, num_heads=8, expansion=4.0, halt_max_steps=16,
)  # fmt: skip
TINY = replace(
    DEFAULT, puzzle_emb_ndim=64, H_layers=1, L_layers=1, hidden_size=64, num_heads=2, halt_max_steps=3
)
GIVEN = Path(__file__).resolve().parents[2] / "tests" / "data" / "hrm"
PARTS = ("correct", "pieces", "member", "small", "train")
Side = Callable[[], Any]


def main() -> None:
    """Run one part, or all."""
    flags = parser(__doc__)
    flags.add_argument("--part", choices=PARTS, help="by default all")
    flags.add_argument("--rounds", type=int, default=3)
    arguments = flags.parse_args()
    device = chosen_device(arguments)
    torch.set_float32_matmul_precision("highest")
    run = {"correct": correct, "pieces": pieces, "member": member, "small": small, "train": train}
    for part in [arguments.part] if arguments.part else PARTS:
        print(f"--- {part}")
        run[part](arguments, device)
        free_memory(device)


def config_of(arguments: argparse.Namespace) -> HrmConfig:
    """The shape that is measured."""
    return TINY if arguments.tiny else DEFAULT


def network_of(config: HrmConfig, device: torch.device, seed: int = 0) -> Network:
    """A model with random weights whose halting heads are not at their start."""
    torch.manual_seed(seed)
    network = Network(config)
    with torch.no_grad():
        network.q_head.weight.normal_(0, 0.3)
        network.puzzle_emb.weights.normal_(0, 0.2)
    return network.to(device)


def puzzles_of(number: int, config: HrmConfig) -> np.ndarray:
    """Random grids."""
    return (
        np.random.default_rng(0)
        .integers(1, config.vocab_size, (number, config.seq_len or 0))
        .astype(np.uint8)
    )


class Plain:
    """The module as it is: weights float32, cast at each use; all steps of a member, outputs kept on the device."""

    def __init__(self, network: Network, *, compiles: bool) -> None:
        self._network = network
        self._step: Any = torch.compile(network.forward, dynamic=False) if compiles else network

    @torch.inference_mode()
    def run(self, puzzles: np.ndarray, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        """The grids of the last step."""
        network = self._network
        device = network.H_init.device
        inputs = torch.from_numpy(puzzles.astype(np.int32)).to(device)
        vectors = network.puzzle_vectors(torch.zeros(len(puzzles), dtype=torch.int64, device=device))
        carry = network.first_carry(len(puzzles), puzzles.shape[1], dtype)
        for _ in range(network.config.halt_max_steps):
            carry, outputs = self._step(carry, inputs, vectors)
        return outputs.logits_BSV.argmax(-1).to(torch.uint8).cpu()


def alternate(
    sides: dict[str, Side], device: torch.device, *, rounds: int, warmups: int = 1
) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds and peak GiB of each side; all sides run once in every round."""
    peaks = {}
    for name, side in sides.items():
        began = time.perf_counter()
        for _ in range(warmups):
            side()
        wait(device)
        print(f"{name}: first run {time.perf_counter() - began:.1f} s", flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            free_memory(device)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            wait(device)
            began = time.perf_counter()
            side()
            wait(device)
            seconds[name].append(time.perf_counter() - began)
            if device.type == "cuda":
                peaks[name] = torch.cuda.max_memory_allocated(device) / 2**30
    for name, each in seconds.items():
        shown = ", ".join(f"{value:.4f}" for value in each)
        print(f"{name}: {shown} s; peak {peaks.get(name, 0):.2f} GiB", flush=True)
    return {name: statistics.median(each) for name, each in seconds.items()}, peaks


def wait(device: torch.device) -> None:
    """Until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def flops(config: HrmConfig, num_puzzles: int) -> float:
    """Operations of a forward step in products and attention."""
    positions = config.num_positions(config.seq_len or 0)
    hidden, inner = config.hidden_size, config.inner_size(config.hidden_size)
    weights = 4 * hidden * hidden + 3 * hidden * inner
    return 2 * num_puzzles * positions * config.num_layers * (weights + 2 * positions * hidden)


def member(arguments: argparse.Namespace, device: torch.device) -> None:
    """One member of the ensemble at R1's batch: ours, plain eager, plain compiled."""
    config = config_of(arguments)
    number = 32 if arguments.tiny else 2323
    puzzles = puzzles_of(number, config)
    compiles = device.type == "cuda"
    bfloat16 = torch.bfloat16
    ours = Reasoner(network_of(config, device), device=device, dtype=bfloat16, batch_sizes=(number,))
    unfused = Reasoner(network_of(config, device), device=device, dtype=bfloat16, batch_sizes=(number,))
    eager = Plain(network_of(config, device), compiles=False)
    sides: dict[str, Side] = {
        "eager": lambda: eager.run(puzzles),
        "ours": lambda: list(ours.run(puzzles)),
    }
    if compiles:
        from assay.engine.hrm_step import FusedStep, ReplayedStep

        compiled = Plain(network_of(config, device), compiles=True)
        sides["compiled"] = lambda: compiled.run(puzzles)
        unfused._fused = ReplayedStep(unfused.network, FusedStep(unfused.network, bfloat16, fuses_gate=False))  # noqa: SLF001
        sides["ours, gate as its own pass"] = lambda: list(unfused.run(puzzles))
    seconds, peaks = alternate(sides, device, rounds=arguments.rounds)
    work = flops(config, number) * config.halt_max_steps
    speeds = {name: round(work / each / 1e12, 1) for name, each in seconds.items()}
    print(f"TFLOP/s: {speeds}")
    best = min(each for name, each in seconds.items() if name.startswith("ours"))
    ceiling = ceilings(device, ["bf16"]).get("bf16") if device.type == "cuda" else None
    details = {
        "seconds": {name: round(each, 4) for name, each in seconds.items()},
        "peak_gib": {name: round(each, 2) for name, each in peaks.items()},
        "tflops": speeds,
    }
    for name in ("eager", "compiled"):
        if name in seconds:
            finish(
                arguments,
                f"h100.hrm_member_vs_{name}",
                seconds[name] / best,
                "x",
                f"the plain module {name}, {seconds[name]:.3f} s a member of {number:,} puzzles",
                ceiling=None
                if ceiling is None
                else f"{work / ceiling / 1e12:.3f} s at {ceiling:.0f} TFLOP/s",
                details=details,
            )


def small(arguments: argparse.Namespace, device: torch.device) -> None:
    """64 puzzles by three checkpoints: ours, replayed from graphs, and plain eager."""
    config = config_of(arguments)
    number = 8 if arguments.tiny else 64
    puzzles = puzzles_of(number, config)
    networks = [network_of(config, device, seed) for seed in range(3)]
    plain = [Plain(each, compiles=False) for each in networks]
    ours = [
        Reasoner(network_of(config, device, seed), device=device, dtype=torch.bfloat16, batch_sizes=(number,))
        for seed in range(3)
    ]
    sides: dict[str, Side] = {
        "eager": lambda: [each.run(puzzles) for each in plain],
        "ours": lambda: [list(each.run(puzzles)) for each in ours],
    }
    if device.type == "cuda":
        compiled = [Plain(each, compiles=True) for each in networks]
        sides["compiled"] = lambda: [each.run(puzzles) for each in compiled]
    seconds, peaks = alternate(sides, device, rounds=max(arguments.rounds, 5), warmups=2)
    finish(
        arguments,
        "h100.ensemble_hrm_64_puzzles_vs_eager",
        seconds["eager"] / seconds["ours"],
        "x",
        f"three checkpoints one after the other in plain torch, eager: {seconds['eager']:.3f} s",
        details={
            "seconds": {name: round(each, 4) for name, each in seconds.items()},
            "peak_gib": {name: round(each, 2) for name, each in peaks.items()},
        },
    )


def train(arguments: argparse.Namespace, device: torch.device) -> None:
    """A training step: forward, the second forward, backward, update; ours and compiled."""
    from assay.train.puzzles.optimizer import Updates, sign_step

    config = config_of(arguments)
    number, steps = (8, 2) if arguments.tiny else (768, 10)
    cells = torch.from_numpy(puzzles_of(number, config).astype(np.int32)).to(device)
    ids = torch.zeros(number, dtype=torch.int32, device=device)
    puzzles = Puzzles(inputs_BS=cells, labels_BS=cells, identifiers_B=ids)
    draws = Draws.draw(number, config.halt_max_steps, torch.Generator().manual_seed(0)).to(device)

    class Training:
        """One side."""

        def __init__(self, kind: str) -> None:
            self._network = network_of(config, device)
            self._updates = Updates(self._network, kind="adam_atan2", betas=(0.9, 0.95), weight_decay=0.1)
            self._places = empty_places(self._network, number, config.seq_len or 0, torch.bfloat16)
            self._step: Any = judged_step
            self._fused: Any = None
            if kind == "compiled":
                self._step = torch.compile(judged_step, dynamic=False)
            elif kind == "ours" and device.type == "cuda":
                from assay.train.puzzles.fused import FusedTraining

                self._fused = FusedTraining(self._network, torch.bfloat16)
            self.losses: list[float] = []

        def __call__(self) -> None:
            for _ in range(steps):
                options = {} if self._fused is None else {"step": self._fused}
                places = take_in(self._network, self._places, puzzles)
                vectors = self._network.puzzle_vectors(places.puzzles.identifiers_B).clone().requires_grad_()
                found = self._step(self._network, places, vectors, draws, **options)
                (found.losses.total / number).backward()
                self._updates.step(1e-5)
                sign_step(
                    self._network.puzzle_emb.weights, found.places.puzzles.identifiers_B,
                    vectors.grad, learning_rate=1e-5, weight_decay=0.1,
                )  # fmt: skip
                if self._fused is not None:
                    self._fused.refresh()
                self._places = found.places
            self.losses.append(float(found.losses.total.detach()) / number)

    sides: dict[str, Side] = {"eager": Training("eager"), "ours": Training("ours")}
    if device.type == "cuda":
        sides["compiled"] = Training("compiled")
    seconds, peaks = alternate(sides, device, rounds=max(arguments.rounds, 5), warmups=2)
    milliseconds = {name: round(1e3 * each / steps, 2) for name, each in seconds.items()}
    print(f"ms a step: {milliseconds}; losses: { {name: side.losses[:4] for name, side in sides.items()} }")  # type: ignore[attr-defined]
    baseline = "compiled" if "compiled" in seconds else "eager"
    finish(
        arguments,
        "h100.train_hrm_step_vs_compiled",
        seconds[baseline] / seconds["ours"],
        "x",
        f"{baseline} with its losses, {milliseconds[baseline]} ms a step of {number} puzzles",
        details={
            "milliseconds": milliseconds,
            "peak_gib": {name: round(each, 2) for name, each in peaks.items()},
            "losses": {name: [round(each, 4) for each in side.losses[:3]] for name, side in sides.items()},  # type: ignore[attr-defined]
        },
    )


def correct(arguments: argparse.Namespace, device: torch.device) -> None:
    """Official outputs of a small model, and ours against plain torch at the first step of the default shape."""
    del arguments
    wanted = dict(np.load(GIVEN / "reference" / "eval_otter_step300.npz"))
    checkpoint = next((GIVEN / "checkpoints").glob("*/*/step_300"))
    for dtype, prefix in ((torch.float32, ""), (torch.bfloat16, "bf16_")):
        for fused in (True, False) if dtype == torch.bfloat16 else (False,):
            ours = Reasoner(read_hrm(checkpoint).network(), device=device, dtype=dtype, is_fused=fused)
            lines = []
            for step in ours.run(wanted["inputs"]):
                number = step.step - 1
                off = abs(step.q_halt_N - wanted[f"{prefix}q_halt"][number]).max()
                same = (step.grids_NS == wanted[f"{prefix}logits"][number].argmax(-1)).mean()
                lines.append(f"q_halt off by {off:.2e}, cells equal {same:.4f}")
            print(f"{dtype}, {'fused' if fused else 'plain'}, by step: {'; '.join(lines)}", flush=True)
    config = DEFAULT if device.type == "cuda" else TINY
    puzzles = puzzles_of(512 if device.type == "cuda" else 4, config)
    pairs = {
        "fused and plain bf16": ((torch.bfloat16, True), (torch.bfloat16, False)),
        "fused bf16 and plain fp32": ((torch.bfloat16, True), (torch.float32, False)),
        "plain bf16 and plain fp32": ((torch.bfloat16, False), (torch.float32, False)),
    }
    for name, pair in pairs.items():
        sides = [
            Reasoner(network_of(config, device), device=device, dtype=dtype, is_fused=fused)
            for dtype, fused in pair
        ]
        for first, second in zip(*(each.run(puzzles, num_steps=4) for each in sides), strict=True):
            same = (first.grids_NS == second.grids_NS).mean()
            off = abs(first.q_halt_N - second.q_halt_N)
            print(
                f"default shape, {name}, step {first.step}: cells equal {same:.4f}, "
                f"q_halt off by {off.mean():.2e} on average, {off.max():.2e} at most",
                flush=True,
            )


def pieces(arguments: argparse.Namespace, device: torch.device) -> None:
    """Milliseconds of what a layer is made of, and of the ways to cut the gated product."""
    if device.type != "cuda":
        print("needs a GPU")
        return
    from assay.engine.kernels import triton_hrm, triton_rows
    from assay.engine.kernels.triton_linear import Tile

    config = config_of(arguments)
    hidden, inner, positions = config.hidden_size, config.inner_size(config.hidden_size), 82
    rows = 2323 * positions
    half = torch.bfloat16

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device, dtype=half)

    x, y, wide, qkv = (
        random(rows, hidden),
        random(rows, hidden),
        random(rows, inner),
        random(rows, 3 * hidden),
    )
    weights = {
        n: random(*n) / 16
        for n in ((3 * hidden, hidden), (hidden, hidden), (2 * inner, hidden), (hidden, inner))
    }
    turns = triton_hrm.halves(network_of(config, device).rotation(positions, device))
    both, out = random(rows, 2 * inner), random(rows, inner)
    split = qkv.view(2323, positions, 3, config.num_heads, config.head_size).unbind(2)
    heads = tuple(each.transpose(1, 2) for each in split)

    def product(columns: int, inputs: int) -> Side:
        return lambda: F.linear(wide if inputs == inner else x, weights[columns, inputs])

    cases: dict[str, tuple[Side, float, float]] = {}
    for columns, inputs in weights:
        amount = 2.0 * rows * columns * inputs
        cases[f"product {inputs} -> {columns}"] = (
            product(columns, inputs),
            amount,
            2.0 * rows * (columns + inputs),
        )
    cases |= {
        **{
            f"attend {tile}": (
                lambda tile=tile: triton_hrm.attend(  # type: ignore[misc]
                    qkv, turns, positions=positions, num_heads=config.num_heads, tile=tile
                ),
                0, 8.0 * rows * hidden,
            )
            for tile in ((64, 4), (64, 8), (32, 4), (128, 8), (16, 4))
        },
        "sdpa without rotation": (lambda: F.scaled_dot_product_attention(*heads), 0, 8.0 * rows * hidden),
        "add_norm": (lambda: triton_hrm.add_norm(x, y, 1e-5), 0, 6.0 * rows * hidden),
        "inject": (lambda: triton_hrm.inject(x, y, y), 0, 8.0 * rows * hidden),
        "gate as its own pass": (
            lambda: triton_rows.activate_rows(both, "silu", gated=True, out=out), 0, 6.0 * rows * inner,
        ),
    }  # fmt: skip
    amount = 2.0 * rows * 2 * inner * hidden
    for tile in (
        Tile(rows=128, columns=256, depth=64, warps=8, stages=3),
        Tile(rows=128, columns=256, depth=64, warps=8, stages=4),
        Tile(rows=128, columns=256, depth=64, warps=8, stages=3, group=16),
        Tile(rows=128, columns=256, depth=64, warps=8, stages=3, group=1),
        Tile(rows=128, columns=256, depth=32, warps=8, stages=5),
        Tile(rows=256, columns=128, depth=64, warps=8, stages=3),
        Tile(rows=128, columns=128, depth=64, warps=4, stages=4),
        Tile(rows=128, columns=128, depth=64, warps=8, stages=4),
        Tile(rows=128, columns=128, depth=128, warps=8, stages=3),
        Tile(rows=64, columns=256, depth=64, warps=4, stages=4),
    ):
        weight = triton_hrm.interleaved(weights[2 * inner, hidden], tile)
        name = f"gated product {tile.rows}x{tile.columns}x{tile.depth} w{tile.warps} s{tile.stages} g{tile.group}"
        cases[name] = (
            lambda weight=weight, tile=tile: triton_hrm.gated(x, weight, tile),  # type: ignore[misc]
            amount,
            2.0 * rows * (hidden + inner),
        )
    for name, (side, operations, size_bytes) in cases.items():
        try:
            milliseconds = timed(side, device)
        except Exception as error:  # noqa: BLE001 - a cut that needs too much of the chip is left out
            print(f"{name}: {type(error).__name__}", flush=True)
            continue
        print(
            f"{name}: {milliseconds:.3f} ms, {operations / milliseconds / 1e9:.0f} TFLOP/s, "
            f"{size_bytes / milliseconds / 1e9:.2f} TB/s",
            flush=True,
        )


def timed(side: Side, device: torch.device, repeats: int = 20) -> float:
    """Milliseconds of one call."""
    for _ in range(3):
        side()
    wait(device)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(repeats):
        side()
    last.record()
    wait(device)
    return float(first.elapsed_time(last)) / repeats


if __name__ == "__main__":
    main()
