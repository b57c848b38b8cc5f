"""`assay prepare labelled`: read twice, keep hashes in between, publish a folder in one step.

find sources -> read, clean, remember hashes -> decide -> read again, write each row where it belongs -> publish

Memory holds about a kilobyte a row (hashes, label, MinHash signature), whatever the length of the texts.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay._version import __version__
from assay.bundle.publish import publish_folder
from assay.data.finding import reinspect
from assay.data.sources import Source
from assay.data.storage import local_path
from assay.errors import InputError, SourceError
from assay.labelled.division import off_shares
from assay.labelled.findings import look_alikes, many_labels
from assay.labelled.labels import label_names
from assay.labelled.near_duplicates import signatures_of
from assay.labelled.provenance import text_hashes
from assay.labelled.read import LabelledBatch, find_labelled, no_rows, read_batches
from assay.labelled.rows import LabelledRows
from assay.prepare.labelled.cleaning import clean_text
from assay.prepare.labelled.decide import Decision, UsableRows, decide
from assay.prepare.labelled.report import PREPARED_FILE, PrepareReport, TokenCounts, read_report, refuse_other
from assay.prepare.labelled.settings import LabelledSettings
from assay.prepare.labelled.writing import DROPPED, DroppedRow, SplitFiles
from assay.telemetry import format_number_of

if TYPE_CHECKING:
    from assay.tokenize.encode import Encoder

WHOLE = 1 << 24
"""Tokens at which a text would be cut for counting: none is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrepareResult:
    """What `prepare_labelled` did, or with `dry_run` would do."""

    out: Path
    report: PrepareReport
    is_new: bool
    """False where the folder held just this already, and for a dry run."""


def prepare_labelled(
    settings: LabelledSettings, *, on_message: Callable[[str], None] | None = None
) -> PrepareResult:
    """The labelled rows of the sources as clean splits in the folder `out`; nothing to do where it has them.

    The same for the same sources, settings and version on any machine. Raises `SourceError` for sources
    that cannot be read, `InputError` for rows that cannot be split, `RefusedError` for a folder with other content.
    """
    say = on_message or (lambda _: None)
    out = local_path(settings.out)
    encoder = _encoder(settings)
    sources = find_labelled(settings.sources, settings)
    identity = _identity(settings, sources, encoder)
    earlier = read_report(out)
    if earlier is not None and earlier.identity == identity:
        return PrepareResult(out=out, report=earlier, is_new=False)
    if not settings.dry_run:
        refuse_other(out, earlier, identity, overwrite=settings.overwrite)
    num_rows = sum(source.num_rows for source in sources)
    say(f"reading {format_number_of(num_rows, 'row')} of {format_number_of(len(sources), 'source')}")
    usable = _Usable(settings, sources)
    usable.read()
    decision = decide(usable.rows, usable.signatures, settings)
    report = _report(settings, identity, usable, decision)
    if settings.dry_run:
        return PrepareResult(out=out, report=report, is_new=False)
    say(f"writing {sum(report.num_rows.values()):,} rows")
    with publish_folder(out, overwrite=earlier is not None, what="data set") as folder:
        lengths = _write(folder, settings, sources, usable, decision, encoder)
        for source in sources:
            reinspect(source)
        report = report.with_tokens(lengths)
        (folder / PREPARED_FILE).write_bytes(report.to_bytes())
    return PrepareResult(out=out, report=report, is_new=True)


# ---------------------------------------------------------------- first pass: what is remembered


class _Usable:
    """The rows of the sources as far as they are needed to decide: no text is kept."""

    def __init__(self, settings: LabelledSettings, sources: Sequence[Source]) -> None:
        self._settings = settings
        self._sources = sources
        self.rows = UsableRows(
            groups=None if settings.group_column is None else [],
            ids=None if settings.id_column is None else [],
        )
        self.signatures: dict[int, NDArray[np.uint32]] | None = None
        if settings.near_duplicates != "ignore":
            self.signatures = {}
        self.places: list[tuple[int, int]] = []
        """Source and row of the source, of each row."""
        self.unusable: Counter[str] = Counter()
        self.num_changed = 0
        self._names: dict[object, Any] = {}

    def read(self) -> None:
        index_of = {source.uri: index for index, source in enumerate(self._sources)}
        num_read = 0
        for batch in read_batches(self._sources, self._settings, task=self._settings.predicts):
            num_read += batch.num_rows
            if batch.unusable and self._settings.strict:
                row, code = next(iter(batch.unusable.items()))
                raise SourceError(
                    f"{batch.source.uri}: row {row} (from 0) cannot be used ({code}); fix it, or leave --strict"
                    " out to drop such rows"
                )
            self.unusable.update(batch.unusable.values())
            self._add(index_of[batch.source.uri], batch)
        if not num_read:
            raise no_rows(self._settings.sources)
        if not self.rows.num_rows:
            found = ", ".join(f"{count:,} {code}" for code, count in self.unusable.items())
            raise SourceError(
                f"none of {num_read:,} rows can be used ({found}); "
                "check --text-column, --label-column and --task"
            )

    def _add(self, source: int, batch: LabelledBatch) -> None:
        cleaned = cleaned_rows(batch.rows, self._settings)
        texts, pairs = cleaned.texts, cleaned.text_pairs
        self.num_changed += sum(
            new != old
            for new, old in zip(
                chain(texts, pairs or ()), chain(batch.rows.texts, batch.rows.text_pairs or ()), strict=True
            )
        )
        hashes = text_hashes(texts, pairs).tolist()
        least = self._settings.min_characters
        seconds = pairs or texts
        short = [min(len(a), len(b)) < least for a, b in zip(texts, seconds, strict=True)]
        if self.signatures is not None:
            new = {
                key: row for row, key in enumerate(hashes) if key not in self.signatures and not short[row]
            }
            joined = [texts[row] if pairs is None else f"{texts[row]}\n{pairs[row]}" for row in new.values()]
            if joined:
                self.signatures.update(zip(new, signatures_of(joined), strict=True))
        rows = self.rows
        rows.hashes += hashes
        rows.is_short += short
        # One object for each name: labels and groups repeat.
        rows.labels += [self._names.setdefault(label, label) for label in cleaned.labels]
        if rows.groups is not None and cleaned.groups is not None:
            rows.groups += [self._names.setdefault(group, group) for group in cleaned.groups]
        if rows.ids is not None and cleaned.ids is not None:
            rows.ids += text_hashes(cleaned.ids).tolist()
        self.places += [(source, row) for row in batch.source_rows]


def cleaned_rows(rows: LabelledRows, settings: LabelledSettings) -> LabelledRows:
    """The rows with their texts as they are written."""

    def clean(texts: Sequence[str]) -> tuple[str, ...]:
        form, whitespace = settings.unicode_form, settings.whitespace
        return tuple(clean_text(text, unicode_form=form, whitespace=whitespace) for text in texts)

    return LabelledRows(
        texts=clean(rows.texts),
        labels=rows.labels,
        text_pairs=None if rows.text_pairs is None else clean(rows.text_pairs),
        groups=rows.groups,
        ids=rows.ids,
    )


# ---------------------------------------------------------------- second pass: what is written


def _write(
    folder: Path,
    settings: LabelledSettings,
    sources: Sequence[Source],
    usable: _Usable,
    decision: Decision,
    encoder: "Encoder | None",
) -> dict[str, TokenCounts] | None:
    """Write every row to its split or to the dropped ones; returns how long the texts of each split are."""
    counts: dict[str, list[NDArray[np.int32]]] = {name: [] for name in settings.shares}
    row = 0
    cutter = _cutter(settings)
    ids_type = None if cutter is None else pa.list_(pa.from_numpy_dtype(cutter.id_type))
    with SplitFiles(folder, settings, ids_type) as files:
        for batch in read_batches(sources, settings, task=settings.predicts):
            cleaned = cleaned_rows(batch.rows, settings)
            numbers = range(row, row + cleaned.num_rows)
            row += cleaned.num_rows
            if (
                row > usable.rows.num_rows
                or text_hashes(cleaned.texts, cleaned.text_pairs).tolist()
                != (usable.rows.hashes[numbers.start : numbers.stop])
            ):
                raise InputError(f"{batch.source.uri} changed while it was read; run the command again")
            for name in settings.shares:
                at = [index for index, number in enumerate(numbers) if decision.splits[number] == name]
                if not at:
                    continue
                taken = cleaned.take(at)
                lengths = None if encoder is None else _num_tokens(encoder, taken)
                if lengths is not None:
                    counts[name].append(lengths)
                ids = None if cutter is None else _input_ids(cutter, taken)
                files.add(
                    name, taken, batch.source.uri, [batch.source_rows[index] for index in at], lengths, ids
                )
            files.drop(_dropped(batch, numbers, sources, usable, decision))
    if encoder is None:
        return None
    return {
        name: TokenCounts.of(np.concatenate([*each, np.zeros(0, np.int32)])) for name, each in counts.items()
    }


def _dropped(
    batch: LabelledBatch,
    numbers: range,
    sources: Sequence[Source],
    usable: _Usable,
    decision: Decision,
) -> Iterator[DroppedRow]:
    """The rows of a batch that are dropped, in order."""
    ids = batch.rows.ids
    found = [DroppedRow(row=row, reason=code) for row, code in batch.unusable.items()]
    for index, number in enumerate(numbers):
        reason = decision.reasons.get(number)
        if reason is None:
            continue
        stays = decision.instead.get(number)
        place = None if stays is None else usable.places[stays]
        found.append(
            DroppedRow(
                row=batch.source_rows[index],
                reason=reason,
                id=None if ids is None else ids[index],
                kept_uri=None if place is None else sources[place[0]].uri,
                kept_row=None if place is None else place[1],
            )
        )
    for dropped in sorted(found, key=lambda each: each.row):
        yield dropped.at(batch.source.uri)


def _num_tokens(encoder: "Encoder", rows: LabelledRows) -> NDArray[np.int32]:
    pairs = None if rows.text_pairs is None else pa.array(rows.text_pairs, pa.large_string())
    return encoder.encode(pa.array(rows.texts, pa.large_string()), pairs).num_tokens


def _input_ids(cutter: "Encoder", rows: LabelledRows) -> pa.Array:
    """The token ids of single texts, a list each, as the model that they are scored with would have them."""
    tokens = cutter.encode(pa.array(rows.texts, pa.large_string()))
    return pa.ListArray.from_arrays(pa.array(tokens.offsets.astype(np.int32)), pa.array(tokens.flat_ids))


def _cutter(settings: LabelledSettings) -> "Encoder | None":
    """What makes token ids to write, where they were asked for."""
    if settings.bundle is None or settings.max_length is None:
        return None
    from assay.tokenize.encode import Encoder

    return Encoder.from_bundle(settings.bundle, max_length=settings.max_length, on_long="truncate")


def _encoder(settings: LabelledSettings) -> "Encoder | None":
    if settings.bundle is None:
        return None
    from assay.tokenize.encode import Encoder

    encoder = Encoder.from_bundle(settings.bundle, max_length=WHOLE, on_long="truncate")
    if settings.text_pair_column is not None:
        encoder.check_pairs()
    return encoder


# ---------------------------------------------------------------- what is said of it


def _identity(
    settings: LabelledSettings, sources: Sequence[Source], encoder: "Encoder | None"
) -> dict[str, Any]:
    """What decides the result."""
    given = asdict(settings)
    left_out = ("sources", "out", "bundle", "strict", "dry_run", "overwrite", "format", "delimiter")
    return {
        "assay_version": __version__,
        **{name: value for name, value in given.items() if name not in left_out},
        "tokenizer": None if encoder is None else encoder.fingerprint,
        "sources": [
            {"uri": source.uri, "fingerprint": source.fingerprint, "num_rows": source.num_rows}
            for source in sources
        ],
    }


def _report(
    settings: LabelledSettings, identity: dict[str, Any], usable: _Usable, decision: Decision
) -> PrepareReport:
    task, rows = settings.predicts, usable.rows
    kept = [row for row, split in enumerate(decision.splits) if split is not None]
    labels = [rows.labels[row] for row in kept]
    warnings = [*many_labels(labels, task, settings.label_column)]
    if task.is_classifier:
        warnings += look_alikes(label_names(labels, task))
    warnings += off_shares(decision.report.num_rows, settings.held_out)
    num_read = rows.num_rows + usable.unusable.total()
    dropped = dict(usable.unusable) | dict(Counter(decision.reasons.values()))
    if (num_dropped := sum(dropped.values())) > num_read / 2:
        warnings.append(f"{num_dropped:,} of {num_read:,} rows are dropped: look at {DROPPED}")
    if decision.num_conflicts and settings.conflicts == "keep":
        warnings.append(
            f"{decision.num_conflicts:,} rows have the text of a row with another label and are kept:"
            " no model can get them all right"
        )
    if decision.num_near_with_other_label:
        warnings.append(
            f"{decision.num_near_with_other_label:,} dropped near-duplicates have another label than the row"
            " that stays: near_duplicates = together keeps them"
        )
    return PrepareReport(
        identity=identity,
        num_read=num_read,
        num_changed=usable.num_changed,
        num_dropped=dropped,
        num_conflicts=decision.num_conflicts,
        num_rows=dict(decision.report.num_rows),
        split=str(decision.report),
        rows_by_label={name: dict(each) for name, each in decision.report.num_rows_by_label.items()},
        warnings=tuple(warnings),
    )
