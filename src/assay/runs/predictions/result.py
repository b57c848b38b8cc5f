"""One result a directory: reserved for what makes it, refused to anything else, found again when whole."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Self

from assay.data.storage import Store
from assay.errors import RefusedError, SourceError
from assay.runs.manifest import MANIFEST_PATH, RUN_ID_HEX, identity_differences
from assay.runs.run import PARTS

FORMAT_VERSION = 1
CLAIM_PATH = "predictions.json"
COMPLETE_PATH = "complete.json"
LISTED = 3
"""Differences that a message names; the others are counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """A whole result."""

    url: str
    """The directory that holds it."""
    run_id: str
    """Hash of what made it."""
    num_rows: int
    """Rows, numbered 0 to num_rows - 1, each there once."""
    num_repeats: int
    """Rows that came again (the padding of a distributed sampler) and were dropped."""
    num_not_finite: int
    """Rows with an output that is NaN or infinite."""
    parts: tuple[str, ...]
    """Paths of the parts in row order, relative to `url`."""
    created: bool
    """False where the result was there before."""

    def to_json(self) -> dict[str, object]:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(**{**document, "parts": tuple(document["parts"])})


def claim(store: Store, identity: Mapping[str, object]) -> str:
    """The run id of `identity`, for which the directory is now reserved; it may be half done, or done.

    Raises RefusedError naming what differs where another result, or another kind of run, lies there.
    """
    if store.info(MANIFEST_PATH) is not None:
        raise RefusedError(
            f"{store.url} holds a run of another kind ({MANIFEST_PATH}); use another directory"
        )
    fixed = json.loads(json.dumps(dict(identity)))
    whole = json.dumps({"kind": "predict", **fixed}, sort_keys=True)
    run_id = hashlib.sha256(whole.encode()).hexdigest()[:RUN_ID_HEX]
    if store.info(CLAIM_PATH) is None:
        if next(iter(store.list(PARTS)), None) is not None:
            raise RefusedError(
                f"{store.url} has parts but no {CLAIM_PATH}; which run they belong to is unknown; use another directory"
            )
        document = {
            "format_version": FORMAT_VERSION,
            "kind": "predict",
            "run_id": run_id,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "identity": fixed,
        }
        if store.create(CLAIM_PATH, json.dumps(document, indent=1).encode()):
            return run_id
    found = _read_json(store, CLAIM_PATH)
    if found.get("format_version") != FORMAT_VERSION:
        raise RefusedError(
            f"{store.url}/{CLAIM_PATH} has format version {found.get('format_version')!r}; this Assay reads "
            f"{FORMAT_VERSION}; use the Assay that wrote it, or another directory"
        )
    if found.get("run_id") != run_id:
        before = found.get("identity")
        changed = identity_differences(before if isinstance(before, dict) else {}, fixed)
        listed = "; ".join(changed[:LISTED]) + (
            f"; and {len(changed) - LISTED} more" if len(changed) > LISTED else ""
        )
        raise RefusedError(
            f"{store.url} holds another result: {listed}; put it back as it was, or use another directory"
        )
    return run_id


def find_predictions(store: Store) -> Predictions | None:
    """The whole result in the directory, or None where there is none yet."""
    if store.info(COMPLETE_PATH) is None:
        return None
    found = _read_json(store, COMPLETE_PATH)
    try:
        return Predictions.from_json({**found, "url": store.url, "created": False})
    except (KeyError, TypeError) as error:
        raise SourceError(
            f"{store.url}/{COMPLETE_PATH} is damaged ({error}); use another directory"
        ) from error


def _read_json(store: Store, path: str) -> dict[str, object]:
    try:
        found = json.loads(store.read_bytes(path))
    except ValueError as error:
        raise SourceError(f"{store.url}/{path} is not JSON ({error}); use another directory") from error
    if not isinstance(found, dict):
        raise SourceError(f"{store.url}/{path} is not a JSON object; use another directory")
    return found
