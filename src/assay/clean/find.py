"""Which files below a place are Assay's, by their names and by what the file says that makes a folder one of ours.

Nothing is guessed: a run has a run.json that this release reads and parts of its units, a model has an assay.json, a
cache files of its kind. Every other file is left alone, and a link is neither followed nor deleted.
"""

import fcntl
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa

from assay.bundle.description import ASSAY_FILE
from assay.data.scratch import SUFFIX as SCRATCH_SUFFIX
from assay.data.storage import FileInfo, Store, is_object_url, open_store
from assay.errors import AssayError, StorageError
from assay.runs.figures import PARITY_PATH
from assay.runs.manifest import MANIFEST_PATH, parse_manifest
from assay.runs.notes import LAUNCHES, is_note, read_heartbeats
from assay.runs.parts import DAMAGED
from assay.runs.run import Run, part_path
from assay.runs.status import DriverStatus, drivers_of
from assay.score.estimate.record import ESTIMATE_PATH, parse_estimate
from assay.score.report.report import REPORT_PATH
from assay.telemetry import format_duration, format_number_of

Kind = Literal["leftovers", "run", "model", "cache"]

STAGED_SECONDS = 3600.0
"""After so long a file that was being made, and is not locked, is one that nobody will finish."""
_STAGED = re.compile(r"tmp/[^/]*[0-9a-f]{32}[^/]*")
_MODEL_FILE = re.compile(
    r"""(members/\d+/)*(
        (assay|calibration|style_calibration|config|generation_config|ensemble|modules)\.json
        | (tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json
        | (config_sentence_transformers|sentence_bert_config)\.json
        | vocab\.txt | merges\.txt | sentencepiece\.bpe\.model | spiece\.model | spm\.model
        | model(-\d+-of-\d+)?\.safetensors | model\.safetensors\.index\.json
        | train_report\.html | metrics\.jsonl
        | (\d+_\w+|pair_head)/(config\.json|model\.safetensors|evidence\.json|lexicon\.parquet)
    )""",
    re.VERBOSE,
)
_CHECKPOINT = re.compile(
    r"(.*\.training)/(lock|(step|best)-\d{8,}(\.\d+)?/(model\.safetensors|optimizer\.safetensors|state\.json))"
)
_UNFINISHED = re.compile(r"((?:.*/)?\.[^/]+\.tmp-\w{8})/.*")
"""In the folder of a model that was being written."""
_VECTORS = re.compile(r"(.*/)?[0-9a-f]{32}/\.?[0-9a-f]{32}\.arrow")
_LANGUAGE = re.compile(r".*/assay/language/[0-9a-f]{64}\.arrow(\.[0-9a-f]{32})?")
_PROOF = re.compile(r".*/assay/proofs/[0-9a-f]{64}(\.[0-9a-f]{32})?")
"""A path from the root of the disk: the folder itself may be the place."""
_FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One thing that was found."""

    kind: Kind
    place: str
    """Folder or URL."""
    what: str
    """In a few words."""
    files: tuple[FileInfo, ...]
    """In the order in which they are deleted; paths from the root of the search."""
    in_use: str | None = None
    """Who is at work there, in words; None where nobody is."""

    @property
    def size_bytes(self) -> int:
        """Of its files."""
        return sum(info.size_bytes for info in self.files)


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What lies below a place."""

    items: tuple[Item, ...]
    others: tuple[str, ...]
    """Paths in runs and models that are not recognized."""
    links: tuple[str, ...]
    """Paths of links, which are left alone."""
    closed: tuple[str, ...]
    """Folders that may not be listed, which are left alone with all in them."""


def find_items(root: Store, *, now: float) -> Findings:
    """What Assay made below a store's root, from one listing and the descriptions that lie there.

    `now` in Unix seconds by the clock that stamps the files there: by that a heartbeat is fresh or not.
    """
    links: list[str] = []
    closed: list[str] = []
    listed = list(root.list()) if is_object_url(root.url) else list(_walk(Path(root.url), "", links, closed))
    search = _Search(root, {info.path: info for info in listed}, now)
    return Findings(
        items=tuple(search.items()),
        others=tuple(sorted(search.others)),
        links=tuple(sorted(links)),
        closed=tuple(sorted(closed)),
    )


def _walk(root: Path, folder: str, links: list[str], closed: list[str]) -> Iterator[FileInfo]:
    """The plain files below a folder, in order; links, and folders of others, are noted and not followed."""
    try:
        with os.scandir(root / folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    except OSError as error:
        if folder and isinstance(error, PermissionError):
            closed.append(folder)
            return
        raise StorageError(
            f"{root / folder}: could not be listed ({error.strerror}); check its permissions"
        ) from error
    for entry in found:
        path = f"{folder}{entry.name}"
        with suppress(FileNotFoundError):
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                links.append(path)
            elif stat.S_ISDIR(status.st_mode):
                yield from _walk(root, f"{path}/", links, closed)
            elif stat.S_ISREG(status.st_mode):
                yield FileInfo(
                    path=path,
                    size_bytes=status.st_size,
                    version=str(status.st_mtime_ns),
                    modified=status.st_mtime,
                )


class _Search:
    """Takes what is recognized out of the files that were listed."""

    def __init__(self, root: Store, files: Mapping[str, FileInfo], now: float) -> None:
        self._root = root
        self._files = dict(files)
        self._now = now
        self._is_local = not is_object_url(root.url)
        self.others: list[str] = []

    def items(self) -> Iterator[Item]:
        """Runs first, the deepest first, so that a run within a run's folder is one of its own."""
        for folder in self._folders_of(MANIFEST_PATH):
            yield from self._run(folder)
        for folder in self._folders_of(ESTIMATE_PATH):
            yield from self._estimate(folder)
        if self._is_local:
            yield from self._unfinished_models()
            for folder in self._folders_of(ASSAY_FILE):
                yield from self._model(folder)
            yield from self._checkpoints()
            yield from self._caches()

    def _folders_of(self, name: str) -> list[str]:
        """The folders that hold a file of this name, with a slash at the end, the deepest first."""
        found = [path[: -len(name)] for path in self._files if path == name or path.endswith(f"/{name}")]
        return sorted(found, key=lambda folder: (-folder.count("/"), folder))

    def _take(self, folder: str) -> dict[str, FileInfo]:
        """The files below a folder, by their path in it; they are nobody else's from now on."""
        paths = [path for path in self._files if path.startswith(folder)]
        return {path[len(folder) :]: self._files.pop(path) for path in paths}

    def _url(self, folder: str) -> str:
        return f"{self._root.url}/{folder}".rstrip("/")

    # ------------------------------------------------------------ runs

    def _run(self, folder: str) -> Iterator[Item]:
        url = self._url(folder)
        try:
            content = self._root.read_bytes(f"{folder}{MANIFEST_PATH}")
            run = Run(open_store(url), parse_manifest(content, url))
        except AssayError:
            # another tool's, or of a release that this one cannot read
            self.others.append(f"{folder}{MANIFEST_PATH}")
            return
        files = self._take(folder)
        in_use = _at_work(drivers_of(read_heartbeats(run.store), self._now))
        notes = [files.pop(path) for path in list(files) if is_note(path) or path.startswith(DAMAGED)]
        staged, is_locked = self._staged(files)
        if is_locked:
            in_use = in_use or "a process of this machine writes a part"
        units = run.units
        parts = [files.pop(path) for path in map(part_path, units) if path in files]
        beside = [files.pop(path) for path in (PARITY_PATH, ESTIMATE_PATH) if path in files]
        if REPORT_PATH in files and run.manifest.run_id.encode() in self._root.read_bytes(
            f"{folder}{REPORT_PATH}"
        ):
            beside.append(files.pop(REPORT_PATH))
        beside += [files.pop(path) for path in list(files) if path.startswith(LAUNCHES)]
        manifest = files.pop(MANIFEST_PATH)
        self.others += [f"{folder}{path}" for path in files]
        if notes or staged:
            what = "of a run: notes of commands, damaged parts, unfinished files"
            leftovers = (*notes, *staged)
            yield Item(kind="leftovers", place=url, what=what, files=leftovers, in_use=in_use)
        what = f"{run.manifest.kind}, {len(parts):,} of {format_number_of(len(units), 'unit')} published"
        # run.json last: what is left of a run that is half deleted is a run that is not done
        yield Item(kind="run", place=url, what=what, files=(*parts, *beside, manifest), in_use=in_use)

    def _estimate(self, folder: str) -> Iterator[Item]:
        """An estimate of a run that was never begun; one that another tool wrote, or another release, is left alone."""
        path = f"{folder}{ESTIMATE_PATH}"
        try:
            parse_estimate(self._root.read_bytes(path), self._url(path))
        except AssayError:
            return
        what = "an estimate of a run that was not begun"
        yield Item(kind="run", place=self._url(folder), what=what, files=(self._files.pop(path),))

    def _staged(self, files: dict[str, FileInfo]) -> tuple[list[FileInfo], bool]:
        """Takes out what killed processes left in `tmp/`; and whether a living one writes there."""
        found, is_locked = [], False
        for path in [path for path in files if self._is_local and _STAGED.fullmatch(path)]:
            state = _lock_state(Path(self._root.url) / files[path].path) if SCRATCH_SUFFIX in path else None
            is_locked = is_locked or state == "held"
            if state == "free" or (state is None and self._now - files[path].modified > STAGED_SECONDS):
                found.append(files.pop(path))
        return found, is_locked

    # ------------------------------------------------------------ models and caches

    def _unfinished_models(self) -> Iterator[Item]:
        """Folders that killed commands left of models; one that is locked is being written, and is left alone."""
        for folder in sorted({found[1] for path in self._files if (found := _UNFINISHED.fullmatch(path))}):
            files = self._take(f"{folder}/")
            is_ours = all(_MODEL_FILE.fullmatch(path) for path in files)
            if is_ours and _lock_state(Path(self._root.url) / folder) == "free":
                what = "a model that was never finished"
                yield Item(kind="leftovers", place=self._url(folder), what=what, files=tuple(files.values()))
            else:
                self.others += [f"{folder}/{path}" for path in files]

    def _model(self, folder: str) -> Iterator[Item]:
        info = self._files.get(f"{folder}{ASSAY_FILE}")
        if info is None:
            return  # a member of an ensemble that was found already
        try:
            content = json.loads(self._root.read_bytes(info.path))
            is_ours = content["format_version"] <= _FORMAT_VERSION and bool(content["assay_version"])
        except (AssayError, ValueError, TypeError, KeyError, RecursionError):
            return
        if not is_ours:
            return
        files = self._take(folder)
        known = [files.pop(path) for path in list(files) if _MODEL_FILE.fullmatch(path)]
        self.others += [f"{folder}{path}" for path in files]
        known.sort(key=lambda each: each.path == info.path)  # assay.json last
        yield Item(
            kind="model", place=self._url(folder), what=f"{content.get('task', 'model')}", files=tuple(known)
        )

    def _checkpoints(self) -> Iterator[Item]:
        matched = {path: found for path in self._files if (found := _CHECKPOINT.fullmatch(path))}
        for folder in sorted({found[1] for found in matched.values()}):
            paths = [path for path, found in matched.items() if found[1] == folder]
            if not any(path.endswith("/state.json") for path in paths):
                continue
            is_held = _lock_state(Path(self._root.url) / folder / "lock") == "held"
            yield Item(
                kind="model",
                place=self._url(folder),
                what="checkpoints of a training",
                files=tuple(self._files.pop(path) for path in paths),
                in_use="a training of this machine goes on from there" if is_held else None,
            )

    def _caches(self) -> Iterator[Item]:
        for pattern, what, is_ours in (
            (_VECTORS, "vectors of texts", self._holds_vectors),
            (_LANGUAGE, "the unpacked language model", lambda _: True),
            (_PROOF, "notes on self tests", lambda _: True),
        ):
            matched = [path for path in self._files if pattern.fullmatch(self._url(path))]
            for folder in sorted({path.rpartition("/")[0] for path in matched}):
                paths = [path for path in matched if path.rpartition("/")[0] == folder]
                if ours := [self._files.pop(path) for path in paths if is_ours(path)]:
                    yield Item(kind="cache", place=self._url(folder), what=what, files=tuple(ours))

    def _holds_vectors(self, path: str) -> bool:
        """Whether an Arrow file is a segment of vectors; one that was never finished goes by its name."""
        if path.rpartition("/")[2].startswith("."):
            return True
        try:
            with pa.memory_map(str(Path(self._root.url) / path)) as file, pa.ipc.open_file(file) as reader:
                return bool(reader.schema.names == ["key", "vector"])
        except (pa.ArrowException, OSError):
            return False


def _at_work(drivers: Sequence[DriverStatus]) -> str | None:
    """Who is at work on a run, in words."""
    working = [driver for driver in drivers if driver.state == "working"]
    if not working:
        return None
    newest = min(working, key=lambda driver: driver.seconds_since_heartbeat)
    count = format_number_of(len(working), "command is", "commands are")
    age = format_duration(newest.seconds_since_heartbeat)
    return f"{count} at work, on {newest.host} a heartbeat {age} ago"


def _lock_state(path: Path) -> Literal["free", "held"] | None:
    """Whether a living process holds the lock of a file; None where that cannot be told."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return "free"
