"""How a unit becomes a part: rows -> chunks of token ids -> scores -> rows of the part.

`prepare` reads and tokenizes, ahead of the device; `finish` runs the engine and decides.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from assay.data.rows import RowReader
from assay.engine.sequences import Stopped
from assay.errors import InputError
from assay.runs.manifest import Manifest
from assay.runs.plan import Unit
from assay.runs.worker import StopRequestedError
from assay.score.chunks import CHUNK_ROWS, Chunk, chunks
from assay.score.scorer import Scored, Scorer
from assay.telemetry import Counters
from assay.tokenize.encode import Encoder

TEXT_BATCH_ROWS = 2_048
EXAMPLES_PER_ERROR = 5


class ScoreWork:
    """Scores the units of a run. `prepare` and `finish` may run in two threads."""

    def __init__(self, manifest: Manifest, scorer: Scorer, encoder: Encoder, *, worker: str = "") -> None:
        """Work for the run of `manifest`; `worker` names this process in the parts' footers."""
        self.counters = Counters()
        self._manifest = manifest
        self._scorer = scorer
        self._encoder = encoder
        self._worker = worker
        self._schema = manifest.arrow_schema()
        columns = manifest.source_columns()
        self._batch_rows = CHUNK_ROWS if columns.input_ids else TEXT_BATCH_ROWS
        self._reader = RowReader(columns)
        self._stats: Counter[str] = Counter()
        self._errors: dict[str, dict[str, Any]] = {}

    def prepare(self, unit: Unit) -> Iterator[Chunk]:
        """The unit's rows as token ids, in order, a chunk at a time."""
        source = self._manifest.source(unit.source)
        rows = self._reader.read(source, unit.start, unit.stop, batch_rows=self._batch_rows)
        return chunks(rows, self._encoder, max_tokens=self._scorer.max_tokens)

    def finish(self, unit: Unit, prepared: Iterator[Chunk]) -> Iterator[pa.RecordBatch]:
        """The rows of the unit's part, in source order."""
        self._stats.clear()
        self._errors = {}
        for chunk in prepared:
            try:
                scored = self._scorer.score(chunk)
            except Stopped:
                raise StopRequestedError from None
            if scored.errors and self._manifest.settings["strict"]:
                _refuse(unit, chunk, scored.errors)
            self._count(chunk, scored)
            columns = {self._schema.names[0]: chunk.ids, **scored.columns}
            yield pa.RecordBatch.from_arrays(
                [columns[name] for name in self._schema.names], schema=self._schema
            )

    def stats(self) -> dict[str, Any]:
        """Figures of the unit just finished, for the part's footer."""
        return {**self._stats, "errors": self._errors, "worker": self._worker}

    def _count(self, chunk: Chunk, scored: Scored) -> None:
        cost = scored.stats
        self._stats["num_rows"] += chunk.num_rows
        self._stats["num_tokens"] += int(chunk.tokens.offsets[-1] - chunk.tokens.offsets[0])
        self._stats["forward_tokens"] += cost.num_forward_tokens
        self._stats["padded_tokens"] += cost.num_padded_tokens
        self._stats["duplicate_rows"] += cost.num_duplicates
        self._stats["truncated_rows"] += int(chunk.tokens.truncated.sum())
        self._stats["error_rows"] += len(scored.errors)
        self._stats["device_milliseconds"] += round(cost.forward_seconds * 1000)
        for row, code in scored.errors.items():
            entry = self._errors.setdefault(code, {"count": 0, "examples": []})
            entry["count"] += 1
            if len(entry["examples"]) < EXAMPLES_PER_ERROR:
                entry["examples"].append(str(chunk.ids[row].as_py()))
        self.counters.rows += chunk.num_rows
        self.counters.tokens += cost.num_forward_tokens
        self.counters.padded_tokens += cost.num_forward_tokens + cost.num_padded_tokens
        self.counters.error_rows += len(scored.errors)
        self.counters.duplicate_rows += cost.num_duplicates
        self.counters.device_seconds += cost.forward_seconds


def _refuse(unit: Unit, chunk: Chunk, errors: dict[int, str]) -> None:
    row, code = min(errors.items())
    msg = (
        f"row {chunk.start + row} of source {unit.source_name} is bad ({code}); --strict stops here; "
        "with another --run mend the row, or leave --strict out to give it an error code"
    )
    raise InputError(msg)
