"""What a Siamese model can be told when it is trained. Imports nothing heavy: settings are made from it."""

from dataclasses import dataclass, field
from typing import Literal

from assay.books.settings import Typography
from assay.settings import COUNT, WIDTH, Settings, within

Architecture = Literal["classifier", "siamese"]
Contrastive = Literal["none", "infonce", "supcon"]
HeadKind = Literal["mlp", "arcface"]
"""A plain classifier of pairs, or one of angles (Deng et al. 2019)."""
StyleSet = Literal["none", "basic", "full"]
"""No features; three of them; all that there are words for."""
Aggregate = Literal["vectors", "logits", "attention", "cosine"]
"""What of two documents' chunks is compared: see `siamese.documents`."""

Evidence = Literal["none", "words"]
"""Nothing beside the network; rare words, names, frequent words and style."""
WEIGHT = within(at_least=0, at_most=1_000)
SCALE = within(above=0, at_most=1_000)


@dataclass(frozen=True, kw_only=True)
class SiameseTraining(Settings):
    """What is trained, and what a Siamese model is made of."""

    architecture: Architecture = "classifier"
    """classifier: all texts of a row in one sequence; siamese: each of a pair by itself, a head on both vectors."""
    vector_pooling: Literal["mean", "attention", "first_token"] = "mean"
    """Siamese: what of a text's hidden states its vector is made of; attention is trained too."""
    vector_size: int = field(default=256, metadata=WIDTH)
    """Siamese: numbers of a text's vector, to which what is pooled is projected."""
    pair_head: HeadKind = "mlp"
    """Siamese: arcface: labels are told apart by angles, with a margin in training (Deng et al. 2019)."""
    arcface_scale: float = field(default=30.0, metadata=SCALE)
    """Siamese, arcface: cosines times this are logits."""
    arcface_margin: float = field(default=0.25, metadata=within(at_least=0, below=1.5))
    """Siamese, arcface: radians by which the right label has to be ahead in training."""
    head_size: int = field(default=256, metadata=WIDTH)
    """Siamese: width of the head's inner layer."""
    head_dropout: float = field(default=0.1, metadata=within(at_least=0, below=1))
    """Siamese: share of the head's inner layer dropped in training."""
    symmetric: bool = True
    """Siamese: a pair has the same probability in either order."""
    style: StyleSet = "basic"
    """Siamese: style features for the head: none, three, or lengths, marks and function words of the language."""
    language: str = "en"
    """Siamese: language of the texts (ISO 639-1), for their sentences and function words."""
    evidence: Evidence = "words"
    """Siamese: words: what the words and style of two texts say is fitted too, and joins the network's logits."""
    contrastive: Contrastive = "infonce"
    """Siamese: loss that pulls vectors together (infonce: of a pair, supcon: of a book) and others of a step apart."""
    contrastive_weight: float = field(default=0.2, metadata=WEIGHT)
    """Siamese: weight of the contrastive loss beside the cross entropy."""
    temperature: float = field(default=0.07, metadata=SCALE)
    """Siamese: what cosines are divided by in the contrastive loss at first; it is learned."""
    book_columns: tuple[str, ...] = ()
    """Siamese: columns of the book (or other source) of the first and of the second text, such as book1 book2."""
    author_columns: tuple[str, ...] = ()
    """Siamese: columns of the author of the first and of the second text."""
    not_negatives: Literal["same_book", "same_author"] = "same_book"
    """Siamese: which texts of a step, beside its positives, are not held against an anchor."""
    author_weight: float = field(default=0.0, metadata=WEIGHT)
    """Siamese, supcon: weight of a positive of the same author and another book; one of the same book has 1."""
    teacher: str | None = None
    """Siamese: bundle of a classifier of pairs with the same labels, whose probabilities are learned too."""
    distillation_weight: float = field(default=0.5, metadata=SCALE)
    """Siamese, with a teacher: weight of the distance to its probabilities beside the cross entropy."""
    distillation_temperature: float = field(default=3.0, metadata=SCALE)
    """Siamese, with a teacher: what the logits of both are divided by to be compared."""
    rows_per_book: int = field(default=1, metadata=COUNT)
    """Siamese: rows of a book (that of the first text) that meet in a step."""
    books_per_author: int = field(default=1, metadata=COUNT)
    """Siamese: books of an author that meet in a step, where there are as many."""


@dataclass(frozen=True, kw_only=True)
class DocumentRules(Settings):
    """How a document becomes chunks, and the chunks of two documents one number."""

    aggregate: Aggregate | None = None
    """vectors: the head on means of chunks' vectors; attention: on weighed ones; logits: mean over pairs; or cosine."""
    chunk_tokens: int | None = field(default=None, metadata=COUNT)
    """Most tokens of a chunk, which takes as many sentences as fit; by default what the model takes."""
    typography: Typography = "normal"
    """Plain quotes, dashes and dots, as `assay prepare books` writes its pairs; raw: as the documents have them."""
    mask_names: bool = False
    """Put Xx for names: for a model that was trained so."""
