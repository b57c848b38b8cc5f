"""`assay mine`: plan the run, create it or join it, drive its workers until all is published."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from assay.embed.place import find_gpus
from assay.mine.plan import plan_mine
from assay.mine.settings import MineSettings
from assay.runs.drive import drive_workers
from assay.runs.driver import Outcome
from assay.runs.manifest import Manifest
from assay.runs.parts import published_stats
from assay.runs.placement import Cluster, Placement, place_workers, static_place
from assay.runs.run import Run
from assay.telemetry import Progress, format_number_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Yield:
    """What a finished run found, over all its parts."""

    num_rows: int
    num_negatives: int
    num_rows_out: int
    few: dict[str, int]
    """Rows whose anchor has fewer negatives than asked, by the rule that dropped most of its neighbours."""
    none: dict[str, int]
    """Rows whose anchor has none."""
    errors: dict[str, int]
    """Rows with an error code, those without a negative included."""

    def __str__(self) -> str:
        """A line each: negatives, anchors with few, anchors with none, other rows."""
        written = f"{format_number_of(self.num_rows_out, 'row')} written"
        rows_read = format_number_of(self.num_rows, "row")
        lines = [f"{format_number_of(self.num_negatives, 'negative')} for {rows_read}, {written}"]
        for found, words in ((self.few, "fewer negatives than asked"), (self.none, "no negative")):
            if found:
                rows = format_number_of(sum(found.values()), "row has", "rows have")
                lines.append(f"{rows} {words}; what dropped most of their neighbours: {_listed(found)}")
        others = {code: count for code, count in self.errors.items() if not code.startswith("no_negative")}
        if others:
            rows = format_number_of(sum(others.values()), "row was", "rows were")
            lines.append(f"{rows} not mined: {_listed(others)}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True, slots=True)
class MineResult:
    """What `mine` did, or with `dry_run` would do."""

    run_url: str
    manifest: Manifest
    placement: Placement
    outcome: Outcome | None
    """None for a dry run."""
    found: Yield | None
    """None for a dry run."""


def mine(
    settings: MineSettings,
    *,
    cluster: Cluster | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> MineResult:
    """Mine negatives for every row of the sources; go on where an earlier try stopped.

    Raises InputError for embed runs that cannot be compared, and the same errors as `tokenize`.
    """
    num_gpus = 0 if settings.index == "faiss" else len(find_gpus(cluster))
    placement = place_workers(
        settings.devices, num_gpus=num_gpus, num_threads=settings.num_threads, cluster=cluster
    )
    static_place(settings)
    manifest = plan_mine(settings)
    if settings.dry_run:
        return MineResult(
            run_url=settings.run, manifest=manifest, placement=placement, outcome=None, found=None
        )
    run, outcome = drive_workers(
        settings,
        manifest,
        "assay.mine.worker",
        placement,
        on_progress=on_progress,
        on_message=on_message,
    )
    return MineResult(
        run_url=run.url,
        manifest=run.manifest,
        placement=placement,
        outcome=outcome,
        found=read_yield(run),
    )


def read_yield(run: Run) -> Yield:
    """What the published parts of a run hold, from their footers."""
    total: Counter[str] = Counter()
    for stats in published_stats(run):
        total.update({key: value for key, value in stats.items() if isinstance(value, int)})

    def below(prefix: str) -> dict[str, int]:
        return {key.removeprefix(prefix): total[key] for key in sorted(total) if key.startswith(prefix)}

    return Yield(
        num_rows=total["num_rows"],
        num_negatives=total["num_negatives"],
        num_rows_out=total["num_rows_out"],
        few=below("few."),
        none=below("none."),
        errors=below("error."),
    )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(
        f"{count:,} {code}" for code, count in sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    )
