"""`assay.serve.engine_process`: what the process says of itself."""

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch

from assay.engine.load import load_engine
from assay.serve.engine_process import dtype_of, load


@pytest.mark.parametrize(
    ("engine", "precision", "dtype"),
    [
        ("auto", "fp32", "float32"),
        ("auto", "bf16", "bfloat16"),
        ("padded", "fp16", "float16"),
        ("auto", "fp8", "fp8"),
        ("fake", "bf16", "float32"),
        ("fake:3", "auto", "float32"),
    ],
)
def test_what_it_computes_in(engine, precision, dtype):
    """The type that is run, by torch's name, never the word auto; fp8 by its own name."""
    assert dtype_of(Namespace(engine=engine, precision=precision, device="cpu")) == dtype


@pytest.mark.parametrize(
    ("processors", "asked", "expected"), [(132, None, 135_168), (58, None, 59_392), (132, 500_000, 270_336)]
)
def test_batches_are_bounded_by_the_card_unless_asked_for(monkeypatch, processors, asked, expected):
    """What comes next waits for a batch, so serving's are smaller than those of scoring."""
    engine = load_engine("fake:2")
    engine.default_batch_tokens = 270_336
    properties = SimpleNamespace(multi_processor_count=processors)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    arguments = Namespace(
        bundle="b", device="cuda:0", precision="bf16", engine="auto", threads=None, deterministic=False
    )
    arguments.max_batch_tokens = asked
    model = SimpleNamespace(load_engine=lambda *_, **__: engine)
    assert load(arguments, model).default_batch_tokens == expected
