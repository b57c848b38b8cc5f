"""`assay.serve.engine_process`: what the process says of itself."""

from argparse import Namespace

import pytest

from assay.serve.engine_process import dtype_of


@pytest.mark.parametrize(
    ("engine", "precision", "dtype"),
    [
        ("auto", "auto", "float32"),
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
