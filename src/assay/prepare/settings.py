"""What a user may set for `assay prepare books`. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass, field
from typing import Literal

from assay.errors import UsageError
from assay.prepare.chunks.settings import ChunkRules
from assay.runs.settings import RayAddress
from assay.settings import AUTO_OR_COUNT, COUNT, Settings, positional, shared, within

WEIGHTS = ("random", "same_author", "same_period", "metadata", "embedding", "model_mined")
MODEL_WEIGHTS = {"embedding": 0.25, "model_mined": 0.5}
"""Of kinds that need a model, where one is given: mined negatives are a third then."""
PAIRS_OF_A_BOOK = within(at_least=1, at_most=100_000)
"""Each is drawn, and many more would take days."""
CHUNK_TOKENS = 250
"""Most tokens of a side by default."""
SPECIAL_TOKENS = 3
"""Of a pair in BERT's way: at its beginning, between its sides and at its end."""
SHARE = within(at_least=0, below=1)
WEIGHT = within(at_least=0, at_most=1_000)


@dataclass(frozen=True, kw_only=True)
class PairRules(Settings):
    """Which pairs are made of the chunks of books."""

    task: Literal["same_book", "same_author"] = "same_book"
    """What label 1 says: both sides are of one book, or of two books by one author."""
    positives: int = field(default=20, metadata=PAIRS_OF_A_BOOK)
    """Pairs of label 1 a book."""
    negatives: int = field(default=40, metadata=PAIRS_OF_A_BOOK)
    """Pairs of label 0 a book."""
    weight_random: float = field(default=0.25, metadata=WEIGHT)
    """Weight of negatives with any book by another author."""
    weight_same_author: float = field(default=0.35, metadata=WEIGHT)
    """Weight of negatives with another book by the same author; for same_book alone."""
    weight_same_period: float = field(default=0.15, metadata=WEIGHT)
    """Weight of negatives with authors of the same time, where years of birth or death are known."""
    weight_metadata: float = field(default=0.25, metadata=WEIGHT)
    """Weight of negatives with the ten books most alike in length and time."""
    weight_embedding: float | None = field(default=None, metadata=WEIGHT)
    """Weight of negatives with the books nearest by their vectors; by default 0.25 with --embed-with."""
    embed_with: str | None = None
    """Sentence encoder, or any bundle, whose vectors say which books are near."""
    weight_model_mined: float | None = field(default=None, metadata=WEIGHT)
    """Weight of negatives that a model takes for positives; by default 0.5 with --mine-with."""
    mine_with: str | None = None
    """Bundle of a model of pairs, of any kind, that scores candidates; those of the highest probability are kept."""
    mine_label: str | None = None
    """Its label that means positive; by default the second of two."""
    mine_trials: int = field(default=200, metadata=PAIRS_OF_A_BOOK)
    """Candidates a book that it scores."""
    chunks_per_side: int = field(default=1, metadata=within(at_least=1, at_most=10_000))
    """Chunks that make one side of a pair."""
    sides: Literal["contiguous", "spread"] = "contiguous"
    """Whether the chunks of a side follow each other or come from all over the book."""
    min_gap_sentences: int = field(default=28, metadata=within(at_least=0, at_most=10_000_000))
    """Least distance between the sides of a pair of one book, in sentences of mean length."""

    def check(self) -> None:
        """Raise UsageError where no kind of negative has a weight, or one lacks its model."""
        for kind, flag, model in (
            ("embedding", "embed_with", self.embed_with),
            ("model_mined", "mine_with", self.mine_with),
        ):
            weight = getattr(self, f"weight_{kind}")
            if weight is not None and (weight > 0) != (model is not None):
                raise UsageError(
                    f"weight_{kind} is {weight} and {flag} {model}; give the model and a weight above 0, or neither"
                )
        if self.mine_with is None and self.mine_label is not None:
            raise UsageError(f"mine_label is {self.mine_label!r} and there is no mine_with; add --mine-with")
        if not self.weights():
            raise UsageError("all weights of negatives are 0; give one, for example --weight-random 1")

    def weights(self) -> dict[str, float]:
        """The weights above 0 by kind of negative, without kinds that the task or a missing model cannot give."""
        weights = {kind: getattr(self, f"weight_{kind}") for kind in WEIGHTS}
        models = {"embedding": self.embed_with, "model_mined": self.mine_with}
        for kind, model in models.items():
            if weights[kind] is None:
                weights[kind] = 0.0 if model is None else MODEL_WEIGHTS[kind]
        return {
            kind: weight
            for kind, weight in weights.items()
            if weight > 0 and (kind != "same_author" or self.task == "same_book")
        }


@dataclass(frozen=True, kw_only=True)
class BookSplits(Settings):
    """How books are divided."""

    split_by: Literal["author", "book"] = "author"
    """What no split cuts through; editions and near-duplicates never are either way."""
    validation_share: float = field(default=0.15, metadata=SHARE)
    """Share of the books that choose the weights; 0 for none."""
    test_share: float = field(default=0.15, metadata=SHARE)
    """Share of the books that training never sees; 0 for none."""
    calibration_share: float = field(default=0.0, metadata=SHARE)
    """Share of the books for `assay calibrate`; by default none."""
    tuning_share: float = field(default=0.0, metadata=SHARE)
    """Share of the books for `assay cascade tune`; by default none."""

    def check(self) -> None:
        """Raise UsageError where nothing is left to train on."""
        held = self._held_out()
        if sum(held.values()) >= 1:
            named = " and ".join(f"{name}_share {share}" for name, share in held.items() if share)
            raise UsageError(f"{named} leave nothing to train on; they must be below 1 together")

    def shares(self) -> dict[str, float]:
        """The share of each split that there is."""
        held = self._held_out()
        shares = {"train": 1 - sum(held.values()), **held}
        return {name: share for name, share in shares.items() if share > 0}

    def _held_out(self) -> dict[str, float]:
        return {
            name: getattr(self, f"{name}_share") for name in ("validation", "test", "calibration", "tuning")
        }


@dataclass(frozen=True, kw_only=True)
class BooksOut(Settings):
    """Where books come from and where pairs go."""

    source: str = field(metadata=positional("SOURCE"))
    """Folder of .txt files, a book each, or the index.jsonl that `assay gutenberg` wrote."""
    out: str
    """Folder of the data set; run the same command again to go on."""
    catalogue: str | None = None
    """Catalogue of Project Gutenberg (pg_catalog.csv), for the years of authors."""
    bundle: str | None = None
    """Folder whose tokenizer counts tokens."""
    chunk_by: Literal["auto", "tokens", "sentences"] = "auto"
    """What a chunk is measured in; auto is tokens with --bundle, so that a pair fits the model, else sentences."""
    max_length: int = field(default=512, metadata=COUNT)
    """Tokens of a pair that the model takes; the report says how much is cut."""
    devices: str = field(default="auto", metadata=AUTO_OR_COUNT)
    """Worker processes; auto is one a core."""
    unit_rows: int | None = field(default=None, metadata=COUNT)
    """Books of a unit; by default a sixteenth of them, 32 at most."""
    dry_run: bool = False
    """List the books and do nothing."""


@dataclass(frozen=True, kw_only=True)
class BooksSettings(BooksOut, PairRules, BookSplits, ChunkRules, RayAddress):
    """Turn a folder of books into pairs of chunks for training."""

    executor: Literal["local", "ray"] = "local"
    """Workers here; ray: on a Ray cluster, whose machines all see SOURCE and --out."""

    def check(self) -> None:
        """Raise UsageError where values do not go together."""
        PairRules.check(self)
        BookSplits.check(self)
        ChunkRules.check(self)
        if self.chunk_by == "tokens" and self.bundle is None:
            raise UsageError(
                "chunk_by is tokens, and there is no tokenizer to count them; add --bundle, or set --chunk-by sentences"
            )
        if self.chunk_by == "sentences" and self.chunk_tokens is not None:
            raise UsageError(
                f"chunk_by is sentences and chunk_tokens {self.chunk_tokens}; leave one of them out"
            )

    def chunk_rules(self) -> ChunkRules:
        """The rules of the chunks: a budget of tokens of which two sides fit the model, where tokens are counted."""
        budget = self.chunk_tokens
        if budget is None and (self.chunk_by == "tokens" or (self.chunk_by == "auto" and self.bundle)):
            budget = max(
                1, min(CHUNK_TOKENS, (self.max_length - SPECIAL_TOKENS) // 2) // self.chunks_per_side
            )
        return ChunkRules(**{**shared(self, ChunkRules), "chunk_tokens": budget})
