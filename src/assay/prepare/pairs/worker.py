"""The process that draws pairs: `python -m assay.prepare.pairs.worker RUN`."""

import sys

from assay.prepare.pairs.work import PairsWork
from assay.runs.worker import worker_command


def main() -> int:
    """Parse the driver's arguments and serve units until told to stop."""
    return worker_command(__doc__, lambda run, *_: PairsWork(run.manifest))


if __name__ == "__main__":
    sys.exit(main())
