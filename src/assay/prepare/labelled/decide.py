"""Which rows are dropped and why, and which split each of the others belongs to. Pure: columns in, columns out.

usable rows -> too short, conflicting, repeated, nearly repeated -> kept rows -> splits
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from assay.errors import InputError
from assay.labelled.division import Ties, assign_splits
from assay.labelled.findings import as_value, check_label_column, check_labels, conflicting
from assay.labelled.labels import Label
from assay.labelled.near_duplicates import group_by_signatures
from assay.labelled.splits import SplitReport, split_report
from assay.prepare.labelled.settings import LabelledSettings

TOO_SHORT = "too_short"
CONFLICT = "other_label"
"""The text occurs with another label."""
DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near_duplicate"
REASONS = {
    TOO_SHORT: "too short",
    CONFLICT: "the text occurs with another label",
    DUPLICATE: "an earlier row has the text",
    NEAR_DUPLICATE: "an earlier row has nearly the text",
}
"""Codes in `dropped.parquet`, and what they are called for people; other codes are what reading found."""


@dataclass(kw_only=True, slots=True)
class UsableRows:
    """What is remembered of the usable rows, a value a row; their texts are not."""

    hashes: list[int] = field(default_factory=list)
    """Of the cleaned texts."""
    is_short: list[bool] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    groups: list[str] | None = None
    ids: list[int] | None = None
    """Hashes of the ids."""

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.hashes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What becomes of each usable row."""

    splits: tuple[str | None, ...]
    """The split of each row; None for one that is dropped."""
    reasons: dict[int, str]
    """Why a row is dropped, by row."""
    instead: dict[int, int]
    """The row that stays in place of a dropped one, where there is one."""
    report: SplitReport
    num_conflicts: int
    """Rows whose text occurs with another label, kept or not."""
    num_near_with_other_label: int
    """Dropped near-duplicates whose label is not that of the row that stays."""


def decide(
    rows: UsableRows, signatures: dict[int, NDArray[np.uint32]] | None, settings: LabelledSettings
) -> Decision:
    """What becomes of the rows; `signatures` holds one a text hash, None where near-duplicates are ignored.

    Raises `InputError` where nothing is left, or ties leave a split empty or larger than it may be.
    """
    reasons: dict[int, str] = {}
    instead: dict[int, int] = {}
    for row, short in enumerate(rows.is_short):
        if short:
            reasons[row] = TOO_SHORT
    long = [row for row in range(rows.num_rows) if row not in reasons]
    torn = conflicting([rows.hashes[row] for row in long], [rows.labels[row] for row in long])
    num_conflicts = sum(rows.hashes[row] in torn for row in long)
    _drop_equal(rows, long, torn, settings, reasons, instead)
    kept = [row for row in long if row not in reasons]
    if not kept:
        raise InputError(_nothing_left(rows.num_rows, reasons))
    check_labels([rows.labels[row] for row in kept], settings.predicts)
    check_label_column([rows.labels[row] for row in kept], settings.predicts, settings.label_column)
    near = None
    num_other = 0
    if signatures is not None:
        hashes = np.array([rows.hashes[row] for row in kept], dtype=np.uint64)
        of_kept = np.stack([signatures[rows.hashes[row]] for row in kept])
        near = group_by_signatures(hashes, of_kept).tolist()
        if settings.near_duplicates == "drop":
            num_other = _drop_near(rows, kept, near, reasons, instead)
            kept, near = [row for row in kept if row not in reasons], None
    ties = Ties(
        hashes=[rows.hashes[row] for row in kept],
        near=near,
        groups=None if rows.groups is None else [rows.groups[row] for row in kept],
        ids=None if rows.ids is None else [rows.ids[row] for row in kept],
    )
    labels = [rows.labels[row] for row in kept]
    united = ties.unite()
    task, shares = settings.predicts, settings.shares
    untie = "set --near-duplicates ignore"
    names = assign_splits(labels, task, ties, united, shares, seed=settings.seed, untie=untie)
    splits: list[str | None] = [None] * rows.num_rows
    for row, name in zip(kept, names, strict=True):
        splits[row] = name
    by_split = {
        name: [label for label, split in zip(labels, names, strict=True) if split == name] for name in shares
    }
    return Decision(
        splits=tuple(splits),
        reasons=dict(sorted(reasons.items())),
        instead=instead,
        report=split_report(by_split, task, groups=ties.groups, near_duplicates=near, united=united),
        num_conflicts=num_conflicts,
        num_near_with_other_label=num_other,
    )


def _drop_equal(
    rows: UsableRows,
    long: Sequence[int],
    torn: set[int],
    settings: LabelledSettings,
    reasons: dict[int, str],
    instead: dict[int, int],
) -> None:
    """Note the rows that are dropped for a text that another row has."""
    first: dict[tuple[int, object], int] = {}
    for row in long:
        if rows.hashes[row] in torn and settings.conflicts == "drop":
            reasons[row] = CONFLICT
        elif settings.duplicates == "drop":
            earlier = first.setdefault((rows.hashes[row], as_value(rows.labels[row])), row)
            if earlier != row:
                reasons[row], instead[row] = DUPLICATE, earlier


def _drop_near(
    rows: UsableRows,
    kept: Sequence[int],
    near: Sequence[int],
    reasons: dict[int, str],
    instead: dict[int, int],
) -> int:
    """Note all rows of a near-duplicate group but the first; returns how many have another label than it."""
    num_other = 0
    for row, first in zip(kept, near, strict=True):
        stays = kept[first]
        # Equal texts that were to be kept stay.
        if stays != row and rows.hashes[stays] != rows.hashes[row]:
            reasons[row], instead[row] = NEAR_DUPLICATE, stays
            num_other += as_value(rows.labels[row]) != as_value(rows.labels[stays])
    return num_other


def _nothing_left(num_rows: int, reasons: dict[int, str]) -> str:
    counts = {reason: sum(each == reason for each in reasons.values()) for reason in REASONS}
    found = ", ".join(f"{count:,} {REASONS[reason]}" for reason, count in counts.items() if count)
    return (
        f"0 of {num_rows:,} usable rows are left ({found}); "
        "lower min_characters, set conflicts = keep, or check the text and label columns"
    )
