"""Labelled rows as a value: read from sources, or handed in by a caller. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from assay.errors import InputError
from assay.labelled.labels import Label, brief

_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledRows:
    """Texts with their labels."""

    texts: tuple[str, ...]
    """One text a row."""
    labels: tuple[Label, ...]
    """One label a row: all names, all numbers, or all tuples of names."""
    text_pairs: tuple[str, ...] | None = None
    """The second text of each row, for pairs."""
    groups: tuple[str, ...] | None = None
    """The group (author, book, url) of each row, where a group column was named."""
    ids: tuple[str, ...] | None = None
    """The id of each row, where an id column was named."""
    keys: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    """What else a row belongs to, by the name of the column; None where that is not known."""

    def __post_init__(self) -> None:
        """Raise `InputError` where the columns differ in length."""
        columns = (self.texts, self.labels, self.text_pairs, self.groups, self.ids, *self.keys.values())
        lengths = {len(column) for column in columns if column is not None}
        if len(lengths) > 1:
            raise InputError(
                f"columns of {sorted(lengths)} rows; texts and labels go row by row; give columns of one length"
            )

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.texts)

    def beginning(self, row: int) -> str:
        """The beginning of a row's text on one line, of a pair that of both."""
        texts = (self.texts,) if self.text_pairs is None else (self.texts, self.text_pairs)
        return " | ".join(brief(column[row], _SHOWN_CHARACTERS) for column in texts)

    def sample(self, num_rows: int, *, seed: int) -> "LabelledRows":
        """So many rows, drawn by the seed, in their order; all of them where there are no more."""
        if num_rows >= self.num_rows:
            return self
        return self.take(sorted(Random(f"{seed}").sample(range(self.num_rows), num_rows)))

    def take(self, rows: Sequence[int]) -> "LabelledRows":
        """These rows, in this order."""
        return LabelledRows(
            texts=tuple(self.texts[row] for row in rows),
            labels=tuple(self.labels[row] for row in rows),
            text_pairs=_taken(self.text_pairs, rows),
            groups=_taken(self.groups, rows),
            ids=_taken(self.ids, rows),
            keys={name: tuple(column[row] for row in rows) for name, column in self.keys.items()},
        )


def _taken(column: tuple[str, ...] | None, rows: Sequence[int]) -> tuple[str, ...] | None:
    return None if column is None else tuple(column[row] for row in rows)
