"""What a user may set for `assay prepare labelled`. Imports nothing heavy: the command line is made from it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from assay.errors import UsageError
from assay.labelled.settings import LabelledSources
from assay.settings import positional, within
from assay.tasks import Task, TaskName

UnicodeForm = Literal["nfc", "nfkc", "as-is"]
Whitespace = Literal["trim", "collapse", "as-is"]
SOURCE_COLUMN = "source_uri"
"""Column that says which source a row came from."""
ROW_COLUMN = "source_row"
"""Column that says which row of the source it was, from 0."""
TOKENS_COLUMN = "num_tokens"
"""Column of token counts, special tokens included, where a tokenizer was named."""

IDS_COLUMN = "input_ids"
"""Column of token ids, where they were asked for."""


@dataclass(frozen=True, kw_only=True)
class LabelledSettings(LabelledSources):
    """Clean, deduplicate and split labelled rows, for `assay train` to take."""

    sources: tuple[str, ...] = field(metadata=positional("SOURCE"))
    """Files, folders, globs or URLs of labelled rows."""
    out: str
    """Folder that appears once all is done: a Parquet file a split, dropped.parquet and prepare.json."""
    task: TaskName = "single_label"
    """One label a row, any number of labels a row (a list column), or a number a row."""
    unicode_form: UnicodeForm = "nfc"
    """Form of the characters; nfkc also makes ligatures, full-width and raised characters plain ones."""
    whitespace: Whitespace = "trim"
    """trim: none around a text, LF line ends, no control characters; collapse: also one space for each run."""
    min_characters: int = field(default=1, metadata=within(at_least=0))
    """Rows with a shorter cleaned text are dropped; 0 keeps empty ones. Of pairs, the shorter text counts."""
    duplicates: Literal["drop", "keep"] = "drop"
    """What happens to rows whose cleaned text an earlier row has with the same label."""
    conflicts: Literal["drop", "keep"] = "drop"
    """What happens to all rows of a text that occurs with different labels."""
    near_duplicates: Literal["together", "drop", "ignore"] = "together"
    """Nearly equal texts (MinHash): into one split, the first of each group kept, or not looked for."""
    validation_share: float = field(default=0.1, metadata=within(at_least=0, below=1))
    """Share of the rows in validation.parquet; 0 for no such split."""
    calibration_share: float = field(default=0.0, metadata=within(at_least=0, below=1))
    """Share of the rows in calibration.parquet, for `assay calibrate`; 0 for no such split."""
    test_share: float = field(default=0.1, metadata=within(at_least=0, below=1))
    """Share of the rows in test.parquet; 0 for no such split."""
    bundle: str | None = None
    """Folder with a tokenizer.json: each row gets its number of tokens, and the report says how long texts are."""
    max_length: int | None = field(default=None, metadata=within(at_least=1))
    """Write the token ids of single texts too, as column input_ids, cut to so many; needs --bundle."""
    strict: bool = False
    """Stop at the first row without a usable text or label instead of dropping it."""
    seed: int = field(default=0, metadata=within(at_least=0, below=1 << 63))
    """Decides which rows go to which split."""
    dry_run: bool = False
    """Say what would be dropped and how the splits would be; write nothing."""
    overwrite: bool = False
    """Whether what was prepared into the folder before, otherwise than now, may be replaced."""

    def check(self) -> None:
        """Raise `UsageError` where values do not go together."""
        if sum(self.held_out.values()) >= 1:
            asked = ", ".join(f"{name}_share={share}" for name, share in self.held_out.items())
            raise UsageError(
                f"{asked}; together they must be below 1 to leave training rows; make them smaller"
            )
        if self.max_length is not None and self.bundle is None:
            raise UsageError(
                f"max_length {self.max_length} without a tokenizer; add --bundle, or leave it out"
            )
        if self.max_length is not None and self.text_pair_column is not None:
            raise UsageError(
                f"max_length {self.max_length} with pairs of texts; leave it out, and tokenize the splits with "
                "assay tokenize, which keeps where the second text starts"
            )
        names = [
            *self.columns,
            SOURCE_COLUMN,
            ROW_COLUMN,
            *([TOKENS_COLUMN] if self.bundle is not None else []),
            *([IDS_COLUMN] if self.max_length is not None else []),
        ]
        name, count = Counter(names).most_common(1)[0]
        if count > 1:
            raise UsageError(
                f"column {name!r} would be written twice ({', '.join(names)}); give each column a name of its own"
            )

    @property
    def predicts(self) -> Task:
        """The task as a value."""
        return Task(self.task)

    @property
    def held_out(self) -> dict[str, float]:
        """The share of each split beside training, without empty ones."""
        shares = {
            "validation": self.validation_share,
            "calibration": self.calibration_share,
            "test": self.test_share,
        }
        return {name: share for name, share in shares.items() if share > 0}

    @property
    def shares(self) -> dict[str, float]:
        """The share of each split, training first."""
        return {"train": 1 - sum(self.held_out.values()), **self.held_out}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read and written again, by the names the user gave."""
        named = (
            self.id_column,
            self.text_column,
            self.text_pair_column,
            self.label_column,
            self.group_column,
        )
        return tuple(name for name in named if name is not None)
