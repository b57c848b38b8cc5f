"""Whose rows the scores of a run are: its sources', or those that its token parts were made from."""

from dataclasses import dataclass

from assay.data.sources import Source
from assay.errors import RefusedError
from assay.runs.manifest import Manifest
from assay.runs.plan import Unit, units_of
from assay.runs.run import PARTS, Run, find_run, part_path
from assay.score.kind import SCORE


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """The sources that the scores of `run` go onto."""

    run: Run
    token_run: Run | None
    """The tokenize run that was scored; None where the run read the sources itself."""
    manifest: Manifest
    """Of the run that read the sources; the planned rows of each are those that have scores."""
    units: tuple[tuple[Unit, ...], ...]
    """For each source the units of `run` that hold its scores, in row order."""

    def inputs(self, source: int) -> list[Source]:
        """All that must be as it was for the scores to be this source's: itself, and its token parts."""
        found = [self.manifest.source(source)]
        if self.token_run is not None:
            parts = dict.fromkeys(unit.source for unit in self.units[source])
            found += [self.run.manifest.source(part) for part in parts]
        return found


def corpus_of(run: Run) -> Corpus:
    """The corpus of a run of scores or vectors; raises RefusedError where the tokenize run it scored is not there."""
    records = run.manifest.sources
    units = [tuple(units_of(index, record.name, record.boundaries)) for index, record in enumerate(records)]
    recorded = run.manifest.read(SCORE)[1].token_run if run.manifest.kind == SCORE.name else None
    if recorded is None:
        return Corpus(run=run, token_run=None, manifest=run.manifest, units=tuple(units))
    token_run = find_run(recorded.url)
    scored = [(PARTS + record.uri.rpartition("/")[2], record.num_rows) for record in records]
    if (
        token_run is None
        or token_run.manifest.run_id != recorded.run_id
        or [(part_path(unit), unit.num_rows) for unit in token_run.units] != scored
    ):
        msg = (
            f"{recorded.url} no longer holds the tokenize run that {run.url} scored; "
            "put it back as it was, or score again into a new run"
        )
        raise RefusedError(msg)
    # The token parts were scored in row order, so the units of one source are in row order too, and
    # those of a trial (`--limit-rows`) are its first rows.
    joined: list[list[Unit]] = [[] for _ in token_run.manifest.sources]
    for token_unit, part_units in zip(token_run.units, units, strict=True):
        joined[token_unit.source] += part_units
    sources = tuple(
        record.model_copy(update={"boundaries": (0, sum(unit.num_rows for unit in found)) if found else ()})
        for record, found in zip(token_run.manifest.sources, joined, strict=True)
    )
    return Corpus(
        run=run,
        token_run=token_run,
        manifest=token_run.manifest.model_copy(update={"sources": sources}),
        units=tuple(tuple(found) for found in joined),
    )
