"""How a forward pass is made, for every command that makes some. Imports nothing heavy."""

from dataclasses import dataclass, field
from typing import Literal

from assay.engine.precision import Precision
from assay.machine import MAX_THREADS
from assay.settings import COUNT, Settings, within

EngineChoice = Literal["auto", "padded", "fake"]


@dataclass(frozen=True, kw_only=True)
class Forward(Settings):
    """The arithmetic of a forward pass, and how much of it there is at once."""

    precision: Precision = "auto"
    """fp32, bf16, fp16 or fp8 (products in fp8); auto: fp16 on a GPU, bf16 where fp16 overflows; fp32 on a CPU."""
    max_batch_tokens: int | None = field(default=None, metadata=COUNT)
    """Tokens of a forward pass; by default what suits the device."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings(Forward):
    """Which engine makes it."""

    engine: EngineChoice = "auto"
    """`padded`: the transformers model itself; `fake`: made-up scores, to time the rest."""
    deterministic: bool = False
    """Give a document the same bits whatever it is batched with; slower."""


@dataclass(frozen=True, kw_only=True)
class OneDevice(Settings):
    """The device, where one is enough."""

    device: str = "cpu"
    """Where the forward pass runs: cpu, cuda or cuda:K."""


@dataclass(frozen=True, kw_only=True)
class CpuThreads(Settings):
    """The CPU threads."""

    num_threads: int | None = field(default=None, metadata=within(at_least=1, at_most=MAX_THREADS))
    """CPU threads of a process; by default OMP_NUM_THREADS, or the cores shared out."""
