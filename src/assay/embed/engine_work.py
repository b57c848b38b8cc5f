"""How a unit becomes a part: rows -> chunks of token ids -> outputs of an engine -> the rows of the part.

    prepare   reads and tokenizes                        before the engine is loaded, and ahead of it
    compute   runs the engine                            all that the device waits for
    finish    makes rows; its caller writes and publishes beside the next chunk on the device

What is made of outputs a `Finisher` knows: scores or vectors. Imports no torch: a worker reads its first
unit while the engine and its libraries are loaded.
"""

import contextlib
import logging
import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import pyarrow as pa

from assay.data.ids import shown_ids
from assay.data.reading import RowReader
from assay.engine.sequences import Stopped
from assay.garbage import not_collecting
from assay.runs.gate import Gate
from assay.runs.manifest import Manifest
from assay.runs.pipeline import StopRequestedError, strict_error
from assay.runs.plan import Unit
from assay.runs.protocol import Phase
from assay.runs.run import Run
from assay.runs.worker import worker_command
from assay.telemetry import Counters
from assay.tokenize.chunks import CHUNK_ROWS, ChunkRows, EncodedChunk, ReadChunks, read_unit

if TYPE_CHECKING:
    from assay.embed.evidence import Evidence
    from assay.embed.forward import FinishedChunk, Finisher, ForwardedChunk

EXAMPLES_PER_ERROR = 5
DIFFERENCES = "differences_to_fp32"
"""Of a part's footer figures: how far sampled rows are from fp32's, see `differences.Differences`."""
MOST_MARKED_ROWS = 1_000
"""Rows of a part that its footer names as run again in fp32."""


class OpenEngineWork(Protocol):
    """Gives the work of a run on one device."""

    def __call__(
        self,
        run: Run,
        *,
        device: str,
        num_threads: int | None,
        should_stop: Callable[[], bool],
        say_phase: Callable[[Phase], None],
    ) -> "EngineWork":
        """`should_stop` is asked between batches, `say_phase` told what is being done before the first."""
        ...


class EngineWork:
    """Runs the units of a run through an engine. `prepare`, `compute` and `finish` may run in three threads."""

    def __init__(
        self,
        manifest: Manifest,
        read: ReadChunks,
        load: "Callable[[], Finisher]",
        *,
        strict: bool,
        gate: Gate | None = None,
        worker: str = "",
        most_chunk_rows: int = CHUNK_ROWS,
        open_evidence: "Callable[[Any], Evidence] | None" = None,
    ) -> None:
        """Work for the run of `manifest`; `worker` names this process in the parts' footers.

        `read` makes rows chunks that what `load` gives takes. `load` is called by the work's own; all but `prepare`
        waits for that, and may close `gate`, behind which parts wait. `strict` stops at a bad row. `open_evidence`
        makes of what `load` gave what runs a sample of each unit in fp32 too.
        """
        self.gate = gate or Gate()
        """What is left to prove before a part is published."""
        self.counters = Counters()
        self._manifest = manifest
        self._strict = strict
        self._read = read
        self._load = load
        self._loaded: Finisher | None = None
        self._worker = worker
        self._schema = manifest.arrow_schema()
        self._reader = RowReader(manifest.source_columns())
        self._stats: Counter[str] = Counter()
        self._chunk_rows = ChunkRows(most_chunk_rows)
        self._errors: dict[str, dict[str, Any]] = {}
        self._fp32_rows: list[int] = []
        self._open_evidence = open_evidence
        self._evidence: Evidence | None = None
        self._differences: dict[str, Any] | None = None

    def load(self) -> str:
        """Load the engine and put it to the test; returns its description."""
        self._loaded = self._load()
        self._evidence = None if self._open_evidence is None else self._open_evidence(self._loaded)
        return self._loaded.description()

    def prepare(self, unit: Unit) -> Iterator[EncodedChunk]:
        """The unit's rows as token ids, in order, a chunk at a time."""
        return self._read(read_unit(self._manifest, self._reader, unit), self._chunk_rows)

    def compute(self, chunk: EncodedChunk) -> "ForwardedChunk":
        """The outputs of a chunk."""
        self.gate.check()
        try:
            with self.gate.turn():
                return self._finisher().forward(chunk)
        except Stopped:
            raise StopRequestedError from None

    def finish(self, unit: Unit, computed: "Iterator[ForwardedChunk]") -> Iterator[pa.RecordBatch]:
        """The rows of the unit's part, in source order; ends once the gate has passed, which raises UnfitError.

        So does a sampled row that is too far from what the model in fp32 gives.
        """
        self._stats.clear()
        self._errors = {}
        self._fp32_rows = []
        self._differences = None
        evidence = self._evidence
        if evidence is not None:
            evidence.begin(unit)
        for forwarded in computed:
            if evidence is not None:
                evidence.take(forwarded)
            chunk, finished = forwarded.chunk, self._finisher().finish(forwarded)
            if finished.errors and self._strict:
                _refuse(unit, chunk, finished.errors)
            self._count(forwarded, finished)
            columns = {self._schema.names[0]: chunk.ids, **finished.columns}
            yield pa.RecordBatch.from_arrays(
                [columns[name] for name in self._schema.names], schema=self._schema
            )
        self.gate.wait()
        if evidence is not None:
            self._differences = evidence.conclude().to_json()

    @property
    def rows_in(self) -> int:
        """Rows of the unit just finished that were read."""
        return self._stats["num_rows"]

    def stats(self) -> dict[str, Any]:
        """Figures of the unit just finished, for the part's footer."""
        again = {"fp32_row_numbers": self._fp32_rows} if self._fp32_rows else {}
        sampled = {} if self._differences is None else {DIFFERENCES: self._differences}
        return {**self._stats, **again, **sampled, "errors": self._errors, "worker": self._worker}

    def _finisher(self) -> "Finisher":
        assert self._loaded is not None, "load() comes before compute()"
        return self._loaded

    def _count(self, forwarded: "ForwardedChunk", finished: "FinishedChunk") -> None:
        chunk, cost = forwarded.chunk, finished.stats
        if len(forwarded.fp32_rows):
            numbers = (forwarded.fp32_rows + self._stats["num_rows"]).tolist()
            self._fp32_rows += numbers[: MOST_MARKED_ROWS - len(self._fp32_rows)]
            self._stats["fp32_rows"] += len(numbers)
            self.counters.fp32_rows += len(numbers)
        self._stats["num_rows"] += chunk.num_rows
        self._stats["num_tokens"] += int(chunk.row_tokens.sum())
        self._stats["forward_tokens"] += cost.num_forward_tokens
        self._stats["padded_tokens"] += cost.num_padded_tokens
        self._stats["duplicate_rows"] += cost.num_duplicates
        if cost.num_cached:
            self._stats["cached_sequences"] += cost.num_cached
        self._stats["truncated_rows"] += int(chunk.row_truncated.sum())
        self._stats["error_rows"] += len(finished.errors)
        self._stats["device_milliseconds"] += round(cost.forward_seconds * 1000)
        for row, code in finished.errors.items():
            entry = self._errors.setdefault(code, {"count": 0, "examples": []})
            entry["count"] += 1
            if len(entry["examples"]) < EXAMPLES_PER_ERROR:
                entry["examples"] += shown_ids(chunk.ids.slice(row, 1))
        self.counters.rows += chunk.num_rows
        self.counters.tokens += cost.num_forward_tokens
        self.counters.padded_tokens += cost.num_forward_tokens + cost.num_padded_tokens
        self.counters.error_rows += len(finished.errors)
        self.counters.duplicate_rows += cost.num_duplicates
        self.counters.device_seconds += cost.forward_seconds


def _refuse(unit: Unit, chunk: EncodedChunk, errors: dict[int, str]) -> None:
    row, code = min(errors.items())
    raise strict_error(f"row {chunk.start + row} of source {unit.source_name}", code)


def engine_worker_command(documentation: str | None, open_work: "OpenEngineWork") -> NoReturn:
    """The command of a worker process with an engine; ends the process."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    # beside reading the run, hashing the bundle and reading the first unit
    threading.Thread(target=_import_torch, name="import", daemon=True).start()
    status = worker_command(
        documentation,
        lambda run, mailbox, device, num_threads: open_work(
            run,
            device=device,
            num_threads=num_threads,
            should_stop=mailbox.should_stop,
            say_phase=mailbox.say_phase,
        ),
    )
    # Every part is published and every event sent. To take torch down takes half a second, and an interpreter that
    # ends beside a thread that computes (a gate that nobody waits for any more) may crash.
    sys.stderr.flush()
    os._exit(status)


def _import_torch() -> None:
    with not_collecting(), contextlib.suppress(Exception):  # whoever needs it meets the error again
        import torch  # noqa: F401
