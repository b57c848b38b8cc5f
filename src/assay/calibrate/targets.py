"""What every fit needs of its rows: finite logits, targets of the right shape, both sides of each label.

Pure. Axes: N rows, C outputs. Targets are class indices [N] (single-label), 0/1 [N, C] (multi-label)
or numbers [N] (regression).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from assay.errors import InputError
from assay.metrics import FloatArray
from assay.tasks import Task

TargetArray = NDArray[np.int64] | FloatArray


def check_logits_and_targets(
    logits_NC: ArrayLike, targets: ArrayLike, task: Task
) -> tuple[FloatArray, TargetArray]:
    """Both as arrays of 64 bits; raises `InputError` for shapes, labels or values that no fit can use."""
    logits, given = np.asarray(logits_NC, dtype=np.float64), np.asarray(targets)
    least = 2 if task is Task.SINGLE_LABEL else 1
    wanted = logits.shape if task is Task.MULTI_LABEL else logits.shape[:1]
    if logits.ndim != 2 or logits.shape[1] < least or given.shape != wanted or len(logits) == 0:
        raise InputError(
            f"shapes {logits.shape} and {given.shape}; calibration needs logits [N, C] and targets"
            f" {'[N, C]' if task == 'multi_label' else '[N]'}, N > 0 and C > {least - 1}"
        )
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        raise InputError(
            f"{int((~finite).sum())} rows have logits that are not finite; calibration needs finite ones;"
            " check the model's weights and precision"
        )
    if task is Task.SINGLE_LABEL:
        if given.dtype.kind not in "iu" or given.min() < 0 or given.max() >= logits.shape[1]:
            raise InputError(f"labels up to {given.max()}; labels are class indices 0..{logits.shape[1] - 1}")
        return logits, given.astype(np.int64)
    numbers = given.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise InputError(
            f"{int((~np.isfinite(numbers)).sum())} targets are not finite; every row needs a number;"
            " drop or fix these rows"
        )
    if task is Task.MULTI_LABEL and not np.isin(numbers, (0.0, 1.0)).all():
        raise InputError("targets other than 0 and 1; a label holds or does not; pass 0/1 targets")
    return logits, numbers


def check_both_sides(targets: TargetArray, task: Task, labels: Sequence[str], *, each_label: bool) -> None:
    """Raises `InputError` where the rows cannot teach: one label alone or, with `each_label`, one missing.

    A map that has parameters of its own for each label (`each_label`) needs rows with and without it.
    """
    num_rows = len(targets)
    holds_C = targets.sum(axis=0) if task is Task.MULTI_LABEL else np.bincount(targets, minlength=len(labels))
    if task is Task.SINGLE_LABEL and holds_C.max() == num_rows:
        raise InputError(
            f"all {num_rows} rows are labelled {labels[int(holds_C.argmax())]!r}; calibration needs rows of"
            " two labels or more; add others"
        )
    if task is Task.MULTI_LABEL and ((holds_C == 0) | (holds_C == num_rows)).all():
        raise InputError(
            f"each label holds in all {num_rows} rows or in none; calibration needs both; add other rows"
        )
    for label, count in zip(labels, holds_C, strict=True):
        if each_label and count in {0, num_rows}:
            raise InputError(
                f"label {label!r} holds in {int(count)} of {num_rows} rows; a map of its own needs rows with"
                " and without it; add some, or use --method temperature"
            )


def refuse_all_right(logits_NC: FloatArray, targets: TargetArray) -> None:
    """Raises `InputError` where no row's true label is beaten: the surer a map is, the better it looks.

    And where the labels of each row have one logit: a map of these is the same for all rows.
    """
    if targets.ndim == 1 and (logits_NC == logits_NC[:, :1]).all():
        raise InputError(
            f"all labels have the same logit in each of {len(logits_NC)} rows; the model tells them apart by"
            " chance; train it first"
        )
    if targets.ndim == 2:
        is_right = ((2 * targets - 1) * logits_NC >= 0).all()
    else:
        is_right = (logits_NC[np.arange(len(logits_NC)), targets] >= logits_NC.max(axis=1)).all()
    if is_right:
        raise InputError(
            f"all {len(logits_NC)} calibration rows are predicted right; no map of the logits is best;"
            " calibrate on more rows or harder ones"
        )
