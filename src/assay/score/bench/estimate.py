"""How long a corpus would take, and what it would cost, at the rates that were measured. Pure."""

import math
import re
from dataclasses import dataclass

from assay.errors import UsageError

_COUNT = re.compile(r"^(\d+(?:\.\d+)?(?:e\d+)?)\s*([kmbg]?)$", re.IGNORECASE)
_SUFFIXES = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """How long a corpus like the sample would take on one such device."""

    num_documents: int
    docs_per_second: float
    """Of engine and tokenizer together, as they would run."""
    hours: float
    cost: float | None
    """None where no price was given."""
    bound: str
    """`engine`, `tokenizer`, or `both`, where they share the cores."""


def parse_count(text: str) -> int:
    """The number that "160M", "2.5e6", "1_000_000" or "12,345" means; UsageError for anything else."""
    found = _COUNT.match(text.strip().replace(",", "").replace("_", ""))
    count = float(found[1]) * _SUFFIXES[found[2].lower()] if found else math.nan
    # Written so that NaN and infinity fail.
    if not 1 <= count < 1e18:
        msg = f"{text!r} is not a number of documents; write it as 160M, 250k, 1.5B or 2000000"
        raise UsageError(msg)
    return round(count)


def estimate(
    num_documents: int,
    engine_rate: float,
    tokenize_rate: float | None,
    *,
    shares_cores: bool,
    price_per_hour: float | None,
) -> Estimate:
    """Hours and cost of so many documents at these rates, in documents a second.

    Tokenizing runs beside a GPU, so the slower of the two bounds the run; on a CPU both take the
    same cores, so their times add up. Reading, writing and the start come on top.
    """
    if tokenize_rate is None:
        rate, bound = engine_rate, "engine"
    elif shares_cores:
        rate, bound = 1.0 / (1.0 / engine_rate + 1.0 / tokenize_rate), "both"
    else:
        rate = min(engine_rate, tokenize_rate)
        bound = "engine" if engine_rate <= tokenize_rate else "tokenizer"
    hours = num_documents / rate / 3600
    return Estimate(
        num_documents=num_documents,
        docs_per_second=rate,
        hours=hours,
        cost=None if price_per_hour is None else hours * price_per_hour,
        bound=bound,
    )
