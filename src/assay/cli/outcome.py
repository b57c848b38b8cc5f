"""What a run's command says at its end."""

from typing import TYPE_CHECKING

from assay.telemetry import format_count, format_duration, format_number_of, format_rate

if TYPE_CHECKING:
    from assay.embed.drive import EngineRunResult
    from assay.runs.driver import Outcome
    from assay.runs.settings import RunPlace


def describe_engine_run(result: "EngineRunResult", done: str, settings: "RunPlace") -> str:
    """The plan of a dry run; else what was done (`scored`), how fast and on which engines."""
    if result.outcome is None:
        from assay.runs.placement import describe_plan

        plan = describe_plan(result.manifest, result.placement, settings)
        return f"{plan}\nnumbers  {result.precision}"
    lines = [f"{done} into {result.run_url}: {describe_outcome(result.outcome)}"]
    return "\n".join([*lines, *(f"engine: {description}" for description in result.outcome.descriptions)])


def describe_outcome(outcome: "Outcome") -> str:
    """Units, documents, rates, waste and bad rows of one command, on one line."""
    counters = outcome.counters
    units = format_number_of(outcome.units_total, "unit")
    published = f"{outcome.units_total:,} of {units} published"
    if outcome.units_by_others:
        published += f", {outcome.units_by_others:,} of them meanwhile by others"
    if not outcome.units_published:
        return published
    rate = counters.rows / outcome.seconds if outcome.seconds > 0 else 0.0
    tokens = counters.tokens / outcome.seconds if outcome.seconds > 0 else 0.0
    waste = 1 - counters.tokens / counters.padded_tokens if counters.padded_tokens else 0.0
    docs = f"{format_count(counters.rows)} {'doc' if counters.rows == 1 else 'docs'}"
    parts = [
        published,
        f"{docs} now in {format_duration(outcome.seconds)}",
        f"{format_rate(rate)} docs/s, {format_rate(tokens)} tokens/s, {waste:.1%} padding",
        f"first worker ready after {outcome.ready_seconds:.1f} s",
    ]
    if (idle := outcome.idle_share) is not None:
        parts.append(f"devices idle {idle:.1%} of the time")
    if counters.error_rows:
        parts.append(f"{format_number_of(counters.error_rows, 'row')} got an error code")
    if counters.duplicate_rows:
        parts.append(
            f"{format_number_of(counters.duplicate_rows, 'duplicate was', 'duplicates were')} run once"
        )
    if counters.fp32_rows:
        parts.append(f"{format_number_of(counters.fp32_rows, 'row')} ran again in fp32")
    return "; ".join(parts)
