"""Text files: each is a row; those of a folder or a glob are one source together."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from assay.data.formats.format import FileFormat, SourceFile
from assay.data.listing import folder_files, glob_files, is_glob, joined
from assay.data.rows import BATCH_BYTES, SourceRows, rows_of
from assay.data.sources import FINGERPRINT_HEX, Columns, Source, role_paths
from assay.data.storage import FileInfo, Store, is_object_url, split_url

ENDINGS = (".txt",)


def inspect(file: SourceFile, name: str, columns: Columns) -> Source:
    """A row for each file; the fingerprint is that of their paths and content."""
    del columns
    store, folder, files = _files(file.uri)
    remote = is_object_url(file.uri)
    digest = hashlib.sha256()
    for info in files:
        # An etag stands for the content; a time on disk does not.
        content = (
            info.version
            if remote
            else hashlib.sha256(store.read_bytes(joined(folder, info.path))).hexdigest()
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


def read(source: Source, columns: Columns, start: int, batch_rows: int) -> Iterator[SourceRows]:
    """Rows from `start` on."""
    paths = role_paths(source, columns)
    store, folder, files = _files(source.uri)
    while start < len(files):
        names: list[str] = []
        contents: list[bytes] = []
        size = 0
        for info in files[start : start + batch_rows]:
            content = store.read_bytes(joined(folder, info.path))
            names.append(info.path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
            contents.append(content)
            size += len(content)
            if size >= BATCH_BYTES:
                break
        values: dict[tuple[str, ...], pa.Array] = {
            ("id",): pa.array(names),
            ("text",): pa.array(contents, pa.large_binary()),
        }
        yield rows_of(source, start, len(names), {role: values[path] for role, path in paths.items()})
        start += len(names)


def state(uri: str) -> tuple[int, str] | None:
    """The size of all files, and a version that changes with that of any; None where there is none."""
    files = _files(uri)[2]
    digest = hashlib.sha256()
    for info in files:
        digest.update(f"{info.path}\0{info.size_bytes}\0{info.version}\0".encode("utf-8", "surrogateescape"))
    return (sum(info.size_bytes for info in files), digest.hexdigest()[:FINGERPRINT_HEX]) if files else None


def _files(uri: str) -> tuple[Store, str, list[FileInfo]]:
    """The files of a source: their store, the folder they lie in, and each relative to that folder."""
    if uri.endswith("/"):
        store, folder, files = folder_files(uri)
        texts = [info for info in files if info.path.lower().endswith(ENDINGS)]
        return store, folder, texts or files
    store, path = split_url(uri)
    info = store.info(path)
    if info is not None:
        folder, _, name = path.rpartition("/")
        return store, folder, [replace(info, path=name)]
    return glob_files(uri) if is_glob(path) else (store, "", [])


FORMAT = FileFormat(name="text", endings=ENDINGS, inspect=inspect, read=read, state=state, is_gathered=True)
