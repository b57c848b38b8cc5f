"""Splits of any rows: each row on one side, nothing tied together on two, shares as asked for."""

from collections import Counter
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.labelled import near_duplicates
from assay.labelled.near_duplicates import group_near_duplicates
from assay.labelled.splits import split_rows, strata, unite_groups

SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}

tasks = st.sampled_from(["single_label", "multi_label", "regression"])
seeds = st.integers(0, 2**32)


def labels_of(task):
    """Labels of a task, few enough to repeat."""
    names = st.sampled_from("abcdef")
    if task == "single_label":
        return names
    if task == "multi_label":
        return st.lists(names, max_size=3, unique=True).map(tuple)
    return st.floats(-10, 10)


@st.composite
def grouped_rows(draw, max_group=40):
    """Labels of one task, and a group for each row."""
    task = draw(tasks)
    labels = draw(st.lists(labels_of(task), min_size=1, max_size=80))
    groups = draw(st.lists(st.integers(0, max_group), min_size=len(labels), max_size=len(labels)))
    return strata(labels, task), groups


@given(grouped_rows(), seeds)
def test_each_row_is_in_one_split_and_no_group_in_two(rows, seed):
    """Whatever the labels, the groups and their sizes."""
    kinds, groups = rows
    splits = split_rows(kinds, groups, SHARES, seed=seed)
    assert len(splits) == len(kinds)
    assert set(splits) <= set(SHARES)
    assert len(set(zip(groups, splits, strict=True))) == len(set(groups))


@given(grouped_rows(), seeds)
def test_the_first_split_has_a_row_of_every_stratum(rows, seed):
    """Nothing is validated that was never trained on."""
    kinds, groups = rows
    splits = split_rows(kinds, groups, SHARES, seed=seed)
    trained = {kind for kind, split in zip(kinds, splits, strict=True) if split == "train"}
    assert trained == set(kinds)


@settings(max_examples=50, deadline=None)
@given(st.data(), tasks, seeds)
def test_shares_hold_where_groups_are_small(data, task, seed):
    """Rows of their own: each split within one row a stratum, and within one row and a stratum in all."""
    labels = data.draw(st.lists(labels_of(task), min_size=60, max_size=150))
    kinds = strata(labels, task)
    splits = split_rows(kinds, range(len(kinds)), SHARES, seed=seed)
    sizes, of_kind = Counter(splits), Counter(zip(kinds, splits, strict=True))
    rare = len({kind for kind, count in Counter(kinds).items() if count < 10})
    for name, share in SHARES.items():
        assert abs(sizes[name] - share * len(kinds)) <= 1 + rare
        for kind, count in Counter(kinds).items():
            assert abs(of_kind[kind, name] - share * count) <= 2 + rare


@settings(max_examples=50, deadline=None)
@given(st.data(), seeds)
def test_shares_hold_to_a_group_where_groups_have_several_labels(data, seed):
    """Groups of up to three rows, of any labels: each split within a few rows of its share."""
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=80, max_size=100))
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    kinds = data.draw(st.lists(st.sampled_from("abc"), min_size=len(groups), max_size=len(groups)))
    found = Counter(split_rows(kinds, groups, SHARES, seed=seed))
    for name, share in SHARES.items():
        assert abs(found[name] - share * len(groups)) <= 12


@given(grouped_rows(), seeds, st.randoms(use_true_random=False))
def test_with_keys_the_order_of_the_rows_does_not_matter(rows, seed, rng):
    """The same rows, shuffled, lie where they lay."""
    kinds, groups = rows
    order = list(range(len(kinds)))
    rng.shuffle(order)
    straight = split_rows(kinds, groups, SHARES, seed=seed, keys=range(len(kinds)))
    shuffled = split_rows(
        [kinds[row] for row in order], [groups[row] for row in order], SHARES, seed=seed, keys=order
    )
    assert shuffled == [straight[row] for row in order]


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=60))
def test_united_groups_are_the_connected_parts(rows):
    """Two rows share a group where a chain of equal values joins them, and only there."""
    groups = unite_groups(*zip(*rows, strict=True))
    reached = {row: {row} for row in range(len(rows))}
    for start, found in reached.items():
        ahead = [start]
        while ahead:
            one = rows[ahead.pop()]
            near = [
                at
                for at, row in enumerate(rows)
                if at not in found and (row[0] == one[0] or row[1] == one[1])
            ]
            found.update(near)
            ahead += near
    assert groups == [min(reached[row]) for row in range(len(rows))]


def edited_texts(seed):
    """Texts of 30 to 80 words, each with one to three copies, in each of which one word in 20 is another."""
    rng = Random(seed)
    texts, sources = [], []
    for source in range(rng.randint(2, 12)):
        words = [f"w{rng.randrange(5000)}" for _ in range(rng.randint(30, 80))]
        texts.append(" ".join(words))
        sources.append(source)
        for _ in range(rng.randint(1, 3)):
            copy = list(words)
            for place in rng.sample(range(len(words)), len(words) // 20):
                copy[place] = f"new{rng.randrange(5000)}"
            texts.append(" ".join(copy))
            sources.append(source)
    return texts, sources


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_edited_copies_never_cross_a_split(seed):
    """A text and its copies with a word in twenty changed lie in one split; strangers share no group."""
    texts, sources = edited_texts(seed)
    groups = group_near_duplicates(texts)
    assert groups == [sources.index(source) for source in sources]
    splits = split_rows(["x"] * len(texts), unite_groups(groups), SHARES, seed=seed)
    assert len(set(zip(sources, splits, strict=True))) == len(set(sources))


@given(st.lists(st.text(st.characters(max_codepoint=127)), max_size=5))
def test_ascii_is_cut_into_words_as_any_text_is(texts):
    """Plain texts take a faster way; a word of another script at their end sends them the other."""
    words, offsets = near_duplicates._words(texts)
    longer, longer_offsets = near_duplicates._words([f"{text} ж" for text in texts])
    assert (np.diff(longer_offsets) == np.diff(offsets) + 1).all()
    kept = np.ones(len(longer), dtype=bool)
    kept[longer_offsets[1:] - 1] = False
    assert (longer[kept] == words).all()
