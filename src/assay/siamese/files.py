"""A Siamese bundle: a sentence encoder's folder, as `assay embed` reads it, and the head of pairs beside it.

    config.json, model.safetensors     the encoder, with its tokenizer's files
    modules.json, 1_Pooling, 2_Dense   how it makes a vector of a text, as sentence-transformers has it
    pair_head/config.json              what the head is, and the style features that it sees
    pair_head/model.safetensors        its weights
    pair_head/evidence.json            what words and style count beside it, where it was trained to
    pair_head/lexicon.parquet          the words that this rests on
    assay.json                         labels, length, origin
    calibration.json                   where `assay calibrate` has put one

Reads and writes JSON; the tensors are `head.py`'s. Imports no torch.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from assay.bundle.bundle import Bundle
from assay.bundle.calibration import check_calibration, find_calibration, parameters
from assay.bundle.description import FORMAT_VERSION, check_version, pretty, read_description
from assay.bundle.embedder import Embedder, load_embedder
from assay.bundle.folders import HEAD_CONFIG, HEAD_FOLDER, is_siamese
from assay.errors import BundleError
from assay.model.checkpoint import (
    JsonObject,
    brief,
    canonical_digest,
    hash_file,
    is_number,
    read_json,
)
from assay.model.sentence_files import PoolingName
from assay.outcome.calibration import Calibration
from assay.siamese.evidence_files import WeighedEvidence, evidence_files, read_evidence
from assay.siamese.settings import HeadKind
from assay.siamese.style import StyleScale
from assay.siamese.style_files import read_style, style_content
from assay.tasks import Task

HEAD_WEIGHTS = "model.safetensors"
POOLING_FOLDER, DENSE_FOLDER = "1_Pooling", "2_Dense"
_WAY_OUT = "train it with assay train --architecture siamese, or copy the whole bundle again"
_POOLING_MODES: Mapping[PoolingName, str] = {"mean": "mean", "first_token": "cls", "attention": "attention"}
_TYPES = "sentence_transformers.models."


@dataclass(frozen=True, kw_only=True, slots=True)
class PairHeadConfig:
    """What a head of pairs is made of; `pair_head/config.json`."""

    kind: HeadKind
    dimension: int
    """D, of the vectors of texts."""
    hidden_size: int
    """Width of its inner layer."""
    num_labels: int
    """C, the number of logits."""
    symmetric: bool
    """Whether the two texts of a pair may change places: logits are then means over both orders."""
    scale: float
    """arcface: cosines times this are logits."""
    margin: float
    """arcface: radians by which the right label had to be ahead in training; nothing is added after it."""
    style: StyleScale
    """The style features that it sees of each text."""

    @property
    def num_inputs(self) -> int:
        """Numbers that it sees of a pair: 4 D + 2 F."""
        return 4 * self.dimension + 2 * len(self.style.names)


@dataclass(frozen=True, kw_only=True, slots=True)
class Siamese(Bundle):
    """A bundle of one label a pair, whose texts are encoded apart; `checkpoint` is the encoder's."""

    embedder: Embedder
    """What makes a vector of a text."""
    head: PairHeadConfig
    head_weights: Path
    """The file with the head's tensors."""
    evidence: WeighedEvidence | None
    """What words and style say of a pair beside the network, where it was trained to."""


def read_siamese(path: str | os.PathLike[str]) -> Siamese:
    """The Siamese bundle in a folder, after every check that needs no weights in memory.

    Reads the weights once to hash them. Raises `BundleError` for a folder that cannot be used.
    """
    if not is_siamese(path):
        msg = f"{path}: no {HEAD_FOLDER}/{HEAD_CONFIG}; not a Siamese model; {_WAY_OUT}"
        raise BundleError(msg)
    embedder = load_embedder(path)
    folder = embedder.path
    head = _read_head(folder / HEAD_FOLDER / HEAD_CONFIG)
    if head.dimension != embedder.dimension:
        msg = (
            f"{folder / HEAD_FOLDER}: for vectors of {head.dimension} numbers, and the encoder's have"
            f" {embedder.dimension}; {_WAY_OUT}"
        )
        raise BundleError(msg)
    weights = folder / HEAD_FOLDER / HEAD_WEIGHTS
    if not weights.is_file():
        msg = f"{weights.parent}: no {HEAD_WEIGHTS}; {_WAY_OUT}"
        raise BundleError(msg)
    description = read_description(folder)
    labels = _read_labels(folder, description, head)
    calibration, notes = find_calibration(folder)
    check_calibration(folder, calibration, Task.SINGLE_LABEL, labels)
    provenance = description.get("provenance")
    stated = description.get("max_length")
    trained_length = stated if isinstance(stated, int) and stated >= 1 else embedder.default_max_length
    return Siamese(
        checkpoint=embedder.checkpoint,
        task=Task.SINGLE_LABEL,
        is_pair=True,
        tokenizer_fingerprint=embedder.tokenizer_fingerprint,
        embedder=embedder,
        head=head,
        head_weights=weights,
        labels=labels,
        calibration=calibration,
        evidence=read_evidence(folder / HEAD_FOLDER),
        default_max_length=min(trained_length, embedder.max_length),
        fingerprint=canonical_digest(
            {
                "encoder": embedder.fingerprint,
                "head": {
                    file.name: hash_file(file)
                    for file in (
                        folder / HEAD_FOLDER / HEAD_CONFIG,
                        folder / HEAD_FOLDER / HEAD_WEIGHTS,
                        *evidence_files(folder / HEAD_FOLDER),
                    )
                },
                "labels": list(labels),
                "max_length": trained_length,
                "calibration": _calibrated(calibration),
            }
        ),
        provenance=provenance if isinstance(provenance, dict) else {},
        notes=(*embedder.notes, *notes),
    )


def _calibrated(calibration: Calibration | None) -> JsonObject | None:
    """What of a calibration changes a probability."""
    if calibration is None:
        return None
    return {
        "method": calibration.method,
        "temperature": calibration.temperature,
        **parameters(calibration),
        "threshold": calibration.threshold,
    }


def _read_labels(folder: Path, description: JsonObject, head: PairHeadConfig) -> tuple[str, ...]:
    labels = description.get("labels")
    if not isinstance(labels, list) or len(labels) != head.num_labels:
        held = f"{brief(labels)}" if isinstance(labels, list) else "no labels"
        msg = f"{folder}/assay.json: {held}; the head of pairs has {head.num_labels}; {_WAY_OUT}"
        raise BundleError(msg)
    return tuple(str(label) for label in labels)


# ---------------------------------------------------------------- pair_head/config.json


def _read_head(file: Path) -> PairHeadConfig:
    content: dict[str, Any] = dict(read_json(file, missing=_WAY_OUT))
    check_version(file, content)
    counts = {name: content.get(name) for name in ("dimension", "hidden_size", "num_labels")}
    numbers = {name: content.get(name) for name in ("scale", "margin")}
    wrong = [name for name, value in counts.items() if type(value) is not int or value < 1]
    wrong += [name for name, value in numbers.items() if not is_number(value)]
    wrong += [] if content.get("kind") in get_args(HeadKind) else ["kind"]
    wrong += [] if isinstance(content.get("symmetric"), bool) else ["symmetric"]
    style = read_style(content.get("style"))
    wrong += [] if style is not None else ["style"]
    if wrong or style is None:
        msg = f"{file}: {wrong[0]} is {brief(content.get(wrong[0]))}, which is not a head's; {_WAY_OUT}"
        raise BundleError(msg)
    return PairHeadConfig(
        kind=content["kind"],
        symmetric=content["symmetric"],
        style=style,
        dimension=content["dimension"],
        hidden_size=content["hidden_size"],
        num_labels=content["num_labels"],
        scale=float(content["scale"]),
        margin=float(content["margin"]),
    )


def write_head_config(folder: Path, head: PairHeadConfig) -> None:
    """Writes `pair_head/config.json` into a bundle that is still being made."""
    content = {
        "format_version": FORMAT_VERSION,
        "kind": head.kind,
        "dimension": head.dimension,
        "hidden_size": head.hidden_size,
        "num_labels": head.num_labels,
        "symmetric": head.symmetric,
        "scale": head.scale,
        "margin": head.margin,
        "style": style_content(head.style),
    }
    (folder / HEAD_FOLDER).mkdir(exist_ok=True)
    (folder / HEAD_FOLDER / HEAD_CONFIG).write_bytes(pretty(content))


# ---------------------------------------------------------------- the encoder's module files


def write_modules(
    folder: Path, *, pooling: PoolingName, hidden_size: int, dimension: int, max_length: int
) -> None:
    """Writes what says how the encoder makes vectors: pooled, projected without activation, of length 1.

    The weights of attention and projection go beside it, as `DENSE_FOLDER` and `POOLING_FOLDER` are read.
    """
    modules: Sequence[tuple[str, str]] = (
        ("", "Transformer"),
        (POOLING_FOLDER, "Pooling"),
        (DENSE_FOLDER, "Dense"),
        ("3_Normalize", "Normalize"),
    )
    listed = [
        {"idx": k, "name": str(k), "path": path, "type": f"{_TYPES}{kind}"}
        for k, (path, kind) in enumerate(modules)
    ]
    contents: Mapping[str, object] = {
        "modules.json": listed,
        f"{POOLING_FOLDER}/config.json": {
            "word_embedding_dimension": hidden_size,
            "pooling_mode": _POOLING_MODES[pooling],
        },
        f"{DENSE_FOLDER}/config.json": {
            "in_features": hidden_size,
            "out_features": dimension,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(pretty(content))
