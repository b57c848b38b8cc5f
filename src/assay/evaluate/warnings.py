"""What a reader of an evaluation must know before a number is quoted. Axes: N rows."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from assay import metrics
from assay.bundle.bundle import Bundle
from assay.evaluate.findings import Evaluated
from assay.evaluate.measure import EvaluatedRows, Part
from assay.evaluate.settings import EvaluateSettings
from assay.labelled.rows import LabelledRows
from assay.metrics import IntArray
from assay.tasks import Task
from assay.telemetry import format_number_of
from assay.tokenize.plan import other_lengths

FEW_ROWS = 100
FEW_LABEL_ROWS = 10
FEW_SLICE_ROWS = 30
FEW_GROUPS = 20


def length_notes(bundle: Bundle, settings: EvaluateSettings, max_length: int) -> list[str]:
    """That texts are cut in another way than when the bundle was calibrated, where they are."""
    if bundle.calibration is None:
        return []
    note = other_lengths(
        bundle.calibration.meta, max_length=max_length, on_long=settings.on_long, stride=settings.stride
    )
    return [] if note is None else [f"{bundle.path}: {note}"]


def find_warnings(
    first: Evaluated,
    others: Sequence[Evaluated],
    parts: Sequence[Part],
    groups: Sequence[str],
    group_N: IntArray | None,
) -> list[str]:
    """What to know of the figures, a sentence each: rows seen before, few rows, bundles that differ."""
    outcome = first.outcome
    found = []
    for each in (first, *others):
        found += _seen_warnings(each)
        found += each.notes
        if each.unscored:
            codes = ", ".join(f"{count:,} {code}" for code, count in sorted(each.unscored.items()))
            found.append(f"rows that {each.name} cannot score are left out for all bundles: {codes}")
    same = Counter(each.fingerprint for each in (first, *others))
    for fingerprint in (each for each, count in same.items() if count > 1):
        named = [each.name for each in (first, *others) if each.fingerprint == fingerprint]
        found.append(f"{' and '.join(named)} are the same bundle (fingerprint {fingerprint[:8]})")
    if outcome.num_rows < FEW_ROWS:
        found.append(f"only {outcome.num_rows} rows: every number is rough, and its interval too")
    found += _label_warnings(outcome, first.labels)
    if outcome.task.is_classifier and outcome.num_rows < 10 * metrics.NUM_BINS:
        found.append(
            f"ECE of {outcome.num_rows} rows in {metrics.NUM_BINS} bins is too high: it counts noise as miscalibration"
        )
    if group_N is not None and (num_groups := int(np.unique(group_N).size)) < FEW_GROUPS:
        found.append(
            f"intervals draw {format_number_of(num_groups, 'group')}, too few to be exact; where groups are kinds"
            " rather than clusters of like rows, set --resample rows"
        )
    if group_N is not None and _groups_are_single(group_N):
        found.append("each group has one row: drawing groups says no more than drawing rows")
    group_sizes = Counter(groups).values()
    if small := sum(size < FEW_SLICE_ROWS for size in group_sizes):
        found.append(f"{small:,} of {len(group_sizes):,} groups have fewer than {FEW_SLICE_ROWS} rows")
    if others and len(parts) > 1:
        found.append("a bundle has seen some of the rows: compare on the other rows, further below")
    if len({each.max_length for each in (first, *others)}) > 1:
        lengths = ", ".join(f"{each.max_length} for {each.name}" for each in (first, *others))
        found.append(f"bundles cut texts at different numbers of tokens: {lengths}")
    return found


def pair_warnings(rows: LabelledRows) -> list[str]:
    """That pairs which share texts are drawn as rows, where they do."""
    if rows.text_pairs is None:
        return []
    sides = zip(rows.texts, rows.text_pairs, strict=True)
    num_pairs = Counter(text for pair in sides for text in set(pair))
    shared = sum(count > 1 for count in num_pairs.values())
    if not shared:
        return []
    found = (
        f"{shared:,} of {len(num_pairs):,} texts stand in several pairs, and intervals draw pairs as if they were"
        " independent: name the columns of both sides' authors with --group-columns"
    )
    return [found]


def _groups_are_single(group_N: IntArray) -> bool:
    """Whether each group has one row; a pair of one group is one row of it."""
    if group_N.ndim == 2:
        first_N, second_N = group_N.T
        group_N = np.concatenate([first_N, second_N[first_N != second_N]])
    return bool(np.unique(group_N).size == group_N.size > 1)


def _seen_warnings(evaluated: Evaluated) -> list[str]:
    seen, name = evaluated.seen, evaluated.name
    if not seen.is_known:
        return [f"{name} does not say what it was trained on: whether test rows are among it is not known"]
    met = {"train": "trained on", "validation": "chose the checkpoint", "calibration": "were calibrated on"}
    found = [
        f"{count:,} of {seen.row_N.size:,} rows {'share a group with rows that' if kind == 'group' else ''}"
        f" {met.get(role, 'were seen as ' + role)} ({name}, by {kind})".replace("  ", " ")
        for kind, counts in seen.counts.items()
        for role, count in counts.items()
        if count
    ]
    if seen.row_N.all():
        found.append(f"{name} has seen every test row: no number here says how good it is on new ones")
    return found


def _label_warnings(outcome: EvaluatedRows, labels: Sequence[str]) -> list[str]:
    if outcome.task is Task.REGRESSION:
        return []
    if outcome.task is Task.MULTI_LABEL:
        counts = outcome.targets.sum(axis=0)
    else:
        counts = np.bincount(outcome.targets.astype(np.int64), minlength=len(labels))
    absent = [label for label, count in zip(labels, counts, strict=True) if count == 0]
    few = [label for label, count in zip(labels, counts, strict=True) if 0 < count < FEW_LABEL_ROWS]
    found = []
    if absent:
        found.append(f"no row of {_listed(absent)}: nothing here is measured on it")
    if few:
        found.append(f"fewer than {FEW_LABEL_ROWS} rows of {_listed(few)}: their metrics are rough")
    if outcome.task is Task.SINGLE_LABEL and np.unique(outcome.predicted).size == 1 < outcome.num_rows:
        found.append(
            f"every row is predicted {labels[int(outcome.predicted[0])]}: the bundle does not tell labels apart"
        )
    return found


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more labels"
