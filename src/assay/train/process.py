"""One rank of a training that `train` started: `python -m assay.train.process`, its settings on stdin."""

import sys
from typing import Any

from assay.garbage import not_collecting
from assay.processes import Json
from assay.telemetry import configure_logging
from assay.train.events import telling
from assay.train.launch import SendEvent, child_main
from assay.train.settings import TrainSettings

with not_collecting():
    from assay.train.train import train_here


def body(job: Json, send: SendEvent) -> object:
    """Train as the job says; the report as plain values."""
    configure_logging()
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in job.items()
    }
    return train_here(TrainSettings(**values), telling(send)).to_json()


if __name__ == "__main__":
    sys.exit(child_main(body))
