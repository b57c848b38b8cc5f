"""What every settings class stands on: ranges that are declared beside a field and checked in one place.

    @dataclass(frozen=True, kw_only=True)
    class SampleSettings(LongDocuments, Texts):
        share: float = field(default=0.1, metadata=within(above=0, below=1))
        \"\"\"Share of the rows to look at.\"\"\"

A settings class inherits the groups of fields that it shares with others. A group lives in the room whose
meaning it has (`tokenize.settings.LongDocuments`), so one setting has one name, default, range and help text
for flags, config files and Python. No `slots`: Python cannot inherit from two classes that have them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from assay.errors import UsageError

Metadata = Mapping[str, object]
AUTO = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Which numbers a setting may have; infinity and NaN are in no range."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def holds(self, value: object) -> bool:
        """Whether a value is a number in the range."""
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """The rule in words: "at least 0 and below 1"."""
        bounds = (
            ("at least", self.at_least),
            ("above", self.above),
            ("at most", self.at_most),
            ("below", self.below),
        )
        return " and ".join(f"{word} {bound:,}" for word, bound in bounds if bound is not None)


@dataclass(frozen=True, slots=True)
class AutoOrCount:
    """`auto`, or a whole number from 1 on, written as a string."""

    def holds(self, value: object) -> bool:
        """Whether a value is one of the two."""
        return value == AUTO or (
            isinstance(value, str) and value.isascii() and value.isdecimal() and int(value) >= 1
        )

    def __str__(self) -> str:
        """The rule in words."""
        return "auto or a whole number from 1 on"


def within(
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> Metadata:
    """Field metadata: the range of a number; a field that may be None is not checked where it is None."""
    return {"rule": Range(at_least=at_least, above=above, at_most=at_most, below=below)}


COUNT = within(at_least=1)
"""Field metadata: counts from 1."""
AUTO_OR_COUNT: Metadata = {"rule": AutoOrCount()}
"""Field metadata: `auto`, or how many; `count_of` reads it."""


def positional(metavar: str) -> Metadata:
    """Field metadata: given on the command line by place, not by flag."""
    return {"positional": True, "metavar": metavar}


def count_of(value: str) -> int | None:
    """How many an `AUTO_OR_COUNT` setting asks for; None for `auto`."""
    return None if value == AUTO else int(value)


def shared(settings: "Settings", other: "type[Settings]") -> dict[str, Any]:
    """The values of those settings that another settings class has too, to make one of it."""
    names = {field.name for field in fields(other)}
    return {field.name: getattr(settings, field.name) for field in fields(settings) if field.name in names}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of the settings classes and of their groups: checks each range where a value is made."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for a value outside its range, then for values that do not go together."""
        for field in fields(self):
            rule = field.metadata.get("rule")
            value = getattr(self, field.name)
            is_left_out = value is None and field.default is None
            if rule is None or is_left_out or rule.holds(value):
                continue
            way_out = (
                "change it or leave it out" if field.default is None else f"set for example {field.default}"
            )
            is_endless = isinstance(value, float) and not math.isfinite(value)
            kind = "a finite number, " if is_endless else ""
            raise UsageError(f"{field.name} is {value!r}; it must be {kind}{rule}; {way_out}")
        self.check()

    def check(self) -> None:
        """Raise `UsageError` where values do not go together; a class overrides it with its own rules."""
