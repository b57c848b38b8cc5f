"""Checkpoints of HRM and TRM as solvers, within the share of a GPU's memory that they may take."""

import numpy as np
import torch

from assay.engine.hrm import Reasoner, load_reasoner
from assay.ensemble.grids import Grids
from assay.ensemble.members import Passes, Seeds, in_pieces, rows_that_fit
from assay.errors import WorkError
from assay.model.hrm.noise import Noise
from assay.sudoku.grids import NUM_CELLS, NUM_TOKENS, checked

_SMALLEST_BATCH = 8
_GRAPHED = 512
"""Puzzles of a batch up to which steps are replayed from a graph, about; see `engine.hrm_step`."""
_TOO_MUCH = 1 << 62
"""Bytes, in place of what a pass takes that ran out of memory."""


class ReasonerSolver:
    """Runs puzzles through a checkpoint, in pieces of a few fixed sizes."""

    def __init__(
        self,
        reasoner: Reasoner,
        *,
        num_steps: int | None,
        batch_size: int,
        most_rows: int,
        noise: float = 0.0,
    ) -> None:
        """`noise`: its deviation; `batch_size`: most puzzles at once; `most_rows`: most of a forward pass."""
        self._reasoner = reasoner
        self._num_steps = num_steps
        self._noise = noise
        self.most_rows = min(most_rows, batch_size)
        """Puzzles of a piece."""
        reasoner.batch_sizes = batch_sizes(self.most_rows)

    @property
    def fingerprint(self) -> str:
        """Of the checkpoint."""
        return self._reasoner.fingerprint

    def solve(self, puzzles_NS: Grids, seeds_N: Seeds | None) -> Passes:
        """What the checkpoint says."""
        found, self.most_rows = in_pieces(self._solve, puzzles_NS, seeds_N, self.most_rows, is_out_of_memory)
        return found

    def _solve(self, puzzles_NS: Grids, seeds_N: Seeds | None) -> Passes:
        noise = None if seeds_N is None else Noise(scale=self._noise, seeds_N=seeds_N)
        grids, valid = [], []
        for last in self._reasoner.run(puzzles_NS, num_steps=self._num_steps, noise=noise):
            grids.append(last.grids_NS)
            valid.append(checked(last.grids_NS, puzzles_NS))  # while a GPU is at the next step
        return Passes(
            grids_KNS=np.stack(grids),
            valid_KN=np.stack(valid),
            q_halt_N=last.q_halt_N,
            q_continue_N=last.q_continue_N,
            halted_N=last.halts_N,
        )


def batch_sizes(most_rows: int) -> tuple[int, ...]:
    """The few sizes that batches are padded to, so that what is left over stays cheap.

    `most_rows` and its halves, and between two of these, where they are large, three more: up to `_GRAPHED` puzzles
    each size is recorded once, above it a further size costs nothing.
    """
    sizes = {most_rows}
    while most_rows > _SMALLEST_BATCH:
        half = -(-most_rows // 2)
        if half >= _GRAPHED:
            sizes |= {-(-most_rows * eighths // 8) for eighths in (5, 6, 7)}
        sizes.add(half)
        most_rows = half
    return tuple(sorted(sizes))


def open_solver(
    path: str,
    *,
    device: str,
    precision: str,
    num_steps: int | None,
    batch_size: int,
    memory_limit: float,
    noise: float = 0.0,
) -> ReasonerSolver:
    """The checkpoint in a file as a solver; on a GPU, batches are cut to what its share of the memory takes.

    Raises `WorkError` where not even a small batch fits.
    """
    reasoner = load_reasoner(path, device=device, precision=precision, seq_len=NUM_CELLS)
    rows = batch_size
    if reasoner.device.type == "cuda":
        rows = _probed_rows(reasoner, batch_size, memory_limit)
        if not rows:
            raise WorkError(
                f"{path}: a batch of {_SMALLEST_BATCH} puzzles takes more than {memory_limit:.0%} of the memory of"
                f" {device}; raise --gpu-memory-limit, or free memory"
            )
    return ReasonerSolver(reasoner, num_steps=num_steps, batch_size=batch_size, most_rows=rows, noise=noise)


def limit_memory(device: str, share: float) -> None:
    """Hold this process to a share of a GPU's memory; what asks for more runs out of memory. Does nothing on a CPU."""
    place = torch.device(device)
    if place.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(share, place)


def _probed_rows(reasoner: Reasoner, wanted: int, share: float) -> int:
    device = reasoner.device
    total = torch.cuda.get_device_properties(device).total_memory

    def peak_bytes(num_rows: int) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        puzzles = np.full((num_rows, NUM_CELLS), NUM_TOKENS - 1, dtype=np.uint8)
        try:
            for _ in reasoner.run(puzzles, num_steps=1):
                torch.cuda.synchronize(device)
        except torch.OutOfMemoryError:
            return _TOO_MUCH
        return torch.cuda.max_memory_reserved(device)

    return rows_that_fit(peak_bytes, wanted=wanted, limit_bytes=int(total * share))


def is_out_of_memory(error: Exception) -> bool:
    """Whether a smaller batch may help; gives the allocator's memory back where it may."""
    if not isinstance(error, torch.OutOfMemoryError | MemoryError):
        return False
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return True
