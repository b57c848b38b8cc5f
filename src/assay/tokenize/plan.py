"""Settings, tokenizer and sources to the manifest of a tokenize run; and finding one again."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from assay import machine
from assay._version import __version__
from assay.bundle.bundle import Bundle
from assay.bundle.embedder import Embedder
from assay.bundle.load import load_bundle
from assay.bundle.texts import refuse_other_texts
from assay.data.finding import find_sources
from assay.data.sources import Columns
from assay.errors import SourceError, UsageError
from assay.runs.cut import cut_sources, id_field
from assay.runs.manifest import Manifest, new_manifest
from assay.runs.placement import planned_machines
from assay.runs.run import PARTS, Run, find_run
from assay.tokenize.encode import Encoder
from assay.tokenize.kind import TOKENIZE, TokenizeIdentity, TokenizeRecord
from assay.tokenize.settings import WINDOWS, LongDocuments, OnLong, TokenizeSettings

TOKENS_PER_SECOND_AND_CORE = 150_000.0
"""What the tokenizers library does on one core, roughly; only sizes units."""
SECOND_START = "second_start"
"""Column of a token part of pairs: where token type 1 begins."""


def choose_max_length(bundle: Bundle | Embedder, asked: int | None) -> int:
    """The limit on a document's tokens: as asked, else what the model was trained for.

    Raises UsageError for more than the model can take.
    """
    if asked is None:
        return bundle.default_max_length
    if not 1 <= asked <= bundle.max_length:
        msg = f"max_length {asked}; {bundle.path} takes 1 to {bundle.max_length} tokens; set --max-length within"
        raise UsageError(msg)
    return asked


def bundle_encoder(bundle: Bundle, documents: LongDocuments | TokenizeIdentity) -> Encoder:
    """The encoder of the tokenizer that `bundle` was read with, for documents of these lengths.

    Raises RefusedError where its folder holds another tokenizer now, and as `Encoder.from_bundle` does.
    """
    max_length = choose_max_length(bundle, documents.max_length)
    return _read_encoder(
        bundle.path, max_length, documents.on_long, documents.stride, bundle.tokenizer_fingerprint
    )


@functools.lru_cache(maxsize=1)
def _read_encoder(path: Path, max_length: int, on_long: OnLong, stride: int, fingerprint: str) -> Encoder:
    """The last one is kept: what reads a run's rows and what scores them share it, and the tokenizer is read once."""
    return Encoder.from_bundle(
        path, max_length=max_length, on_long=on_long, stride=stride, fingerprint=fingerprint
    )


def other_lengths(
    calibrated: Mapping[str, object] | None, *, max_length: int, on_long: OnLong, stride: int
) -> str | None:
    """A sentence where a calibration was fitted on texts that were cut otherwise than here; else None.

    `calibrated` holds the `max_length`, `on_long` and `stride` of the fit, as a calibration's `meta` does; one
    that does not say is not doubted. Under `error` nothing is cut, so it agrees with any policy; only windows
    have a stride.
    """
    known = calibrated or {}
    length, policy = known.get("max_length", max_length), known.get("on_long", on_long)
    overlap = known.get("stride", stride if policy == on_long else 0)
    is_same = policy == on_long and (on_long not in WINDOWS or overlap == stride)
    if length == max_length and (is_same or on_long == "error"):
        return None
    fitted, here, flags = f"under {policy}", f"under {on_long}", f"--on-long {policy}"
    if policy in tuple(WINDOWS):
        fitted, flags = f"{fitted} with stride {overlap}", f"{flags} --stride {overlap}"
    if on_long in WINDOWS:
        here = f"{here} with stride {stride}"
    return (
        f"calibrated on texts of up to {length} tokens {fitted}, used here on up to {max_length} {here}: "
        f"probabilities of long texts may be wrong; use --max-length {length} {flags}, or calibrate again"
    )


def plan_tokenize(settings: TokenizeSettings) -> Manifest:
    """The manifest of the tokenize run that `settings` ask for; reads the sources' footers."""
    bundle = load_bundle(settings.bundle)
    encoder = bundle_encoder(bundle, settings)
    refuse_other_texts(bundle, are_pairs=settings.text_pair_column is not None)
    if settings.text_pair_column is not None:
        encoder.check_pairs()
    columns = Columns(
        text=settings.text_column, text_pair=settings.text_pair_column, id=settings.id_column, input_ids=None
    )
    sources = find_sources(
        settings.sources, format=settings.format, delimiter=settings.delimiter, columns=columns
    )
    boundaries = cut_sources(
        sources,
        unit_rows=settings.unit_rows,
        limit_rows=settings.limit_rows,
        max_length=encoder.max_length,
        tokens_per_second=TOKENS_PER_SECOND_AND_CORE * machine.usable_cores(),
        num_workers=planned_machines(settings),
    )
    identity = TokenizeIdentity(
        tokenizer=encoder.fingerprint,
        max_length=encoder.max_length,
        on_long=settings.on_long,
        stride=settings.stride,
    )
    return new_manifest(
        kind=TOKENIZE,
        assay_version=__version__,
        identity=identity,
        settings=TokenizeRecord(bundle=str(Path(settings.bundle).resolve()), strict=settings.strict),
        columns=columns,
        sources=sources,
        boundaries=boundaries,
        part_schema=token_schema(
            id_field(sources, columns), encoder, is_pair=settings.text_pair_column is not None
        ).with_metadata({f"assay.{key}": str(value) for key, value in identity.model_dump().items()}),
    )


def token_schema(id_: pa.Field, encoder: Encoder, *, is_pair: bool) -> pa.Schema:
    """The columns of a token part."""
    ids = pa.list_(pa.field("element", pa.from_numpy_dtype(encoder.id_type), nullable=False))
    pair = [pa.field(SECOND_START, pa.int32(), nullable=False)] if is_pair else []
    return pa.schema(
        [
            id_,
            pa.field("input_ids", ids, nullable=False),
            *pair,
            pa.field("truncated", pa.bool_(), nullable=False),
            pa.field("error", pa.string()),
        ]
    )


def find_token_run(patterns: Sequence[str]) -> Run | None:
    """The tokenize run that the one source names, by its directory or its parts; else None.

    Raises SourceError for a run that is not a tokenize run or is not finished.
    """
    if len(patterns) != 1 or any(character in patterns[0] for character in "*?["):
        return None
    url = patterns[0].rstrip("/")
    if url.endswith("/" + PARTS.rstrip("/")):
        url = url[: -len(PARTS)]
    if "://" not in url and not Path(url).is_dir():
        return None
    run = find_run(url)
    if run is None:
        return None
    if run.manifest.kind != TOKENIZE.name:
        msg = f"{url} is a {run.manifest.kind} run; a source is data or a tokenize run; give what it was made from"
        raise SourceError(msg)
    units, published = run.units, run.part_files()
    missing = sum(unit.name not in published for unit in units)
    if missing:
        msg = f"{missing} of {len(units)} units of the tokenize run {url} are not published; finish it first"
        raise SourceError(msg)
    return run


def holds_pairs(run: Run) -> bool:
    """Whether a tokenize run's rows are pairs of texts."""
    return SECOND_START in run.manifest.arrow_schema().names
