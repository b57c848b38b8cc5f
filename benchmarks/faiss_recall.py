"""`assay mine --index faiss` against its exact search: the share of the nearest texts that the index finds.

Vectors: a finished embed run (`--vectors`) of at least 50,000 texts; below that the index is not approximate. Anchors
are texts of it, drawn at random and looked for as `assay mine` does, their own text left out. Recall at k is the mean
share of an anchor's k nearest that are among the k that the index gives. Times are those of both searches alone.
"""

import time

import numpy as np
import torch
from _record import finish, parser

from assay import machine
from assay.mine import search
from assay.mine.store import VectorStore, build_store
from assay.mine.vectors import open_vectors

DEPTHS = (1, 10, 50)


def neighbours(
    store: VectorStore, index: search.Index, anchors: np.ndarray, num_threads: int
) -> tuple[np.ndarray, float, float]:
    """The nearest rows of each anchor without itself, the seconds to build the search and those it took."""
    began = time.perf_counter()
    searcher = search.open_searcher(
        store, torch.device("cpu"), index=index, block_rows=None, num_threads=num_threads
    )
    built = time.perf_counter()
    found = searcher.nearest(store.vectors.take(anchors), None, max(DEPTHS) + 1).rows_BK
    ended = time.perf_counter()
    others = np.array(
        [
            [row for row in rows if row != own][: max(DEPTHS)]
            for rows, own in zip(found.tolist(), anchors.tolist(), strict=True)
        ]
    )
    return others, built - began, ended - built


def main() -> None:
    """Measure and print."""
    flags = parser(__doc__)
    flags.add_argument("--vectors", required=True, help="finished run of `assay embed`")
    flags.add_argument("--of", required=True, help="what the texts are, for the record")
    flags.add_argument("--anchors", type=int, default=1_000)
    arguments = flags.parse_args()

    store = build_store(open_vectors([arguments.vectors], "--vectors"))
    num_threads = machine.usable_cores()
    search.use_threads(num_threads)
    if store.num_rows < search.IVF_FROM:
        raise SystemExit(f"{store.num_rows:,} texts; the index is approximate from {search.IVF_FROM:,} on")
    anchors = np.random.default_rng(0).choice(store.num_rows, arguments.anchors, replace=False)
    exact, _, exact_seconds = neighbours(store, "exact", anchors, num_threads)
    found, build_seconds, faiss_seconds = neighbours(store, "faiss", anchors, num_threads)
    recall = {
        k: float(np.mean([len(set(a[:k]) & set(b[:k])) / k for a, b in zip(exact, found, strict=True)]))
        for k in DEPTHS
    }
    for k, value in recall.items():
        print(f"recall at {k:2d}: {value:.4f}")
    print(
        f"searched in {faiss_seconds:.2f} s after {build_seconds:.2f} s of building; exact {exact_seconds:.2f} s"
    )
    finish(
        "mine --index faiss: recall at 10",
        round(recall[10], 4),
        "share",
        f"exact search of the same {store.num_rows:,} vectors: 1",
        ceiling="1",
        packages=("faiss-cpu", "numpy", "torch"),
        details={
            "texts": arguments.of,
            "vectors": store.num_rows,
            "dimension": store.vectors.dimension,
            "anchors": arguments.anchors,
            **{f"recall_at_{k}": round(value, 4) for k, value in recall.items()},
            "seconds_exact": round(exact_seconds, 2),
            "seconds_faiss": round(faiss_seconds, 2),
            "seconds_to_build": round(build_seconds, 2),
        },
        record=arguments.record,
    )


if __name__ == "__main__":
    main()
