"""How fast a run was and what it cost, from the times in its parts' footers."""

import math

from assay import charts
from assay.pages import Facts, Figure, Section, Table
from assay.score.report.summary import HOUR_SECONDS, ReportSummary, spans_of
from assay.score.report.tally import Tally
from assay.score.report.timeline import throughput_curve
from assay.score.report.words import when
from assay.telemetry import format_duration, format_number_of, format_rate

MILLION = 1e6


def speed_section(tally: Tally, summary: ReportSummary) -> Section:
    """Documents a second over working time; without figures where no part says when it was made."""
    spans = spans_of(tally)
    speed = throughput_curve(spans)
    if speed is None:
        return Section(title="Throughput")
    scale, unit = _time_unit(speed.active_seconds)
    marks = [charts.Mark(x=cut.at / scale, text=f"idle {format_duration(cut.seconds)}") for cut in speed.cuts]
    times = [at / scale for at in speed.seconds]
    svg = charts.line_chart(
        "Documents a second over working time",
        [charts.Line(name="all workers", x=times, y=speed.rows_per_second)],
        x_label=f"{unit} of working time",
        y_label="documents a second",
        marks=marks,
        y_range=(0.0, math.inf),
    )
    table = Table(
        header=(f"{unit} of working time", "documents a second"),
        rows=[
            (f"{at:,.2f}", format_rate(rate)) for at, rate in zip(times, speed.rows_per_second, strict=True)
        ],
    )
    caption = "Documents a second, all workers together"
    if speed.cuts:
        caption += (
            f"; {format_number_of(len(speed.cuts), 'idle stretch', 'idle stretches')} left out (dashed)"
        )
    workers = {span.worker for span in spans if span.worker}
    facts = [
        ("first part begun", when(min(span.started_at for span in spans))),
        ("last part finished", when(max(span.finished_at for span in spans))),
        ("working time", format_duration(speed.active_seconds)),
        ("documents a second", format_rate(summary.rows_per_second)),
        ("tokens a second", format_rate(tally.num_tokens / speed.active_seconds)),
        ("workers", f"{len(workers):,}" if workers else "not known"),
        ("parts", f"{len(spans):,}"),
    ]
    padding = tally.sum_of("padded_tokens")
    if padding is not None:
        facts.append(("padding tokens", f"{padding:,.0f}"))
    return Section(title="Throughput", figures=[Figure(caption=caption, svg=svg, table=table)], facts=facts)


def _time_unit(seconds: float) -> tuple[float, str]:
    if seconds >= 3 * HOUR_SECONDS:
        return HOUR_SECONDS, "hours"
    return (60.0, "minutes") if seconds >= 180 else (1.0, "seconds")


def cost_facts(summary: ReportSummary, price_per_hour: float | None) -> Facts:
    """Hours of work and, with a price, what they cost."""
    facts = [("worker hours", f"{summary.worker_hours:,.4g}")]
    if summary.device_hours is not None:
        facts.append(("of them in the forward pass", f"{summary.device_hours:,.4g} h"))
        if summary.worker_hours > 0:
            share = min(summary.device_hours / summary.worker_hours, 1.0)
            facts.append(("share of the time in the forward pass", f"{share:.1%}"))
    if price_per_hour is not None and summary.cost is not None:
        facts.append(("price of a device hour", f"{price_per_hour:,.4g}"))
        facts.append(("cost", f"{summary.cost:,.2f}"))
        if summary.rows:
            facts.append(("cost of a million documents", f"{summary.cost / summary.rows * MILLION:,.4g}"))
    elif summary.rows:
        hours = summary.worker_hours / summary.rows * MILLION
        facts.append(("worker hours for a million documents", f"{hours:,.4g}"))
    return facts


def cost_note(price_per_hour: float | None) -> str:
    """What worker hours are, and how to see a cost where none is shown."""
    note = (
        "Worker hours are the time in which a worker had a published unit under way. Starting up, waiting "
        "and units that were lost and done again are not in them."
    )
    return note if price_per_hour is not None else f"{note} Give --price-per-hour to see what it cost."
