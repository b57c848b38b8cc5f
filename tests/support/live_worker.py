"""The real worker of a run of vectors or negatives, whichever it is: what a host serves for both."""

import sys

from assay.embed.worker import main as embed_main
from assay.mine.worker import main as mine_main
from assay.runs.run import open_run

MAINS = {"embed": embed_main, "negatives": mine_main}


def main():
    """The worker that the kind of the run wants."""
    return MAINS[open_run(sys.argv[1]).manifest.kind]()


if __name__ == "__main__":
    sys.exit(main())
