"""Create-if-absent where answers are lost: who looks, and what is repeated."""

import random

import pytest

from assay.data.creating import PUT_TRIES, create_once


class UnsureError(Exception):
    """The answer was lost."""


class Store:
    """One name, whose first puts and looks are not answered; a put happens all the same."""

    def __init__(self, *, lost_puts, lost_looks, owner=None):
        self.owner, self.lost_puts, self.lost_looks = owner, lost_puts, lost_looks
        self.num_puts = self.num_looks = 0

    def create(self, mark):
        def put():
            self.num_puts += 1
            is_taken = self.owner is not None
            self.owner = self.owner or mark
            if is_taken or self.num_puts <= self.lost_puts:
                raise UnsureError

        return create_once(
            put,
            self.find_owner,
            mark,
            unsure=(UnsureError,),
            sleep=lambda _: None,
            chance=random.Random(1),
        )

    def find_owner(self):
        self.num_looks += 1
        if self.num_looks <= self.lost_looks:
            raise UnsureError
        return self.owner


@pytest.mark.parametrize(("owner", "is_ours"), [(None, True), ("another", False)])
def test_a_look_that_is_not_answered_is_repeated(owner, is_ours):
    """A store that fails for a while after a put does not end the call: its own mark is found later, or another's."""
    store = Store(lost_puts=1, lost_looks=3, owner=owner)
    assert store.create("mine") is is_ours
    assert (store.num_puts, store.num_looks) == (4, 4)


def test_looks_that_are_never_answered_end():
    """After a bounded number of tries the error is raised."""
    store = Store(lost_puts=1, lost_looks=100)
    with pytest.raises(UnsureError):
        store.create("mine")
    assert (store.num_puts, store.num_looks) == (PUT_TRIES, PUT_TRIES)
