"""What can be known of a training's folders before any row is read: `out`, the base, what lies there."""

import json
import shutil
from pathlib import Path
from typing import Any

from assay.bundle.publish import check_out
from assay.data.listing import local_paths
from assay.data.storage import writable_place
from assay.errors import RefusedError, StorageError, UsageError
from assay.extras import need_packages
from assay.model.checkpoint import Checkpoint
from assay.model.pretrained import transformers_config
from assay.train import checkpoints
from assay.train.base import base_checkpoint
from assay.train.keeper import decisive
from assay.train.settings import STEP_OF, TrainSettings, rows_of_step, step_of


def check_places(settings: TrainSettings, *, num_ranks: int) -> None:
    """Raise an error for what cannot work with `out`, the base and `log_to`, before any row is read."""
    if "://" in settings.out:
        raise UsageError(f"out={settings.out}; a bundle is written to a folder of a disk; name a local path")
    out = Path(settings.out).resolve()
    if Path.cwd().is_relative_to(out):
        raise UsageError(
            f"out={settings.out!r} is the folder that this command runs in, or one above it; name a new folder"
        )
    check_out(out, overwrite=settings.overwrite)
    if settings.overwrite:
        _refuse_to_bury(settings, out)
    checkpoint = base_checkpoint(settings.base)
    transformers_config(checkpoint)
    limit = checkpoint.max_length
    if settings.max_length > limit:
        raise UsageError(
            f"max_length={settings.max_length}; {settings.base} takes {limit:,} tokens; set max_length={limit}"
        )
    _check_packages(settings)
    _check_room(settings, out, checkpoint)
    _check_interrupted(settings, num_ranks)


def _check_packages(settings: TrainSettings) -> None:
    """Raise `UsageError` where a package that the settings ask for is not installed."""
    if settings.near_duplicates and not settings.validation_data:
        need_packages("rensa", used_by="near_duplicates", or_else="set near_duplicates = false")
    if settings.lora_rank is not None:
        need_packages("peft", used_by="lora_rank")
    if settings.is_siamese and settings.evidence == "words":
        need_packages("sklearn", used_by="evidence of words", or_else="set evidence = none")
    if settings.log_to != "none":
        need_packages(settings.log_to, used_by=f"log_to={settings.log_to}", or_else="leave log_to out")


def _refuse_to_bury(settings: TrainSettings, out: Path) -> None:
    """Raise `UsageError` where overwriting `out` would remove rows or the base with it."""
    read = local_paths((*settings.data, *settings.validation_data))
    inside = [str(path) for path in read if path.is_relative_to(out)]
    if Path(settings.base).resolve().is_relative_to(out) and Path(settings.base).resolve() != out:
        inside.append(settings.base)
    if inside:
        raise UsageError(f"{inside[0]} lies in out={settings.out}, which is overwritten; name another out")


def _check_room(settings: TrainSettings, out: Path, base: Checkpoint) -> None:
    """Raise `StorageError` where nothing can be written beside `out`, or less than the bundle and a checkpoint."""
    place = writable_place(out, f"out={settings.out}")
    size = sum(file.stat().st_size for file in base.files)
    disk = shutil.disk_usage(place)
    if disk.total and disk.free < 2 * size:
        raise StorageError(
            f"{place}: {disk.free / 1e9:.1f} GB free; a bundle and a checkpoint of {settings.base} take at least"
            f" {2 * size / 1e9:.1f} GB; free some, or name another out"
        )


def _check_interrupted(settings: TrainSettings, num_ranks: int) -> None:
    """Raise `UsageError` or `RefusedError` where an interrupted training is neither resumed nor given up."""
    folder = checkpoints.training_folder(settings.out)
    if not settings.resume:
        if not settings.overwrite:
            checkpoints.refuse_interrupted(folder)
    elif (path := checkpoints.newest(folder)) is not None:
        values: Any = checkpoints.values_of(path)
        before = {**values.get("settings", {}), **values.get("step_of", step_of(settings, num_ranks))}
        now = json.loads(json.dumps({**decisive(settings), **step_of(settings, num_ranks)}))
        if rows_of_step(before) == rows_of_step(now):
            before = {name: value for name, value in before.items() if name not in STEP_OF}
        changed = [f"{name}={before[name]!r}" for name in before if before[name] != now.get(name)]
        if changed:
            raise RefusedError(
                f"{path}: that training had {', '.join(changed)}; use them again, or start again with --overwrite"
            )
