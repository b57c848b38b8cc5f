"""One rank that trains several times: `python train_ranks.py`, started by `launch`, the trainings on stdin.

The ranks meet once; each training then runs as `fit` runs it under a launcher.
"""

import os
import signal
import sys
from contextlib import nullcontext, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.training import PARTS

from assay.labelled.rows import LabelledRows
from assay.train import distributed, gradients
from assay.train.launch import child_main
from assay.train.settings import TrainSettings
from assay.train.train import fit


def rows_of(content):
    """Rows, from plain values."""
    keys = {name: tuple(column) for name, column in content["keys"].items()}
    columns = {name: None if each is None else tuple(each) for name, each in content.items()}
    return LabelledRows(**{**columns, "keys": keys})


def stopping(step):
    """A callback that asks this process to stop at a step; None: at none."""

    def on_progress(progress):
        if progress.step == step and progress.validation is None:  # told of twice, it would ask twice
            os.kill(os.getpid(), signal.SIGTERM)

    return on_progress


def body(job, send):
    """The reports of the trainings that were not stopped, by name, as plain values."""
    reports = {}
    with distributed.join(os.environ, way_out=lambda: "no way out") as world:
        distributed.join = lambda *_, **__: nullcontext(world)
        for name, training in job["trainings"].items():
            gradients.BUCKET_BYTES = training["bucket_bytes"]
            settings = TrainSettings(**{**training["settings"], "data": ("rows",)})
            rows = rows_of(training["train"]), rows_of(training["validation"])
            with suppress(KeyboardInterrupt):
                report = fit(
                    settings, *rows, parts=PARTS[training["parts"]], on_progress=stopping(training["stop_at"])
                )
                reports[name] = report.to_json()
            distributed.any_rank(world, flag=False)  # rank 0 may still write the checkpoint that is read next
    return reports


if __name__ == "__main__":
    sys.exit(child_main(body))
