"""Numbers for people."""

import pytest

from assay.telemetry import format_rate


@pytest.mark.parametrize(
    ("rate", "shown"),
    [
        (0, "0"),
        (0.0314, "0.031"),
        (0.5, "0.50"),
        (1, "1.0"),
        (4.26, "4.3"),
        (88.3, "88"),
        (12_345.6, "12,346"),
        (1.234e6, "1.23M"),
    ],
)
def test_a_rate_has_two_digits_at_least(rate, shown):
    """A slow rate is not rounded to 0 or to one digit."""
    assert format_rate(rate) == shown
