"""Checkpoints of a training, each a folder that is there whole or not at all.

    <out>.training/
        lock                 held by the process that trains
        step-00000300/       model.safetensors  optimizer.safetensors  state.json
        step-00000400/
        best-00000300/       model.safetensors  state.json

A folder is written under a scratch name, synced, and renamed to its own, which no other folder ever had:
where a step is saved a second time, the second is `step-00000300.1`. `state.json` holds size and CRC-32 of
the files beside it and of itself, so that a damaged checkpoint is found and the one before it is taken.

Nothing is pickled. One process writes (rank 0); any number may read.
"""

import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from assay.data.storage import writing
from assay.data.syncing import sync_file, sync_folder
from assay.errors import CheckError, RefusedError, UsageError

FORMAT_VERSION = 2
MODEL_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"

Tensors = Mapping[str, torch.Tensor]
Json = dict[str, object]

_NAME = re.compile(r"(step|best)-(\d{8,})(?:\.(\d+))?")
_SCRATCH = ".scratch-"
_OS_ERROR = re.compile(r"os error (\d+)")
_READ_BYTES = 8 * 1024 * 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainCheckpoint:
    """All that a training needs to go on as if it had never stopped."""

    step: int
    """Optimizer steps done."""
    fingerprint: str
    """Of everything that decides the numbers: settings, data, base; another one must not go on from here."""
    best: str | None
    """Name of the folder with the best weights so far, as `save_best` gave it."""
    values: Json
    """Whatever else is plain: history, patience used up. Floats come back bit for bit."""
    model: Tensors
    """Weights by name."""
    optimizer: Tensors
    """The optimizer's tensors by name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BestWeights:
    """The weights that the validation metric chose so far."""

    step: int
    """Optimizer steps done."""
    model: Tensors
    """Weights by name."""


def training_folder(out: str | os.PathLike[str]) -> Path:
    """The folder of a training's checkpoints, beside the bundle that it will become."""
    out = Path(out).absolute()
    return out.with_name(f"{out.name}.training")


def save(folder: Path, checkpoint: TrainCheckpoint, *, keep: int = 2) -> Path:
    """Publish a checkpoint atomically and return its folder; older ones go, but the newest `keep` stay.

    Best weights stay as long as a checkpoint that is kept names them. Checkpoints of later steps go: a
    training that went on from an earlier one had found them damaged.
    Tensors may lie on any device; those that share memory are written once. Raises StorageError where
    it cannot be written (disk full); what was there before is then as it was.
    """
    state: Json = {
        "step": checkpoint.step,
        "fingerprint": checkpoint.fingerprint,
        "best": checkpoint.best,
        "values": checkpoint.values,
    }
    tensors = {MODEL_FILE: checkpoint.model, OPTIMIZER_FILE: checkpoint.optimizer}
    saved = _publish(folder, f"step-{checkpoint.step:08}", state, tensors)
    _prune(folder, saved, keep=keep)
    return saved


def save_best(folder: Path, best: BestWeights) -> Path:
    """Publish the best weights atomically and return their folder; its name goes into the next checkpoint.

    Those that earlier checkpoints name stay until `save` removes the last of these. Errors as in `save`.
    """
    state: Json = {"step": best.step}
    return _publish(folder, f"best-{best.step:08}", state, {MODEL_FILE: best.model})


def latest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole, None where there is none; a warning for each one passed over.

    Reads all of it, and the best weights that it names. Raises RefusedError where it is of another format.
    """
    for path in _folders(folder, "step"):
        problem = _problem(path, deep=True) or _problem_of_best(path)
        if problem is None:
            return path
        _log.warning("%s: %s; passed over, going on from the checkpoint before it", path, problem)
    return None


def newest(folder: Path) -> Path | None:
    """As `latest`, at a glance: sizes are compared and no tensor is read."""
    return next((path for path in _folders(folder, "step") if _problem(path, deep=False) is None), None)


def values_of(path: Path) -> Json:
    """The plain values of a checkpoint that `newest` gave; no tensor is read."""
    return _object(_read_state(path)["values"])


def refuse_interrupted(folder: Path) -> None:
    """Raise UsageError where there is a checkpoint, damaged or not, for a training that would start over it."""
    if not _folders(folder, "step"):
        return
    if newest(folder) is None:
        refuse_damaged(folder)
    raise UsageError(
        f"{folder} holds an interrupted training; it can be resumed or started again;"
        " add --resume or --overwrite"
    )


def refuse_damaged(folder: Path) -> None:
    """Raise UsageError where there are checkpoints, for a training that found none of them whole."""
    if _folders(folder, "step"):
        raise UsageError(
            f"{folder} holds an interrupted training whose checkpoints are all damaged; "
            "to start again use --overwrite, without --resume"
        )


def way_out(folder: Path) -> str:
    """How to go on after a failure: the step of the last checkpoint and the flag, or to run it again."""
    try:
        path = newest(folder)
    except RefusedError as error:
        return str(error)
    if path is not None:
        return f"the last checkpoint is at step {_order(path)[0]}; run the same command with --resume"
    return "no checkpoint was written yet; run the same command again"


def load(path: Path) -> TrainCheckpoint:
    """The checkpoint in a folder that `latest` gave, its tensors on the CPU.

    Raises CheckError where it is damaged, RefusedError where it is of another format.
    """
    state = _checked_state(path)
    return TrainCheckpoint(
        step=_whole(state["step"]),
        fingerprint=str(state["fingerprint"]),
        best=None if state["best"] is None else str(state["best"]),
        values=_object(state["values"]),
        model=_load_tensors(path, MODEL_FILE, state),
        optimizer=_load_tensors(path, OPTIMIZER_FILE, state),
    )


def load_best(path: Path) -> BestWeights:
    """The best weights in `folder / checkpoint.best`; errors as in `load`."""
    state = _checked_state(path)
    return BestWeights(step=_whole(state["step"]), model=_load_tensors(path, MODEL_FILE, state))


def clear(folder: Path) -> None:
    """Remove every checkpoint: the training is over, or starts again."""
    _remove([*_folders(folder, "step"), *_folders(folder, "best"), *folder.glob(f"{_SCRATCH}*")])


# ---------------------------------------------------------------- writing


def _publish(folder: Path, name: str, state: Json, tensors: Mapping[str, Tensors]) -> Path:
    with writing(str(folder / name)):
        folder.mkdir(parents=True, exist_ok=True)
        _remove(list(folder.glob(f"{_SCRATCH}*")))  # of a process that was killed; there is one writer
        scratch = folder / f"{_SCRATCH}{uuid4().hex}"
        try:
            scratch.mkdir()
            files: Json = {}
            aliases: Json = {}
            for file, content in tensors.items():
                aliases[file] = write_tensors(scratch / file, content)
                files[file] = {"size_bytes": (scratch / file).stat().st_size, "crc32": _crc32(scratch / file)}
            body: Json = {"format_version": FORMAT_VERSION, **state, "files": files, "aliases": aliases}
            _write_text(scratch / STATE_FILE, json.dumps({**body, "crc32": _crc32_of(body)}, indent=1) + "\n")
            sync_folder(scratch)
            path = _rename(scratch, folder, name)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        sync_folder(folder)
    return path


def _rename(scratch: Path, folder: Path, name: str) -> Path:
    """Give the scratch folder the first free name of its step; rename(2) refuses a name that is taken."""
    attempt = max((_order(path)[1] for path in folder.glob(f"{name}*") if _is_ours(path)), default=-1) + 1
    return scratch.rename(folder / (f"{name}.{attempt}" if attempt else name))


def write_tensors(file: Path, tensors: Tensors) -> dict[str, str]:
    """Write and sync tensors; returns the names left out, each with the one that it is the same as.

    Of tied tensors the first name is written. Raises OSError (disk full).
    """
    kept, aliases = _without_aliases(tensors)
    try:
        save_file(kept, file, metadata={"format": "pt"})
    except SafetensorError as error:
        number = _OS_ERROR.search(str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(file)) from error
    sync_file(file)
    return aliases


def copied(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Copies on the CPU, which nothing changes any more; tied tensors stay tied."""
    distinct = {_place(tensor): tensor for tensor in tensors.values()}
    copies = {place: tensor.detach().to("cpu", copy=True) for place, tensor in distinct.items()}
    return {name: copies[_place(tensor)] for name, tensor in tensors.items()}


def _place(tensor: torch.Tensor) -> tuple[object, ...]:
    """Equal for tensors that are the same memory, seen alike."""
    return (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())


def _without_aliases(tensors: Tensors) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors of memory of their own on the CPU, and tied ones by name (safetensors refuses shared memory).

    For example {"a": w, "b": w, "c": w[:2]} gives {"a": w, "c": copy of w[:2]} and {"b": "a"}.
    """
    kept: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    first_of: dict[object, str] = {}
    memory: set[int] = set()
    for name, held in tensors.items():
        tensor = held.detach()
        if tensor.numel() and first_of.setdefault(_place(tensor), name) != name:
            aliases[name] = first_of[_place(tensor)]
            continue
        on_cpu = tensor.cpu().contiguous()
        storage = on_cpu.untyped_storage()
        if on_cpu.numel() and (storage.data_ptr() in memory or storage.nbytes() != on_cpu.nbytes):
            on_cpu = on_cpu.clone()
        memory.add(on_cpu.untyped_storage().data_ptr())
        kept[name] = on_cpu
    return kept, aliases


def _prune(folder: Path, saved: Path, *, keep: int) -> None:
    steps = _folders(folder, "step")
    kept = [path for path in steps if _order(path) <= _order(saved)][: max(keep, 1)]
    named = {_named_best(path) for path in kept}
    _remove([path for path in steps if path not in kept and path.name not in named])
    _remove([path for path in _folders(folder, "best") if path.name not in named])


def _named_best(path: Path) -> str | None:
    try:
        best = _read_state(path)["best"]
    except (OSError, ValueError, KeyError):
        return None
    return best if isinstance(best, str) else None


def _remove(paths: list[Path]) -> None:
    """Remove folders, each out of sight first: a kill leaves scratch, never half a checkpoint."""
    for path in paths:
        aside = path if path.name.startswith(_SCRATCH) else path.with_name(f"{_SCRATCH}{uuid4().hex}")
        with suppress(FileNotFoundError):
            path.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _write_text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    sync_file(file)


# ---------------------------------------------------------------- reading


def _folders(folder: Path, kind: str) -> list[Path]:
    """Published folders of a kind, `step` or `best`, newest first."""
    found = [path for path in folder.glob(f"{kind}-*") if _is_ours(path) and path.is_dir()]
    return sorted(found, key=_order, reverse=True)


def _is_ours(path: Path) -> bool:
    return _NAME.fullmatch(path.name) is not None


def _order(path: Path) -> tuple[int, int]:
    """Step and try of a folder: (300, 1) for `step-00000300.1`."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[2]), int(match[3] or 0)


def _problem(path: Path, *, deep: bool) -> str | None:
    """What is wrong with a published folder, None where it is whole; `deep` reads every byte."""
    try:
        state = _read_state(path)
        for name, entry in _object(state["files"]).items():
            recorded, file = _object(entry), path / name
            size_bytes = file.stat().st_size
            if size_bytes != recorded["size_bytes"]:
                return f"{name} has {size_bytes:,} bytes of {recorded['size_bytes']:,}"
            if deep and _crc32(file) != recorded["crc32"]:
                return f"{name} is not what was written (its checksum differs)"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except (ValueError, KeyError):
        return f"{STATE_FILE} is damaged"
    return None


def _problem_of_best(path: Path) -> str | None:
    """What is wrong with the best weights that a whole checkpoint names."""
    name = _named_best(path)
    problem = name and _problem(path.with_name(name), deep=True)
    return f"of its best weights {name}, {problem}" if problem else None


def _read_state(path: Path) -> Json:
    """`state.json`, whole; ValueError or KeyError where it is damaged, RefusedError for another format."""
    state = _object(json.loads((path / STATE_FILE).read_text(encoding="utf-8")))
    version = state["format_version"]
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise RefusedError(
            f"{path / STATE_FILE}: format_version {version}; this release reads up to {FORMAT_VERSION}; "
            "install a newer assay"
        )
    if isinstance(version, int) and version < FORMAT_VERSION:
        raise RefusedError(
            f"{path / STATE_FILE}: format_version {version}; this release resumes from {FORMAT_VERSION}; "
            "finish that training with the assay that began it, or start again with --overwrite"
        )
    if state.pop("crc32") != _crc32_of(state):
        raise ValueError(path)
    return state


def _checked_state(path: Path) -> Json:
    problem = _problem(path, deep=True)
    if problem is not None:
        raise CheckError(f"{path}: {problem}; a checkpoint must be whole; remove it and run with --resume")
    return _read_state(path)


def _load_tensors(path: Path, file: str, state: Json) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(path / file)
    for name, same in _object(_object(state["aliases"])[file]).items():
        tensors[name] = tensors[str(same)]
    return tensors


def _crc32(file: Path) -> int:
    checksum = 0
    with file.open("rb", buffering=0) as content:
        while piece := content.read(_READ_BYTES):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def _crc32_of(body: Json) -> int:
    """Of the values as a reader finds them: names that were numbers are text by then, and sort as text."""
    return zlib.crc32(json.dumps(json.loads(json.dumps(body)), sort_keys=True).encode())


def _object(value: object) -> Json:
    if not isinstance(value, dict):
        raise ValueError(value)
    return value


def _whole(value: object) -> int:
    assert isinstance(value, int)
    return value
