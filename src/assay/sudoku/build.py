"""`assay sudoku build`: puzzles made or read, rated, chosen by stratum, split by grid, augmented, written.

    made or listed -> one solution each -> strata -> splits without a grid in common -> views of training puzzles -> OUT

Threads make, solve and find canonical forms, since compiled code holds no lock; they are handed pieces in order and
give them back in order, so their number changes nothing but the time.
"""

import json
import os
import shutil
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from assay._version import __version__
from assay.data.syncing import replace_local, sync_folder
from assay.errors import InputError, StorageError, UsageError
from assay.extras import need_packages
from assay.labelled.splits import split_rows
from assay.machine import memory, usable_cores
from assay.settings import count_of
from assay.sudoku.augment import random_forms
from assay.sudoku.findings import ListFindings, SudokuBuildReport
from assay.sudoku.grids import BLANK, num_givens
from assay.sudoku.lists import read_list
from assay.sudoku.puzzles import SET, sudoku_split, write_split
from assay.sudoku.settings import DEFAULT_NUM_PUZZLES, SudokuBuildSettings
from assay.sudoku.strata import NAMES, Quotas, shares_of, strata_of
from assay.telemetry import format_number_of

BUILD_FILE = "build.json"
"""What was asked for and what came of it; the same for the same settings, versions aside."""
GUESSES_FILE = f"{SET}__guesses.npy"
"""Beside a split's other arrays: int32, guesses of the first puzzle of each group."""
PIECE = 256
"""Puzzles that a thread is handed at a time."""
ROWS_AT_A_TIME = 16_384
SECONDS_BETWEEN_NEWS = 10.0

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rated:
    """N puzzles of one solution each."""

    inputs: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    guesses: NDArray[np.int64]

    def __len__(self) -> int:
        """How many."""
        return len(self.inputs)

    def at(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "Rated":
        """Some of them."""
        return Rated(inputs=self.inputs[rows], labels=self.labels[rows], guesses=self.guesses[rows])


def sudoku_build(
    settings: SudokuBuildSettings, *, on_message: Callable[[str], None] | None = None
) -> SudokuBuildReport:
    """Build the folder and say what is in it; `on_message` gets news on the way.

    Raises `UsageError` where the folder is there, or would not fit into memory; `InputError` where a list cannot be
    used; `StorageError`. Nothing is left of a build that stops.
    """
    say = on_message or (lambda _: None)
    need_packages("numba", used_by="assay sudoku build")
    out = Path(settings.out)
    if out.exists():
        raise UsageError(f"{out} is there already; name a folder that is not")
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not os.access(above, os.W_OK):  # said before hours of work
        raise StorageError(f"{above} may not be written to; name a writable place")
    shares = shares_of(settings.strata)
    listed_splits = _names_of(settings)
    if not settings.puzzles:
        num_puzzles = settings.num_puzzles or DEFAULT_NUM_PUZZLES
        _check_memory(round(num_puzzles * settings.shares["train"]), settings)
    num_workers = count_of(settings.workers) or usable_cores()
    say("loading the solver; the first time it is compiled, which takes up to half a minute")
    _compile()
    started = time.monotonic()
    with closing(_Workers(num_workers)) as workers:
        tested = {name: _from_list(path, workers) for name, path in listed_splits.items()}
        found, num_made, lists = _found(settings, shares, workers, say)
        seconds_found = time.monotonic() - started
        groups, tested_grids = _grids(found, [rated for rated, _ in tested.values()], workers)
    is_free = ~np.isin(groups, tested_grids)
    num_held_back = len(found) - int(is_free.sum())
    found, groups = found.at(is_free), groups[is_free]
    splits = _split(found, groups, settings)
    splits |= {name: rated for name, (rated, _) in tested.items()}
    if not len(splits["train"]):
        raise InputError("no puzzle is left to train on; ask for more, or name other lists")
    if empty := [name for name in settings.shares if not len(splits[name])]:
        raise InputError(
            f"{format_number_of(len(found), 'puzzle')} at {empty[0]}_share={settings.shares[empty[0]]:g} leave the "
            f"split {empty[0]} empty; ask for more, or set --{empty[0]}-share to another, 0 for no such split"
        )
    report = SudokuBuildReport(
        num_rows={
            name: len(rated) * (_rows_each(settings) if name == "train" else 1)
            for name, rated in splits.items()
        },
        num_puzzles={name: _count_by_stratum(rated) for name, rated in splits.items()},
        num_givens={
            name: float(num_givens(rated.inputs).mean()) for name, rated in splits.items() if len(rated)
        },
        num_grids=len(np.unique(groups)),
        num_made=num_made,
        num_held_back=num_held_back,
        lists={**lists, **{str(listed_splits[name]): findings for name, (_, findings) in tested.items()}},
    )
    _write(out, splits, settings, report)
    return replace(
        report, seconds=time.monotonic() - started, seconds_found=seconds_found, num_workers=num_workers
    )


def _compile() -> None:
    """Compile what is not in numba's cache, in this thread, before anything is timed."""
    from assay.sudoku.canonical import canonical_forms
    from assay.sudoku.search import make, solve

    canonical_forms(solve(make(0, 0, 0).inputs).solutions)


# ---------------------------------------------------------------- puzzles made or read


class _Workers:
    """Threads for compiled code: results come in the order of the pieces, a few pieces ahead."""

    def __init__(self, num_workers: int) -> None:
        self._ahead = 2 * num_workers
        self._threads = ThreadPoolExecutor(num_workers)

    def close(self) -> None:
        """Wait for the pieces under way alone."""
        self._threads.shutdown(cancel_futures=True)

    def map(self, work: Callable[[int], Result], pieces: Iterable[int]) -> Generator[Result, None, None]:
        """What `work` makes of each piece."""
        waiting: deque[Future[Result]] = deque()
        for piece in pieces:
            waiting.append(self._threads.submit(work, piece))
            if len(waiting) > self._ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _found(
    settings: SudokuBuildSettings,
    shares: Mapping[str, float],
    workers: _Workers,
    on_message: Callable[[str], None],
) -> tuple[Rated, int, dict[str, ListFindings]]:
    """The puzzles to split, how many were made for them, and what was found in lists."""
    if not settings.puzzles:
        made, num_made = _make(
            settings.num_puzzles or DEFAULT_NUM_PUZZLES, shares, settings.seed, workers, on_message
        )
        return made, num_made, {}
    read = {path: _from_list(Path(path), workers) for path in settings.puzzles}
    rated = _joined([each for each, _ in read.values()])
    _, first = np.unique(rated.inputs, axis=0, return_index=True)
    order = np.random.default_rng([settings.seed, 1]).permutation(np.sort(first))
    num_wanted = settings.num_puzzles or len(order)
    if not len(order):
        raise InputError(f"{', '.join(settings.puzzles)} have no puzzle with one solution; name other lists")
    quotas = Quotas(num_wanted, shares)
    taken = order[quotas.take(rated.guesses[order])]
    if quotas.left and (shares or settings.num_puzzles):
        missing = ", ".join(f"{num:,} of {name}" for name, num in quotas.left.items())
        on_message(f"the lists have {len(taken):,} of {num_wanted:,} puzzles asked for; missing: {missing}")
    return rated.at(taken), 0, {path: findings for path, (_, findings) in read.items()}


def _make(
    num_puzzles: int,
    shares: Mapping[str, float],
    seed: int,
    workers: _Workers,
    on_message: Callable[[str], None],
) -> tuple[Rated, int]:
    """The first puzzles of a seed's row that fill the quotas, in its order, and how many were made for them."""
    from assay.sudoku.search import make

    def piece(first: int) -> Rated:
        return Rated(**make(seed, first, PIECE)._asdict())

    quotas = Quotas(num_puzzles, shares)
    taken: list[Rated] = []
    num_made, started = 0, time.monotonic()
    said = started
    with closing(workers.map(piece, count(0, PIECE))) as pieces:
        while quotas.left:
            made = next(pieces)
            taken.append(made.at(quotas.take(made.guesses)))
            num_made += len(made)
            if quotas.left and time.monotonic() - said > SECONDS_BETWEEN_NEWS:
                said = time.monotonic()
                left = ", ".join(f"{num:,} of {name}" for name, num in quotas.left.items())
                on_message(
                    f"made {num_made:,} puzzles, {num_made / (said - started):,.0f} a second; wanted: {left}"
                )
    return _joined(taken), num_made


def _from_list(path: Path, workers: _Workers) -> tuple[Rated, ListFindings]:
    """The puzzles of a list that have one solution, and how many do not."""
    from assay.sudoku.grids import keeps_rules
    from assay.sudoku.search import solve

    found = read_list(path)
    keeps = keeps_rules(found.puzzles)
    _, first = np.unique(found.puzzles, axis=0, return_index=True)
    is_first = np.zeros(len(keeps), bool)
    is_first[first] = True
    puzzles = found.puzzles[keeps & is_first]
    pieces = workers.map(lambda start: solve(puzzles[start : start + PIECE]), range(0, len(puzzles), PIECE))
    solved = list(pieces)
    num_solutions = np.concatenate([np.zeros(0, np.int64), *(each.num_solutions for each in solved)])
    rated = _joined(
        [
            Rated(inputs=puzzles[start : start + PIECE], labels=each.solutions, guesses=each.guesses)
            for start, each in zip(range(0, len(puzzles), PIECE), solved, strict=True)
        ]
    ).at(num_solutions == 1)
    return rated, ListFindings(
        num_puzzles=len(found.puzzles),
        num_used=len(rated),
        num_repeated=int((~is_first).sum()),
        num_breaking_rules=int((~keeps & is_first).sum()),
        num_without_solution=int((num_solutions == 0).sum()),
        num_with_several=int((num_solutions == 2).sum()),
        num_other_lines=found.num_other_lines,
    )


def _joined(parts: Sequence[Rated]) -> Rated:
    none = Rated(
        inputs=np.zeros((0, 81), np.uint8), labels=np.zeros((0, 81), np.uint8), guesses=np.zeros(0, np.int64)
    )
    return Rated(
        inputs=np.concatenate([none.inputs, *(part.inputs for part in parts)]),
        labels=np.concatenate([none.labels, *(part.labels for part in parts)]),
        guesses=np.concatenate([none.guesses, *(part.guesses for part in parts)]),
    )


# ---------------------------------------------------------------- splits


def _names_of(settings: SudokuBuildSettings) -> dict[str, Path]:
    """The split of each list that is only tested on, after its file: `data/top1465.txt.gz` is `top1465`."""
    named: dict[str, Path] = {}
    for each in settings.test_puzzles:
        name = Path(each).name.partition(".")[0]
        if not name or name in {"train", "validation", "test"} or name in named:
            raise UsageError(
                f"test_puzzles has {each!r}, a split named {name!r}, which is taken; rename the file"
            )
        named[name] = Path(each)
    return named


def _grids(
    found: Rated, tested: Sequence[Rated], workers: _Workers
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A number for the grid behind each puzzle, the same for all its views; the numbers of those to test on alone."""
    from assay.sudoku.canonical import canonical_forms

    labels = np.concatenate([found.labels, *(each.labels for each in tested)])
    pieces = workers.map(
        lambda start: canonical_forms(labels[start : start + PIECE]), range(0, len(labels), PIECE)
    )
    forms = np.concatenate([np.zeros((0, 81), np.uint8), *pieces])
    _, numbers = np.unique(forms, axis=0, return_inverse=True)
    return numbers[: len(found)], np.unique(numbers[len(found) :])


def _split(found: Rated, groups: NDArray[np.int64], settings: SudokuBuildSettings) -> dict[str, Rated]:
    """The splits that are drawn: no grid in two, shares kept in each stratum."""
    strata = [NAMES[stratum] for stratum in strata_of(found.guesses)]
    named = np.array(split_rows(strata, groups.tolist(), settings.shares, seed=settings.seed), dtype=object)
    return {name: found.at(named == name) for name in settings.shares}


def _count_by_stratum(rated: Rated) -> dict[str, int]:
    counts = Counter(strata_of(rated.guesses).tolist())
    return {name: counts[stratum] for stratum, name in enumerate(NAMES)}


# ---------------------------------------------------------------- the folder


def _rows_each(settings: SudokuBuildSettings) -> int:
    """Training rows that one puzzle becomes."""
    return (1 + settings.augment) * (1 + settings.hints)


def _check_memory(num_train: int, settings: SudokuBuildSettings) -> None:
    """`UsageError` where the training rows would not fit."""
    needed, free = 2 * 81 * num_train * _rows_each(settings), memory().available_bytes
    if needed > free:
        raise UsageError(
            f"{num_train:,} training puzzles with augment={settings.augment} are {needed / 2**30:.1f} GiB, and "
            f"{free / 2**30:.1f} GiB of memory are free; lower augment, or let the training augment"
        )


def _augmented(rated: Rated, settings: SudokuBuildSettings) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Each puzzle and its views in a row, each followed by the same with hints; N * `_rows_each` x 81."""
    each = _rows_each(settings)
    _check_memory(len(rated), settings)
    shape = (len(rated), each, 81)
    inputs, labels = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    rng = np.random.default_rng([settings.seed, 2])
    step = max(1, ROWS_AT_A_TIME // each)
    for start in range(0, len(rated), step):
        some = rated.at(np.arange(start, min(start + step, len(rated))))
        first = np.repeat(some.inputs, 1 + settings.augment, axis=0)
        second = np.repeat(some.labels, 1 + settings.augment, axis=0)
        is_view = np.arange(len(first)) % (1 + settings.augment) > 0
        first[is_view], second[is_view] = random_forms(rng, first[is_view], second[is_view])
        if settings.hints:
            first = np.stack([first, _with_hints(rng, first, second)], axis=1)
            second = np.repeat(second, 2, axis=0)
        inputs[start : start + step] = first.reshape(len(some), each, 81)
        labels[start : start + step] = second.reshape(len(some), each, 81)
    return inputs.reshape(-1, 81), labels.reshape(-1, 81)


def _with_hints(
    rng: np.random.Generator, inputs: NDArray[np.uint8], labels: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Each puzzle with from 1 to all but one of its blanks filled in, each number and each choice equally likely."""
    is_blank = inputs == BLANK
    num_blanks = is_blank.sum(axis=1)
    num_hints = rng.integers(1, np.maximum(num_blanks, 2))
    ranks = np.where(is_blank, rng.random(inputs.shape), 2.0).argsort(axis=1).argsort(axis=1)
    return np.where(is_blank & (ranks < num_hints[:, None]), labels, inputs)


def _write(
    out: Path, splits: Mapping[str, Rated], settings: SudokuBuildSettings, report: SudokuBuildReport
) -> None:
    """Write everything under another name, then give it its own."""
    staged = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
    try:
        staged.mkdir(parents=True)
        for name, rated in splits.items():
            if name == "train":
                inputs, labels = _augmented(rated, settings)
                sizes = np.full(len(rated), _rows_each(settings))
                write_split(staged, name, sudoku_split(inputs, labels, group_sizes=sizes))
            else:
                write_split(staged, name, sudoku_split(rated.inputs, rated.labels))
            np.save(staged / name / GUESSES_FILE, rated.guesses.astype(np.int32))
        asked = {
            "num_puzzles": settings.num_puzzles,
            "puzzles": settings.puzzles,
            "test_puzzles": settings.test_puzzles,
            "strata": settings.strata,
            "shares": settings.shares,
            "augment": settings.augment,
            "hints": settings.hints,
            "seed": settings.seed,
        }
        content = {"assay": __version__, "settings": asked, **report.to_json()}
        replace_local(staged / BUILD_FILE, json.dumps(content, indent=2).encode())
        staged.rename(out)
        sync_folder(out.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"{out} could not be written ({reason}); free space or name a writable place"
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
