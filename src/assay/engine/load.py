"""Which engine a bundle gets.

`load_engine` takes the packed engine where the family is known and proves itself at load, else
the padded one. `fake:NUM_OUTPUTS` gives the fake: no weights, for tests and benchmarks.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from assay.engine import devices
from assay.engine.cpu import CpuPackedEngine
from assay.engine.engine import Engine
from assay.engine.fake import FakeEngine
from assay.engine.fp8 import check_fp8
from assay.engine.padded import PaddedEngine
from assay.errors import UsageError
from assay.model import checkpoints, deberta, families
from assay.model.packing import pack

FAKE_PREFIX = "fake:"
SELF_TEST_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.02}
"""Largest difference of a logit, packed against alone on the transformers model in fp32, as a share of
the largest logit where that is above 1. It catches a wrong kernel; how exact a precision is on real
documents the parity gate finds."""
FP8_SELF_TEST_TOLERANCE = 0.3
_SELF_TEST_LENGTHS = (9, 70)
"""The second crosses the border of a block of the attention kernels."""


def load_engine(
    path: str | Path,
    *,
    device: str = "cpu",
    precision: str = "auto",
    num_threads: int | None = None,
    packed: bool = True,
    deterministic: bool = False,
) -> Engine:
    """Return the fastest engine that gives this model's own logits on this device.

    `path` is a bundle directory or "fake:NUM_OUTPUTS"; `device` "cpu", "cuda" or "cuda:K";
    `precision` "auto", "fp32", "bf16", "fp16" or, on a GPU that has it, "fp8"; `num_threads` the CPU
    threads (None: all that the process may use); `packed=False` asks for the transformers model
    itself; a `deterministic` engine gives a document the same bits in any company. Raises BundleError
    for a bundle that cannot or must not be loaded, UsageError for a precision that it does not run in.
    """
    if str(path).startswith(FAKE_PREFIX):
        return _fake_engine(str(path))
    chosen = devices.parse_device(device)
    dtype = devices.parse_precision(precision, chosen)
    if chosen.type == "cpu":
        torch.set_num_threads(num_threads or devices.default_num_threads())
    if chosen.type == "cuda" and packed:
        return _gpu_engine(path, chosen, dtype, fp8=precision == "fp8", deterministic=deterministic)
    if precision == "fp8":
        raise UsageError("precision 'fp8' needs the packed engine on a GPU; use auto")
    model = checkpoints.load_classifier(path, dtype=dtype)
    weights = families.extract_weights(model) if packed and dtype == torch.float32 else None
    if weights is None:
        reason = (
            "asked for" if not packed else families.why_not_packed(model) or "packed CPU kernels are fp32"
        )
        return _settled(PaddedEngine(model, device=chosen, reason=reason), deterministic=deterministic)
    packed_engine = CpuPackedEngine(weights)
    padded_engine = PaddedEngine(model, device=chosen, reason="the packed engine failed its self test")
    difference = self_test(packed_engine, padded_engine)
    # "<=" is False for NaN
    holds = difference <= SELF_TEST_TOLERANCE[torch.float32]
    return _settled(packed_engine if holds else padded_engine, deterministic=deterministic)


def _settled(engine: CpuPackedEngine | PaddedEngine, *, deterministic: bool) -> Engine:
    """The engine; a deterministic one runs each sequence alone."""
    if deterministic:
        engine.deterministic = True
        engine.default_batch_tokens = 1
    return engine


def _gpu_engine(
    path: str | Path, device: torch.device, dtype: torch.dtype, *, fp8: bool, deterministic: bool
) -> Engine:
    """The packed engine where the family is known and proves itself, else the padded one."""
    from assay.engine.gpu import GpuPackedEngine, why_not_fp8

    if fp8:
        check_fp8(device)
    # in fp32: queries are scaled before they are rounded
    model = checkpoints.load_classifier(path, dtype=torch.float32)
    weights = families.extract_weights(model)
    reason = families.why_not_packed(model)
    if model.config.model_type == deberta.FAMILY and not fp8 and not deterministic:
        return _deberta_engine(model, device, dtype)
    if weights is not None:
        if fp8 and (why := why_not_fp8(weights)):
            raise UsageError(f"precision 'fp8': {why}; use bf16")
        engine = GpuPackedEngine(weights, device=device, dtype=dtype, fp8=fp8, deterministic=deterministic)
        reference = PaddedEngine(model, device=device, reason="self test")
        difference = self_test(engine, reference)
        if difference <= (FP8_SELF_TEST_TOLERANCE if fp8 else SELF_TEST_TOLERANCE[dtype]):
            return engine
        reason = f"the packed engine failed its self test by {difference:.3g}"
    if fp8:
        raise UsageError(f"precision 'fp8': {reason}; use bf16")
    untyped: Any = model
    return _settled(
        PaddedEngine(untyped.to(dtype), device=device, reason=reason), deterministic=deterministic
    )


def _deberta_engine(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> Engine:
    """DeBERTa's own packed engine where it covers the model and proves itself, else the padded one."""
    from assay.engine.deberta import GpuDebertaEngine

    reason = deberta.why_not_packed(model)
    weights = deberta.extract_weights(model)
    if weights is not None:
        engine = GpuDebertaEngine(weights, device=device, dtype=dtype)
        difference = self_test(engine, PaddedEngine(model, device=device, reason="self test"))
        if difference <= SELF_TEST_TOLERANCE[dtype]:
            return engine
        reason = f"the packed engine failed its self test by {difference:.3g}"
    untyped: Any = model
    return PaddedEngine(untyped.to(dtype), device=device, reason=reason)


def self_test(engine: Engine, reference: Engine) -> float:
    """Return the largest difference of a logit, made-up sequences packed against each alone, see the tolerance."""
    generator = torch.Generator().manual_seed(0)
    lengths = [min(length, engine.max_length) for length in _SELF_TEST_LENGTHS]
    sequences = [
        torch.randint(0, engine.vocab_size, (length,), generator=generator).tolist() for length in lengths
    ]
    together = engine.forward(pack(sequences)).cpu()
    alone = torch.cat([reference.forward(pack([sequence])).cpu() for sequence in sequences])
    return float((together - alone).abs().max() / alone.abs().max().clamp_min(1.0))


def _fake_engine(path: str) -> FakeEngine:
    """FakeEngine from "fake:", "fake:NUM_OUTPUTS" or "fake:NUM_OUTPUTS:SECONDS_PER_TOKEN"."""
    num_outputs, _, seconds = path.removeprefix(FAKE_PREFIX).partition(":")
    try:
        return FakeEngine(num_outputs=int(num_outputs or 2), seconds_per_token=float(seconds or 0.0))
    except ValueError:
        raise UsageError(
            f"engine {path!r} is not fake:NUM_OUTPUTS[:SECONDS_PER_TOKEN]; write for example fake:2"
        ) from None
