"""[pure] Vectors of length 1. Axes: N vectors, D dimensions."""

import numpy as np
import numpy.typing as npt

_LEAST_LENGTH = 1e-12
"""A shorter vector stays as it is: it has no direction."""


def unit_length(vectors_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The vectors at length 1."""
    lengths_N1: npt.NDArray[np.float32] = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    lengths_N1[lengths_N1 < _LEAST_LENGTH] = 1
    return vectors_ND / lengths_N1
