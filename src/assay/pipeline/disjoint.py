"""No author and no book is in two splits, whichever data set of pairs one looks at."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from assay.errors import CheckError
from assay.pipeline.ledger import Facts
from assay.pipeline.plan import SPLITS

_COLUMNS = {"author": ("author1", "author2"), "book": ("book1", "book2")}


def check_disjoint(data_sets: Mapping[str, Path]) -> Facts:
    """The number of authors and books of each split, over all data sets of the same books.

    Raises CheckError where an author or a book is in two splits, of one data set or of two.
    """
    counts: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
    for what, columns in _COLUMNS.items():
        split_of: dict[str, str] = {}
        for folder in data_sets.values():
            for split in SPLITS:
                for value in _values(folder / f"{split}.parquet", columns):
                    other = split_of.setdefault(value, split)
                    if other != split:
                        raise CheckError(
                            f"the {what} {value!r} is in {other} and, in {folder.name}, in {split}; what is measured on"
                            " either would be too good; give another --out, and report this"
                        )
        for split in SPLITS:
            counts[split][f"{what}s"] = sum(found == split for found in split_of.values())
    listed = ", ".join(f"{split} {each['authors']:,}" for split, each in counts.items())
    said = (
        f"checked: no author and no book is in two splits, of {len(data_sets)} data sets; authors: {listed}"
    )
    return {"counts": counts, "said": said}


def _values(file: Path, columns: tuple[str, str]) -> set[str]:
    """What stands in either column of a file, a batch in memory at a time."""
    found: set[str] = set()
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(columns=list(columns)):
            for column in batch.columns:
                found.update(pc.unique(column.drop_null()).to_pylist())
    return found
