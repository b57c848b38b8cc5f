"""Files of a folder and of a glob, on disk and in a bucket.

Both are given as a store, the folder in it, and each file relative to that folder. A glob matches
files: `*` stays in one folder, `**` spans any number of them, neither matches a leading ".".
"""

import fnmatch
import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from assay.data.storage import FileInfo, LocalStore, Store, is_object_url, local_path, split_url

_MAGIC = re.compile(r"[*?[]")


def is_glob(uri: str) -> bool:
    """True where a wildcard stands in `uri`."""
    return _MAGIC.search(uri) is not None


def is_hidden(relative: str) -> bool:
    """True where a name on the path begins with "." or "_": such files of a folder are left out."""
    return any(part[:1] in {".", "_"} for part in relative.split("/"))


def static_root(uri: str) -> str:
    """The folder before the first wildcard: "/a/b" for "/a/b/*.txt"."""
    parts = uri.split("/")
    return "/".join(parts[: next(index for index, part in enumerate(parts) if is_glob(part))])


def folder_files(uri: str) -> tuple[Store, str, list[FileInfo]]:
    """The files below a folder, hidden ones left out."""
    store, folder = _split_folder(uri)
    return store, folder, [info for info in _listed(store, folder) if not is_hidden(info.path)]


def glob_files(uri: str) -> tuple[Store, str, list[FileInfo]]:
    """The files that a glob matches, sorted; the folder is its static root."""
    root = static_root(uri) or "/"
    store, folder = _split_folder(root)
    if is_object_url(uri):
        matches = _glob_matcher(uri[len(root) + 1 :])
        return store, folder, [info for info in _listed(store, folder) if matches(info.path)]
    matched = sorted(
        match
        for match in glob.glob(uri, recursive=True)  # noqa: PTH207  Path.glob takes no absolute glob
        if not os.path.isdir(match)  # noqa: PTH112  the match is text
    )
    found = (store.info(os.path.relpath(match, root)) for match in matched)
    return store, folder, [info for info in found if info is not None]


def glob_folders(uri: str) -> list[str]:
    """The local folders that a glob matches, sorted; a bucket has none."""
    return [] if is_object_url(uri) else sorted(glob.glob(uri, recursive=True))  # noqa: PTH207


def local_paths(patterns: Sequence[str]) -> list[Path]:
    """The files and folders of this machine that patterns of sources name, resolved; nothing is opened."""
    named = [str(local_path(each)) for each in patterns if not is_object_url(each)]
    found = [path for each in named for path in (each, *glob.glob(each, recursive=True))]  # noqa: PTH207  any root
    return [Path(path).resolve() for path in found]


def joined(folder: str, name: str) -> str:
    """The path of a file of `folder`, which may be the root of its store."""
    return f"{folder}/{name}" if folder else name


def _split_folder(uri: str) -> tuple[Store, str]:
    if is_object_url(uri):
        store, path = split_url(uri)
        return store, path.strip("/")
    return LocalStore(uri), ""


def _listed(store: Store, folder: str) -> Iterator[FileInfo]:
    """The files below `folder`, relative to it."""
    skip = len(folder) + 1 if folder else 0
    return (replace(info, path=info.path[skip:]) for info in store.list(folder))


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
            # A set as fnmatch has it, without its "(?s:" and ")\Z", and never a slash.
            pieces.append("(?!/)" + fnmatch.translate(piece)[4:-3])
        else:
            pieces.append(re.escape(piece))
    return "".join(pieces)
