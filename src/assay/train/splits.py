"""Which split a labelled row belongs to: stratified by label, never through a group.

Pure: labels, texts and a seed in, split names out. Near-duplicates are found exactly enough for
corpora of some ten thousand documents; larger ones want MinHash and are not covered here.
"""

import zlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from random import Random

from assay.errors import UsageError

SHINGLE_WORDS = 5
"""Words in a row that make one shingle."""
_KEEP_ONE_IN = 4
"""Of all shingles this share is looked at, chosen by hash, so the same ones in every document."""
_COMMON_SHINGLE = 50
"""A shingle in more documents than this is boilerplate and says nothing about a pair."""


def group_near_duplicates(texts: Sequence[str], *, threshold: float = 0.5) -> list[int]:
    """For each text the index of the first text of its group; a text without a twin is its own group.

    Two texts are twins where at least `threshold` of the shorter one's shingles also occur in the
    other (containment, Broder 1997); groups are the connected parts, so they are transitive.
    """
    shingles = [_shingles(text) for text in texts]
    texts_with: dict[int, list[int]] = defaultdict(list)
    for index, each in enumerate(shingles):
        for shingle in each:
            texts_with[shingle].append(index)
    shared: Counter[tuple[int, int]] = Counter()
    for indices in texts_with.values():
        if 1 < len(indices) <= _COMMON_SHINGLE:
            shared.update(combinations(indices, 2))
    group_of = list(range(len(texts)))
    for (first, second), count in shared.items():
        if count >= threshold * min(len(shingles[first]), len(shingles[second])):
            low, high = sorted((_root(group_of, first), _root(group_of, second)))
            group_of[high] = low
    return [_root(group_of, index) for index in range(len(texts))]


def split_rows(
    labels: Sequence[str], groups: Sequence[int], shares: Mapping[str, float], *, seed: int
) -> list[str]:
    """The name of each row's split: shares hold within each label, a group lies in one split.

    `shares` maps split names to weights. The same input and seed give the same split on any machine.
    A group is counted under the label of its first row.
    """
    if not shares or any(not share > 0 for share in shares.values()):
        raise UsageError(f"shares {dict(shares)}; each split needs a weight above 0; drop the empty ones")
    total = sum(shares.values())
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    groups_of_label: dict[str, list[int]] = defaultdict(list)
    for group, rows in members.items():
        groups_of_label[labels[rows[0]]].append(group)
    split_of_row = [""] * len(labels)
    for label in sorted(groups_of_label):
        order = groups_of_label[label]
        Random(f"{seed}/{label}").shuffle(order)
        num_rows = sum(len(members[group]) for group in order)
        room = {name: share / total * num_rows for name, share in shares.items()}
        for group in order:
            name = max(room, key=room.__getitem__)
            room[name] -= len(members[group])
            for row in members[group]:
                split_of_row[row] = name
    return split_of_row


def _shingles(text: str) -> set[int]:
    words = text.lower().split()
    windows = range(max(1, len(words) - SHINGLE_WORDS + 1))
    hashes = [
        zlib.crc32(" ".join(words[start : start + SHINGLE_WORDS]).encode("utf-8", "replace"))
        for start in windows
    ]
    kept = {each for each in hashes if each % _KEEP_ONE_IN == 0}
    return kept or set(hashes)


def _root(group_of: list[int], index: int) -> int:
    while group_of[index] != index:
        group_of[index] = group_of[group_of[index]]
        index = group_of[index]
    return index
