"""What members answered, as the rows of a part: one for each puzzle and member that ran on it.

A member that failed has a row with an error for each puzzle that it should have answered; a puzzle that was settled
has no row for the members behind. Axes: N puzzles, M members, R rows, S cells.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from assay.data.sources import SOURCE_ROW
from assay.ensemble.grids import Bools, Grids
from assay.ensemble.outcomes import Outcomes

FAILED = "member_failed"
"""Error code of a puzzle whose member failed."""
_CHARACTERS = np.frombuffer(b"#.123456789", dtype=np.uint8)
"""Of the tokens: padding, a blank, nine digits."""
SCHEMA = pa.schema(
    [
        pa.field(SOURCE_ROW, pa.int64(), nullable=False),
        pa.field("member", pa.int32(), nullable=False),
        ("right", pa.bool_()),
        ("valid", pa.bool_()),
        ("first_valid_step", pa.int32()),
        ("first_valid_right", pa.bool_()),
        ("halted", pa.bool_()),
        ("q_halt", pa.float32()),
        ("q_continue", pa.float32()),
        ("grid", pa.string()),
        ("error", pa.string()),
    ]
)


def to_batch(outcomes: Outcomes, first_row: int) -> pa.RecordBatch:
    """The rows of a part; `first_row` is the source row of the first puzzle."""
    at_R, member_R = np.nonzero(outcomes.ran_NM | outcomes.failed_NM)
    place = (at_R, member_R)
    failed_R = outcomes.failed_NM[place]
    step_R = outcomes.first_valid_step_NM[place]

    def column(values: NDArray[np.generic], *, unless: Bools = failed_R) -> pa.Array:
        return pa.array(values[place], mask=unless)

    columns = [
        pa.array(at_R + first_row, pa.int64()),
        pa.array(member_R, pa.int32()),
        column(outcomes.right_NM),
        column(outcomes.valid_NM),
        column(outcomes.first_valid_step_NM, unless=failed_R | (step_R == 0)),
        column(outcomes.first_valid_right_NM, unless=failed_R | (step_R == 0)),
        column(outcomes.halted_NM),
        column(outcomes.q_halt_NM),
        column(outcomes.q_continue_NM),
        grids_to_text(outcomes.grids_NMS[place], failed_R),
        pa.array(np.where(failed_R, FAILED, ""), pa.string(), mask=~failed_R),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def from_table(
    table: pa.Table, first_row: int, *, num_puzzles: int, num_members: int, num_cells: int
) -> Outcomes:
    """What `to_batch` made rows of, for the puzzles from `first_row` on."""
    found = Outcomes.none(num_puzzles, num_members, num_cells)
    place = table.column(SOURCE_ROW).to_numpy() - first_row, table.column("member").to_numpy()
    failed_R = ~table.column("error").is_null().to_numpy()
    found.failed_NM[place] = failed_R
    found.ran_NM[place] = ~failed_R

    def take(array: NDArray[np.generic], name: str) -> None:
        values = table.column(name).combine_chunks()
        array[place] = values.fill_null(0 if array.dtype != np.bool_ else False).to_numpy(
            zero_copy_only=False
        )

    take(found.right_NM, "right")
    take(found.valid_NM, "valid")
    take(found.first_valid_step_NM, "first_valid_step")
    take(found.first_valid_right_NM, "first_valid_right")
    take(found.halted_NM, "halted")
    take(found.q_halt_NM, "q_halt")
    take(found.q_continue_NM, "q_continue")
    found.grids_NMS[place] = text_to_grids(table.column("grid").combine_chunks(), num_cells)
    return found


def grids_to_text(grids_RS: Grids, is_null_R: Bools) -> pa.Array:
    """Grids as strings of a character a cell: digits, `.` for a blank, `#` for padding."""
    num_rows, num_cells = grids_RS.shape
    characters = _CHARACTERS[grids_RS]
    offsets = np.arange(num_rows + 1, dtype=np.int32) * num_cells
    whole = pa.StringArray.from_buffers(num_rows, pa.py_buffer(offsets), pa.py_buffer(characters.tobytes()))
    return pc.if_else(pa.array(is_null_R), pa.scalar(None, pa.string()), whole)


def text_to_grids(texts: pa.Array, num_cells: int) -> Grids:
    """What `grids_to_text` made strings of; zeros for null."""
    tokens = np.zeros(256, dtype=np.uint8)
    tokens[_CHARACTERS] = np.arange(len(_CHARACTERS))
    content = "".join(texts.fill_null("#" * num_cells).to_pylist()).encode()
    return tokens[np.frombuffer(content, dtype=np.uint8)].reshape(len(texts), num_cells)
