"""Trained weights in, the bundle out."""

import platform
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from assay._version import __version__
from assay.bundle.description import Description, write_description
from assay.bundle.folders import HEAD_FOLDER
from assay.bundle.publish import publish_folder
from assay.labelled.labels import names_of
from assay.siamese.evidence_files import write_evidence
from assay.siamese.files import (
    DENSE_FOLDER,
    HEAD_WEIGHTS,
    POOLING_FOLDER,
    write_head_config,
    write_modules,
)
from assay.train import checkpoints
from assay.train.base import base_checkpoint, dropout_names
from assay.train.report import REPORT_FILE, Trained, render
from assay.train.siamese import PARTS, PairParts, pair_parts
from assay.train.sinks import Recorder

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "spm.model",
)  # fmt: skip


def publish(
    model: PreTrainedModel, tensors: Mapping[str, torch.Tensor], trained: Trained, recorder: Recorder
) -> None:
    """Writes the bundle of these weights to `out` in one step."""
    settings = trained.settings
    config: Any = model.config
    base = base_checkpoint(settings.base).config
    # the saved config keeps the base's dropout: a training setting is not part of the model
    for name in dropout_names(config.to_dict()):
        if name in base:
            setattr(config, name, base[name])
    parts = pair_parts(model)
    config.architectures = [type(model if parts is None else model.base_model).__name__]
    config.dtype = "float32"
    page = render(trained)
    with publish_folder(Path(settings.out), overwrite=settings.overwrite) as folder:
        config.save_pretrained(folder)
        if parts is None:
            # tied tensors are written once, as transformers does
            checkpoints.write_tensors(folder / "model.safetensors", tensors)
        else:
            _write_siamese(folder, parts, tensors, model.base_model_prefix, settings.max_length)
            if trained.evidence is not None:
                write_evidence(folder / HEAD_FOLDER, trained.evidence)
        for name in _TOKENIZER_FILES:
            if (Path(settings.base) / name).exists():
                shutil.copyfile(Path(settings.base) / name, folder / name)
        write_description(folder, _description(trained))
        (folder / REPORT_FILE).write_bytes(page)
        recorder.copy_to(folder)


def _write_siamese(
    folder: Path, parts: PairParts, tensors: Mapping[str, torch.Tensor], encoder: str, max_length: int
) -> None:
    """Writes the encoder, what makes vectors and the head of pairs where each is read; see `siamese.files`."""
    config = parts.head.config
    write_modules(
        folder,
        pooling=parts.pooling,
        hidden_size=parts.hidden_size,
        dimension=config.dimension,
        max_length=max_length,
    )
    write_head_config(folder, config)
    places = {
        f"{encoder}.": folder / "model.safetensors",
        f"{PARTS}.attention.": folder / POOLING_FOLDER / "model.safetensors",
        f"{PARTS}.projection.": folder / DENSE_FOLDER / "model.safetensors",
        f"{PARTS}.head.": folder / HEAD_FOLDER / HEAD_WEIGHTS,
    }
    for prefix, file in places.items():
        inside = "linear." if "projection" in prefix else ""
        found = {
            inside + name.removeprefix(prefix): each
            for name, each in tensors.items()
            if name.startswith(prefix)
        }
        if found:
            checkpoints.write_tensors(file, found)


def _description(trained: Trained) -> Description:
    settings, prepared = trained.settings, trained.prepared
    labels = prepared.train.labels
    counted = Counter(name for label in labels for name in names_of(label))
    return Description(
        assay_version=__version__,
        created=trained.created,
        task=settings.task,
        labels=prepared.names,
        max_length=settings.max_length,
        is_pair=prepared.train.text_pairs is not None,
        int_score=settings.int_score,
        provenance={
            "settings": {**asdict(settings), "out": None},
            "num_train_rows": prepared.train.num_rows,
            "num_validation_rows": prepared.validation.num_rows,
            "num_rows_by_label": dict(sorted(counted.items())) if settings.predicts.is_classifier else {},
            "best_step": trained.best.step,
            "num_steps": len(trained.history.losses),
            "num_devices": trained.num_devices,
            "validations": [asdict(each) for each in trained.history.validations],
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            **prepared.provenance,
        },
    )


def versions() -> dict[str, str]:
    """What a training ran on, by name."""
    found = {
        "assay": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "Python": platform.python_version(),
    }
    return found if torch.version.cuda is None else {**found, "CUDA": torch.version.cuda}
