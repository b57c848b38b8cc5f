"""What `assay cascade` can be told. Imports nothing heavy, so that the command line starts fast."""

from dataclasses import dataclass, field

from assay.data.settings import SourceFormat
from assay.engine.settings import CpuThreads, OneDevice
from assay.errors import UsageError
from assay.settings import positional, within


@dataclass(frozen=True, kw_only=True)
class CascadeTuneSettings(SourceFormat, OneDevice, CpuThreads):
    """Thresholds of two models on labelled pairs."""

    first: str = field(metadata=positional("FIRST"))
    """Folder of the cheap model: a Siamese model or a classifier of pairs."""
    second: str = field(metadata=positional("SECOND"))
    """Folder of the exact model: the same, with the same two labels."""
    data: tuple[str, ...] = field(metadata=positional("DATA"))
    """Sources of labelled pairs that neither training, calibration nor the test has seen."""
    text_column: str = "text1"
    """Column that holds the first text; a dotted path reaches into structs."""
    text_pair_column: str = "text2"
    """Column of the second text."""
    out: str
    """JSON file to write; a page that shows it is written beside it, with the ending .html."""
    recall: float = field(default=0.95, metadata=within(above=0, below=1))
    """Share of the pairs with the second label that the first model must not turn away, at the least."""
    confidence: float = field(default=0.95, metadata=within(at_least=0.5, below=1))
    """How sure that is: share of repetitions in which the lower bound should lie below the true recall."""
    two_sided: bool = False
    """Let the first model also decide for the second label, of the others as many kept as `recall` says."""
    label_column: str = "label"
    """Column of the label: a name or whole number, one of the two that both models know."""
    author_columns: tuple[str, ...] = ()
    """Columns of the author (or site) of both texts, or one for the pair: bounds then draw authors too."""
    resamples: int = field(default=2_000, metadata=within(at_least=100, at_most=1_000_000))
    """Resamples of the authors behind each bound."""
    seed: int = field(default=0, metadata=within(at_least=0))
    """Seed of the resamples and of the folds of the combination."""

    def check(self) -> None:
        """Raise `UsageError` where values do not go together."""
        if not self.out.endswith(".json"):
            raise UsageError(f"out={self.out}; a cascade is a .json file; name such a file")
        if len(self.author_columns) > 2:
            raise UsageError(
                f"author_columns names {len(self.author_columns)} columns; a pair has two texts; name one or two"
            )
