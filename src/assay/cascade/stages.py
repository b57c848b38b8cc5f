"""A stage of a cascade as the tuner asks it: for one probability of each pair."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assay.bundle.bundle import Bundle
from assay.metrics import FloatArray
from assay.score.cascade.bundle import check_stages, kind_of
from assay.score.classifier import Classifier, load

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A loaded model."""

    classifier: Classifier

    @property
    def bundle(self) -> Bundle:
        """What was loaded."""
        return self.classifier.bundle

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.bundle.path

    @property
    def kind(self) -> str:
        """`siamese`, which encodes each distinct text once, or `classifier`, which reads both texts together."""
        return kind_of(self.bundle)

    @property
    def labels(self) -> tuple[str, ...]:
        """Its two labels."""
        return self.bundle.labels

    def probabilities(self, pairs: Pairs, label: str) -> tuple[FloatArray, Mapping[int, str]]:
        """The calibrated probability of a label for each pair, [M]; NaN, and an error code by row, where none is."""
        table = self.classifier.predict([one for one, _ in pairs], [two for _, two in pairs])
        codes = table.column("error").to_pylist()
        errors = {row: code for row, code in enumerate(codes) if code is not None}
        found_M = table.column(f"prob_{label}").to_numpy(zero_copy_only=False).astype(np.float64)
        return found_M, errors


def open_stages(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    device: str = "cpu",
    num_threads: int | None = None,
) -> tuple[Stage, Stage]:
    """The two models; raises `BundleError` for one that is not of pairs and two labels, or labels that differ."""
    one, two = (
        Stage(classifier=load(path, device=device, num_threads=num_threads)) for path in (first, second)
    )
    check_stages(one.bundle, two.bundle)
    return one, two
