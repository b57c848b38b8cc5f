"""The batching policy: budget, order, fairness, and that nothing starves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.serve.policy import LOOK_AHEAD, Queue, Waiting, done_together

FOR_EVER = 1e9
REQUESTS = st.lists(st.lists(st.integers(1, 600), min_size=1, max_size=12), min_size=1, max_size=20)


def fill(requests):
    """A queue of requests given as lists of token counts; documents are (request, place)."""
    queue = Queue()
    for key, lengths in enumerate(requests):
        add(queue, key, lengths)
    return queue


def add(queue, key, lengths, **others):
    """Queue a request."""
    documents = [Waiting(length, (key, place)) for place, length in enumerate(lengths)]
    queue.add(key, documents, **{"deadline": FOR_EVER, **others})


def take(queue, *, budget=512, now=0.0, max_documents=1000, is_padded=False):
    """The documents of the next batch."""
    return [
        waiting.document
        for waiting in queue.take(now, budget=budget, max_documents=max_documents, is_padded=is_padded)
    ]


@given(requests=REQUESTS, budget=st.integers(1, 1500), is_padded=st.booleans())
def test_every_document_is_in_exactly_one_batch(requests, budget, is_padded):
    """Taking until nothing is left gives each document once, and every batch keeps to the budget."""
    queue, seen = fill(requests), []
    while queue.num_documents:
        batch = take(queue, budget=budget, is_padded=is_padded)
        lengths = [requests[key][place] for key, place in batch]
        cost = max(lengths) * len(lengths) if is_padded else sum(lengths)
        assert cost <= budget or len(batch) == 1
        seen += batch
    assert sorted(seen) == [
        (key, place) for key, lengths in enumerate(requests) for place in range(len(lengths))
    ]
    assert queue.num_tokens == 0
    assert take(queue) == []


@given(requests=REQUESTS, budget=st.integers(1, 1500), newcomers=st.lists(st.integers(1, 600), max_size=200))
def test_nothing_starves(requests, budget, newcomers):
    """Each batch begins with the document that waited longest, whatever comes after it."""
    queue = fill(requests)
    left = [(key, place) for key, lengths in enumerate(requests) for place in range(len(lengths))]
    num_batches, newcomer = 0, iter(newcomers)
    wanted = len(left)
    while left:
        batch = take(queue, budget=budget)
        assert batch[0] == left[0]
        left = [document for document in left if document not in batch]
        num_batches += 1
        for length in (next(newcomer, None), next(newcomer, None)):
            if length is not None:
                add(queue, ("new", num_batches, length), [length])
    assert num_batches <= wanted


def test_one_text_does_not_wait_for_a_large_request():
    """Of a request of 1,000 and one of 1 that came after it, the first batch holds both."""
    batch = take(fill([[10] * 1000, [10]]), budget=100)
    assert (1, 0) in batch
    assert len(batch) == 10


def test_short_documents_go_ahead_of_one_that_does_not_fit():
    """What is left of the budget is filled from behind a document too long for it."""
    assert take(fill([[300], [300], [200]]), budget=512) == [(0, 0), (2, 0)]


def test_looking_ahead_is_bounded():
    """After so many documents that do not fit the batch is closed."""
    requests = [[300], *[[300]] * LOOK_AHEAD, [1]]
    assert take(fill(requests), budget=512) == [(0, 0)]


def test_a_document_above_the_budget_runs_alone():
    """One that is longer than the budget is a batch by itself, and is not passed over for ever."""
    queue = fill([[900], [1]])
    assert take(queue, budget=512) == [(0, 0)]
    assert take(queue, budget=512) == [(1, 0)]


def test_padded_engines_count_the_longest():
    """Where a batch is padded, a long document beside short ones costs as much for each of them."""
    assert len(take(fill([[100], [1], [1], [1], [1], [1]]), budget=300, is_padded=True)) == 3


def test_expired_requests_are_dropped():
    """What nobody waits for any more costs nothing."""
    queue = Queue()
    add(queue, "old", [5, 5], deadline=1.0)
    add(queue, "new", [5], deadline=9.0)
    assert take(queue, now=2.0) == [("new", 0)]
    assert (queue.num_documents, queue.num_tokens) == (0, 0)


def test_cancelled_requests_are_dropped():
    """Cancelling takes the rest of a request out; of an unknown one it does nothing."""
    queue = fill([[100] * 8, [5]])
    assert len(take(queue, budget=250)) == 3
    queue.cancel(0)
    queue.cancel("unknown")
    assert take(queue) == [] or queue.num_documents == 0
    assert (queue.num_documents, queue.num_tokens) == (0, 0)


def test_most_documents():
    """A batch has a bounded number of documents."""
    assert len(take(fill([[1]] * 50), max_documents=7)) == 7


def test_a_suspect_runs_alone_and_first():
    """A document that was in a batch which ended an engine comes back before all others, alone."""
    queue = fill([[1], [1]])
    queue.add("suspects", [Waiting(1, "a", True), Waiting(1, "b", True)], deadline=FOR_EVER, is_first=True)
    assert take(queue) == ["a"]
    assert take(queue) == ["b"]
    assert take(queue) == [(0, 0), (1, 0)]


def test_a_suspect_does_not_join_others():
    """Nor is it put into a batch that another document began."""
    queue = fill([[1]])
    queue.add("later", [Waiting(1, "suspect", True)], deadline=FOR_EVER)
    assert take(queue) == [(0, 0)]
    assert take(queue) == ["suspect"]


@pytest.mark.parametrize(
    ("begins", "seconds", "ends"),
    [
        ([3.0], 2.0, 5.0),
        ([4.0, 0.0], 2.0, 2.0),
        ([0.0, 4.0], 6.0, 5.0),
        ([1.0, 1.0, 1.0], 6.0, 3.0),
        ([0.0, 2.0, 9.0], 8.0, 5.0),
    ],
)
def test_workers_are_done_together(begins, seconds, ends):
    """Whoever begins before the end works until then, and all of them together for as long as there is work."""
    assert done_together(begins, seconds) == ends
    assert sum(max(0.0, ends - begin) for begin in begins) == pytest.approx(seconds)
