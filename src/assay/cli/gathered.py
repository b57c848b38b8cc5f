"""What a command of `assay gutenberg` did, said to the user."""

from typing import TYPE_CHECKING

from assay.cli.flags import stdout

if TYPE_CHECKING:
    from assay.gutenberg.ingest import Gathered


def tell(gathered: "Gathered") -> int:
    """Print it; the exit status is 1 where books are still to do."""
    stdout(str(gathered))
    return 1 if gathered.failed else 0
