"""`parity.json` of a run: what its gate measured before any unit, and of what."""

import json
from typing import Any

from assay.runs.run import Run

PARITY_PATH = "parity.json"


def read_figures(run: Run) -> dict[str, Any] | None:
    """What `parity.json` says; None where there is none, or nothing that can be read."""
    if run.store.info(PARITY_PATH) is None:
        return None
    try:
        found = json.loads(run.store.read_bytes(PARITY_PATH))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def write_figures(run: Run, figures: dict[str, Any]) -> None:
    """Put the figures in the place of those before."""
    run.store.replace(PARITY_PATH, json.dumps(figures, indent=1).encode())
