"""The process that tokenizes: `python -m assay.tokenize.worker RUN`."""

import sys

from assay.runs.run import Run
from assay.runs.worker import worker_command
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
    encoder.refuse_changed(identity.tokenizer, settings.bundle)
    return TokenizeWork(run.manifest, encoder)


def main() -> int:
    """Parse the driver's arguments and serve units until told to stop."""
    return worker_command(__doc__, lambda run, *_: open_tokenize_work(run))


if __name__ == "__main__":
    sys.exit(main())
