"""What a build of Sudokus found and made, for people and for build.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from assay.sudoku.strata import NAMES
from assay.telemetry import format_duration, format_number_of


@dataclass(frozen=True, kw_only=True, slots=True)
class ListFindings:
    """What a list of puzzles held; puzzles that are not used are counted by reason."""

    num_puzzles: int
    num_used: int
    """Those with one solution, each once."""
    num_repeated: int
    """Those that stand above already."""
    num_breaking_rules: int
    """Givens that meet."""
    num_without_solution: int
    num_with_several: int
    """Puzzles with two solutions or more."""
    num_other_lines: int
    """Lines without a puzzle."""

    def __str__(self) -> str:
        """`1,465 puzzles, 1,463 used, each with one solution; not used: 2 with several`."""
        unused = {
            "whose givens break the rules": self.num_breaking_rules,
            "without a solution": self.num_without_solution,
            "with several": self.num_with_several,
            "repeated": self.num_repeated,
        }
        parts = [f"{num:,} {what}" for what, num in unused.items() if num]
        said = f"{self.num_puzzles:,} puzzles, {self.num_used:,} used, each with one solution"
        said += f"; not used: {', '.join(parts)}" if parts else ""
        return said + (f"; {self.num_other_lines:,} lines without a puzzle" if self.num_other_lines else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class SudokuBuildReport:
    """What is in the folder, and how long it took."""

    num_rows: Mapping[str, int]
    """Rows of each split, augmented ones too."""
    num_puzzles: Mapping[str, Mapping[str, int]]
    """Puzzles before augmentation, by split and stratum."""
    num_givens: Mapping[str, float]
    """Mean number of givens by split."""
    num_grids: int
    """Solutions of the drawn splits, those that are views of each other counted once."""
    num_made: int
    """Puzzles made to choose from; 0 where lists were read."""
    num_held_back: int
    """Puzzles that no split got, since a list that is only tested on has their grid."""
    lists: Mapping[str, ListFindings] = field(default_factory=dict)
    """By file."""
    seconds: float = 0.0
    seconds_found: float = 0.0
    """Of these, until the puzzles were made or read and solved."""
    num_workers: int = 1

    def to_json(self) -> dict[str, object]:
        """What the settings decide; times and workers are left out."""
        values = asdict(self)
        return {
            name: value for name, value in values.items() if not name.startswith(("seconds", "num_workers"))
        }

    def __str__(self) -> str:
        """Counts by stratum and split, what was left out, rate and time."""
        table = [["guesses", *self.num_puzzles]]
        table += [[name, *(f"{by[name]:,}" for by in self.num_puzzles.values())] for name in NAMES]
        table.append(["puzzles", *(f"{sum(by.values()):,}" for by in self.num_puzzles.values())])
        table.append(["rows", *(f"{self.num_rows[name]:,}" for name in self.num_puzzles)])
        table.append(["givens", *(f"{self.num_givens.get(name, 0):.1f}" for name in self.num_puzzles)])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(
                [
                    row[0].ljust(widths[0]),
                    *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
                ]
            )
            for row in table
        ]
        lines += [f"{path}: {found}" for path, found in self.lists.items()]
        if self.num_held_back:
            lines.append(
                f"left out: {self.num_held_back:,} puzzles whose grid is in a list that is only tested on"
            )
        num_seen = self.num_made + sum(each.num_puzzles for each in self.lists.values())
        how = "made" if self.num_made else "read and solved"
        rate = num_seen / self.seconds_found if self.seconds_found else 0.0
        lines.append(
            f"{format_number_of(self.num_grids, 'grid')}, none in two splits; {num_seen:,} puzzles {how}, "
            f"{rate:,.0f} a second on {format_number_of(self.num_workers, 'thread')}; "
            f"{format_duration(self.seconds)} in all"
        )
        return "\n".join(lines)
