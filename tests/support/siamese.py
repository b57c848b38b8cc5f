"""Small Siamese bundles with random weights, and pairs of texts for them."""

from dataclasses import replace

import numpy as np
import torch
from support.encoders import make_encoder_folder

from assay.bundle.description import Description, write_description
from assay.score.cascade.bundle import kind_of, open_single
from assay.score.cascade.decide import Thresholds
from assay.score.cascade.files import CascadeFile, StageEntry, write_cascade
from assay.siamese.evidence import Combination, PairEvidence
from assay.siamese.evidence_files import WeighedEvidence, write_evidence
from assay.siamese.files import PairHeadConfig, write_head_config
from assay.siamese.head import PairHead, save_head
from assay.siamese.style import StyleScale

STYLE = StyleScale(
    names=("words_per_sentence", "mark:,"), language="en", means=(8.0, 0.01), deviations=(2.0, 0.02)
)
CONFIG = PairHeadConfig(
    kind="mlp",
    dimension=8,
    hidden_size=16,
    num_labels=2,
    symmetric=True,
    scale=30.0,
    margin=0.25,
    style=STYLE,
)


def make_siamese_folder(folder, *, seed=0, labels=("0", "1"), pooling="mean", **changes):
    """A small BERT, projected to 8 numbers, with a head of pairs; `changes` are of `CONFIG`."""
    make_encoder_folder(folder, pooling=pooling, dense=8, seed=seed)
    config = replace(CONFIG, num_labels=len(labels), **changes)
    torch.manual_seed(seed)
    head = PairHead(config)
    write_head_config(folder, config)
    save_head(folder, head)
    write_description(
        folder,
        Description(
            assay_version="0",
            created="2026-01-01T00:00:00+00:00",
            task="single_label",
            labels=labels,
            max_length=32,
            is_pair=True,
            provenance={},
        ),
    )
    return folder


def add_evidence(folder, texts):
    """Evidence of words for a bundle, of pairs of neighbours among five or more texts."""
    rows = np.arange(len(texts) - 1)
    evidence = PairEvidence.fit(list(texts), rows, rows + 1, rows % 2 == 0, books=None, language="en")
    combination = Combination(network=0.5, evidence=2.0, bias=-0.25)
    write_evidence(folder / "pair_head", WeighedEvidence(evidence=evidence, combination=combination))
    return folder


def write_cascade_of(folder, first, second, *, low, high=None, weights=(0.6, 0.7, 0.1)):
    """The file of a cascade of two bundles, with thresholds that nothing was tuned for."""
    one, two = open_single(first), open_single(second)
    entries = [
        StageEntry(path=str(each.path), kind=kind_of(each), fingerprint=each.fingerprint)
        for each in (one, two)
    ]
    network, evidence, bias = weights
    cascade = CascadeFile(
        labels=("0", "1"),
        thresholds=Thresholds(low=low, high=high),
        combination=Combination(network=network, evidence=evidence, bias=bias),
        first=entries[0],
        second=entries[1],
    )
    folder.mkdir(exist_ok=True)
    write_cascade(str(folder / "cascade.json"), cascade, {})
    return folder / "cascade.json"
