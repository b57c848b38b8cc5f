"""Outputs of the official HRM code to compare with, and small random models."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assay.model.hrm.config import HrmConfig
from assay.model.hrm.network import Network

GIVEN = Path(__file__).resolve().parents[1] / "data" / "hrm"
RUN = Path("checkpoints") / "Sudoku-tiny ACT-torch" / "HierarchicalReasoningModel_ACTV1 humble-otter"
OTTER = GIVEN / RUN
LARGER = os.environ.get("ASSAY_HRM_DATA")
needs_larger = pytest.mark.skipif(
    LARGER is None, reason="ASSAY_HRM_DATA names no folder of reference outputs"
)


def reference(name: str, *, root: Path = GIVEN) -> dict[str, np.ndarray]:
    """Arrays of a reference file."""
    with np.load(root / "reference" / f"{name}.npz") as content:
        return dict(content)


def training_figures() -> dict[str, Any]:
    """Losses, gradient norms and parameter norms of the official training steps."""
    return json.loads((GIVEN / "reference" / "train_otter_step300.json").read_text())


def small_config(**changes: Any) -> HrmConfig:
    """A model of one layer a level over 4 x 4 grids."""
    values: dict[str, Any] = {
        "architecture": "hrm",
        "vocab_size": 6,
        "seq_len": 16,
        "num_puzzle_identifiers": 1,
        "puzzle_emb_ndim": 32,
        "puzzle_emb_len": 1,
        "H_cycles": 2,
        "L_cycles": 2,
        "H_layers": 1,
        "L_layers": 1,
        "hidden_size": 32,
        "num_heads": 2,
        "expansion": 2.0,
        "halt_max_steps": 4,
        "forward_dtype": "float32",
    }
    return HrmConfig(**{**values, **changes})


def small_trm(**changes: Any) -> HrmConfig:
    """A TRM of two layers over 4 x 4 grids."""
    values = {
        "architecture": "trm",
        "H_layers": 0,
        "L_layers": 2,
        "L_cycles": 3,
        "puzzle_emb_len": 2,
        "no_ACT_continue": True,
    }
    return small_config(**{**values, **changes})


def random_network(config: HrmConfig, *, seed: int = 0) -> Network:
    """A model whose halting heads and puzzle embedding are not at their start, so that mistakes show."""
    torch.manual_seed(seed)
    network = Network(config)
    with torch.no_grad():
        network.q_head.weight.normal_(0, 0.3)
        network.q_head.bias.normal_(0, 0.5)
        if config.puzzle_emb_ndim:
            network.puzzle_emb.weights.normal_(0, 0.2)
    return network
