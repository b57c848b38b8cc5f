"""What a classifier has seen: 8-byte hashes of texts, ids and groups, small enough for `assay.json`.

    {"text_hashes": {"train": "...", "validation": "..."}, "id_hashes": {...}, "group_hashes": {...}}

Pure. Calibration and evaluation ask it whether a row they were given was part of the training.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from assay.labelled.rows import LabelledRows

HashArray = NDArray[np.uint64]
HashKind = Literal["text", "id", "group"]

MAX_HASHES = 1_000_000
"""Above this many rows no hashes are kept: they would weigh more than 10 MB in a JSON file."""


def text_hashes(texts: Sequence[str], text_pairs: Sequence[str] | None = None) -> HashArray:
    """One 64-bit hash a row, in row order; white space around a text does not count. Ids and groups are texts."""
    digests = bytearray()
    for row, text in enumerate(texts):
        content = text.strip()
        if text_pairs is not None:
            content = f"{len(content)}:{content}{text_pairs[row].strip()}"
        digests += hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.frombuffer(bytes(digests), dtype="<u8").astype(np.uint64)


def row_hashes(rows: LabelledRows) -> dict[HashKind, HashArray]:
    """The hashes of the rows' texts, and of their ids and groups where they have such columns."""
    columns: dict[HashKind, Sequence[str] | None] = {"id": rows.ids, "group": rows.groups}
    hashes: dict[HashKind, HashArray] = {"text": text_hashes(rows.texts, rows.text_pairs)}
    hashes.update({kind: text_hashes(column) for kind, column in columns.items() if column is not None})
    return hashes


def pack_hashes(hashes: HashArray) -> str | None:
    """Sorted hashes without repeats as base64 text; `None` above `MAX_HASHES`."""
    unique = np.unique(hashes)
    if unique.size > MAX_HASHES:
        return None
    return base64.b64encode(unique.astype("<u8").tobytes()).decode("ascii")


def packed_hashes(columns: Mapping[str, HashArray]) -> dict[str, str]:
    """Packed hashes by role (`train`, `validation`); a role with more than `MAX_HASHES` is left out."""
    packed = {role: pack_hashes(hashes) for role, hashes in columns.items()}
    return {role: content for role, content in packed.items() if content is not None}


def hashes_of(sides: Mapping[str, LabelledRows]) -> dict[HashKind, dict[str, HashArray]]:
    """The hashes of the rows of each role, by kind and role, as far as they have the columns."""
    found: dict[HashKind, dict[str, HashArray]] = {}
    for role, rows in sides.items():
        for kind, hashes in row_hashes(rows).items():
            found.setdefault(kind, {})[role] = hashes
    return found


def packed_provenance(hashes: Mapping[HashKind, Mapping[str, HashArray]]) -> dict[str, dict[str, str]]:
    """Hashes by kind and role in the shape of a bundle's provenance; what is too large is left out."""
    packed = {kind: packed_hashes(columns) for kind, columns in hashes.items()}
    return {f"{kind}_hashes": by_role for kind, by_role in packed.items() if by_role}


def seen_hashes(provenance: Mapping[str, object], kind: HashKind = "text") -> dict[str, HashArray]:
    """The hashes that a bundle's provenance keeps, by role (`train`, `validation`); {} where none."""
    packed = provenance.get(f"{kind}_hashes")
    if not isinstance(packed, dict):
        return {}
    found: dict[str, HashArray] = {}
    for role, content in packed.items():
        if isinstance(content, str):
            try:
                found[str(role)] = np.frombuffer(base64.b64decode(content, validate=True), dtype="<u8")
            except (binascii.Error, ValueError):
                continue
    return found


def count_seen(
    hashes: HashArray, provenance: Mapping[str, object], kind: HashKind = "text"
) -> dict[str, int]:
    """How many of these rows each role of a bundle's training has seen, by role; {} where nothing is known.

    `hashes` are those of the rows' texts, ids or groups, as `text_hashes` gives them.
    """
    return {role: int(np.isin(hashes, seen).sum()) for role, seen in seen_hashes(provenance, kind).items()}
