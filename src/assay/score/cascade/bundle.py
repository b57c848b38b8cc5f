"""A tuned cascade as a bundle: two models of pairs and what says which of them decides. Imports no torch.

cascade.json     thresholds, combination, labels, and of each model its folder and fingerprint
first/ second/   the models, where they are not at the folders that the file names
"""

import os
from dataclasses import dataclass
from pathlib import Path

from assay.bundle.bundle import Bundle
from assay.bundle.ensemble import read_ensemble
from assay.bundle.folders import is_ensemble, is_siamese
from assay.bundle.load import load_bundle
from assay.bundle.texts import refuse_other_texts
from assay.errors import BundleError
from assay.model.checkpoint import JsonObject, canonical_digest
from assay.score.cascade.decide import Thresholds
from assay.score.cascade.files import StageEntry, find_cascade, stage_folder
from assay.siamese.evidence import Combination
from assay.siamese.files import Siamese, read_siamese
from assay.tasks import TWO_LABELS, Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Cascade(Bundle):
    """A bundle of two models of pairs; what it has in common with others (`checkpoint`, lengths) is the second's."""

    file: Path
    """`cascade.json`."""
    first: Bundle
    """The cheap model."""
    second: Bundle
    """The exact model."""
    thresholds: Thresholds
    """Which pairs the first decides."""
    combination: Combination
    """How the probabilities of both are put together."""

    @property
    def path(self) -> Path:
        """The file."""
        return self.file

    @property
    def provenances(self) -> tuple[JsonObject, ...]:
        """What the tuning and both models say that they have seen."""
        return (self.provenance, *self.first.provenances, *self.second.provenances)


def read_cascade(path: str | os.PathLike[str]) -> Cascade:
    """The cascade in a file of `assay cascade tune`, or in a folder with a `cascade.json`, and its two models.

    Raises BundleError for a file that is not a cascade's, a model that is not there, and one that is not the model
    that the thresholds are for.
    """
    file, tuned = find_cascade(path)
    first, second = (_stage_of(file, name, entry) for name, entry in tuned.stages())
    return Cascade(
        checkpoint=second.checkpoint,
        task=Task.SINGLE_LABEL,
        labels=tuned.labels,
        calibration=None,
        default_max_length=second.default_max_length,
        fingerprint=canonical_digest(
            {
                "cascade": [first.fingerprint, second.fingerprint],
                "labels": list(tuned.labels),
                "thresholds": [tuned.thresholds.low, tuned.thresholds.high],
                "combination": [
                    tuned.combination.network,
                    tuned.combination.evidence,
                    tuned.combination.bias,
                ],
            }
        ),
        tokenizer_fingerprint=canonical_digest(
            {"cascade": [first.tokenizer_fingerprint, second.tokenizer_fingerprint]}
        ),
        is_pair=True,
        provenance=tuned.provenance,
        notes=(*first.notes, *second.notes),
        file=file.absolute(),
        first=first,
        second=second,
        thresholds=tuned.thresholds,
        combination=tuned.combination,
    )


def open_single(path: str | os.PathLike[str]) -> Bundle:
    """The bundle in a folder, of any kind but a cascade; raises BundleError as `load_bundle` does."""
    if is_ensemble(path):
        return read_ensemble(path)
    return read_siamese(path) if is_siamese(path) else load_bundle(path)


def kind_of(bundle: Bundle) -> str:
    """`siamese`, which encodes each distinct text once, or `classifier`, which reads both texts together."""
    return "siamese" if isinstance(bundle, Siamese) else "classifier"


def check_stages(first: Bundle, second: Bundle) -> None:
    """Raise BundleError where a model is not of pairs and two labels, or the labels of the two differ."""
    for bundle in (first, second):
        refuse_other_texts(
            bundle, are_pairs=True, single_texts="a cascade takes models of pairs", error=BundleError
        )
        if bundle.task is not Task.SINGLE_LABEL or len(bundle.labels) != TWO_LABELS:
            msg = (
                f"{bundle.path} is a {bundle.task} model of {len(bundle.labels)} outputs; a stage of a cascade tells"
                " two labels of a pair apart; give such a model"
            )
            raise BundleError(msg)
    if set(first.labels) != set(second.labels):
        msg = (
            f"{first.path} knows the labels {', '.join(first.labels)} and {second.path} {', '.join(second.labels)};"
            " the stages of a cascade have the same; train both on the same label column"
        )
        raise BundleError(msg)


def _stage_of(file: Path, name: str, entry: StageEntry) -> Bundle:
    bundle = open_single(stage_folder(file, name, entry))
    entry.check(file, bundle.path, bundle.fingerprint)
    return bundle
