"""What a user may set for `assay ensemble`. Imports nothing heavy: the command line is made from it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from assay.engine.settings import CpuThreads
from assay.errors import UsageError
from assay.runs.settings import RunPlace
from assay.settings import COUNT, positional, within

Settled = Literal["checked", "right", "never"]
ViewKind = Literal["shift", "digits", "symmetry"]
NUM_VIEWS: Mapping[ViewKind, int] = {
    "shift": 9,
    "digits": math.factorial(9),
    "symmetry": math.factorial(9) * 2 * 6**8,
}
"""How many views of each kind there are."""


@dataclass(frozen=True, kw_only=True)
class EnsembleSettings(RunPlace, CpuThreads):
    """Evaluate checkpoints times permutations on puzzles."""

    data: str = field(metadata=positional("DATA"))
    """Folder of puzzles in the layout of HRM and TRM, or of one split of them."""
    checkpoints: tuple[str, ...]
    """Checkpoints with commas between them: step_N files, or folders, whose largest step counts."""
    run: str = "ensemble-run"
    """Directory or URL of the run; run the same command again to continue it."""
    split: str = "test"
    """Split of DATA."""
    permutes: int = field(default=1, metadata=COUNT)
    """Views of the puzzles for each checkpoint, the puzzles as they are among them."""
    views: ViewKind = "shift"
    """shift: digits shifted by 0, 1, ..., 9 in all; digits: drawn relabelings; symmetry: rows and columns moved too."""
    seed: int = field(default=0, metadata=within(at_least=0))
    """Seed of the views that are drawn."""
    settled: Settled = "checked"
    """When later members leave a puzzle out: once a grid keeps its rules and givens, once one is right, or never."""
    num_steps: int | None = field(default=None, metadata=COUNT)
    """Steps of each pass; by default as many as the checkpoint was trained for."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """fp32 or bf16; auto: bf16 on a GPU, fp32 on a CPU."""
    batch_size: int | None = field(default=None, metadata=COUNT)
    """Puzzles of a batch; by default 2323, or all where there are fewer."""
    num_batch: int | None = field(default=None, metadata=COUNT)
    """Batches to do, the first ones; by default all."""
    max_workers: int | None = field(default=None, metadata=COUNT)
    """Worker processes at the most; by default one a GPU, or one on a CPU."""
    gpu_memory_limit: float = field(default=0.9, metadata=within(above=0, at_most=1))
    """Share of a GPU's memory that its worker may take; batches are run in pieces that fit."""
    output: str | None = None
    """JSON file for the results."""
    report: str | None = None
    """HTML file that shows them."""
    retry_failed: bool = False
    """Do the batches again in which a member failed."""
    dry_run: bool = False
    """Print the plan and do nothing."""

    @property
    def checkpoint_paths(self) -> tuple[str, ...]:
        """Each checkpoint's path; one that is there as it stands keeps its commas."""
        found: list[str] = []
        for value in self.checkpoints:
            several = [each.strip() for each in value.split(",") if each.strip()]
            found += [value] if Path(value).exists() else several
        return tuple(found)

    @property
    def num_members(self) -> int:
        """Checkpoints times views."""
        return len(self.checkpoint_paths) * self.permutes

    def check(self) -> None:
        """Raise `UsageError` where values do not go together."""
        most = NUM_VIEWS[self.views]
        if self.permutes > most:
            other = ", or --views symmetry" if self.views != "symmetry" else ""
            raise UsageError(
                f"permutes is {self.permutes:,}; there are {most:,} views of the kind {self.views}; set {most:,} or"
                f" less{other}"
            )
        if not self.checkpoint_paths:
            raise UsageError("checkpoints name no file; give paths with commas between them")
        for name, ending in (("output", ".json"), ("report", ".html")):
            value = getattr(self, name)
            if value is not None and not value.endswith(ending):
                raise UsageError(f"{name} is {value}; it is a {ending} file; name such a file")
