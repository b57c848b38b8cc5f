"""`assay estimate` against the run that it was made for: how far off it was, and whether its interval held.

Three commands, as a user would give them, one after the other: `assay estimate --run RUN` scores a sample and puts the
estimate beside the run, `assay score --run RUN` scores everything, and the report compares. The value is the larger of
two relative errors: of the working time (from the first part begun to the last one finished), and of the whole time of
the `score` command, start and model included, against the estimated wall time. Nothing is recorded of a run that took
less than ten minutes.

Corpus: 20 Newsgroups posts in file order, so that lengths differ by group, at their natural lengths up to 512 tokens,
in four Parquet files, as `score_vs_peers.py` fetches them; model: its MiniLM-L6 with a head of random weights. On a
GPU give a corpus and a bundle that take ten minutes.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from _record import finish, parser
from score_vs_peers import make_bundle, read_corpus

from assay.data.storage import open_store
from assay.score.estimate.record import read_estimate
from assay.score.report.report import report

LEAST_SECONDS = 600.0
NUM_FILES = 4


def write_corpus(folder: Path, num_documents: int) -> str:
    """Four Parquet files of posts in their order; returns their glob."""
    texts = read_corpus(num_documents, folder)
    for number in range(NUM_FILES):
        own = texts[len(texts) * number // NUM_FILES : len(texts) * (number + 1) // NUM_FILES]
        ids = [f"{number}-{row}" for row in range(len(own))]
        pq.write_table(
            pa.table({"id": ids, "text": own}), folder / f"posts-{number}.parquet", row_group_size=500
        )
    return str(folder / "posts-*.parquet")


def assay(*words: str) -> float:
    """Seconds of a command."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "assay", *words], check=True)
    return time.perf_counter() - began


def main() -> None:
    """Estimate, run, compare, print, record."""
    flags = parser(__doc__, smoke="300 documents cut at 64 tokens")
    flags.add_argument("--documents", type=int, default=11_000, help="posts of the corpus [11,000]")
    flags.add_argument("--max-length", type=int, default=512, help="tokens of a document at most [512]")
    flags.add_argument("--sources", help="another corpus: files, a folder or a glob")
    flags.add_argument("--bundle", help="another classifier, for another corpus")
    flags.add_argument("--seed", type=int, default=0, help="of the sample [0]")
    chosen = flags.parse_args()
    documents, max_length = (300, 64) if chosen.tiny else (chosen.documents, chosen.max_length)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = chosen.sources or write_corpus(folder, documents)
        bundle = chosen.bundle or str(make_bundle(folder / "bundle"))
        run = str(folder / "run")
        common = (sources, "--bundle", bundle, "--run", run, "--max-length", str(max_length))
        estimating = assay("estimate", *common, "--seed", str(chosen.seed))
        whole = assay("score", *common)
        record = read_estimate(open_store(run))
        assert record is not None
        compared = report(run).estimates
        parts = {each.name: each for each in compared}
        working = parts["time from first to last part"]
        wall = record.wall_seconds
        print(
            f"whole command {whole:.1f} s, estimated {wall.value:.1f} s ({wall.low:.1f} to {wall.high:.1f})"
        )
        for each in compared:
            print(
                f"{each.name}: estimated {each.error:+.1%} off, {'inside' if each.is_inside else 'OUTSIDE'}"
            )
        details = {
            "documents": record.num_documents,
            "tokens": parts["tokens"].measured,
            "run_seconds": round(whole, 1),
            "estimate_seconds": round(estimating, 1),
            "documents_scored_for_it": sum(each.num_rows for each in record.slices if each.worker),
            "whole_command": {
                "estimated": [round(wall.low, 1), round(wall.value, 1), round(wall.high, 1)],
                "error": round(wall.value / whole - 1, 4),
                "inside": wall.low <= whole <= wall.high,
            },
            **{
                each.name: {
                    "measured": float(f"{each.measured:.5g}"),
                    "estimated": [
                        float(f"{value:.5g}")
                        for value in (each.estimated.low, each.estimated.value, each.estimated.high)
                    ],
                    "error": round(each.error, 4),
                    "inside": each.is_inside,
                }
                for each in compared
            },
        }
    is_short = whole < LEAST_SECONDS
    if chosen.record and is_short:
        print(f"not recorded: the run took {whole:.0f} s, less than {LEAST_SECONDS:.0f}; give more documents")
    finish(
        "estimate.relative_error",
        max(abs(working.error), abs(wall.value / whole - 1)),
        "share",
        "what the run itself took = 0",
        packages=("assay", "torch"),
        details=details,
        record=chosen.record and not is_short,
        trial=chosen.tiny,
    )


if __name__ == "__main__":
    main()
