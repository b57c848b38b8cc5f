"""Finished embed runs as a source of vectors, and whether two of them can be compared.

An embed run keeps each row of its sources once, in order: `id` or `source_row`, `error`, and `embedding`, which is
null where there is an error.
"""

from collections.abc import Sequence

import pyarrow as pa

from assay.data.sources import SOURCE_ROW
from assay.errors import InputError, SourceError
from assay.runs.run import Run, open_run

KIND = "embed"
VECTOR = "embedding"
NEED_NOT_AGREE = frozenset(
    {"max_length", "on_long", "stride", "precision", "dtype", "normalised", "normalized", "normalize"}
    | {"deterministic", "prompt"}
)
"""What two embed runs may have done differently and still give vectors of one space."""


def open_vectors(urls: Sequence[str], flag: str) -> list[Run]:
    """The embed runs at `urls`; raises SourceError for one that is not an embed run or is not finished."""
    runs = [open_run(url.rstrip("/")) for url in urls]
    for run in runs:
        if run.manifest.kind != KIND:
            raise SourceError(
                f"{run.url} is a {run.manifest.kind} run; vectors come from an embed run: make one with "
                f"`assay embed` and give it to {flag}"
            )
        published, units = run.part_files(), run.units
        missing = sum(unit.name not in published for unit in units)
        if missing:
            raise SourceError(
                f"{missing} of {len(units)} units of the embed run {run.url} are not published; finish it first"
            )
        dimension(run)
    return runs


def dimension(run: Run) -> int:
    """The length of an embed run's vectors; raises SourceError where it has none."""
    schema = run.manifest.arrow_schema()
    kind = schema.field(VECTOR).type if VECTOR in schema.names else None
    if kind is None or not pa.types.is_fixed_size_list(kind):
        raise SourceError(
            f"{run.url} has no column {VECTOR!r} of vectors of one length; run `assay embed` again"
        )
    return int(kind.list_size)


def refuse_other_vectors(runs: Sequence[Run]) -> None:
    """Raise InputError unless the vectors of all runs are of one model, one pooling and one dimension."""
    first = runs[0]
    for other in runs[1:]:
        one, two = first.manifest.identity, other.manifest.identity
        differing = sorted(
            key for key in (one.keys() | two.keys()) - NEED_NOT_AGREE if one.get(key) != two.get(key)
        )
        if dimension(first) != dimension(other):
            differing.append(f"dimension ({dimension(first)} and {dimension(other)})")
        if differing:
            raise InputError(
                f"{first.url} and {other.url} differ in {', '.join(differing)}; only vectors of one model can be "
                "compared: embed both with the same bundle and settings"
            )


def id_kind(runs: Sequence[Run]) -> pa.DataType:
    """The type of the ids of the runs' rows; string where rows are only counted, in more than one source.

    Raises SourceError where runs have ids of several types, and for several runs without ids.
    """
    fields = [run.manifest.arrow_schema().field(0) for run in runs]
    if {field.name for field in fields} == {SOURCE_ROW}:
        if len(runs) > 1:
            raise SourceError(
                f"{len(runs)} embed runs without ids, {runs[0].url} and others; only ids tell their rows apart: "
                "embed with --id-column, or all sources in one run"
            )
        return pa.int64() if len(runs[0].manifest.sources) == 1 else pa.string()
    kinds = {field.type for field in fields}
    if len(kinds) > 1 or len({field.name for field in fields}) > 1:
        shown = ", ".join(f"{field.type} in {run.url}" for field, run in zip(fields, runs, strict=True))
        raise SourceError(f"ids are of several types ({shown}); embed again with ids of one type")
    return kinds.pop()
