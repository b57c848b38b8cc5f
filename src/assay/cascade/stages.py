"""A stage of a cascade: a Siamese model or a classifier of pairs, asked for one probability of each pair."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from assay.bundle.texts import refuse_other_texts
from assay.errors import BundleError
from assay.metrics import FloatArray
from assay.model.checkpoint import JsonObject
from assay.outcome.calibration import Calibration
from assay.outcome.maps import apply_calibration
from assay.score.classifier import Classifier, load
from assay.siamese.files import is_siamese
from assay.siamese.pairs import SiameseModel, distinct_texts, load_siamese
from assay.tasks import TWO_LABELS, Task

Pairs = Sequence[tuple[str, str]]


class Stage(Protocol):
    """What a cascade asks of a model."""

    @property
    def path(self) -> Path:
        """Its folder."""

    @property
    def kind(self) -> str:
        """`siamese` or `classifier`."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Its two labels."""

    @property
    def fingerprint(self) -> str:
        """Hash of all that can change a probability."""

    @property
    def provenance(self) -> Sequence[JsonObject]:
        """What it says it has seen."""

    def probabilities(self, pairs: Pairs, label: str) -> tuple[FloatArray, Mapping[int, str]]:
        """The calibrated probability of a label for each pair, [M]; NaN, and an error code by row, where none is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SiameseStage:
    """A Siamese model: each distinct text is encoded once."""

    model: SiameseModel
    kind: str = "siamese"

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.model.bundle.path

    @property
    def labels(self) -> tuple[str, ...]:
        """Its two labels."""
        return self.model.labels

    @property
    def fingerprint(self) -> str:
        """Hash of all that can change a probability."""
        return self.model.bundle.fingerprint

    @property
    def provenance(self) -> Sequence[JsonObject]:
        """What it says it has seen."""
        return _provenance(self.model.bundle.provenance, self.model.bundle.calibration)

    def probabilities(self, pairs: Pairs, label: str) -> tuple[FloatArray, Mapping[int, str]]:
        """As `Stage` says."""
        texts, first_M, second_M = distinct_texts(pairs)
        encoded = self.model.encode(texts)
        logits_MC = self.model.score(encoded, first_M, second_M).logits_MC
        found_MC = apply_calibration(logits_MC, self.model.bundle.calibration, self.model.bundle.task)
        errors: dict[int, str] = {}
        if encoded.errors:
            for row, texts_of_row in enumerate(zip(first_M.tolist(), second_M.tolist(), strict=True)):
                codes = [encoded.errors[text] for text in texts_of_row if text in encoded.errors]
                errors |= {row: codes[0]} if codes else {}
        found_M = found_MC[:, self.labels.index(label)].astype(np.float64)
        found_M[list(errors)] = np.nan
        return found_M, errors


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierStage:
    """A classifier that reads both texts together."""

    classifier: Classifier
    kind: str = "classifier"

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.classifier.bundle.path

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
        return _provenance(self.classifier.bundle.provenance, self.classifier.bundle.calibration)

    def probabilities(self, pairs: Pairs, label: str) -> tuple[FloatArray, Mapping[int, str]]:
        """As `Stage` says."""
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
    stage: Stage
    if is_siamese(path):
        stage = SiameseStage(model=load_siamese(path, device=device, num_threads=num_threads))
        task = Task.SINGLE_LABEL
    else:
        classifier = load(path, device=device, num_threads=num_threads)
        refuse_other_texts(
            classifier.bundle,
            are_pairs=True,
            single_texts="a cascade takes models of pairs",
            error=BundleError,
        )
        stage, task = ClassifierStage(classifier=classifier), classifier.bundle.task
    if task is not Task.SINGLE_LABEL or len(stage.labels) != TWO_LABELS:
        msg = (
            f"{stage.path} is a {task} model of {len(stage.labels)} outputs; a stage of a cascade tells two labels of a"
            " pair apart; give such a model"
        )
        raise BundleError(msg)
    return stage


def _provenance(provenance: JsonObject, calibration: Calibration | None) -> list[JsonObject]:
    return [provenance, *([calibration.provenance] if calibration is not None else [])]
