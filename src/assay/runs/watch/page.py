"""Where a run stands, as one HTML file; what comes from the run is untrusted, and the template escapes it."""

from dataclasses import dataclass

from assay import charts
from assay.pages import Facts, Figure, Section, Table, render_page
from assay.runs.status import Status
from assay.runs.watch.lines import cost, fleet, most_telling, time_left, worst_units
from assay.telemetry import format_count, format_duration, format_number_of, format_rate

SHOWN = 200
"""Commands and failed units that are listed at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _StatusPage:
    """What the template shows, ready as text."""

    title: str
    subtitle: str
    refresh_seconds: int | None
    """None for a page that stays as it is."""
    warnings: list[str]
    complete: str
    highlights: Facts
    speed: Section
    fleet: Section
    failures: Section
    created: str


def render_status(
    status: Status,
    url: str,
    *,
    created: str,
    price_per_hour: float | None = None,
    refresh_seconds: float | None = None,
) -> bytes:
    """The page of a run; a browser reads it again every `refresh_seconds`."""
    units = f"{status.units_published:,} of {status.units_total:,}"
    page = _StatusPage(
        title=f"{status.kind} run, {_percent(status)} published",
        subtitle=f"{url}, run {status.run_id}, begun {status.created_at}",
        refresh_seconds=None if refresh_seconds is None else max(round(refresh_seconds), 1),
        warnings=_warnings(status),
        complete=f"{format_number_of(status.units_total, 'unit is', 'units are')} published."
        if status.is_complete
        else "",
        highlights=[
            ("units", units),
            ("rows", f"{format_count(status.rows_published)} of {format_count(status.rows_total)}"),
            ("documents a second lately", format_rate(status.recent_rows_per_second)),
            ("time left", "none" if status.is_complete else time_left(status)),
            ("cost", cost(status, price_per_hour)),
        ],
        speed=_speed(status),
        fleet=_fleet(status),
        failures=_failures(status),
        created=created,
    )
    return render_page("runs/watch", page)


def _percent(status: Status) -> str:
    return "100%" if status.is_complete else f"{min(int(status.share_published * 1000) / 10, 99.9):.1f}%"


def _warnings(status: Status) -> list[str]:
    found = [*status.obstacles[:SHOWN], *status.damaged[:SHOWN]]
    if status.seconds_unheard is not None:
        found.append(f"No worker was heard of for {format_duration(status.seconds_unheard)}.")
    if slow := sum(driver.is_straggler for driver in status.drivers):
        found.append(
            f"{format_number_of(slow, 'command works', 'commands work')} at less than half the median speed."
        )
    if status.set_aside:
        found.append(
            f"{format_number_of(len(status.set_aside), 'unit')} failed too often and will not be tried again."
        )
    return found


def _speed(status: Status) -> Section:
    if not status.rate_history:
        return Section(title="Rate", note="No part is published yet.")
    seconds = [at for at, _ in status.rate_history]
    scale, unit = (3600.0, "hours") if seconds[-1] >= 3 * 3600 else (60.0, "minutes")
    rates = [rate for _, rate in status.rate_history]
    svg = charts.line_chart(
        "Documents a second",
        [charts.Line(name="all workers", x=[at / scale for at in seconds], y=rates)],
        x_label=f"{unit} since the first part",
        y_label="documents a second",
    )
    rows = [(f"{at / scale:,.2f}", format_rate(rate)) for at, rate in status.rate_history]
    table = Table(header=(unit, "documents a second"), rows=rows)
    return Section(
        title="Rate",
        figures=[Figure(caption="Documents a second, by the times of parts", svg=svg, table=table)],
    )


def _fleet(status: Status) -> Section:
    if not status.drivers:
        return Section(title="Commands", note="No command has left a sign of life.")
    order = most_telling(status.drivers)
    rows = [
        (
            f"{each.host}, rank {each.rank}",
            f"{each.state}, slow" if each.is_straggler else each.state,
            f"{each.num_workers:,}",
            f"{each.units_published:,}",
            format_rate(each.rows_per_second),
            format_duration(each.seconds_since_heartbeat),
        )
        for each in order[:SHOWN]
    ]
    note = fleet(status)
    if len(order) > SHOWN:
        note += f"; the first {SHOWN} are listed"
    header = ("command", "state", "workers", "units", "docs/s", "heard of, ago")
    return Section(title="Commands", note=f"{note}.", table=Table(header=header, rows=rows, numeric_from=2))


def _failures(status: Status) -> Section:
    if not status.failed_units:
        return Section(title="Failed units")
    aside = set(status.set_aside)
    rows = [
        (unit, f"{count:,}", "set aside" if unit in aside else "tried again")
        for unit, count in worst_units(status)[:SHOWN]
    ]
    return Section(title="Failed units", table=Table(header=("unit", "failures", "state"), rows=rows))
