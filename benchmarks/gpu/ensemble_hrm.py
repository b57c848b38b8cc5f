"""An ensemble of HRM, 3 checkpoints by 5 shifts of the digits, on one GPU: ours against the threaded script.

    python benchmarks/gpu/ensemble_hrm.py --part workers
    python benchmarks/gpu/ensemble_hrm.py --part eager --workers 15 --record
    python benchmarks/gpu/ensemble_hrm.py --part compiled --workers 15 --record
    python benchmarks/gpu/ensemble_hrm.py --part settled --checkpoints a,b,c --puzzles DIR --workers 15 --record
    python benchmarks/gpu/ensemble_hrm.py --part flags --checkpoints a,b,c --puzzles DIR

Ours is the work of `assay ensemble` on one batch, in this process: a run's unit from its planned members to its
published part, checkpoints opened before. The baseline is the script whose flags `assay ensemble` has, built again in
plain torch (`_threaded_hrm.py`): eager, compiled after a warm-up in one thread, and the compiled members one after the
other without losses or kept states. Rounds of the sides alternate; values are ratios of medians.

workers   which number of threads is fastest, by a few steps of each task
eager     in full, 2,323 puzzles, default shape, random weights: the time against eager threads, and the peak of memory
          against the most threads that run; fewer than --workers are tried where tasks run out of memory
compiled  the same against compiled threads and compiled members one after the other: the faster counts
settled   trained checkpoints: puzzles that check are left out by later members, against the fastest baseline that runs;
          the OR of all members' flags on both sides, and how many flip each way
flags     trained checkpoints, all members in full: the share of flags that flip between ours, eager and compiled

The time does not depend on the weights, and random deep models are chaotic: flags are compared for trained ones alone.
The puzzles are symmetric forms of the 16 in tests/data, or those of --puzzles.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from _setup import chosen_device, finish, free_memory, parser
from _threaded_hrm import Ran, Threaded
from hrm import DEFAULT, GIVEN, TINY, network_of

from assay.ensemble.findings import Share
from assay.ensemble.plan import EnsemblePlan, plan_ensemble
from assay.ensemble.reasoners import ReasonerSolver, open_solver
from assay.ensemble.rows import from_table
from assay.ensemble.settings import EnsembleSettings, Settled
from assay.ensemble.work import EnsembleWork
from assay.model.hrm.files import read_hrm
from assay.runs.parts import open_part
from assay.runs.pipeline import run_unit
from assay.runs.run import create_or_join
from assay.sudoku.grids import NUM_CELLS
from assay.sudoku.puzzles import read_split, sudoku_split, write_split
from assay.sudoku.views import random_view
from assay.train.puzzles.state import write_snapshot

PARTS = ("workers", "eager", "compiled", "settled", "flags")
PERMUTES = 5
"""Shifts of the digits for each checkpoint, the puzzles as they are among them."""
MEMORY_SHARE = 0.9
SHORT_STEPS = 4
"""Steps of a task where numbers of threads are compared."""


@dataclass(frozen=True, kw_only=True)
class World:
    """What both sides are given."""

    folder: Path
    data: Path
    split: str
    checkpoints: tuple[str, ...]
    batch_size: int
    device: torch.device
    hidden_size: int

    @property
    def precision(self) -> Literal["bf16", "fp32"]:
        """bf16; fp32 on a CPU, where bf16 is slow."""
        return "bf16" if self.device.type == "cuda" else "fp32"


def main() -> None:
    """Run one part."""
    flags = parser(__doc__)
    flags.add_argument("--part", choices=PARTS, required=True)
    flags.add_argument("--rounds", type=int, default=2)
    flags.add_argument("--workers", type=int, default=15, help="threads of the baseline, at the most")
    flags.add_argument("--batch-size", type=int, default=2323)
    flags.add_argument("--checkpoints", help="three trained checkpoints with commas between them")
    flags.add_argument("--puzzles", help="folder of puzzles for them")
    flags.add_argument("--split", default="test")
    arguments = flags.parse_args()
    needs_trained = arguments.part in {"settled", "flags"} and not arguments.tiny
    if needs_trained and not (arguments.checkpoints and arguments.puzzles):
        raise SystemExit(f"--part {arguments.part} needs trained weights; give --checkpoints and --puzzles")
    device = chosen_device(arguments)
    torch.set_float32_matmul_precision("highest")
    parts = {"workers": workers, "eager": eager, "compiled": compiled, "settled": settled, "flags": flags_of}
    with tempfile.TemporaryDirectory() as scratch:
        parts[arguments.part](arguments, make_world(arguments, Path(scratch), device))


# ------------------------------------------------------------ what is measured


def workers(arguments: argparse.Namespace, world: World) -> None:
    """A few steps of each task in more and fewer threads."""
    side, _ = threaded(world, compiles=False)
    for number in (1, *(each for each in (4, 8, 15) if each <= arguments.workers)):
        ran = side.run(number, SHORT_STEPS)
        print(
            f"{number} threads: {ran.seconds:.2f} s for {SHORT_STEPS} steps of {side.num_tasks} tasks, "
            f"{len(ran.failures)} failed",
            flush=True,
        )


def eager(arguments: argparse.Namespace, world: World) -> None:
    """Time against eager threads, and the peak of memory at the most that run."""
    ours = Ours(world, "never")
    side, held = threaded(world, compiles=False)
    clock = Clock(world.device)
    number, first = most_workers(clock, side, arguments.workers, held)
    clock.seconds["threads, eager"] = [first.seconds]
    clock.time("ours", ours.run, ours.held_bytes)
    for _ in range(arguments.rounds - 1):
        clock.time("threads, eager", partial(side.run, number), held)
        clock.time("ours", ours.run, ours.held_bytes)
    seconds, details = clock.report(world, threads=number)
    finish(
        arguments,
        "h100.ensemble_hrm_15_vs_threads_eager",
        seconds["threads, eager"] / seconds["ours"],
        "x",
        f"a thread a task, {number} at a time, eager: {seconds['threads, eager']:.2f} s for {side.num_tasks} members "
        f"of {world.batch_size:,} puzzles",
        details=details,
    )
    if clock.peaks:
        finish(
            arguments,
            "h100.ensemble_hrm_15_memory_vs_threads",
            clock.peaks["ours"] / clock.peaks["threads, eager"],
            "x",
            f"peak allocated by a thread a task, {number} at a time: {clock.peaks['threads, eager']:.1f} GiB",
            details=details,
        )


def compiled(arguments: argparse.Namespace, world: World) -> None:
    """Time against compiled threads and compiled members one after the other."""
    ours = Ours(world, "never")
    side, held = threaded(world, compiles=world.device.type == "cuda")
    for alone in (False, True):
        print(f"compiled in {side.warm_up(alone=alone):.1f} s", flush=True)
    clock = Clock(world.device)
    number, first = most_workers(clock, side, arguments.workers, held, name="threads, compiled")
    clock.seconds["threads, compiled"] = [first.seconds]
    for turn in range(arguments.rounds):
        if turn:
            clock.time("threads, compiled", partial(side.run, number), held)
        clock.time("one after the other, compiled", side.alone, held)
        clock.time("ours", ours.run, ours.held_bytes)
    seconds, details = clock.report(world, threads=number)
    best = min(("threads, compiled", "one after the other, compiled"), key=seconds.__getitem__)
    finish(
        arguments,
        "h100.ensemble_hrm_15_vs_compiled",
        seconds[best] / seconds["ours"],
        "x",
        f"the faster of {number} compiled threads ({seconds['threads, compiled']:.2f} s) and compiled members one "
        f"after the other ({seconds['one after the other, compiled']:.2f} s), {side.num_tasks} members of "
        f"{world.batch_size:,} puzzles",
        details=details,
    )


def settled(arguments: argparse.Namespace, world: World) -> None:
    """Ours with settled puzzles left out, against the fastest way of the script; flags of the OR."""
    compiles = world.device.type == "cuda"
    dropping, full = Ours(world, "checked"), Ours(world, "never")
    members = full.run().right_NM
    single = float(members.mean())
    print(
        f"a single member solves {single:.2%} (each: {shares(members)}); any of all {members.any(1).mean():.2%}"
    )
    clock = Clock(world.device)
    sides = {}
    for name, is_compiled in (("threads, eager", False), ("threads, compiled", compiles)):
        side, held = threaded(world, compiles=is_compiled)
        side.warm_up(alone=False)
        number, _ = most_workers(clock, side, arguments.workers, held, name)
        sides[name] = (side, number, held)
    dropping.run()  # graphs of small batches are recorded here, as the others compile before the clock starts
    found = {}
    for _ in range(arguments.rounds):
        for name, (side, number, held) in sides.items():
            found[name] = clock.time(name, partial(side.run, number), held)
        found["ours"] = clock.time("ours", dropping.run, dropping.held_bytes)
        clock.time("ours in full", full.run, full.held_bytes)
    seconds, details = clock.report(world, threads={name: each[1] for name, each in sides.items()})
    best = min(sides, key=seconds.__getitem__)
    flips = {
        f"ours and {best}": flipped(found["ours"].right_NM.any(1), found[best].right_NM.any(1)),
        "ours dropping and ours in full": flipped(found["ours"].right_NM.any(1), members.any(1)),
    }
    if compiles:
        eager_or, compiled_or = (found[name].right_NM.any(1) for name in sides)
        flips["the script eager and compiled"] = flipped(eager_or, compiled_or)
    finish(
        arguments,
        "h100.ensemble_hrm_15_checked_vs_best_reference",
        seconds[best] / seconds["ours"],
        "x",
        f"{best}: {seconds[best]:.2f} s; measured where a single member solves {single:.1%}, hidden "
        f"{world.hidden_size}, {world.batch_size:,} puzzles",
        details={
            **details,
            "single_member": round(single, 4),
            "any_correct": {
                name: round(float(each.right_NM.any(1).mean()), 4) for name, each in found.items()
            },
            "passes": int(dropping.num_passes),
            "or_flags_that_flip": flips,
        },
    )


def flags_of(arguments: argparse.Namespace, world: World) -> None:
    """Flags of every member in full, by each side."""
    found = {"ours": Ours(world, "never").run().right_NM}
    for name, compiles in (("eager", False), ("compiled", True)):
        if world.device.type != "cuda" and compiles:
            continue
        side, _ = threaded(world, compiles=compiles)
        side.warm_up(alone=True)
        found[name] = side.alone().right_NM
    names = list(found)
    for at, first in enumerate(names):
        print(f"{first}: members solve {shares(found[first])}, any {found[first].any(1).mean():.2%}")
        for second in names[at + 1 :]:
            print(f"{first} and {second}, flags of members: {flipped(found[first], found[second])}")
            print(f"{first} and {second}, their OR: {flipped(found[first].any(1), found[second].any(1))}")
    del arguments


# ------------------------------------------------------------ ours


class Ours:
    """`assay ensemble` on one batch, checkpoints opened and warm."""

    def __init__(self, world: World, settled: Settled) -> None:
        before = allocated(world.device)
        self._world, self._settled = world, settled
        self._turns = 0
        self.num_passes = 0
        self._solvers: dict[str, ReasonerSolver] = {}
        plan = self._plan(world.batch_size)
        for path in dict.fromkeys(member.path for member in plan.members):
            self._solvers[path] = open_solver(
                path,
                device=str(world.device),
                precision=world.precision,
                num_steps=None,
                batch_size=world.batch_size,
                memory_limit=MEMORY_SHARE,
            )
        self.run(min(8, world.batch_size))  # imports, and what is compiled
        gc.collect()
        free_memory(world.device)
        self.held_bytes = allocated(world.device) - before
        rows = {solver.most_rows for solver in self._solvers.values()}
        print(f"ours: pieces of {rows} puzzles, {self.held_bytes / 2**30:.2f} GiB held", flush=True)

    def _plan(self, batch_size: int) -> EnsemblePlan:
        world = self._world
        settings = EnsembleSettings(
            data=str(world.data),
            split=world.split,
            checkpoints=world.checkpoints,
            permutes=PERMUTES,
            settled=self._settled,
            precision=world.precision,
            batch_size=batch_size,
            num_batch=1,
        )
        return plan_ensemble(settings, device_kind=world.device.type)

    def run(self, batch_size: int | None = None) -> Ran:
        """All members on the batch, to the published part."""
        world = self._world
        self._turns += 1
        plan = self._plan(batch_size or world.batch_size)
        url = str(world.folder / f"run-{self._settled}-{self._turns}")
        run, _ = create_or_join(url, plan.manifest)
        work = EnsembleWork(run.manifest, plan.puzzles, self._solvers.__getitem__, device=str(world.device))
        (unit,) = run.manifest.units()
        began = time.perf_counter()
        run_unit(run, work, unit)
        seconds = time.perf_counter() - began
        with open_part(run, unit) as file:
            table = file.read()
        outcomes = from_table(
            table, 0, num_puzzles=unit.num_rows, num_members=len(plan.members), num_cells=NUM_CELLS
        )
        if outcomes.failed_NM.any():
            raise SystemExit(f"a member of ours failed: {work.stats()['failures']}")
        self.num_passes = int(outcomes.ran_NM.sum())
        return Ran(seconds=seconds, right_NM=outcomes.right_NM & outcomes.ran_NM)


# ------------------------------------------------------------ the world, and the clock


def make_world(arguments: argparse.Namespace, folder: Path, device: torch.device) -> World:
    """The checkpoints and puzzles of the flags, or random ones."""
    batch_size = 4 if arguments.tiny else arguments.batch_size
    data, split = Path(arguments.puzzles or folder / "puzzles"), arguments.split
    if arguments.puzzles is None:
        write_puzzles(data, batch_size)
        split = "test"
    batch_size = min(batch_size, read_split(data, split).num_rows)
    if arguments.checkpoints:
        checkpoints = tuple(each for each in arguments.checkpoints.split(",") if each)
    else:
        config = TINY if arguments.tiny else DEFAULT
        made = []
        for seed in range(3):
            network = network_of(config, torch.device("cpu"), seed)
            made.append(str(write_snapshot(folder / f"random-{seed}", 1, network, keep=1)))
        checkpoints = tuple(made)
    return World(
        folder=folder,
        data=data,
        split=split,
        checkpoints=checkpoints,
        batch_size=batch_size,
        device=device,
        hidden_size=read_hrm(checkpoints[0], seq_len=NUM_CELLS).config.hidden_size,
    )


def write_puzzles(data: Path, count: int) -> None:
    """So many puzzles of one solution each: random symmetric forms of those in tests/data."""
    given = read_split(GIVEN / "data" / "sudoku-tiny", "test")
    rng = np.random.default_rng(0)
    inputs, labels = [], []
    for number in range(count):
        view, row = random_view(rng), number % given.num_rows
        inputs.append(view.show(np.asarray(given.inputs[row : row + 1])))
        labels.append(view.show(np.asarray(given.labels[row : row + 1])))
    write_split(data, "test", sudoku_split(np.concatenate(inputs), np.concatenate(labels)))


def threaded(world: World, *, compiles: bool) -> tuple[Threaded, int]:
    """The script's side, and the bytes that its models hold on the device."""
    before = allocated(world.device)
    networks = [read_hrm(each, seq_len=NUM_CELLS).network().to(world.device) for each in world.checkpoints]
    side = Threaded(
        networks,
        world.data / world.split,
        permutes=PERMUTES,
        batch_size=world.batch_size,
        compiles=compiles,
    )
    return side, allocated(world.device) - before


class Clock:
    """Seconds of sides by round, and the most memory that each had for itself."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, list[float]] = {}
        self.peaks: dict[str, float] = {}

    def time(self, name: str, side: Callable[[], Ran], held_bytes: int) -> Ran:
        """Run a side; `held_bytes`: what it holds of the memory that is taken before it runs."""
        ran = self.watch(name, side, held_bytes)
        if ran.failures:
            raise SystemExit(f"{name}: {len(ran.failures)} tasks failed: {ran.failures[0]}")
        self.seconds.setdefault(name, []).append(ran.seconds)
        print(f"{name}: {ran.seconds:.3f} s, peak {self.peaks.get(name, 0):.2f} GiB", flush=True)
        return ran

    def watch(self, name: str, side: Callable[[], Ran], held_bytes: int) -> Ran:
        """Run a side and note its peak of memory, without what the other sides hold."""
        gc.collect()
        free_memory(self._device)
        before = allocated(self._device)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        ran = side()
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device) - before + held_bytes
            self.peaks[name] = peak / 2**30
        return ran

    def report(self, world: World, **details: object) -> tuple[dict[str, float], dict[str, object]]:
        """The median of each side, and the details of a result."""
        medians = {name: statistics.median(each) for name, each in self.seconds.items()}
        return medians, {
            "seconds": {name: [round(value, 3) for value in each] for name, each in self.seconds.items()},
            "peak_gib": {name: round(each, 2) for name, each in self.peaks.items()},
            "members": len(world.checkpoints) * PERMUTES,
            "puzzles": world.batch_size,
            **details,
        }


def most_workers(
    clock: Clock, side: Threaded, wanted: int, held_bytes: int, name: str = "threads, eager"
) -> tuple[int, Ran]:
    """The most threads, `wanted` or fewer, of which no task fails; their first run, its peak noted."""
    side.run(1, 1)
    while True:
        number = wanted
        ran = clock.watch(name, partial(side.run, number), held_bytes)
        if not ran.failures:
            peak = clock.peaks.get(name, 0)
            print(f"{name}, {number} at a time: {ran.seconds:.3f} s, peak {peak:.2f} GiB", flush=True)
            return number, ran
        print(
            f"{name}, {number} at a time: {len(ran.failures)} tasks failed: {ran.failures[0][:120]}",
            flush=True,
        )
        if number == 1:
            raise SystemExit("a single thread fails: the batch does not fit; use a smaller --batch-size")
        wanted = max(1, number - len(ran.failures))


def allocated(device: torch.device) -> int:
    """Bytes of tensors on the device."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def shares(right_NM: np.ndarray) -> str:
    """Each member's share of right grids."""
    return ", ".join(f"{each:.1%}" for each in right_NM.mean(0))


def flipped(first: np.ndarray, second: np.ndarray) -> str:
    """How many flags are set on one side alone, each way, with the interval of the share that differs."""
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    share = Share(correct=only_first + only_second, total=first.size)
    low, high = share.interval or (0.0, 0.0)
    return (
        f"{only_first} of {first.size:,} on the first alone, {only_second} on the second alone; "
        f"{share.accuracy:.3%} differ ({low:.3%} to {high:.3%})"
    )


if __name__ == "__main__":
    main()
