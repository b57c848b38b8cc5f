"""A kind of run: what its owner fixes when a run is planned, as typed records.

The room that does the work of a kind owns its records and its `RunKind`, and reads them back from a manifest
with `Manifest.read`. This room keeps them as the JSON they are in `run.json`, and reads no key of them.
"""

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

RowsOut = Literal["one_each", "any_number"]
"""Rows of a part for a row of its source: exactly one, in the source's order; or none, one or more, each with
the `source_row` that it came from, in the order of those."""


class RunRecord(BaseModel):
    """Values that a kind of run fixes; read back strictly."""

    model_config = ConfigDict(extra="forbid", frozen=True)


IdentityT = TypeVar("IdentityT", bound=RunRecord)
SettingsT = TypeVar("SettingsT", bound=RunRecord)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunKind(Generic[IdentityT, SettingsT]):
    """One kind of run."""

    name: str
    """As `run.json` has it: `score`."""
    identity: type[IdentityT]
    """What makes the numbers: fingerprints and every setting that can change one. Part of the run id."""
    settings: type[SettingsT]
    """What workers need besides: paths, batch sizes."""
    rows_out: RowsOut = "one_each"
