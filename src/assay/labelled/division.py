"""Labelled rows in two splits that share nothing: what is tied together stays together.

rows -> ties (equal and nearly equal texts, groups, ids) -> splits -> a report for people
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from assay.errors import InputError
from assay.labelled.near_duplicates import group_near_duplicates
from assay.labelled.provenance import text_hashes
from assay.labelled.rows import LabelledRows
from assay.labelled.splits import SplitReport, split_report, split_rows, strata, unite_groups
from assay.tasks import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitRules:
    """How rows are divided."""

    validation_share: float = 0.1
    """Share of the rows set aside, above 0 and below 1."""
    near_duplicates: bool = True
    """Keep near-duplicate texts (MinHash) on one side."""
    seed: int = 0
    """Decides which rows, of those that may."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Division:
    """Rows to learn from and rows set aside; they share no text, id or group."""

    train: LabelledRows
    validation: LabelledRows
    report: SplitReport
    """Sizes and balance, for people."""
    warnings: tuple[str, ...]
    """What is odd about it."""


def divide(rows: LabelledRows, task: Task, rules: SplitRules) -> Division:
    """The rows in two splits, each in its order; the same for the same rows, in whatever order, and seed.

    Raises `InputError` where ties leave a split empty or larger than it may be.
    """
    hashes = text_hashes(rows.texts, rows.text_pairs).tolist()
    near = group_near_duplicates(rows.texts, rows.text_pairs) if rules.near_duplicates else None
    ties = (hashes, near, rows.groups, rows.ids)
    united = unite_groups(*(column for column in ties if column is not None))
    _check_ties(rows, united, rules)
    share = rules.validation_share
    splits = split_rows(
        strata(rows.labels, task),
        united,
        {"train": 1 - share, "validation": share},
        seed=rules.seed,
        keys=hashes,
    )
    train = rows.take([row for row, name in enumerate(splits) if name == "train"])
    validation = rows.take([row for row, name in enumerate(splits) if name == "validation"])
    if not validation.num_rows or not train.num_rows:
        raise InputError(_empty_split(rules, Counter(united)))
    report = split_report(
        {"train": train.labels, "validation": validation.labels},
        task,
        groups=rows.groups,
        near_duplicates=near,
        united=united,
    )
    wanted = share * rows.num_rows
    is_off = abs(validation.num_rows - wanted) > max(1, wanted / 2)
    off = (
        f"validation has {validation.num_rows:,} rows where validation_share={share} asks for {wanted:,.0f}:"
        " the groups are large"
    )
    return Division(train=train, validation=validation, report=report, warnings=(off,) if is_off else ())


def num_near(rows: LabelledRows, others: LabelledRows) -> int:
    """How many of the other rows are near-duplicates of one of the rows."""
    pairs = None
    if rows.text_pairs is not None and others.text_pairs is not None:
        pairs = rows.text_pairs + others.text_pairs
    groups = group_near_duplicates(rows.texts + others.texts, pairs)
    known = set(groups[: rows.num_rows])
    return sum(group in known for group in groups[rows.num_rows :])


def _check_ties(rows: LabelledRows, united: Sequence[int], rules: SplitRules) -> None:
    """Raise `InputError` for rows that are tied together and fit into neither split."""
    largest, size = Counter(united).most_common(1)[0]
    room = max(rules.validation_share, 1 - rules.validation_share) * rows.num_rows
    if rows.num_rows == 1 or size <= max(1, room):
        return
    members = [row for row, group in enumerate(united) if group == largest]
    name, count = Counter(rows.groups[row] for row in members).most_common(1)[0] if rows.groups else ("", 0)
    if count > room:
        raise InputError(
            f"group {name!r} has {count:,} of {rows.num_rows:,} rows, the larger split {room:,.0f}; a group lies in"
            " one split; choose a finer group column, or split the rows yourself"
        )
    raise InputError(
        f"{size:,} of {rows.num_rows:,} rows are tied together (equal or nearly equal texts, groups, ids), the larger"
        f" split has {room:,.0f}; drop the repeats, set near_duplicates = false, or split the rows yourself"
    )


def _empty_split(rules: SplitRules, groups: Counter[int]) -> str:
    num_rows, least = groups.total(), min(groups.values())
    share = min(rules.validation_share, 1 - rules.validation_share)
    if len(groups) == 1:
        reason = "all rows are tied together" if num_rows > 1 else "there is one row"
    elif least > share * num_rows:
        reason = f"that is {share * num_rows:,.1f} rows and the smallest group has {least:,}"
    else:
        reason = "each label must occur in training first"
    return (
        f"{num_rows:,} rows at validation_share={rules.validation_share} leave a split empty: {reason};"
        " add more rows, change validation_share, or split the rows yourself"
    )
