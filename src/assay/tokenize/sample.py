"""A sample of a run's corpus as its engine gets it, texts beside token ids: what parity gates compare on."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from assay.data.reading import RowReader
from assay.data.rows import SourceRows
from assay.engine.sequences import Sequences
from assay.runs.manifest import Manifest
from assay.runs.plan import Unit
from assay.tokenize.chunks import chunks, max_row_tokens, read_unit
from assay.tokenize.encode import Encoder

SAMPLED_UNITS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ParitySample:
    """Documents of the corpus."""

    sequences: Sequences
    """Their token ids, as the engine gets them."""
    texts: list[str]
    """Their texts; empty where the source holds token ids."""
    text_pairs: list[str] | None
    """Their second texts."""


def take_sample(
    manifest: Manifest, encoder: Encoder, num_documents: int, *, apart: bool = False
) -> ParitySample:
    """The first rows of some units spread over the corpus, about `num_documents` in all.

    With `apart` the two texts of a pair are sequences of their own, all first ones of a batch before the second.
    Reads with a reader of its own: the run's is at work on the first unit meanwhile.
    """
    units = [unit for unit in manifest.units() if unit.num_rows]
    picked = (
        [units[k] for k in sorted({round(k) for k in np.linspace(0, len(units) - 1, SAMPLED_UNITS)})]
        if units
        else []
    )
    each = -(-num_documents // max(len(picked), 1))
    flat, lengths, starts = [], [], []
    texts: list[str] = []
    pairs: list[str] = []
    with RowReader(manifest.source_columns()) as reader:
        for unit in picked:
            stop = min(unit.stop, unit.start + each)
            head = Unit(source=unit.source, source_name=unit.source_name, start=unit.start, stop=stop)
            rows = list(read_unit(manifest, reader, head))
            for batch in rows:
                lefts, rights = usable_texts(batch)
                texts += lefts
                pairs += rights
            for chunk in chunks(
                map(_apart, rows) if apart else rows, encoder, max_tokens=max_row_tokens(encoder)
            ):
                sequences = encoder.views.expand(chunk.tokens.rows).sequences
                flat.append(sequences.flat_ids)
                lengths.append(np.diff(sequences.offsets))
                second = sequences.second_starts
                starts.append(np.zeros(sequences.num_sequences, dtype=np.int32) if second is None else second)
    if not flat:
        none = Sequences(flat_ids=np.empty(0, dtype=np.int32), offsets=np.zeros(1, dtype=np.int64))
        return ParitySample(sequences=none, texts=[], text_pairs=None)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    second_starts = np.concatenate(starts)
    sequences = Sequences(
        flat_ids=np.concatenate(flat),
        offsets=offsets,
        second_starts=second_starts if second_starts.any() else None,
    )
    return ParitySample(sequences=sequences, texts=texts, text_pairs=pairs or None)


def _apart(rows: SourceRows) -> SourceRows:
    """Both texts of each usable pair as a row of its own."""
    first, second = usable_texts(rows)
    texts = pa.array([*first, *second], pa.large_string())
    return SourceRows(start=rows.start, num_rows=len(texts), texts=texts)


def usable_texts(rows: SourceRows) -> tuple[list[str], list[str]]:
    """The texts of rows without errors, and their second texts; both empty for stored ids."""
    if rows.texts is None:
        return [], []
    first = rows.texts.to_pylist()
    if rows.text_pairs is None:
        return [text for text in first if text is not None], []
    both = [pair for pair in zip(first, rows.text_pairs.to_pylist(), strict=True) if None not in pair]
    return [left for left, _ in both], [right for _, right in both]
