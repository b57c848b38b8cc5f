"""What `assay compare` can be told. Imports nothing heavy, so that the command line starts fast."""

from dataclasses import dataclass, field

from assay.engine.settings import CpuThreads, OneDevice
from assay.errors import UsageError
from assay.settings import COUNT, within
from assay.siamese.settings import DocumentRules

STANDARD_INPUT = "-"


@dataclass(frozen=True, kw_only=True)
class CompareSettings(DocumentRules, OneDevice, CpuThreads):
    """A comparison of two documents."""

    bundle: str
    """Folder of a Siamese model, as `assay train --architecture siamese` writes it."""
    text1: str
    """File with the first text, in UTF-8; - reads standard input."""
    text2: str
    """File with the second text; - reads standard input."""
    label: str | None = None
    """Label of the model that means that two texts belong together; by default the second of two."""
    min_confidence: float = field(default=0.5, metadata=within(at_least=0.5, below=1))
    """Least confidence with which an answer is given; below it the answer is that it is not certain."""
    num_passages: int = field(default=3, metadata=within(at_least=0))
    """Pairs of passages to show that spoke most for it, and as many against it."""
    max_length: int | None = field(default=None, metadata=COUNT)
    """Most tokens of a chunk, special ones included; by default what the model was trained for."""
    json: bool = False
    """Print one JSON object instead of lines for people."""

    def check(self) -> None:
        """Raise `UsageError` where both texts would come from standard input."""
        if self.text1 == self.text2 == STANDARD_INPUT:
            raise UsageError(
                "text1 and text2 are both -; standard input is one text; name a file for the other"
            )
