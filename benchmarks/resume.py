"""Resuming a run of many published parts: from the command to the first new work, and to the first new part.

Publishes 10,000 parts of a run (two rows each) through `Run.publish`, then starts `assay score` on the same run
as a user would, fake engine, and measures two times from the start of that command:

- to the first new work, the value: a worker has a unit that is not published in hand, read and tokenized. This
  holds the interpreters' starts, reading the plan, listing the parts, comparing the sources and starting a
  worker. The worker imports torch and loads its engine beside and after this, so that time is not in it;
- to the first new part, in the details: the first file in `parts/` that was not there. This holds everything.

The command and its worker are the real ones; a `sitecustomize.py` on PYTHONPATH, written by this benchmark, has the
worker note the time at which `EngineWork.prepare` gives its first chunk. Python caches bytecode, as it does unless told
otherwise; a round that is not counted fills that cache. Median of the rounds; each round resumes where the one before
was stopped.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from _record import finish, parser
from overhead import make_bundle

from assay.runs.placement import place_workers
from assay.runs.run import Run, create_or_join
from assay.score.plan import plan_score
from assay.score.settings import ScoreSettings

UNIT_ROWS = 2
UNITS_LEFT = 20_000
PROBE = """
import os, sys, time

if "assay.score.worker" in sys.orig_argv:
    from assay.embed.engine_work import EngineWork

    prepare = EngineWork.prepare

    def prepare_and_note(self, unit):
        for chunk in prepare(self, unit):
            now = time.monotonic()
            if not os.path.exists(os.environ["FIRST_CHUNK"]):
                with open(os.environ["FIRST_CHUNK"] + ".new", "w") as file:
                    file.write(f"{now} {unit.name} {chunk.num_rows}")
                os.rename(file.name, os.environ["FIRST_CHUNK"])
            yield chunk

    EngineWork.prepare = prepare_and_note
"""
"""Python runs this at the start of each process that has its folder on PYTHONPATH; it acts in the worker alone."""


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
        run.publish(unit, [batch], rows_in=lambda unit=unit: unit.num_rows)


def seconds_to_resume(command: list[str], parts: Path, probe: Path) -> tuple[float, float]:
    """From the start of the command to the first chunk prepared and to the first new part; then stops it."""
    there = {path.name for path in parts.iterdir()}
    modified = parts.stat().st_mtime_ns
    first_chunk = probe / "first-chunk"
    first_chunk.unlink(missing_ok=True)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "PYTHONPYCACHEPREFIX": str(probe / "bytecode"),
        "PYTHONPATH": str(probe),
        "FIRST_CHUNK": str(first_chunk),
    }
    began = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        time.sleep(0.01)
        if process.poll() is not None:
            raise SystemExit(f"the run ended with status {process.returncode} before a new part was there")
        now = parts.stat().st_mtime_ns
        if now != modified:
            modified = now
            if any(path.name not in there for path in parts.iterdir()):
                break
    to_part = time.monotonic() - began
    process.terminate()
    process.wait()
    prepared_at, unit, num_rows = first_chunk.read_text().split()
    if f"{unit}.parquet" in there or int(num_rows) != UNIT_ROWS:
        raise SystemExit(f"the first unit prepared, {unit} of {num_rows} rows, is not new work")
    return float(prepared_at) - began, to_part


def main() -> None:
    """Measure and print."""
    flags = parser(__doc__)
    flags.add_argument("--parts", type=int, default=10_000)
    flags.add_argument("--rounds", type=int, default=5)
    arguments = flags.parse_args()
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
        manifest, _ = plan_score(settings, place_workers("1", num_gpus=0), "fp32")
        run, _ = create_or_join(settings.run, manifest)
        publish_fake(run, arguments.parts)
        command = [
            sys.executable,
            "-m",
            "assay",
            "score",
            settings.sources[0],
            "--bundle",
            str(bundle),
        ]
        command += ["--run", settings.run, "--engine", "fake", "--unit-rows", str(UNIT_ROWS)]
        probe = place / "probe"
        probe.mkdir()
        (probe / "sitecustomize.py").write_text(PROBE)
        parts = place / "run" / "parts"
        _, *rounds = [seconds_to_resume(command, parts, probe) for _ in range(arguments.rounds + 1)]
    to_work, to_part = zip(*rounds, strict=True)
    median, median_to_part = statistics.median(to_work), statistics.median(to_part)
    print(json.dumps({"seconds_to_first_new_work": to_work, "seconds_to_first_new_part": to_part}))
    print(
        f"{arguments.parts:,} published parts: {median:.2f} s to the first new work, {median_to_part:.2f} s to the "
        f"first new part (medians of {arguments.rounds})"
    )
    finish(
        "resume.seconds_10000_parts",
        median,
        "s",
        "none",
        packages=("assay", "pyarrow", "torch"),
        details={"seconds_to_first_new_part": median_to_part},
        record=arguments.record,
    )


if __name__ == "__main__":
    main()
