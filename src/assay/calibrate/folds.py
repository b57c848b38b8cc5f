"""Which rows are held out together when a calibration is put to the test. Pure: a seed in, folds out."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from assay.errors import InputError


def fold_rows(
    num_rows: int,
    *,
    num_folds: int,
    seed: int,
    strata: NDArray[np.int64] | None = None,
    groups: Sequence[str] | None = None,
) -> NDArray[np.int64]:
    """The fold, 0 to `num_folds` - 1, of each row: [N].

    With `groups` no group lies in two folds: the largest group goes first, each into the fold that is
    smallest so far, ties by the seed. Otherwise rows of equal `strata` (labels) are dealt out evenly.
    Raises `InputError` where there are fewer rows or groups than folds.
    """
    rng = np.random.default_rng(seed)
    if groups is not None:
        return _fold_groups(groups, num_folds, rng)
    if num_rows < num_folds:
        raise InputError(
            f"{num_rows} rows; {num_folds}-fold cross-validation needs as many; add rows or lower --num-folds"
        )
    order = rng.permutation(num_rows)
    if strata is not None:
        order = order[np.argsort(strata[order], kind="stable")]
    fold_N = np.empty(num_rows, dtype=np.int64)
    fold_N[order] = np.arange(num_rows) % num_folds
    return fold_N


def _fold_groups(groups: Sequence[str], num_folds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    names, group_N, sizes = np.unique(np.array(groups, dtype=object), return_inverse=True, return_counts=True)
    if len(names) < num_folds:
        raise InputError(
            f"{len(names)} groups; {num_folds}-fold cross-validation by group needs as many;"
            " add groups or lower --num-folds"
        )
    shuffled = rng.permutation(len(names))
    fold_of_group = np.empty(len(names), dtype=np.int64)
    filled = np.zeros(num_folds, dtype=np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold = int(filled.argmin())
        fold_of_group[group] = fold
        filled[fold] += sizes[group]
    return fold_of_group[group_N]
