"""The columns of a scored part. Imports no torch: planning a run must start at once."""

import pyarrow as pa

from assay.bundle.bundle import Bundle
from assay.score.decide import INT_SCORE, score_columns


def part_schema(id_: pa.Field, bundle: Bundle) -> pa.Schema:
    """The columns of a scored part; the footer says which model and calibration made them."""
    calibrated = "none" if bundle.calibration is None else bundle.calibration.method
    return pa.schema(
        [
            id_,
            *score_fields(bundle),
        ],
        metadata={
            "assay.bundle": bundle.fingerprint,
            "assay.task": bundle.task,
            "assay.calibration": calibrated,
        },
    )


def score_fields(bundle: Bundle) -> list[pa.Field]:
    """The columns of a scored part, save the first, which names the row."""
    prediction = [pa.field("prediction", pa.string())] if bundle.task == "single_label" else []
    has_interval = bundle.calibration is not None and bundle.calibration.half_width is not None
    names = score_columns(bundle.task, bundle.labels, has_interval=has_interval)
    scores = [pa.field(name, pa.float32()) for name in names]
    whole = [pa.field(INT_SCORE, pa.int32())] if bundle.int_score is not None else []
    return [
        pa.field("num_tokens", pa.int32(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("error", pa.string()),
        *prediction,
        *scores,
        *whole,
    ]
