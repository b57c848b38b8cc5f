"""Lists of puzzles, as the world keeps them: a puzzle a line, in 81 characters."""

import gzip
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from assay.errors import SourceError
from assay.sudoku.grids import tokens_of

_PUZZLE = re.compile(r"(?<![1-9.0_*])[1-9.0_*]{81}(?![1-9.0_*])", re.ASCII)
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, kw_only=True, slots=True)
class PuzzleList:
    """What a file holds."""

    puzzles: NDArray[np.uint8]
    """N x 81 tokens, in the order of the file."""
    num_other_lines: int
    """Lines without a puzzle, empty ones and those that start with # aside: a header is one."""


def read_list(path: Path) -> PuzzleList:
    """The puzzles of a text or gzip file: of each line the first 81 characters in a row that make a puzzle.

    1 to 9 are givens, and `.`, `0`, `_`, `*` blanks, so CSV files with a column of puzzles before their solutions are
    read too. `SourceError` where the file cannot be read or has no puzzle.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content.startswith(_GZIP) else content).decode(
            "utf-8-sig", "replace"
        )
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"{path} cannot be read ({reason}); name a file of puzzles") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = [match.group() for line in lines if (match := _PUZZLE.search(line))]
    if not found:
        raise SourceError(
            f"{path} has no line with a puzzle of 81 characters (1 to 9, and . or 0 for a blank)"
        )
    return PuzzleList(puzzles=tokens_of(found), num_other_lines=len(lines) - len(found))
