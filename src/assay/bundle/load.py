"""A bundle folder in, the checked Bundle out."""

import os

from assay.bundle.bundle import Bundle
from assay.bundle.calibration import check_calibration, find_calibration, parameters, style_notes
from assay.bundle.description import check_description, read_description, read_int_score
from assay.bundle.folders import cascade_file, is_ensemble, is_siamese
from assay.errors import BundleError
from assay.model.checkpoint import (
    Checkpoint,
    JsonObject,
    canonical_digest,
    hash_file,
    read_checkpoint,
    refuse_headless,
)
from assay.model.labels import read_labels, read_task
from assay.model.tokenizer_files import read_tokenizer, tokenizer_fingerprint, tokenizer_notes
from assay.outcome.calibration import Calibration


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """The bundle in a folder, after every check that needs no weights in memory.

    Reads the weights once to hash them (about a second a gigabyte). Raises `BundleError` for a
    folder that cannot be used (no tokenizer, no head, labels that disagree) or must not be
    (pickles, remote code).
    """
    if cascade_file(path) is not None:
        msg = (
            f"{path} is a cascade of two models; here one classifier is needed; give its folder; assay score, serve,"
            " evaluate and compare take this"
        )
        raise BundleError(msg)
    if is_siamese(path):
        msg = (
            f"{path} is Siamese and encodes each text by itself; a classifier that reads a row as one sequence is"
            " needed here; give one, or use assay score, serve, evaluate or compare with the texts of pairs"
        )
        raise BundleError(msg)
    if is_ensemble(path):
        msg = (
            f"{path} is an ensemble, and one classifier is needed here; name a member of it, {path}/members/1"
        )
        raise BundleError(msg)
    checkpoint = read_checkpoint(path)
    folder = checkpoint.path
    refuse_headless(checkpoint)
    labels = read_labels(checkpoint)
    task = read_task(checkpoint, labels)
    description = read_description(folder)
    calibration, calibration_notes = find_calibration(folder)
    check_description(folder, description, task, labels)
    check_calibration(folder, calibration, task, labels)
    trained_length = description.get("max_length")
    is_pair = description.get("is_pair")
    provenance = description.get("provenance")
    max_length = checkpoint.max_length
    tokenizer = read_tokenizer(folder)
    return Bundle(
        checkpoint=checkpoint,
        task=task,
        labels=labels,
        calibration=calibration,
        default_max_length=min(trained_length, max_length) if isinstance(trained_length, int) else max_length,
        fingerprint=_fingerprint(checkpoint, description, calibration),
        tokenizer_fingerprint=tokenizer_fingerprint(tokenizer),
        is_pair=is_pair if isinstance(is_pair, bool) else None,
        provenance=provenance if isinstance(provenance, dict) else {},
        int_score=read_int_score(folder, description, task),
        notes=(
            *checkpoint.notes,
            *tokenizer_notes(folder, tokenizer, checkpoint.vocab_size),
            *style_notes(folder),
            *calibration_notes,
        ),
    )


def _fingerprint(checkpoint: Checkpoint, description: JsonObject, calibration: Calibration | None) -> str:
    """Hash of configuration, weights, calibration and description, as far as they change a score."""
    described = {name: description.get(name) for name in ("task", "labels", "max_length", "is_pair")}
    if description.get("int_score") is not None:
        described["int_score"] = description["int_score"]
    return canonical_digest(
        {
            "config": checkpoint.config,
            "weights": {file.name: hash_file(file) for file in checkpoint.weights},
            "description": described,
            "calibration": None
            if calibration is None
            else {
                "method": calibration.method,
                "temperature": calibration.temperature,
                **parameters(calibration),
                "threshold": calibration.threshold,
            },
        }
    )
