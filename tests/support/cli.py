"""`assay` with fake workers behind it: `python cli.py score ...` is the real command line and driver.

The workers do as FAKE_WORKER says, so a test can have them slow, and they need no torch. With WORKER_HOST,
the address of a host of real workers, they come from there.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.fake_runs import fake_workers, hosted_workers

from assay.__main__ import main
from assay.runs import drive


def use_fake_workers(set_attribute, *, host=None):
    """Have `assay score` in this process start fake workers; `set_attribute` is like setattr."""
    set_attribute(
        drive,
        "place_processes",
        lambda _, run, placement: fake_workers(run, placement.num_workers, host=host),
    )


def use_hosted_workers(set_attribute, *, host):
    """Have the commands in this process take real workers from their host."""
    set_attribute(
        drive,
        "place_processes",
        lambda _, run, placement: hosted_workers(run, host, placement.num_workers),
    )


if __name__ == "__main__":
    if (address := os.environ.get("WORKER_HOST")) is None:
        use_fake_workers(setattr)
    else:
        use_hosted_workers(setattr, host=address)
    sys.exit(main())
