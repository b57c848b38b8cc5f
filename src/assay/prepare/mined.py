"""Negatives that a model takes for positives: candidates scored as a run of `assay score`, the likeliest kept.

books -> pairs run of candidates -> scoring run -> numbers of each book's likeliest candidates
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from assay.bundle.bundle import Bundle
from assay.prepare.pairs.kind import MinedIdentity
from assay.prepare.place import engine_place
from assay.prepare.settings import BooksSettings
from assay.runs.parts import open_part
from assay.runs.placement import Cluster
from assay.runs.run import PARTS, Run, open_run
from assay.score.bundles import open_pair_classifier
from assay.score.settings import ScoreSettings
from assay.score.verb import score
from assay.tasks import probability_column
from assay.telemetry import Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenCandidates:
    """The likeliest candidates of each book."""

    numbers: pa.ListArray
    """A list a book: which of its candidates, the most probable first; ties by number."""
    probabilities: pa.ListArray
    num_candidates: int
    num_unscored: int
    """Candidates that the model gave no probability; they are never kept."""


def open_miner(settings: BooksSettings) -> tuple[Bundle, MinedIdentity] | None:
    """The model that chooses negatives; None where none is asked for, BundleError where it cannot."""
    if settings.mine_with is None:
        return None
    bundle, label = open_pair_classifier(
        settings.mine_with, settings.mine_label, setting="mine_with", label_setting="mine_label"
    )
    return bundle, MinedIdentity(bundle=bundle.fingerprint, label=label, trials=settings.mine_trials)


def score_candidates(
    candidates: Run,
    url: str,
    *,
    bundle: str,
    devices: str,
    cluster: Cluster | None = None,
    on_progress: Callable[[Progress], None] | None,
    on_message: Callable[[str], None],
) -> Run:
    """The finished scoring run at `url` over the parts of a run of candidates; goes on where one stopped.

    Raises what `score` raises. A pair has the same bits whatever it is batched with, so that neither units nor
    workers change which candidates are kept.
    """
    asked = ScoreSettings(
        sources=(f"{candidates.url}/{PARTS}*.parquet",),
        bundle=bundle,
        run=url,
        text_column="text1",
        text_pair_column="text2",
        deterministic=True,
        **engine_place(devices, cluster),
    )
    return open_run(score(asked, cluster=cluster, on_progress=on_progress, on_message=on_message).run_url)


def likeliest(scores: Run, label: str, *, num_books: int, most: int) -> ChosenCandidates:
    """At most so many candidates of each book, those with the highest probability of `label`.

    A file of candidates holds whole books, in the order in which they were drawn; one file is held at a time.
    """
    column = probability_column(label)
    kept: list[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]] = []
    num_candidates = num_unscored = 0
    for source, units in itertools.groupby(scores.units, key=lambda unit: unit.source):
        rows = pq.read_table(scores.manifest.sources[source].uri, columns=["source_row"])
        books = rows.column("source_row").to_numpy()
        read = []
        for unit in units:
            with open_part(scores, unit) as part:
                read.append(part.read(columns=[column], use_threads=False).column(column).to_numpy())
        found = np.concatenate(read).astype(np.float32)
        num_candidates += len(found)
        num_unscored += int(np.isnan(found).sum())
        kept.append(best_of_each(books, found, most))
    nothing = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32))
    owners, numbers, probabilities = (np.concatenate(each) for each in zip(nothing, *kept, strict=True))
    order = np.argsort(owners, kind="stable")
    offsets = pa.array(np.searchsorted(owners[order], np.arange(num_books + 1)).astype(np.int32))
    return ChosenCandidates(
        numbers=pa.ListArray.from_arrays(offsets, pa.array(numbers[order])),
        probabilities=pa.ListArray.from_arrays(offsets, pa.array(probabilities[order])),
        num_candidates=num_candidates,
        num_unscored=num_unscored,
    )


def best_of_each(
    books: NDArray[np.int64], probabilities: NDArray[np.float32], most: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Books, numbers within their book and probabilities of the `most` likeliest of each; NaN is never among them.

    `books` ascend. For books [4, 4, 4, 7], probabilities [.1, .9, .5, .2] and 2: [4, 4, 7], [1, 2, 0], [.9, .5, .2].
    """
    numbers = np.arange(len(books)) - np.searchsorted(books, books)
    there = np.flatnonzero(~np.isnan(probabilities))
    order = there[np.lexsort((numbers[there], -probabilities[there], books[there]))]
    ranks = np.arange(len(order)) - np.searchsorted(books[order], books[order])
    chosen = order[ranks < most]
    return books[chosen], numbers[chosen].astype(np.int32), probabilities[chosen]
