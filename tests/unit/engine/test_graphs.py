"""Recording of CUDA graphs: what can be seen of it without a device."""

import gc
from contextlib import nullcontext

import pytest
import torch

from assay.engine import graphs


@pytest.fixture
def begun(monkeypatch):
    """What torch was told of each graph; nothing is recorded."""
    told = []

    def graph(made, **options):
        told.append((made, options))
        return nullcontext()

    monkeypatch.setattr(torch.cuda, "graph", graph)
    return told


def test_no_garbage_is_collected_while_a_graph_is_recorded(begun):
    """A graph that the collector ended meanwhile would spoil it; afterwards all is as before, after an error too."""
    with graphs.recording("graph", pool="pool", stream="stream"):
        assert not gc.isenabled()
    assert gc.isenabled()
    assert begun == [("graph", {"pool": "pool", "stream": "stream", "capture_error_mode": "thread_local"})]
    with pytest.raises(RuntimeError), graphs.recording("graph", pool="pool", stream="stream"):
        raise RuntimeError
    assert gc.isenabled()


def test_who_collects_none_is_left_alone(begun):
    """A caller that has switched the collector off finds it off."""
    gc.disable()
    try:
        with graphs.recording("graph", pool="pool", stream="stream"):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert len(begun) == 1
