"""Labelled rows to logits, by the path of a run: calibration and evaluation see what scores are made of.

Axes: N rows, C outputs.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assay.data.rows import SourceRows
from assay.embed.forward import NOT_FINITE, with_not_finite
from assay.errors import InputError
from assay.labelled.rows import LabelledRows
from assay.score.scorer import Scorer

BATCH_ROWS = 2_048
Advance = Callable[[float], None]
"""Told the share of the rows that are done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledLogits:
    """What the model gives for labelled rows."""

    logits_NC: npt.NDArray[np.float32]
    """Uncalibrated, views reduced, in the order of the rows; finite but for unscored rows."""
    unscored: Mapping[int, str]
    """Why a row could not be scored, as an error code, by its place."""
    num_tokens: int
    """Tokens of all rows."""
    num_truncated: int
    """Rows whose text was cut."""


def labelled_logits(
    scorer: Scorer,
    rows: LabelledRows,
    *,
    of_members: bool = False,
    advance: Advance = lambda _share: None,
) -> LabelledLogits:
    """The logits of the rows, in their order; `of_members` is as in `logits_or_reasons`.

    Raises `InputError` where a row cannot be scored: figures must be of all rows.
    """
    found = logits_or_reasons(scorer, rows, of_members=of_members, advance=advance)
    codes = Counter(found.unscored.values())
    num_odd = codes.pop(NOT_FINITE, 0)
    if codes:
        listed = ", ".join(f"{count:,} {code}" for code, count in codes.most_common())
        raise InputError(
            f"{listed} of {rows.num_rows:,} rows cannot be scored, and figures must be of all rows;"
            " drop or fix these"
        )
    if num_odd:
        raise InputError(
            f"{num_odd:,} of {rows.num_rows:,} rows have logits that are not finite, and figures must be of all"
            " rows; check the model's weights and the precision"
        )
    return found


def logits_or_reasons(
    scorer: Scorer,
    rows: LabelledRows,
    *,
    of_members: bool = False,
    advance: Advance = lambda _share: None,
) -> LabelledLogits:
    """The logits of the rows, in their order; a row that cannot be scored has its reason in `unscored`.

    `of_members`: of an ensemble those of its members side by side, [N, M * C], in place of the pooled ones.
    """
    logits, unscored = [], dict[int, str]()
    num_tokens = num_truncated = 0
    for chunk in scorer.chunks(_batches(rows)):
        forwarded = scorer.forward(chunk)
        logits_NC = scorer.forwarder.outputs(forwarded) if of_members else scorer.logits(forwarded)
        logits.append(logits_NC)
        errors = with_not_finite(chunk.errors, np.asarray(np.isfinite(logits_NC).all(axis=1)))
        unscored |= {chunk.start + row: code for row, code in errors.items()}
        num_tokens += int(chunk.row_tokens.sum())
        num_truncated += int(chunk.row_truncated.sum())
        advance((chunk.start + len(logits_NC)) / rows.num_rows)
    return LabelledLogits(
        logits_NC=np.concatenate(logits),
        unscored=unscored,
        num_tokens=num_tokens,
        num_truncated=num_truncated,
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
