"""What a device costs, for every command that says what a run costs. Imports nothing heavy."""

from dataclasses import dataclass, field

from assay.settings import Settings, within


@dataclass(frozen=True, kw_only=True)
class Pricing(Settings):
    """The price of a device."""

    price_per_hour: float | None = field(default=None, metadata=within(at_least=0, at_most=1_000_000))
    """Price of one device for an hour, in any currency, for the cost."""
