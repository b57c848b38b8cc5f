"""A function over a stream, a few items ahead of whoever takes the results."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

ITEMS_AHEAD = 2


def ahead(function: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> Iterator[ResultT]:
    """Yield function(item) for each item, in order, the next two under way in threads meanwhile.

    For functions that release the interpreter for most of their time: while the results of one batch
    are gathered, which takes the interpreter, the next are in the library. `items` are drawn by the
    taker's thread.
    """
    under_way: deque[Future[ResultT]] = deque()
    with ThreadPoolExecutor(ITEMS_AHEAD) as pool:
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) > ITEMS_AHEAD:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
