"""The process that makes chunks: `python -m assay.prepare.chunks.worker RUN`."""

import gc
import sys

from assay.prepare.chunks.kind import CHUNKS
from assay.prepare.chunks.work import ChunksWork
from assay.runs.run import Run
from assay.runs.worker import worker_command

NEW_OBJECTS = 50_000
"""New objects after which the collector looks for cycles among them; chunks have none."""


def open_chunks_work(run: Run) -> ChunksWork:
    """The work of a chunks run.

    Raises RefusedError where the tokenizer on disk is no longer the one of the plan.
    """
    identity, settings = run.manifest.read(CHUNKS)
    if settings.bundle is None:
        return ChunksWork(run.manifest, None)
    from assay.tokenize.counting import open_encoder, token_counter

    encoder = open_encoder(settings.bundle)
    encoder.refuse_changed(identity.tokenizer, settings.bundle)
    return ChunksWork(run.manifest, token_counter(encoder))


def main() -> int:
    """Parse the driver's arguments and serve units until told to stop."""
    gc.set_threshold(NEW_OBJECTS)
    return worker_command(__doc__, lambda run, *_: open_chunks_work(run))


if __name__ == "__main__":
    sys.exit(main())
