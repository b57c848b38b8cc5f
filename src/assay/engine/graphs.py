"""CUDA graphs of forward passes: what the host launches for one batch, launched as one.

A pass is a hundred launches; where the host needs longer for them than the device for the work (small
batches, small models, a busy host), a graph takes their place. A shape met for the first time runs as
it is, which also compiles its kernels; met again it is captured.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from assay.engine.kernels.layout import BatchShape, DeviceBatch
from assay.garbage import not_collecting

MAX_GRAPHS = 64


@contextmanager
def recording(
    graph: torch.cuda.CUDAGraph,
    *,
    pool: Any,  # noqa: ANN401  torch has no public name for it
    stream: torch.cuda.Stream | None,
) -> Iterator[None]:
    """What is run within goes into the graph; other threads may go on using the device.

    Garbage is not collected meanwhile: an engine or a graph that nobody holds any more ends when the collector finds
    it, and would spoil the one that is recorded.
    """
    with (
        not_collecting(),
        torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
    ):
        yield


@dataclass(frozen=True, kw_only=True, slots=True)
class _Captured:
    """A graph, the buffer that it reads the batch from and the one that it leaves the logits in."""

    graph: torch.cuda.CUDAGraph
    flat: torch.Tensor
    logits_NC: torch.Tensor


class Graphs:
    """Runs a function of device batches through graphs, one for each shape; all share one pool of memory."""

    def __init__(self, function: Callable[[DeviceBatch], torch.Tensor], device: torch.device) -> None:
        """Capture `function`, which must neither wait for the device nor look at values on it."""
        self._function = function
        # torch's own is one for all devices, of the one that was current when it was first needed
        self._stream = torch.cuda.Stream(device)
        self._met: OrderedDict[BatchShape, _Captured | None] = OrderedDict()
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, batch: DeviceBatch) -> torch.Tensor:
        """Return function(batch); the caller's own copy."""
        shape, flat = batch.shape, batch.flat
        assert shape is not None, "a batch from Staging has a shape"
        assert flat is not None, "a batch from Staging has its buffer"
        if shape not in self._met:
            self._keep(shape, None)
            return self._function(batch)
        captured = self._met[shape] or self._capture(shape, flat)
        self._keep(shape, captured)
        captured.flat.copy_(flat)
        captured.graph.replay()
        # the pool is shared: the next graph that runs may write over these logits
        return captured.logits_NC.clone()

    def _keep(self, shape: BatchShape, captured: _Captured | None) -> None:
        """Note the shape as the one met last; forget those met longest ago."""
        self._met[shape] = captured
        self._met.move_to_end(shape)
        while len(self._met) > MAX_GRAPHS:
            self._met.popitem(last=False)

    def _capture(self, shape: BatchShape, flat: torch.Tensor) -> _Captured:
        own = torch.empty_like(flat)
        batch = shape.split(own)
        graph = torch.cuda.CUDAGraph()
        with recording(graph, pool=self._pool, stream=self._stream):
            logits_NC = self._function(batch)
        return _Captured(graph=graph, flat=own, logits_NC=logits_NC)
