"""What was estimated of a run beside what came of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from assay.errors import InputError
from assay.pages import Section, Table
from assay.runs.manifest import Manifest
from assay.runs.run import Run
from assay.score.estimate.intervals import Estimated
from assay.score.estimate.record import EstimateRecord, read_estimate
from assay.score.report.tally import Tally
from assay.score.report.timeline import PartSpan, throughput_curve, worker_seconds
from assay.telemetry import format_count, format_duration, format_number_of

HOUR_SECONDS = 3600.0
TOKENS, DEVICE_HOURS, WORKING_TIME = "tokens", "device-hours", "time from first to last part"
WORDS: Mapping[str, Callable[[float], str]] = {
    TOKENS: format_count,
    DEVICE_HOURS: lambda hours: f"{hours:,.4g}",
    WORKING_TIME: format_duration,
}
"""How a figure is written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """A figure that was estimated, and what it came to."""

    name: str
    estimated: Estimated
    measured: float

    @property
    def is_inside(self) -> bool:
        """Whether the interval holds it; two figures that are told apart by rounding alone are the same."""
        slack = 1e-9 * abs(self.measured)
        return self.estimated.low - slack <= self.measured <= self.estimated.high + slack

    @property
    def error(self) -> float:
        """Of the estimate, relative to what was measured."""
        return self.estimated.value / self.measured - 1 if self.measured else 0.0


def compare_with_estimate(
    run: Run, tally: Tally, spans: Sequence[PartSpan]
) -> tuple[tuple[Compared, ...], Section]:
    """What the estimate beside a run said and what it came to, and the section of the page; both empty without one."""
    try:
        record = read_estimate(run.store)
    except InputError as error:  # a report does not depend on it
        return (), Section(title="Estimate", note=f"{error}.")
    if record is None:
        return (), Section(title="Estimate")
    compared, note = compare(record, run.manifest, tally, spans)
    return compared, _section(record, compared, note)


def compare(
    record: EstimateRecord, manifest: Manifest, tally: Tally, spans: Sequence[PartSpan]
) -> tuple[tuple[Compared, ...], str]:
    """The figures of a whole run, and a sentence where they, or some of them, say nothing about the estimate."""
    if record.identity != manifest.identity or record.num_documents != manifest.planned_rows:
        return (), "The estimate is of another bundle, other settings or another number of documents."
    if tally.rows != record.num_documents:
        return (), "The run is not complete; its figures will be compared once it is."
    found = [Compared(name=TOKENS, estimated=record.tokens, measured=float(tally.num_tokens))]
    speed = throughput_curve(spans)
    if speed is None:
        return tuple(found), "No part says when it was made."
    hours = _plus(record.device_seconds, record.warm_up_seconds * record.num_workers).times(1 / HOUR_SECONDS)
    found.append(Compared(name=DEVICE_HOURS, estimated=hours, measured=worker_seconds(spans) / HOUR_SECONDS))
    workers = {span.worker for span in spans}
    if len(workers) != record.num_workers:
        return tuple(found), (
            f"The estimate was for {format_number_of(record.num_workers, 'worker')} and {len(workers):,} did the run,"
            " so times are not compared."
        )
    working = _plus(record.wall_seconds, record.warm_up_seconds - record.boot_seconds)
    found.append(Compared(name=WORKING_TIME, estimated=working, measured=speed.active_seconds))
    return tuple(found), ""


def _plus(figure: Estimated, seconds: float) -> Estimated:
    """So much more or less."""
    value, low, high = (max(each + seconds, 0.0) for each in (figure.value, figure.low, figure.high))
    return Estimated(value=value, low=low, high=high)


def _section(record: EstimateRecord, compared: Sequence[Compared], note: str) -> Section:
    """Estimated beside measured."""
    rows = []
    for each in compared:
        show, figure = WORDS[each.name], each.estimated
        rows.append(
            (
                each.name,
                show(figure.value),
                f"{show(figure.low)} to {show(figure.high)}",
                show(each.measured),
                f"{each.error:+.1%}",
                "inside" if each.is_inside else "OUTSIDE",
            )
        )
    header = ("", "estimated", f"at {record.confidence:.0%}", "measured", "estimate off by", "interval")
    lead = f"Made {record.created_at}, the rate from {record.rate_from}."
    if record.warm_up_seconds:
        lead += (
            f" Device-hours are with what a worker's first unit takes more than others, {record.warm_up_seconds:.1f} s,"
            " since its part counts it."
        )
    return Section(
        title="Estimate",
        note=" ".join(part for part in (lead, note) if part),
        facts=[("assumed", each) for each in record.assumptions],
        table=Table(header=header, rows=rows, numeric_from=1) if rows else None,
    )
