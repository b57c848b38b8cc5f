"""What documents got: figures of scores and of lengths."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from assay import charts
from assay.pages import Facts, Figure, Section, Table
from assay.runs.manifest import Manifest
from assay.score.report.records import record_of
from assay.score.report.tally import LONGEST_COUNTED, SCORE_BINS, Tally
from assay.score.report.words import count_and_share

SHOWN_LABELS = 12
LISTED_LABELS = 200
SHOWN_VALUES = 12
VALUE_BINS = 40


def score_section(tally: Tally, manifest: Manifest) -> tuple[Section, Table | None]:
    """Figures of the scores with what is not shown, and the table of labels."""
    labels = list(tally.scores)
    if not labels:
        values = list(tally.values)[:SHOWN_VALUES]
        figures = [_value_figure(tally, column, manifest) for column in values]
        return Section(title="Scores", figures=figures), None
    is_single = bool(tally.predictions)
    shown, note = labels, ""
    if len(labels) > SHOWN_LABELS:
        # A stable sort: without predictions these are the first labels.
        most = sorted(labels, key=lambda label: -tally.predictions[label])[:SHOWN_LABELS]
        shown = [label for label in labels if label in set(most)]
        which = "those predicted most often" if is_single else "the first ones"
        note = f"{SHOWN_LABELS} of {len(labels):,} labels are drawn, {which}."
    figures = []
    if is_single:
        counts = [tally.predictions[label] for label in shown]
        svg = charts.bar_chart("Documents by predicted label", shown, counts)
        figures.append(Figure(caption="Documents by predicted label", svg=svg))
    figures += [_score_figure(tally, label, is_single=is_single) for label in shown]
    table = _score_table(tally, labels[:LISTED_LABELS], is_single=is_single)
    return Section(title="Scores", note=note, figures=figures), table


def _score_figure(tally: Tally, label: str, *, is_single: bool) -> Figure:
    others, chosen = tally.scores[label].tolist()
    counts = [left + right for left, right in zip(others, chosen, strict=True)]
    edges = [index / SCORE_BINS for index in range(SCORE_BINS + 1)]
    svg = charts.histogram(
        f"Documents by probability of {label}",
        edges,
        counts,
        x_label="probability",
        highlight=chosen if is_single else None,
        highlight_name="predicted as this label",
    )
    ranges = [f"{low:.2f} to {high:.2f}" for low, high in pairwise(edges)]
    header: tuple[str, ...] = ("probability", "documents")
    columns = [ranges, [f"{count:,}" for count in counts]]
    if is_single:
        header = (*header, "of them predicted as this label")
        columns.append([f"{count:,}" for count in chosen])
    table = Table(header=header, rows=list(zip(*columns, strict=True)))
    return Figure(caption=f"Probability of {label}", svg=svg, table=table)


def _score_table(tally: Tally, labels: Sequence[str], *, is_single: bool) -> Table:
    header = ["label", "mean probability", "probability 0.5 or more"]
    if is_single:
        header.insert(1, "predicted")
    rows = []
    for label in labels:
        counts = tally.scores[label].sum(axis=0)
        total = int(counts.sum())
        mean = f"{tally.score_sums[label] / total:.4f}" if total else "-"
        row = [label, mean, count_and_share(int(counts[SCORE_BINS // 2 :].sum()), total)]
        if is_single:
            row.insert(1, count_and_share(tally.predictions[label], tally.scored_rows))
        rows.append(tuple(row))
    return Table(header=tuple(header), rows=rows)


def _value_figure(tally: Tally, column: str, manifest: Manifest) -> Figure:
    histogram = tally.values[column]
    edges, counts, outside = histogram.shown(VALUE_BINS)
    record = record_of(manifest)
    name = column.removeprefix("prediction_") if record is not None and len(record.labels) > 1 else column
    svg = charts.histogram(f"Documents by {name}", edges, counts, x_label=name)
    caption = f"{name}: {histogram.low:.4g} to {histogram.high:.4g}" if histogram.width else name
    if outside:
        caption += f"; {outside:,} documents lie outside of the range drawn"
    ranges = [f"{low:.6g} to {high:.6g}" for low, high in pairwise(edges)]
    table = Table(
        header=(name, "documents"),
        rows=[(where, f"{count:,}") for where, count in zip(ranges, counts, strict=True)],
    )
    return Figure(caption=caption, svg=svg, table=table)


# ---------------------------------------------------------------- lengths


def length_bins(lengths: NDArray[np.int64], longest: int) -> tuple[list[int], list[int]]:
    """Edges and counts of documents by length, from the documents of each length and the longest of all.

    A bin holds the lengths above its lower edge up to its upper one (the first one 0 too): 1, 2, 4, 8, 12, 16,
    24, 32, ..., each power of two and the middle between, so that texts cut at 512 tokens are in the bin up to
    512. The last edge is the longest document.
    """
    edges = [0, 1, 2, 4]
    while edges[-1] < LONGEST_COUNTED:
        power = edges[-1] * 2
        edges += [power] if power == 8 else [power * 3 // 4, power]
    counts = [int(lengths[low + 1 if low else 0 : high + 1].sum()) for low, high in pairwise(edges)]
    # Trim empty bins at both ends, in steps that leave powers of two under the labelled ticks.
    first = next(index for index, count in enumerate(counts) if count)
    first = 0 if first < 4 else first - first % 2
    last = max(index for index, count in enumerate(counts) if count)
    return [*edges[first : last + 1], max(longest, 1)], counts[first : last + 1]


def length_figures(tally: Tally) -> list[Figure]:
    """Documents by number of tokens; none where nothing was counted."""
    if not tally.lengths.any():
        return []
    edges, counts = length_bins(tally.lengths, tally.longest)
    svg = charts.histogram(
        "Documents by number of tokens",
        edges,
        counts,
        x_label="tokens, special ones included (bins grow)",
        even_bins=True,
    )
    ranges = [_token_range(low + 1 if low else 0, high) for low, high in pairwise(edges)]
    table = Table(
        header=("tokens", "documents"),
        rows=[(where, f"{count:,}") for where, count in zip(ranges, counts, strict=True)],
    )
    return [Figure(caption="Documents by number of tokens", svg=svg, table=table)]


def _token_range(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def length_facts(tally: Tally) -> Facts:
    """How long documents are, in tokens."""
    documents = int(tally.lengths.sum())
    if not documents:
        return []
    return [
        ("tokens in all", f"{tally.num_tokens:,}"),
        ("mean", f"{tally.num_tokens / documents:,.1f}"),
        ("median", f"{tally.length_at(0.5):,}"),
        ("95% have at most", f"{tally.length_at(0.95):,}"),
        ("longest", f"{tally.longest:,}"),
        ("truncated", count_and_share(tally.truncated_rows, tally.scored_rows)),
    ]
