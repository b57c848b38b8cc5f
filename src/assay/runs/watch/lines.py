"""Where a run stands, as lines for a terminal of any width. Pure."""

import textwrap
from collections.abc import Sequence

from assay.runs.status import DriverStatus, Status
from assay.telemetry import bar_line, format_count, format_duration, format_number_of, format_rate, printable

INDENT = 9
SHOWN_DRIVERS = 10
SHOWN_UNITS = 3
BARS = " ▁▂▃▄▅▆▇█"
STATES = ("silent", "working", "failed", "drained", "finished")
"""In the order in which they are shown."""


def lines(status: Status, width: int, *, price_per_hour: float | None = None) -> list[str]:
    """The state of a run in lines of at most `width` columns, the most important first."""
    units = f"{status.units_published:,} of {status.units_total:,} units"
    rows = f"{format_count(status.rows_published)} of {format_count(status.rows_total)} rows"
    shown = [bar_line(status.kind, status.share_published, [units, rows], width)]
    if status.is_complete:
        shown.append("complete; `assay verify` proves what the parts hold")
    shown += [f"in the way: {each}" for each in status.obstacles[:SHOWN_UNITS]]
    shown += [f"damaged: {each}" for each in status.damaged[:SHOWN_UNITS]]
    if status.seconds_since_last_part is not None:
        rate = f"rate     {format_rate(status.recent_rows_per_second)} docs/s lately"
        shown.append(f"{rate}  {sparkline(status, min(max(width - len(rate) - 2, 0), 48))}")
        shown.append(f"parts    the last one {format_duration(status.seconds_since_last_part)} ago")
    if not status.is_complete:
        shown.append(f"left     {time_left(status)}")
    if status.drivers:
        shown.append(f"at work  {fleet(status)}")
        shown += [f"  {describe_driver(driver)}" for driver in most_telling(status.drivers)[:SHOWN_DRIVERS]]
        if (more := len(status.drivers) - SHOWN_DRIVERS) > 0:
            shown.append(f"  and {more:,} more")
        shown.append(f"cost     {cost(status, price_per_hour)}")
    elif not status.is_complete:
        shown.append("at work  no command has left a sign of life")
    if status.failed_units:
        shown.append(f"failed   {failures(status)}")
    return [part for line in shown for part in _fold(line, width)]


def _fold(line: str, width: int) -> list[str]:
    """What does not fit goes on below the words, and is not cut off; bars and commands are."""
    if len(line) <= width or line.startswith("  ") or "━" in line or "─" in line or width < 2 * INDENT:
        return [line[:width]]
    return textwrap.wrap(line, width, subsequent_indent=" " * INDENT)


def time_left(status: Status) -> str:
    """`1:20:00 (1:10:00 to 1:32:00)`, or why that is unknown."""
    if status.seconds_unheard is not None:
        return f"unknown: no worker heard of for {format_duration(status.seconds_unheard)}"
    if status.seconds_left is None:
        if status.seconds_since_last_part is None:
            return "unknown: no part yet"
        return (
            f"unknown: too few parts lately, the last {format_duration(status.seconds_since_last_part)} ago"
        )
    low, high = status.seconds_left_range
    if low is None:
        return f"{format_duration(status.seconds_left)}, of too few parts to say how sure that is"
    most = "unknown" if high is None else format_duration(high)
    return f"{format_duration(status.seconds_left)} ({format_duration(low)} to {most})"


def fleet(status: Status) -> str:
    """How many commands are in which state, and how many are slow."""
    counts = [(state, sum(driver.state == state for driver in status.drivers)) for state in STATES]
    words = {"working": "at work", "failed": "failed", "drained": "told to stop"}
    parts = [f"{count:,} {words.get(state, state)}" for state, count in counts if count]
    if slow := sum(driver.is_straggler for driver in status.drivers):
        parts.append(f"{slow:,} slow")
    workers = sum(driver.num_workers for driver in status.drivers if driver.state == "working")
    return f"{', '.join(parts)}; {format_number_of(workers, 'worker')}"


def most_telling(drivers: Sequence[DriverStatus]) -> list[DriverStatus]:
    """The commands that a person should see first: silent and slow ones, then the others at work."""
    return sorted(
        drivers, key=lambda driver: (STATES.index(driver.state), not driver.is_straggler, driver.rank)
    )


def describe_driver(driver: DriverStatus) -> str:
    """One command on one line."""
    heard = format_duration(driver.seconds_since_heartbeat)
    state = "slow" if driver.is_straggler else "" if driver.state == "working" else driver.state
    figures = (
        f"{driver.units_published:,} units, {format_rate(driver.rows_per_second)} docs/s, heard {heard} ago"
    )
    return f"{printable(driver.host)} rank {driver.rank}: {figures}{f', {state}' if state else ''}"


def worst_units(status: Status) -> list[tuple[str, int]]:
    """The units that failed and how often, the most often first: those that were set aside."""
    return sorted(status.failed_units.items(), key=lambda each: (-each[1], each[0]))


def failures(status: Status) -> str:
    """The units that failed, in a line."""
    ordered = worst_units(status)
    shown = ", ".join(f"{unit} ({format_number_of(count, 'time')})" for unit, count in ordered[:SHOWN_UNITS])
    more = f" and {len(ordered) - SHOWN_UNITS:,} more" if len(ordered) > SHOWN_UNITS else ""
    aside = f", {len(status.set_aside):,} set aside" if status.set_aside else ""
    return f"{format_number_of(len(ordered), 'unit')}{aside}: {shown}{more}"


def cost(status: Status, price_per_hour: float | None) -> str:
    """Worker-hours so far and, with a price, money."""
    hours = f"{format_rate(status.worker_hours)} worker-hours so far"
    if price_per_hour is None:
        return hours
    return f"{status.worker_hours * price_per_hour:,.2f} so far, {hours} at {price_per_hour:,.4g}"


def sparkline(status: Status, width: int) -> str:
    """Rows a second over the time since the first part, in so many columns at most; "" of too few."""
    rates = [rate for _, rate in status.rate_history]
    if width < 4 or not any(rates):
        return ""
    step = -(-len(rates) // width)
    means = [sum(rates[k : k + step]) / len(rates[k : k + step]) for k in range(0, len(rates), step)]
    top = max(means)
    return "".join(BARS[round(mean / top * (len(BARS) - 1))] for mean in means)
