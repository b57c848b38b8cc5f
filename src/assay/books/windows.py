"""[pure] Which sentences of a book make a chunk, and which chunks of a long book are taken.

Axes: N sentences, W windows.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SentenceWindows = npt.NDArray[np.int64]
"""First sentence of each window and one past its last: [W, 2], in the order of the book."""


def windows_of_sentences(num_sentences: int, *, size: int, overlap: int) -> SentenceWindows:
    """All windows of `size` sentences, neighbours sharing `overlap`; none where the book is shorter than one.

    Ten sentences, size 4, overlap 1: [0, 4], [3, 7], [6, 10].
    """
    first_W = np.arange(0, num_sentences - size + 1, size - overlap, dtype=np.int64)
    return np.stack([first_W, first_W + size], axis=1)


def windows_of_tokens(tokens_N: Sequence[int], *, budget: int, overlap: int) -> SentenceWindows:
    """Windows of as many whole sentences as `budget` tokens hold, neighbours sharing `overlap` sentences.

    A sentence over the budget is in no window. The end of the book is a window only where it fills half the
    budget, so that none is much smaller than the others.
    """
    sums = np.concatenate([[0], np.cumsum(np.asarray(tokens_N, dtype=np.int64))])
    num_sentences = len(tokens_N)
    found: list[tuple[int, int]] = []
    first = 0
    while first < num_sentences:
        stop = int(np.searchsorted(sums, sums[first] + budget, side="right")) - 1
        if stop == first:
            first += 1
            continue
        # What is behind a window of which the next sentence is over the budget does not end the book.
        if stop == num_sentences and 2 * (sums[stop] - sums[first]) < budget:
            break
        if not found or stop > found[-1][1]:
            found.append((first, stop))
        if stop == num_sentences:
            break
        first = max(first + 1, stop - overlap)
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def sample_order(num_windows: int, *, seed: int, book_id: str) -> list[int]:
    """The windows of a book in the order in which a sample takes them, the same on every machine.

    A window's place depends on the seed, the book and its own number alone.
    """
    key = hashlib.blake2b(f"{seed}\0{book_id}".encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def place(window: int) -> bytes:
        return hashlib.blake2b(window.to_bytes(8, "little"), digest_size=8, key=key).digest()

    return sorted(range(num_windows), key=place)
