"""A table of books and the rules of their pairs to the manifest of a pairs run."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from assay._version import __version__
from assay.data.finding import find_sources
from assay.data.sources import Columns
from assay.prepare.pairs.draw import Rules
from assay.prepare.pairs.kind import PAIRS, MinedIdentity, PairsIdentity, PairsRecord
from assay.prepare.pairs.partners import NO_YEAR, Bookshelf, NegativeKind
from assay.prepare.tables import Column
from assay.runs.manifest import Manifest, new_manifest
from assay.runs.plan import UNITS_OF_A_SMALL_RUN, plan_boundaries

MAX_UNIT_BOOKS = 32
"""Their pairs are in memory together, some five megabytes, before they are written."""
BOOKS_SCHEMA = pa.schema(
    [
        pa.field("book_id", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("author", pa.string()),
        pa.field("author_key", pa.string()),
        pa.field("language", pa.string()),
        pa.field("birth_year", pa.int32()),
        pa.field("death_year", pa.int32()),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("num_chunks", pa.int32(), nullable=False),
        pa.field("num_kept", pa.int32(), nullable=False),
        pa.field("edition", pa.int64(), nullable=False),
        pa.field("dropped", pa.list_(pa.int32()), nullable=False),
        pa.field("neighbours", pa.list_(pa.int64()), nullable=False),
        pa.field("mined", pa.list_(pa.int32()), nullable=False),
        pa.field("mined_probability", pa.list_(pa.float32()), nullable=False),
    ]
)
"""The source of a pairs run: a row a book, in the order of the listing; no split for one that is left out.

`mined` are numbers of the book's candidates, the most probable first.
"""
_LIST = pa.list_(pa.field("element", pa.int32(), nullable=False))
PART_SCHEMA = pa.schema(
    [
        pa.field("source_row", pa.int64(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("text1", pa.string(), nullable=False),
        pa.field("text2", pa.string(), nullable=False),
        pa.field("label", pa.int8(), nullable=False),
        pa.field("book1", pa.string(), nullable=False),
        pa.field("book2", pa.string(), nullable=False),
        pa.field("pair_type", pa.string(), nullable=False),
        pa.field("neg_type", pa.string()),
        pa.field("mined_probability", pa.float32()),
        pa.field("author1", pa.string()),
        pa.field("author2", pa.string()),
        pa.field("same_author", pa.bool_()),
        pa.field("language", pa.string()),
        pa.field("chunks1", _LIST, nullable=False),
        pa.field("chunks2", _LIST, nullable=False),
        pa.field("num_tokens", pa.int32()),
        pa.field("difficulty", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
    ]
)


def plan_pairs(
    books: Path,
    shelf: Path,
    *,
    chunks: str,
    rules: Rules,
    min_gap_sentences: int,
    unit_rows: int | None,
    mined: MinedIdentity | None = None,
) -> Manifest:
    """The manifest of the pairs run over a table of books; `chunks` is the id of the run behind the shelf."""
    columns = Columns(text="book_id")
    sources = find_sources((str(books),), columns=columns)
    num_books = sources[0].num_rows
    rows = unit_rows or max(1, min(MAX_UNIT_BOOKS, num_books // UNITS_OF_A_SMALL_RUN))
    return new_manifest(
        kind=PAIRS,
        assay_version=__version__,
        identity=PairsIdentity(
            chunks=chunks,
            task=rules.task,
            positives=rules.positives,
            negatives=rules.negatives,
            weights={str(kind): weight for kind, weight in rules.weights.items()},
            chunks_per_side=rules.num_chunks,
            sides=rules.sides,
            min_gap_sentences=min_gap_sentences,
            seed=rules.seed,
            mined=mined,
        ),
        settings=PairsRecord(shelf=str(shelf.resolve())),
        columns=columns,
        sources=sources,
        boundaries=[plan_boundaries(num_books, (0,), rows)],
        part_schema=PART_SCHEMA,
    )


def rules_of(identity: PairsIdentity) -> Rules:
    """The rules that a run was planned with."""
    return Rules(
        task=identity.task,
        positives=identity.positives,
        negatives=identity.negatives,
        weights={cast("NegativeKind", kind): weight for kind, weight in identity.weights.items()},
        num_chunks=identity.chunks_per_side,
        sides=identity.sides,
        seed=identity.seed,
    )


def bookshelf_of(books: pa.Table) -> Bookshelf:
    """What the source of a pairs run says of the books, as arrays."""
    neighbours = Column[Sequence[int]](books.column("neighbours"))
    return Bookshelf(
        author_keys=Column(books.column("author_key")),
        splits=_codes(books.column("split")),
        editions=books.column("edition").to_numpy(),
        languages=_codes(books.column("language")),
        birth_years=books.column("birth_year").fill_null(NO_YEAR).to_numpy(),
        death_years=books.column("death_year").fill_null(NO_YEAR).to_numpy(),
        size_bytes=books.column("size_bytes").to_numpy(),
        neighbours=neighbours.__getitem__,
    )


def _codes(column: pa.ChunkedArray) -> NDArray[np.int32]:
    """A number for each distinct value; -1 for null."""
    values = column.unique().drop_null().sort()
    codes: NDArray[np.int32] = pc.index_in(column, value_set=values).fill_null(-1).to_numpy()
    return codes
