"""The process that makes chunks: `python -m assay.prepare.chunks.worker RUN`."""

import argparse
import sys

from assay.errors import RefusedError
from assay.prepare.chunks.kind import CHUNKS
from assay.prepare.chunks.plan import open_encoder
from assay.prepare.chunks.work import ChunksWork
from assay.runs.run import Run, open_run
from assay.runs.worker import Mailbox, worker_main
from assay.telemetry import configure_logging


def open_chunks_work(run: Run) -> ChunksWork:
    """The work of a chunks run.

    Raises RefusedError where the tokenizer on disk is no longer the one of the plan.
    """
    identity, settings = run.manifest.read(CHUNKS)
    encoder = None if settings.bundle is None else open_encoder(settings.bundle)
    if encoder is not None and encoder.fingerprint != identity.tokenizer:
        msg = (
            f"the tokenizer in {settings.bundle} changed since the run was planned; "
            "put it back, or use another --run"
        )
        raise RefusedError(msg)
    return ChunksWork(run.manifest, encoder)


def main() -> int:
    """Parse the driver's arguments and serve units until told to stop."""
    parser = argparse.ArgumentParser(prog="assay.prepare.chunks.worker", description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    configure_logging()
    run = open_run(arguments.run)

    def open_work(_: Mailbox) -> ChunksWork:
        return open_chunks_work(run)

    return worker_main(run, open_work)


if __name__ == "__main__":
    sys.exit(main())
