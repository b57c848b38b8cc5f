"""Settings, encoder and sources to the manifest of an embed run. Imports no torch."""

from pathlib import Path

import pyarrow as pa

from assay._version import __version__
from assay.bundle.embedder import Embedder, load_embedder
from assay.data.finding import find_sources
from assay.data.sources import Columns
from assay.embed.kind import EMBED, EmbedIdentity, EmbedRecord, VectorType
from assay.embed.settings import EmbedSettings
from assay.engine.expected import expected_tokens_per_second
from assay.engine.precision import Computed
from assay.engine.settings import EngineChoice
from assay.errors import BundleError, UsageError
from assay.runs.cut import cut_sources, id_field
from assay.runs.manifest import Manifest, new_manifest
from assay.runs.placement import Placement, planned_workers
from assay.tokenize.encode import Encoder
from assay.tokenize.plan import choose_max_length
from assay.tokenize.settings import OnLong

EMBEDDING = "embedding"
"""Column of the vectors."""
DEFAULT_PARITY_SHARE = 1 / 10_000
"""Twice as many took 0.8% of the time of a run of half a minute on a GPU."""
NUMBERS: dict[VectorType, pa.DataType] = {"float32": pa.float32(), "float16": pa.float16()}


def plan_embed(
    settings: EmbedSettings, placement: Placement, precision: Computed, *, precision_why: str | None = None
) -> tuple[Manifest, Embedder]:
    """The manifest of the run that `settings` ask for, and its encoder; reads the sources' footers.

    `precision_why` is what `auto` chose and why.
    """
    embedder = load_embedder(settings.bundle)
    max_length = choose_max_length(embedder, settings.max_length)
    encoder = make_encoder(embedder, max_length=max_length, on_long=settings.on_long, stride=settings.stride)
    identity = EmbedIdentity(
        tokenizer=encoder.fingerprint,
        max_length=max_length,
        on_long=settings.on_long,
        stride=settings.stride,
        bundle=embedder.fingerprint,
        pooling=embedder.pooling(settings.pooling),
        normalized=embedder.normalized(settings.normalize),
        precision=precision,
        engine=settings.engine,
        deterministic=settings.deterministic,
        dtype=settings.dtype,
        parity_share=choose_parity_share(settings.parity_share, engine=settings.engine, precision=precision),
    )
    stored = settings.input_ids_column
    columns = Columns(
        text=settings.text_column if stored is None else None,
        text_pair=None,
        id=settings.id_column,
        input_ids=stored,
    )
    sources = find_sources(
        settings.sources, format=settings.format, delimiter=settings.delimiter, columns=columns
    )
    boundaries = cut_sources(
        sources,
        unit_rows=settings.unit_rows,
        limit_rows=settings.limit_rows,
        max_length=max_length,
        tokens_per_second=expected_tokens_per_second(
            embedder.checkpoint.config,
            engine=settings.engine,
            kind=placement.kind,
            num_workers=placement.num_workers,
        ),
        num_workers=planned_workers(settings, placement),
    )
    manifest = new_manifest(
        kind=EMBED,
        assay_version=__version__,
        identity=identity,
        settings=EmbedRecord(
            bundle=str(Path(settings.bundle).resolve()),
            dimension=embedder.dimension,
            max_batch_tokens=settings.max_batch_tokens,
            deduplicate=settings.deduplicate,
            strict=settings.strict,
            parity_documents=settings.parity_documents,
            parity_tolerance=settings.parity_tolerance,
            precision_why=precision_why,
            cache=_cache(settings.cache),
        ),
        columns=columns,
        sources=sources,
        boundaries=boundaries,
        part_schema=part_schema(id_field(sources, columns), identity, embedder.dimension),
    )
    return manifest, embedder


def choose_parity_share(
    asked: float | None, *, engine: EngineChoice, precision: Computed, why_none: str | None = None
) -> float:
    """The share of documents that run in fp32 too: as asked, or the default.

    `why_none` says of a model why none of its can be compared. Raises UsageError for a share that was asked for and
    cannot be.
    """
    if engine == "fake":
        why_none = "the fake engine has no model"
    elif precision == "fp32":
        why_none = "the run computes in fp32 itself, and the parity gate compares that with transformers"
    if why_none is None:
        return DEFAULT_PARITY_SHARE if asked is None else asked
    if asked:
        raise UsageError(f"parity_share={asked:g}; {why_none}; leave it out")
    return 0.0


def _cache(asked: str | None) -> str | None:
    """The folder of the cache, absolute; UsageError for what is not one of this machine's."""
    if asked is None:
        return None
    if "://" in asked:
        msg = f"cache {asked}; vectors are mapped into memory from there; give a folder on a disk that workers share"
        raise UsageError(msg)
    return str(Path(asked).resolve())


def make_encoder(embedder: Embedder, *, max_length: int, on_long: OnLong, stride: int) -> Encoder:
    """The encoder of texts for a model.

    Raises UsageError for windows whose vectors cannot be brought together, BundleError where the model wants
    a prompt before every text.
    """
    if on_long == "window-max":
        msg = (
            "on_long window-max; the largest numbers of several vectors are not a vector of the model; "
            "use window-mean, truncate, head-tail or error"
        )
        raise UsageError(msg)
    if embedder.files.prompt:
        msg = (
            f"{embedder.path}: default_prompt_name puts {embedder.files.prompt!r} before every text, which is not "
            "done here; put it into the texts and remove default_prompt_name from config_sentence_transformers.json"
        )
        raise BundleError(msg)
    return Encoder.from_bundle(
        embedder.path,
        max_length=max_length,
        on_long=on_long,
        stride=stride,
        fingerprint=embedder.tokenizer_fingerprint,
    )


def part_schema(id_: pa.Field, identity: EmbedIdentity, dimension: int) -> pa.Schema:
    """The columns of a part of vectors; the footer says which model made them, and how."""
    numbers = pa.field("element", NUMBERS[identity.dtype], nullable=False)
    names = ("bundle", "pooling", "normalized", "precision", "max_length")
    fixed = identity.model_dump(mode="json")
    return pa.schema(
        [
            id_,
            pa.field("num_tokens", pa.int32(), nullable=False),
            pa.field("truncated", pa.bool_(), nullable=False),
            pa.field("error", pa.string()),
            pa.field(EMBEDDING, pa.list_(numbers, dimension)),
        ],
        metadata={f"assay.{name}": str(fixed[name]) for name in names},
    )
