"""Sequences in, logits out, in the same order: duplicates once, batches under a token budget.

    sequences -> find_duplicates -> plan_batches -> engine.forward -> logits in input order

Axes: N sequences, T tokens, C outputs.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from assay.engine import batching
from assay.engine.batching import Ids, Ints
from assay.engine.engine import Engine
from assay.engine.sequences import ForwardStats, Sequences, Stopped
from assay.errors import InputError
from assay.model.packing import PackedBatch


def run_sequences(
    engine: Engine,
    sequences: Sequences,
    *,
    max_batch_tokens: int | None = None,
    deduplicate: bool = True,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[npt.NDArray[np.float32], ForwardStats]:
    """Return the logits, float32 [N, C], row k for sequence k, and what they cost.

    `max_batch_tokens` None takes the engine's own. `should_stop` is asked before each batch; Stopped
    is raised when it says so. InputError for a sequence that is empty, longer than the engine's
    max_length, or holds an id outside the vocabulary.
    """
    began = time.perf_counter()
    _check(engine, sequences)
    offsets = sequences.offsets
    inverse = chosen = None
    if deduplicate:
        unique, inverse = batching.find_duplicates(sequences.flat_ids, offsets, sequences.second_starts)
        chosen = unique if len(unique) < sequences.num_sequences else None
    num_chosen = sequences.num_sequences if chosen is None else len(chosen)
    logits_NC = np.empty((num_chosen, engine.num_outputs), dtype=np.float32)
    num_tokens = num_batches = 0
    forward_seconds = 0.0
    padded_before = engine.num_padded_tokens
    for rows, batch in _batches(sequences, chosen, engine, max_batch_tokens or engine.default_batch_tokens):
        if should_stop is not None and should_stop():
            raise Stopped
        entered = time.perf_counter()
        logits_NC[rows] = engine.forward(batch).numpy()
        forward_seconds += time.perf_counter() - entered
        num_tokens += batch.num_tokens
        num_batches += 1
    stats = ForwardStats(
        num_forward_tokens=num_tokens,
        num_padded_tokens=engine.num_padded_tokens - padded_before,
        num_duplicates=sequences.num_sequences - num_chosen,
        num_batches=num_batches,
        seconds=time.perf_counter() - began,
        forward_seconds=forward_seconds,
    )
    return logits_NC if chosen is None or inverse is None else logits_NC[inverse], stats


def _batches(
    sequences: Sequences, chosen: Ints | None, engine: Engine, max_batch_tokens: int
) -> Iterator[tuple[Ints | slice, PackedBatch]]:
    """Each batch with the rows of the chosen sequences that it holds."""
    starts = sequences.offsets[:-1] if chosen is None else sequences.offsets[chosen]
    ends = sequences.offsets[1:] if chosen is None else sequences.offsets[chosen + 1]
    lengths = ends - starts
    seconds = sequences.second_starts
    if seconds is not None and chosen is not None:
        seconds = seconds[chosen]
    plan: Iterable[Ints | slice]
    if engine.wants_sorted:
        plan = batching.plan_batches(lengths, max_batch_tokens=max_batch_tokens)
    else:
        bounds = batching.cut(lengths, max_batch_tokens=max_batch_tokens).tolist()
        plan = itertools.starmap(slice, itertools.pairwise(bounds))
    for rows in plan:
        batch_seconds = None if seconds is None else seconds[rows]
        yield rows, _gather(sequences.flat_ids, starts[rows], lengths[rows], batch_seconds)


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
