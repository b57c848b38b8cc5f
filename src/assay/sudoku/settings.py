"""What a user may set for `assay sudoku build`. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass, field

from assay.errors import UsageError
from assay.settings import AUTO_OR_COUNT, COUNT, Settings, positional, within

DEFAULT_NUM_PUZZLES = 10_000


@dataclass(frozen=True, kw_only=True)
class SudokuBuildSettings(Settings):
    """Make or read Sudokus with one solution, rate, split and augment them, in the layout that HRM and TRM read."""

    out: str = field(metadata=positional("OUT"))
    """Folder that appears once all is done: a folder a split, identifiers.json and build.json."""
    num_puzzles: int | None = field(default=None, metadata=COUNT)
    """Puzzles of all splits before augmentation; left out: 10,000 made ones, or all of the lists."""
    puzzles: tuple[str, ...] = ()
    """Lists to read instead of making puzzles: lines with 81 characters each, gzip too."""
    test_puzzles: tuple[str, ...] = ()
    """Lists that are only tested on, each a split by the name of its file; no other split has a grid of theirs."""
    strata: tuple[str, ...] = ()
    """Shares by guesses of the solver (0, 1-4, 5-9, 10-29, 30+), such as 0=0.5 10-29=0.5; left out: as they come."""
    validation_share: float = field(default=0.1, metadata=within(at_least=0, below=1))
    """Share of the puzzles in the split validation; 0 for no such split."""
    test_share: float = field(default=0.1, metadata=within(at_least=0, below=1))
    """Share of the puzzles in the split test; 0 for no such split."""
    augment: int = field(default=0, metadata=within(at_least=0))
    """Random views added to each training puzzle; HRM's own training set has 1,000 each."""
    hints: bool = False
    """Add each training row once more, with a random number of its blanks filled in."""
    seed: int = field(default=0, metadata=within(at_least=0, below=1 << 63))
    """Decides everything; the number of workers decides nothing."""
    workers: str = field(default="auto", metadata=AUTO_OR_COUNT)
    """Threads that make and solve: auto for one a core."""

    def check(self) -> None:
        """Raise `UsageError` where values do not go together."""
        if self.validation_share + self.test_share >= 1:
            raise UsageError(
                f"validation_share={self.validation_share}, test_share={self.test_share}; together they must be "
                "below 1 to leave training puzzles; make them smaller"
            )

    @property
    def shares(self) -> dict[str, float]:
        """The share of each split, training first, without empty ones."""
        held_out = {"validation": self.validation_share, "test": self.test_share}
        kept = {name: share for name, share in held_out.items() if share > 0}
        return {"train": 1 - sum(kept.values()), **kept}
