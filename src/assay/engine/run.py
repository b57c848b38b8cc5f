"""Sequences in, outputs out, in the same order: duplicates once, batches under a token budget.

    sequences -> find_duplicates -> plan_batches -> engine.forward -> outputs in input order
                                                     not finite -> the model in fp32

Axes: N sequences, T tokens.
"""

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import torch

from assay.engine import batching
from assay.engine.batching import Ids, Ints
from assay.engine.engine import Engine, in_fp32
from assay.engine.sequences import ForwardStats, Sequences, Stopped
from assay.errors import InputError, WorkError
from assay.model.packing import PackedBatch
from assay.telemetry import format_number_of

_log = logging.getLogger(__name__)


def run_sequences(
    engine: Engine,
    sequences: Sequences,
    *,
    max_batch_tokens: int | None = None,
    deduplicate: bool = True,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[npt.NDArray[np.float32], ForwardStats]:
    """Return the outputs, float32 [N, *output_shape], row k for sequence k, and what they cost.

    `max_batch_tokens` None takes the engine's own. `should_stop` is asked before each batch; Stopped
    is raised when it says so. InputError for a sequence that is empty, longer than the engine's
    max_length, or holds an id outside the vocabulary; WorkError for one that alone is too large for the
    device's memory. Where a batch is, the batches are halved and none is lost. What an engine in half precision gives
    no finite outputs for runs again in fp32, which loads that engine the first time.
    """
    began = time.perf_counter()
    _check(engine, sequences)
    inverse = chosen = None
    if deduplicate:
        unique, inverse = batching.find_duplicates(
            sequences.flat_ids, sequences.offsets, sequences.second_starts
        )
        chosen = unique if len(unique) < sequences.num_sequences else None
    num_chosen = sequences.num_sequences if chosen is None else len(chosen)
    padded_before, device_before = engine.num_padded_tokens, engine.device_seconds
    done: list[tuple[Ints | slice, torch.Tensor]] = []
    num_tokens = 0
    forward_seconds = 0.0
    plan = _Plan(sequences, chosen, engine, max_batch_tokens)
    while (rows := plan.next_rows()) is not None:
        if should_stop is not None and should_stop():
            raise Stopped
        batch = plan.gather(rows)
        entered = time.perf_counter()
        try:
            done.append((rows, engine.forward(batch)))
        except torch.OutOfMemoryError:
            plan.give_back(rows)
            continue
        forward_seconds += time.perf_counter() - entered
        num_tokens += batch.num_tokens
    outputs = _collect(done, num_chosen, engine.output_shape)
    if device_before is not None and engine.device_seconds is not None:
        forward_seconds = engine.device_seconds - device_before
    again, more_seconds = _run_again(engine, sequences, chosen, outputs, should_stop)
    if chosen is not None and inverse is not None:
        outputs, again = outputs[inverse], np.flatnonzero(np.isin(inverse, again))
    stats = ForwardStats(
        num_forward_tokens=num_tokens,
        num_padded_tokens=engine.num_padded_tokens - padded_before,
        num_duplicates=sequences.num_sequences - num_chosen,
        num_batches=len(done),
        seconds=time.perf_counter() - began,
        forward_seconds=forward_seconds + more_seconds,
        fp32_sequences=again,
    )
    return outputs, stats


def _run_again(
    engine: Engine,
    sequences: Sequences,
    chosen: Ints | None,
    outputs: npt.NDArray[np.float32],
    should_stop: Callable[[], bool] | None,
) -> tuple[Ints, float]:
    """Give those of the chosen sequences whose outputs are not finite the outputs of the model in fp32.

    Returns which of them are finite now, and the seconds of their forward passes. Raises WorkError where the device
    has no room for the weights in fp32.
    """
    none = np.empty(0, dtype=np.int64)
    if engine.fp32 is None:
        return none, 0.0
    bad = np.flatnonzero(~_is_finite(outputs))
    if not len(bad):
        return none, 0.0
    try:
        exact = in_fp32(engine)
    except torch.OutOfMemoryError:
        raise WorkError(
            f"{format_number_of(len(bad), 'document')} gave numbers that are not finite, and the device has no room "
            "for the model in fp32 beside this one; use --precision bf16 or fp32, or a device with more memory"
        ) from None
    rows = bad if chosen is None else chosen[bad]
    outputs[bad], stats = run_sequences(
        exact, sequences.take(rows), deduplicate=False, should_stop=should_stop
    )
    return bad[_is_finite(outputs[bad])], stats.forward_seconds


def _is_finite(outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which of the outputs [N, ...] are finite throughout, [N]."""
    return np.asarray(np.isfinite(outputs).all(axis=tuple(range(1, outputs.ndim))))


class _Plan:
    """Which of the chosen sequences run together; halves the batches where the device has no room."""

    def __init__(
        self, sequences: Sequences, chosen: Ints | None, engine: Engine, max_batch_tokens: int | None
    ) -> None:
        self._flat_ids = sequences.flat_ids
        self._starts = sequences.offsets[:-1] if chosen is None else sequences.offsets[chosen]
        self._lengths = (
            sequences.offsets[1:] if chosen is None else sequences.offsets[chosen + 1]
        ) - self._starts
        seconds = sequences.second_starts
        self._seconds = seconds if seconds is None or chosen is None else seconds[chosen]
        self._engine = engine
        asked = None if engine.deterministic else max_batch_tokens
        self._budget = asked or engine.default_batch_tokens
        self._left: deque[Ints | slice] = deque(self._batches(slice(0, len(self._lengths))))

    def next_rows(self) -> Ints | slice | None:
        """The chosen sequences of the next batch, None after the last."""
        return self._left.popleft() if self._left else None

    def gather(self, rows: Ints | slice) -> PackedBatch:
        """These of the chosen sequences, laid end to end."""
        seconds = None if self._seconds is None else self._seconds[rows]
        return _gather(self._flat_ids, self._starts[rows], self._lengths[rows], seconds)

    def give_back(self, rows: Ints | slice) -> None:
        """The device has no room for this batch: go on in batches of half its tokens, from here on."""
        num_tokens = int(self._lengths[rows].sum())
        if len(self._lengths[rows]) == 1:
            raise WorkError(
                f"one sequence of {num_tokens:,} tokens does not fit into the device's memory; "
                "use a smaller max_length, or a device with more memory"
            )
        torch.cuda.empty_cache()
        self._budget = max(1, min(self._budget, num_tokens) // 2)
        self._engine.default_batch_tokens = min(self._engine.default_batch_tokens, self._budget)
        _log.warning(
            "the device has no room for %s tokens at once; going on with %s",
            f"{num_tokens:,}",
            f"{self._budget:,}",
        )
        waiting = [rows, *self._left]
        self._left = deque(piece for held in waiting for piece in self._batches(held))

    def _batches(self, rows: Ints | slice) -> Iterable[Ints | slice]:
        """These of the chosen sequences, cut into batches."""
        lengths = self._lengths[rows]
        if self._engine.wants_sorted or not isinstance(rows, slice):
            numbers = np.arange(len(self._lengths))[rows]
            cuts = batching.plan_batches(lengths, max_batch_tokens=self._budget)
            return [numbers[some] for some in cuts]
        bounds = (batching.cut(lengths, max_batch_tokens=self._budget) + rows.start).tolist()
        return itertools.starmap(slice, itertools.pairwise(bounds))


def _collect(
    done: list[tuple[Ints | slice, torch.Tensor]], num_chosen: int, output_shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """The outputs of all batches in order, [N, *output_shape]; the one place that waits for the device."""
    outputs = np.empty((num_chosen, *output_shape), dtype=np.float32)
    if not done:
        return outputs
    together = torch.cat([some for _, some in done]).cpu().numpy()
    stop = 0
    for rows, some in done:
        start, stop = stop, stop + some.shape[0]
        outputs[rows] = together[start:stop]
    return outputs


def _gather(
    flat_ids: Ids, starts: Ints, lengths: Ints, second_starts: npt.NDArray[np.int32] | None
) -> PackedBatch:
    """Sequences laid end to end; one slice where they already lie so."""
    bounds = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=bounds[1:])
    total = int(bounds[-1])
    if bool((starts[1:] == starts[:-1] + lengths[:-1]).all()):
        ids = flat_ids[starts[0] : starts[0] + total]
    else:
        ids = flat_ids[batching.token_indices(starts, lengths)]
    token_types = None
    if second_starts is not None and bool(second_starts.any()):
        within = np.arange(total, dtype=np.int32) - np.repeat(bounds[:-1], lengths)
        # a sequence without second segment gets a start beyond its end
        begins = np.where(second_starts > 0, second_starts, lengths).astype(np.int32)
        token_types = torch.from_numpy((within >= np.repeat(begins, lengths)).astype(np.int32))
    return PackedBatch(
        # a copy where the buffer is not ours to write (Arrow's is read-only) or not int32
        input_ids_T=torch.from_numpy(ids.astype(np.int32, copy=not ids.flags.writeable)),
        cu_seqlens=torch.from_numpy(bounds),
        max_seqlen=int(lengths.max()),
        token_type_ids_T=token_types,
    )


def _check(engine: Engine, sequences: Sequences) -> None:
    """InputError for what the engine would crash on, or silently mistake."""
    offsets = sequences.offsets
    if sequences.num_sequences <= 0:
        return
    lengths = np.diff(offsets)
    shortest, longest = int(lengths.argmin()), int(lengths.argmax())
    if lengths[shortest] < 1:
        raise InputError(
            f"sequence {shortest} has {lengths[shortest]} tokens; an engine needs at least 1; "
            "give the row an error code"
        )
    if lengths[longest] > engine.max_length:
        raise InputError(
            f"sequence {longest} has {lengths[longest]} tokens, the model takes {engine.max_length}; "
            "truncate it or cut it into windows"
        )
    ids = sequences.flat_ids[offsets[0] : offsets[-1]]
    # Of what the type itself rules out nothing need be looked at.
    limits = np.iinfo(ids.dtype)
    least = int(ids.min()) if limits.min < 0 else 0
    most = int(ids.max()) if limits.max >= engine.vocab_size else 0
    if least < 0 or most >= engine.vocab_size:
        raise InputError(
            f"token id {least if least < 0 else most} is outside the vocabulary of {engine.vocab_size}; "
            "tokenize with the bundle's own tokenizer"
        )
