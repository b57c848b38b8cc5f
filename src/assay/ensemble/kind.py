"""The ensemble run as a kind: what makes its outcomes, and what its workers need."""

from assay.ensemble.settings import Settled
from assay.runs.kinds import RunKind, RunRecord
from assay.sudoku.views import View


class MemberIdentity(RunRecord):
    """A checkpoint and a view."""

    checkpoint: str
    """Fingerprint."""
    digits: tuple[int, ...]
    """What the view shows each digit as, from 1 to 9."""
    cells: tuple[int, ...] | None
    """The cell of the puzzle that each cell of the view shows; None where they stay."""

    noise_seed: int | None
    """Which noise of several; None without noise."""

    @property
    def view(self) -> View:
        """The view itself."""
        return View(digits=self.digits) if self.cells is None else View(digits=self.digits, cells=self.cells)


class EnsembleIdentity(RunRecord):
    """All that can change an outcome, beside the puzzles."""

    solutions: str
    """Fingerprint of the labels."""
    members: tuple[MemberIdentity, ...]
    """In the order in which they run: a puzzle that one settles is left out of those behind it."""
    settled: Settled
    noise: float
    """Deviation of the noise on the latent state."""
    num_steps: int | None
    """None: as many as each checkpoint was trained for."""
    precision: str
    batch_size: int
    """Puzzles that are run together: another batch may round differently."""


class MemberRecord(RunRecord):
    """Where a member is and what it is called."""

    name: str
    """`humble-otter/step_300 shift 2`."""
    path: str
    """File of its checkpoint, absolute."""


class EnsembleRecord(RunRecord):
    """What the workers of an ensemble run need besides."""

    data: str
    """Folder of the puzzles, absolute."""
    split: str
    members: tuple[MemberRecord, ...]
    gpu_memory_limit: float


ENSEMBLE = RunKind(name="ensemble", identity=EnsembleIdentity, settings=EnsembleRecord, rows_out="any_number")
