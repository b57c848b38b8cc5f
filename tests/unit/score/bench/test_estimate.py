"""How long a corpus takes at measured rates, and numbers as people write them."""

import pytest

from assay.errors import UsageError
from assay.score.bench.estimate import estimate, parse_count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("160M", 160_000_000),
        ("160 m", 160_000_000),
        ("1.5B", 1_500_000_000),
        ("2G", 2_000_000_000),
        ("250k", 250_000),
        ("2.5e6", 2_500_000),
        ("12,345", 12_345),
        ("1_000", 1_000),
        ("1", 1),
    ],
)
def test_counts_as_people_write_them(text, count):
    """A number may have a suffix, an exponent or separators."""
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "M", "many", "-5", "0", "0.1", "1e400", "nan", "160MM", "5 %"])
def test_what_is_no_count_is_refused(text):
    """The value seen, the rule and the way out."""
    with pytest.raises(UsageError, match="is not a number of documents; write it as 160M"):
        parse_count(text)


def test_on_a_gpu_the_slower_side_bounds_the_run():
    """Tokenizing runs beside the device, so the slower of the two decides, and is named."""
    found = estimate(3_600_000, 1000.0, 500.0, shares_cores=False, price_per_hour=3.0)
    assert (found.bound, found.docs_per_second, found.hours, found.cost) == ("tokenizer", 500.0, 2.0, 6.0)
    found = estimate(3_600_000, 1000.0, 5000.0, shares_cores=False, price_per_hour=None)
    assert (found.bound, found.hours, found.cost) == ("engine", 1.0, None)


def test_on_a_cpu_both_take_the_same_cores():
    """Their times add up."""
    found = estimate(3600, 2.0, 2.0, shares_cores=True, price_per_hour=1.0)
    assert (found.bound, found.docs_per_second, found.hours) == ("both", 1.0, 1.0)


def test_stored_ids_need_no_tokenizer():
    """Then the engine alone bounds the run."""
    found = estimate(3600, 2.0, None, shares_cores=True, price_per_hour=None)
    assert (found.bound, found.hours) == ("engine", 0.5)
