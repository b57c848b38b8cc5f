"""Which engine a bundle gets.

`load_engine` takes the packed engine where the family is known and proves itself at load, else
the padded one. `fake:NUM_OUTPUTS` gives the fake: no weights, for tests and benchmarks.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from assay import machine
from assay.engine import devices
from assay.engine.cpu import CpuPackedEngine
from assay.engine.engine import Engine, loaded_once
from assay.engine.fake import FakeEngine
from assay.engine.fp8 import check_fp8
from assay.engine.half import why_not_fp16
from assay.engine.made_up import made_up_sequences
from assay.engine.padded import PaddedEngine
from assay.engine.proofs import self_test_note
from assay.engine.settings import CpuThreads
from assay.errors import UsageError
from assay.model import families, pretrained
from assay.model.checkpoint import Checkpoint, read_checkpoint, refuse_changed
from assay.model.families import EncoderWeights
from assay.model.heads import EmbeddingHead
from assay.model.packing import pack
from assay.proofs import Note

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FAKE_PREFIX = "fake:"
SELF_TEST_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.02}
"""Largest difference of a logit, packed against alone on the transformers model in fp32, as a share of
the largest logit where that is above 1; of embeddings the length of the difference of two vectors, as a
share of the vector's length. It catches a wrong kernel; how exact a precision is on real
documents the parity gate finds."""
FP8_SELF_TEST_TOLERANCE = 0.3


def load_engine(
    model: str | Path | Checkpoint,
    *,
    device: str = "cpu",
    precision: str = "auto",
    num_threads: int | None = None,
    packed: bool = True,
    deterministic: bool = False,
    head: EmbeddingHead | None = None,
) -> Engine:
    """Return the fastest engine that gives this model's own logits on this device.

    With `head` it gives the head's vectors instead, and the model needs none. `model` is a bundle
    directory, the checkpoint read from one, or "fake:NUM_OUTPUTS"; `device` "cpu", "cuda" or "cuda:K";
    `precision` "auto", "fp32", "bf16", "fp16" or, on a GPU that has it, "fp8";
    `num_threads` the CPU threads (None: as `machine.choose_threads`); `packed=False` asks for the
    transformers model itself; a `deterministic` engine gives a document the same bits whatever it is
    batched with. Raises BundleError for a bundle that cannot or must not be loaded, RefusedError for one
    whose files changed since the checkpoint was read, UsageError for a precision that it does not run in, and for a
    number of threads that cannot be.
    """
    CpuThreads(num_threads=num_threads)  # checked where every setting is
    if isinstance(model, str) and model.startswith(FAKE_PREFIX):
        return _fake_engine(model)
    chosen = devices.parse_device(device)
    devices.check_precision(precision, chosen)
    if chosen.type == "cpu":
        torch.set_num_threads(machine.choose_threads(num_threads).count)
    checkpoint = model if isinstance(model, Checkpoint) else read_checkpoint(model)
    computed = devices.parse_precision(
        precision, chosen, lambda: why_not_fp16(checkpoint, headless=head is not None)
    )
    wanted = _Wanted(
        checkpoint=checkpoint,
        device=chosen,
        dtype=devices.DTYPES[computed],
        fp8=computed == "fp8",
        deterministic=deterministic,
        head=head,
    )
    if packed:
        engine = _proven_engine(wanted)
        if engine is None:
            with wanted.note().turn():  # of many processes one tries, and compiles
                engine = _proven_engine(wanted) or _engine_on_trial(wanted)
    else:
        transformers_model = wanted.model(wanted.dtype)
        engine = wanted.padded(transformers_model, "asked for")
    refuse_changed(wanted.checkpoint)
    if wanted.dtype != torch.float32:
        in_fp32 = partial(
            load_engine,
            wanted.checkpoint,
            device=device,
            precision="fp32",
            num_threads=num_threads,
            packed=packed,
            deterministic=deterministic,
            head=head,
        )
        engine.fp32 = loaded_once(in_fp32)
    return engine


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    """What was asked of `load_engine`."""

    checkpoint: Checkpoint
    device: torch.device
    dtype: torch.dtype
    fp8: bool
    deterministic: bool
    head: EmbeddingHead | None

    def model(self, dtype: torch.dtype) -> "PreTrainedModel":
        """Transformers' model: a classifier, or an encoder for a head of ours."""
        load = pretrained.load_classifier if self.head is None else pretrained.load_encoder
        return load(self.checkpoint.path, dtype=dtype)

    def packed(self, weights: EncoderWeights) -> Engine | str:
        """The packed engine of these float32 weights, or why there is none here."""
        weights = replace(weights, max_length=self.checkpoint.max_length)
        if self.device.type == "cpu":
            if self.dtype != torch.float32:
                return "packed CPU kernels are fp32"
            return self._settled(CpuPackedEngine(weights))
        from assay.engine.gpu import GpuPackedEngine, why_not_fp8

        if self.fp8:
            check_fp8(self.device)
            if reason := why_not_fp8(weights):
                return reason
        return GpuPackedEngine(
            weights, device=self.device, dtype=self.dtype, fp8=self.fp8, deterministic=self.deterministic
        )

    def padded(self, model: "PreTrainedModel", reason: str | None) -> Engine:
        """The transformers model itself; UsageError for fp8, which it does not have."""
        if self.fp8:
            raise UsageError(f"precision 'fp8': {reason}; use bf16")
        untyped: Any = model
        return self._settled(
            PaddedEngine(
                untyped.to(self.dtype),
                device=self.device,
                reason=reason,
                max_length=self.checkpoint.max_length,
                head=self.head,
            )
        )

    def tolerance(self) -> float:
        """How far the packed engine may be off in its self test."""
        return FP8_SELF_TEST_TOLERANCE if self.fp8 else SELF_TEST_TOLERANCE[self.dtype]

    def note(self) -> Note:
        """Where it is noted that these very files passed on this device, with these versions."""
        head = [] if self.head is None else [self.head.pooling, self.head.output_shape]
        return self_test_note(self.checkpoint, self.device, self.dtype, self.fp8, self.deterministic, *head)

    def _settled(self, engine: CpuPackedEngine | PaddedEngine) -> Engine:
        """The engine; a deterministic one runs each sequence alone."""
        if self.deterministic:
            engine.deterministic = True
            engine.default_batch_tokens = 1
        return engine


def _proven_engine(wanted: _Wanted) -> Engine | None:
    """The packed engine of a checkpoint that has passed its self test here before; None for any other.

    Nothing of transformers is imported, and no model made: seconds of every later start.
    """
    config = wanted.note().read()
    if config is None:
        return None
    tensors = pretrained.load_tensors(wanted.checkpoint)
    if tensors is None:
        return None
    try:
        weights = families.weights_of(SimpleNamespace(**config), tensors, wanted.head)
    except AttributeError:  # a note that lacks a field
        return None
    engine = None if weights is None else wanted.packed(families.in_float32(weights))
    return None if isinstance(engine, str) else engine


def _engine_on_trial(wanted: _Wanted) -> Engine:
    """The packed engine where the family is known and proves itself, else the padded one."""
    # in fp32: queries are scaled, and fp8's scales found, before anything is rounded
    model = wanted.model(torch.float32)
    weights = families.extract_weights(model, wanted.head)
    engine = _deberta_engine(model, wanted) if weights is None else wanted.packed(weights)
    if isinstance(engine, str):
        return wanted.padded(model, engine)
    reference = PaddedEngine(
        model,
        device=wanted.device,
        reason="self test",
        max_length=wanted.checkpoint.max_length,
        head=wanted.head,
    )
    difference = self_test(engine, reference, of_vectors=wanted.head is not None)
    # written so that NaN fails
    if not difference <= wanted.tolerance():
        return wanted.padded(model, f"the packed engine failed its self test by {difference:.3g}")
    if weights is not None:
        refuse_changed(wanted.checkpoint)  # else the note would speak of files that did not pass
        wanted.note().write(_plain(model.config))
    return engine


def _plain(config: Any) -> dict[str, Any]:  # noqa: ANN401 - a transformers config is untyped
    """All fields of a config by name, those that have another name in its family under both."""
    names = [*config.to_dict(), *config.attribute_map]
    return {name: getattr(config, name) for name in names if hasattr(config, name)}


def _deberta_engine(model: "PreTrainedModel", wanted: _Wanted) -> Engine | str:
    """DeBERTa's own packed engine, or why there is none."""
    from assay.model import deberta

    config: Any = model.config
    if wanted.head is not None:
        return families.why_not_packed(config) or f"{type(model).__name__} is not an encoder alone"
    if config.model_type != deberta.FAMILY or wanted.device.type == "cpu":
        return families.why_not_packed(config) or f"{type(model).__name__} is not a sequence classifier"
    if wanted.fp8 or wanted.deterministic:
        return "disentangled attention has no fp8 and no deterministic path"
    weights = deberta.extract_weights(model, max_length=wanted.checkpoint.max_length)
    if weights is None:
        return deberta.why_not_packed(model) or "the model is not covered"
    from assay.engine.deberta import GpuDebertaEngine

    return GpuDebertaEngine(weights, device=wanted.device, dtype=wanted.dtype)


def self_test(engine: Engine, reference: Engine, *, of_vectors: bool = False) -> float:
    """Return the largest difference, made-up sequences packed against each alone, see the tolerance.

    Of a logit; or of whole vectors, whose components say little one by one.
    """
    sequences = made_up_sequences(max_length=engine.max_length, vocab_size=engine.vocab_size)
    together = engine.forward(pack(sequences)).cpu()
    alone = torch.cat([reference.forward(pack([sequence])).cpu() for sequence in sequences])
    if of_vectors:
        return float(((together - alone).norm(dim=1) / alone.norm(dim=1)).max())
    return float((together - alone).abs().max() / alone.abs().max().clamp_min(1.0))


def _fake_engine(path: str) -> FakeEngine:
    """FakeEngine from "fake:", "fake:NUM_OUTPUTS" or "fake:NUM_OUTPUTS:SECONDS_PER_TOKEN"."""
    num_outputs, _, seconds = path.removeprefix(FAKE_PREFIX).partition(":")
    try:
        return FakeEngine(output_shape=(int(num_outputs or 2),), seconds_per_token=float(seconds or 0.0))
    except ValueError:
        raise UsageError(
            f"engine {path!r} is not fake:NUM_OUTPUTS[:SECONDS_PER_TOKEN]; write for example fake:2"
        ) from None
