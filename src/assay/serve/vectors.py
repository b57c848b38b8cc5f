"""[pure] Vectors of a batch to what is answered.

Axes: S sequences (views of documents), N documents, D dimensions.
"""

from base64 import b64encode

import numpy as np
import numpy.typing as npt

from assay.embed.unit_length import unit_length
from assay.serve.scores import reduce_views
from assay.tokenize.views import Views

Vector = npt.NDArray[np.float32]
"""[D]."""


class Vectorizing:
    """Brings the vectors of views together to those of documents, as an embed run does."""

    def __init__(self, views: Views) -> None:
        """Vectors of documents that are read by these views."""
        self._views = views

    def answers(self, outputs_SD: npt.NDArray[np.float32], num_views_N: list[int]) -> list[Vector | None]:
        """A vector a document; None where it has no view, or the model gave no finite one."""
        vectors_ND = reduce_views(self._views, outputs_SD, num_views_N)
        is_finite_ND = np.isfinite(vectors_ND)
        return [
            vector_D if is_finite_D.all() else None
            for vector_D, is_finite_D in zip(vectors_ND, is_finite_ND, strict=True)
        ]


def stacked(vectors: list[Vector], *, normalize: bool) -> npt.NDArray[np.float32]:
    """The vectors of a request [N, D]; with `normalize` at length 1, which the mean of several windows has not."""
    vectors_ND = np.stack(vectors)
    return unit_length(vectors_ND) if normalize else vectors_ND


def base64_of(vector: Vector) -> str:
    """A vector's float32 numbers, the least significant byte first, in base64."""
    return b64encode(vector.astype("<f4", copy=False).tobytes()).decode()
