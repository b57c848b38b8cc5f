"""Kernels compiled beside each other before any of them runs.

Triton compiles a kernel, and the C function that launches it, where it is launched first: one after the other. Most of
that is done outside of Python, so that threads can share it.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import triton

from assay import machine

_MOST_THREADS = 16
_ahead: ContextVar[list[Any] | None] = ContextVar("_ahead", default=None)
"""Within `compiled_ahead`, the kernels met so far, or promises of them."""


def launch(kernel: Any, grid: tuple[int, ...]) -> Any:  # noqa: ANN401 - what triton.jit returns, and gives for a grid
    """What runs `kernel` in so many programs; within `compiled_ahead` it is compiled and not run."""
    met = _ahead.get()
    if met is None:
        return kernel[grid]
    return lambda *given, **named: met.append(kernel.warmup(*given, grid=grid, **named))


@contextmanager
def compiled_ahead(device: torch.device) -> Iterator[None]:
    """Compile the kernels that this thread launches within, beside each other, and run none.

    What they would have written is left as it was, so that results within mean nothing. Raises what a compilation
    raises.
    """
    met: list[Any] = []
    with ThreadPoolExecutor(min(_MOST_THREADS, machine.usable_cores())) as pool:
        with triton.AsyncCompileMode(pool):
            token = _ahead.set(met)
            try:
                yield
            finally:
                _ahead.reset(token)
        # a layer's kernels were met once a layer; two threads with one of them would both do its work
        kernels = {each.result() if hasattr(each, "result") else each for each in met}
        list(pool.map(lambda kernel: _load(kernel, device), kernels))


def _load(kernel: Any, device: torch.device) -> None:  # noqa: ANN401 - Triton's own
    """Make what launches it; threads begin with the first device."""
    with torch.cuda.device(device):
        _ = kernel.run
