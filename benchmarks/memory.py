"""Peak memory of a scoring worker: flat in the size of the corpus, and modest with a real model.

Flatness: stored token ids (mean 32 a row), the fake engine, units of 6,250 rows (the default of the smaller), row
groups of 20,000, a corpus of 10^5 and one of 10^7 rows; the ratio of the two peaks. Real model: MiniLM on BBC News
text at 512 tokens, fp32, one worker with all cores. The peak is the worker process's own high-water mark of
resident memory, read from /proc while it lives.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from _record import finish, parser
from overhead import make_bundle

ROW_GROUP_ROWS = 20_000
MEAN_TOKENS = 32
FAKE = ("--input-ids-column", "input_ids", "--engine", "fake", "--unit-rows", "6250")


def write_ids(path: Path, num_rows: int) -> None:
    """Rows of stored token ids in row groups of 20,000."""
    generator = np.random.default_rng(0)
    schema = pa.schema([("id", pa.int64()), ("input_ids", pa.list_(pa.uint16()))])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, num_rows, ROW_GROUP_ROWS):
            count = min(ROW_GROUP_ROWS, num_rows - start)
            lengths = generator.integers(8, 2 * MEAN_TOKENS - 8, count)
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
            ids = pa.array(generator.integers(1000, 30000, offsets[-1]).astype(np.uint16))
            lists = pa.ListArray.from_arrays(pa.array(offsets), ids)
            columns = [pa.array(np.arange(start, start + count)), lists]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def peak_bytes(arguments: list[str]) -> int:
    """The largest high-water mark of any worker that `assay` starts while it runs the arguments."""
    command = [sys.executable, "-m", "assay", *arguments]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak = 0
    while driver.poll() is None:
        for child in psutil.Process(driver.pid).children(recursive=True):
            try:
                status = Path(f"/proc/{child.pid}/status").read_text()
            except OSError:
                continue
            marks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
            peak = max(peak, int(marks[0]) * 1024 if marks else 0)
        time.sleep(0.05)
    if driver.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {driver.stderr.read() if driver.stderr else ''}")
    return peak


def main() -> None:
    """Measure and print both claims."""
    flags = parser(__doc__)
    flags.add_argument("--small", type=int, default=100_000)
    flags.add_argument("--large", type=int, default=10_000_000)
    flags.add_argument("--documents", type=int, default=512, help="BBC News documents for the real model")
    arguments = flags.parse_args()
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        bundle = make_bundle(place / "bundle")
        for name, num_rows in (("small", arguments.small), ("large", arguments.large)):
            write_ids(place / f"{name}.parquet", num_rows)
            peaks[name] = peak_bytes(
                [
                    "score",
                    str(place / f"{name}.parquet"),
                    "--bundle",
                    str(bundle),
                    "--run",
                    str(place / name),
                    *FAKE,
                ]
            )
            print(
                f"{num_rows:>12,} rows of ids, fake engine: peak {peaks[name] / 2**20:,.0f} MiB", flush=True
            )
        minilm = peak_bytes(_real_run(place, arguments.documents))
        print(f"{arguments.documents:>12,} documents, MiniLM: peak {minilm / 2**30:.2f} GiB")
    ratio = peaks["large"] / peaks["small"]
    packages = ("assay", "pyarrow", "torch")
    baseline = f"{arguments.small} rows: {peaks['small'] / 2**20:.0f} MiB"
    finish(
        "memory.peak_1e7_rows_over_1e5_rows",
        ratio,
        "ratio",
        baseline,
        packages=packages,
        record=arguments.record,
    )
    finish(
        "memory.worker_gb_minilm_cpu", minilm / 1e9, "GB", "none", packages=packages, record=arguments.record
    )


def _real_run(place: Path, num_documents: int) -> list[str]:
    """Arguments of a run over BBC News with MiniLM and a head of random weights."""
    from score_vs_peers import make_bundle as make_minilm

    from assay.train.corpus import load_corpus

    texts = [row.text for row in load_corpus().rows[:num_documents]]
    pq.write_table(pa.table({"text": texts}), place / "bbc.parquet")
    bundle = make_minilm(place / "minilm")
    return ["score", str(place / "bbc.parquet"), "--bundle", str(bundle), "--run", str(place / "bbc")]


if __name__ == "__main__":
    main()
