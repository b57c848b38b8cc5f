"""`assay bench`: what a bundle does on one's own documents and device, and how long a corpus would take.

    sources -> a sample spread over them -> token ids -> the engine and transformers' padded pass, in turns
            -> figures -> hours and cost

Documents of the sample are run whether equal or not; reading, writing and starting are not measured.
"""

import math
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig

from assay import machine
from assay.bundle.bundle import Bundle
from assay.data.reading import read_rows
from assay.data.rows import SourceRows
from assay.data.sources import Source
from assay.engine import devices
from assay.engine.engine import Engine
from assay.engine.load import load_engine
from assay.engine.measure import (
    ModelShape,
    Throughput,
    matmul_ceiling,
    measure,
    median,
    model_shape,
    with_ceiling,
)
from assay.engine.parity import probabilities
from assay.engine.precision import Computed
from assay.engine.run import run_sequences
from assay.engine.sequences import Sequences
from assay.errors import InputError, UsageError
from assay.runs.manifest import Manifest
from assay.runs.placement import Placement
from assay.score.bench_settings import BenchSettings
from assay.score.chunks import Chunk, join, to_chunk
from assay.score.kind import SCORE
from assay.score.plan import plan_score
from assay.score.scorer import Scorer
from assay.score.settings import ScoreSettings
from assay.settings import shared
from assay.tasks import Task
from assay.telemetry import format_count, format_number_of, format_rate
from assay.tokenize.encode import Encoder

SAMPLE_DOCUMENTS = {"cuda": 32_768, "cpu": 256}
SLICES = 8
"""Places of the sources that the sample is taken from."""
WARMUP_DOCUMENTS = {"cpu": 16}
"""Documents of the pass that does not count, by device type; a GPU takes the whole sample, so that
every shape has been met."""
_COUNT = re.compile(r"^(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmbg]?)$", re.IGNORECASE)
_SUFFIXES = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
_HOURS_A_DAY = 24
_LEAST_LOGIT_ROUNDING = 5e-7
"""What prints as no difference at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The documents that are measured."""

    num_rows: int
    """Rows that were read."""
    num_documents: int
    """Of these, rows that can be scored."""
    sequences: Sequences
    """What the engine gets: a document each, or its windows."""
    num_tokens_longest: int
    truncated_share: float
    """Share of the documents that the policy for long ones cut."""
    tokenize_seconds: float | None
    """Time that turning text into ids took, on all cores; None for ids that were stored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """How long a corpus like the sample would take on one such device."""

    num_documents: int
    docs_per_second: float
    """Of engine and tokenizer together, as they would run."""
    hours: float
    cost: float | None
    """None where no price was given."""
    bound: str
    """`engine`, `tokenizer`, or `both`, where they share the cores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchReport:
    """What `bench` found."""

    bundle: str
    task: Task
    num_labels: int
    device: str
    """Name and hardware."""
    precision: str
    description: str
    """What the engine says of itself."""
    sample: Sample
    num_rows: int
    """Rows of all the sources."""
    ceiling: float | None
    """TFLOP/s of a matrix product in this precision, measured before and after; None where there is none."""
    engine: Throughput
    padded: Throughput | None
    """transformers' own forward pass on the same documents; None where that is the engine."""
    ratio: float | None
    """Documents a second, engine over padded: the median of the pairs of rounds."""
    largest_difference: float | None
    """Of a probability (regression: a prediction), engine against padded."""
    tokenize_docs_per_second: float | None
    num_cores: int
    estimate: Estimate

    def to_json(self) -> dict[str, Any]:
        """The report as one JSON object."""
        sample, estimate = self.sample, self.estimate
        lengths = np.diff(sample.sequences.offsets)
        return {
            "bundle": self.bundle,
            "device": self.device,
            "precision": self.precision,
            "description": self.description,
            "sample": {
                "documents": sample.num_documents,
                "error_rows": sample.num_rows - sample.num_documents,
                "sequences": len(lengths),
                "tokens": int(lengths.sum()),
                "longest": sample.num_tokens_longest,
                "truncated_share": _short(sample.truncated_share),
            },
            "rows": self.num_rows,
            "ceiling_teraflops": _short(self.ceiling),
            "engine": self.engine.to_json(),
            "padded": None if self.padded is None else self.padded.to_json(),
            "ratio": _short(self.ratio),
            "largest_difference": _short(self.largest_difference),
            "tokenize_docs_per_second": _short(self.tokenize_docs_per_second),
            "cores": self.num_cores,
            "estimate": {
                "documents": estimate.num_documents,
                "docs_per_second": _short(estimate.docs_per_second),
                "hours": _short(estimate.hours),
                "cost": None if estimate.cost is None else round(estimate.cost, 2),
                "bound": estimate.bound,
            },
        }

    def __str__(self) -> str:
        """The report for people."""
        sample = self.sample
        lengths = np.diff(sample.sequences.offsets)
        mean = lengths.sum() / sample.num_documents
        bad = sample.num_rows - sample.num_documents
        lines = [
            f"bundle    {self.bundle}: {self.task}, {self.num_labels} outputs",
            f"device    {self.device}, {self.precision}",
            f"engine    {self.description}",
            f"sample    {format_number_of(sample.num_documents, 'document')} of "
            f"{format_number_of(self.num_rows, 'row')}, mean {mean:.0f} tokens, "
            f"longest {sample.num_tokens_longest:,}, {sample.truncated_share:.1%} cut"
            + (f"; {bad:,} bad rows left out" if bad else ""),
            "",
            *_table([("engine", self.engine), ("transformers, padded", self.padded)]),
            "",
        ]
        if self.ceiling is not None:
            lines.append(f"ceiling   {self.ceiling:,.3g} TFLOP/s, a measured product of large matrices")
        if self.ratio is not None and self.largest_difference is not None:
            lines.append(f"ratio     {self.ratio:.2f}; {_difference(self.largest_difference, self.task)}")
        if self.tokenize_docs_per_second is not None:
            rate = format_rate(self.tokenize_docs_per_second)
            lines.append(f"tokenizer {rate} docs/s on {self.num_cores} cores")
        return "\n".join([*lines, f"estimate  {_estimate_line(self.estimate)}"])


def bench(settings: BenchSettings, *, on_message: Callable[[str], None] | None = None) -> BenchReport:
    """Measure the bundle on a sample of the sources; nothing is written.

    `on_message` hears what is being done, a line at a time. Raises UsageError for a setting out of
    range, InputError for sources and bundles that cannot be used or hold no document to score.
    """
    say = on_message or (lambda _: None)
    wanted = None if settings.for_documents is None else parse_count(settings.for_documents)
    _refuse_fake(settings)
    device = _device(settings.device)
    precision = devices.parse_precision(settings.precision, device)
    manifest, bundle = _plan(settings, device, precision)
    identity, _ = manifest.read(SCORE)
    encoder = Encoder.from_bundle(
        bundle.path,
        max_length=identity.max_length,
        on_long=identity.on_long,
        stride=identity.stride,
    )
    say(f"loading {bundle.path} onto {device}")
    engine = load_engine(
        bundle.checkpoint,
        device=str(device),
        precision=precision,
        num_threads=settings.num_threads,
        packed=settings.engine != "padded",
    )
    sample = take_sample(
        manifest,
        Scorer(bundle, engine, encoder),
        encoder,
        num_documents=settings.documents or SAMPLE_DOCUMENTS[device.type],
    )
    padded = _padded_engine(engine, bundle, device, precision, num_threads=settings.num_threads)
    shape = model_shape(AutoConfig.from_pretrained(bundle.path, local_files_only=True), windows=True)
    before = matmul_ceiling(device, _ceiling_dtype(precision))
    say(
        f"measuring {format_number_of(sample.num_documents, 'document')}, {format_number_of(settings.rounds, 'round')}"
    )
    ours, theirs, difference = _measure_both(
        engine, padded, sample, settings, task=bundle.task, shape=shape, device=device
    )
    ceiling = before
    if before is not None:
        # The better of two, so that a machine which did something else in one of them is not praised.
        ceiling = max(before, matmul_ceiling(device, _ceiling_dtype(precision)) or before)
    middle = median(with_ceiling(ours, ceiling))
    seconds = sample.tokenize_seconds
    rate = None if seconds is None else sample.num_documents / max(seconds, 1e-9)
    num_rows = sum(record.num_rows for record in manifest.sources)
    pairs = [one.seconds / other.seconds for one, other in zip(theirs, ours, strict=False)]
    return BenchReport(
        bundle=str(bundle.path),
        task=bundle.task,
        num_labels=len(bundle.labels),
        device=_device_name(device),
        precision=precision,
        description=engine.description(),
        sample=sample,
        num_rows=num_rows,
        ceiling=ceiling,
        engine=middle,
        padded=median(with_ceiling(theirs, ceiling)) if theirs else None,
        ratio=statistics.median(pairs) if pairs else None,
        largest_difference=difference,
        tokenize_docs_per_second=rate,
        num_cores=machine.usable_cores(),
        estimate=estimate(
            num_rows if wanted is None else wanted,
            middle.docs_per_second,
            rate,
            shares_cores=device.type == "cpu",
            price_per_hour=settings.price_per_hour,
        ),
    )


def parse_count(text: str) -> int:
    """The number that "160M", "2.5e6", "1_000_000" or "12,345" means; UsageError for anything else."""
    found = _COUNT.match(text.strip().replace(",", "").replace("_", ""))
    count = float(found[1]) * _SUFFIXES[found[2].lower()] if found else math.nan
    # Written so that NaN and infinity fail.
    if not 1 <= count < 1e18:
        msg = f"{text!r} is not a number of documents; write it as 160M, 250k, 1.5B or 2000000"
        raise UsageError(msg)
    return round(count)


def estimate(
    num_documents: int,
    engine_rate: float,
    tokenize_rate: float | None,
    *,
    shares_cores: bool,
    price_per_hour: float | None,
) -> Estimate:
    """Hours and cost of so many documents at these rates, in documents a second.

    Tokenizing runs beside a GPU, so the slower of the two bounds the run; on a CPU both take the
    same cores, so their times add up. Reading, writing and the start come on top.
    """
    if tokenize_rate is None:
        rate, bound = engine_rate, "engine"
    elif shares_cores:
        rate, bound = 1.0 / (1.0 / engine_rate + 1.0 / tokenize_rate), "both"
    else:
        rate = min(engine_rate, tokenize_rate)
        bound = "engine" if engine_rate <= tokenize_rate else "tokenizer"
    hours = num_documents / rate / 3600
    return Estimate(
        num_documents=num_documents,
        docs_per_second=rate,
        hours=hours,
        cost=None if price_per_hour is None else hours * price_per_hour,
        bound=bound,
    )


def take_sample(manifest: Manifest, scorer: Scorer, encoder: Encoder, *, num_documents: int) -> Sample:
    """About `num_documents` rows from eight places of the sources, as what the engine gets.

    Raises InputError where none of them can be scored.
    """
    sources = [manifest.source(index) for index in range(len(manifest.sources))]
    batches: list[SourceRows] = []
    for source, start, stop in spread(sources, num_documents):
        batches += read_rows(source, manifest.source_columns(), start, stop)
    began = time.perf_counter()
    held: list[Chunk] = [to_chunk(rows, encoder, max_tokens=scorer.max_tokens) for rows in batches]
    seconds = time.perf_counter() - began
    num_rows = sum(rows.num_rows for rows in batches)
    if not held or not any(len(chunk.tokens.flat_ids) for chunk in held):
        msg = (
            f"none of the {num_rows:,} rows sampled can be scored; give sources that hold text, "
            "or name its column with --text-column"
        )
        raise InputError(msg)
    chunk = join(held)
    expanded = scorer.views.expand(chunk.tokens.rows)
    sequences, rows_of = expanded.sequences, expanded.row_S
    stored = batches[0].input_ids is not None
    usable = len(np.unique(rows_of))
    return Sample(
        num_rows=num_rows,
        num_documents=usable,
        sequences=sequences,
        num_tokens_longest=int(chunk.tokens.num_tokens.max()),
        truncated_share=float(chunk.tokens.truncated.sum()) / usable,
        tokenize_seconds=None if stored else seconds,
    )


def spread(sources: Sequence[Source], num_documents: int) -> list[tuple[Source, int, int]]:
    """Ranges of rows, `num_documents` in all or every row there is, evenly over the sources in order."""
    bounds = np.concatenate([[0], np.cumsum([source.num_rows for source in sources], dtype=np.int64)])
    total = int(bounds[-1])
    wanted = min(num_documents, total)
    slices = min(SLICES, wanted)
    found = []
    for index in range(slices):
        # What is taken and what is passed over are both shared out, so that slices never overlap.
        taken = wanted * index // slices
        begin = taken + (total - wanted) * index // slices
        size = wanted * (index + 1) // slices - taken
        for source, first, last in zip(sources, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            start, stop = max(begin, first), min(begin + size, last)
            if start < stop:
                found.append((source, start - first, stop - first))
    return found


# ------------------------------------------------------------ what is measured


def _plan(settings: BenchSettings, device: torch.device, precision: Computed) -> tuple[Manifest, Bundle]:
    """The plan of a scoring run like this; it checks sources, columns and lengths, and is never created."""
    chosen = ScoreSettings(**shared(settings, ScoreSettings), run="")
    placement = Placement(
        kind=device.type, num_workers=1, threads=machine.choose_threads(settings.num_threads)
    )
    return plan_score(chosen, placement, precision)


def _refuse_fake(settings: BenchSettings) -> None:
    if settings.engine == "fake":
        msg = "engine fake makes scores up, so its speed says nothing; use auto or padded"
        raise UsageError(msg)


def _device(name: str) -> torch.device:
    return devices.parse_device(devices.available_devices()[0].name if name == "auto" else name)


def _device_name(device: torch.device) -> str:
    found = {one.name: one.hardware for one in devices.available_devices()}
    name = f"cuda:{device.index or 0}" if device.type == "cuda" else device.type
    return f"{name} ({found[name]})" if name in found else name


def _ceiling_dtype(precision: Computed) -> torch.dtype:
    return torch.float8_e4m3fn if precision == "fp8" else devices.DTYPES[precision]


def _padded_engine(
    engine: Engine, bundle: Bundle, device: torch.device, precision: Computed, *, num_threads: int | None
) -> Engine | None:
    """The forward pass of transformers itself, in bf16 where the engine is in fp8; None where that is the engine."""
    if not engine.packed:
        return None
    plain = "bf16" if precision == "fp8" else precision
    return load_engine(
        bundle.checkpoint, device=str(device), precision=plain, num_threads=num_threads, packed=False
    )


def _measure_both(
    engine: Engine,
    padded: Engine | None,
    sample: Sample,
    settings: BenchSettings,
    *,
    task: Task,
    shape: ModelShape,
    device: torch.device,
) -> tuple[list[Throughput], list[Throughput], float | None]:
    """Rounds of both sides in turns, and the largest difference of a probability over the warm-up."""
    short = first_sequences(sample.sequences, WARMUP_DOCUMENTS.get(device.type))
    sides = [engine] if padded is None else [engine, padded]
    scores: list[npt.NDArray[np.float64]] = []
    for side in sides:
        logits, _ = run_sequences(
            side, short, max_batch_tokens=_budget(side, engine, settings), deduplicate=False
        )
        scores.append(probabilities(logits, task))
    passes: list[list[Throughput]] = [[], []]
    for _ in range(settings.rounds):
        for kept, side in zip(passes, sides, strict=False):
            kept.extend(
                measure(
                    side,
                    sample.sequences,
                    rounds=1,
                    warmup=0,
                    shape=shape,
                    max_batch_tokens=_budget(side, engine, settings),
                    num_documents=sample.num_documents,
                )
            )
    difference = None if padded is None else float(np.abs(scores[0] - scores[1]).max())
    return passes[0], passes[1], difference


def _budget(side: Engine, engine: Engine, settings: BenchSettings) -> int | None:
    """The tokens of a batch that were asked for are the engine's; the other side has its own."""
    return settings.max_batch_tokens if side is engine else None


def first_sequences(sequences: Sequences, count: int | None) -> Sequences:
    """The first `count` of the sequences, without a copy; all of them for None."""
    if count is None or count >= sequences.num_sequences:
        return sequences
    seconds = sequences.second_starts
    return Sequences(
        flat_ids=sequences.flat_ids,
        offsets=sequences.offsets[: count + 1],
        second_starts=None if seconds is None else seconds[:count],
    )


# ------------------------------------------------------------ what is printed


def _table(rows: Sequence[tuple[str, Throughput | None]]) -> list[str]:
    header = (
        f"{'':22}{'docs/s':>10}{'tokens/s':>12}{'TFLOP/s':>10}{'of ceiling':>12}{'padding':>9}{'idle':>8}"
    )
    lines = [header]
    for name, found in rows:
        if found is not None:
            lines.append(
                f"{name:22}{format_rate(found.docs_per_second):>10}{format_rate(found.tokens_per_second):>12}"
                f"{'-' if found.teraflops is None else f'{found.teraflops:.3g}':>10}"
                f"{_percent(found.ceiling_share):>12}{found.padding_waste:>9.1%}{_percent(found.idle_share):>8}"
            )
    return lines


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _difference(largest: float, task: Task) -> str:
    what = "prediction" if task is Task.REGRESSION else "probability"
    return (
        f"largest difference of a {what} {largest:.1e}" if largest > _LEAST_LOGIT_ROUNDING else "equal scores"
    )


def _estimate_line(found: Estimate) -> str:
    days = f" ({found.hours / _HOURS_A_DAY:,.1f} days)" if found.hours > 2 * _HOURS_A_DAY else ""
    hours = f"{found.hours:,.1f} hours" if found.hours >= 1 else f"{found.hours * 60:,.1f} minutes"
    cost = "" if found.cost is None else f", {found.cost:,.2f} at the price given"
    bound = {
        "engine": "bounded by the engine",
        "tokenizer": "bounded by the tokenizer: give it more cores, or tokenize once with `assay tokenize`",
        "both": "engine and tokenizer share the cores",
    }[found.bound]
    rate = format_rate(found.docs_per_second)
    return f"{format_count(found.num_documents)} documents: {hours}{days} on one device{cost} ({rate} docs/s; {bound})"


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


__all__ = ["BenchReport", "Estimate", "Sample", "bench", "estimate", "parse_count", "spread", "take_sample"]
