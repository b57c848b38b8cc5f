"""The process that draws pairs: `python -m assay.prepare.pairs.worker RUN`."""

import argparse
import sys

from assay.prepare.pairs.work import PairsWork
from assay.runs.run import open_run
from assay.runs.worker import Mailbox, worker_main
from assay.telemetry import configure_logging


def main() -> int:
    """Parse the driver's arguments and serve units until told to stop."""
    parser = argparse.ArgumentParser(prog="assay.prepare.pairs.worker", description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    configure_logging()
    run = open_run(arguments.run)

    def open_work(_: Mailbox) -> PairsWork:
        return PairsWork(run.manifest)

    return worker_main(run, open_work)


if __name__ == "__main__":
    sys.exit(main())
