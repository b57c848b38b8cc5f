"""The documents that `assay bench` measures: rows from all over the sources, as what the engine gets."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from assay.data.reading import read_rows
from assay.data.rows import SourceRows
from assay.data.sources import Source
from assay.engine.sequences import Sequences
from assay.errors import InputError
from assay.runs.manifest import Manifest
from assay.score.scorer import Scorer
from assay.tokenize.chunks import EncodedChunk, join, to_chunk
from assay.tokenize.encode import Encoder

SLICES = 8
"""Places of the sources that the sample is taken from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The documents that are measured."""

    num_rows: int
    """Rows that were read."""
    num_documents: int
    """Of these, rows that can be scored."""
    sequences: Sequences
    """What the engine gets: a document each, or its windows."""
    num_tokens_longest: int
    truncated_share: float
    """Share of the documents that the policy for long ones cut."""
    tokenize_seconds: float | None
    """Time that turning text into ids took, on all cores; None for ids that were stored."""


def take_sample(manifest: Manifest, scorer: Scorer, encoder: Encoder, *, num_documents: int) -> Sample:
    """About `num_documents` rows from eight places of the sources, as what the engine gets.

    Raises InputError where none of them can be scored.
    """
    sources = [manifest.source(index) for index in range(len(manifest.sources))]
    batches: list[SourceRows] = []
    for source, start, stop in spread(sources, num_documents):
        batches += read_rows(source, manifest.source_columns(), start, stop)
    encoder.encode(pa.array(["a"]), None)  # the first call of a process imports what later ones have
    began = time.perf_counter()
    held: list[EncodedChunk] = [
        to_chunk(rows, encoder, max_tokens=scorer.forwarder.max_tokens) for rows in batches
    ]
    seconds = time.perf_counter() - began
    num_rows = sum(rows.num_rows for rows in batches)
    if not held or not any(len(chunk.tokens.flat_ids) for chunk in held):
        msg = (
            f"none of the {num_rows:,} rows sampled can be scored; give sources that hold text, "
            "or name its column with --text-column"
        )
        raise InputError(msg)
    chunk = join(held)
    expanded = scorer.forwarder.views.expand(chunk.tokens.rows)
    sequences, rows_of = expanded.sequences, expanded.row_S
    stored = batches[0].input_ids is not None
    usable = len(np.unique(rows_of))
    return Sample(
        num_rows=num_rows,
        num_documents=usable,
        sequences=sequences,
        num_tokens_longest=int(chunk.tokens.num_tokens.max()),
        truncated_share=float(chunk.tokens.truncated.sum()) / usable,
        tokenize_seconds=None if stored else seconds,
    )


def spread(sources: Sequence[Source], num_documents: int) -> list[tuple[Source, int, int]]:
    """Ranges of rows, `num_documents` in all or every row there is, evenly over the sources in order."""
    bounds = np.concatenate([[0], np.cumsum([source.num_rows for source in sources], dtype=np.int64)])
    total = int(bounds[-1])
    wanted = min(num_documents, total)
    slices = min(SLICES, wanted)
    found = []
    for index in range(slices):
        # What is taken and what is passed over are both shared out, so that slices never overlap.
        taken = wanted * index // slices
        begin = taken + (total - wanted) * index // slices
        size = wanted * (index + 1) // slices - taken
        for source, first, last in zip(sources, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            start, stop = max(begin, first), min(begin + size, last)
            if start < stop:
                found.append((source, start - first, stop - first))
    return found


def first_sequences(sequences: Sequences, count: int | None) -> Sequences:
    """The first `count` of the sequences, without a copy; all of them for None."""
    if count is None or count >= sequences.num_sequences:
        return sequences
    seconds = sequences.second_starts
    return Sequences(
        flat_ids=sequences.flat_ids,
        offsets=sequences.offsets[: count + 1],
        second_starts=None if seconds is None else seconds[:count],
    )
