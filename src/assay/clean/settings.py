"""What a user may set for `assay clean`. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass, field

from assay.settings import Settings, positional


@dataclass(frozen=True, kw_only=True)
class CleanSettings(Settings):
    """What to look for, and whether to delete it. Without `delete` nothing is changed."""

    place: str = field(metadata=positional("PLACE"))
    """A run, or a folder or URL below which runs, models and caches lie."""
    delete: bool = False
    """Delete what is shown without it."""
    runs: bool = False
    """Whole runs too, with their parts; by default only what commands that ended left in them."""
    models: bool = False
    """Models that Assay made too, and the checkpoints of trainings."""
    caches: bool = False
    """Caches too: vectors, and notes on self tests."""
    json: bool = False
    """Print one JSON object instead of lines for people."""
