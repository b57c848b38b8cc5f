"""[pure] Filters for rsync, its listing read, and the one file of each book worth having.

A mirror has two trees: the main one (`1/2/3/4/12345/12345-0.txt`, older editions below `old/`) and the generated one
(`12345/pg12345.txt`). Both begin with a digit, so both can be split into ten shards.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_LINE = re.compile(r"^-\S{9,} +([\d,.]+) +(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) (.+)$")
_ORDER = (
    (re.compile(r"/pg\d+\.txt$"), 500),
    (re.compile(r"-0\.(?:txt|zip)$"), 400),
    (re.compile(r"(?:\.txt\.utf-?8|-utf-?8\.(?:txt|zip))$"), 350),
    (re.compile(r"-8\.(?:txt|zip)$"), 300),
    (re.compile(r"\.txt$"), 100),
    (re.compile(r"\.zip$"), 90),
)
UTF8_SCORE = 350
"""A file with this score or more is UTF-8 by its name."""
_PATTERNS = ("*.txt", "*.txt.utf8", "*.txt.utf-8")


@dataclass(frozen=True, kw_only=True, slots=True)
class MirrorFile:
    """A file of a book, as the mirror lists it."""

    gutenberg_id: int
    path: str
    """Relative to the module."""
    size_bytes: int
    changed: str
    """As rsync writes it."""


def preference(path: str) -> int:
    """How much a file is wanted among those of one book, from its name: UTF-8 first; 0 for other files."""
    return next((score for pattern, score in _ORDER if pattern.search("/" + path)), 0)


def filters(digit: str) -> list[str]:
    """The rules that list the texts below one leading digit; the first rule that matches decides.

    So `old/` is excluded before any rule includes folders.
    """
    return [
        "--exclude=old/",
        "--exclude=.*",
        f"--include=/{digit}*/",
        "--exclude=/*",
        "--include=*/",
        *(f"--include={pattern}" for pattern in _PATTERNS),
        "--exclude=*",
    ]


def read_listing(lines: Iterable[str]) -> list[MirrorFile]:
    """The texts of books in the output of `rsync --list-only`; other lines are passed over."""
    found = []
    for line in lines:
        match = _LINE.match(line.rstrip("\r\n"))
        if match is None:
            continue
        path = match[3]
        number = _id_of(path)
        if number is None or preference(path) == 0 or "\\#" in path or "old" in path.split("/")[:-1]:
            continue
        size = int(match[1].replace(",", "").replace(".", ""))
        found.append(MirrorFile(gutenberg_id=number, path=path, size_bytes=size, changed=match[2]))
    return found


def _id_of(path: str) -> int | None:
    # the folder of a book is named by its number, in both trees, and so are its files: 12/12-0.txt, 12/pg12.txt
    match = re.search(r"(?:^|/)([1-9]\d{0,8})/(?:pg)?\1[-.][^/]*$", path)
    return int(match[1]) if match else None


def best_files(files: Iterable[MirrorFile], *, utf8_only: bool = False) -> list[MirrorFile]:
    """The best file of each book in ascending order of number; with `utf8_only` those in UTF-8 by name alone."""
    best: dict[int, MirrorFile] = {}
    for file in files:
        score = preference(file.path)
        if utf8_only and score < UTF8_SCORE:
            continue
        held = best.get(file.gutenberg_id)
        if held is None or (score, held.path) > (preference(held.path), file.path):
            best[file.gutenberg_id] = file
    return [best[number] for number in sorted(best)]
