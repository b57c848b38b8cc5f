"""`assay prepare books`: a folder of books to files of pairs that `assay train` takes.

    list -> chunks run -> shelf (duplicates, editions) -> splits -> pairs run -> files -> report

With an encoder an embed run says between splits and pairs which books are near, and with a pair classifier a
scoring run which candidates are mistaken for positives.

Each step finds what an earlier try left and goes on from there.
"""

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from assay.data.storage import writing
from assay.data.syncing import replace_local
from assay.errors import InputError, RefusedError
from assay.prepare.chunks.plan import plan_chunks
from assay.prepare.chunks.verb import run_chunks
from assay.prepare.collecting import SplitCounts, collect
from assay.prepare.drawing import (
    PAIR_BOOKS_FILE,
    WORK,
    Models,
    PairsMaker,
    Say,
    Update,
    open_models,
    pairs_source,
    write_table,
)
from assay.prepare.listing import Book, Listing, list_books
from assay.prepare.mined import open_miner
from assay.prepare.neighbours import NUM_SAMPLED
from assay.prepare.place import worker_placement
from assay.prepare.report import BooksReport, SplitFigures
from assay.prepare.samples import measure_leaks
from assay.prepare.settings import BooksSettings
from assay.prepare.shelving import Shelved, shelve
from assay.prepare.splits import author_keys, crossings, split_books
from assay.runs.parts import published_stats
from assay.runs.run import Run

REPORT_FILE = "report.json"
RECIPE_FILE = "train.toml"
Watch = Callable[[str], AbstractContextManager[Update]]
"""Shows the progress of a step by its name."""


@contextmanager
def unwatched(_: str) -> Iterator[None]:
    """Shows nothing."""
    yield None


@dataclass(kw_only=True, slots=True)
class Clock:
    """Seconds by step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started


def prepare_books(
    settings: BooksSettings, *, watch: Watch = unwatched, say: Say = lambda _: None
) -> BooksReport:
    """Make the data set of pairs in `settings.out`, or go on making it; returns what it holds.

    Raises SourceError or InputError for books that cannot be used, RefusedError where the folder holds pairs of
    other settings.
    """
    clock = Clock()
    folder = Path(settings.out).absolute()
    open_models(settings)
    with writing(str(folder)):
        (folder / WORK).mkdir(parents=True, exist_ok=True)
    with clock.step("listing"):
        listing = list_books(settings.source, settings.catalogue)
        settings = replace(settings, cleaned=settings.cleaned or listing.is_cleaned)
        books = folder / WORK / "books.parquet"
        write_table(listing.table(), books)
    with clock.step("chunks"), watch("chunks") as update:
        rules = settings.chunk_rules()
        manifest = plan_chunks(rules, books, bundle=settings.bundle, unit_rows=settings.unit_rows)
        made = run_chunks(
            rules,
            books,
            str(folder / WORK / f"chunks-{manifest.run_id[:12]}"),
            bundle=settings.bundle,
            devices=str(worker_placement(settings.devices).num_workers),
            unit_rows=settings.unit_rows,
            on_progress=update,
            on_message=say,
        )
    return pair_books(settings, listing, made.run, clock=clock, watch=watch, say=say)


def pair_books(
    settings: BooksSettings, listing: Listing, chunks: Run, *, clock: Clock, watch: Watch, say: Say
) -> BooksReport:
    """The second half: from a finished chunks run over `listing` to the files and the report."""
    folder = Path(settings.out).absolute()
    miner = open_miner(settings)
    with clock.step("duplicates"):
        shelved = shelve(
            chunks,
            len(listing.books),
            folder / WORK / f"shelf-{chunks.manifest.run_id[:12]}",
            seed=settings.seed,
            say=say,
        )
    with clock.step("splits"):
        splits = _split(settings, listing, shelved)
    maker = PairsMaker(settings=settings, listing=listing, chunks=chunks, shelved=shelved, splits=splits)
    models = Models(runs={}, notes=[])
    neighbours: list[list[int]] = [[] for _ in listing.books]
    if settings.embed_with is not None:
        with clock.step("vectors"), watch("vectors") as update:
            neighbours = maker.neighbours(settings.embed_with, models, update, say)
    chosen = None
    if miner is not None:
        with clock.step("candidates"), watch("candidates") as update:
            candidates = maker.candidates(miner[1], update, say)
        with clock.step("scores"), watch("scores") as update:
            chosen = maker.choose(candidates, *miner, models, update, say)
    with clock.step("pairs"), watch("pairs") as update:
        table = pairs_source(listing, shelved, splits, neighbours, chosen)
        manifest = maker.plan(table, PAIR_BOOKS_FILE, maker.rules(), miner and miner[1])
        _refuse_other(folder, manifest.run_id)
        run = maker.run(manifest, f"pairs-{manifest.run_id[:12]}", update, say)
    with clock.step("files"):
        split_of = dict(zip((book.book_id for book in listing.books), splits, strict=True))
        counts = collect(
            run, folder, splits=list(settings.shares()), split_of=split_of, max_length=settings.max_length
        )
        _refuse_nothing(counts["train"], not_had(run), settings)
    with clock.step("leaks"):
        report = _report(settings, listing, shelved, splits, counts, run, models)
    report.seconds.update(clock.seconds)
    replace_local(folder / RECIPE_FILE, recipe(settings, list(counts)).encode())
    replace_local(folder / REPORT_FILE, json.dumps(report.to_json(), indent=1, ensure_ascii=False).encode())
    return report


def describe_books(settings: BooksSettings) -> str:
    """The books in a few lines, for `--dry-run`; no text is read whole."""
    listing = list_books(settings.source, settings.catalogue)
    books = listing.books
    rules = settings.chunk_rules()
    size = (
        f"{rules.chunk_sentences} sentences" if rules.chunk_tokens is None else f"{rules.chunk_tokens} tokens"
    )
    return "\n".join(
        [
            (
                f"books     {len(books):,} by {len({book.author_key for book in books} - {None}):,} authors, "
                f"{sum(book.size_bytes for book in books) / 1e6:,.1f} MB, the first is {books[0].book_id}"
            ),
            *(f"          {note}" for note in listing.notes),
            f"chunks    of {size} at most" if rules.chunk_tokens else f"chunks    of {size}",
            (
                f"splits    {', '.join(f'{name} {share:.0%}' for name, share in settings.shares().items())} "
                f"by {settings.split_by}"
            ),
            f"pairs     {settings.task}, {settings.positives} positive and {settings.negatives} negative a book",
            *_describe_models(settings, len(books)),
            f"workers   {worker_placement(settings.devices)}",
        ]
    )


def _describe_models(settings: BooksSettings, num_books: int) -> list[str]:
    """A line for each model that has a part in the pairs; raises BundleError where it cannot have one."""
    open_models(settings)
    lines = []
    if settings.embed_with is not None:
        lines.append(f"vectors   of up to {NUM_SAMPLED} chunks a book, by {settings.embed_with}")
    if settings.mine_with is not None:
        trials = settings.mine_trials
        lines.append(
            f"mined     {trials} candidates a book, up to {trials * num_books:,}, scored by {settings.mine_with}"
        )
    return lines


def not_had(run: Run) -> dict[str, int]:
    """Pairs of a finished pairs run that could not be had, by kind."""
    missing: Counter[str] = Counter()
    for stats in published_stats(run):
        missing.update(stats["not_had"])
    return dict(sorted(missing.items()))


def recipe(settings: BooksSettings, splits: list[str]) -> str:
    """A config file for `assay train` on the pairs."""
    validation = 'validation_data = ["validation.parquet"]\n' if "validation" in splits else ""
    return (
        f"# Pairs of {settings.task}; from within this folder:\n"
        "#   assay train train.toml --base ENCODER --out model\n"
        f'data = ["train.parquet"]\n{validation}'
        'task = "single_label"\n'
        'text_column = "text1"\ntext_pair_column = "text2"\nlabel_column = "label"\n'
        f"max_length = {settings.max_length}\n"
    )


def _split(settings: BooksSettings, listing: Listing, shelved: Shelved) -> list[str | None]:
    """The split of each book; None for one without chunks."""
    kept = [book for book, number in enumerate(shelved.books.column("num_kept").to_pylist()) if number]
    if not kept:
        errors = Counter(shelved.books.column("error").to_pylist())
        shown = ", ".join(f"{code or 'too short'} {number:,}" for code, number in errors.most_common(3))
        raise InputError(
            f"none of {len(listing.books):,} books has a chunk ({shown}); give longer texts, or other chunk settings"
        )
    splits: list[str | None] = [None] * len(listing.books)
    ties = shelved.books.column("tie").to_pylist()
    place = {book: row for row, book in enumerate(kept)}
    first_of: dict[int, int] = {}
    found = split_books(
        [listing.books[book].book_id for book in kept],
        [listing.books[book].author_key for book in kept],
        [first_of.setdefault(ties[book], place[book]) for book in kept],
        by=settings.split_by,
        shares=settings.shares(),
        seed=settings.seed,
    )
    for book, split in zip(kept, found, strict=True):
        splits[book] = split
    return splits


def _refuse_other(folder: Path, run_id: str) -> None:
    """Raise RefusedError where the folder holds finished pairs of other settings."""
    path = folder / REPORT_FILE
    if not path.is_file():
        return
    made_by = json.loads(path.read_text(encoding="utf-8"))["runs"]["pairs"]
    if made_by != run_id:
        msg = (
            f"{folder} holds pairs of other books or settings ({made_by[:12]}, now {run_id[:12]}); "
            "use another --out, or the earlier settings"
        )
        raise RefusedError(msg)


def _refuse_nothing(train: SplitCounts, missing: Mapping[str, int], settings: BooksSettings) -> None:
    """Raise InputError where there is no positive or no negative to train on."""
    shown = ", ".join(f"{kind} {number:,}" for kind, number in missing.items())
    if not train.positives:
        way_out = (
            f"give longer books, or less than --min-gap-sentences {settings.min_gap_sentences}"
            if settings.task == "same_book"
            else "give several books by one author"
        )
        raise InputError(f"the training books give no positive pair (missing: {shown}); {way_out}")
    if train.positives == train.pairs:
        raise InputError(
            f"the training books give no negative pair (missing: {shown}); add books by other authors, "
            "or give other kinds a weight"
        )


# ---------------------------------------------------------------- what is said of it


def _report(
    settings: BooksSettings,
    listing: Listing,
    shelved: Shelved,
    splits: list[str | None],
    counts: Mapping[str, SplitCounts],
    run: Run,
    models: Models,
) -> BooksReport:
    books, found = listing.books, shelved.found
    ids = [book.book_id for book in books]
    used = [number for number, split in enumerate(splits) if split is not None]
    used_splits = [splits[number] or "" for number in used]
    editions = shelved.books.column("edition").to_pylist()
    ties = shelved.books.column("tie").to_pylist()
    shares = {(one, other): share for one, other, share in found.shares}
    kept = shelved.books.column("num_kept").to_pylist()
    errors = shelved.books.column("error").to_pylist()
    notes = [*listing.notes, *found.notes, *models.notes]
    with_years = sum(book.birth_year is not None or book.death_year is not None for book in books)
    if "same_period" in settings.weights() and with_years < len(books):
        notes.append(
            f"the author's years are known for {with_years:,} of {len(books):,} books; the others get no negatives "
            "of the same period (--catalogue gives years)"
        )
    crossing = {
        "authors": [author_keys(books[number].author_key) for number in used],
        "editions": [[editions[number]] for number in used],
        "books that share passages": [[ties[number]] for number in used],
    }
    return BooksReport(
        source=settings.source,
        task=settings.task,
        seed=settings.seed,
        split_by=settings.split_by,
        books=len(books),
        authors=len({book.author_key for book in books} - {None}),
        size_bytes=sum(book.size_bytes for book in books),
        notes=notes,
        books_unused={ids[n]: errors[n] or "no chunk left" for n in range(len(books)) if not kept[n]},
        chunks=found.num_chunks,
        chunks_dropped={
            "twice in a book": found.num_within,
            "in an earlier book too": found.num_across,
            "in more than three books": found.num_boilerplate,
        },
        near_duplicate_chunks=found.num_near,
        editions=[[ids[number] for number in group] for group in found.editions],
        shared_passages=sorted(
            ((ids[one], ids[other], share) for (one, other), share in shares.items()),
            key=lambda each: (-each[2], each[0], each[1]),
        ),
        splits={
            name: _figures(each, [books[n] for n in used if splits[n] == name])
            for name, each in counts.items()
        },
        crossings={
            name: len(crossings(values, used_splits))
            for name, values in crossing.items()
            if name != "authors" or settings.split_by == "author"
        },
        not_had=not_had(run),
        leaks=measure_leaks(listing, shelved, used, seed=settings.seed, is_cleaned=settings.cleaned),
        same_author_pairs_of_editions=_share_of_editions(
            [books[n] for n in used], [editions[n] for n in used]
        ),
        max_length=settings.max_length,
        seconds={},
        runs={"chunks": found.chunks_run, **models.runs, "pairs": run.manifest.run_id},
    )


def _share_of_editions(books: list[Book], editions: list[int]) -> float | None:
    """Of the pairs of books by one author, the share that is one work; None where no author has two books."""
    by_author: Counter[str] = Counter()
    by_work: Counter[tuple[str, int]] = Counter()
    for book, edition in zip(books, editions, strict=True):
        for author in author_keys(book.author_key):
            by_author[author] += 1
            by_work[author, edition] += 1
    pairs = sum(math.comb(number, 2) for number in by_author.values())
    return sum(math.comb(number, 2) for number in by_work.values()) / pairs if pairs else None


def _figures(counts: SplitCounts, books: list[Book]) -> SplitFigures:
    counted = counts.with_tokens > 0
    return SplitFigures(
        books=len(books),
        authors=len({book.author_key for book in books} - {None}),
        pairs=counts.pairs,
        positives=counts.positives,
        negatives_by_kind=dict(sorted(counts.by_kind.items())),
        easy=counts.by_difficulty["easy"],
        hard=counts.by_difficulty["hard"],
        pairs_cut=counts.cut_pairs if counted else None,
        tokens_cut_share=counts.cut_tokens / counts.tokens if counted else None,
    )
