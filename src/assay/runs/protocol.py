"""What a driver and a worker say to each other, whatever carries it: values, and their JSON for a pipe."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from assay.telemetry import Counters

Json = dict[str, Any]
Phase = Literal["starting", "loading", "parity"]
"""What a worker does before its first part, for people."""


# ---------------------------------------------------------------- driver -> worker


@dataclass(frozen=True, slots=True)
class Take:
    """One more unit to do, by name."""

    unit: str


@dataclass(frozen=True, slots=True)
class Finish:
    """No more units come: end after the last."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End after the batch under way, and publish nothing half."""


Command: TypeAlias = Take | Finish | Stop


# ---------------------------------------------------------------- worker -> driver


@dataclass(frozen=True, kw_only=True, slots=True)
class Listening:
    """Units may be given; what computes is still being loaded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loading:
    """What the worker is at before its first part."""

    phase: Phase
    """`loading` is what it does from `Listening` on, and is not said; at `parity` it waits for the gate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """Loaded."""

    description: str
    """A line on device, precision, kernels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnderWay:
    """The first of the units given is so far."""

    counters: Counters


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """The first of the units given is published."""

    unit: str
    created: bool
    """False where someone else had published it."""
    counters: Counters


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """A unit failed; or, without one, the worker could not start."""

    unit: str | None
    kind: str | None
    """Name of the error where it is one of ours."""
    message: str
    trace: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """The worker is gone. Its handle says so, and nothing after it."""

    cause: str
    """For people: "worker exited with status 3"."""


Event: TypeAlias = Listening | Loading | Loaded | UnderWay | Done | Failed | Ended

_COMMANDS: dict[str, type[Command]] = {kind.__name__.lower(): kind for kind in (Take, Finish, Stop)}
_EVENTS: dict[str, type[Event]] = {
    kind.__name__.lower(): kind for kind in (Listening, Loading, Loaded, UnderWay, Done, Failed, Ended)
}


def command_to_json(command: Command) -> Json:
    """`{"command": "take", "unit": ...}`."""
    return {"command": type(command).__name__.lower(), **asdict(command)}


def parse_command(message: Json) -> Command:
    """What `command_to_json` wrote."""
    fields = dict(message)
    return _COMMANDS[fields.pop("command")](**fields)


def event_to_json(event: Event) -> Json:
    """`{"event": "loaded", "description": ...}`."""
    return {"event": type(event).__name__.lower(), **asdict(event)}


def parse_event(message: Json) -> Event:
    """What `event_to_json` wrote."""
    fields = dict(message)
    kind = _EVENTS[fields.pop("event")]
    if "counters" in fields:
        fields["counters"] = Counters(**fields["counters"])
    return kind(**fields)
