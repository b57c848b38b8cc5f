"""Which steps are done, and of what: a small file, so that a killed pipeline goes on and nothing is done twice.

    <out>/pipeline.json    {"steps": {name: {"inputs": {...}, "made": {...} or null}}, "looks_at_test": [id, ...]}

A step is done where its inputs are those that it was done with and what it made is there. Its inputs are the
settings that decide and identities (hashes of files, fingerprints, ids of runs) of what it reads, those of earlier
steps among them, so that a change reaches all that depends on it.
"""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.data.locking import locked
from assay.data.storage import writing
from assay.data.syncing import replace_local
from assay.errors import RefusedError
from assay.labelled.labels import brief
from assay.telemetry import format_duration

STATE_FILE = "pipeline.json"
LOCK = "lock"
FORMAT_VERSION = 1
_SHOWN = 3
_IDENTITY = re.compile("[0-9a-f]{32,}")

Inputs = Mapping[str, object]
Facts = dict[str, Any]
"""What a step made, as JSON: `id` is its identity for later steps, the rest is for the report."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One step, before it is done."""

    name: str
    title: str
    """What it does, for people."""
    inputs: Inputs
    outputs: Sequence[Path]
    """Files and folders that are there once it is done, each whole or not at all; removed to do it again."""
    leftovers: Sequence[Path] = ()
    """What it leaves where it is interrupted; removed with the outputs."""
    work: Callable[[], Facts]
    """Does it, or goes on with it."""

    @property
    def is_there(self) -> bool:
        """Whether all that it makes is there."""
        return all(path.exists() for path in self.outputs)


class Ledger:
    """The steps of one folder. One process at a time."""

    def __init__(self, folder: Path, *, overwrite: bool, say: Callable[[str], None]) -> None:
        """Use `open_ledger`."""
        self.folder = folder
        self._file = folder / STATE_FILE
        self._overwrite = overwrite
        self._say = say
        self._state = _read(self._file)

    @property
    def done(self) -> list[str]:
        """Names of the steps that were done at one time, in order."""
        return [name for name, entry in self._steps.items() if entry["made"] is not None]

    @property
    def is_empty(self) -> bool:
        """Whether no step was begun."""
        return not self._steps

    @property
    def looks_at_test(self) -> int:
        """Of how many different models the test rows were scored."""
        return len(self._state["looks_at_test"])

    def look_at_test(self, identity: str) -> None:
        """Note a look at the test rows, before it is taken, of the models of this identity."""
        looks = self._state["looks_at_test"]
        if identity not in looks:
            looks.append(identity)
            self.write()

    def do(self, step: Step) -> Facts:
        """What the step made: now, or before.

        Raises RefusedError where it was made of other inputs, unless it is to be made again; and where files lie
        in its place that no pipeline made.
        """
        inputs = _plain(step.inputs)
        entry = self._steps.get(step.name)
        if entry is not None and entry["inputs"] == inputs and entry["made"] is not None and step.is_there:
            made: Facts = entry["made"]
            self._say(f"done before: {step.title}")
            return made
        self._make_room(step, entry, inputs)
        self._steps[step.name] = {"inputs": inputs, "made": None}
        self.write()
        self._say(step.title)
        began = time.monotonic()
        made = {**_plain(step.work()), "seconds": time.monotonic() - began}
        self._steps[step.name]["made"] = made
        self.write()
        self._say(f"done in {format_duration(made['seconds'])}: {step.title}")
        return made

    def _make_room(self, step: Step, entry: Facts | None, inputs: Facts) -> None:
        if entry is not None and entry["inputs"] == inputs:
            return
        there = [path for path in (*step.outputs, *step.leftovers) if path.exists()]
        if not there:
            return
        if entry is None:
            raise RefusedError(
                f"{there[0]} is there, and this pipeline did not make it; move it away, or use another --out"
            )
        if not self._overwrite:
            changed = _changes(entry["inputs"], inputs)
            raise RefusedError(
                f"{step.name}: {changed}; use what it was made with, another --out, or --overwrite, which makes it and"
                " what depends on it again"
            )
        self._say(f"{step.name} is made again: {_changes(entry['inputs'], inputs)}")
        for path in there:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    @property
    def _steps(self) -> dict[str, Facts]:
        steps: dict[str, Facts] = self._state["steps"]
        return steps

    def write(self) -> None:
        """Put what is known into the file, in one step."""
        with writing(str(self._file)):
            replace_local(self._file, json.dumps(self._state, indent=1, ensure_ascii=False).encode())


@contextmanager
def open_ledger(folder: Path, *, overwrite: bool, say: Callable[[str], None]) -> Iterator[Ledger]:
    """The ledger of a folder, which is made; within the block no other process has it.

    Raises RefusedError where the folder holds files of others or another process is at work in it.
    """
    refuse_others(folder)
    is_new = not folder.exists()
    busy = f"another command is at work in {folder}; wait for it, or use another --out"
    with locked(folder / LOCK, busy):
        ledger = Ledger(folder, overwrite=overwrite, say=say)
        ledger.write()
        try:
            yield ledger
        finally:
            if is_new and ledger.is_empty:
                shutil.rmtree(folder)  # there were no books, or none that can be used


def refuse_others(folder: Path) -> None:
    """Raise RefusedError where a folder holds something, and nothing shows that a pipeline made it."""
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if names and STATE_FILE not in names and set(names) != {LOCK}:
        more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
        raise RefusedError(
            f"{folder} holds other files ({', '.join(names[:_SHOWN])}{more}); use an --out that is new or empty"
        )


def steps_done(folder: Path) -> list[str]:
    """Names of the steps that a folder's pipeline has done; [] where there is none."""
    return Ledger(folder, overwrite=False, say=lambda _: None).done


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {"format_version": FORMAT_VERSION, "steps": {}, "looks_at_test": []}
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        is_ours = state["format_version"] == FORMAT_VERSION and isinstance(state["steps"], dict)
        is_ours = is_ours and all({"inputs", "made"} <= set(entry) for entry in state["steps"].values())
        is_ours = is_ours and isinstance(state["looks_at_test"], list)
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(f"{file} is damaged ({error}); use another --out") from None
    if not is_ours:
        raise RefusedError(f"{file} is of another version or damaged; use another --out")
    return dict(state)


def _plain(values: Inputs) -> Facts:
    """As a JSON file gives them back."""
    plain: Facts = json.loads(json.dumps(values, default=str))
    return plain


def _changes(before: Facts, now: Facts) -> str:
    """The inputs that differ, the first few of them."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    shown = [_change(name, before.get(name), now.get(name)) for name in names[:_SHOWN]]
    return "; ".join([*shown, *([f"{len(names) - _SHOWN} more differ"] if len(names) > _SHOWN else [])])


def _change(name: str, before: object, now: object) -> str:
    if all(isinstance(value, str) and _IDENTITY.fullmatch(value) for value in (before, now)):
        return f"{name}: another than before"
    return f"{name} is {brief(json.dumps(now))}, and was {brief(json.dumps(before))}"
