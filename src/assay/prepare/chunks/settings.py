"""What a user may set for the chunks of books. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass, field
from typing import Literal

from assay.books.settings import Typography
from assay.errors import UsageError
from assay.settings import COUNT, Settings, within

LanguageCheck = Literal["sample", "every", "off"]
SENTENCES_OVERLAP = 4
"""Of fourteen, where `overlap` is left out."""


@dataclass(frozen=True, kw_only=True)
class ChunkRules(Settings):
    """What a chunk of a book is, and which ones are kept."""

    chunk_sentences: int = field(default=14, metadata=COUNT)
    """Sentences of a chunk, where it has no budget of tokens."""
    chunk_tokens: int | None = field(default=None, metadata=COUNT)
    """Most tokens of a chunk, which then takes as many sentences as fit; counted by the bundle's tokenizer."""
    overlap: int | None = field(default=None, metadata=within(at_least=0))
    """Sentences that neighbouring chunks share; by default 4, and 0 with a budget of tokens."""
    max_chunks: int = field(default=800, metadata=COUNT)
    """Most chunks of a book; a longer one gives a sample of its chunks."""
    min_chars: int = field(default=200, metadata=within(at_least=1))
    """Least characters of a chunk."""
    min_letters: float = field(default=0.6, metadata=within(at_least=0, at_most=1))
    """Least share of letters among the characters of a chunk that are not white space."""
    language: str | None = None
    """Language of all books, as `en`; by default what a book's header says, else what its text looks like."""
    language_check: LanguageCheck = "sample"
    """Which chunks of a book are checked for its language: 8, and all others where one differs; every one; or none."""
    typography: Typography = "normal"
    """Plain quotes, dashes and dots in all books, or each book's own, by which a model can tell books apart."""
    mask_names: bool = False
    """Put Xx for names, by which a model can tell books apart."""
    cleaned: bool = False
    """The files hold cleaned texts: leave them as they are."""
    seed: int = field(default=0, metadata=within(at_least=0))
    """Of the samples."""

    def check(self) -> None:
        """Raise `UsageError` where chunks would make no progress."""
        if self.chunk_tokens is None and self.overlap_sentences >= self.chunk_sentences:
            raise UsageError(
                f"overlap {self.overlap_sentences} of {self.chunk_sentences} sentences; a chunk must have a sentence "
                f"of its own; set overlap to {self.chunk_sentences - 1} or less"
            )

    @property
    def overlap_sentences(self) -> int:
        """`overlap`, or its default."""
        if self.overlap is not None:
            return self.overlap
        return min(SENTENCES_OVERLAP, self.chunk_sentences - 1) if self.chunk_tokens is None else 0
