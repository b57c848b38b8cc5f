"""How fast an engine is, in figures that can be compared: between engines, models and devices.

TFLOP/s is the model's plain arithmetic on real tokens over wall time. Padding earns nothing, and
neither does a shortcut cost anything: a last layer that is computed for first tokens only counts whole.
Embeddings, norms, the head and DeBERTa's products with relative positions are left out. The ceiling
is a product of two large square matrices, measured on the device itself.

Axes: L tokens of a document.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

from assay.engine.batching import Ints
from assay.engine.engine import Engine
from assay.engine.expected import encoder_sizes
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences

TERA = 1e12
CEILING_SIZE = {"cuda": 8192, "cpu": 1024}
"""Rows and columns of the matrices, by device type."""
_CEILING_PRODUCTS = {"cuda": 10, "cpu": 1}
"""Products between two readings of the clock, by device type."""
_FP8_CAPABILITY = (8, 9)
"""The first devices whose matrix units take 8-bit floats (Ada, then Hopper)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """The sizes of an encoder that its arithmetic depends on."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    gated: bool = False
    """Whether the feed-forward has a gate: three products instead of two."""
    windows: tuple[int | None, ...] = ()
    """By layer, how far a token sees to either side, None for all; empty where every layer sees all."""


def model_shape(config: Any, *, windows: bool = False) -> ModelShape:  # noqa: ANN401 - a config is untyped
    """Return the shape of a transformers config (BERT, RoBERTa, DistilBERT, ELECTRA, ModernBERT, DeBERTa).

    Local attention is counted as full unless `windows` asks for what ModernBERT's layers need. A
    size that the config names otherwise is taken as BERT-base has it.
    """
    hidden, inner, num_layers = encoder_sizes(vars(config))
    kinds: list[str] = list(getattr(config, "layer_types", None) or ()) if windows else []
    reach = int(getattr(config, "sliding_window", None) or 0)
    return ModelShape(
        hidden_size=hidden,
        intermediate_size=inner,
        num_layers=num_layers,
        gated=getattr(config, "model_type", "") == "modernbert",
        windows=tuple(reach if kind == "sliding_attention" else None for kind in kinds),
    )


def flops(lengths: npt.NDArray[np.integer], shape: ModelShape) -> float:
    """Return the operations that documents of these lengths take, a multiplication and an addition two.

    A layer does 2 L (4 h^2 + k h i) in its products, k being 2, or 3 with a gate, and 4 h a pair of
    tokens in its attention: L^2 pairs, fewer where the shape names a window.
    """
    tokens = lengths.astype(np.float64)
    h, i = shape.hidden_size, shape.intermediate_size
    products = 2.0 * float(tokens.sum()) * (4 * h * h + (3 if shape.gated else 2) * h * i) * shape.num_layers
    windows = shape.windows or (None,) * shape.num_layers
    pairs = sum(windows.count(window) * _num_pairs(tokens, window) for window in set(windows))
    return products + 4.0 * h * pairs


def _num_pairs(tokens: npt.NDArray[np.float64], window: int | None) -> float:
    """Pairs of tokens that see each other; with a window w, (2w + 1) L - w (w + 1) once L exceeds w."""
    full = tokens * tokens
    if window is None:
        return float(full.sum())
    return float(np.where(tokens <= window, full, (2 * window + 1) * tokens - window * (window + 1)).sum())


def matmul_ceiling(
    device: torch.device, dtype: torch.dtype, *, size: int | None = None, readings: int = 7
) -> float | None:
    """Return the TFLOP/s of a square matrix product on random data: the median of `readings`.

    `size` None takes 8,192 on a GPU and 1,024 on a CPU. `torch.float8_e4m3fn` runs with a scale a
    row and bf16 results; None where the device has no such product. Takes a fraction of a second on
    an H100 and gives its memory, 1 GB at most, back.
    """
    n = size or CEILING_SIZE.get(device.type, 1024)
    num_products = _CEILING_PRODUCTS.get(device.type, 1)
    product = _fp8_product(device, n) if dtype == torch.float8_e4m3fn else _plain_product(device, dtype, n)
    if product is None:
        return None
    seconds = []
    for reading in range(readings + 2):
        began = time.perf_counter()
        for _ in range(num_products):
            product()
        synchronize(device)
        if reading >= 2:  # the first two find the kernel and raise the clock
            seconds.append((time.perf_counter() - began) / num_products)
    del product
    if device.type == "cuda":
        torch.cuda.empty_cache()  # an engine may look next at how much is free
    return 2.0 * n**3 / statistics.median(seconds) / TERA


def _plain_product(device: torch.device, dtype: torch.dtype, n: int) -> Callable[[], torch.Tensor]:
    left, right = (torch.randn(n, n, device=device, dtype=torch.float32).to(dtype) for _ in range(2))
    return lambda: F.linear(left, right)


def _fp8_product(device: torch.device, n: int) -> Callable[[], torch.Tensor] | None:
    """The product with a scale for each row of either side; None where the device has none."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _FP8_CAPABILITY:
        return None
    left, right = (torch.randn(n, n, device=device).to(torch.float8_e4m3fn) for _ in range(2))
    scale_left = torch.ones(n, 1, device=device)
    scale_right = torch.ones(1, n, device=device)

    def product() -> torch.Tensor:
        return torch._scaled_mm(  # noqa: SLF001 - torch has no public name for it
            left,
            right.t(),
            scale_a=scale_left,
            scale_b=scale_right,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )

    try:
        product()
    except RuntimeError:
        return None
    return product


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """What one measured pass over some documents came to."""

    seconds: float
    """Wall time, from arrays of ids on the host to logits on the host."""
    num_documents: int
    num_tokens: int
    """Real tokens, special tokens included."""
    docs_per_second: float
    tokens_per_second: float
    """Real tokens."""
    teraflops: float | None
    """TFLOP/s on real tokens; None where the model's shape was not given."""
    ceiling_share: float | None
    """Of the measured matrix product; None where no ceiling was given."""
    padding_waste: float
    """Share of the tokens computed on that was padding, 0 to 1."""
    idle_share: float | None
    """Share of the time in which the device had nothing to do, 0 to 1; None where nobody measures it."""

    def to_json(self) -> dict[str, float | int | None]:
        """The figures as one flat JSON object, to four digits."""
        return {
            name: float(f"{value:.4g}") if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


def throughput(
    seconds: float,
    lengths: Ints,
    *,
    num_padded_tokens: int = 0,
    busy_seconds: float | None = None,
    shape: ModelShape | None = None,
    ceiling: float | None = None,
    num_documents: int | None = None,
) -> Throughput:
    """Return the figures of a pass that took `seconds` over sequences of these lengths.

    `ceiling` is in TFLOP/s, `busy_seconds` how long the device worked, `num_documents` how many
    documents the sequences are of, where that is not one each.
    """
    num_tokens = int(lengths.sum())
    documents = len(lengths) if num_documents is None else num_documents
    took = max(seconds, 1e-9)
    teraflops = None if shape is None else flops(lengths, shape) / took / TERA
    computed = num_tokens + num_padded_tokens
    return Throughput(
        seconds=seconds,
        num_documents=documents,
        num_tokens=num_tokens,
        docs_per_second=documents / took,
        tokens_per_second=num_tokens / took,
        teraflops=teraflops,
        ceiling_share=None if teraflops is None or not ceiling else teraflops / ceiling,
        padding_waste=num_padded_tokens / computed if computed else 0.0,
        # Clocks of host and device differ a little, so a busy device may seem busier than possible.
        idle_share=None if busy_seconds is None else min(1.0, max(0.0, 1.0 - busy_seconds / took)),
    )


def measure(
    engine: Engine,
    sequences: Sequences,
    *,
    rounds: int = 3,
    warmup: int = 1,
    shape: ModelShape | None = None,
    ceiling: float | None = None,
    max_batch_tokens: int | None = None,
    num_documents: int | None = None,
) -> list[Throughput]:
    """Return the figures of each of `rounds` passes over the sequences, after `warmup` that do not count.

    Equal sequences are run each time: a benchmark has no duplicates to save. `shape`, `ceiling` and
    `num_documents` are as `throughput` takes them. Raises what `run_sequences` raises.
    """
    lengths: Ints = np.diff(sequences.offsets)
    found = []
    for turn in range(warmup + rounds):
        busy_before = engine.device_seconds
        began = time.perf_counter()
        _, stats = run_sequences(engine, sequences, max_batch_tokens=max_batch_tokens, deduplicate=False)
        seconds = time.perf_counter() - began
        busy_after = engine.device_seconds
        busy = None if busy_before is None or busy_after is None else busy_after - busy_before
        if turn >= warmup:
            found.append(
                throughput(
                    seconds,
                    lengths,
                    num_padded_tokens=stats.num_padded_tokens,
                    busy_seconds=busy,
                    shape=shape,
                    ceiling=ceiling,
                    num_documents=num_documents,
                )
            )
    return found


def with_ceiling(passes: Sequence[Throughput], ceiling: float | None) -> list[Throughput]:
    """Return the same passes as shares of a ceiling, in TFLOP/s, that was measured beside them."""
    return [
        replace(one, ceiling_share=None if one.teraflops is None or not ceiling else one.teraflops / ceiling)
        for one in passes
    ]


def median(passes: Sequence[Throughput]) -> Throughput:
    """Return the pass of median time; of an even number the slower of the middle two. Needs at least one."""
    return sorted(passes, key=lambda one: one.seconds)[len(passes) // 2]
