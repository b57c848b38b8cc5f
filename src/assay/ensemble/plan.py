"""Settings, checkpoints and puzzles to the manifest of an ensemble run; all that could not work is refused here."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from assay._version import __version__
from assay.data.finding import find_sources
from assay.data.formats.npy import COLUMN
from assay.data.sources import FINGERPRINT_HEX, Columns, Source
from assay.ensemble.kind import ENSEMBLE, EnsembleIdentity, EnsembleRecord, MemberIdentity, MemberRecord
from assay.ensemble.rows import SCHEMA
from assay.ensemble.settings import EnsembleSettings, ViewKind
from assay.errors import InputError, UsageError
from assay.runs.manifest import Manifest, new_manifest
from assay.sudoku.grids import checked, keeps_rules
from assay.sudoku.puzzles import DESCRIPTION_FILE, PuzzleSplit, need_sudoku, read_split
from assay.sudoku.views import IDENTITY, View, cyclic, random_digits, random_view
from assay.telemetry import format_number_of

USUAL_BATCH_SIZE = 2323
"""Of the parallel batch inference script for HRM."""
INPUTS_FILE = "all__inputs.npy"


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A checkpoint and a view, as a run names it."""

    name: str
    checkpoint: str
    """Its checkpoint as it was given."""
    path: str
    """Its file, absolute."""
    fingerprint: str
    view: View
    noise_seed: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class EnsemblePlan:
    """What is to be run."""

    manifest: Manifest
    puzzles: PuzzleSplit
    members: tuple[Member, ...]
    notes: tuple[str, ...]
    """What the user should hear of the puzzles, a sentence each."""


def plan_ensemble(settings: EnsembleSettings, *, device_kind: str) -> EnsemblePlan:
    """The plan that `settings` ask for; `device_kind` is `cpu` or `cuda`.

    Reads every checkpoint. Raises `SourceError` for puzzles that cannot be read, `BundleError` for a checkpoint that
    cannot be, or is of another task than the puzzles, `UsageError` for batches that the puzzles do not fill.
    """
    folder, split = find_split(settings)
    puzzles = read_split(folder, split)
    need_sudoku(puzzles, str(folder / split))
    if not puzzles.num_rows:
        raise InputError(f"{folder / split} has 0 puzzles; name a split that has some")
    inputs_file = folder / split / INPUTS_FILE
    columns = Columns(text=None, input_ids=COLUMN)
    (source,) = find_sources([str(inputs_file)], columns=columns)
    source = replace(source, name=split)
    members = find_members(settings, puzzles)
    batch_size, boundaries = cut_batches(settings, source)
    precision = settings.precision
    if precision == "auto":
        precision = "fp32" if device_kind == "cpu" else "bf16"
    manifest = new_manifest(
        kind=ENSEMBLE,
        assay_version=__version__,
        identity=EnsembleIdentity(
            solutions=_fingerprint(puzzles),
            members=tuple(
                MemberIdentity(
                    checkpoint=member.fingerprint,
                    digits=member.view.digits,
                    cells=None if member.view.cells == IDENTITY.cells else member.view.cells,
                    noise_seed=member.noise_seed,
                )
                for member in members
            ),
            settled=settings.settled,
            noise=settings.noise,
            num_steps=settings.num_steps,
            precision=precision,
            batch_size=batch_size,
        ),
        settings=EnsembleRecord(
            data=str(folder.absolute()),
            split=split,
            members=tuple(MemberRecord(name=member.name, path=member.path) for member in members),
            gpu_memory_limit=settings.gpu_memory_limit,
        ),
        columns=columns,
        sources=[source],
        boundaries=[boundaries],
        part_schema=SCHEMA,
    )
    return EnsemblePlan(
        manifest=manifest, puzzles=puzzles, members=members, notes=find_odd_puzzles(puzzles, boundaries[-1])
    )


def find_split(settings: EnsembleSettings) -> tuple[Path, str]:
    """The folder of the puzzles and the name of the split in it: DATA may be either."""
    given = Path(settings.data).expanduser().absolute()
    if (given / DESCRIPTION_FILE).is_file():
        return given.parent, given.name
    return given, settings.split


def find_members(settings: EnsembleSettings, puzzles: PuzzleSplit) -> tuple[Member, ...]:
    """Each checkpoint with each view and each seed of noise, a checkpoint's members together.

    Raises `BundleError` for a checkpoint that is not one or is of another task, `UsageError` for one named twice.
    """
    from assay.model.hrm.files import read_hrm, require_task

    given = settings.checkpoint_paths
    files: list[Path] = []
    fingerprints: list[str] = []
    for path in given:
        checkpoint = read_hrm(Path(path).expanduser())
        task = puzzles.description
        require_task(checkpoint, vocab_size=task.vocab_size, seq_len=task.seq_len)
        if checkpoint.fingerprint in fingerprints:
            first = given[fingerprints.index(checkpoint.fingerprint)]
            raise UsageError(
                f"{path} holds the same weights as {first}; each member counts once: name it once"
            )
        files.append(checkpoint.weights.absolute())
        fingerprints.append(checkpoint.fingerprint)
    names = short_names(files)
    return tuple(
        Member(
            name=f"{name} {view_name}" + ("" if seed is None else f" noise {seed}"),
            checkpoint=path,
            path=str(file),
            fingerprint=fingerprint,
            view=view,
            noise_seed=seed,
        )
        for name, path, file, fingerprint in zip(names, given, files, fingerprints, strict=True)
        for view_name, view in views_of(settings.views, settings.permutes, settings.seed)
        for seed in (range(settings.noise_seeds) if settings.noise else (None,))
    )


def views_of(kind: ViewKind, count: int, seed: int) -> list[tuple[str, View]]:
    """So many different views with their names, the puzzle as it is first; the first few of more are the same."""
    if kind == "shift":
        return [(f"shift {by}", cyclic(by)) for by in range(count)]
    draw = random_digits if kind == "digits" else random_view
    rng = np.random.default_rng(seed)
    found = [IDENTITY]
    while len(found) < count:
        view = draw(rng)
        if view not in found:
            found.append(view)
    return [(f"{kind} {number}", view) for number, view in enumerate(found)]


def short_names(files: Sequence[Path]) -> list[str]:
    """Folder and file, of a folder the last word: `humble-otter/step_300`; the whole path where two agree."""
    short = [f"{file.parent.name.rpartition(' ')[2]}/{file.name}" for file in files]
    counts = Counter(short)
    return [name if counts[name] == 1 else str(file) for name, file in zip(short, files, strict=True)]


def cut_batches(settings: EnsembleSettings, source: Source) -> tuple[int, tuple[int, ...]]:
    """The size of a batch, and where batches begin and end; the last may be smaller."""
    num_rows = source.num_rows
    held = format_number_of(num_rows, "puzzle")
    batch_size = settings.batch_size or min(USUAL_BATCH_SIZE, num_rows)
    if batch_size > num_rows:
        raise UsageError(
            f"batch_size is {batch_size:,} and {source.name} has {held}; set {num_rows:,} or less"
        )
    most = -(-num_rows // batch_size)
    num_batch = most if settings.num_batch is None else settings.num_batch
    if num_batch > most:
        raise UsageError(
            f"num_batch is {num_batch:,} and {source.name} has {held}, {format_number_of(most, 'batch', 'batches')} of"
            f" {batch_size:,}; set {most:,} or less"
        )
    stop = min(num_batch * batch_size, num_rows)
    return batch_size, (*range(0, stop, batch_size), stop)


def find_odd_puzzles(puzzles: PuzzleSplit, num_rows: int) -> tuple[str, ...]:
    """What is wrong with the puzzles that are to be run, a sentence each."""
    inputs, labels = puzzles.inputs[:num_rows], puzzles.labels[:num_rows]
    breaks_N = ~keeps_rules(inputs)
    unsolved_N = ~checked(labels, inputs) & ~breaks_N
    notes = []
    if breaks_N.any():
        rows = format_number_of(int(breaks_N.sum()), "puzzle breaks", "puzzles break")
        notes.append(
            f"{rows} the rules as given, the first in row {int(breaks_N.argmax())}: none can be solved"
        )
    if unsolved_N.any():
        rows = format_number_of(int(unsolved_N.sum()), "label is not a", "labels are not a")
        notes.append(
            f"{rows} solution of the puzzle, the first in row {int(unsolved_N.argmax())}: there a grid that checks"
            " is counted wrong, and one that is right does not check"
        )
    return tuple(notes)


def _fingerprint(puzzles: PuzzleSplit) -> str:
    labels = np.ascontiguousarray(puzzles.labels).astype(np.uint8, copy=False)
    return hashlib.sha256(labels.tobytes()).hexdigest()[:FINGERPRINT_HEX]
