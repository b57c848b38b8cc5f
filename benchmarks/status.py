"""`assay status` on a run of 100,000 parts on disk with 1,000 heartbeats: from the command to its line.

The newest 1,000 parts, whose footers `status` reads, are published through `Run.publish`; the others are copies of one
of them under their own names, which it only lists. Median of the rounds; the real command in a process of its own.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from _record import finish, parser
from overhead import make_bundle

from assay.data.storage import LocalStore
from assay.runs.notes import Heartbeat, Notes
from assay.runs.placement import place_workers
from assay.runs.run import Run, create_or_join, part_path
from assay.score.plan import plan_score
from assay.score.settings import ScoreSettings

UNIT_ROWS = 2
REAL_PARTS = 1_000


def make_run(folder: Path, num_units: int) -> Run:
    """A run of so many units of two rows."""
    rows = pa.table(
        {"id": pa.array(range(num_units * UNIT_ROWS)), "text": ["a short text"] * (num_units * UNIT_ROWS)}
    )
    pq.write_table(rows, folder / "corpus.parquet", row_group_size=UNIT_ROWS * 100)
    make_bundle(folder / "bundle")
    settings = ScoreSettings(
        sources=(str(folder / "corpus.parquet"),),
        bundle=str(folder / "bundle"),
        run=str(folder / "run"),
        engine="fake",
        unit_rows=UNIT_ROWS,
    )
    manifest, _ = plan_score(settings, place_workers("1", num_gpus=0), "fp32")
    return create_or_join(settings.run, manifest)[0]


def main() -> None:
    """Make the run, time the command, print, record."""
    arguments = parser(__doc__, smoke="2,000 parts")
    arguments.add_argument("--rounds", type=int, default=3, help="times that the command is run [3]")
    chosen = arguments.parse_args()
    num_units, num_drivers = (2_000, 20) if chosen.tiny else (100_000, 1_000)
    with tempfile.TemporaryDirectory() as name:
        run = make_run(Path(name), num_units)
        schema = run.manifest.arrow_schema()
        units = run.manifest.units()
        template = None
        for unit in reversed(units):  # the last ones are the newest, and are real
            path = Path(run.url) / part_path(unit)
            if template is None or unit in units[-REAL_PARTS:]:
                batch = pa.RecordBatch.from_arrays(
                    [
                        pa.array(range(unit.start, unit.stop)).cast(field.type)
                        if number == 0
                        else pa.nulls(unit.num_rows, field.type)
                        if field.nullable
                        else pa.array([False] * unit.num_rows).cast(field.type)
                        for number, field in enumerate(schema)
                    ],
                    schema=schema,
                )
                run.publish(unit, [batch], rows_in=lambda rows=unit.num_rows: rows)
                template = path
            else:
                shutil.copyfile(template, path)
        now = time.time()
        for unit in units[:-REAL_PARTS]:
            os.utime(Path(run.url) / part_path(unit), (now - 5_000, now - 5_000))
        beat = Heartbeat(
            id="x",
            host="h",
            rank=0,
            world_size=num_drivers,
            num_workers=1,
            assay_version="0",
            started_at=now,
            beat_at=now,
        )
        for number in range(num_drivers):
            Notes(LocalStore(run.url), replace(beat, id=f"d{number}", rank=number), clock=time.time).beat()
        seconds = []
        for _ in range(chosen.rounds):
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "assay", "status", run.url],
                capture_output=True,
                encoding="utf-8",
                check=True,
            )
            seconds.append(time.perf_counter() - began)
            print(done.stdout.strip(), f"{seconds[-1]:.2f} s", flush=True)
    finish(
        "cpu.status_seconds_100000_parts",
        statistics.median(seconds),
        "s",
        "none",
        packages=("assay", "pyarrow"),
        details={
            "rounds": [round(each, 2) for each in seconds],
            "parts": num_units,
            "heartbeats": num_drivers,
        },
        record=chosen.record,
        trial=chosen.tiny,
    )


if __name__ == "__main__":
    main()
