"""`assay bench`: what a bundle does on one's own documents and device, and how long a corpus would take.

    sources -> a sample spread over them -> token ids -> the engine and transformers' padded pass, in turns
            -> figures -> hours and cost

Documents of the sample are run whether equal or not; reading, writing and starting are not measured.
"""

import statistics
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig

from assay import machine
from assay.bundle.bundle import Bundle
from assay.bundle.ensemble import Ensemble
from assay.engine import devices
from assay.engine.engine import Engine
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
from assay.errors import UsageError
from assay.runs.manifest import Manifest
from assay.runs.placement import Placement
from assay.score.bench.estimate import estimate, parse_count
from assay.score.bench.report import BenchReport
from assay.score.bench.sample import Sample, first_sequences, take_sample
from assay.score.bench.settings import BenchSettings
from assay.score.bundles import engine_of, open_bundle, parse_precision
from assay.score.cascade.bundle import Cascade
from assay.score.kind import SCORE
from assay.score.plan import plan_score
from assay.score.scorer import Scorer
from assay.score.settings import ScoreSettings
from assay.settings import shared
from assay.siamese.files import Siamese
from assay.telemetry import format_number_of
from assay.tokenize.plan import bundle_encoder

SAMPLE_DOCUMENTS = {"cuda": 32_768, "cpu": 256}
WARMUP_DOCUMENTS = {"cpu": 16}
"""Documents of the pass that does not count, by device type; a GPU takes the whole sample, so that
every shape has been met."""


def bench(settings: BenchSettings, *, on_message: Callable[[str], None] | None = None) -> BenchReport:
    """Measure the bundle on a sample of the sources; nothing is written.

    `on_message` hears what is being done, a line at a time. Raises UsageError for a setting out of
    range, InputError for sources and bundles that cannot be used or hold no document to score.
    """
    say = on_message or (lambda _: None)
    wanted = None if settings.for_documents is None else parse_count(settings.for_documents)
    _refuse_fake(settings)
    device = _device(settings.device)
    bundle = open_bundle(settings.bundle)
    precision = parse_precision(settings.precision, bundle, device=str(device))
    manifest = _plan(settings, bundle, device, precision)
    if isinstance(bundle, Siamese | Cascade):
        kind = "Siamese" if isinstance(bundle, Siamese) else "a cascade"
        raise UsageError(
            f"{bundle.path} is {kind}; what a pair costs depends on how often its texts occur, which a sample does"
            " not show; score some units with assay score --limit-rows and see its report"
        )
    identity, _ = manifest.read(SCORE)
    encoder = bundle_encoder(bundle, identity)
    say(f"loading {bundle.path} onto {device}")
    engine = engine_of(
        bundle,
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
    shape = _shape(bundle)
    before = matmul_ceiling(device, _ceiling_dtype(precision))
    say(
        f"measuring {format_number_of(sample.num_documents, 'document')}, {format_number_of(settings.rounds, 'round')}"
    )
    ours, theirs, difference = _measure_both(
        engine, padded, sample, settings, bundle=bundle, shape=shape, device=device
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


def _plan(settings: BenchSettings, bundle: Bundle, device: torch.device, precision: Computed) -> Manifest:
    """The plan of a scoring run like this; it checks sources, columns and lengths, and is never created."""
    chosen = ScoreSettings(**shared(settings, ScoreSettings), run="not-used")
    placement = Placement(
        kind=device.type, num_workers=1, threads=machine.choose_threads(settings.num_threads)
    )
    return plan_score(chosen, placement, precision, bundle=bundle)[0]


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
    return engine_of(bundle, device=str(device), precision=plain, num_threads=num_threads, packed=False)


def _shape(bundle: Bundle) -> ModelShape | None:
    """What the model's arithmetic is counted by; None of an ensemble, whose members may differ."""
    if isinstance(bundle, Ensemble):
        return None
    return model_shape(AutoConfig.from_pretrained(bundle.path, local_files_only=True), windows=True)


def _measure_both(
    engine: Engine,
    padded: Engine | None,
    sample: Sample,
    settings: BenchSettings,
    *,
    bundle: Bundle,
    shape: ModelShape | None,
    device: torch.device,
) -> tuple[list[Throughput], list[Throughput], float | None]:
    """Rounds of both sides in turns, and the largest difference of a probability over the warm-up."""
    short = first_sequences(sample.sequences, WARMUP_DOCUMENTS.get(device.type))
    sides = [engine] if padded is None else [engine, padded]
    scores: list[npt.NDArray[np.float64]] = []
    for side in sides:
        outputs, _ = run_sequences(
            side, short, max_batch_tokens=_budget(side, engine, settings), deduplicate=False
        )
        scores.append(probabilities(bundle.decider.logits(outputs), bundle.task))
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
