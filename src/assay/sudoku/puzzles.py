"""The arrays of a split of puzzles, in the layout that HRM and TRM read and write.

    DATA/identifiers.json               names of puzzle identifiers; one for Sudoku
    DATA/SPLIT/dataset.json             `Description`
    DATA/SPLIT/all__inputs.npy          uint8 or int64, a row a puzzle
    DATA/SPLIT/all__labels.npy          the same shape: solutions
    DATA/SPLIT/all__puzzle_identifiers.npy, all__puzzle_indices.npy, all__group_indices.npy   int32

A group is what augmentation made of one puzzle: puzzles `group_indices[g]` to `group_indices[g + 1]`. A puzzle is rows
`puzzle_indices[p]` to `puzzle_indices[p + 1]`: one row each for Sudoku. Mazes have the same layout and other sizes.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.data.syncing import replace_local
from assay.errors import SourceError
from assay.sudoku.grids import NUM_CELLS, NUM_TOKENS, Tokens

SET = "all"
"""The one set of a split, by which its files are named."""
DESCRIPTION_FILE = "dataset.json"
IDENTIFIERS_FILE = "identifiers.json"
DTYPES = ("uint8", "int32", "int64")
"""What inputs and labels may be stored as: uint8, and int64 where the official builder augmented."""
ROWS_AT_A_TIME = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitDescription:
    """What `dataset.json` says of a split; the names are the official ones."""

    pad_id: int = 0
    ignore_label_id: int | None = 0
    """A label that takes no part in the loss."""
    blank_identifier_id: int = 0
    """Identifier of rows that only fill a batch up."""
    vocab_size: int = NUM_TOKENS
    seq_len: int = NUM_CELLS
    num_puzzle_identifiers: int = 1
    total_groups: int
    mean_puzzle_examples: float = 1.0
    """Rows a puzzle, on average."""
    sets: tuple[str, ...] = (SET,)


@dataclass(frozen=True, kw_only=True, slots=True)
class PuzzleSplit:
    """Puzzles and their solutions, N rows of `seq_len` tokens; checked where it is made."""

    inputs: Tokens
    """N x seq_len: blanks are to be filled. Inputs and labels of a file are mapped, not read."""
    labels: Tokens
    """N x seq_len: the solutions, in the same type."""
    puzzle_identifiers: NDArray[np.int32]
    """One a puzzle: its row in the table of puzzle embeddings; 0 for Sudoku."""
    puzzle_indices: NDArray[np.int32]
    """The first row of each puzzle, and N."""
    group_indices: NDArray[np.int32]
    """The first puzzle of each group, and the number of puzzles."""
    description: SplitDescription

    def __post_init__(self) -> None:
        """Raise `SourceError` for the first array of a wrong type, shape, order or range."""
        size = self.description.seq_len
        for name in ("inputs", "labels"):
            array = getattr(self, name)
            if str(array.dtype) not in DTYPES:
                raise SourceError(f"{name} are {array.dtype}; they must be {', '.join(DTYPES)}")
            if array.ndim != 2 or array.shape[1] != size:
                raise SourceError(f"{name} have the shape {array.shape}; they must have {size} tokens a row")
            _check_tokens(name, array, self.description.vocab_size)
        if self.inputs.shape != self.labels.shape or self.inputs.dtype != self.labels.dtype:
            raise SourceError(
                f"inputs are {self.inputs.dtype} {self.inputs.shape}, labels {self.labels.dtype} "
                f"{self.labels.shape}; a label belongs to each input, in the same type"
            )
        _check_starts("puzzle_indices", self.puzzle_indices, end=len(self.inputs), of="rows")
        _check_starts("group_indices", self.group_indices, end=self.num_puzzles, of="puzzles")
        identifiers, known = self.puzzle_identifiers, self.description.num_puzzle_identifiers
        if str(identifiers.dtype) != "int32" or identifiers.shape != (self.num_puzzles,):
            raise SourceError(
                f"puzzle_identifiers are {identifiers.dtype} {identifiers.shape}; they must be int32, "
                f"one for each of {self.num_puzzles:,} puzzles"
            )
        if identifiers.size and not (identifiers.min() >= 0 and identifiers.max() < known):
            raise SourceError(
                f"puzzle_identifiers are {identifiers.min()} to {identifiers.max()}; they must be 0 to {known - 1}"
            )
        if self.description.total_groups != self.num_groups:
            raise SourceError(
                f"total_groups is {self.description.total_groups:,} and group_indices have {self.num_groups:,}; "
                "write the split again"
            )

    @property
    def num_rows(self) -> int:
        """Rows, augmented ones too."""
        return len(self.inputs)

    @property
    def num_puzzles(self) -> int:
        """Puzzles, each with one identifier."""
        return len(self.puzzle_indices) - 1

    @property
    def num_groups(self) -> int:
        """Groups: puzzles before augmentation."""
        return len(self.group_indices) - 1


def sudoku_split(
    inputs: Tokens, labels: Tokens, *, group_sizes: NDArray[np.integer] | None = None
) -> PuzzleSplit:
    """A split of N Sudokus, one row a puzzle; `group_sizes` says how many rows in a row stem from one puzzle."""
    num_rows = len(inputs)
    sizes = np.ones(num_rows, np.int32) if group_sizes is None else group_sizes
    return PuzzleSplit(
        inputs=inputs,
        labels=labels,
        puzzle_identifiers=np.zeros(num_rows, np.int32),
        puzzle_indices=np.arange(num_rows + 1, dtype=np.int32),
        group_indices=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32),
        description=SplitDescription(total_groups=len(sizes)),
    )


def need_sudoku(puzzles: PuzzleSplit, where: str) -> None:
    """Raise `SourceError` where puzzles are something other than Sudokus (mazes, ARC); `where` names them."""
    found = puzzles.description
    if (found.seq_len, found.vocab_size) != (NUM_CELLS, NUM_TOKENS):
        raise SourceError(
            f"{where} has {found.seq_len} cells and {found.vocab_size} tokens; Sudokus have {NUM_CELLS} and "
            f"{NUM_TOKENS}; name a folder of Sudokus"
        )


def read_split(data: Path, split: str) -> PuzzleSplit:
    """The split of that name of a data folder; its inputs and labels are mapped from the files.

    `SourceError`, in one line, where a file is missing, damaged or does not fit the others.
    """
    folder = data / split
    if not folder.is_dir():
        there = sorted(each.parent.name for each in data.glob(f"*/{DESCRIPTION_FILE}"))
        way_out = f"it has {', '.join(there)}" if there else "name a folder that `assay sudoku build` wrote"
        raise SourceError(f"{data} has no split {split}; {way_out}")
    try:
        return PuzzleSplit(
            inputs=_array(folder, "inputs", mapped=True),
            labels=_array(folder, "labels", mapped=True),
            puzzle_identifiers=_array(folder, "puzzle_identifiers"),
            puzzle_indices=_array(folder, "puzzle_indices"),
            group_indices=_array(folder, "group_indices"),
            description=_description(folder / DESCRIPTION_FILE),
        )
    except SourceError as error:
        raise SourceError(f"{folder}: {error}") from error


def write_split(data: Path, split: str, puzzles: PuzzleSplit) -> None:
    """Write a split, and the names of identifiers where the folder has none; the other splits stay."""
    folder = data / split
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices"):
        np.save(folder / f"{SET}__{name}.npy", getattr(puzzles, name))
    replace_local(folder / DESCRIPTION_FILE, json.dumps(asdict(puzzles.description)).encode())
    if not (data / IDENTIFIERS_FILE).exists():
        names = ["<blank>", *map(str, range(1, puzzles.description.num_puzzle_identifiers))]
        replace_local(data / IDENTIFIERS_FILE, json.dumps(names).encode())


def _array(folder: Path, name: str, *, mapped: bool = False) -> NDArray[Any]:
    path = folder / f"{SET}__{name}.npy"
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError:
        raise SourceError(f"no file {path.name}; copy the whole split, or build it again") from None
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(f"{path.name} cannot be read ({error}); build the split again") from error
    return array


def _description(path: Path) -> SplitDescription:
    try:
        given = json.loads(path.read_bytes())
        known = {each.name for each in fields(SplitDescription)}
        values = {name: value for name, value in given.items() if name in known}
        found = SplitDescription(**{**values, "sets": tuple(values.get("sets", (SET,)))})
    except FileNotFoundError:
        raise SourceError(f"no file {path.name}; copy the whole split, or build it again") from None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise SourceError(f"{path.name} cannot be read ({error}); build the split again") from error
    counts: tuple[object, ...] = (
        found.vocab_size,
        found.seq_len,
        found.num_puzzle_identifiers,
        found.total_groups,
    )
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise SourceError(
            f"{path.name} has vocab_size, seq_len, identifiers, groups {counts}; they are counts"
        )
    if found.sets != (SET,):
        raise SourceError(f"{path.name} has the sets {', '.join(found.sets)}; only the set {SET} is read")
    return found


def _check_tokens(name: str, array: Tokens, vocab_size: int) -> None:
    for start in range(0, len(array), ROWS_AT_A_TIME):
        some = array[start : start + ROWS_AT_A_TIME]
        least, most = int(some.min()), int(some.max())
        if least < 0 or most >= vocab_size:
            raise SourceError(
                f"{name} have tokens from {least} to {most}; they must be 0 to {vocab_size - 1}"
            )


def _check_starts(name: str, starts: NDArray[np.int32], *, end: int, of: str) -> None:
    if str(starts.dtype) != "int32" or starts.ndim != 1 or not len(starts):
        raise SourceError(f"{name} are {starts.dtype} {starts.shape}; they must be int32, in one row")
    if starts[0] != 0 or starts[-1] != end or (np.diff(starts) < 1).any():
        raise SourceError(
            f"{name} go from {starts[0]:,} to {starts[-1]:,}; they must rise from 0 to {end:,} {of}"
        )
