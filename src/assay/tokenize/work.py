"""How a unit of text becomes a token part."""

import os
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from assay.data.ahead import ahead
from assay.data.reading import RowReader
from assay.data.rows import SourceRows
from assay.runs.manifest import Manifest
from assay.runs.pipeline import strict_error
from assay.runs.plan import Unit
from assay.telemetry import Counters
from assay.tokenize.encode import Encoder
from assay.tokenize.kind import TOKENIZE
from assay.tokenize.plan import SECOND_START
from assay.tokenize.tokens import Tokens

BATCH_ROWS = 1_024


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenChunk:
    """Some rows and their token ids."""

    rows: SourceRows
    tokens: Tokens


class TokenizeWork:
    """Tokenizes units: `prepare` reads and encodes on all cores, `finish` builds the part's columns.

    No device computes anything in between.
    """

    def __init__(self, manifest: Manifest, encoder: Encoder) -> None:
        """Work for the run of `manifest`."""
        self.counters = Counters()
        self._manifest = manifest
        _, settings = manifest.read(TOKENIZE)
        self._strict = settings.strict
        self._encoder = encoder
        self._schema = manifest.arrow_schema()
        self._columns = manifest.source_columns()
        self._reader = RowReader(self._columns)
        self._worker = f"{socket.gethostname()}-{os.getpid()}-cpu"
        self._stats: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    def load(self) -> str:
        """Nothing is left to load; returns a line that describes the tokenizer."""
        return f"tokenizer {self._encoder.fingerprint}, ids {self._encoder.id_type}"

    def prepare(self, unit: Unit) -> Iterator[TokenChunk]:
        """The unit's rows and their token ids, in order."""
        source = self._manifest.source(unit.source)
        batches = self._reader.read(source, unit.start, unit.stop, batch_rows=BATCH_ROWS)
        return ahead(self._encode, batches)

    def _encode(self, rows: SourceRows) -> TokenChunk:
        return TokenChunk(rows=rows, tokens=self._encoder.encode(rows.texts, rows.text_pairs))

    def compute(self, chunk: TokenChunk) -> TokenChunk:
        """The chunk as it is."""
        return chunk

    def finish(self, unit: Unit, computed: Iterator[TokenChunk]) -> Iterator[pa.RecordBatch]:
        """The rows of the unit's token part, in source order."""
        self._stats.clear()
        self._errors.clear()
        for chunk in computed:
            errors = {**chunk.tokens.errors, **chunk.rows.errors}
            if errors and self._strict:
                row, code = min(errors.items())
                raise strict_error(f"row {chunk.rows.start + row} of source {unit.source_name}", code)
            self._count(chunk, errors)
            yield self._batch(chunk, errors)

    @property
    def rows_in(self) -> int:
        """Rows of the unit just finished that were read."""
        return self._stats["num_rows"]

    def stats(self) -> dict[str, Any]:
        """Figures of the unit just finished, for the part's footer."""
        return {**self._stats, "errors": dict(self._errors), "worker": self._worker}

    def _batch(self, chunk: TokenChunk, errors: dict[int, str]) -> pa.RecordBatch:
        rows, tokens = chunk.rows, chunk.tokens
        ids = rows.ids
        if ids is None:
            ids = pa.array(np.arange(rows.start, rows.start + rows.num_rows, dtype=np.int64))
        field = self._schema.field("input_ids").type.value_field
        columns = {
            self._schema.names[0]: ids,
            "input_ids": pa.ListArray.from_arrays(
                pa.array(tokens.offsets.astype(np.int32)), pa.array(tokens.flat_ids), type=pa.list_(field)
            ),
            "truncated": pa.array(tokens.truncated),
            "error": pa.array([errors.get(row) for row in range(rows.num_rows)], pa.string())
            if errors
            else pa.nulls(rows.num_rows, pa.string()),
        }
        if SECOND_START in self._schema.names:
            starts = tokens.second_starts
            columns[SECOND_START] = pa.array(
                np.zeros(rows.num_rows, dtype=np.int32) if starts is None else starts
            )
        return pa.RecordBatch.from_arrays([columns[name] for name in self._schema.names], schema=self._schema)

    def _count(self, chunk: TokenChunk, errors: dict[int, str]) -> None:
        num_tokens = len(chunk.tokens.flat_ids)
        self._stats["num_rows"] += chunk.rows.num_rows
        self._stats["num_tokens"] += num_tokens
        self._stats["truncated_rows"] += int(chunk.tokens.truncated.sum())
        self._stats["error_rows"] += len(errors)
        self._errors.update(errors.values())
        self.counters.rows += chunk.rows.num_rows
        self.counters.tokens += num_tokens
        self.counters.padded_tokens += num_tokens
        self.counters.error_rows += len(errors)
