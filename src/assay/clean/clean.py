"""`assay clean`: show what Assay left below a place, and delete what was asked for."""

import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.clean.find import Findings, Item, Kind, find_items
from assay.clean.settings import CleanSettings
from assay.data.storage import FileInfo, Store, is_object_url, local_path, open_store, writing
from assay.errors import RefusedError, SourceError, StorageError
from assay.runs.notes import CLAIMS, FAILURES, LAUNCHES, WORKERS
from assay.runs.parts import DAMAGED
from assay.runs.run import PARTS
from assay.telemetry import format_bytes, format_number_of

SHOWN_OTHERS = 3
DELETED_AT_ONCE = 1000
RUN_FOLDERS = ("tmp", *(each.rstrip("/") for each in (PARTS, WORKERS, CLAIMS, FAILURES, DAMAGED, LAUNCHES)))


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanReport:
    """What was found, and what became of it."""

    place: str
    deleted: bool
    """Whether the chosen items are gone; False where nothing was changed."""
    chosen: tuple[Item, ...]
    """What is deleted, or would be."""
    kept: tuple[Item, ...]
    """What was recognized and not asked for."""
    others: tuple[str, ...]
    """Files and links in runs and models that are not known to be Assay's, and are left alone."""
    closed: tuple[str, ...] = ()
    """Folders that may not be listed, and are left alone."""

    @property
    def num_files(self) -> int:
        """Of what was chosen."""
        return sum(len(item.files) for item in self.chosen)

    @property
    def size_bytes(self) -> int:
        """Of what was chosen."""
        return sum(item.size_bytes for item in self.chosen)

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        return {
            "place": self.place,
            "deleted": self.deleted,
            "num_files": self.num_files,
            "size_bytes": self.size_bytes,
            "chosen": [_to_json(item) for item in self.chosen],
            "kept": [_to_json(item) for item in self.kept],
            "others": list(self.others),
            "closed": list(self.closed),
        }

    def __str__(self) -> str:
        """The report in lines, for people."""
        done = "deleted" if self.deleted else "would delete"
        lines = [_line(done, item) for item in self.chosen]
        lines += [_line("keeps", item, f"; to delete it: {_FLAGS[item.kind]}") for item in self.kept]
        if self.others:
            files = format_number_of(len(self.others), "file or link", "files or links")
            lines.append(f"leaves alone {files} not known to be Assay's: {_first(self.others)}")
        if self.closed:
            folders = format_number_of(len(self.closed), "folder")
            lines.append(f"leaves alone {folders} that you may not list: {_first(self.closed)}")
        total = f"{format_number_of(self.num_files, 'file')}, {format_bytes(self.size_bytes)}"
        if not self.chosen:
            lines.append(f"nothing to delete in {self.place}")
        elif self.deleted:
            lines.append(f"deleted {total}")
        else:
            lines.append(f"{total} in all; nothing is deleted without --delete")
        return "\n".join(lines)


def _first(paths: Sequence[str]) -> str:
    return ", ".join(paths[:SHOWN_OTHERS]) + (", ..." if len(paths) > SHOWN_OTHERS else "")


_FLAGS: dict[Kind, str] = {"leftovers": "", "run": "--runs", "model": "--models", "cache": "--caches"}


def clean(settings: CleanSettings) -> CleanReport:
    """What Assay made below a place and is to be deleted; with `delete`, once it is.

    Leftovers of commands that ended always are, runs, models and caches where they are named. Only files that are
    recognized are touched, no link is followed. Raises SourceError where nothing lies at the place, RefusedError where
    a command is at work on what would be deleted (before anything is), StorageError where a file could not be deleted;
    the others are gone then, and the same command goes on.
    """
    root = _open(settings.place)
    found = find_items(root, now=_store_time(root) if settings.delete else time.time())
    wanted = {"leftovers"} | {
        kind
        for kind, is_named in (("run", settings.runs), ("model", settings.models), ("cache", settings.caches))
        if is_named
    }
    report = CleanReport(
        place=root.url,
        deleted=settings.delete,
        chosen=tuple(item for item in found.items if item.kind in wanted),
        kept=tuple(item for item in found.items if item.kind not in wanted),
        others=_others(root, found),
        closed=found.closed,
    )
    if settings.delete:
        for item in report.chosen:
            if item.in_use is not None:
                raise RefusedError(
                    f"{item.place} is in use ({item.in_use}); stop it and wait until `assay status` shows nobody at "
                    "work, then clean again; nothing was deleted"
                )
        _delete(root, report.chosen)
    return report


def _open(place: str) -> Store:
    if is_object_url(place):
        return open_store(place)
    path = local_path(place)
    if not path.is_dir():
        raise SourceError(f"{place}: no such folder; give a run, or a folder that holds runs")
    return open_store(path.resolve())  # what is named may be a link; what lies below is not followed


def _store_time(root: Store) -> float:
    """Now, by the clock that stamps the files there: ours may be wrong, and make living commands look gone."""
    if not is_object_url(root.url):
        with writing(root.url), tempfile.TemporaryFile(dir=root.url) as file:
            file.write(b"now")
            file.flush()
            return os.fstat(file.fileno()).st_mtime
    path = f"clean-{uuid.uuid4().hex}"
    root.replace(path, b"")
    try:
        info = root.info(path)
    finally:
        root.delete(path)
    return time.time() if info is None else info.modified


def _others(root: Store, found: Findings) -> tuple[str, ...]:
    places = {f"{item.place.rstrip('/')}/" for item in found.items}
    inside = [link for link in found.links if any(f"{root.url}/{link}".startswith(place) for place in places)]
    return (*found.others, *inside)


def _delete(root: Store, items: Sequence[Item]) -> None:
    failed: list[str] = []
    for item in items:
        for begin in range(0, len(item.files), DELETED_AT_ONCE):
            failures = list(_delete_files(root, item.files[begin : begin + DELETED_AT_ONCE]))
            failed += failures
            if failures:
                break  # what describes the item is its last file, and stays
        if not is_object_url(root.url):
            _remove_empty_folders(Path(root.url), item)
    if failed:
        more = f" (and {len(failed) - 1:,} more)" if len(failed) > 1 else ""
        raise StorageError(
            f"{failed[0]}{more}; what else was shown is deleted, clean again once that is solved"
        )


def _delete_files(root: Store, files: Sequence[FileInfo]) -> Iterator[str]:
    """Delete files; gives a sentence for each that could not be, after which none of this item follows."""
    if is_object_url(root.url):
        root.delete_all([info.path for info in files])
        return
    folders: dict[str, bool] = {}
    for info in files:
        folder = info.path.rpartition("/")[0]
        if folder not in folders:
            folders[folder] = (Path(root.url) / folder).resolve() == Path(root.url) / folder
        if not folders[folder]:
            yield f"{root.url}/{folder} has become a link, and is not followed"
            return
        try:
            (Path(root.url) / info.path).unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            yield f"{root.url}/{info.path}: could not be deleted ({error.strerror})"
            return


def _remove_empty_folders(root: Path, item: Item) -> None:
    """Remove the folders of an item that are empty now, up to its own."""
    own = Path(item.place)
    found = {own, *(own / name for name in RUN_FOLDERS if item.kind == "run")}
    for info in item.files:
        folder = (root / info.path).parent
        while folder.is_relative_to(own) and folder != own:
            found.add(folder)
            folder = folder.parent
    for folder in sorted(found, key=lambda each: -len(each.parts)):
        with suppress(OSError):
            folder.rmdir()


def _line(verb: str, item: Item, after: str = "") -> str:
    size = f"{format_number_of(len(item.files), 'file')}, {format_bytes(item.size_bytes)}"
    use = f"; IN USE: {item.in_use}" if item.in_use else ""
    return f"{verb:<12} {item.kind} {item.place} ({item.what}): {size}{after}{use}"


def _to_json(item: Item) -> dict[str, Any]:
    return {
        "kind": item.kind,
        "place": item.place,
        "what": item.what,
        "num_files": len(item.files),
        "size_bytes": item.size_bytes,
        "in_use": item.in_use,
    }
