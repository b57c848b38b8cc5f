"""What the default number of threads is worth beside programs that keep every core busy.

    python benchmarks/busy_machine.py --record

MiniLM on BBC news, as many busy loops as there are cores. Processes are loaded first and then take turns, one step
at a time: of scoring (8 documents of 128 tokens) and of training (the quickstart's loop, batches of 16). Sides are
the default number of threads, `--num-threads 1`, and the default number with OpenMP's own way of waiting, which is
what the command had before. All are started with the environment that the command gives its workers.

The value is the speed of the default over that of one thread in training, the median over rounds of paired steps. Half
would be acceptable. Scoring and OpenMP's own way of waiting are in the details.
"""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from _record import finish, parser

from assay import machine
from assay.train.corpus import CorpusRow, base_model_folder, load_corpus, quickstart_settings

SIDES = {"default": None, "one thread": 1, "OpenMP's waiting": None}
JOBS = ("score", "train")
DOCUMENTS, LENGTH = 8, 128
WARM_UP = 2


class Side:
    """A process that does a step each time it is told to."""

    def __init__(self, name: str, job: str, steps: int) -> None:
        """Start it; `ready` waits until it is loaded."""
        plain = {key: value for key, value in os.environ.items() if key not in machine.YIELDING}
        environment = machine.child_environment(
            plain, num_threads=machine.choose_threads(SIDES[name], environment=plain).count
        )
        if name == "OpenMP's waiting":
            environment = {key: value for key, value in environment.items() if key not in machine.YIELDING}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--job", job, "--rounds", str(steps)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def step(self) -> float:
        """Have it do one step; the seconds that it took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


def main() -> None:
    """Measure, or be one of the sides."""
    flags = parser(__doc__, smoke="few rounds")
    flags.add_argument("--rounds", type=int, default=11)
    flags.add_argument(
        "--loops",
        type=int,
        default=machine.usable_cores(),
        help="busy loops; 0 tells what the default costs alone",
    )
    flags.add_argument("--job", choices=JOBS, help="be a side; this script starts itself so")
    arguments = flags.parse_args()
    if arguments.job is not None:
        {"score": score, "train": train}[arguments.job](arguments.rounds)
        return
    rounds = 3 if arguments.tiny else arguments.rounds
    ratios = {job: measure(job, rounds, arguments.loops) for job in JOBS}
    finish(
        "cpu.train_busy_default_over_one_thread",
        ratios["train"]["default"],
        "ratio",
        "the same beside the same busy loops with --num-threads 1",
        details={
            job: {name: round(value, 3) for name, value in found.items()} for job, found in ratios.items()
        },
        packages=("assay", "torch"),
        record=arguments.record,
        trial=arguments.tiny or arguments.loops != machine.usable_cores(),
    )


def measure(job: str, rounds: int, num_loops: int) -> dict[str, float]:
    """The speed of each side over that of one thread, beside so many busy loops."""
    sides = {name: Side(name, job, rounds + WARM_UP) for name in SIDES}
    loops = []
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    try:
        for side in sides.values():
            for _ in range(WARM_UP):
                side.step()
        loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(num_loops)]
        for turn in range(rounds):
            for name in random.sample(list(sides), len(sides)):
                seconds[name].append(sides[name].step())
            shown = ", ".join(f"{name} {taken[-1] * 1000:.0f} ms" for name, taken in seconds.items())
            print(f"  {job} {turn}: {shown}", flush=True)
    finally:
        for loop in loops:
            loop.kill()
        for side in sides.values():
            side.end()
    return {
        name: statistics.median(one / each for one, each in zip(seconds["one thread"], taken, strict=True))
        for name, taken in seconds.items()
        if name != "one thread"
    }


# ------------------------------------------------------------ a side


def wait_for_turn() -> float:
    """Wait to be told; the clock from then on."""
    if not sys.stdin.readline():
        raise SystemExit
    return time.perf_counter()


def take_turns(step: Callable[[], object]) -> None:
    """Do a step whenever told to, and say how long it took."""
    while True:
        began = wait_for_turn()
        step()
        print(time.perf_counter() - began, flush=True)


def score(rounds: int) -> None:
    """Forward passes of the CPU engine."""
    del rounds
    import numpy as np
    from _words import quiet
    from transformers import AutoModelForSequenceClassification

    from assay.engine.load import load_engine
    from assay.engine.run import run_sequences
    from assay.engine.sequences import Sequences

    with tempfile.TemporaryDirectory() as folder, quiet():
        AutoModelForSequenceClassification.from_pretrained(base_model_folder(), num_labels=5).save_pretrained(
            folder
        )
        engine = load_engine(folder)
    ids = np.random.default_rng(0).integers(1000, 20_000, DOCUMENTS * LENGTH).astype(np.int32)
    sequences = Sequences(flat_ids=ids, offsets=np.arange(DOCUMENTS + 1) * LENGTH)
    take_turns(lambda: run_sequences(engine, sequences))


def train(rounds: int) -> None:
    """Steps of the quickstart's training."""
    from dataclasses import replace

    from assay.labelled.rows import LabelledRows
    from assay.train.history import TrainProgress
    from assay.train.train import fit

    corpus = load_corpus()
    settings = quickstart_settings(out="")
    num_rows = (rounds + 1) * settings.batch_size
    rows = random.Random(0).sample(corpus.split("train"), num_rows)
    validation = corpus.split("validation")[: settings.batch_size]

    def labelled(rows: Sequence[CorpusRow]) -> LabelledRows:
        return LabelledRows(texts=tuple(row.text for row in rows), labels=tuple(row.label for row in rows))

    began = wait_for_turn()

    def on_progress(progress: TrainProgress) -> None:
        nonlocal began
        if progress.validation is None:
            print(time.perf_counter() - began, flush=True)
            began = wait_for_turn()

    with tempfile.TemporaryDirectory() as folder:
        settings = replace(settings, out=str(Path(folder) / "out"))
        fit(settings, labelled(rows), labelled(validation), on_progress=on_progress)


if __name__ == "__main__":
    main()
