"""Resuming a run of many published parts: from the command to the first new part.

Publishes 10,000 parts of a run (two rows each) through `Run.publish`, then starts `assay score` on the same run
as a user would, fake engine, and waits for the first part that was not there. The time holds everything: the
interpreter's start, reading the plan, listing the parts, comparing the sources, starting a worker (which imports
torch), and the unit itself. Median of the rounds; each round resumes where the one before was stopped.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from _record import finish
from overhead import make_bundle

from assay.runs.placement import Placement
from assay.runs.run import Run, create_or_join
from assay.score.plan import plan_score
from assay.score.settings import ScoreSettings

UNIT_ROWS = 2
UNITS_LEFT = 20_000


def publish_fake(run: Run, num_parts: int) -> None:
    """Publish the first units of the run with made-up rows."""
    schema = run.manifest.arrow_schema()
    for unit in run.manifest.units()[:num_parts]:
        columns = {
            "source_row": pa.array(range(unit.start, unit.stop), pa.int64()),
            "num_tokens": pa.array([3] * unit.num_rows, pa.int32()),
            "truncated": pa.array([False] * unit.num_rows),
            "error": pa.nulls(unit.num_rows, pa.string()),
            "prediction": pa.array(["negative"] * unit.num_rows),
            "probability": pa.array([0.5] * unit.num_rows, pa.float32()),
            "prob_negative": pa.array([0.5] * unit.num_rows, pa.float32()),
            "prob_positive": pa.array([0.5] * unit.num_rows, pa.float32()),
        }
        batch = pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
        run.publish(unit, [batch])


def seconds_to_new_part(command: list[str], parts: Path) -> float:
    """From the start of the command to the first part that was not there; then stops it."""
    there = {path.name for path in parts.iterdir()}
    modified = parts.stat().st_mtime_ns
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        time.sleep(0.01)
        if process.poll() is not None:
            raise SystemExit(f"the run ended with status {process.returncode} before a new part was there")
        now = parts.stat().st_mtime_ns
        if now != modified:
            modified = now
            if any(path.name not in there for path in parts.iterdir()):
                break
    seconds = time.perf_counter() - began
    process.terminate()
    process.wait()
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="append the result to benchmarks/results.jsonl")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        bundle = make_bundle(place / "bundle")
        num_rows = UNIT_ROWS * (arguments.parts + UNITS_LEFT)
        pq.write_table(pa.table({"text": ["one two three"] * num_rows}), place / "corpus.parquet")
        settings = ScoreSettings(
            sources=(str(place / "corpus.parquet"),),
            bundle=str(bundle),
            run=str(place / "run"),
            engine="fake",
            unit_rows=UNIT_ROWS,
        )
        manifest, _ = plan_score(settings, Placement(kind="cpu", num_workers=1), "fp32")
        run, _ = create_or_join(settings.run, manifest)
        publish_fake(run, arguments.parts)
        command = [
            sys.executable,
            "-m",
            "assay.cli.main",
            "score",
            settings.sources[0],
            "--bundle",
            str(bundle),
        ]
        command += ["--run", settings.run, "--engine", "fake", "--unit-rows", str(UNIT_ROWS)]
        seconds = [seconds_to_new_part(command, place / "run" / "parts") for _ in range(arguments.rounds)]
    median = statistics.median(seconds)
    print(json.dumps({"seconds": seconds}))
    print(
        f"{arguments.parts:,} published parts: {median:.2f} s to the first new part (median of {arguments.rounds})"
    )
    packages = ("assay", "pyarrow", "torch")
    finish("resume.seconds_10000_parts", median, "s", "none", packages=packages, record=arguments.record)


if __name__ == "__main__":
    main()
