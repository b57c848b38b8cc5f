"""What the GPU benchmarks share: models of real shapes, documents, the baseline, the reference, the flags.

Models have random weights: the time does not depend on them, and where it might (the parity of a
trained model) another check looks. Every script has a smoke mode, `--device cpu --tiny`, which tries
the script on any machine with tiny models and few documents and never records.

Axes: N documents, C outputs, B documents of a batch, L tokens of its longest.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    ModernBertConfig,
    RobertaConfig,
)

SOURCES = str(Path(__file__).resolve().parents[2] / "src")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.append(SOURCES)  # where assay is not installed

import _record  # noqa: E402 - the path comes first
from _words import FIRST_WORD, quiet  # noqa: E402

from assay.engine.measure import (  # noqa: E402
    ModelShape,
    Throughput,
    matmul_ceiling,
    model_shape,
    synchronize,
)
from assay.engine.sequences import Sequences  # noqa: E402

PACKAGES = ("assay", "torch", "transformers", "triton", "numpy")
PADDED_BATCH = 256
"""Documents of a batch of the baseline."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model of a real shape, and the documents that it is measured on."""

    name: str
    config: Any
    mean_parameter: float
    """The median of the log-normal lengths times exp(0.32); the mean after the clip is a little below."""
    longest: int
    documents: int
    """Of a round of ours on one H100: two to four seconds."""
    baseline_every: int = 2
    """The baseline runs each so many-th of its batches, so that its rounds take about as long."""
    baseline_tokens: int | None = None
    """Most tokens of a batch of the baseline, padding included; None where 256 documents always fit."""


def models(*, tiny: bool) -> dict[str, Model]:
    """The models by name; `tiny` shrinks their sizes, not their architecture."""
    roberta: dict[str, Any] = {
        "vocab_size": 50265,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "num_labels": 1,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "layer_norm_eps": 1e-5,
    }
    large = {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    }
    mini = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    small = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 128}
    deberta = {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    }

    def sized(sizes: dict[str, int]) -> dict[str, int]:
        return small if tiny else sizes

    found = (
        Model(
            name="roberta-base",
            config=RobertaConfig(**{**roberta, **sized({})}),
            mean_parameter=260,
            longest=512,
            documents=40_000,
        ),
        Model(
            name="minilm",
            config=BertConfig(vocab_size=30522, num_labels=4, **sized(mini)),
            mean_parameter=260,
            longest=512,
            documents=150_000,
        ),
        Model(
            name="roberta-large",
            config=RobertaConfig(**{**roberta, **sized(large)}),
            mean_parameter=260,
            longest=512,
            documents=12_000,
        ),
        Model(
            name="modernbert-base-long",
            config=ModernBertConfig(
                vocab_size=50368, num_labels=1, max_position_embeddings=8192, **sized({})
            ),
            mean_parameter=300 if tiny else 1540,
            longest=1024 if tiny else 8192,
            documents=2_500,
            baseline_tokens=65_536,
        ),
        Model(
            name="deberta-v3-base",
            # As microsoft/deberta-v3-base says of itself.
            config=DebertaV2Config(
                vocab_size=128100,
                max_position_embeddings=512,
                type_vocab_size=0,
                relative_attention=True,
                position_buckets=256,
                max_relative_positions=-1,
                norm_rel_ebd="layer_norm",
                share_att_key=True,
                pos_att_type=["p2c", "c2p"],
                position_biased_input=False,
                layer_norm_eps=1e-7,
                num_labels=1,
                pooler_hidden_size=64 if tiny else 768,
                **sized(deberta),
            ),
            mean_parameter=260,
            longest=512,
            documents=12_000,
            baseline_every=6,
        ),
    )
    return {model.name: model for model in found}


def make_bundle(model: Model, folder: Path, device: torch.device) -> Path:
    """The model with random weights as a transformers directory, without a tokenizer."""
    torch.manual_seed(0)
    with quiet(), torch.device(device):
        made = AutoModelForSequenceClassification.from_config(model.config)
        made.save_pretrained(folder)
    return folder


def shape_of(folder: Path) -> ModelShape:
    """The sizes that the arithmetic of a bundle depends on, local attention counted as local."""
    return model_shape(AutoConfig.from_pretrained(folder), windows=True)


def documents(
    num_documents: int, *, mean_parameter: float, longest: int, vocab_size: int, seed: int = 0
) -> Sequences:
    """Distinct documents of random ids; lengths log-normal (sigma 0.8), clipped to [8, `longest`]."""
    generator = np.random.default_rng(seed)
    lengths = np.exp(generator.standard_normal(num_documents) * 0.8 + np.log(mean_parameter) - 0.32)
    lengths = np.clip(lengths, 8, longest).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    kind = np.uint16 if vocab_size <= 1 << 16 else np.int32
    return Sequences(
        flat_ids=generator.integers(FIRST_WORD, vocab_size, int(offsets[-1]), dtype=kind), offsets=offsets
    )


def every(sequences: Sequences, step: int) -> Sequences:
    """The documents of each `step`-th batch of the baseline, which sorts by length and takes 256 at a time.

    Whole batches, so that they are padded as those of all documents are: a thinner corpus, sorted, would
    fill its batches with less like lengths.
    """
    if step <= 1:
        return sequences
    order = np.argsort(-np.diff(sequences.offsets), kind="stable")
    num_batches = -(-len(order) // PADDED_BATCH)
    # neither the longest nor the shortest of each group of batches
    chosen = range(min(step // 2, num_batches - 1), num_batches, step)
    picked = [order[k * PADDED_BATCH : (k + 1) * PADDED_BATCH] for k in chosen]
    return take(sequences, np.sort(np.concatenate(picked)))


def take(sequences: Sequences, rows: npt.NDArray[np.int64]) -> Sequences:
    """The documents of these rows, laid end to end."""
    offsets = sequences.offsets
    flat = np.concatenate([sequences.flat_ids[offsets[row] : offsets[row + 1]] for row in rows.tolist()])
    lengths = (offsets[1:] - offsets[:-1])[rows]
    return Sequences(flat_ids=flat, offsets=np.concatenate([[0], np.cumsum(lengths)]))


def transformers_model(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """The model as a user of transformers loads it: SDPA attention where the architecture has it."""
    attention = "eager" if "deberta" in AutoConfig.from_pretrained(folder).model_type else "sdpa"
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=dtype, attn_implementation=attention
        )
    return model.to(device).eval()


class SortedPadded:
    """The usual recipe at its best: documents sorted by length, 256 a batch, padded to the batch's longest.

    Batches are collated and on the device before the clock starts, so that only the device's work
    is measured. Their number of documents is lowered where a batch would pass `max_tokens`.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401
        sequences: Sequences,
        device: torch.device,
        *,
        max_tokens: int | None = None,
    ) -> None:
        self._model = model
        self._device = device
        self._lengths = np.diff(sequences.offsets)
        self._outputs_NC = torch.zeros(len(self._lengths), model.config.num_labels, device=device)
        self._batches = []
        self.num_padded_tokens = 0
        pad = model.config.pad_token_id or 0
        order = np.argsort(-self._lengths, kind="stable")
        start = 0
        while start < len(order):
            longest = int(self._lengths[order[start]])
            size = PADDED_BATCH if max_tokens is None else max(1, min(PADDED_BATCH, max_tokens // longest))
            rows = order[start : start + size]
            start += size
            lengths = self._lengths[rows]
            within = np.arange(longest)
            mask = within < lengths[:, None]
            where = np.minimum(sequences.offsets[rows][:, None] + within, len(sequences.flat_ids) - 1)
            ids = np.where(mask, sequences.flat_ids[where], pad).astype(np.int64)
            self.num_padded_tokens += int(mask.size - lengths.sum())
            self._batches.append(
                tuple(torch.from_numpy(part).to(device) for part in (rows, ids, mask.astype(np.int64)))
            )

    @torch.inference_mode()
    def run(self) -> float:
        """Seconds of the device's work over all batches; the logits stay there."""
        synchronize(self._device)
        began = time.perf_counter()
        for rows, ids_BL, mask_BL in self._batches:
            self._outputs_NC[rows] = self._model(input_ids=ids_BL, attention_mask=mask_BL).logits.float()
        synchronize(self._device)
        return time.perf_counter() - began

    def logits(self) -> npt.NDArray[np.float32]:
        """The logits [N, C] of the last run, in the order of the documents."""
        return self._outputs_NC.cpu().numpy()


@torch.inference_mode()
def reference_logits(folder: Path, sequences: Sequences, device: torch.device) -> npt.NDArray[np.float32]:
    """Logits [N, C] of transformers in fp32, one document at a time, without padding."""
    torch.backends.cuda.matmul.allow_tf32 = False
    model = transformers_model(folder, device, torch.float32)
    offsets = sequences.offsets
    rows = []
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        ids = torch.from_numpy(sequences.flat_ids[start:stop].astype(np.int64))[None].to(device)
        rows.append(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().cpu().numpy())
    return np.concatenate(rows)


def check(
    name: str, found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], allowed: float
) -> float:
    """The largest difference of a logit, printed; exits where it is more than `allowed`, or order is lost."""
    difference = float(np.abs(found - expected).max()) if np.isfinite(found).all() else float("nan")
    spread = float(expected.std(axis=0).mean())
    # Documents mixed up would correlate like strangers, however small the spread.
    kept = min(float(np.corrcoef(found[:, k], expected[:, k])[0, 1]) for k in range(expected.shape[1]))
    print(
        f"  {name:28} largest difference of a logit {difference:.2e} (allowed {allowed:.0e}), "
        f"correlation {kept:.4f}; their spread is {spread:.2e}",
        flush=True,
    )
    if not (difference <= allowed and kept >= 0.5):
        raise SystemExit(f"{name} is not the model; nothing is timed")
    return difference


def report(name: str, passes: Sequence[Throughput]) -> None:
    """A line with the medians of some passes."""
    one = sorted(passes, key=lambda each: each.seconds)[len(passes) // 2]
    share = "" if one.ceiling_share is None else f" {one.ceiling_share:6.1%} of the ceiling"
    idle = "" if one.idle_share is None else f", idle {one.idle_share:.1%}"
    print(
        f"  {name:28} {one.docs_per_second:10,.0f} docs/s {one.tokens_per_second / 1e6:8.2f} Mtok/s "
        f"{one.teraflops or 0:7.1f} TFLOP/s{share}, padding {one.padding_waste:.1%}{idle}",
        flush=True,
    )


def median_rate(passes: Sequence[Throughput]) -> float:
    """Documents a second, the median over passes."""
    return statistics.median(one.docs_per_second for one in passes)


def median_ratio(ours: Sequence[Throughput], baseline: Sequence[Throughput]) -> float:
    """Ours over baseline, the median over pairs of rounds."""
    pairs = zip(ours, baseline, strict=True)
    return statistics.median(one.docs_per_second / other.docs_per_second for one, other in pairs)


def ceilings(device: torch.device, precisions: Sequence[str]) -> dict[str, float]:
    """TFLOP/s of the large matrix product by precision, printed; absent where the device has none."""
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}
    found = {name: matmul_ceiling(device, kinds[name]) for name in precisions}
    for name, value in found.items():
        print(f"ceiling, {name}: {'not on this device' if value is None else f'{value:,.3g} TFLOP/s'}")
    return {name: value for name, value in found.items() if value is not None}


def finish(
    arguments: argparse.Namespace,
    claim: str,
    value: float,
    unit: str,
    baseline: str,
    *,
    ceiling: str | None = None,
    details: Mapping[str, object] | None = None,
) -> None:
    """The result line of a claim; a smoke test's says so in its name and is never kept."""
    _record.finish(
        claim,
        value,
        unit,
        baseline,
        ceiling=ceiling,
        packages=PACKAGES,
        details=details,
        record=arguments.record,
        trial=arguments.tiny,
    )


def free_memory(device: torch.device) -> None:
    """Give memory that nothing holds any more back to the device, for what comes next."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def parser(documentation: str | None) -> argparse.ArgumentParser:
    """The flags that every GPU benchmark has."""
    made = _record.parser(documentation, smoke="tiny models and few documents")
    made.add_argument("--device", default="cuda", help="cuda, or cpu together with --tiny")
    return made


def chosen_device(arguments: argparse.Namespace, *, num_gpus: int = 1) -> torch.device:
    """The device of the flags; exits with one line where it is not there or nothing may be recorded."""
    script = Path(sys.argv[0]).name
    if arguments.tiny and arguments.record:
        raise SystemExit("--tiny is a smoke test, nothing to record; leave --record out")
    if arguments.device == "cpu":
        if not arguments.tiny:
            raise SystemExit(f"{script} measures GPUs; to try it on a CPU add --tiny")
        return torch.device("cpu")
    there = torch.cuda.device_count()
    if there < num_gpus:
        raise SystemExit(
            f"{script} needs {num_gpus} CUDA GPU{'s' * (num_gpus > 1)}, torch {torch.__version__} sees {there}; "
            "run it where they are, or try it with --device cpu --tiny"
        )
    return torch.device("cuda", 0)


def environment(**changes: str) -> dict[str, str]:
    """The environment of a process of its own that finds this source tree."""
    paths = [SOURCES, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **changes}
