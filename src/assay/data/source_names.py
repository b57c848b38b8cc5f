"""A name for each source of a run: short, unique, safe in a file name."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence

MAX_NAME_BYTES = 160

_UNSAFE = re.compile(r"[^\w.=+-]")


def unique_names(paths: Sequence[list[str]], endings: Sequence[str]) -> list[str]:
    """A name for each path, given in parts: what lies below the folder that all share, "/" as "__".

    `endings` are dropped where the names stay different without them.
    """
    shared = _num_shared([parts[:-1] for parts in paths])
    full = ["__".join(parts[shared:]) for parts in paths]
    short = [name[: len(name) - len(ending)] or name for name, ending in zip(full, endings, strict=True)]
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


def _keep_where_equal(short: Sequence[str], full: Sequence[str]) -> Iterator[str]:
    counts = Counter(map(_safe, short))
    for name, whole in zip(short, full, strict=True):
        yield whole if counts[_safe(name)] > 1 else name


def _safe(name: str) -> str:
    safe = _UNSAFE.sub("_", name)
    safe = "_" + safe[1:] if safe[:1] in {".", "-"} else safe or "_"
    if len(safe.encode()) <= MAX_NAME_BYTES:
        return safe
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return safe.encode()[:MAX_NAME_BYTES].decode("utf-8", "ignore") + "-" + digest
