"""Which engine a bundle gets.

`load_engine` takes the packed engine where the family is known and proves itself at load, else
the padded one. `fake:NUM_OUTPUTS` gives the fake: no weights, for tests and benchmarks.
"""

from pathlib import Path

import torch

from assay.engine import devices
from assay.engine.cpu import CpuPackedEngine
from assay.engine.engine import Engine
from assay.engine.fake import FakeEngine
from assay.engine.padded import PaddedEngine
from assay.errors import UsageError
from assay.model import checkpoints, families
from assay.model.packing import pack

FAKE_PREFIX = "fake:"
SELF_TEST_TOLERANCE = 1e-4
"""Largest difference of a logit, packed against alone on the transformers model, both fp32."""


def load_engine(
    path: str | Path,
    *,
    device: str = "cpu",
    precision: str = "auto",
    num_threads: int | None = None,
    packed: bool = True,
) -> Engine:
    """Return the fastest engine that gives this model's own logits on this device.

    `path` is a bundle directory or "fake:NUM_OUTPUTS"; `device` "cpu", "cuda" or "cuda:K";
    `precision` "auto", "fp32", "bf16" or "fp16"; `num_threads` the CPU threads (None: all that
    the process may use); `packed=False` asks for the transformers model itself. Raises BundleError
    for a bundle that cannot or must not be loaded.
    """
    if str(path).startswith(FAKE_PREFIX):
        return _fake_engine(str(path))
    chosen = devices.parse_device(device)
    dtype = devices.parse_precision(precision, chosen)
    if chosen.type == "cpu":
        torch.set_num_threads(num_threads or devices.default_num_threads())
    model = checkpoints.load_classifier(path, dtype=dtype)
    if chosen.type != "cpu":
        return PaddedEngine(model, device=chosen)
    if not packed:
        return PaddedEngine(model, device=chosen, reason="asked for")
    weights = families.extract_weights(model) if dtype == torch.float32 else None
    if weights is None:
        reason = families.why_not_packed(model) or "packed CPU kernels are fp32"
        return PaddedEngine(model, device=chosen, reason=reason)
    packed_engine = CpuPackedEngine(weights)
    padded_engine = PaddedEngine(model, device=chosen, reason="the packed engine failed its self test")
    difference = self_test(packed_engine, padded_engine)
    # "not <=" so that NaN fails too
    if not difference <= SELF_TEST_TOLERANCE:
        return padded_engine
    return packed_engine


def self_test(engine: Engine, reference: Engine) -> float:
    """Return the largest difference of a logit: made-up sequences packed, against each alone."""
    generator = torch.Generator().manual_seed(0)
    lengths = [min(length, engine.max_length) for length in (9, 14)]
    sequences = [
        torch.randint(0, engine.vocab_size, (length,), generator=generator).tolist() for length in lengths
    ]
    together = engine.forward(pack(sequences))
    alone = torch.cat([reference.forward(pack([sequence])) for sequence in sequences])
    return float((together - alone).abs().max())


def _fake_engine(path: str) -> FakeEngine:
    """FakeEngine from "fake:", "fake:NUM_OUTPUTS" or "fake:NUM_OUTPUTS:SECONDS_PER_TOKEN"."""
    num_outputs, _, seconds = path.removeprefix(FAKE_PREFIX).partition(":")
    try:
        return FakeEngine(num_outputs=int(num_outputs or 2), seconds_per_token=float(seconds or 0.0))
    except ValueError:
        raise UsageError(
            f"engine {path!r} is not fake:NUM_OUTPUTS[:SECONDS_PER_TOKEN]; write for example fake:2"
        ) from None
