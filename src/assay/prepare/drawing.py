"""The runs between splits and files: which books are near, which candidates a model chooses, the pairs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pyarrow as pa

from assay.bundle.bundle import Bundle
from assay.bundle.embedder import load_embedder
from assay.prepare.folder import WORK
from assay.prepare.listing import Listing
from assay.prepare.mined import ChosenCandidates, likeliest, open_miner, score_candidates
from assay.prepare.neighbours import book_neighbours, embed_sample, write_sample
from assay.prepare.pairs.draw import Rules, candidate_rules
from assay.prepare.pairs.kind import MinedIdentity
from assay.prepare.pairs.partners import NegativeKind
from assay.prepare.pairs.plan import BOOKS_SCHEMA, plan_pairs
from assay.prepare.pairs.work import PairsWork
from assay.prepare.place import BOOKS_OF_A_WORKER, place_few, worker_placement
from assay.prepare.settings import BooksSettings
from assay.prepare.shelf import Shelf
from assay.prepare.shelving import Shelved
from assay.prepare.tables import BATCH_BOOKS, Column, write_table
from assay.runs.drive import drive_run
from assay.runs.manifest import Manifest
from assay.runs.parts import published_stats
from assay.runs.placement import Cluster
from assay.runs.run import Run
from assay.telemetry import Progress

PAIR_BOOKS_FILE = "pair_books.arrow"
Say = Callable[[str], None]
Update = Callable[[Progress], None] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Models:
    """What models had a part in, as steps with models come to it."""

    runs: dict[str, str]
    """Ids of their runs."""
    notes: list[str]


def open_models(settings: BooksSettings) -> None:
    """Raise BundleError where a model cannot do what it is asked for, before hours of other work."""
    open_miner(settings)
    if settings.embed_with is not None:
        load_embedder(settings.embed_with)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairsMaker:
    """The runs between splits and files."""

    settings: BooksSettings
    listing: Listing
    chunks: Run
    shelved: Shelved
    splits: list[str | None]
    cluster: Cluster | None = None
    """Where its runs have their workers; None for this machine."""

    @property
    def work(self) -> Path:
        """Folder of the runs."""
        return Path(self.settings.out).absolute() / WORK

    def rules(self) -> Rules:
        """What is drawn of a book."""
        settings = self.settings
        return Rules(
            task=settings.task,
            positives=settings.positives,
            negatives=settings.negatives,
            weights=cast("dict[NegativeKind, float]", settings.weights()),
            num_chunks=settings.chunks_per_side,
            sides=settings.sides,
            seed=settings.seed,
        )

    def neighbours(self, encoder: str, models: Models, update: Update, say: Say) -> list[list[int]]:
        """For each book those that are near by the vectors of an encoder."""
        ids = Column[str](self.listing.table.column("book_id"))
        sample = self.work / "sample.parquet"
        dropped = Column[list[int]](self.shelved.books.column("dropped"))
        content = write_sample(Shelf(self.shelved.chunks), ids, dropped, sample)
        fingerprint = load_embedder(encoder).fingerprint
        run = embed_sample(
            sample,
            str(self.work / f"vectors-{content[:12]}-{fingerprint[:12]}"),
            encoder=encoder,
            devices=self.settings.devices,
            cluster=self.cluster,
            on_progress=update,
            on_message=lambda line: say(f"vectors   {line}"),
        )
        models.runs["vectors"] = run.manifest.run_id
        models.notes.append(
            f"books are near by {run.manifest.planned_rows:,} vectors of {encoder} ({fingerprint[:12]})"
        )
        return book_neighbours(run, ids)

    def candidates(self, mined: MinedIdentity, update: Update, say: Say) -> Run:
        """The finished run of the candidates, of which a model chooses; those of a book lie in its split."""
        manifest = self.plan("candidate_books.arrow", candidate_rules(self.rules(), mined.trials))
        return self.run(
            manifest,
            f"candidates-{manifest.run_id[:12]}",
            update,
            lambda line: say(f"mined     {line}"),
        )

    def choose(
        self, candidates: Run, bundle: Bundle, mined: MinedIdentity, models: Models, update: Update, say: Say
    ) -> ChosenCandidates | None:
        """The candidates that a model takes for positives; None where there is no candidate."""
        models.runs["candidates"] = candidates.manifest.run_id
        if not any(stats["num_pairs"] for stats in published_stats(candidates)):
            models.notes.append("no candidate can be drawn of these books; nothing is mined")
            return None
        scores = score_candidates(
            candidates,
            str(self.work / f"scores-{candidates.manifest.run_id[:12]}-{bundle.fingerprint[:12]}"),
            bundle=str(bundle.path),
            devices=self.settings.devices,
            cluster=self.cluster,
            on_progress=update,
            on_message=lambda line: say(f"scores    {line}"),
        )
        chosen = likeliest(
            scores, mined.label, num_books=len(self.listing.books), most=self.settings.negatives
        )
        models.runs["scores"] = scores.manifest.run_id
        models.notes.append(
            f"{chosen.num_candidates:,} candidates scored by {mined.label!r} of {bundle.path} "
            f"({bundle.fingerprint[:12]}), {chosen.num_unscored:,} without a score; the likeliest became negatives"
        )
        return chosen

    def plan(
        self,
        name: str,
        rules: Rules,
        *,
        neighbours: Sequence[Sequence[int]] | None = None,
        chosen: ChosenCandidates | None = None,
        mined: MinedIdentity | None = None,
    ) -> Manifest:
        """The plan of a pairs run over a table of the books, which is kept under a name."""
        path = self.work / name
        write_table(
            path,
            BOOKS_SCHEMA,
            lambda: pairs_source(self.listing, self.shelved, self.splits, neighbours, chosen),
        )
        return plan_pairs(
            path,
            self.shelved.chunks,
            chunks=self.chunks.manifest.run_id,
            rules=rules,
            min_gap_sentences=self.settings.min_gap_sentences,
            unit_rows=self.settings.unit_rows,
            mined=mined,
        )

    def run(self, manifest: Manifest, name: str, update: Update, say: Say) -> Run:
        """A finished pairs run."""
        placement = worker_placement(
            self.settings.devices,
            most=-(-len(self.listing.books) // BOOKS_OF_A_WORKER),
            cluster=self.cluster,
        )
        run, _ = drive_run(
            str(self.work / name),
            manifest,
            lambda run: place_few(
                "assay.prepare.pairs.worker", run, placement, lambda: PairsWork(run.manifest), alone=True
            ),
            on_progress=update,
            on_message=say,
        )
        return run


def pairs_source(
    listing: Listing,
    shelved: Shelved,
    splits: Sequence[str | None],
    neighbours: Sequence[Sequence[int]] | None = None,
    chosen: ChosenCandidates | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows of the table of books that the pairs run reads."""
    tables = {
        name: table.column(name) for table in (listing.table, shelved.books) for name in table.column_names
    }
    for begin in range(0, len(splits), BATCH_BOOKS):
        count = min(len(splits) - begin, BATCH_BOOKS)
        nothing: list[tuple[int, ...]] = [()] * count
        columns = {
            **{name: column.slice(begin, count).combine_chunks() for name, column in tables.items()},
            "split": splits[begin : begin + count],
            "neighbours": nothing if neighbours is None else neighbours[begin : begin + count],
            "mined": nothing if chosen is None else chosen.numbers.slice(begin, count),
            "mined_probability": nothing if chosen is None else chosen.probabilities.slice(begin, count),
        }
        arrays = [
            column.cast(field.type) if isinstance(column, pa.Array) else pa.array(column, field.type)
            for field in BOOKS_SCHEMA
            for column in [columns[field.name]]
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=BOOKS_SCHEMA)
