"""`assay estimate`: what a scoring run will take in device-hours, wall time and money, and how sure that is.

the real plan -> lengths of a sample -> a real run of another sample, or a rate from elsewhere
-> device-hours with their interval -> a simulation of the run, for boot and tail -> money
"""

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assay._version import __version__
from assay.data.storage import open_store
from assay.embed.place import place
from assay.errors import InputError, SourceError, UsageError
from assay.fleet.settings import EstimateSettings
from assay.fleet.wall import fleet_conditions, machine_conditions, simulate_wall
from assay.runs.manifest import Manifest
from assay.runs.placement import Placement
from assay.runs.plan import MAX_UNIT_ROWS, SECONDS_PER_UNIT, share_unit_rows
from assay.runs.run import find_run
from assay.score.bench.estimate import parse_count
from assay.score.bundles import open_bundle
from assay.score.cascade.bundle import Cascade
from assay.score.estimate.intervals import (
    CONFIDENCE,
    Estimated,
    Mean,
    Slice,
    product,
    seconds_per_token,
    tokens_per_row,
    worker_spread,
)
from assay.score.estimate.record import EstimateRecord, parse_estimate, read_estimate, write_estimate
from assay.score.estimate.sample import draw_lengths, draw_timed, read_lengths, slices_of, time_slices
from assay.score.kind import SCORE
from assay.score.settings import ScoreSettings
from assay.score.verb import plan_here
from assay.settings import shared
from assay.siamese.files import Siamese
from assay.telemetry import Progress, format_number_of

BOOT_SECONDS = 180.0
"""Of a machine that is asked for, where nothing is said."""
HERE = "this machine"
GIVEN = "given"
CERTAIN = 1e9
"""Degrees of freedom of what is not estimated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rate:
    """What one device does, and how that is known."""

    seconds_per_token: Mean
    where: str
    device: str = ""
    slices: tuple[Slice, ...] = ()
    start_seconds: float = 0.0
    """From the start of the command until the first worker is warm."""
    warm_up_seconds: float = 0.0
    """Of these, what the first unit takes more than others."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """Of the run that it was measured on, where that is another one."""

    @property
    def num_devices(self) -> int:
        """That were measured."""
        return len({each.worker for each in self.slices if each.seconds is not None}) or 1


def estimate(
    settings: EstimateSettings,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> EstimateRecord:
    """Estimate the run that `settings` describe; it is put beside the run that they name, if any.

    Raises UsageError for a setting out of range, InputError for what cannot be used, and whatever a run does, of which
    the sample is one.
    """
    say = on_message or (lambda _: None)
    if settings.run is not None:
        _refuse_begun(settings.run)
    wanted = None if settings.for_documents is None else parse_count(settings.for_documents)
    chance = random.Random(settings.seed)
    began = time.monotonic()
    manifest, here = _plan(settings)
    plan_seconds = time.monotonic() - began
    _refuse_fleet_of_one(settings, here)
    if manifest is not None and not manifest.planned_rows:
        raise InputError("the sources hold no rows, so there is nothing to estimate; give others")
    lengths, length = _lengths(settings, manifest, chance)
    rate = _known_rate(settings)
    if rate is None:
        assert manifest is not None, "checked by the settings"
        assert here is not None
        rate = _measure(settings, manifest, here, chance, plan_seconds, on_progress, say)
    planned = 0 if manifest is None else manifest.planned_rows
    num_documents = planned if wanted is None else wanted
    num_here = 1 if here is None else here.num_workers
    num_workers = settings.workers or num_here
    is_here = rate.where == HERE and num_workers == num_here
    spread, spread_words = _spread(settings, rate, num_workers, is_here=is_here)
    seconds = product([length, rate.seconds_per_token, spread], num_documents)
    unit_rows = _unit_rows(settings, manifest, num_documents, seconds, num_workers)
    boot = settings.boot_seconds
    if boot is None:
        boot = 0.0 if is_here else BOOT_SECONDS
    start = boot + rate.start_seconds
    wall = simulate_wall(
        unit_rows,
        seconds,
        rate.slices,
        num_workers=num_workers,
        conditions=machine_conditions(start)
        if is_here
        else fleet_conditions(
            boot_seconds=boot,
            start_seconds=rate.start_seconds,
            speed_spread=settings.speed_spread,
            hours_between_losses=settings.hours_between_losses,
        ),
        is_one_machine=is_here,
        seed=settings.seed,
    )
    price = settings.price_per_hour
    record = EstimateRecord(
        assay_version=__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        bundle="" if settings.bundle is None else str(Path(settings.bundle).resolve()),
        identity={} if manifest is None else manifest.identity,
        rate_from=rate.where,
        device=rate.device,
        confidence=CONFIDENCE,
        num_documents=num_documents,
        num_sampled=sum(each.num_rows for each in lengths),
        num_sources=0 if manifest is None else len(manifest.sources),
        num_units=len(unit_rows),
        largest_unit=max(unit_rows),
        num_workers=num_workers,
        tokens=product([length], num_documents),
        seconds_per_token=product([rate.seconds_per_token, spread]),
        device_seconds=seconds,
        wall_seconds=wall.seconds,
        boot_seconds=wall.boot_seconds,
        warm_up_seconds=rate.warm_up_seconds,
        over_ideal=wall.over_ideal,
        cost=None if price is None else wall.seconds.times(num_workers * price / 3600),
        price_per_hour=price,
        assumptions=(
            *_assumptions(settings, rate, boot, spread_words, is_here=is_here),
            *_unlike(rate, {} if manifest is None else manifest.identity),
        ),
        slices=(*lengths, *rate.slices),
    )
    if settings.run is not None:
        write_estimate(open_store(settings.run), record)
    return record


def _refuse_fleet_of_one(settings: EstimateSettings, here: Placement | None) -> None:
    """Raise UsageError for losses and differences of a fleet in the estimate of this machine's own workers."""
    is_known = settings.measured is not None or settings.tokens_per_second is not None
    if here is None or is_known or settings.workers not in {None, here.num_workers}:
        return
    for name in ("speed_spread", "hours_between_losses"):
        if getattr(settings, name) != getattr(EstimateSettings, name):
            raise UsageError(
                f"{name} is {getattr(settings, name)}, which is of a fleet, and the estimate is of the "
                f"{format_number_of(here.num_workers, 'worker')} of this machine; add --workers, or leave it out"
            )


def _refuse_begun(url: str) -> None:
    """Raise UsageError for a run with parts: its report would compare it with what was known of it already."""
    run = find_run(url)
    if run is not None and next(run.list_parts(None, None), None) is not None:
        raise UsageError(
            f"run {url} has published parts, and an estimate made now would be compared with them; leave --run out, or"
            " name a run that has not begun"
        )


def _plan(settings: EstimateSettings) -> tuple[Manifest | None, Placement | None]:
    """The plan of the run, and the workers of this machine; nothing where there are no sources."""
    if not settings.sources:
        return None, None
    chosen: dict[str, Any] = {**shared(settings, ScoreSettings), "run": settings.run or "not-used"}
    here = place(ScoreSettings(**chosen), SCORE, lambda: None).planned
    machines = math.ceil((settings.workers or here.num_workers) / here.num_workers)
    if machines > 1:
        chosen |= {"executor": "static", "rank": 0, "world_size": machines}
    manifest, bundle, found = plan_here(ScoreSettings(**chosen))
    if isinstance(bundle, Siamese | Cascade) and settings.measured is None:
        kind = "Siamese" if isinstance(bundle, Siamese) else "a cascade"
        raise UsageError(
            f"{bundle.path} is {kind}; what a pair costs depends on how often its texts occur, which a sample does"
            " not show; score some units with assay score --limit-rows into a run, and say --measured RUN"
        )
    return manifest, found.placement


def _lengths(
    settings: EstimateSettings, manifest: Manifest | None, chance: random.Random
) -> tuple[list[Slice], Mean]:
    """The slices that were read, and the mean tokens of a document."""
    if settings.tokens_per_document is not None:
        return [], Mean(value=settings.tokens_per_document, variance=0.0, degrees=CERTAIN)
    assert manifest is not None, "checked by the settings"
    _, record = manifest.read(SCORE)
    lengths = read_lengths(manifest, open_bundle(record.bundle), draw_lengths(manifest, chance))
    mean = tokens_per_row(lengths, manifest.planned_rows)
    if not mean.value:
        rows = sum(each.num_rows for each in lengths)
        raise InputError(
            f"none of the {rows:,} rows sampled can be scored; give sources that hold text, or name its column"
            " with --text-column"
        )
    return lengths, mean


def _known_rate(settings: EstimateSettings) -> _Rate | None:
    """The rate that was given, or that an earlier run or estimate shows; None where it is to be measured."""
    if settings.tokens_per_second is not None:
        given = Mean(value=1 / settings.tokens_per_second, variance=0.0, degrees=CERTAIN)
        return _Rate(seconds_per_token=given, where=GIVEN)
    if settings.measured is None:
        return None
    slices, device, identity = _recorded(settings.measured)
    if sum(each.seconds is not None and each.num_tokens > 0 for each in slices) < 2:
        raise InputError(
            f"{settings.measured} shows the times of fewer than three parts of one worker; give a run that is further"
        )
    return _Rate(
        seconds_per_token=seconds_per_token(slices),
        where=settings.measured,
        device=device,
        slices=tuple(slices),
        identity=identity,
    )


def _recorded(where: str) -> tuple[list[Slice], str, Mapping[str, Any]]:
    """Slices, device and identity of a run, by its parts or the estimate beside it, or of an estimate in a file."""
    path = Path(where)
    if path.is_file():
        record = parse_estimate(path.read_bytes(), where)
    else:
        run = find_run(where)
        if run is not None:
            run.manifest.read(SCORE)  # raises InputError for a run whose tokens cost something else
        if run is not None and (slices := slices_of(run)):
            devices = sorted({each.worker.rpartition("-")[2] for each in slices})
            return slices, ", ".join(devices[:4]), run.manifest.identity
        found = read_estimate(open_store(where))
        if found is None:
            raise SourceError(
                f"{where} holds no run with parts and no estimate; give the directory of a run, or the JSON of an"
                " estimate"
            )
        record = found
    return [each for each in record.slices if each.worker], record.device, record.identity


def _measure(
    settings: EstimateSettings,
    manifest: Manifest,
    here: Placement,
    chance: random.Random,
    plan_seconds: float,
    on_progress: Callable[[Progress], None] | None,
    say: Callable[[str], None],
) -> _Rate:
    """Score a sample for real, with the workers of this machine; planning took `plan_seconds`."""
    units = draw_timed(manifest, here.num_workers, settings.sample_documents, chance)
    slices, outcome = time_slices(manifest, units, here, on_progress=on_progress, on_message=say)
    timed = [each for each in slices if each.seconds is not None and each.num_tokens]
    if len(timed) < 2:
        raise InputError(
            f"{manifest.planned_rows:,} rows are too few to time {here.num_workers} workers on; just score them"
        )
    mean = seconds_per_token(slices)
    warm_up = _warm_up(slices, mean.value, outcome.seconds)
    return _Rate(
        seconds_per_token=mean,
        where=HERE,
        device="; ".join(outcome.descriptions),
        slices=tuple(slices),
        start_seconds=plan_seconds + outcome.ready_seconds + warm_up,
        warm_up_seconds=warm_up,
    )


def _warm_up(slices: Sequence[Slice], seconds_per_token: float, seconds: float) -> float:
    """What the first slice of the worker that ended last took more than another would, of these seconds of a run."""
    own = [each for each in slices if each.worker == slices[-1].worker]
    steady = sum(
        each.num_tokens * seconds_per_token if each.seconds is None else each.seconds for each in own
    )
    return max(seconds - steady, 0.0)


def _spread(
    settings: EstimateSettings, rate: _Rate, num_workers: int, *, is_here: bool
) -> tuple[Mean, str | None]:
    """How the mean speed of the run's devices may differ from that of the measured ones, and a sentence on it."""
    if is_here or rate.where == GIVEN:
        return Mean(value=1.0, variance=0.0, degrees=CERTAIN), None
    measured = worker_spread(rate.slices)
    apart = settings.speed_spread if measured is None else measured
    variance = apart**2 * (1 / rate.num_devices + 1 / num_workers)
    words = None
    if measured is None:
        words = f"devices of the fleet differ in speed by {apart:.0%} (standard deviation)"
    return Mean(value=1.0, variance=variance, degrees=CERTAIN), words


def _unit_rows(
    settings: EstimateSettings,
    manifest: Manifest | None,
    num_documents: int,
    seconds: Estimated,
    num_workers: int,
) -> list[int]:
    """Rows of each unit: as planned, or as a corpus of so many documents would be cut."""
    if manifest is not None and settings.for_documents is None:
        return [unit.num_rows for unit in manifest.units()]
    minute = min(max(round(SECONDS_PER_UNIT * num_documents / seconds.value), 1), MAX_UNIT_ROWS)
    rows = settings.unit_rows or share_unit_rows(minute, num_rows=num_documents, num_workers=num_workers)
    count = -(-num_documents // rows)
    return [num_documents * (k + 1) // count - num_documents * k // count for k in range(count)]


def _assumptions(
    settings: EstimateSettings, rate: _Rate, boot: float, spread: str | None, *, is_here: bool
) -> Iterator[str]:
    if rate.where == GIVEN:
        yield f"a device does {settings.tokens_per_second:,.0f} tokens/s, as given; nothing was measured"
    if settings.tokens_per_document is not None:
        yield f"a document has {settings.tokens_per_document:,.1f} tokens, as given"
    if settings.for_documents is not None and settings.sources:
        yield "all documents are like those of the sources"
    if spread is not None:
        yield spread
    if not is_here:
        by = "" if settings.boot_seconds is not None else ", as nothing was said"
        yield f"a machine boots in {boot / 3:,.0f} to {boot * 5 / 3:,.0f} s{by}"
        losses = settings.hours_between_losses
        yield (
            "no machine is lost"
            if losses is None
            else f"a machine is lost every {losses:,.4g} hours and replaced"
        )
        if rate.where not in {HERE, GIVEN}:
            yield "workers load the model within the boot"


def _unlike(rate: _Rate, identity: Mapping[str, Any]) -> Iterator[str]:
    """What was measured with another model, precision or engine than the run is planned with."""
    differing = [
        name
        for name in ("bundle", "precision", "engine")
        if name in rate.identity and name in identity and rate.identity[name] != identity[name]
    ]
    if differing:
        yield f"a token costs what it did in {rate.where}, which had another {' and '.join(differing)}"
