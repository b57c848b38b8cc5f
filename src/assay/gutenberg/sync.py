"""`assay gutenberg sync`: the texts of a mirror by rsync, ten shards after the first digit, then cleaned.

Each shard is listed, the best file of each book is chosen, and those files alone are copied. rsync itself goes on
where it stopped and copies nothing twice. Nothing is ever deleted.
"""

import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from assay.errors import StorageError, UsageError, WorkError
from assay.gutenberg.fetch import Say, open_ingest
from assay.gutenberg.ingest import Arrival, Gathered, Ingest
from assay.gutenberg.mirroring import MirrorFile, best_files, filters, read_listing
from assay.gutenberg.names import book_key
from assay.gutenberg.settings import SyncSettings

MIRROR_FOLDER = "mirror"
_UNREACHABLE = frozenset({5, 10, 12, 30, 35})
"""Exit statuses of rsync: protocol start, socket, data stream, timeouts."""
_VANISHED = 24
_PARTIAL = frozenset({23, _VANISHED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Copied:
    """One shard, copied."""

    files: tuple[MirrorFile, ...]
    note: str | None
    """What rsync could not copy."""


def sync(settings: SyncSettings, *, on_message: Say | None = None) -> Gathered:
    """Copy what is new on the mirror and file it; books whose cleaned text is the same stay as they are.

    Raises UsageError without rsync, WorkError where the mirror is down.
    """
    if shutil.which(settings.rsync) is None:
        raise UsageError(
            f"rsync is {settings.rsync!r}, and there is no such program; install rsync, or name it with --rsync"
        )
    say = on_message or (lambda _: None)
    ingest = open_ingest(settings)
    gathered = Gathered(out=settings.out)
    folder = Path(settings.out) / MIRROR_FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made ({error.strerror}); name another --out") from error
    try:
        with ThreadPoolExecutor(settings.shards) as pool:
            copies = [
                pool.submit(_copy, settings, ingest, digit, folder) for digit in sorted(set(settings.digits))
            ]
            try:
                for copy in copies:
                    _file(copy.result(), settings, ingest, gathered, say)
            finally:
                for copy in copies:
                    copy.cancel()
    finally:
        ingest.shelf.merge()
    return gathered


def _copy(settings: SyncSettings, ingest: Ingest, digit: str, folder: Path) -> Copied:
    """List one shard, choose, copy."""
    source = settings.mirror.rstrip("/") + "/"
    listed = _rsync(settings, ["--recursive", "--list-only", "--no-human-readable", *filters(digit), source])
    files = [
        file
        for file in best_files(read_listing(listed.stdout.splitlines()), utf8_only=settings.utf8_only)
        if file.size_bytes <= settings.max_book_bytes and not ingest.is_unwanted(file.gutenberg_id)
    ][: settings.limit]
    if not files:
        return Copied(files=(), note=_problem(listed))
    wanted = "".join(file.path + "\n" for file in files)
    copied = _rsync(
        settings, ["--times", "--partial-dir=.partial", "--files-from=-", source, f"{folder}/"], wanted
    )
    return Copied(files=tuple(files), note=_problem(copied))


def _rsync(
    settings: SyncSettings, arguments: Sequence[str], given: str = ""
) -> "subprocess.CompletedProcess[str]":
    contact_timeout = [f"--contimeout={settings.timeout_seconds}"]
    command = [settings.rsync, f"--timeout={settings.timeout_seconds}", *contact_timeout, *arguments]
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode in _UNREACHABLE:
        msg = (
            f"mirror {settings.mirror} cannot be reached ({_last_line(done)}); what was fetched is kept; "
            "run the same command later, or name another with --mirror"
        )
        raise WorkError(msg)
    if done.returncode and done.returncode not in _PARTIAL:
        msg = (
            f"rsync of {settings.mirror} failed ({_last_line(done)}); fix that and run the same command again"
        )
        raise WorkError(msg)
    return done


def _problem(done: "subprocess.CompletedProcess[str]") -> str | None:
    return _last_line(done) if done.returncode in _PARTIAL - {_VANISHED} else None


def _last_line(done: "subprocess.CompletedProcess[str]") -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    # rsync's last line says where in its source it was; the one before says what was wrong
    told = [line for line in lines if not line.startswith("rsync error:")] or lines
    return told[-1] if told else f"status {done.returncode}"


def _file(copied: Copied, settings: SyncSettings, ingest: Ingest, gathered: Gathered, say: Say) -> None:
    """Clean what changed in one shard."""
    if copied.note:
        gathered.failed.append(("rsync", copied.note))
    for file in copied.files:
        key = book_key(file.gutenberg_id, file.path)
        raw_path = f"{MIRROR_FOLDER}/{file.path}"
        if ingest.shelf.is_fresh(key, raw_path) or (not ingest.shelf.is_filed(key) and ingest.is_done(key)):
            gathered.counts["already"] += 1
            continue
        try:
            content = (Path(settings.out) / raw_path).read_bytes()
        except OSError as error:
            gathered.failed.append((key, f"{raw_path}: {error.strerror}"))
            continue
        came = ingest.take(
            Arrival(
                source="sync",
                url=f"{settings.mirror.rstrip('/')}/{file.path}",
                gutenberg_id=file.gutenberg_id,
                content=content,
                raw_path=raw_path,
            )
        )
        gathered.counts[came] += 1
        say(f"{key}: {came}")
