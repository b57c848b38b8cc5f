"""Labelled rows, in memory: read from sources, or handed in by a caller."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from assay.data.rows import read_rows
from assay.data.sources import Columns, find_sources
from assay.errors import InputError, SourceError
from assay.train.labels import Label


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

    def __post_init__(self) -> None:
        """Raise `InputError` where the columns differ in length."""
        columns = (self.texts, self.labels, self.text_pairs, self.groups, self.ids)
        lengths = {len(column) for column in columns if column is not None}
        if len(lengths) > 1:
            raise InputError(
                f"columns of {sorted(lengths)} rows; texts and labels go row by row; hand in equal lengths"
            )

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.texts)

    def take(self, rows: Sequence[int]) -> "LabelledRows":
        """These rows, in this order."""
        return LabelledRows(
            texts=tuple(self.texts[row] for row in rows),
            labels=tuple(self.labels[row] for row in rows),
            text_pairs=_taken(self.text_pairs, rows),
            groups=_taken(self.groups, rows),
            ids=_taken(self.ids, rows),
        )


def read_labelled(
    patterns: Sequence[str],
    *,
    text_column: str,
    label_column: str,
    text_pair_column: str | None = None,
    format: str | None = None,
) -> LabelledRows:
    """All rows of the sources, in order; labels become strings.

    Raises `SourceError` where a row has no usable text or no label: a model must not learn from a
    part of what it was given without anyone noticing.
    """
    columns = Columns(text=text_column, text_pair=text_pair_column, label=label_column)
    texts: list[str] = []
    labels: list[str] = []
    pairs: list[str] = []
    for source in find_sources(patterns, format=format, columns=columns):
        problems: Counter[str] = Counter()
        for rows in read_rows(source, columns, 0, source.num_rows):
            problems.update(rows.errors.values())
            values = _strings(rows.labels)
            problems["no label"] += values.count(None)
            labels += [str(value) for value in values]
            texts += [text or "" for text in _strings(rows.texts)]
            pairs += [text or "" for text in _strings(rows.text_pairs)]
        found = ", ".join(f"{count} {code}" for code, count in problems.items() if count)
        if found:
            raise SourceError(
                f"{source.uri}: {found} of {source.num_rows} rows; every row needs a text and a label;"
                " drop or mend these rows"
            )
    if not texts:
        raise SourceError(f"{', '.join(patterns)}: 0 rows; labelled rows are needed; name other sources")
    return LabelledRows(
        texts=tuple(texts), labels=tuple(labels), text_pairs=tuple(pairs) if text_pair_column else None
    )


def _taken(column: tuple[str, ...] | None, rows: Sequence[int]) -> tuple[str, ...] | None:
    return None if column is None else tuple(column[row] for row in rows)


def _strings(column: pa.Array | None) -> list[str | None]:
    return [] if column is None else [None if each is None else str(each) for each in column.to_pylist()]
