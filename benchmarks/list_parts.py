"""Listing a run of 100,000 parts in a bucket: ranges between known names, some at once, against page after page.

The bucket is a fake one on loopback in a process of its own, which answers each request after a pause as a service does
(0.1 s here). Both ways list the same bucket, in turn, in this process; besides the seconds each way's own CPU time is
given, as a pause costs none. Median of the rounds.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from _record import finish, parser
from overhead import make_bundle

from assay.runs.placement import place_workers
from assay.runs.run import PARTS, Run, create_or_join, part_path
from assay.score.plan import plan_score
from assay.score.settings import ScoreSettings

TESTS = Path(__file__).resolve().parents[1] / "tests"
UNIT_ROWS = 2
SERVER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from support.fake_store import FakeStore
with FakeStore() as store:
    print(json.dumps(store.s3_environment()), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        for key in order.get("put", ()):
            store.buckets["bucket"].put(key, b"a part", {})
        store.latency = order["latency"]
        print(store.requests["list"], flush=True)
"""


def make_run(folder: Path, num_units: int) -> Run:
    """A run of so many units in the bucket, none published."""
    num_rows = num_units * UNIT_ROWS
    rows = pa.table({"id": pa.array(range(num_rows)), "text": ["a short text"] * num_rows})
    pq.write_table(rows, folder / "corpus.parquet", row_group_size=UNIT_ROWS * 100)
    make_bundle(folder / "bundle")
    settings = ScoreSettings(
        sources=(str(folder / "corpus.parquet"),),
        bundle=str(folder / "bundle"),
        run="s3://bucket/run",
        engine="fake",
        unit_rows=UNIT_ROWS,
    )
    manifest, _ = plan_score(settings, place_workers("1", num_gpus=0), "fp32")
    return create_or_join(settings.run, manifest)[0]


def timed(listing: Callable[[], int]) -> tuple[float, float, int]:
    """Seconds, seconds of CPU, and how many parts were listed."""
    began, cpu = time.perf_counter(), time.process_time()
    count = listing()
    return time.perf_counter() - began, time.process_time() - cpu, count


def main() -> None:
    """Fill the bucket, list it both ways in turn, print, record."""
    arguments = parser(__doc__, smoke="5,000 parts")
    arguments.add_argument("--rounds", type=int, default=3, help="times that each way is taken [3]")
    arguments.add_argument("--latency", type=float, default=0.1, help="seconds before each answer [0.1]")
    chosen = arguments.parse_args()
    num_units = 5_000 if chosen.tiny else 100_000
    with (
        tempfile.TemporaryDirectory() as name,
        subprocess.Popen(
            [sys.executable, "-c", SERVER, str(TESTS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        ) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        os.environ.update(json.loads(server.stdout.readline()))
        run = make_run(Path(name), num_units)

        def ask(**order: object) -> int:
            """Have the server do something; how many listings it has answered."""
            print(json.dumps(order), file=server.stdin, flush=True)
            return int(server.stdout.readline())

        ask(put=[f"run/{part_path(unit)}" for unit in run.manifest.units()], latency=chosen.latency)
        found: dict[str, list[tuple[float, float]]] = {"in ranges": [], "page after page": []}
        requests = {}
        for _ in range(chosen.rounds):
            for way, listing in {
                "in ranges": lambda: len(run.part_files()),
                "page after page": lambda: len({info.path: info for info in run.store.list(PARTS)}),
            }.items():
                before = ask(latency=chosen.latency)
                seconds, cpu_seconds, count = timed(listing)
                assert count == num_units
                requests[way] = ask(latency=chosen.latency) - before
                found[way].append((seconds, cpu_seconds))
                print(
                    f"{way}: {seconds:.2f} s, {cpu_seconds:.2f} s of CPU, {requests[way]} requests",
                    flush=True,
                )
        server.stdin.close()
    median = {
        way: [statistics.median(each) for each in zip(*rounds, strict=True)] for way, rounds in found.items()
    }
    in_ranges, in_order = median["in ranges"], median["page after page"]
    finish(
        "cpu.list_100000_parts_vs_page_after_page",
        in_order[0] / in_ranges[0],
        "ratio",
        f"page after page: {in_order[0]:.2f} s, {in_order[1]:.2f} s of CPU",
        packages=("assay", "obstore"),
        details={
            "seconds": round(in_ranges[0], 2),
            "cpu_seconds": round(in_ranges[1], 2),
            "latency_seconds": chosen.latency,
            "requests": requests,
            "rounds": {
                way: [[round(each, 2) for each in times] for times in rounds] for way, rounds in found.items()
            },
        },
        record=chosen.record,
        trial=chosen.tiny,
    )


if __name__ == "__main__":
    main()
