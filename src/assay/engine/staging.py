"""Batches on their way to the device: pinned buffers in a ring, copies on a stream of their own.

The host fills a buffer while the device works on the batches before; it waits only where all buffers
are still in use. Events around each batch give the seconds that the device worked.

Axes: see kernels/layout.py.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from assay.engine.kernels.layout import BatchShape, DeviceBatch, plan_blocks, rounded
from assay.engine.positions import Ints32, positions_without_pads
from assay.model.packing import PackedBatch

BATCHES_AHEAD = 4
"""Batches that the host may be ahead of the device."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PadPositions:
    """How a family numbers a text that itself holds padding ids."""

    pad_token_id: int
    pad_row: int
    """Row of the position table that a padding id takes."""


class Staging:
    """Puts packed batches onto one device, in order."""

    def __init__(self, device: torch.device, pads: PadPositions | None = None) -> None:
        """Make ready for batches on `device`, positions counted as `pads` says."""
        self._device = device
        self._pads = pads
        self._is_cuda = device.type == "cuda"
        self._ring: list[_CudaSlot] = []
        if self._is_cuda:
            self._copies = torch.cuda.Stream(device)
            self._ring = [_CudaSlot() for _ in range(BATCHES_AHEAD)]
        self._turn = 0
        self._seconds = 0.0

    @contextlib.contextmanager
    def put(self, batch: PackedBatch, num_rows: int, *, in_few_shapes: bool = False) -> Iterator[DeviceBatch]:
        """The batch on the device, filled up to `num_rows` rows; its work is what the context encloses.

        A GPU is the thread's current one meanwhile: kernels are launched on that, not where their tensors lie.
        With `in_few_shapes` it is filled up with sequences and blocks of no token too, so that shapes
        recur: results of sequences from `batch.num_sequences` on mean nothing.
        """
        parts = _parts(batch, self._pads)
        shape = _shape(batch, parts, num_rows, in_few_shapes=in_few_shapes)
        total = sum(shape.sizes().values())
        if not self._is_cuda:
            flat = torch.empty(total, dtype=torch.int32)
            shape.fill(parts, flat.numpy())
            yield shape.split(flat)
            return
        slot = self._ring[self._turn]
        self._turn = (self._turn + 1) % len(self._ring)
        self._seconds += slot.wait()
        with torch.cuda.device(self._device):
            buffer = slot.buffer(total)
            shape.fill(parts, buffer.numpy())
            stream = torch.cuda.current_stream(self._device)
            with torch.cuda.stream(self._copies):
                flat = buffer[:total].to(self._device, non_blocking=True)
            stream.wait_stream(self._copies)
            flat.record_stream(stream)
            slot.began.record(stream)
            try:
                yield shape.split(flat)
            finally:
                slot.ended.record(stream)
                slot.in_use = True

    def device_seconds(self) -> float:
        """Seconds that the device worked on batches; waits until it is done with them."""
        self._seconds += sum(slot.wait() for slot in self._ring)
        return self._seconds


class _CudaSlot:
    """One pinned buffer, and the events around the work on the batch that it last held."""

    def __init__(self) -> None:
        self.began = torch.cuda.Event(enable_timing=True)
        self.ended = torch.cuda.Event(enable_timing=True, blocking=True)
        self.in_use = False
        self._pinned = torch.empty(0, dtype=torch.int32)

    def wait(self) -> float:
        """Wait until the device is done with the buffer; the seconds that it worked, told once."""
        if not self.in_use:
            return 0.0
        self.ended.synchronize()
        self.in_use = False
        return float(self.began.elapsed_time(self.ended)) / 1000.0

    def buffer(self, total: int) -> torch.Tensor:
        if self._pinned.shape[0] < total:
            self._pinned = torch.empty(total + total // 8, dtype=torch.int32, pin_memory=True)
        return self._pinned


def _parts(batch: PackedBatch, pads: PadPositions | None) -> dict[str, Ints32]:
    """What the device needs to know of the batch."""
    ids = batch.input_ids_T.numpy()
    bounds = batch.cu_seqlens.numpy()
    parts: dict[str, Ints32] = {"ids": ids, "bounds": bounds, "blocks": plan_blocks(bounds).reshape(-1)}
    if batch.token_type_ids_T is not None:
        parts["types"] = batch.token_type_ids_T.numpy()
    if pads is not None:
        positions = positions_without_pads(ids, bounds, pads.pad_token_id, pads.pad_row)
        if positions is not None:
            parts["positions"] = positions
    return parts


def _shape(batch: PackedBatch, parts: dict[str, Ints32], num_rows: int, *, in_few_shapes: bool) -> BatchShape:
    num_sequences, num_blocks, max_seqlen = batch.num_sequences, len(parts["blocks"]) // 4, batch.max_seqlen
    if in_few_shapes:
        num_sequences, num_blocks = rounded(num_sequences), rounded(num_blocks)
        max_seqlen = 1 << (max_seqlen - 1).bit_length()
    return BatchShape(
        num_rows=num_rows,
        num_sequences=num_sequences,
        num_blocks=num_blocks,
        max_seqlen=max_seqlen,
        has_types="types" in parts,
        has_positions="positions" in parts,
    )
