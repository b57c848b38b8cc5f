"""Books as servers and mirrors have them."""

import pytest
from support.faulty_http import FakeClock


@pytest.fixture
def clock():
    """Waits are written down, not waited."""
    return FakeClock()
