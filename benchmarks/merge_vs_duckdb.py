"""Verify and merge against DuckDB's join on the id: speed and peak memory.

Sources: `--files` Parquet files of `--rows` rows in all, with a string id (`doc-` and 32 hexadecimal
digits), a text and two small columns, in row groups of 100,000 rows. The run's parts hold id,
num_tokens, truncated, error and prediction, published as workers publish them, but made without a
model. Ours proves the run whole and merges it, each id compared with that of its row. DuckDB joins
the same parts to the same sources on the id, with its default memory limit and settings, two
threads, insertion order preserved, and writes Parquet in one file (in which the rows come in another
order than in the sources: a join has none). Both end with their output synced. Each side runs in a
process of its own, which also imports what it needs; sides alternate, medians count.

On a slow disk both sides wait for it; `--scratch /dev/shm` measures the work alone.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from _record import finish, parser

from assay.data.finding import find_sources
from assay.data.sources import Columns
from assay.runs.manifest import new_manifest
from assay.runs.plan import plan_boundaries
from assay.runs.run import create_or_join
from assay.score.kind import SCORE, ScoreIdentity, ScoreRecord

ROW_GROUP_ROWS = 100_000
UNIT_ROWS = 500_000
WORDS = 4096
NUM_THREADS = 2

OURS = f"""
import sys
from assay.runs.verify import require, verify
from assay.score.merge.merge import merge
run, out = sys.argv[1:]
require(verify(run, num_threads={NUM_THREADS}))
merge(run, out, columns=["prediction"], num_threads={NUM_THREADS})
"""

DUCKDB = f"""
import sys
import os
import duckdb
sources, parts, out = sys.argv[1:]
duckdb.sql("SET threads = {NUM_THREADS}")
duckdb.sql("SET preserve_insertion_order = true")
duckdb.sql(f"COPY (SELECT s.*, p.prediction FROM read_parquet('{{sources}}') s "
           f"LEFT JOIN read_parquet('{{parts}}') p USING (id)) TO '{{out}}' (FORMAT parquet)")
os.fsync(os.open(out, os.O_RDONLY))
"""  # noqa: S608  the paths are the benchmark's own

MEASURE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run([sys.executable, "-c", *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL)
seconds = time.perf_counter() - start
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))
"""


def write_sources(folder: Path, num_rows: int, num_files: int) -> None:
    """Files of id, text (about 280 characters, no two alike), url and year."""
    rng = np.random.default_rng(0)
    words = np.array([rng.bytes(rng.integers(2, 10)).hex()[: rng.integers(2, 10)] for _ in range(WORDS)])
    sentences = pa.array([" ".join(rng.choice(words, 20)) for _ in range(20_000)])
    folder.mkdir(parents=True)
    for number in range(num_files):
        rows = num_rows * (number + 1) // num_files - num_rows * number // num_files
        left = rows
        writer = None
        while left or writer is None:
            count = min(left, ROW_GROUP_ROWS)
            text = rng.bytes(16 * count).hex()
            first, second = (sentences.take(pa.array(rng.integers(0, len(sentences), count))) for _ in "12")
            table = pa.table(
                {
                    "id": [f"doc-{text[32 * row : 32 * row + 32]}" for row in range(count)],
                    "text": pc.binary_join_element_wise(first, second, " "),
                    "url": [f"https://example.org/{text[32 * row : 32 * row + 12]}" for row in range(count)],
                    "year": pa.array(rng.integers(1990, 2026, count), pa.int16()),
                }
            )
            if writer is None:
                writer = pq.ParquetWriter(folder / f"corpus-{number:02}.parquet", table.schema)
            writer.write_table(table, row_group_size=max(count, 1))
            left -= count
        writer.close()


def write_run(url: Path, sources: Path) -> None:
    """A run whose parts are all published."""
    columns = Columns()
    found = find_sources([str(sources)], columns=columns)
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("num_tokens", pa.int32()),
            ("truncated", pa.bool_()),
            ("error", pa.string()),
            ("prediction", pa.float32()),
        ]
    )
    manifest = new_manifest(
        kind=SCORE,
        assay_version="benchmark",
        identity=ScoreIdentity(
            bundle="b",
            tokenizer="t",
            max_length=512,
            on_long="truncate",
            stride=0,
            precision="fp32",
            engine="fake",
        ),
        settings=ScoreRecord(bundle="b", task="regression", labels=("score",)),
        columns=columns,
        sources=found,
        boundaries=[plan_boundaries(source.num_rows, source.splits, UNIT_ROWS) for source in found],
        part_schema=schema,
    )
    run, _ = create_or_join(str(url), manifest)
    rng = np.random.default_rng(1)
    for index, source in enumerate(found):
        ids = pq.read_table(source.uri, columns=["id"]).column("id")
        for unit in manifest.units():
            if unit.source == index:
                batches = score_batches(ids.slice(unit.start, unit.num_rows), schema, rng)
                run.publish(unit, batches, rows_in=lambda unit=unit: unit.num_rows)


def score_batches(
    ids: pa.ChunkedArray, schema: pa.Schema, rng: np.random.Generator
) -> Iterator[pa.RecordBatch]:
    """Rows of a part with scores out of the air."""
    for chunk in ids.chunks:
        count = len(chunk)
        arrays = [
            chunk,
            pa.array(rng.integers(20, 512, count), pa.int32()),
            pa.array(np.zeros(count, bool)),
            pa.nulls(count, pa.string()),
            pa.array(rng.normal(3, 1, count).astype(np.float32)),
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def measure(code: str, *arguments: str) -> tuple[float, float]:
    """Seconds and peak MiB of a Python process that runs `code`."""
    os.sync()  # what was written before is nobody's burden
    command = [sys.executable, "-c", MEASURE, code, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds, mebibytes = json.loads(done.stdout)
    return seconds, mebibytes


def require_equal(merged: Path, joined: Path, num_rows: int) -> None:
    """Both results give each id the same score, to the bit."""
    ours, theirs = (
        pq.read_table(path, columns=["id", "prediction"]).sort_by("id") for path in (merged, joined)
    )
    if ours.num_rows != num_rows or not ours.equals(theirs.cast(ours.schema)):
        raise SystemExit("the two results differ")


def main() -> None:
    """Build the data, measure in turns, print."""
    flags = parser(__doc__)
    flags.add_argument("--rows", type=int, default=10_000_000)
    flags.add_argument("--files", type=int, default=10)
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--scratch", type=Path, help="folder for the data (default: the temporary folder)")
    arguments = flags.parse_args()

    with tempfile.TemporaryDirectory(dir=arguments.scratch, prefix="merge-benchmark-") as name:
        folder = Path(name)
        sources, run, merged, joined = (
            folder / part for part in ("sources", "run", "merged", "joined.parquet")
        )
        start = time.perf_counter()
        write_sources(sources, arguments.rows, arguments.files)
        write_run(run, sources)
        size = sum(path.stat().st_size for path in sources.iterdir())
        seconds = time.perf_counter() - start
        print(f"{arguments.rows:,} rows, {size / 2**30:.2f} GiB of sources, built in {seconds:.0f} s")
        ours: list[tuple[float, float]] = []
        theirs: list[tuple[float, float]] = []
        for _ in range(arguments.rounds):
            shutil.rmtree(merged, ignore_errors=True)
            joined.unlink(missing_ok=True)
            ours.append(measure(OURS, str(run), str(merged)))
            theirs.append(measure(DUCKDB, f"{sources}/*.parquet", f"{run}/parts/*.parquet", str(joined)))
            print(f"  ours {ours[-1][0]:7.2f} s {ours[-1][1]:7.0f} MiB   ", end="")
            print(f"DuckDB {theirs[-1][0]:7.2f} s {theirs[-1][1]:7.0f} MiB", flush=True)
        require_equal(merged, joined, arguments.rows)

    our_seconds, our_memory = (statistics.median(figures) for figures in zip(*ours, strict=True))
    their_seconds, their_memory = (statistics.median(figures) for figures in zip(*theirs, strict=True))
    print(f"{'':16}{'seconds':>9}{'rows/s':>13}{'peak MiB':>10}")
    print(f"{'verify + merge':16}{our_seconds:9.2f}{arguments.rows / our_seconds:13,.0f}{our_memory:10.0f}")
    print(
        f"{'DuckDB join':16}{their_seconds:9.2f}{arguments.rows / their_seconds:13,.0f}{their_memory:10.0f}"
    )
    packages = ("pyarrow", "duckdb")
    what = f"DuckDB join on a string id, {arguments.rows:,} rows, {NUM_THREADS} threads"
    finish(
        "merge.speed_vs_duckdb",
        their_seconds / our_seconds,
        "ratio",
        f"{what}: {arguments.rows / their_seconds:,.0f} rows/s",
        packages=packages,
        details={"rows_per_second": round(arguments.rows / our_seconds)},
        record=arguments.record,
    )
    finish(
        "merge.memory_vs_duckdb",
        our_memory / their_memory,
        "ratio",
        f"{what}: {their_memory:,.0f} MiB peak",
        packages=packages,
        details={"peak_mebibytes": round(our_memory)},
        record=arguments.record,
    )


if __name__ == "__main__":
    main()
