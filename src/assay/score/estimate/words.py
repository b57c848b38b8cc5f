"""An estimate in words, for a terminal."""

from collections.abc import Callable

from assay.score.estimate.intervals import Estimated
from assay.score.estimate.record import EstimateRecord
from assay.telemetry import format_count, format_duration, format_number_of, format_rate


def describe(record: EstimateRecord) -> str:
    """The estimate in a few lines."""
    seen = f", {record.num_sampled:,} of them looked at" if record.num_sampled else ""
    where = f" in {format_number_of(record.num_sources, 'source')}" if record.num_sources else ""
    mean = record.tokens.value / record.num_documents
    rate = Estimated(
        value=1 / record.seconds_per_token.value,
        low=1 / record.seconds_per_token.high,
        high=1 / record.seconds_per_token.low,
    )
    timed = sum(each.seconds is not None for each in record.slices)
    source = {
        "given": "as given",
        "this machine": f"{format_number_of(timed, 'slice')} scored here, {record.device}",
    }.get(record.rate_from, f"{format_number_of(timed, 'slice')} of {record.rate_from}, {record.device}")
    units = record.num_units / record.num_workers
    docs = format_rate(rate.value / mean)
    workers = format_number_of(record.num_workers, "worker")
    lines = [
        f"documents {format_count(record.num_documents)}{where}{seen}",
        f"tokens    {between(record.tokens, format_count)}; {mean:,.1f} a document",
        f"rate      {between(rate, format_rate)} tokens/s on a device, {docs} docs/s: {source}",
        f"work      {between(record.device_seconds.times(1 / 3600), hours)} device-hours",
        f"units     {record.num_units:,} of up to {record.largest_unit:,} rows, {format_rate(units)} a worker",
        f"wall time {between(record.wall_seconds, format_duration)} with {workers}",
        (
            f"          {format_duration(record.boot_seconds)} until the first is ready, then"
            f" {max(record.over_ideal - 1, 0.0):.1%} more than an even split"
        ),
    ]
    if record.cost is not None:
        lines.append(
            f"cost      {between(record.cost, lambda cost: f'{cost:,.2f}')}"
            f" at {record.price_per_hour:,.4g} a device-hour, all workers from start to end"
        )
    spread = f"{record.confidence:.0%}: lengths over slices"
    if timed:
        doubt = f"{spread}, spread of the measured rate"
    elif record.tokens.low < record.tokens.high:
        doubt = f"{spread}; the rate that was given has none"
    else:
        doubt = "of the simulated wall time alone: what was given has none"
    lines.append(f"interval  {doubt}")
    lines += [f"assumed   {each}" for each in record.assumptions]
    return "\n".join(lines)


def between(figure: Estimated, words: Callable[[float], str]) -> str:
    """`12.3 (11.9 to 12.8)`; the figure alone where nothing says how far it may be off."""
    value, low, high = words(figure.value), words(figure.low), words(figure.high)
    return value if low == high else f"{value} ({low} to {high})"


def hours(value: float) -> str:
    """Hours with as many digits as they deserve."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:,.1f}" if value >= 10 else f"{value:,.3f}"
