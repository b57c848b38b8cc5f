"""Splits: stratified, reproducible, and no near-duplicate on two sides."""

from collections import Counter

import numpy as np
import pytest

from assay.errors import UsageError
from assay.train.batches import epoch_batches, learning_rate_factor
from assay.train.provenance import MAX_HASHES, count_seen, pack_hashes, seen_hashes, text_hashes
from assay.train.splits import group_near_duplicates, split_rows

ARTICLE = " ".join(f"word{index}" for index in range(120))


def test_near_duplicates_share_a_group_and_others_do_not():
    """A changed title and a shortened copy are found; a text about something else is not."""
    other = " ".join(f"else{index}" for index in range(120))
    texts = [ARTICLE, f"a new title {ARTICLE}", other, " ".join(ARTICLE.split()[:80]), "short", "Short"]
    assert group_near_duplicates(texts) == [0, 0, 2, 0, 4, 4]


def test_a_common_phrase_makes_no_group():
    """One shared sentence in long texts is no reason to keep them together."""
    shared = "all rights reserved by the publisher of this page"
    texts = [f"{' '.join(f'w{row}x{index}' for index in range(100))} {shared}" for row in range(4)]
    assert group_near_duplicates(texts) == [0, 1, 2, 3]


def test_shares_hold_within_each_label():
    """A rare label is split in the same proportions as a common one."""
    labels = ["common"] * 200 + ["rare"] * 20
    splits = split_rows(labels, range(220), {"train": 0.7, "test": 0.3}, seed=3)
    assert Counter(zip(labels, splits, strict=True)) == {
        ("common", "train"): 140,
        ("common", "test"): 60,
        ("rare", "train"): 14,
        ("rare", "test"): 6,
    }


def test_a_group_lies_in_one_split():
    """Whatever its size."""
    groups = [row // 7 for row in range(140)]
    splits = split_rows(["x"] * 140, groups, {"a": 1, "b": 1, "c": 2}, seed=0)
    by_group = {
        group: {split for other, split in zip(groups, splits, strict=True) if other == group}
        for group in groups
    }
    assert all(len(names) == 1 for names in by_group.values())
    assert Counter(splits) == {"a": 35, "b": 35, "c": 70}


def test_the_split_depends_on_the_seed_alone():
    """The same seed gives the same split again, another seed another."""
    first, again, other = (
        split_rows(["x"] * 50, range(50), {"a": 1, "b": 1}, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_an_empty_share_is_refused():
    """A split of weight 0 is a mistake."""
    with pytest.raises(UsageError, match="weight above 0"):
        split_rows(["x"], [0], {"a": 1, "b": 0}, seed=0)


def test_an_epoch_holds_each_row_once_in_batches_of_like_length():
    """Every row exactly once; far less padding than in random batches."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 500, size=333)
    batches = epoch_batches(lengths, batch_size=16, rng=rng)
    assert sorted(np.concatenate(batches).tolist()) == list(range(333))
    assert min(len(batch) for batch in batches) == 333 % 16
    assert all(len(batch) <= 16 for batch in batches)
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    shuffled = rng.permutation(333)
    random_padded = sum(
        len(chunk) * int(lengths[chunk].max()) for chunk in np.array_split(shuffled, len(batches))
    )
    assert padded / lengths.sum() < 1.2 < random_padded / lengths.sum()
    second = epoch_batches(lengths, batch_size=16, rng=rng)
    assert [batch.tolist() for batch in batches] != [batch.tolist() for batch in second]


def test_the_learning_rate_rises_then_falls_to_nothing():
    """Full at the end of the warm-up, a step above 0 at the end; no warm-up is fine."""
    factors = [learning_rate_factor(step, num_steps=10, num_warmup_steps=2) for step in range(10)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[-1] == pytest.approx(1 / 8)
    assert learning_rate_factor(0, num_steps=10, num_warmup_steps=0) == 1.0


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
    assert pack_hashes(np.arange(MAX_HASHES + 1, dtype=np.uint64)) is None
