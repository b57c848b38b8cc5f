"""`estimate.json`: what a run was expected to take, beside the run, for its report to compare.

Pydantic guards it because it is read back from a disk or a bucket that others can write to.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from assay.data.storage import Store
from assay.errors import InputError
from assay.score.estimate.intervals import Estimated, Slice

ESTIMATE_PATH = "estimate.json"
FORMAT_VERSION = 1


class EstimateRecord(BaseModel):
    """What was expected of a run, at a confidence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    assay_version: str
    created_at: str
    bundle: str
    """Its folder."""
    identity: dict[str, Any]
    """What makes the numbers of the run, as in its manifest."""
    rate_from: str
    """Where the rate is from: this machine's device, a run, a file, or "given"."""
    device: str
    """What the rate is of; "" where nothing says."""
    confidence: float
    num_documents: int
    num_sampled: int
    """Documents whose lengths were looked at."""
    num_sources: int
    num_units: int
    largest_unit: int
    """Rows."""
    num_workers: int
    """Devices, a worker each."""
    tokens: Estimated
    seconds_per_token: Estimated
    """Of one worker."""
    device_seconds: Estimated
    """Of work, all workers together."""
    wall_seconds: Estimated
    """From the start of the command, or of the machines, to the last part."""
    boot_seconds: float
    """Of the above: until the first worker is warm."""
    warm_up_seconds: float
    """Of these: what its first unit takes more than others."""
    over_ideal: float
    """The time from there to the last part, over that of an even split without a pause."""
    cost: Estimated | None
    """Of all workers from start to end; None where no price was given."""
    price_per_hour: float | None
    assumptions: tuple[str, ...]
    """What was not measured, a sentence each."""
    slices: tuple[Slice, ...]
    """The sample."""

    def to_json(self) -> dict[str, Any]:
        """The estimate as one JSON object."""
        return self.model_dump(mode="json")


def write_estimate(store: Store, record: EstimateRecord) -> None:
    """Put it beside the run."""
    store.replace(ESTIMATE_PATH, record.model_dump_json(indent=1).encode())


def parse_estimate(content: bytes, where: str) -> EstimateRecord:
    """The estimate in `content`; raises InputError naming `where`."""
    try:
        return EstimateRecord.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}".removeprefix(": ")
        msg = f"{where} is not an estimate ({problem}); make one with assay estimate"
        raise InputError(msg) from error


def read_estimate(store: Store) -> EstimateRecord | None:
    """The estimate beside a run; None where there is none. Raises InputError for one that cannot be read."""
    if store.info(ESTIMATE_PATH) is None:
        return None
    return parse_estimate(store.read_bytes(ESTIMATE_PATH), f"{store.url}/{ESTIMATE_PATH}")
