"""Labelled rows in two splits that share nothing: what is tied together stays together.

rows -> ties (equal and nearly equal texts, groups, ids) -> splits -> a report for people
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from assay.errors import InputError
from assay.labelled.labels import Label
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
class Ties:
    """What puts rows together, a value a row; rows that share one lie in one split."""

    hashes: Sequence[int]
    """Of the texts, as `text_hashes` gives them; they order the rows too."""
    near: Sequence[int] | None = None
    """The near-duplicate group of each row, where they were looked for."""
    groups: Sequence[str] | None = None
    ids: Sequence[Hashable] | None = None

    def unite(self) -> list[int]:
        """The rows as groups that share nothing: each as the index of its first row."""
        columns = (self.hashes, self.near, self.groups, self.ids)
        return unite_groups(*(column for column in columns if column is not None))


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
    near = group_near_duplicates(rows.texts, rows.text_pairs) if rules.near_duplicates else None
    hashes = text_hashes(rows.texts, rows.text_pairs).tolist()
    ties = Ties(hashes=hashes, near=near, groups=rows.groups, ids=rows.ids)
    united = ties.unite()
    share = rules.validation_share
    splits = assign_splits(
        rows.labels, task, ties, united, {"train": 1 - share, "validation": share}, seed=rules.seed
    )
    train = rows.take([row for row, name in enumerate(splits) if name == "train"])
    validation = rows.take([row for row, name in enumerate(splits) if name == "validation"])
    report = split_report(
        {"train": train.labels, "validation": validation.labels},
        task,
        groups=rows.groups,
        near_duplicates=near,
        united=united,
    )
    return Division(
        train=train,
        validation=validation,
        report=report,
        warnings=tuple(off_shares(Counter(splits), {"validation": share})),
    )


def assign_splits(
    labels: Sequence[Label],
    task: Task,
    ties: Ties,
    united: Sequence[int],
    shares: Mapping[str, float],
    *,
    seed: int,
    untie: str = "set near_duplicates = false",
) -> list[str]:
    """The split of each row, by the names of `shares`; `united` is `ties.unite()`.

    The same for the same rows, in whatever order, and seed. Raises `InputError`, with `untie` as one way out,
    where ties leave a split empty or larger than it may be.
    """
    _check_ties(ties, united, shares, untie)
    splits = split_rows(strata(labels, task), united, shares, seed=seed, keys=ties.hashes)
    if len(set(splits)) < len(shares):
        raise InputError(_empty_split(shares, Counter(united)))
    return splits


def off_shares(num_rows: Mapping[str, int], shares: Mapping[str, float]) -> Iterator[str]:
    """A line for each of these splits whose size is far from what its share of all rows asks for."""
    total = sum(num_rows.values())
    for name, share in shares.items():
        wanted = share * total
        if abs(num_rows[name] - wanted) > max(1, wanted / 2):
            yield (
                f"{name} has {num_rows[name]:,} rows where {name}_share={share} asks for {wanted:,.0f}:"
                " the groups are large"
            )


def num_near(rows: LabelledRows, others: LabelledRows) -> int:
    """How many of the other rows are near-duplicates of one of the rows."""
    pairs = None
    if rows.text_pairs is not None and others.text_pairs is not None:
        pairs = rows.text_pairs + others.text_pairs
    groups = group_near_duplicates(rows.texts + others.texts, pairs)
    known = set(groups[: rows.num_rows])
    return sum(group in known for group in groups[rows.num_rows :])


def _check_ties(ties: Ties, united: Sequence[int], shares: Mapping[str, float], untie: str) -> None:
    """Raise `InputError` for rows that are tied together and fit into no split."""
    num_rows = len(united)
    largest, size = Counter(united).most_common(1)[0]
    room = max(shares.values()) * num_rows
    if num_rows == 1 or size <= max(1, room):
        return
    split = "larger split" if len(shares) == 2 else "largest split"
    members = [row for row, group in enumerate(united) if group == largest]
    name, count = Counter(ties.groups[row] for row in members).most_common(1)[0] if ties.groups else ("", 0)
    if count > room:
        raise InputError(
            f"group {name!r} has {count:,} of {num_rows:,} rows, the {split} {room:,.0f}; a group lies in"
            " one split; choose a finer group column, or split the rows yourself"
        )
    raise InputError(
        f"{size:,} of {num_rows:,} rows are tied together (equal or nearly equal texts, groups, ids), the {split}"
        f" has {room:,.0f}; drop the repeats, {untie}, or split the rows yourself"
    )


def _empty_split(shares: Mapping[str, float], groups: Counter[int]) -> str:
    num_rows, least, share = groups.total(), min(groups.values()), min(shares.values())
    named = [f"{name}_share" for name in shares if name != "train"]
    asked = ", ".join(f"{name}_share={share}" for name, share in shares.items() if name != "train")
    if len(groups) == 1:
        reason = "all rows are tied together" if num_rows > 1 else "there is one row"
    elif least > share * num_rows:
        reason = f"that is {share * num_rows:,.1f} rows and the smallest group has {least:,}"
    else:
        reason = "each label must occur in training first"
    return (
        f"{num_rows:,} rows at {asked} leave a split empty: {reason};"
        f" add more rows, change {' or '.join(named)}, or split the rows yourself"
    )
