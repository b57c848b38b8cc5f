"""[pure] Which sequences run together, and which need not run at all. numpy only.

Axes: N sequences, T tokens.
"""

import itertools

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Ids = npt.NDArray[np.integer]

_MIX = np.uint64(0x9E3779B97F4A7C15)
_BLOCK_SEQUENCES = 1 << 14
"""Sequences whose signatures are computed at a time: the scratch arrays stay in the cache."""
_BLOCK_TOKENS = 1 << 21
"""Tokens that a full comparison gathers at a time, to bound memory."""
_RADIX_LIMIT = 1 << 16


def plan_batches(
    lengths: Ids, *, max_batch_tokens: int, max_batch_sequences: int | None = None
) -> list[Ints]:
    """Return batches of sequence indices, longest sequences first, each index exactly once.

    A batch holds at most `max_batch_tokens` tokens, or one sequence that alone is longer. Sorted
    by length, so that a batch has few distinct lengths; ties keep the order given.
    """
    if len(lengths) == 0:
        return []
    # numpy sorts 16-bit keys by radix, several times faster than wider ones
    shortfall = lengths.max() - lengths
    keys = shortfall.astype(np.uint16) if lengths.max() < _RADIX_LIMIT else shortfall
    order = np.argsort(keys, kind="stable")
    bounds = cut(
        lengths[order], max_batch_tokens=max_batch_tokens, max_batch_sequences=max_batch_sequences
    ).tolist()
    return [order[start:stop] for start, stop in itertools.pairwise(bounds)]


def cut(lengths: Ids, *, max_batch_tokens: int, max_batch_sequences: int | None = None) -> Ints:
    """Return the bounds, int64 [num_batches + 1], of batches that keep the order given."""
    if max_batch_tokens < 1 or (max_batch_sequences is not None and max_batch_sequences < 1):
        raise ValueError(
            f"a batch of {max_batch_tokens} tokens, {max_batch_sequences} sequences holds nothing"
        )
    num_sequences = len(lengths)
    ends = np.cumsum(lengths, dtype=np.int64)
    bounds = [0]
    done_tokens = 0
    while bounds[-1] < num_sequences:
        start = bounds[-1]
        stop = int(ends.searchsorted(done_tokens + max_batch_tokens, side="right"))
        if max_batch_sequences is not None:
            stop = min(stop, start + max_batch_sequences)
        stop = max(stop, start + 1)
        bounds.append(stop)
        done_tokens = int(ends[stop - 1])
    return np.asarray(bounds, dtype=np.int64)


def token_indices(starts: Ints, lengths: Ints) -> Ints:
    """Return the flat token positions, int64 [T], of sequences laid end to end.

    For starts [7, 2] and lengths [2, 3] that is [7, 8, 2, 3, 4].
    """
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(starts - ends + lengths, lengths)


def find_duplicates(flat_ids: Ids, offsets: Ints, second_starts: Ids | None = None) -> tuple[Ints, Ints]:
    """Return (unique_index, inverse): which sequences to run, and for each sequence whose result it takes.

    Sequence k equals sequence `unique_index[inverse[k]]`, token for token, the second segment's
    start included; `unique_index` ascends and names first occurrences. Exact: 64-bit signatures of
    a few sampled tokens only choose whom to compare in full. About 50 ns a sequence where few repeat.
    """
    everyone = np.arange(len(offsets) - 1, dtype=np.int64)
    signatures = _signatures(flat_ids, offsets, second_starts)
    candidates = _sharing(signatures)
    if len(candidates) == 0:
        return everyone, everyone
    hashes = _full_hashes(flat_ids, offsets, candidates) ^ signatures[candidates]
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    leaders = candidates[first][group]
    followers = leaders != candidates
    left, right = candidates[followers], leaders[followers]
    same = _equal(flat_ids, offsets, second_starts, left, right)
    leader_of = everyone.copy()
    leader_of[left[same]] = right[same]
    return _unique_of(leader_of)


def _unique_of(leader_of: Ints) -> tuple[Ints, Ints]:
    """(unique_index, inverse) from the first occurrence of each sequence."""
    is_leader = leader_of == np.arange(len(leader_of))
    return np.flatnonzero(is_leader), (np.cumsum(is_leader) - 1)[leader_of]


def _sharing(signatures: npt.NDArray[np.uint64]) -> Ints:
    """Sequences whose signature another one has too, ascending.

    A sort of all signatures would cost as much as the rest together. So each sequence first writes
    its number into a slot of a table, eight slots a sequence, chosen by the signature's top bits: who
    reads another number back shares a slot, and only those are sorted.
    """
    num_sequences = len(signatures)
    bits = np.uint64(64 - max(1, (8 * num_sequences - 1).bit_length()))
    slots = (signatures >> bits).astype(np.int64)
    numbers = np.arange(num_sequences, dtype=np.int32)
    table = np.empty(8 << num_sequences.bit_length(), dtype=np.int32)  # read only where written
    table[slots] = numbers
    winners = table[slots]
    losers = np.flatnonzero(winners != numbers)
    shares_slot = np.zeros(num_sequences, dtype=np.bool_)
    shares_slot[losers] = True
    shares_slot[winners[losers]] = True
    suspects = np.flatnonzero(shares_slot)
    _, inverse, counts = np.unique(signatures[suspects], return_inverse=True, return_counts=True)
    return suspects[counts[inverse] > 1]


def _signatures(flat_ids: Ids, offsets: Ints, second_starts: Ids | None) -> npt.NDArray[np.uint64]:
    """64-bit mix of the length, three sampled tokens and the second segment's start; [N].

    Empty sequences sample nothing.
    """
    num_sequences = len(offsets) - 1
    signatures = np.zeros(num_sequences, dtype=np.uint64)
    if len(flat_ids) == 0:
        return signatures
    for start in range(0, num_sequences, _BLOCK_SEQUENCES):
        stop = min(start + _BLOCK_SEQUENCES, num_sequences)
        begins = offsets[start:stop]
        ends = offsets[start + 1 : stop + 1]
        lengths = ends - begins
        mixed = lengths.astype(np.uint64)
        if second_starts is not None:
            mixed += second_starts[start:stop].astype(np.uint64) << np.uint64(32)
        # the first and the last token are special ones in most tokenizers, and tell nothing
        second = lengths > 1
        for sampled in (begins + second, begins + (lengths >> 1), ends - 1 - second):
            mixed *= _MIX
            mixed ^= mixed >> np.uint64(29)
            mixed += flat_ids.take(sampled, mode="clip").astype(np.uint64)
        mixed *= _MIX
        mixed ^= mixed >> np.uint64(32)
        mixed *= _MIX
        mixed[lengths == 0] = 0
        signatures[start:stop] = mixed
    return signatures


def _blocks(lengths: Ints) -> list[tuple[int, int]]:
    """Ranges of sequences of at most _BLOCK_TOKENS tokens."""
    if len(lengths) == 0:
        return []
    bounds = cut(lengths, max_batch_tokens=_BLOCK_TOKENS).tolist()
    return list(itertools.pairwise(bounds))


def _full_hashes(flat_ids: Ids, offsets: Ints, chosen: Ints) -> npt.NDArray[np.uint64]:
    """Multilinear hash of every token of the chosen sequences; [len(chosen)]."""
    starts = offsets[chosen]
    lengths = offsets[chosen + 1] - starts
    weights = _random_weights(int(lengths.max(initial=0)))
    hashes = lengths.astype(np.uint64)
    for first, last in _blocks(lengths):
        block_lengths = lengths[first:last]
        ends = np.cumsum(block_lengths)
        where = token_indices(starts[first:last], block_lengths)
        within = where - np.repeat(starts[first:last], block_lengths)
        terms = np.concatenate(
            [
                np.zeros(1, dtype=np.uint64),
                (flat_ids[where].astype(np.uint64) + np.uint64(1)) * weights[within],
            ]
        )
        sums = np.cumsum(terms, dtype=np.uint64)
        hashes[first:last] += sums[ends] - sums[ends - block_lengths]
    return hashes


def _random_weights(count: int) -> npt.NDArray[np.uint64]:
    """Fixed odd multipliers (splitmix64, Steele et al. 2014), the same in every run."""
    state = (np.arange(1, count + 1, dtype=np.uint64)) * _MIX
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (state ^ (state >> np.uint64(31))) | np.uint64(1)


def _equal(
    flat_ids: Ids, offsets: Ints, second_starts: Ids | None, left: Ints, right: Ints
) -> npt.NDArray[np.bool_]:
    """Whether sequences left[k] and right[k] are equal, token for token."""
    lengths = offsets[left + 1] - offsets[left]
    same = lengths == offsets[right + 1] - offsets[right]
    if second_starts is not None:
        same &= second_starts[left] == second_starts[right]
    rows = np.flatnonzero(same & (lengths > 0))
    for first, last in _blocks(lengths[rows]):
        block = rows[first:last]
        block_lengths = lengths[block]
        left_tokens = flat_ids[token_indices(offsets[left[block]], block_lengths)]
        right_tokens = flat_ids[token_indices(offsets[right[block]], block_lengths)]
        begins = np.cumsum(block_lengths) - block_lengths
        same[block] = np.logical_and.reduceat(left_tokens == right_tokens, begins)
    return np.asarray(same, dtype=np.bool_)
