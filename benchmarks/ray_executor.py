"""The Ray executor against the local one on the same machine, and against Ray Data doing the same job.

MiniLM with a head of four labels over news articles, no two alike, in units of about ten seconds, with as many workers
of one thread as there are cores. Sides take turns: `assay score` with processes of this machine, the same with
`--executor ray`, and Ray Data's `map_batches` with an actor a worker, whose call is the same engine, written as
Parquet. The source is a folder of files of a unit each. Each Ray side has a cluster of its own, started before its
time begins and stopped after, so that the local side shares the machine with none.

- overhead: seconds from the first worker being ready to the last part, over those of the local side, less one: what
  Ray's own processes and the way through an actor cost while there is work. Median of the rounds' ratios.
- Ray Data: the whole time of each side from the start of its process to its end, Ray Data's over ours; its batch size
  is the better of three in a trial round, and it gets two logical CPUs more for its own tasks, without which it waits.
- memory: the largest sum of what the processes of a side and of its cluster hold (PSS), looked at each second, in a
  round of its own: to look costs the more the more processes there are, on the cores that are compared.
- after a kill: both are killed by SIGKILL once half of the rows are computed and started again; how many rows the
  second try computes, as a share of all.
"""

import contextlib
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from _record import finish, parser
from _start_ray import cluster
from score_vs_peers import make_bundle

from assay import machine
from assay.train.corpus import load_corpus

SIDES = Path(__file__).with_name("_ray_sides.py")
BATCHES = (256, 512, 1024)
MAX_LENGTH = 64
SPARE_CPUS = 2
"""Logical ones, for Ray Data's own tasks beside its actors."""


class Pss:
    """The most memory that some processes and their children held together, looked at each second."""

    def __init__(self, *roots: int) -> None:
        """Watch the processes with these ids."""
        self.peak_bytes = 0
        self._roots = roots
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """The most bytes."""
        self._is_over.set()
        self._thread.join()
        return self.peak_bytes

    def _watch(self) -> None:
        while not self._is_over.wait(1.0):
            total = 0
            for root in self._roots:
                with contextlib.suppress(psutil.Error):
                    for process in (psutil.Process(root), *psutil.Process(root).children(recursive=True)):
                        with contextlib.suppress(psutil.Error):
                            total += process.memory_full_info().pss
            self.peak_bytes = max(self.peak_bytes, total)


def run_side(side: str, asked: dict[str, Any], *others: int, with_memory: bool = False) -> dict[str, float]:
    """The figures of a side in a process of its own: its own, `wall_seconds`, `peak_bytes` (with `others`)."""
    process, began = start_side(side, asked), time.monotonic()
    memory = Pss(process.pid, *others) if with_memory else None
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{side} ended with status {process.returncode}")
    return {
        **json.loads(output.splitlines()[-1]),
        "wall_seconds": time.monotonic() - began,
        "peak_bytes": memory.stop() if memory is not None else 0,
    }


def start_side(side: str, asked: dict[str, Any]) -> "subprocess.Popen[bytes]":
    """A side in a process of its own."""
    path = Path(asked["out"]).with_suffix(".json")
    path.write_text(json.dumps(asked), encoding="utf-8")
    return subprocess.Popen([sys.executable, str(SIDES), side, str(path)], stdout=subprocess.PIPE)


def rows_after_a_kill(side: str, asked: dict[str, Any], num_rows: int) -> int:
    """Rows that a second try computes, where the first is killed once half of all are computed."""
    log, parts = Path(asked["log"]), Path(asked["out"]) / "parts"

    def computed() -> int:
        if side == "assay":
            return asked["unit_rows"] * len(list(parts.glob("*.parquet")))
        return sum(map(int, log.read_text().split())) if log.exists() else 0

    first = start_side(side, asked)
    while computed() < num_rows // 2:
        if first.poll() is not None:
            raise SystemExit(f"{side} ended before half of its rows were computed")
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    log.unlink(missing_ok=True)
    again = run_side(side, asked)
    return int(again["rows"]) if side == "assay" else computed()


def main() -> None:
    """Measure and print."""
    flags = parser(__doc__, smoke="600 documents in one round")
    flags.add_argument("--documents", type=int, default=24_000)
    flags.add_argument("--unit-rows", type=int, default=1_600)
    flags.add_argument("--rounds", type=int, default=3)
    arguments = flags.parse_args()
    num_rows, unit_rows, num_rounds = arguments.documents, arguments.unit_rows, arguments.rounds
    if arguments.tiny:
        num_rows, unit_rows, num_rounds = 600, 100, 1
    num_workers = machine.usable_cores()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        texts = [row.text for row in load_corpus().rows]
        (place / "corpus").mkdir()
        for start in range(0, num_rows, unit_rows):
            numbers = range(start, min(start + unit_rows, num_rows))
            table = pa.table(
                {
                    "id": [f"doc-{number}" for number in numbers],
                    "text": [f"{number} {texts[number % len(texts)]}" for number in numbers],
                }
            )
            pq.write_table(table, place / "corpus" / f"{start:09}.parquet")
        count = iter(range(1_000))
        common = {
            "source": str(place / "corpus"),
            "bundle": str(make_bundle(place / "bundle")),
            "max_length": MAX_LENGTH,
            "unit_rows": unit_rows,
            "workers": num_workers,
            "blocks": -(-num_rows // unit_rows),
            "batch_rows": BATCHES[0],
            "address": None,
        }

        def asked(**changes: object) -> dict[str, Any]:
            number = next(count)
            return {
                **common,
                "out": str(place / f"out{number}"),
                "log": str(place / f"log{number}"),
                **changes,
            }

        def local(*, with_memory: bool = False) -> dict[str, float]:
            return run_side("assay", asked(), with_memory=with_memory)

        def ray(*, with_memory: bool = False) -> dict[str, float]:
            with cluster(num_workers) as (address, holder):
                return run_side("assay", asked(address=address), holder, with_memory=with_memory)

        def data(batch_rows: int, *, with_memory: bool = False) -> dict[str, float]:
            with cluster(num_workers + SPARE_CPUS) as (address, holder):
                changes = asked(address=address, batch_rows=batch_rows)
                return run_side("data", changes, holder, with_memory=with_memory)

        tried = {batch: data(batch)["wall_seconds"] for batch in BATCHES[: 1 if arguments.tiny else None]}
        best = min(tried, key=lambda batch: tried[batch])
        rounds = []
        for _ in range(num_rounds):
            rounds.append((local(), ray(), data(best)))
            print(json.dumps(rounds[-1]), flush=True)
        held = [
            side["peak_bytes"]
            for side in (local(with_memory=True), ray(with_memory=True), data(best, with_memory=True))
        ]
        with cluster(num_workers) as (address, _):
            ours_again = rows_after_a_kill("assay", asked(address=address), num_rows) / num_rows
        with cluster(num_workers + SPARE_CPUS) as (address, _):
            data_again = (
                rows_after_a_kill("data", asked(address=address, batch_rows=best), num_rows) / num_rows
            )

    def median(key: str, side: int) -> float:
        return statistics.median(each[side][key] for each in rounds)

    overhead = statistics.median(ray["seconds"] / local["seconds"] - 1 for local, ray, _ in rounds)
    unit_seconds = median("seconds", 0) * num_workers / common["blocks"]
    packages = ("assay", "ray", "torch", "pyarrow")
    finish(
        "cpu.ray_overhead_fraction",
        overhead,
        "fraction",
        f"the local executor, same machine and work = {median('seconds', 0):.1f} s from the first worker ready",
        packages=packages,
        details={
            "documents": num_rows,
            "unit_seconds": round(unit_seconds, 2),
            "rounds": num_rounds,
            "ready_seconds_local": median("ready_seconds", 0),
            "ready_seconds_ray": median("ready_seconds", 1),
            "wall_seconds_local": median("wall_seconds", 0),
            "wall_seconds_ray": median("wall_seconds", 1),
            "peak_mb_local": round(held[0] / 1e6),
            "peak_mb_ray_and_cluster": round(held[1] / 1e6),
        },
        record=arguments.record,
        trial=arguments.tiny,
    )
    finish(
        "cpu.vs_ray_data_map_batches",
        statistics.median(data["wall_seconds"] / ray["wall_seconds"] for _, ray, data in rounds),
        "ratio",
        f"Ray Data map_batches, batches of {best} = {median('wall_seconds', 2):.1f} s for {num_rows:,} documents",
        packages=packages,
        details={
            "wall_seconds": median("wall_seconds", 1),
            "peak_mb": round(held[1] / 1e6),
            "peak_mb_ray_data": round(held[2] / 1e6),
            "share_computed_again_after_a_kill": ours_again,
            "share_computed_again_after_a_kill_ray_data": data_again,
            "batch_sizes_tried": tried,
        },
        record=arguments.record,
        trial=arguments.tiny,
    )


if __name__ == "__main__":
    main()
