"""What a classifier has seen, as a bundle keeps it."""

import numpy as np

from assay.labelled.provenance import (
    MAX_HASHES,
    count_seen,
    hashes_of,
    pack_hashes,
    packed_hashes,
    packed_provenance,
    seen_hashes,
    text_hashes,
)
from assay.labelled.rows import LabelledRows


def test_hashes_ignore_outer_white_space_and_tell_pairs_apart():
    """A stripped text is the same row; moving words from one text of a pair to the other is not."""
    assert text_hashes(["a b"]) == text_hashes(["\ta b\n"])
    assert text_hashes(["a b"], ["c"]) != text_hashes(["a"], ["b c"])
    assert text_hashes(["a"], ["b"]) != text_hashes(["a"])
    assert text_hashes(["\ud800"]).size == 1


def test_packed_hashes_are_found_again_and_large_sets_are_left_out():
    """What was packed is counted; above the limit nothing is kept."""
    hashes = text_hashes(["x", "y", "x"])
    provenance = {"text_hashes": {"train": pack_hashes(hashes), "validation": "not base64!"}}
    assert count_seen(text_hashes(["x", "z"]), provenance) == {"train": 1}
    assert seen_hashes({}) == {}
    many = np.arange(MAX_HASHES + 1, dtype=np.uint64)
    assert pack_hashes(many) is None
    assert packed_hashes({"train": many, "validation": hashes}) == {"validation": pack_hashes(hashes)}


def test_ids_and_groups_are_counted_apart_from_texts():
    """Each kind has hashes of its own; one that a bundle does not keep says nothing."""
    provenance = {
        "text_hashes": {"train": pack_hashes(text_hashes(["a text"]))},
        "group_hashes": {
            "train": pack_hashes(text_hashes(["tolkien", "austen"])),
            "validation": pack_hashes(text_hashes(["woolf"])),
        },
    }
    groups = text_hashes(["austen", "austen", "woolf", "joyce"])
    assert count_seen(groups, provenance, "group") == {"train": 2, "validation": 1}
    assert count_seen(groups, provenance) == {"train": 0}
    assert count_seen(groups, provenance, "id") == {}


def test_sides_are_hashed_by_kind_and_role():
    """Texts of every side, ids and groups where there are such columns; packed as a bundle keeps them."""
    train = LabelledRows(texts=("a", "b"), labels=("x", "y"), ids=("1", "2"))
    found = hashes_of({"train": train, "validation": LabelledRows(texts=("c",), labels=("x",))})
    assert {kind: list(columns) for kind, columns in found.items()} == {
        "text": ["train", "validation"],
        "id": ["train"],
    }
    kept = packed_provenance(found)
    assert set(kept) == {"text_hashes", "id_hashes"}
    assert count_seen(text_hashes(["b", "z"]), kept) == {"train": 1, "validation": 0}
    assert count_seen(text_hashes(["2"]), kept, "id") == {"train": 1}
