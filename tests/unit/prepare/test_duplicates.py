"""Equal chunks, shared passages and editions, found from hashes on disk."""

import random
from collections import Counter
from itertools import combinations

import numpy as np

from assay.prepare.duplicates import (
    MAX_BOOKS_OF_PASSAGE,
    ChunkDuplicates,
    SharedPassages,
    find_equal_chunks,
    find_kinship,
)
from assay.prepare.partitions import Partitions, records_of
from assay.prepare.sketches import passages, text_hash


def words(seed, count):
    """Words of a made-up language, as text."""
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefghij", k=rng.randint(2, 9))) for _ in range(count))


def records(*books):
    """Records of books, given as lists of hashes."""
    found = [records_of(np.array(hashes, dtype=np.int64), book) for book, hashes in enumerate(books)]
    return np.concatenate(found)


def test_equal_chunks_stay_once_and_boilerplate_nowhere():
    """The first of its book and of two or three books stays; a chunk in four books goes everywhere."""
    found = ChunkDuplicates()
    find_equal_chunks(records([1, 2, 2, 9], [1, 3, 9], [4, 9], [5, 9]), found)
    assert found.dropped().tolist() == [(0, 2), (0, 3), (1, 0), (1, 2), (2, 1), (3, 1)]
    assert (found.num_within, found.num_across, found.num_boilerplate) == (1, 1, 4)


def shared_of(*hashes_of_books):
    """The passages that books share."""
    shared = SharedPassages()
    shared.add(np.concatenate([records_of(hashes, book) for book, hashes in enumerate(hashes_of_books)]))
    return shared


def test_many_hashes_are_counted_as_one_by_one():
    """Repeats within books and across 30 of them, in three parts, against a count of sets."""
    rng = np.random.default_rng(1)
    # three of the hashes are in nearly every book
    books = [
        np.append(rng.integers(0, 300, rng.integers(0, 60)), rng.integers(300, 303, 4)) for _ in range(30)
    ]
    everything = records(*books)
    found, shared = ChunkDuplicates(), SharedPassages()
    for third in range(3):
        part = everything[everything["hash"] % 3 == third]
        find_equal_chunks(part, found)
        shared.add(part)
    books_of = {value: sorted({b for b, of in enumerate(books) if value in of}) for value in range(303)}
    assert max(map(len, books_of.values())) > MAX_BOOKS_OF_PASSAGE
    pairs = Counter(
        pair for of in books_of.values() if len(of) <= MAX_BOOKS_OF_PASSAGE for pair in combinations(of, 2)
    )
    assert [((one, other), count) for one, other, count in shared.at_least(2)] == [
        each for each in sorted(pairs.items()) if each[1] >= 2
    ]
    wanted = [
        (book, position)
        for book, of in enumerate(books)
        for position, value in enumerate(of.tolist())
        if value in of[:position] or len(books_of[value]) > 3 or books_of[value][0] != book
    ]
    assert found.dropped().tolist() == wanted
    assert found.num_within == sum(len(of) - len(set(of.tolist())) for of in books)
    assert found.num_within + found.num_across + found.num_boilerplate == len(wanted)


def test_partitions_bring_equal_hashes_together(tmp_path):
    """Whatever order and batches they come in; nothing is left on disk afterwards."""
    rng = np.random.default_rng(0)
    books = [rng.integers(-(2**63), 2**63 - 1, 500) for _ in range(5)]
    books[3][:40] = books[1][100:140]
    with Partitions(tmp_path, "hashes") as partitions:
        for number, hashes in enumerate(books):
            partitions.add(records_of(hashes, number))
        found, shared = ChunkDuplicates(), SharedPassages()
        for part in partitions.read():
            find_equal_chunks(part, found)
            shared.add(part)
    assert list(shared.at_least(1)) == [(1, 3, 40)]
    assert found.dropped().tolist() == [(3, position) for position in range(40)]
    assert not list(tmp_path.iterdir())


def test_an_edition_is_known_by_its_passages_whatever_its_marks():
    """Case, line breaks, quotes and a preface do not hide it; another text shares nothing."""
    text = words(1, 20_000)
    edition = words(2, 300) + "\n" + text.replace(" ", "\n", 5_000).upper()[: len(text) // 2]
    quoted = text.replace(" ", " \u201c", 50)
    sketches = [passages(each) for each in (text, edition, quoted, words(3, 20_000))]
    shared = shared_of(*sketches)
    kinship = find_kinship([len(hashes) for hashes in sketches], shared)
    assert kinship.editions.tolist() == [0, 0, 0, 3]
    assert kinship.edition_groups == [[0, 1, 2]]
    assert len(sketches[0]) > 100


def test_books_that_share_a_few_passages_are_tied_but_no_editions():
    """A borrowed page ties two books; `near` ties whom it names."""
    page = words(9, 400)
    sketches = [passages(words(seed, 10_000) + page) for seed in range(2)]
    shared = shared_of(*sketches)
    assert [(one, other) for one, other, _ in shared.at_least(3)] == [(0, 1)]
    kinship = find_kinship([len(sketches[0]), len(sketches[1]), 50, 50], shared, near=[(2, 3)])
    assert kinship.editions.tolist() == [0, 1, 2, 3]
    assert kinship.ties.tolist() == [0, 0, 2, 2]


def test_a_text_hash_sees_letters_alone():
    """Marks and case make no difference, letters do; texts of no letters have a hash too."""
    assert text_hash("\u201cAh!\u201d said he.") == text_hash("ah said he") != text_hash("ah said she")
    assert passages("").size == passages("short").size == 0
