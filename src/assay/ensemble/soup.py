"""A greedy soup: the mean of weights of members that share a head's initialisation, at the cost of one model.

Wortsman et al. 2022 (arXiv 2203.05482, algorithm 1): the best member first, then each other that does not make the
loss on the validation rows worse. Weights of runs that began with different heads have no mean: they are refused.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from assay.bundle.bundle import Bundle
from assay.bundle.calibration import CALIBRATION_FILE, STYLE_CALIBRATION_FILE
from assay.bundle.description import ASSAY_FILE
from assay.errors import BundleError

_WEIGHTS = "model.safetensors"
_SHARED = ("base", "seed", "architecture")
"""Settings of a training that decide where its head begins."""


def refuse_other_starts(members: Sequence[Bundle]) -> None:
    """Raise `BundleError` unless all members are of trainings of one base and one seed, as their `assay.json` says."""
    first, *others = members
    for member in members:
        if not isinstance(member.provenance.get("settings"), dict):
            raise BundleError(
                f"{member.path} does not say how it was trained, so its head may have begun elsewhere than the others';"
                " a soup is of snapshots, or of trainings with one base and seed; use --rule mean"
            )
        if [file.name for file in member.checkpoint.weights] != [_WEIGHTS]:
            raise BundleError(
                f"{member.path} has weights in several files; a soup is of {_WEIGHTS}; save it as one"
            )
    for other in others:
        for name in _SHARED:
            mine, theirs = (_setting(each, name) for each in (first, other))
            if mine != theirs:
                raise BundleError(
                    f"{first.path} and {other.path} were trained with {name} {mine!r} and {theirs!r}: their heads began"
                    " with different weights, and such weights have no mean; use --rule mean"
                )


def _setting(member: Bundle, name: str) -> object:
    settings = member.provenance["settings"]
    return settings.get(name) if isinstance(settings, dict) else None


def greedy_soup(
    members: Sequence[Bundle], folder: Path, loss_of: Callable[[Path], float]
) -> tuple[list[int], float]:
    """Which members are in the soup that `folder` then holds, and its loss; `loss_of` a folder on validation rows."""
    refuse_other_starts(members)
    losses = [loss_of(member.path) for member in members]
    order = sorted(range(len(members)), key=losses.__getitem__)
    kept, best = order[:1], losses[order[0]]
    _copy_beside_weights(members[order[0]].path, folder)
    for member in order[1:]:
        _write_mean([members[k] for k in (*kept, member)], folder)
        loss = loss_of(folder)
        if loss <= best:
            kept, best = [*kept, member], loss
    _write_mean([members[k] for k in kept], folder)
    return sorted(kept), best


def _copy_beside_weights(source: Path, target: Path) -> None:
    without = {_WEIGHTS, ASSAY_FILE, CALIBRATION_FILE, STYLE_CALIBRATION_FILE}
    for file in sorted(source.iterdir()):
        if file.is_file() and file.name not in without:
            shutil.copyfile(file, target / file.name)


def _write_mean(members: Sequence[Bundle], folder: Path) -> None:
    """The mean of the weights, summed in float64, in the type that they have; whole numbers are the first one's."""
    total: dict[str, torch.Tensor] = {}
    first = load_file(members[0].path / _WEIGHTS)
    for member in members:
        tensors = load_file(member.path / _WEIGHTS)
        if {name: each.shape for name, each in tensors.items()} != {
            name: each.shape for name, each in first.items()
        }:
            raise BundleError(
                f"{member.path} has other tensors than {members[0].path}; a soup is of one model; use --rule mean"
            )
        for name, each in tensors.items():
            total[name] = each.double() if name not in total else total[name] + each.double()
    mean = {
        name: (each / len(members)).to(first[name].dtype) if first[name].is_floating_point() else first[name]
        for name, each in total.items()
    }
    save_file(mean, folder / _WEIGHTS, metadata={"format": "pt"})
