"""The process that tokenizes: `python -m assay.tokenize.worker RUN`."""

import argparse
import sys

from assay.errors import RefusedError
from assay.runs.run import Run, open_run
from assay.runs.worker import Mailbox, worker_main
from assay.telemetry import configure_logging
from assay.tokenize.encode import Encoder
from assay.tokenize.kind import TOKENIZE
from assay.tokenize.work import TokenizeWork


def open_tokenize_work(run: Run) -> TokenizeWork:
    """The work of a tokenize run.

    Raises RefusedError where the tokenizer on disk is no longer the one of the plan.
    """
    identity, settings = run.manifest.read(TOKENIZE)
    encoder = Encoder.from_bundle(
        settings.bundle,
        max_length=identity.max_length,
        on_long=identity.on_long,
        stride=identity.stride,
    )
    if encoder.fingerprint != identity.tokenizer:
        msg = (
            f"the tokenizer in {settings.bundle} changed since the run was planned; "
            "put it back, or use another --run"
        )
        raise RefusedError(msg)
    return TokenizeWork(run.manifest, encoder)


def main() -> int:
    """Parse the driver's arguments and serve units until told to stop."""
    parser = argparse.ArgumentParser(prog="assay.tokenize.worker", description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    configure_logging()
    run = open_run(arguments.run)

    def open_work(_: Mailbox) -> TokenizeWork:
        return open_tokenize_work(run)

    return worker_main(run, open_work)


if __name__ == "__main__":
    sys.exit(main())
