"""Sources: the input files of a run, found from what the user typed and looked at once.

Inspecting reads a footer (Parquet), the batch headers (Arrow) or the whole file (JSON Lines, CSV,
text: they say nowhere how many rows they hold). A `Source` keeps plain numbers only, so that ten
thousand of them are a few megabytes.

One file is one source, except that the text files of a folder or of one glob are one source
together, a row each. A glob matches files; it takes folders only where it matches no file. Within a
folder, names that begin with "." or "_" are left out. A file that two patterns reach is one source
where at least one of them is a glob or a folder; typed twice by name, in any spelling, it is refused.
"""

import glob
import hashlib
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from assay.data import csvrows, jsontypes, lines
from assay.data.columns import column_path, find_column, is_textual, is_token_ids, type_at, value_type
from assay.data.storage import (
    FOOTER_READ_BYTES,
    FileInfo,
    LocalStore,
    Store,
    is_object_url,
    local_path,
    split_url,
)
from assay.errors import RefusedError, SourceError, StorageError

FORMATS = {
    "parquet": (".parquet", ".pq"),
    "jsonl": (".jsonl", ".ndjson"),
    "csv": (".csv",),
    "arrow": (".arrow",),
    "text": (".txt",),
}
"""Formats that can be read, and the endings by which they are known (`.gz` and `.zst` may follow
those of jsonl and csv). A saved `datasets` dataset is its `.arrow` files."""

OBJECT_THREADS = 16
LOCAL_THREADS = 4
MAX_NAME_BYTES = 160
MAX_SHARED_SCHEMAS = 32
FINGERPRINT_HEX = 32
SAMPLE_ROWS = 1000
SAMPLE_BYTES = 64 * 1024 * 1024

_MAGIC = re.compile(r"[*?[]")
_UNSAFE = re.compile(r"[^\w.=+-]")
_PARQUET_MAGIC = b"PAR1"
_FOOTER_TAIL_BYTES = 8
_ARROW_FILE_MAGIC = b"ARROW1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Which columns of the sources are read. Dots reach into structs; a literal name with a dot wins."""

    text: str | None = "text"
    """Column of the documents; not needed where `input_ids` is set."""
    text_pair: str | None = None
    """Column of the second text, for pair models."""
    id: str | None = None
    """Column of the ids; None takes the column "id" where there is one, else rows are counted."""
    input_ids: str | None = None
    """Column of token ids, for sources that are tokenized already."""
    label: str | None = None
    """Column of the labels, for training, calibration and evaluation."""
    group: str | None = None
    """Column of the groups (author, book, url) that no split may cut through."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One input file, as it was when it was inspected."""

    uri: str
    """Absolute path or URL; for text files of a folder its path and a slash, for those of a glob the glob."""
    name: str
    """Unique among the sources of a run, safe in a file name."""
    format: str
    """A key of FORMATS."""
    size_bytes: int
    """Size on disk, in bytes; of all files for text."""
    version: str
    """Changes when the file does: etag or modification time."""
    fingerprint: str
    """Of the content; the same for a copy elsewhere. Parquet: size and footer."""
    num_rows: int
    """Number of rows."""
    splits: tuple[int, ...]
    """Rows at which a range may start cheaply, ascending, 0 first."""
    offsets: tuple[int, ...] = ()
    """Line formats: byte of the decompressed stream at which row k * index_rows begins."""
    index_rows: int = 0
    """Rows between two offsets; 0 where there are none."""
    schema: pa.Schema
    """Columns and types; for JSON Lines and CSV as the first rows show them."""
    bytes_per_row: float
    """Mean bytes of text a row, an estimate for planning."""


class _Found(NamedTuple):
    """A file that a pattern led to."""

    uri: str
    format: str
    size_bytes: int
    version: str
    typed: bool
    """True where the user named this very file."""


def find_sources(patterns: Sequence[str], *, format: str | None = None, columns: Columns) -> list[Source]:
    """The sources that `patterns` (paths, folders, globs, URLs) name, in their order, sorted within each.

    Inspects them in parallel. Raises SourceError where there are none, where one is typed twice, is
    of no known format, cannot be read, or lacks a column of `columns` or has it in a wrong type.
    """
    if format is not None and format not in FORMATS:
        msg = f"format {format!r} is not known; use one of {', '.join(FORMATS)}"
        raise SourceError(msg)
    found: dict[str, _Found] = {}
    for pattern in patterns:
        for file in _expand(pattern, format):
            earlier = found.get(file.uri)
            if earlier is not None and earlier.typed and file.typed:
                msg = f"{file.uri} is named twice; each row is scored once: name it once"
                raise SourceError(msg)
            if earlier is None or file.typed:
                found[file.uri] = file
    if not found:
        where = ", ".join(map(repr, patterns)) or "an empty list"
        msg = f"no sources in {where}; name a file, a folder, a glob or a URL"
        raise SourceError(msg)
    files = list(found.values())
    names = _unique_names(files)
    schemas = _SchemaPool()

    def inspect(file: _Found, name: str) -> Source:
        source = _inspect(file, name, columns)
        return replace(source, schema=schemas.shared(source.schema))

    # A request waits for the network; a local footer waits for nothing but the interpreter.
    num_threads = OBJECT_THREADS if any(is_object_url(file.uri) for file in files) else LOCAL_THREADS
    with ThreadPoolExecutor(max_workers=min(num_threads, len(files))) as pool:
        return list(pool.map(inspect, files, names))


def reinspect(source: Source) -> None:
    """Raise RefusedError where the source is gone or its content is not what it was.

    One look at size and version where these are unchanged; else the content is fingerprinted again,
    so a copy with a new time passes.
    """
    way_out = "put it back as it was, or start a new run"
    try:
        size_bytes, version = _current(source)
    except FileNotFoundError as error:
        msg = f"{source.uri} is gone since the run began; {way_out}"
        raise RefusedError(msg) from error
    if (size_bytes, version) == (source.size_bytes, source.version):
        return
    file = _Found(source.uri, source.format, size_bytes, version, typed=True)
    try:
        now = _INSPECTORS[source.format](file, source.name, Columns(text=None))
    except SourceError as error:
        msg = f"{source.uri} changed since the run began and cannot be read now; {way_out}"
        raise RefusedError(msg) from error
    if now.fingerprint != source.fingerprint:
        then = f"{source.size_bytes} bytes and {source.num_rows} rows then"
        what = f"{then}, {now.size_bytes} and {now.num_rows} now"
        msg = f"{source.uri} changed since the run began ({what}); {way_out}"
        raise RefusedError(msg)


def id_column(source: Source, columns: Columns) -> tuple[str, ...] | None:
    """The path of the source's id column; None where its rows are counted instead."""
    if columns.id is not None and not len(source.schema):
        return (columns.id,)  # No row of the file shows a column.
    if columns.id is not None:
        return find_column(source.schema, columns.id, uri=source.uri, option="--id-column")
    return ("id",) if "id" in source.schema.names else None


def text_files(uri: str) -> tuple[Store, str, list[FileInfo]]:
    """The files of a text source: their store, the folder they lie in, and each relative to that folder."""
    if uri.endswith("/"):
        store, folder = _split_folder(uri)
        files = [info for info in _listed(store, folder) if not _is_hidden(info.path)]
        texts = [info for info in files if _format_of(info.path) == "text"]
        return store, folder, texts or files
    store, path = split_url(uri)
    info = store.info(path)
    if info is not None:
        folder, _, name = path.rpartition("/")
        return store, folder, [replace(info, path=name)]
    if not _MAGIC.search(path):
        return store, "", []
    root = _static_root(uri)
    store, folder = _split_folder(root)
    if is_object_url(uri):
        matches = _glob_matcher(uri[len(root) + 1 :])
        return store, folder, [info for info in _listed(store, folder) if matches(info.path)]
    found = (store.info(os.path.relpath(match, root)) for match in _local_matches(uri))
    return store, folder, [info for info in found if info is not None]


def _split_folder(uri: str) -> tuple[Store, str]:
    if is_object_url(uri):
        store, path = split_url(uri)
        return store, path.strip("/")
    return LocalStore(uri), ""


def _listed(store: Store, folder: str) -> Iterator[FileInfo]:
    """The files below `folder`, relative to it."""
    skip = len(folder) + 1 if folder else 0
    return (replace(info, path=info.path[skip:]) for info in store.list(folder))


# Finding files


def _expand(pattern: str, format_: str | None) -> list[_Found]:
    uri = pattern if is_object_url(pattern) else str(local_path(pattern))
    store, path = split_url(uri)
    info = store.info(path) if path and not pattern.endswith("/") else None
    if info is not None:
        return [_typed_file(uri, info, format_)]
    if is_object_url(uri) and not _MAGIC.search(path):
        return _expand_folder(uri.rstrip("/"), format_)
    if os.path.isdir(uri):  # noqa: PTH112  uri is text
        return _expand_folder(uri, format_)
    if not _MAGIC.search(uri):
        msg = f"{pattern} does not exist; name a file, a folder, a glob or a URL"
        raise SourceError(msg)
    return _expand_object_glob(uri, format_) if is_object_url(uri) else _expand_local_glob(uri, format_)


def _expand_local_glob(uri: str, format_: str | None) -> list[_Found]:
    matched = _local_matches(uri)
    if not matched:
        return [
            found
            for folder in sorted(glob.glob(uri, recursive=True))  # noqa: PTH207  Path.glob takes no absolute glob
            for found in _expand_folder(folder, format_)
        ]
    listed = []
    for match in matched:
        store, path = split_url(match)
        info = store.info(path)
        if info is not None:
            listed.append((match, info))
    return _globbed_files(uri, listed, format_)


def _expand_object_glob(uri: str, format_: str | None) -> list[_Found]:
    root = _static_root(uri)
    store, folder = _split_folder(root)
    matches = _glob_matcher(uri[len(root) + 1 :])
    listed = [(f"{root}/{info.path}", info) for info in _listed(store, folder) if matches(info.path)]
    return _globbed_files(uri, listed, format_)


def _local_matches(uri: str) -> list[str]:
    matched = glob.glob(uri, recursive=True)  # noqa: PTH207
    return sorted(match for match in matched if not os.path.isdir(match))  # noqa: PTH112


def _expand_folder(uri: str, format_: str | None) -> list[_Found]:
    store, folder = _split_folder(uri)
    files = {info.path: info for info in _listed(store, folder) if not _is_hidden(info.path)}
    if not files:
        msg = f"{uri} is an empty folder or does not exist; name a file, a folder, a glob or a URL"
        raise SourceError(msg)
    chosen = _choose(store, folder, uri, files, format_)
    if "text" in chosen.values():
        return [_text_source(f"{uri}/")]
    return [
        _Found(f"{uri}/{name}", kind, files[name].size_bytes, files[name].version, typed=False)
        for name, kind in sorted(chosen.items())
    ]


def _choose(
    store: Store, folder: str, uri: str, files: dict[str, FileInfo], format_: str | None
) -> dict[str, str]:
    """Which files of a folder are sources, and in which format."""
    known = {name: kind for name in files if (kind := _format_of(name)) is not None}
    if format_ is not None:
        return {name: kind for name, kind in known.items() if kind == format_} or dict.fromkeys(
            files, format_
        )
    chosen = {name: kind for name, kind in known.items() if kind != "text"}
    for state in [name for name in files if PurePosixPath(name).name == "state.json"]:
        below = state.removesuffix("state.json")
        saved = _saved_data_files(store, _join(folder, state), f"{uri}/{state}")
        missing = sorted(name for name in saved if below + name not in files)
        if missing:
            msg = f"{uri}/{below}{missing[0]} is named in state.json and missing; save the dataset again"
            raise SourceError(msg)
        # Beside the data files of a saved dataset lie cache files, which are no sources.
        chosen = {
            name: kind
            for name, kind in chosen.items()
            if kind != "arrow" or name.rpartition("/")[0] != below.rstrip("/") or name[len(below) :] in saved
        }
    chosen = chosen or known
    if not chosen:
        msg = f"{uri} holds no file of a known format ({_known_formats()}); name files, or set --format"
        raise SourceError(msg)
    return chosen


def _saved_data_files(store: Store, path: str, uri: str) -> set[str]:
    try:
        return {entry["filename"] for entry in json.loads(store.read_bytes(path))["_data_files"]}
    except (ValueError, KeyError, TypeError) as error:
        msg = f"{uri} is no state.json of a saved dataset ({error!r}); save it again with save_to_disk"
        raise SourceError(msg) from error


def _typed_file(uri: str, info: FileInfo, format_: str | None) -> _Found:
    kind = format_ or _format_of(uri)
    if kind is None:
        msg = f"{uri} is of no known format ({_known_formats()}); set --format"
        raise SourceError(msg)
    if kind == "text":
        return _text_source(uri, typed=True)
    return _Found(uri, kind, info.size_bytes, info.version, typed=True)


def _globbed_files(uri: str, listed: list[tuple[str, FileInfo]], format_: str | None) -> list[_Found]:
    found = []
    for file, info in listed:
        kind = format_ or _format_of(file)
        if kind is None:
            msg = f"{file} is of no known format ({_known_formats()}); narrow the glob, or set --format"
            raise SourceError(msg)
        found.append(_Found(file, kind, info.size_bytes, info.version, typed=False))
    if not any(file.format == "text" for file in found):
        return found
    other = next((file.uri for file in found if file.format != "text"), None)
    if other is not None:
        msg = f"{uri} matches text files and {other}; give text files a glob of their own"
        raise SourceError(msg)
    return [_text_source(uri)]


def _text_source(uri: str, *, typed: bool = False) -> _Found:
    size_bytes, version = _text_state(text_files(uri)[2])
    return _Found(uri, "text", size_bytes, version, typed=typed)


def _text_state(files: list[FileInfo]) -> tuple[int, str]:
    digest = hashlib.sha256()
    for info in files:
        digest.update(f"{info.path}\0{info.size_bytes}\0{info.version}\0".encode("utf-8", "surrogateescape"))
    return sum(info.size_bytes for info in files), digest.hexdigest()[:FINGERPRINT_HEX]


def _format_of(name: str) -> str | None:
    lowered = name.lower()
    compressed = lines.compression_of(lowered) is not None
    bare = lowered.rpartition(".")[0] if compressed else lowered
    for kind, endings in FORMATS.items():
        if bare.endswith(endings) and (not compressed or kind in {"jsonl", "csv"}):
            return kind
    return None


def _known_formats() -> str:
    return ", ".join(f"{kind} {'/'.join(endings)}" for kind, endings in FORMATS.items())


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _is_hidden(relative: str) -> bool:
    return any(part[:1] in {".", "_"} for part in relative.split("/"))


def _static_root(uri: str) -> str:
    """The folder before the first wildcard: "/a/b" for "/a/b/*.txt"."""
    parts = uri.split("/")
    return "/".join(parts[: next(index for index, part in enumerate(parts) if _MAGIC.search(part))])


def _glob_matcher(pattern: str) -> Callable[[str], bool]:
    """A test of relative paths against a glob: `*` stays in one folder, `**` spans any number of them."""
    parts = pattern.split("/")
    pieces = []
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            pieces.append(r"(?:(?!\.)[^/]+/)*" + (r"(?!\.)[^/]+" if last else ""))
        else:
            pieces.append(_glob_part(part) + ("" if last else "/"))
    compiled = re.compile("".join(pieces), re.DOTALL)
    return lambda path: compiled.fullmatch(path) is not None


def _glob_part(part: str) -> str:
    # fnmatch translates "*" to ".*"; within a path it must not cross a slash.
    tokens = re.findall(r"\*+|\?|\[!?\]?[^\]]*\]|.", part, re.DOTALL)
    pieces = [r"(?!\.)"] if part[:1] in {"*", "?"} else []
    for piece in tokens:
        if piece[0] == "*":
            pieces.append("[^/]*")
        elif piece == "?":
            pieces.append("[^/]")
        elif piece[0] == "[" and len(piece) > 1:
            inside = piece[1:-1].replace("\\", "\\\\")
            pieces.append(f"[^{inside[1:]}]" if inside[0] == "!" else f"[{inside}]")
        else:
            pieces.append(re.escape(piece))
    return "".join(pieces)


# Names


def _unique_names(files: Sequence[_Found]) -> list[str]:
    """A name for each file: its path below what all share, '/' as '__', the ending dropped unless needed."""
    paths = [_path_parts(file) for file in files]
    shared = _num_shared([parts[:-1] for parts in paths])
    full = ["__".join(parts[shared:]) for parts in paths]
    short = [_without_ending(name, file.format) for name, file in zip(full, files, strict=True)]
    names = [_safe(name) for name in _keep_where_equal(short, full)]
    taken = Counter(names)
    # Two paths that differ only in characters that a name cannot hold: tell them apart by a hash.
    return [
        f"{name}-{hashlib.sha256('/'.join(parts).encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
        if taken[name] > 1
        else name
        for name, parts in zip(names, paths, strict=True)
    ]


def _num_shared(folders: Sequence[list[str]]) -> int:
    """How many leading parts all paths have in common; the least and the greatest tell."""
    first, last = min(folders), max(folders)
    num_parts = min(len(first), len(last))
    return next((index for index in range(num_parts) if first[index] != last[index]), num_parts)


def _path_parts(file: _Found) -> list[str]:
    uri = file.uri.rstrip("/")
    if file.format == "text" and _MAGIC.search(uri) and not file.typed and not file.uri.endswith("/"):
        uri = _static_root(uri)
    return uri.split("/")


def _keep_where_equal(short: Sequence[str], full: Sequence[str]) -> Iterator[str]:
    counts = Counter(map(_safe, short))
    for name, whole in zip(short, full, strict=True):
        yield whole if counts[_safe(name)] > 1 else name


def _without_ending(name: str, format_: str) -> str:
    endings = FORMATS[format_]
    bare = name.rpartition(".")[0] if lines.compression_of(name.lower()) else name
    ending = next((ending for ending in endings if bare.lower().endswith(ending)), "")
    return bare[: len(bare) - len(ending)] or name


def _safe(name: str) -> str:
    safe = _UNSAFE.sub("_", name)
    safe = "_" + safe[1:] if safe[:1] in {".", "-"} else safe or "_"
    if len(safe.encode()) <= MAX_NAME_BYTES:
        return safe
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return safe.encode()[:MAX_NAME_BYTES].decode("utf-8", "ignore") + "-" + digest


# Looking at a file


def _inspect(file: _Found, name: str, columns: Columns) -> Source:
    try:
        source = _INSPECTORS[file.format](file, name, columns)
    except StorageError as error:
        raise SourceError(str(error)) from error
    _check_columns(source, columns)
    return source


def _inspect_parquet(file: _Found, name: str, columns: Columns) -> Source:
    wanted = {name for name in (columns.text, columns.text_pair, columns.input_ids) if name is not None}
    store, path = split_url(file.uri)
    tail = store.read_bytes(path, max(0, file.size_bytes - FOOTER_READ_BYTES), FOOTER_READ_BYTES)
    if len(tail) < _FOOTER_TAIL_BYTES or tail[-4:] != _PARQUET_MAGIC:
        raise lines.unreadable(file.uri, EOFError("no Parquet footer at its end"))
    footer_bytes = int.from_bytes(tail[-8:-4], "little") + _FOOTER_TAIL_BYTES
    if footer_bytes > file.size_bytes:
        raise lines.unreadable(file.uri, EOFError("its Parquet footer is longer than the file"))
    if footer_bytes > len(tail):
        tail = store.read_bytes(path, file.size_bytes - footer_bytes, footer_bytes)
    footer = tail[-footer_bytes:]
    try:
        # Not metadata.schema: it and the metadata hold each other until the garbage collector runs.
        with pq.ParquetFile(pa.BufferReader(footer)) as parquet:
            metadata, schema = parquet.metadata, parquet.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise lines.unreadable(file.uri, error) from error
    starts, row, text_bytes = [0], 0, 0
    read: list[int] = []
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        if index == 0:
            paths = [group.column(column).path_in_schema for column in range(metadata.num_columns)]
            read = [column for column, path in enumerate(paths) if _is_below(path, wanted)]
        row += group.num_rows
        starts.append(row)
        text_bytes += sum(group.column(column).total_uncompressed_size for column in read)
    digest = hashlib.sha256(f"{file.size_bytes}:".encode() + footer)
    return Source(
        uri=file.uri,
        name=name,
        format="parquet",
        size_bytes=file.size_bytes,
        version=file.version,
        fingerprint=digest.hexdigest()[:FINGERPRINT_HEX],
        num_rows=row,
        splits=_splits(starts, row),
        schema=schema,
        bytes_per_row=text_bytes / max(1, row),
    )


def _is_below(path: str, wanted: set[str]) -> bool:
    return any(path == column or path.startswith(f"{column}.") for column in wanted)


def _splits(starts: Iterable[int], num_rows: int) -> tuple[int, ...]:
    """Where a range may start: ascending, each once, 0 first."""
    return (0, *sorted({start for start in starts if 0 < start < num_rows}))


def _inspect_arrow(file: _Found, name: str, columns: Columns) -> Source:
    digest = hashlib.sha256(f"{file.size_bytes}:".encode())
    starts, row, text_bytes = [0], 0, 0
    try:
        schema, batches = open_arrow(file.uri)
        digest.update(schema.serialize())
        column = column_path(schema, columns.input_ids or columns.text or "")
        for batch in batches:
            row += batch.num_rows
            starts.append(row)
            digest.update(f"{batch.num_rows},".encode())
            if column is not None and batch.num_rows:
                text_bytes += batch.column(schema.get_field_index(column[0])).nbytes
    except (OSError, pa.ArrowException) as error:
        raise lines.unreadable(file.uri, error) from error
    store, path = split_url(file.uri)
    digest.update(store.read_bytes(path, max(0, file.size_bytes - FOOTER_READ_BYTES), FOOTER_READ_BYTES))
    return Source(
        uri=file.uri,
        name=name,
        format="arrow",
        size_bytes=file.size_bytes,
        version=file.version,
        fingerprint=digest.hexdigest()[:FINGERPRINT_HEX],
        num_rows=row,
        splits=_splits(starts, row),
        schema=schema,
        bytes_per_row=text_bytes / max(1, row),
    )


def open_arrow(uri: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The schema and the record batches of an Arrow IPC file or stream; a local one is mapped, not read."""
    if is_object_url(uri):
        store, path = split_url(uri)
        file = store.open_input(path)
    else:
        file = pa.memory_map(str(local_path(uri)), "rb")
    is_file = file.read(len(_ARROW_FILE_MAGIC)) == _ARROW_FILE_MAGIC
    file.seek(0)
    if not is_file:
        stream = pa.ipc.open_stream(file)
        return stream.schema, iter(stream)
    reader = pa.ipc.open_file(file)
    return reader.schema, (reader.get_batch(index) for index in range(reader.num_record_batches))


def _inspect_jsonl(file: _Found, name: str, columns: Columns) -> Source:
    del columns
    scan = lines.scan(file.uri, "jsonl")
    return _line_source(file, name, scan, jsontypes.infer_schema(_sample(file.uri, "jsonl", scan)))


def _inspect_csv(file: _Found, name: str, columns: Columns) -> Source:
    del columns
    scan = lines.scan(file.uri, "csv")
    header = csvrows.parse_header(lines.LineReader(file.uri, "csv", ()).header(), file.uri)
    return _line_source(file, name, scan, csvrows.infer_schema(header, _sample(file.uri, "csv", scan)))


def _sample(uri: str, line_format: lines.LineFormat, scan: lines.LineScan) -> list[bytes]:
    reader = lines.LineReader(uri, line_format, scan.offsets)
    stop = min(SAMPLE_ROWS, scan.num_rows)
    sample = next(reader.read(0, stop, max_rows=SAMPLE_ROWS, max_bytes=SAMPLE_BYTES), [])
    reader.close()
    return sample


def _line_source(file: _Found, name: str, scan: lines.LineScan, schema: pa.Schema) -> Source:
    seekable = lines.compression_of(file.uri) is None
    return Source(
        uri=file.uri,
        name=name,
        format=file.format,
        size_bytes=file.size_bytes,
        version=file.version,
        fingerprint=scan.sha256[:FINGERPRINT_HEX],
        num_rows=scan.num_rows,
        # A compressed stream is read from its beginning wherever a range starts.
        splits=_splits(range(0, scan.num_rows, lines.INDEX_ROWS) if seekable else (), scan.num_rows),
        offsets=scan.offsets,
        index_rows=lines.INDEX_ROWS,
        schema=schema,
        bytes_per_row=scan.num_bytes / max(1, scan.num_rows),
    )


def _inspect_text(file: _Found, name: str, columns: Columns) -> Source:
    del columns
    store, folder, files = text_files(file.uri)
    remote = is_object_url(file.uri)
    digest = hashlib.sha256()
    for info in files:
        # An etag stands for the content; a time on disk does not.
        content = (
            info.version if remote else hashlib.sha256(store.read_bytes(_join(folder, info.path))).hexdigest()
        )
        digest.update(f"{info.path}\0{info.size_bytes}\0{content}\0".encode("utf-8", "surrogateescape"))
    return Source(
        uri=file.uri,
        name=name,
        format="text",
        size_bytes=file.size_bytes,
        version=file.version,
        fingerprint=digest.hexdigest()[:FINGERPRINT_HEX],
        num_rows=len(files),
        splits=tuple(range(len(files))) or (0,),
        schema=pa.schema([("id", pa.string()), ("text", pa.string())]),
        bytes_per_row=file.size_bytes / max(1, len(files)),
    )


_INSPECTORS: dict[str, Callable[[_Found, str, Columns], Source]] = {
    "parquet": _inspect_parquet,
    "arrow": _inspect_arrow,
    "jsonl": _inspect_jsonl,
    "csv": _inspect_csv,
    "text": _inspect_text,
}


def _current(source: Source) -> tuple[int, str]:
    """Size and version as they are now; raises FileNotFoundError."""
    if source.format == "text":
        files = text_files(source.uri)[2]
        if not files and source.num_rows:
            raise FileNotFoundError(source.uri)
        return _text_state(files)
    store, path = split_url(source.uri)
    info = store.info(path)
    if info is None:
        raise FileNotFoundError(source.uri)
    return info.size_bytes, info.version


def _check_columns(source: Source, columns: Columns) -> None:
    schema = source.schema
    if not len(schema) and source.format in {"jsonl", "csv"}:
        return  # No row shows a column: nothing to find wrong.
    if columns.input_ids is None:
        _check_text(source, columns.text, "--text-column")
        _check_text(source, columns.text_pair, "--text-pair-column")
    else:
        path = find_column(schema, columns.input_ids, uri=source.uri, option="--input-ids-column")
        kind = type_at(schema, path)
        if not is_token_ids(kind):
            msg = (
                f"{source.uri}: column {columns.input_ids!r} is {kind}; token ids are a list of integers: "
                "set --input-ids-column"
            )
            raise SourceError(msg)
    path_of_id = id_column(source, columns)
    if path_of_id is not None and pa.types.is_nested(value_type(type_at(schema, path_of_id))):
        msg = (
            f"{source.uri}: the id column {'.'.join(path_of_id)!r} is {type_at(schema, path_of_id)}; "
            "an id is one value: set --id-column to a scalar column"
        )
        raise SourceError(msg)
    if columns.label is not None:
        find_column(schema, columns.label, uri=source.uri, option="--label-column")
    if columns.group is not None:
        path = find_column(schema, columns.group, uri=source.uri, option="--group-column")
        if pa.types.is_nested(value_type(type_at(schema, path))):
            msg = (
                f"{source.uri}: the group column {columns.group!r} is {type_at(schema, path)}; "
                "a group is one value: set --group-column to a scalar column"
            )
            raise SourceError(msg)


def _check_text(source: Source, name: str | None, option: str) -> None:
    if name is None:
        return
    kind = type_at(source.schema, find_column(source.schema, name, uri=source.uri, option=option))
    # Every CSV field is text, whatever its characters look like.
    if source.format != "csv" and not is_textual(kind):
        msg = f"{source.uri}: column {name!r} is {kind}; a text column holds strings: set {option} to another"
        raise SourceError(msg)


class _SchemaPool:
    """One schema object for all that are equal: ten thousand sources mostly have the same."""

    def __init__(self) -> None:
        self._known: list[pa.Schema] = []
        self._lock = threading.Lock()

    def shared(self, schema: pa.Schema) -> pa.Schema:
        """The first schema equal to this one, metadata included."""
        with self._lock:
            for known in self._known:
                if known.equals(schema, check_metadata=True):
                    return known
            self._known = [schema, *self._known[: MAX_SHARED_SCHEMAS - 1]]
            return schema
