"""How the report writes shares, sizes, times and the values of records."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime

from assay.pages import Facts

LONGEST_TEXT = 300

Json = Mapping[str, object]


def flatten(values: Json, prefix: str = "") -> Facts:
    """Nested objects as dotted names with text values."""
    facts: Facts = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            facts += flatten(value, f"{prefix}{key}.")
        else:
            facts.append((f"{prefix}{key}", one_line(value)))
    return facts


def one_line(value: object) -> str:
    """A value on one line, of bounded length."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def number_of(value: object) -> float | None:
    """A finite number of a file that may hold anything; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def share_of(count: int, total: int) -> str:
    """A share in per cent; one that would print as 0 is "under 0.01%"."""
    if not total or not count:
        return "0%"
    share = count / total
    return f"{share:.2%}" if share >= 0.0001 else "under 0.01%"


def count_and_share(count: int, total: int) -> str:
    """A count with its share in brackets."""
    return f"{count:,} ({share_of(count, total)})" if count else "0"


def size_of(size_bytes: int) -> str:
    """A number of bytes in the unit that suits it."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def when(seconds: float) -> str:
    """A time, given in unix seconds, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
