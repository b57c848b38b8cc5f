"""The columns that a cascade adds to those of a classifier, as Arrow has them.

Axes: M pairs.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assay.score.cascade.decide import STAGES, Answers
from assay.tasks import STAGE_COLUMNS

_TYPES = (pa.string(), *[pa.float32()] * 5, pa.bool_())
CASCADE_FIELDS = tuple(map(pa.field, STAGE_COLUMNS, _TYPES))


def cascade_arrays(answers: Answers, is_bad_M: npt.NDArray[np.bool_] | None) -> dict[str, pa.Array]:
    """These columns by name; null for rows that are bad, and what is of the second model where it was not asked."""
    good_M = np.ones(len(answers.first_M), dtype=np.bool_) if is_bad_M is None else ~is_bad_M
    asked_M = answers.goes_on_M & good_M
    columns = (
        (answers.first_M, good_M),
        (np.maximum(answers.first_M, 1 - answers.first_M), good_M),
        (answers.second_M, asked_M),
        (np.maximum(answers.second_M, 1 - answers.second_M), asked_M),
        (answers.final_M, good_M),
    )
    arrays = [
        pa.array(STAGES).take(pa.array(answers.goes_on_M.astype(np.int64), mask=~good_M)),
        *(pa.array(values_M.astype(np.float32), mask=~known_M) for values_M, known_M in columns),
        pa.array(answers.holds_M, mask=~good_M),
    ]
    return {field.name: array for field, array in zip(CASCADE_FIELDS, arrays, strict=True)}
