"""The columns of a scored part, as Arrow has them. Imports no torch: planning a run must start at once."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assay.bundle.bundle import Bundle
from assay.outcome.decide import Decider, Decisions
from assay.score.cascade.bundle import Cascade
from assay.score.cascade.columns import CASCADE_FIELDS
from assay.tasks import ColumnType

_TYPES: dict[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "strings": pa.list_(pa.string()),
    "float32": pa.float32(),
    "int32": pa.int32(),
}


def part_schema(id_: pa.Field, bundle: Bundle) -> pa.Schema:
    """The columns of a scored part; the footer says which model and calibration made them."""
    calibrated: str = "none" if bundle.calibration is None else bundle.calibration.method
    if isinstance(bundle, Cascade):
        calibrated = "cascade"
    return pa.schema(
        [id_, *bundle_fields(bundle)],
        metadata={
            "assay.bundle": bundle.fingerprint,
            "assay.task": bundle.task,
            "assay.calibration": calibrated,
        },
    )


def bundle_fields(bundle: Bundle) -> list[pa.Field]:
    """The columns of a bundle's scores, those that a cascade adds included."""
    return [*score_fields(bundle.decider), *(CASCADE_FIELDS if isinstance(bundle, Cascade) else ())]


def score_fields(decider: Decider) -> list[pa.Field]:
    """The columns of a scored part, save the first, which names the row."""
    return [
        pa.field("num_tokens", pa.int32(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("error", pa.string()),
        *(pa.field(name, _TYPES[kind]) for name, kind in decider.columns.items()),
    ]


def score_arrays(
    decider: Decider, decisions: Decisions, is_bad_N: npt.NDArray[np.bool_] | None
) -> dict[str, pa.Array]:
    """The score columns by name; null for rows that are bad."""
    names = pa.array(decider.labels, pa.string())
    found = {}
    for name, kind in decider.columns.items():
        values = decisions.columns[name]
        if kind == "strings":
            found[name] = _label_lists(values, names, is_bad_N)
        elif kind == "string":
            found[name] = names.take(pa.array(values, mask=is_bad_N))
        else:
            found[name] = pa.array(values, mask=is_bad_N)
    return found


def _label_lists(
    holds_NC: npt.NDArray[np.generic], names: pa.Array, is_bad_N: npt.NDArray[np.bool_] | None
) -> pa.Array:
    """The names of the labels that hold in each row, in the order of the outputs."""
    row_L, label_L = np.nonzero(holds_NC)
    offsets = np.searchsorted(row_L, np.arange(len(holds_NC) + 1)).astype(np.int32)
    mask = None if is_bad_N is None else pa.array(is_bad_N)
    return pa.ListArray.from_arrays(offsets, names.take(pa.array(label_L)), mask=mask)
