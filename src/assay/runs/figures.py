"""`parity.json` of a run: what its gate measured before any part, and of what, for each kind of worker.

The latest kind stands at the top, the others under `others`. Each has a digest, so that what was edited,
damaged or written by another program counts for nothing and is measured again.
"""

import hashlib
import json
from typing import Any

from assay.errors import SourceError, StorageError
from assay.runs.run import Run

PARITY_PATH = "parity.json"


def read_figures(run: Run) -> list[dict[str, Any]]:
    """The figures of every kind of worker, the latest first; none that are not as a worker wrote them."""
    if run.store.info(PARITY_PATH) is None:
        return []
    try:
        found = json.loads(run.store.read_bytes(PARITY_PATH))
    except (ValueError, RecursionError):
        return []
    if not isinstance(found, dict):
        return []
    others = found.pop("others", [])
    records = [found, *(others if isinstance(others, list) else [])]
    return [record for record in map(_unsealed, records) if record is not None]


def figures_of(run: Run, subject: dict[str, Any]) -> dict[str, Any] | None:
    """The figures that were measured of this very subject; None where there are none."""
    return next((record for record in read_figures(run) if record.get("subject") == subject), None)


def write_figures(run: Run, figures: dict[str, Any]) -> None:
    """Put the figures before those of other subjects and in the place of those of their own.

    Raises SourceError where something stands in the file's place. Of two kinds of worker that write at the
    same moment one may be lost, and is measured again at its next start.
    """
    others = [record for record in read_figures(run) if record.get("subject") != figures.get("subject")]
    content = {**_sealed(figures), "others": [_sealed(record) for record in others]}
    try:
        run.store.replace(PARITY_PATH, json.dumps(content, indent=1).encode())
    except StorageError as error:
        if not isinstance(error.__cause__, IsADirectoryError):
            raise
        msg = f"{run.url}/{PARITY_PATH} is a folder; remove it, and run the same command again"
        raise SourceError(msg) from error


def _sealed(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "digest": _digest(record)}


def _unsealed(record: object) -> dict[str, Any] | None:
    if not isinstance(record, dict):
        return None
    figures = {name: value for name, value in record.items() if name != "digest"}
    return figures if record.get("digest") == _digest(figures) else None


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:32]
