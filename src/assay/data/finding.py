"""The sources of a run, found from what the user typed and looked at once.

One file is one source, except that the text files of a folder or of one glob are one source
together, a row each. A glob matches files; it takes folders only where it matches no file. Within a
folder, names that begin with "." or "_" are left out. A file that two patterns reach is one source
where at least one of them is a glob or a folder; typed twice by name, in any spelling, it is refused.
"""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa

from assay.data.column_checks import check_columns
from assay.data.formats.csv import check_delimiter
from assay.data.formats.format import SourceFile
from assay.data.formats.table import FORMATS, ending_of, format_of, known_formats
from assay.data.listing import folder_files, glob_files, glob_folders, is_glob, static_root
from assay.data.source_names import unique_names
from assay.data.sources import Columns, Source
from assay.data.storage import FileInfo, Store, is_object_url, local_path, split_url
from assay.errors import RefusedError, SourceError, StorageError

OBJECT_THREADS = 16
LOCAL_THREADS = 4
MAX_SHARED_SCHEMAS = 32


def find_sources(
    patterns: Sequence[str], *, format: str | None = None, delimiter: str | None = None, columns: Columns
) -> list[Source]:
    """The sources that `patterns` (paths, folders, globs, URLs) name, in their order, sorted within each.

    `delimiter` holds for CSV. Inspects them in parallel. Raises SourceError where there are none, where
    one is typed twice, is not in a known format, cannot be read, or lacks a column of `columns` or has it in
    a wrong type.
    """
    if format is not None and format not in FORMATS:
        msg = f"format {format!r} is not known; use one of {', '.join(FORMATS)}"
        raise SourceError(msg)
    chosen_delimiter = None if delimiter is None else check_delimiter(delimiter)
    found: dict[str, SourceFile] = {}
    for pattern in patterns:
        for file in _expand(pattern, format):
            earlier = found.get(file.uri)
            if earlier is not None and earlier.is_typed and file.is_typed:
                msg = f"{file.uri} is named twice; each row is scored once: name it once"
                raise SourceError(msg)
            if earlier is None or file.is_typed:
                found[file.uri] = file
    if not found:
        where = ", ".join(map(repr, patterns)) or "an empty list"
        msg = f"no sources in {where}; name a file, a folder, a glob or a URL"
        raise SourceError(msg)
    files = [replace(file, delimiter=chosen_delimiter) for file in found.values()]
    if delimiter is not None and not any(FORMATS[file.format].is_delimited for file in files):
        msg = f"--delimiter is {delimiter!r} and no source is CSV; leave it out, or set --format csv"
        raise SourceError(msg)
    names = unique_names(
        [_path_parts(file) for file in files], [ending_of(file.uri, file.format) for file in files]
    )
    schemas = _SchemaPool()

    def inspect(file: SourceFile, name: str) -> Source:
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
    known = FORMATS[source.format]
    state = known.state(source.uri)
    if state is None:
        msg = f"{source.uri} is gone since the run began; {way_out}"
        raise RefusedError(msg)
    size_bytes, version = state
    if state == (source.size_bytes, source.version):
        return
    file = SourceFile(
        uri=source.uri,
        format=source.format,
        size_bytes=size_bytes,
        version=version,
        is_typed=True,
        delimiter=source.delimiter,
    )
    try:
        now = known.inspect(file, source.name, Columns(text=None))
    except SourceError as error:
        msg = f"{source.uri} changed since the run began and cannot be read now; {way_out}"
        raise RefusedError(msg) from error
    if now.fingerprint != source.fingerprint:
        then = f"{source.size_bytes} bytes and {source.num_rows} rows then"
        what = f"{then}, {now.size_bytes} and {now.num_rows} now"
        msg = f"{source.uri} changed since the run began ({what}); {way_out}"
        raise RefusedError(msg)


# Finding files


def _expand(pattern: str, format_: str | None) -> list[SourceFile]:
    uri = pattern if is_object_url(pattern) else str(local_path(pattern))
    store, path = split_url(uri)
    info = store.info(path) if path and not pattern.endswith("/") else None
    if info is not None:
        return [_typed_file(uri, info, format_)]
    if is_object_url(uri) and not is_glob(path):
        return _expand_folder(uri.rstrip("/"), format_)
    if os.path.isdir(uri):  # noqa: PTH112  uri is text
        return _expand_folder(uri, format_)
    if not is_glob(uri):
        msg = f"{pattern} does not exist; name a file, a folder, a glob or a URL"
        raise SourceError(msg)
    return _expand_glob(uri, format_)


def _typed_file(uri: str, info: FileInfo, format_: str | None) -> SourceFile:
    name = format_ or format_of(uri)
    if name is None:
        msg = f"{uri} is not in a known format ({known_formats()}); set --format"
        raise SourceError(msg)
    if FORMATS[name].is_gathered:
        return _gathered(uri, name, is_typed=True)
    return _file(uri, name, info, is_typed=True)


def _expand_glob(uri: str, format_: str | None) -> list[SourceFile]:
    files = glob_files(uri)[2]
    if not files:
        return [found for folder in glob_folders(uri) for found in _expand_folder(folder, format_)]
    root = static_root(uri)
    found = []
    for info in files:
        name = format_ or format_of(info.path)
        if name is None:
            msg = (
                f"{root}/{info.path} is not in a known format ({known_formats()}); "
                "narrow the glob, or set --format"
            )
            raise SourceError(msg)
        found.append(_file(f"{root}/{info.path}", name, info))
    gathered = {file.format for file in found if FORMATS[file.format].is_gathered}
    if not gathered:
        return found
    name = gathered.pop()
    other = next((file.uri for file in found if file.format != name), None)
    if other is not None:
        msg = f"{uri} matches {name} files and {other}; give {name} files a glob of their own"
        raise SourceError(msg)
    return [_gathered(uri, name)]


def _expand_folder(uri: str, format_: str | None) -> list[SourceFile]:
    store, folder, listed = folder_files(uri)
    if not listed:
        msg = f"{uri} is an empty folder or does not exist; name a file, a folder, a glob or a URL"
        raise SourceError(msg)
    files = {info.path: info for info in listed}
    chosen = _choose(store, folder, uri, list(files), format_)
    gathered = next((name for name in chosen.values() if FORMATS[name].is_gathered), None)
    if gathered is not None:
        return [_gathered(f"{uri}/", gathered)]
    return [_file(f"{uri}/{path}", name, files[path]) for path, name in sorted(chosen.items())]


def _choose(store: Store, folder: str, uri: str, paths: Sequence[str], format_: str | None) -> dict[str, str]:
    """Which files of a folder are sources, and in which format."""
    known = {path: name for path in paths if (name := format_of(path)) is not None}
    if format_ is not None:
        return {path: name for path, name in known.items() if name == format_} or dict.fromkeys(
            paths, format_
        )
    chosen = {path: name for path, name in known.items() if not FORMATS[name].is_gathered}
    for name, known_format in FORMATS.items():
        left_out = known_format.left_out(store, folder, uri, paths)
        chosen = {path: kind for path, kind in chosen.items() if kind != name or path not in left_out}
    chosen = chosen or known
    if not chosen:
        msg = f"{uri} holds no file in a known format ({known_formats()}); name files, or set --format"
        raise SourceError(msg)
    return chosen


def _file(uri: str, format_: str, info: FileInfo, *, is_typed: bool = False) -> SourceFile:
    return SourceFile(
        uri=uri, format=format_, size_bytes=info.size_bytes, version=info.version, is_typed=is_typed
    )


def _gathered(uri: str, format_: str, *, is_typed: bool = False) -> SourceFile:
    size_bytes, version = FORMATS[format_].state(uri) or (0, "")
    return SourceFile(uri=uri, format=format_, size_bytes=size_bytes, version=version, is_typed=is_typed)


def _path_parts(file: SourceFile) -> list[str]:
    uri = file.uri.rstrip("/")
    is_gathered = FORMATS[file.format].is_gathered
    if is_gathered and is_glob(uri) and not file.is_typed and not file.uri.endswith("/"):
        uri = static_root(uri)
    return uri.split("/")


# Looking at a file


def _inspect(file: SourceFile, name: str, columns: Columns) -> Source:
    try:
        source = FORMATS[file.format].inspect(file, name, columns)
    except StorageError as error:
        raise SourceError(str(error)) from error
    check_columns(source, columns)
    return source


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
