"""The main figures of a report, for callers and the line that the command prints."""

from collections.abc import Sequence
from dataclasses import dataclass

from assay.embed.differences import Differences
from assay.runs.status import Status
from assay.score.report.evidence import sampled_differences
from assay.score.report.expected import Compared
from assay.score.report.tally import Tally
from assay.score.report.timeline import PartSpan, ThroughputCurve, throughput_curve, worker_seconds
from assay.score.report.words import number_of
from assay.telemetry import format_count, format_rate

HOUR_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSummary:
    """Where the report lies, and its main figures."""

    path: str
    run_id: str
    is_complete: bool
    """Whether every unit was published when the report was made."""
    rows: int
    """Rows in the published parts."""
    rows_total: int
    """Rows that the run will have."""
    error_rows: int
    truncated_rows: int
    duplicate_rows: int
    num_tokens: int
    rows_per_second: float
    """Over working time, long pauses left out."""
    worker_hours: float
    """Hours in which a worker had a unit under way, summed over workers."""
    device_hours: float | None
    """Hours of forward passes; None where the parts do not say."""
    cost: float | None
    """Worker hours at the price given; None without a price."""
    parity_passed: bool | None
    """None where no parity gate was run."""
    fp32_rows: int = 0
    """Rows that were not finite in half precision and ran again in fp32."""
    differences: Differences | None = None
    """How far sampled documents are from fp32's; None where none was run in fp32 too."""
    obstacles: tuple[str, ...] = ()
    """What stands in the way of parts that are missing, with what to do."""
    estimates: tuple[Compared, ...] = ()
    """What `assay estimate` put beside the run said, and what it came to."""

    def __str__(self) -> str:
        """One line for people."""
        state = "" if self.is_complete else f" of {format_count(self.rows_total)} (the run is not complete)"
        cost = "" if self.cost is None else f", cost {self.cost:,.2f}"
        obstacle = f"; {self.obstacles[0]}" if self.obstacles else ""
        return (
            f"{self.path}: {format_count(self.rows)} rows{state}, {self.error_rows:,} with an error code, "
            f"{format_rate(self.rows_per_second)} docs/s{cost}{self._off()}{obstacle}"
        )

    def _off(self) -> str:
        """How far the estimate was off, for the end of the line."""
        if not self.estimates:
            return ""
        last = self.estimates[-1]
        inside = "inside" if last.is_inside else "OUTSIDE"
        return f", {last.name} estimated {last.error:+.1%} off, {inside} the interval"


def summarize(
    path: str,
    status: Status,
    tally: Tally,
    *,
    parity_passed: bool | None,
    price_per_hour: float | None,
    estimates: tuple[Compared, ...] = (),
) -> ReportSummary:
    """The main figures of the parts that `tally` counted."""
    spans = spans_of(tally)
    speed = throughput_curve(spans)
    worker_hours = worker_seconds(spans) / HOUR_SECONDS
    device_seconds = _device_seconds(tally)
    return ReportSummary(
        path=path,
        run_id=status.run_id,
        is_complete=status.is_complete,
        rows=tally.rows,
        rows_total=status.rows_total,
        error_rows=tally.error_rows,
        truncated_rows=tally.truncated_rows,
        duplicate_rows=int(tally.sum_of("duplicate_rows") or 0),
        num_tokens=tally.num_tokens,
        rows_per_second=_rate(spans, speed),
        worker_hours=worker_hours,
        device_hours=None if device_seconds is None else device_seconds / HOUR_SECONDS,
        cost=None if price_per_hour is None else worker_hours * price_per_hour,
        parity_passed=parity_passed,
        fp32_rows=int(tally.sum_of("fp32_rows") or 0),
        differences=sampled_differences(tally),
        obstacles=status.obstacles,
        estimates=estimates,
    )


def spans_of(tally: Tally) -> list[PartSpan]:
    """When each part that says so was made."""
    spans = []
    for unit, stats in tally.stats:
        started, finished = number_of(stats.get("started_at")), number_of(stats.get("finished_at"))
        worker = stats.get("worker")
        if started is not None and finished is not None and finished >= started:
            spans.append(
                PartSpan(
                    started_at=started,
                    finished_at=finished,
                    num_rows=unit.num_rows,
                    worker=str(worker) if worker else None,
                )
            )
    return spans


def _rate(spans: Sequence[PartSpan], speed: ThroughputCurve | None) -> float:
    return sum(span.num_rows for span in spans) / speed.active_seconds if speed else 0.0


def _device_seconds(tally: Tally) -> float | None:
    seconds = tally.sum_of("device_seconds")
    milliseconds = tally.sum_of("device_milliseconds")
    return seconds if milliseconds is None else (seconds or 0.0) + milliseconds / 1000
