"""What documents got: figures of scores, of vectors and of lengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from assay import charts
from assay.embed.kind import EMBED
from assay.outcome.decide import thresholds_of
from assay.pages import Facts, Figure, Section, Table
from assay.runs.manifest import Manifest
from assay.score.report.histogram import GrowingHistogram
from assay.score.report.records import record_of
from assay.score.report.tally import LONGEST_COUNTED, NORM_ROWS, SCORE_BINS, Tally
from assay.score.report.words import count_and_share
from assay.tasks import Task
from assay.telemetry import format_number_of

SHOWN_LABELS = 12
LISTED_LABELS = 200
SHOWN_VALUES = 12
VALUE_BINS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Decided:
    """How the page speaks of the documents that a label was decided for."""

    title: str
    most: str
    highlight: str
    column: str


PREDICTED = Decided(
    title="Documents by predicted label",
    most="those predicted most often",
    highlight="predicted as this label",
    column="predicted",
)
HELD = Decided(
    title="Documents by label that holds",
    most="those that hold most often",
    highlight="for which it holds",
    column="holds",
)


def score_section(tally: Tally, manifest: Manifest) -> tuple[Section, Table | None]:
    """Figures of the scores with what is not shown, and the table of labels."""
    labels = list(tally.scores)
    if not labels:
        values = list(tally.values)[:SHOWN_VALUES]
        figures = [_value_figure(tally, column, manifest) for column in values]
        return Section(title="Scores", figures=figures), None
    record = record_of(manifest)
    is_multi_label = record is not None and record.task is Task.MULTI_LABEL
    words = HELD if is_multi_label else PREDICTED
    shown, note = labels, ""
    if len(labels) > SHOWN_LABELS:
        # A stable sort: of labels that are equally frequent the first ones.
        most = sorted(labels, key=lambda label: -tally.decisions[label])[:SHOWN_LABELS]
        shown = [label for label in labels if label in set(most)]
        note = f"{SHOWN_LABELS} of {len(labels):,} labels are drawn, {words.most}."
    svg = charts.bar_chart(words.title, shown, [tally.decisions[label] for label in shown])
    figures = [Figure(caption=words.title, svg=svg)]
    figures += [_score_figure(tally, label, words) for label in shown]
    thresholds = {} if record is None else thresholds_of(record.task, record.labels, record.threshold)
    table = _score_table(tally, labels[:LISTED_LABELS], words, thresholds)
    return Section(title="Scores", note=note, figures=figures), table


def _score_figure(tally: Tally, label: str, words: Decided) -> Figure:
    others, decided = tally.scores[label].tolist()
    counts = [left + right for left, right in zip(others, decided, strict=True)]
    edges = [index / SCORE_BINS for index in range(SCORE_BINS + 1)]
    svg = charts.histogram(
        f"Documents by probability of {label}",
        edges,
        counts,
        x_label="probability",
        highlight=decided,
        highlight_name=words.highlight,
    )
    ranges = [f"{low:.2f} to {high:.2f}" for low, high in pairwise(edges)]
    table = Table(
        header=("probability", "documents", f"of them {words.highlight}"),
        rows=[
            (where, f"{count:,}", f"{those:,}")
            for where, count, those in zip(ranges, counts, decided, strict=True)
        ],
    )
    return Figure(caption=f"Probability of {label}", svg=svg, table=table)


def _score_table(
    tally: Tally, labels: Sequence[str], words: Decided, thresholds: Mapping[str, float]
) -> Table:
    """Each label with the documents that were decided to have it, and from which probability on they were."""
    header = ("label", words.column, "mean probability", *(["threshold"] if thresholds else []))
    rows = []
    for label in labels:
        total = int(tally.scores[label].sum())
        row = [
            label,
            count_and_share(tally.decisions[label], tally.scored_rows),
            f"{tally.score_sums[label] / total:.4f}" if total else "-",
        ]
        if thresholds:
            row.append(f"{thresholds[label]:.4f}" if label in thresholds else "-")
        rows.append(tuple(row))
    return Table(header=header, rows=rows)


def _value_figure(tally: Tally, column: str, manifest: Manifest) -> Figure:
    record = record_of(manifest)
    name = column.removeprefix("prediction_") if record is not None and len(record.labels) > 1 else column
    return _number_figure(tally.values[column], name)


def _number_figure(histogram: GrowingHistogram, name: str) -> Figure:
    edges, counts, outside = histogram.shown(VALUE_BINS)
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


# ---------------------------------------------------------------- vectors


def vector_section(tally: Tally, manifest: Manifest) -> Section:
    """What the vectors of an embed run are, and how long."""
    identity, record = manifest.read(EMBED)
    facts = [
        ("dimension", f"{record.dimension:,}"),
        ("numbers", identity.dtype),
        ("pooling", identity.pooling.replace("_", " ")),
        ("normalised to length 1", "yes" if identity.normalized else "no"),
    ]
    norms = tally.norms
    if not tally.num_norms:
        return Section(title="Vectors", facts=facts)
    facts += [
        ("least length", f"{norms.low:.6g}"),
        ("mean length", f"{tally.norm_sum / tally.num_norms:.6g}"),
        ("greatest length", f"{norms.high:.6g}"),
    ]
    note = (
        f"Lengths are of {format_number_of(tally.num_norms, 'vector')}, the first {NORM_ROWS:,} of each part."
    )
    figures = [] if identity.normalized else [_number_figure(norms, "length")]
    return Section(title="Vectors", note=note, figures=figures, facts=facts)


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
