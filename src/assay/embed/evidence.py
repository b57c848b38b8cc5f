"""Some rows of each unit, run again in fp32 on the worker's own device: how far the numbers of the run are off.

    begin(unit)     which rows, by the unit's name
    take(chunk)     their sequences, and what the engine gave for them
    conclude()      the same sequences in fp32, the differences, and an error where one is past the tolerance

What outputs mean, the caller knows. The model in fp32 is loaded beside the work on the first unit that needs it.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from assay.embed.differences import Differences, sample_rows
from assay.embed.forward import ForwardedChunk, Forwarder
from assay.engine import devices
from assay.engine.engine import in_fp32
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences
from assay.errors import CheckError, WorkError
from assay.runs.gate import Gate
from assay.runs.pipeline import UnfitError
from assay.runs.plan import Unit
from assay.tokenize.views import Expanded

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Compare = Callable[[Floats, Floats], tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]]
"""Outputs [N, C] and fp32's to each row's difference [N] and whether its label is another [N].

A row that has no finite outputs has an error code and no score: its difference is NaN, and it does not count.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """Sampled rows, of one chunk or of a unit."""

    rows_N: Ints
    """Their numbers within the source, rising."""
    expanded: Expanded
    """Their sequences."""
    outputs_NC: Floats
    """What the engine gave for the rows."""


class Evidence:
    """The samples of a worker's units, one unit after the other; for the thread that finishes them."""

    def __init__(
        self,
        forwarder: Forwarder,
        compare: Compare,
        gate: Gate,
        *,
        share: float,
        allowed: float,
        device: torch.device,
    ) -> None:
        """Every row of a unit is taken with the chance `share`; a difference beyond `allowed` is an error."""
        self._forwarder = forwarder
        self._compare = compare
        self._gate = gate
        self._share = share
        self._allowed = allowed
        self._device = device
        self._rows = np.empty(0, dtype=np.int64)
        self._unit: Unit | None = None
        self._taken: list[Taken] = []
        self._loading: threading.Thread | None = None

    def begin(self, unit: Unit) -> None:
        """Choose the rows of a unit; forgets what was taken of the one before."""
        self._unit = unit
        self._rows = unit.start + sample_rows(unit.name, unit.num_rows, self._share)
        self._taken = []
        # a padded engine chooses its attention by a setting of the process, which loading another would change
        if len(self._rows) and self._loading is None and self._forwarder.engine.packed:
            self._loading = threading.Thread(target=self._load, name="fp32", daemon=True)
            self._loading.start()

    def take(self, forwarded: ForwardedChunk) -> None:
        """Keep the chosen rows of a chunk of the unit."""
        chunk = forwarded.chunk
        first, last = np.searchsorted(self._rows, [chunk.start, chunk.start + chunk.num_rows])
        rows = self._rows[first:last]
        if not len(rows):
            return
        chosen = rows - chunk.start
        views = self._forwarder.views
        expanded = views.expand(chunk.tokens.rows.take(chosen))
        places = np.flatnonzero(np.isin(forwarded.row_S, chosen))
        outputs_NC = views.reduce(
            forwarded.outputs_SC[places], expanded.row_S, forwarded.view_S[places], len(rows)
        )
        self._taken.append(Taken(rows_N=rows, expanded=expanded, outputs_NC=outputs_NC))

    def conclude(self) -> Differences:
        """How far the unit's sampled rows are from fp32's.

        Raises UnfitError of a CheckError where a difference is past the tolerance, of a WorkError where the device has
        no room for the model in fp32, and StopRequestedError when told to stop.
        """
        taken = _together(self._taken)
        if taken is None:
            return Differences()
        if self._loading is not None:
            self._loading.join()
        with self._gate.turn(), devices.current(self._device):
            began = time.perf_counter()
            exact_NC = self._in_fp32(taken)
            seconds = time.perf_counter() - began
        found_N, changed_N = self._compare(taken.outputs_NC, exact_NC)
        has_score_N = ~np.isnan(found_N)
        found_N, rows_N = found_N[has_score_N], taken.rows_N[has_score_N]
        differences = Differences.of(found_N, changed_N[has_score_N], milliseconds=round(seconds * 1000))
        if differences.largest > self._allowed:
            raise UnfitError(self._too_far(int(rows_N[found_N.argmax()]), differences.largest))
        return differences

    def _load(self) -> None:
        with (
            contextlib.suppress(Exception),
            devices.current(self._device),
        ):  # `conclude` meets the error again
            in_fp32(self._forwarder.engine)

    def _in_fp32(self, taken: Taken) -> Floats:
        try:
            engine = in_fp32(self._forwarder.engine)
        except torch.OutOfMemoryError:
            raise UnfitError(
                WorkError(
                    "the device has no room for the model in fp32 beside this one, in which a sample of the documents "
                    "runs too; with a new --run set --parity-share 0, or use a device with more memory"
                )
            ) from None
        expanded = taken.expanded
        outputs_SC, _ = run_sequences(engine, expanded.sequences, deduplicate=False)
        return self._forwarder.views.reduce(outputs_SC, expanded.row_S, expanded.view_S, len(taken.rows_N))

    def _too_far(self, row: int, largest: float) -> CheckError:
        assert self._unit is not None, "begin() comes before conclude()"
        return CheckError(
            f"the parity gate did not hold: row {row} of source {self._unit.source_name} (unit {self._unit.name}) "
            f"differs from fp32 by {largest:.4g} "
            f"(allowed {self._allowed:g}); with a new --run use --precision fp32, or --parity-tolerance"
        )


def _together(taken: list[Taken]) -> Taken | None:
    """The sampled rows of all chunks as those of one; None where none has a token."""
    parts = [some.expanded.sequences for some in taken]
    if not sum(part.num_sequences for part in parts):
        return None
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    firsts = np.cumsum([0, *(len(some.rows_N) for some in taken)])
    return Taken(
        rows_N=np.concatenate([some.rows_N for some in taken]),
        expanded=Expanded(
            sequences=Sequences(
                flat_ids=np.concatenate(
                    [part.flat_ids[part.offsets[0] : part.offsets[-1]] for part in parts]
                ),
                offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
                second_starts=None
                if all(part.second_starts is None for part in parts)
                else np.concatenate(
                    [
                        np.zeros(part.num_sequences, np.int32)
                        if part.second_starts is None
                        else part.second_starts
                        for part in parts
                    ]
                ),
            ),
            row_S=np.concatenate(
                [some.expanded.row_S + first for some, first in zip(taken, firsts, strict=False)]
            ),
            view_S=np.concatenate([some.expanded.view_S for some in taken]),
        ),
        outputs_NC=np.concatenate([some.outputs_NC for some in taken]),
    )
