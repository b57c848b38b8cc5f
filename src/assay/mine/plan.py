"""Settings, embed runs and pairs to the manifest of a mine run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from assay._version import __version__
from assay.data.columns import find_column, is_textual, type_at, value_type
from assay.data.finding import find_sources
from assay.data.formats.table import FORMATS
from assay.data.sources import SOURCE_ROW, Columns, Source, id_type, shows_no_column
from assay.errors import SourceError, UsageError
from assay.extras import need_packages
from assay.mine.kind import MINE, GuardIdentity, MineIdentity, MineRecord
from assay.mine.pairs import most_positives, pair_columns
from assay.mine.select import choose_range_max
from assay.mine.settings import MineSettings
from assay.mine.vectors import id_kind, open_vectors, refuse_other_vectors
from assay.runs.cut import cut_evenly
from assay.runs.manifest import Manifest, new_manifest
from assay.runs.plan import MIN_UNIT_ROWS, UNITS_OF_A_SMALL_RUN
from assay.runs.run import Run

LARGEST_UNIT = 16_384
"""Rows: under a second on a GPU, minutes on a CPU for a corpus of a million."""


def plan_mine(settings: MineSettings) -> Manifest:
    """The manifest of the mine run that `settings` ask for; reads the anchors of the rows once."""
    if settings.index == "faiss":
        need_packages("faiss", used_by="--index faiss", or_else="use --index exact")
    corpus = open_vectors(settings.corpus, "--corpus")
    anchors = open_vectors(settings.anchors, "--anchors") if settings.anchors else corpus
    refuse_other_vectors([*corpus, *anchors])
    kinds = id_kind(anchors), id_kind(corpus)
    _refuse_missing(settings, [*corpus, *anchors])
    columns = pair_columns(
        settings.keys, settings.anchor_column, settings.positive_column, settings.id_column
    )
    sources = find_pairs(settings, columns)
    max_positives = most_positives(sources, columns, settings.keys)
    guard = _guard(settings)
    is_filtered = guard is not None or any(
        value is not None
        for value in (
            settings.max_score,
            settings.absolute_margin,
            settings.relative_margin,
            settings.percentile,
        )
    )
    range_max = choose_range_max(
        settings.range_max,
        range_min=settings.range_min,
        num_negatives=settings.num_negatives,
        max_positives=max_positives,
        is_filtered=is_filtered,
    )
    identity = MineIdentity(
        corpus=tuple(run.manifest.run_id for run in corpus),
        anchors=tuple(run.manifest.run_id for run in anchors),
        anchor_column=settings.anchor_column,
        positive_column=settings.positive_column,
        keys=settings.keys,
        exclude_same=settings.exclude_same,
        num_negatives=settings.num_negatives,
        range_min=settings.range_min,
        range_max=range_max,
        max_positives=max_positives,
        max_score=settings.max_score,
        min_score=settings.min_score,
        absolute_margin=settings.absolute_margin,
        relative_margin=settings.relative_margin,
        percentile=settings.percentile,
        sampling_strategy=settings.sampling_strategy,
        seed=settings.seed,
        index=settings.index,
        guard=guard,
        output_format=settings.output_format,
        texts=settings.texts,
    )
    return new_manifest(
        kind=MINE,
        assay_version=__version__,
        identity=identity,
        settings=MineRecord(
            corpus=tuple(run.url for run in corpus),
            anchors=tuple(run.url for run in anchors),
            guard_bundle=None if guard is None else str(Path(settings.guard_bundle or "").resolve()),
            scratch=settings.scratch,
            strict=settings.strict,
        ),
        columns=replace(columns, label=None, group=None),
        sources=sources,
        boundaries=_cut(sources, settings),
        part_schema=part_schema(settings, kinds, _row_id(sources, columns)),
    )


def find_pairs(settings: MineSettings, columns: Columns) -> list[Source]:
    """The sources of the pairs; raises SourceError where one lacks a column, naming the flag that sets it."""
    bare = Columns(text=None, id=settings.id_column)
    sources = find_sources(
        settings.sources, format=settings.format, delimiter=settings.delimiter, columns=bare
    )
    for source in sources:
        if shows_no_column(source):
            continue
        for name, flag in (
            (settings.anchor_column, "--anchor-column"),
            (settings.positive_column, "--positive-column"),
        ):
            kind = value_type(
                type_at(source.schema, find_column(source.schema, name, uri=source.uri, option=flag))
            )
            if settings.keys == "text" and not (is_textual(kind) or FORMATS[source.format].is_all_text):
                raise SourceError(
                    f"{source.uri}: column {name!r} is {kind}; --keys text needs texts: set {flag} to another "
                    "column, or --keys id"
                )
            if settings.keys == "id" and pa.types.is_nested(kind):
                raise SourceError(
                    f"{source.uri}: column {name!r} is {kind}; an id is one value: set {flag} to another column"
                )
    return find_sources(
        settings.sources, format=settings.format, delimiter=settings.delimiter, columns=columns
    )


def _refuse_missing(settings: MineSettings, runs: Sequence[Run]) -> None:
    """Raise where the embed runs lack what is asked for: texts, or the group column."""
    for run in runs:
        needs_texts = settings.keys == "text" or settings.texts or settings.guard_bundle is not None
        if needs_texts and run.manifest.columns.text is None:
            raise SourceError(
                f"the embed run {run.url} was made from token ids and has no texts; "
                "embed the texts, or use --keys id --no-texts without a guard"
            )
        if settings.exclude_same is None:
            continue
        for index in range(len(run.manifest.sources)):
            source = run.manifest.source(index)
            if not shows_no_column(source):
                find_column(source.schema, settings.exclude_same, uri=source.uri, option="--exclude-same")


def _guard(settings: MineSettings) -> GuardIdentity | None:
    if settings.guard_bundle is None:
        return None
    from assay.mine.guard import open_guard_bundle

    bundle, label = open_guard_bundle(settings.guard_bundle, settings.guard_label)
    return GuardIdentity(bundle=bundle.fingerprint, label=label, max_probability=settings.guard_max)


def _row_id(sources: Sequence[Source], columns: Columns) -> pa.DataType | None:
    """The type of the rows' ids, where a column of them was named."""
    if columns.id is None:
        return None
    kinds = {id_type(source, columns) for source in sources}
    if len(kinds) > 1:
        raise UsageError(
            f"the ids in column {columns.id!r} are of types {', '.join(sorted(map(str, kinds)))}; cast them to "
            "one, or leave --id-column out"
        )
    return kinds.pop()


def _cut(sources: Sequence[Source], settings: MineSettings) -> list[tuple[int, ...]]:
    total = sum(source.num_rows for source in sources)
    planned = total if settings.limit_rows is None else min(total, settings.limit_rows)
    share = -(-planned // UNITS_OF_A_SMALL_RUN)
    unit_rows = settings.unit_rows or min(max(share, MIN_UNIT_ROWS), LARGEST_UNIT)
    return cut_evenly(sources, unit_rows, settings.limit_rows)


def part_schema(
    settings: MineSettings, kinds: tuple[pa.DataType, pa.DataType], row_id: pa.DataType | None
) -> pa.Schema:
    """The columns of a part; `kinds` are the types of the ids of anchors and corpus."""
    anchor_id, corpus_id = kinds
    if settings.output_format == "pairs":
        second = anchor_id if anchor_id == corpus_id else corpus_id
        texts = [("text1", pa.string()), ("text2", pa.string())] if settings.texts else []
        columns = [
            *texts,
            ("label", pa.int32()),
            ("id1", anchor_id),
            ("id2", second),
            ("score", pa.float32()),
        ]
    else:
        names = ("anchor", "positive", "negative") if settings.texts else ()
        columns = [
            *((name, pa.string()) for name in names),
            ("anchor_id", anchor_id),
            ("positive_id", corpus_id),
            ("negative_id", corpus_id),
            ("score", pa.float32()),
            ("positive_score", pa.float32()),
        ]
    return pa.schema(
        [
            pa.field(SOURCE_ROW, pa.int64(), nullable=False),
            *([] if row_id is None else [("row_id", row_id)]),
            *columns,
            ("rank", pa.int32()),
            ("guard_probability", pa.float32()),
            ("error", pa.string()),
        ]
    )
