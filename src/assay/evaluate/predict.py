"""Labelled rows to what a bundle says of them: by the path of `assay score`, so with its numbers.

The calibrated outputs are the float32 values that a scored column holds, and a prediction is the one
in the `prediction` column.

Axes: N rows, C outputs.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from assay.bundle.bundle import Bundle
from assay.data.rows import SourceRows
from assay.engine.engine import Engine
from assay.errors import InputError
from assay.labelled.rows import LabelledRows
from assay.metrics import FloatArray, IntArray
from assay.score.chunks import chunks
from assay.score.decide import decide, score_columns
from assay.score.scorer import Scored, Scorer
from assay.tokenize.encode import Encoder

BATCH_ROWS = 2_048


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedRows:
    """What a bundle says of rows."""

    outputs_NC: FloatArray
    """Calibrated probabilities, or a regression's values [N, 1]."""
    plain_NC: FloatArray
    """The same before calibration."""
    predicted: IntArray
    """Index of the predicted label [N]; multi-label 0/1 [N, C]; a regression's zeros [N]."""
    num_tokens: int
    """Tokens of all rows."""
    num_truncated: int
    """Rows whose text was cut."""


def predict(
    bundle: Bundle,
    engine: Engine,
    encoder: Encoder,
    rows: LabelledRows,
    *,
    max_batch_tokens: int | None = None,
) -> PredictedRows:
    """What the bundle says of the rows, in their order.

    Raises `InputError` where a row cannot be scored: a metric of the others would be of another test.
    """
    scorer = Scorer(bundle, engine, encoder, max_batch_tokens=max_batch_tokens)
    uncalibrated = None
    if bundle.calibration is not None:
        plain_bundle = replace(bundle, calibration=None)
        uncalibrated = Scorer(plain_bundle, engine, encoder, max_batch_tokens=max_batch_tokens)
    scored, plain = [], []
    for chunk in chunks(_batches(rows), encoder, max_tokens=None):
        forwarded = scorer.forward(chunk)
        scored.append(scorer.decide(forwarded))
        plain.append(scored[-1] if uncalibrated is None else uncalibrated.decide(forwarded))
    _refuse_errors(scored, rows.num_rows)
    outputs_NC = _outputs(scored, bundle)
    return PredictedRows(
        outputs_NC=outputs_NC.astype(np.float64),
        plain_NC=_outputs(plain, bundle).astype(np.float64),
        predicted=_predicted(scored, bundle, outputs_NC),
        num_tokens=sum(pc.sum(each.columns["num_tokens"]).as_py() for each in scored),
        num_truncated=sum(each.columns["truncated"].true_count for each in scored),
    )


def _batches(rows: LabelledRows) -> Iterator[SourceRows]:
    for start in range(0, rows.num_rows, BATCH_ROWS):
        texts = rows.texts[start : start + BATCH_ROWS]
        pairs = None if rows.text_pairs is None else rows.text_pairs[start : start + BATCH_ROWS]
        yield SourceRows(
            start=start,
            num_rows=len(texts),
            texts=pa.array(texts, pa.large_string()),
            text_pairs=None if pairs is None else pa.array(pairs, pa.large_string()),
        )


def _refuse_errors(scored: Sequence[Scored], num_rows: int) -> None:
    codes = Counter(code for each in scored for code in each.errors.values())
    if codes:
        found = ", ".join(f"{count:,} {code}" for code, count in codes.most_common())
        raise InputError(
            f"{found} of {num_rows:,} rows cannot be scored; a metric of the others would be of another test;"
            " drop or mend these rows"
        )


def _outputs(scored: Sequence[Scored], bundle: Bundle) -> npt.NDArray[np.float32]:
    names = score_columns(bundle.task, bundle.labels)
    names = names[1:] if bundle.task == "single_label" else names
    return np.concatenate(
        [np.stack([each.columns[name].to_numpy() for name in names], axis=1) for each in scored]
    )


def _predicted(scored: Sequence[Scored], bundle: Bundle, outputs_NC: npt.NDArray[np.float32]) -> IntArray:
    if bundle.task == "regression":
        return np.zeros(len(outputs_NC), dtype=np.int64)
    if bundle.task == "multi_label":
        threshold = None if bundle.calibration is None else bundle.calibration.threshold
        return np.asarray(decide(outputs_NC, bundle.task, bundle.labels, threshold).holds_NC, dtype=np.int64)
    labels = pa.array(bundle.labels, pa.string())
    found = [pc.index_in(each.columns["prediction"], value_set=labels).to_numpy() for each in scored]
    return np.concatenate(found).astype(np.int64)
