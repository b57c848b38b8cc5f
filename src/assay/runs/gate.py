"""What has to be proven before any part is published, beside the work on the first units."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait

from assay.runs.pipeline import StopRequestedError, UnfitError

WAIT_SECONDS = 0.1

Step = Callable[[], None]
"""Proves something, or raises an error."""


class Gate:
    """Whether the parts of a worker may be published. One thread of its own takes the steps; any may ask."""

    def __init__(
        self,
        should_stop: Callable[[], bool] = lambda: False,
        say_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """An open gate. `should_stop` is asked, and `say_waiting` told, while somebody waits."""
        self._device = threading.Lock()
        self._should_stop = should_stop
        self._say_waiting = say_waiting
        self._passed: Future[None] | None = None

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Within, nobody else computes: the work and the steps share a device's memory and torch's global settings.

        Raises StopRequestedError where it is told to stop meanwhile.
        """
        while not self._device.acquire(timeout=WAIT_SECONDS):
            if self._should_stop():
                raise StopRequestedError
        try:
            yield
        finally:
            self._device.release()

    def close(self, steps: Sequence[Step]) -> None:
        """Let nobody through until these steps are taken, one after the other."""
        if not steps:
            return
        passed = self._passed = Future[None]()

        def take() -> None:
            try:
                for step in steps:
                    step()
            except BaseException as error:  # noqa: BLE001  raised to whoever comes to the gate
                passed.set_exception(error)
            else:
                passed.set_result(None)

        threading.Thread(target=take, name="parity", daemon=True).start()

    def check(self) -> None:
        """Raise UnfitError where a step has failed already."""
        if self._passed is not None and self._passed.done() and (error := self._passed.exception()):
            if isinstance(error, StopRequestedError):
                raise StopRequestedError
            raise UnfitError(error)

    def wait(self) -> None:
        """Return once every step is taken; raises UnfitError where one failed, StopRequestedError when told to stop."""
        if self._passed is not None and not self._passed.done():
            self._say_waiting()
            while not wait([self._passed], WAIT_SECONDS).done:
                if self._should_stop():
                    raise StopRequestedError
        self.check()
