"""Lists of puzzles: text and gzip, plain lines and columns."""

import gzip

import pytest

from assay.errors import SourceError
from assay.sudoku.grids import lines_of
from assay.sudoku.lists import read_list

PUZZLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
SOLUTION = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"


@pytest.mark.parametrize(
    ("content", "num_other_lines"),
    [
        (f"{PUZZLE}\n", 0),
        (f"{PUZZLE}", 0),
        (f"\ufeff# name\n\n{PUZZLE}\r\n", 0),
        (f"{PUZZLE.replace('.', '0')} # from a book\n", 0),
        (f"source,question,answer,rating\nweb,{PUZZLE},{SOLUTION},7\n", 1),
        (f"{PUZZLE}1\n{PUZZLE[1:]}\n{PUZZLE}\n", 2),
    ],
)
@pytest.mark.parametrize("is_zipped", [False, True])
def test_a_line_with_a_puzzle_is_read(tmp_path, content, num_other_lines, is_zipped):
    """The first 81 characters in a row; longer and shorter rows are not puzzles, and are counted."""
    path = tmp_path / "list.txt"
    path.write_bytes(gzip.compress(content.encode()) if is_zipped else content.encode())
    found = read_list(path)
    assert lines_of(found.puzzles) == [PUZZLE]
    assert found.num_other_lines == num_other_lines


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no line with a puzzle of 81 characters"),
        (b"hello\n", "no line with a puzzle of 81 characters"),
        (gzip.compress(PUZZLE.encode())[:-9], "cannot be read"),
        (b"\x1f\x8bhello", "cannot be read"),
    ],
)
def test_a_file_without_puzzles_is_refused(tmp_path, content, said):
    """Empty, other text, cut off: one line that names the file."""
    path = tmp_path / "list.gz"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=said) as caught:
        read_list(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file_is_named(tmp_path):
    """A folder is not a list either."""
    with pytest.raises(SourceError, match=r"nowhere\.txt cannot be read"):
        read_list(tmp_path / "nowhere.txt")
    with pytest.raises(SourceError, match="cannot be read"):
        read_list(tmp_path)
