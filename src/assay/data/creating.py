"""Create-if-absent on a store that may lose an answer or refuse two puts that met: how a request is repeated. Pure.

What puts and what looks are passed in, and so is what waits: a real bucket and a simulated one go the same way.
"""

import random
from collections.abc import Callable, Iterator

PUT_TRIES = 7
FIRST_PAUSE_SECONDS = 0.2


def create_once(
    put: Callable[[], None],
    find_owner: Callable[[], str | None],
    mark: str,
    *,
    unsure: tuple[type[Exception], ...],
    sleep: Callable[[float], None],
    chance: random.Random,
) -> bool:
    """Whether this call, which puts its `mark` with the object, created it; False where another had.

    `put` creates the object only where there is none, and raises one of `unsure` where it cannot say that it did: the
    name is taken, two puts met, the answer was lost. Then `find_owner` decides, by the mark of the object that is
    there ("" where it has none); None, no object, means that the put is repeated, after a pause. So it is where that
    cannot be found out: a put of what is there changes nothing. Raises what the last of seven puts raised, or the look
    after it.
    """
    for pause in _pauses(chance):
        try:
            put()
        except unsure:
            try:
                owner = find_owner()
            except unsure:  # put again then, and look again
                if pause is None:
                    raise
                owner = None
            if owner is not None:
                return owner == mark
            if pause is None:
                raise
            sleep(pause)
        else:
            return True
    raise AssertionError("the last pause is None")


def repeat(
    request: Callable[[], object],
    *,
    unsure: tuple[type[Exception], ...],
    sleep: Callable[[float], None],
    chance: random.Random,
) -> None:
    """Send a request; again, after a pause, where it raises one of `unsure`; seven times in all."""
    for pause in _pauses(chance):
        try:
            request()
        except unsure:
            if pause is None:
                raise
            sleep(pause)
        else:
            return


def _pauses(chance: random.Random) -> Iterator[float | None]:
    """Seconds to wait after each failed try, drawn at random so that callers that met part; None after the last."""
    for number in range(PUT_TRIES - 1):
        yield FIRST_PAUSE_SECONDS * 2**number * chance.uniform(0.5, 1.5)
    yield None
