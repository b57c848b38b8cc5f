"""What every settings class stands on: ranges that are declared beside a field and checked in one place.

    @dataclass(frozen=True, kw_only=True)
    class SampleSettings(LongDocuments, Texts):
        share: float = field(default=0.1, metadata=within(above=0, below=1))
        \"\"\"Share of the rows to look at.\"\"\"

A settings class inherits the groups of fields that it shares with others. A group lives in the room whose
meaning it has (`tokenize.settings.LongDocuments`), so one setting has one name, default, range and help text
for flags, config files and Python. No `slots`: Python cannot inherit from two classes that have them.
"""

import functools
import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from assay.errors import UsageError

Metadata = Mapping[str, object]
AUTO = "auto"
MOST_DEVICES = 1_024
"""More than any machine has, GPUs or cores."""
_INT64 = range(-(2**63), 2**63)
_KINDS = {
    tuple: "a list of strings",
    float: "a number",
    int: "a whole number",
    str: "a string",
    bool: "true or false",
}


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
            and (isinstance(value, int) or math.isfinite(value))
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
    """`auto`, or a whole number from 1 to `MOST_DEVICES`, written as a string."""

    def holds(self, value: object) -> bool:
        """Whether a value is one of the two."""
        return value == AUTO or (
            isinstance(value, str)
            and value.isascii()
            and value.isdecimal()
            and len(value) <= len(str(MOST_DEVICES))  # Python reads no endless number
            and 1 <= int(value) <= MOST_DEVICES
        )

    def __str__(self) -> str:
        """The rule in words."""
        return f"auto or a whole number from 1 to {MOST_DEVICES:,}"


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
WIDTH = within(at_least=1, at_most=65_536)
"""Field metadata: a side of a weight matrix."""
AUTO_OR_COUNT: Metadata = {"rule": AutoOrCount()}
"""Field metadata: `auto`, or how many; `count_of` reads it."""


def positional(metavar: str) -> Metadata:
    """Field metadata: given on the command line by place, not by flag."""
    return {"positional": True, "metavar": metavar}


def is_positional(field: "Field[Any]") -> bool:
    """Whether a field is given on the command line by place, without a flag."""
    return bool(field.metadata.get("positional"))


def after_dashes(metavar: str) -> Metadata:
    """Field metadata: given on the command line as all that follows `--`, flags of another command among it."""
    return {"after_dashes": True, "metavar": metavar}


def is_after_dashes(field: "Field[Any]") -> bool:
    """Whether a field is what follows `--` on the command line."""
    return bool(field.metadata.get("after_dashes"))


def is_required(field: "Field[Any]") -> bool:
    """Whether a setting has no default."""
    return field.default is MISSING and field.default_factory is MISSING


def count_of(value: str) -> int | None:
    """How many an `AUTO_OR_COUNT` setting asks for; None for `auto`."""
    return None if value == AUTO else int(value)


def shared(settings: "Settings", other: "type[Settings]") -> dict[str, Any]:
    """The values of those settings that another settings class has too, to make one of it."""
    names = {field.name for field in fields(other)}
    return {field.name: getattr(settings, field.name) for field in fields(settings) if field.name in names}


def plain_type(hint: Any) -> tuple[type, tuple[str, ...]]:  # noqa: ANN401  a type hint has no better type
    """`int | None` -> int; `Literal["a", "b"]` -> str and its choices; `tuple[str, ...]` -> tuple."""
    if get_origin(hint) in (UnionType, Union):
        hint = next(part for part in get_args(hint) if part is not NoneType)
    if get_origin(hint) is Literal:
        return str, tuple(str(choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return tuple, ()
    return hint, ()


def wanted_instead(value: object, hint: Any) -> str | None:  # noqa: ANN401
    """What a setting of this type must be, in words, where the value is not that; None where it is."""
    kind, choices = plain_type(hint)
    if choices:
        return None if value in choices else f"one of {', '.join(choices)}"
    if kind is tuple:
        fits = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    elif kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    else:
        fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    return None if fits else _KINDS.get(kind, kind.__name__)


@functools.cache
def _hints(settings: type) -> dict[str, Any]:
    return get_type_hints(settings)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of the settings classes and of their groups: checks each type and range where a value is made."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for a value of another type or out of its range, then for those that do not go together.

        A path stands for its text, a list for a tuple.
        """
        for field in fields(self):
            rule = field.metadata.get("rule")
            value = getattr(self, field.name)
            if value is None and self._may_be_none(field):
                continue
            if not isinstance(rule, AutoOrCount):
                value = self._in_its_type(field.name, value)
                is_empty = value == "" or (isinstance(value, tuple) and "" in value)
                if is_empty and field.default != "":
                    way_out = "name one" if field.default is MISSING else "name one or leave it out"
                    verb = "holds" if isinstance(value, tuple) else "is"
                    raise UsageError(f"{field.name} {verb} ''; it must not be empty; {way_out}")
            if rule is None or rule.holds(value):
                if isinstance(value, int) and value not in _INT64:
                    raise UsageError(f"{field.name} is {value}; it must be a number of at most 63 bits")
                continue
            if field.default is MISSING:
                way_out = "change it"
            else:
                way_out = (
                    "change it or leave it out"
                    if field.default is None
                    else f"set for example {field.default}"
                )
            is_endless = isinstance(value, float) and not math.isfinite(value)
            kind = "a finite number, " if is_endless else ""
            raise UsageError(f"{field.name} is {value!r}; it must be {kind}{rule}; {way_out}")
        self.check()

    def _may_be_none(self, field: Field[Any]) -> bool:
        own: type = type(self)
        return field.default is None or NoneType in get_args(_hints(own)[field.name])

    def _in_its_type(self, name: str, value: object) -> object:
        """The value as the field's type has it; `UsageError` where it cannot be one."""
        own: type = type(self)
        hint = _hints(own)[name]
        kind, _ = plain_type(hint)
        given = value
        if kind is str and isinstance(value, os.PathLike):
            value = os.fspath(value)
        elif kind is tuple and isinstance(value, list | tuple):
            value = tuple(os.fspath(item) if isinstance(item, os.PathLike) else item for item in value)
        if wanted := wanted_instead(value, hint):
            raise UsageError(f"{name} is {given!r}; it must be {wanted}")
        if value is not given:
            object.__setattr__(self, name, value)
        return value

    def check(self) -> None:
        """Raise `UsageError` where values do not go together; a class overrides it with its own rules."""
