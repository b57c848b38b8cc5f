"""What a checkpoint of a puzzle training holds, and the snapshots it leaves.

Beside weights and optimizer it holds the places: puzzles half thought through, with their carries, without which
a resumed training would be another one.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from assay.data.storage import writing
from assay.data.syncing import replace_local, sync_folder
from assay.model.hrm.files import OWN_CONFIG, snapshots_of, weights_file
from assay.model.hrm.halting import BatchPlaces, Puzzles
from assay.model.hrm.network import Carry, Network
from assay.train.checkpoints import write_tensors
from assay.train.puzzles.optimizer import Updates

_PLACES = "places."
_UPDATES = "updates."


def tensors_of(updates: Updates, places: BatchPlaces) -> dict[str, torch.Tensor]:
    """Optimizer and places by name."""
    held = {
        "z_H": places.carry.z_H,
        "z_L": places.carry.z_L,
        "steps": places.steps_B,
        "halted": places.halted_B,
        "inputs": places.puzzles.inputs_BS,
        "labels": places.puzzles.labels_BS,
        "identifiers": places.puzzles.identifiers_B,
    }
    return {
        **{f"{_UPDATES}{name}": each for name, each in updates.state().items()},
        **{f"{_PLACES}{name}": each for name, each in held.items()},
    }


def load_tensors(tensors: Mapping[str, torch.Tensor], updates: Updates, device: torch.device) -> BatchPlaces:
    """The places of what `tensors_of` gave; the optimizer takes over its part."""
    updates.load_state(
        {name.removeprefix(_UPDATES): each for name, each in tensors.items() if name.startswith(_UPDATES)}
    )
    held = {
        name.removeprefix(_PLACES): each.to(device)
        for name, each in tensors.items()
        if name.startswith(_PLACES)
    }
    return BatchPlaces(
        carry=Carry(z_H=held["z_H"], z_L=held["z_L"]),
        steps_B=held["steps"],
        halted_B=held["halted"],
        puzzles=Puzzles(
            inputs_BS=held["inputs"], labels_BS=held["labels"], identifiers_B=held["identifiers"]
        ),
    )


def write_snapshot(out: Path, step: int, network: Network, *, keep: int) -> Path:
    """Publish the weights of a step, and remove all snapshots but the newest `keep`.

    Raises `StorageError` where they cannot be written.
    """
    path = weights_file(out, step)
    with writing(str(path)):
        out.mkdir(parents=True, exist_ok=True)
        replace_local(out / OWN_CONFIG, json.dumps(network.config.to_json(), indent=1).encode() + b"\n")
        scratch = path.with_name(f".{path.name}.new")
        write_tensors(scratch, network.state_dict())
        scratch.replace(path)
        sync_folder(out)
        for _, older in snapshots_of(out)[:-keep]:
            older.unlink()
    return path
