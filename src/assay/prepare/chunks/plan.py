"""Settings and a table of books to the manifest of a chunks run."""

from pathlib import Path

import pyarrow as pa

from assay._version import __version__
from assay.data.finding import find_sources
from assay.data.sources import SOURCE_ROW, Columns
from assay.errors import UsageError
from assay.prepare.chunks.kind import CHUNKS, ChunksIdentity, ChunksRecord
from assay.prepare.chunks.languages import need_language_check
from assay.prepare.chunks.settings import ChunkRules
from assay.runs.cut import cut_evenly
from assay.runs.manifest import Manifest, new_manifest
from assay.runs.plan import UNITS_OF_A_SMALL_RUN

BOOKS_OF_A_UNIT = 16
"""About half a minute of one core, with tokens counted."""
COLUMNS = Columns(text="path", id="book_id")

PART_SCHEMA = pa.schema(
    [
        pa.field(SOURCE_ROW, pa.int64(), nullable=False),
        pa.field("book_id", pa.string(), nullable=False),
        pa.field("chunk", pa.int32()),
        pa.field("start", pa.int64()),
        pa.field("stop", pa.int64()),
        pa.field("num_sentences", pa.int32()),
        pa.field("num_tokens", pa.int32()),
        pa.field("language", pa.string()),
        pa.field("text", pa.string()),
        pa.field("text_hash", pa.int64()),
        pa.field("error", pa.string()),
    ]
)
"""A row a chunk; a book without chunks is one row, with a null text and an error code."""


def plan_chunks(
    rules: ChunkRules,
    books: str | Path,
    *,
    bundle: str | Path | None = None,
    strict: bool = False,
    unit_rows: int | None = None,
    limit_rows: int | None = None,
) -> Manifest:
    """The manifest of the run that makes chunks of the books in a table with `book_id` and `path`.

    With a `bundle` the tokens of each chunk are counted by its tokenizer. Raises UsageError for a budget of
    tokens without one, and where the language check has no package.
    """
    if rules.chunk_tokens is not None and bundle is None:
        raise UsageError(
            f"chunk_tokens is {rules.chunk_tokens}; tokens are counted by a model's tokenizer; add --bundle, or use "
            "--chunk-sentences"
        )
    if rules.language_check != "off":
        need_language_check()
    encoder = None
    if bundle is not None:
        from assay.tokenize.counting import open_encoder  # which few plans need

        encoder = open_encoder(bundle)
    sources = find_sources((str(books),), columns=COLUMNS)
    num_books = sum(source.num_rows for source in sources)
    books_of_a_unit = unit_rows or max(1, min(BOOKS_OF_A_UNIT, -(-num_books // UNITS_OF_A_SMALL_RUN)))
    identity = ChunksIdentity(
        chunk_sentences=rules.chunk_sentences,
        chunk_tokens=rules.chunk_tokens,
        tokenizer=None if encoder is None else encoder.fingerprint,
        overlap=rules.overlap_sentences,
        max_chunks=rules.max_chunks,
        min_chars=rules.min_chars,
        min_letters=rules.min_letters,
        language=rules.language,
        language_check=rules.language_check,
        typography=rules.typography,
        mask_names=rules.mask_names,
        cleaned=rules.cleaned,
        seed=rules.seed,
    )
    return new_manifest(
        kind=CHUNKS,
        assay_version=__version__,
        identity=identity,
        settings=ChunksRecord(bundle=None if bundle is None else str(Path(bundle).resolve()), strict=strict),
        columns=COLUMNS,
        sources=sources,
        boundaries=cut_evenly(sources, books_of_a_unit, limit_rows),
        part_schema=PART_SCHEMA,
    )


def rules_of(identity: ChunksIdentity) -> ChunkRules:
    """The settings that a run was planned with."""
    fixed = identity.model_dump()
    del fixed["tokenizer"]
    return ChunkRules(**fixed)
