"""A stage of a cascade: a Siamese model or a classifier of pairs, asked for one probability of each pair."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assay.bundle.texts import refuse_other_texts
from assay.errors import BundleError
from assay.metrics import FloatArray
from assay.model.checkpoint import JsonObject
from assay.score.classifier import Classifier, load
from assay.siamese.files import Siamese
from assay.tasks import TWO_LABELS, Task

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A model as a cascade asks it."""

    classifier: Classifier

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.classifier.bundle.path

    @property
    def kind(self) -> str:
        """`siamese`, which encodes each distinct text once, or `classifier`, which reads both texts together."""
        return "siamese" if isinstance(self.classifier.bundle, Siamese) else "classifier"

    @property
    def labels(self) -> tuple[str, ...]:
        """Its two labels."""
        return self.classifier.labels

    @property
    def fingerprint(self) -> str:
        """Hash of all that can change a probability."""
        return self.classifier.bundle.fingerprint

    @property
    def provenance(self) -> Sequence[JsonObject]:
        """What it says it has seen."""
        bundle = self.classifier.bundle
        return [
            bundle.provenance,
            *([bundle.calibration.provenance] if bundle.calibration is not None else []),
        ]

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
    stages = [_open(path, device=device, num_threads=num_threads) for path in (first, second)]
    one, two = stages
    if set(one.labels) != set(two.labels):
        msg = (
            f"{one.path} knows the labels {', '.join(one.labels)} and {two.path} {', '.join(two.labels)};"
            " the stages of a cascade have the same; train both on the same label column"
        )
        raise BundleError(msg)
    return one, two


def _open(path: str | os.PathLike[str], *, device: str, num_threads: int | None) -> Stage:
    stage = Stage(classifier=load(path, device=device, num_threads=num_threads))
    bundle = stage.classifier.bundle
    refuse_other_texts(
        bundle, are_pairs=True, single_texts="a cascade takes models of pairs", error=BundleError
    )
    if bundle.task is not Task.SINGLE_LABEL or len(stage.labels) != TWO_LABELS:
        msg = (
            f"{stage.path} is a {bundle.task} model of {len(stage.labels)} outputs; a stage of a cascade tells two"
            " labels of a pair apart; give such a model"
        )
        raise BundleError(msg)
    return stage
