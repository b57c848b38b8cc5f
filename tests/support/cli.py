"""`assay` with fake workers behind it: `python cli.py score ...` is the real command line and driver.

The workers do as FAKE_WORKER says, so a test can have them slow, and they need no torch.
"""

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


def use_score_workers(set_attribute, *, host):
    """Have `assay score` in this process take its real workers from their host."""
    set_attribute(
        drive,
        "place_processes",
        lambda _, run, placement: hosted_workers(run, host, placement.num_workers),
    )


if __name__ == "__main__":
    use_fake_workers(setattr)
    sys.exit(main())
