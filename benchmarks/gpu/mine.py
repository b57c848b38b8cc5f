"""`assay mine` over a million chunk vectors against `mine_hard_negatives` of sentence-transformers, both exact.

    python benchmarks/gpu/mine.py --record

Both get the same finished vectors (random clusters, 384 dimensions, float32) and the same anchors, each with one
positive, under a relative margin of 0.05, and must give the same triplets, which is checked first. Ours is the
whole command: interpreters started, vectors and texts read from Parquet, the corpus searched, parts written. Of
sentence-transformers only the call is timed, its vectors in memory already, through a model that looks them up; its
search is its own: products on the CPU, the best of each row on the GPU, 2,048 queries at once (its default of
16,384 takes 65 GB for each block of scores).

Memory is the peak of the largest process; ours is also measured over a tenth of the corpus with fewer anchors,
to show what grows with the corpus.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _runs import Command, assay
from _setup import chosen_device, environment, finish, parser

from assay.data.finding import find_sources
from assay.data.sources import SOURCE_ROW, Columns
from assay.mine.vectors import KIND
from assay.runs.kinds import RunKind, RunRecord
from assay.runs.manifest import new_manifest
from assay.runs.plan import plan_boundaries
from assay.runs.run import create_or_join, open_run, part_path

CLAIM = "h100.mine_1m_chunks_vs_sentence_transformers"
DIMENSION = 384
CHUNKS_OF_A_CLUSTER = 50
BATCH_ROWS = 65_536
UNIT_ROWS = 62_500
TEXT_CHARACTERS = 400
OPTIONS: dict[str, Any] = {"num_negatives": 3, "relative_margin": 0.05}
QUERIES_AT_ONCE = 2_048


class Identity(RunRecord):
    """What tells the vectors of one model from those of another."""

    bundle: str


class Nothing(RunRecord):
    """No further settings."""


EMBED = RunKind(name=KIND, identity=Identity, settings=Nothing)


def main() -> None:
    """Make the vectors, run both sides, compare, print."""
    flags = parser(__doc__)
    flags.add_argument("--chunks", type=int, default=1_000_000)
    flags.add_argument("--anchors", type=int, default=100_000)
    flags.add_argument("--flat-anchors", type=int, default=4_096, help="anchors of the two runs for memory")
    flags.add_argument("--baseline", type=Path, help=argparse.SUPPRESS)
    arguments = flags.parse_args()
    device = chosen_device(arguments)
    if arguments.baseline is not None:
        baseline(arguments.baseline, device.type)
        return
    if arguments.tiny:
        arguments.chunks, arguments.anchors, arguments.flat_anchors = 20_000, 600, 200
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_world(folder, arguments.chunks, arguments.anchors)
        few = arguments.chunks // 10
        write_world(folder / "few", few, arguments.flat_anchors)
        scratch = ("--scratch", folder)
        large = mine(folder, "flat", "--limit-rows", arguments.flat_anchors, *scratch)
        small = mine(folder / "few", "flat", *scratch)
        print(
            f"ours, {arguments.chunks:,} chunks, few anchors: {large.wall_seconds:.1f} s, {large.peak_gib:.2f} GiB"
        )
        print(
            f"ours, {few:,} chunks, few anchors: {small.wall_seconds:.1f} s, {small.peak_gib:.2f} GiB",
            flush=True,
        )
        ours = mine(folder, "mined", *scratch)
        print(ours.stdout.strip())
        print(f"ours: {ours.wall_seconds:.1f} s, peak {ours.peak_gib:.2f} GiB of host memory", flush=True)
        theirs = run_baseline(folder, arguments)
        print(
            f"sentence-transformers: {theirs['seconds']:.1f} s, peak {theirs['peak_gib']:.2f} GiB", flush=True
        )
        same = compare(folder)
        print(f"triplets that both give: {same:.4%}")
    finish(
        arguments,
        CLAIM,
        theirs["seconds"] / ours.wall_seconds,
        "times",
        f"mine_hard_negatives of sentence-transformers, exact: {theirs['seconds']:.1f} s for "
        f"{arguments.anchors:,} anchors of {arguments.chunks:,} chunks, peak {theirs['peak_gib']:.1f} GiB",
        details={
            "seconds": round(ours.wall_seconds, 2),
            "peak_host_gib": round(ours.peak_gib, 2),
            "peak_host_gib_few_anchors": round(large.peak_gib, 2),
            "peak_host_gib_tenth_of_the_chunks": round(small.peak_gib, 2),
            "baseline_peak_host_gib": round(theirs["peak_gib"], 2),
            "triplets_in_common": round(same, 6),
        },
    )


# ------------------------------------------------------------ what both are given


def write_world(folder: Path, num_chunks: int, num_anchors: int) -> None:
    """Chunks in clusters, anchors near one chunk each, their vectors as finished embed runs and as arrays."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    num_clusters = max(num_chunks // CHUNKS_OF_A_CLUSTER, 1)
    centres = random.standard_normal((num_clusters, DIMENSION), dtype=np.float32)
    chunks = np.lib.format.open_memmap(
        folder / "chunks.npy", mode="w+", dtype=np.float32, shape=(num_chunks, DIMENSION)
    )
    for start in range(0, num_chunks, BATCH_ROWS):
        stop = min(start + BATCH_ROWS, num_chunks)
        noise = random.standard_normal((stop - start, DIMENSION), dtype=np.float32)
        chunks[start:stop] = unit(centres[np.arange(start, stop) % num_clusters] + noise)
    positives = random.integers(0, num_chunks, num_anchors)
    noise = random.standard_normal((num_anchors, DIMENSION), dtype=np.float32)
    anchors = unit(chunks[positives] + 0.03 * noise)
    np.save(folder / "anchors.npy", anchors)
    np.save(folder / "positives.npy", positives)
    write_run(folder / "corpus", texts_of("chunk", num_chunks), chunks)
    write_run(folder / "queries", texts_of("anchor", num_anchors), anchors)
    pq.write_table(
        pa.table(
            {
                "anchor": texts_of("anchor", num_anchors),
                "positive": [text_of("chunk", number) for number in positives.tolist()],
            }
        ),
        folder / "pairs.parquet",
        row_group_size=BATCH_ROWS,
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    """The same of length one."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def text_of(kind: str, number: int) -> str:
    """A distinct text of the length of a short chunk."""
    return f"{kind} {number:09} ".ljust(TEXT_CHARACTERS, "x")


def texts_of(kind: str, count: int) -> list[str]:
    """So many of them."""
    return [text_of(kind, number) for number in range(count)]


def write_run(folder: Path, texts: list[str], vectors: np.ndarray) -> None:
    """A finished embed run of these texts in `folder`/run."""
    folder.mkdir()
    pq.write_table(pa.table({"text": texts}), folder / "texts.parquet", row_group_size=BATCH_ROWS)
    columns = Columns()
    sources = find_sources([str(folder / "texts.parquet")], columns=columns)
    schema = pa.schema(
        [
            pa.field(SOURCE_ROW, pa.int64(), nullable=False),
            ("num_tokens", pa.int32()),
            ("truncated", pa.bool_()),
            ("error", pa.string()),
            ("embedding", pa.list_(pa.float32(), DIMENSION)),
        ]
    )
    manifest = new_manifest(
        kind=EMBED,
        assay_version="benchmark",
        identity=Identity(bundle="random"),
        settings=Nothing(),
        columns=columns,
        sources=sources,
        boundaries=[plan_boundaries(len(texts), (0,), UNIT_ROWS)],
        part_schema=schema,
    )
    run, _ = create_or_join(str(folder / "run"), manifest)
    for each in manifest.units():
        rows = np.arange(each.start, each.stop)
        batch = pa.record_batch(
            [
                pa.array(rows),
                pa.array(np.full(len(rows), 100, dtype=np.int32)),
                pa.array(np.zeros(len(rows), dtype=bool)),
                pa.nulls(len(rows), pa.string()),
                pa.FixedSizeListArray.from_arrays(
                    pa.array(np.asarray(vectors[each.start : each.stop]).reshape(-1)), DIMENSION
                ),
            ],
            schema=schema,
        )
        run.publish(each, [batch], rows_in=lambda num_rows=each.num_rows: num_rows)


# ------------------------------------------------------------ both sides


def mine(folder: Path, name: str, *flags: object) -> Command:
    """`assay mine` over a world."""
    options = [word for key, value in OPTIONS.items() for word in (f"--{key.replace('_', '-')}", value)]
    return assay(
        "mine",
        folder / "pairs.parquet",
        "--corpus",
        folder / "corpus" / "run",
        "--anchors",
        folder / "queries" / "run",
        "--run",
        folder / name,
        *map(str, options),
        *map(str, flags),
    )


def run_baseline(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """The call of sentence-transformers in a process of its own: its seconds, and the peak of its memory."""
    words = [sys.executable, __file__, "--baseline", str(folder), "--device", arguments.device]
    words += ["--tiny"] if arguments.tiny else []
    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        stdout = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the baseline ended with status {process.returncode}")
    found: dict[str, float] = json.loads(stdout.splitlines()[-1])
    return {**found, "peak_gib": usage.ru_maxrss / 2**20}


class LookUp:
    """Stands for a SentenceTransformer: looks vectors up by the number in a text."""

    def __init__(self, folder: Path, device: str) -> None:
        """The vectors in memory."""
        self.device = device
        self._vectors = {kind: np.load(folder / f"{kind}s.npy") for kind in ("chunk", "anchor")}

    def encode(self, texts: list[str], **_: object) -> np.ndarray:
        """Their vectors."""
        kind = texts[0].split()[0]
        found: np.ndarray = self._vectors[kind][[int(text.split()[1]) for text in texts]]
        return found

    encode_document = encode_query = encode

    @staticmethod
    def similarity(one: Any, other: Any) -> Any:  # noqa: ANN401  as sentence-transformers has it
        """What a model's `similarity` is by default."""
        from sentence_transformers.util import cos_sim

        return cos_sim(one, other)

    @staticmethod
    def similarity_pairwise(one: Any, other: Any) -> Any:  # noqa: ANN401  as sentence-transformers has it
        """The same, pair by pair."""
        from sentence_transformers.util import pairwise_cos_sim

        return pairwise_cos_sim(one, other)


def baseline(folder: Path, device: str) -> None:
    """Time the call; prints its seconds as JSON and keeps its triplets."""
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    model = LookUp(folder, device)
    chunks = texts_of("chunk", len(np.load(folder / "chunks.npy", mmap_mode="r")))
    dataset = Dataset.from_dict(pq.read_table(folder / "pairs.parquet").to_pydict())
    began = time.perf_counter()
    found = mine_hard_negatives(
        dataset,
        model,
        corpus=chunks,
        use_faiss=False,
        faiss_batch_size=QUERIES_AT_ONCE,
        verbose=False,
        **OPTIONS,
    )
    seconds = time.perf_counter() - began
    np.save(folder / "theirs.npy", triplet_numbers(found["anchor"], found["positive"], found["negative"]))
    print(json.dumps({"seconds": seconds}))


def triplet_numbers(*columns: Any) -> np.ndarray:  # noqa: ANN401  any columns of texts
    """The numbers in the texts of triplets, a row each, sorted."""
    numbers = np.array([[int(text.split()[1]) for text in column] for column in columns], dtype=np.int64)
    return np.unique(numbers.T, axis=0)


def compare(folder: Path) -> float:
    """The share of triplets that both give, of all that one gives; exits below 99.9% (near ties may differ)."""
    run = open_run(str(folder / "mined"))
    tables = [
        pq.read_table(f"{run.url}/{part_path(each)}", columns=["anchor", "positive", "negative"])
        for each in run.manifest.units()
    ]
    table = pa.concat_tables(tables).drop_null()
    ours = triplet_numbers(*(table.column(name).to_pylist() for name in table.column_names))
    theirs = np.load(folder / "theirs.npy")
    _, counts = np.unique(np.concatenate([ours, theirs]), axis=0, return_counts=True)
    share = float((counts == 2).mean())
    if share < 0.999:
        raise SystemExit(f"only {share:.2%} of the triplets are the same; nothing is compared")
    return share


if __name__ == "__main__":
    main()
