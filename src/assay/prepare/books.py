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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from assay.data.storage import writing
from assay.data.syncing import replace_local
from assay.errors import InputError, RefusedError
from assay.prepare.chunks.plan import plan_chunks
from assay.prepare.chunks.verb import run_chunks, second_books
from assay.prepare.collecting import SplitCounts, SplitOf, collect
from assay.prepare.drawing import (
    PAIR_BOOKS_FILE,
    Models,
    PairsMaker,
    Say,
    Update,
    open_models,
)
from assay.prepare.folder import RECIPE_FILE, REPORT_FILE, WORK, at_work
from assay.prepare.listing import Listing, list_books
from assay.prepare.mined import open_miner
from assay.prepare.neighbours import NUM_SAMPLED
from assay.prepare.place import chunk_placement, worker_placement
from assay.prepare.report import BooksReport, SplitFigures, notes_of_second_books
from assay.prepare.samples import measure_leaks
from assay.prepare.settings import BooksSettings
from assay.prepare.shelving import Shelved, shelve
from assay.prepare.splits import author_keys, crossings, split_books
from assay.prepare.tables import Column
from assay.runs.manifest import Manifest
from assay.runs.parts import published_stats
from assay.runs.placement import Cluster
from assay.runs.run import Run, find_run, shown_differences
from assay.telemetry import printable

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
    settings: BooksSettings,
    *,
    watch: Watch = unwatched,
    say: Say = lambda _: None,
    shared: Path | None = None,
    cluster: Cluster | None = None,
) -> BooksReport:
    """Make the data set of pairs in `settings.out`, or go on making it; returns what it holds.

    `shared`: folder of the list of books and of their chunks, where several data sets of the same books have
    these in common; by default each data set has its own. `cluster`: where the workers are, for the executor `ray`;
    its machines see the books and both folders. Raises SourceError or InputError for books that
    cannot be used, RefusedError where the folder holds pairs of other settings.
    """
    clock = Clock()
    folder = Path(settings.out).absolute()
    open_models(settings)
    with at_work(folder):
        books = shared or folder / WORK
        with writing(str(books)):
            books.mkdir(parents=True, exist_ok=True)
        with clock.step("listing"):
            listing = _list(settings, books / "books.arrow")
            settings = replace(settings, cleaned=settings.cleaned or listing.is_cleaned)
        with clock.step("chunks"), watch("chunks") as update:
            rules = settings.chunk_rules()
            manifest = plan_chunks(rules, listing.path, bundle=settings.bundle, unit_rows=settings.unit_rows)
            _refuse_other(folder, manifest, books)
            made = run_chunks(
                rules,
                listing.path,
                str(books / f"chunks-{manifest.run_id[:12]}"),
                bundle=settings.bundle,
                placement=chunk_placement(settings.devices, cluster),
                unit_rows=settings.unit_rows,
                on_progress=update,
                on_message=lambda line: say(f"chunks    {line}"),
            )
        return pair_books(
            settings, listing, made.run, clock=clock, watch=watch, say=say, shared=shared, cluster=cluster
        )


def pair_books(
    settings: BooksSettings,
    listing: Listing,
    chunks: Run,
    *,
    clock: Clock,
    watch: Watch,
    say: Say,
    shared: Path | None = None,
    cluster: Cluster | None = None,
) -> BooksReport:
    """The second half: from a finished chunks run over `listing` to the files and the report."""
    folder = Path(settings.out).absolute()
    miner = open_miner(settings)
    with clock.step("duplicates"):
        shelved = shelve(
            chunks,
            len(listing.books),
            (shared or folder / WORK) / f"shelf-{chunks.manifest.run_id[:12]}",
            seed=settings.seed,
            say=say,
        )
    with clock.step("splits"):
        splits = _split(settings, listing, shelved)
    maker = PairsMaker(
        settings=settings, listing=listing, chunks=chunks, shelved=shelved, splits=splits, cluster=cluster
    )
    models = Models(runs={}, notes=[])
    neighbours = None
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
        manifest = maker.plan(
            PAIR_BOOKS_FILE, maker.rules(), neighbours=neighbours, chosen=chosen, mined=miner and miner[1]
        )
        _refuse_other(folder, manifest, maker.work)
        run = maker.run(
            manifest, f"pairs-{manifest.run_id[:12]}", update, lambda line: say(f"pairs     {line}")
        )
    with clock.step("files"):
        counts = collect(
            run,
            folder,
            splits=list(settings.shares()),
            split_of=SplitOf(listing.table.column("book_id"), splits),
            max_length=settings.max_length,
        )
        _refuse_nothing(counts["train"], splits.count("train"), not_had(run), settings)
    with clock.step("leaks"):
        models.notes.extend(notes_of_second_books(second_books(chunks)))
        report = _report(settings, listing, shelved, splits, counts, run, models)
    report.seconds.update(clock.seconds)
    with writing(str(folder)):
        replace_local(folder / RECIPE_FILE, recipe(settings, list(counts)).encode())
        replace_local(
            folder / REPORT_FILE, json.dumps(report.to_json(), indent=1, ensure_ascii=False).encode()
        )
    return report


def describe_books(settings: BooksSettings) -> str:
    """The books in a few lines, for `--dry-run`; no text is read whole."""
    with TemporaryDirectory() as scratch:
        return _described(settings, _list(settings, Path(scratch) / "books.arrow"))


def _described(settings: BooksSettings, listing: Listing) -> str:
    books = listing.books
    rules = settings.chunk_rules()
    size = (
        f"{rules.chunk_sentences} sentences" if rules.chunk_tokens is None else f"{rules.chunk_tokens} tokens"
    )
    return "\n".join(
        printable(line)
        for line in [
            (
                f"books     {len(books):,} by {_num_authors(listing):,} authors, "
                f"{_num_bytes(listing) / 1e6:,.1f} MB, the first is {books[0].book_id}"
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


def _num_authors(listing: Listing) -> int:
    return int(pc.count_distinct(listing.table.column("author_key")).as_py())


def _num_bytes(listing: Listing) -> int:
    return int(pc.sum(listing.table.column("size_bytes")).as_py())


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
        "# for --architecture siamese\n"
        'book_columns = ["book1", "book2"]\nauthor_columns = ["author1", "author2"]\n'
        f"max_length = {settings.max_length}\n"
    )


def _list(settings: BooksSettings, out: Path) -> Listing:
    """The books as a table in `out`; raises InputError where their authors alone show that they cannot be split."""
    listing = list_books(settings.source, settings.catalogue, out)
    keys = listing.table.column("author_key")
    num_authors = pc.count_distinct(keys, mode="only_valid").as_py()
    # A book without an author may turn out to have no chunk, and then it needs none.
    if settings.split_by == "author" and (
        num_authors == 0 or (not keys.null_count and num_authors < len(settings.shares()))
    ):
        split_books(
            listing.table.column("book_id").to_pylist(),
            keys.to_pylist(),
            range(len(keys)),
            by="author",
            shares=settings.shares(),
            seed=settings.seed,
        )
    return listing


def _split(settings: BooksSettings, listing: Listing, shelved: Shelved) -> list[str | None]:
    """The split of each book; None for one without chunks."""
    kept = np.flatnonzero(shelved.books.column("num_kept").to_numpy())
    if not len(kept):
        errors = Counter(Column[str | None](shelved.books.column("error")))
        shown = ", ".join(f"{code or 'too short'} {number:,}" for code, number in errors.most_common(3))
        raise InputError(
            f"none of {len(listing.books):,} books has a chunk ({shown}); give longer texts, or other chunk settings"
        )
    # the first of each group that has chunks, as its place among those
    _, firsts, groups = np.unique(
        shelved.books.column("tie").to_numpy()[kept], return_index=True, return_inverse=True
    )
    found = split_books(
        Column[str](listing.table.column("book_id"), kept),
        Column[str | None](listing.table.column("author_key"), kept),
        firsts[groups],
        by=settings.split_by,
        shares=settings.shares(),
        seed=settings.seed,
    )
    splits: list[str | None] = [None] * len(listing.books)
    for book, split in zip(kept.tolist(), found, strict=True):
        splits[book] = split
    return splits


def _refuse_other(folder: Path, manifest: Manifest, work: Path) -> None:
    """Raise RefusedError where the folder holds finished pairs of other settings; `work` has the runs of this kind."""
    path = folder / REPORT_FILE
    if not path.is_file():
        return
    made_by = json.loads(path.read_text(encoding="utf-8"))["runs"][manifest.kind]
    if made_by != manifest.run_id:
        earlier = find_run(str(work / f"{manifest.kind}-{made_by[:12]}"))
        changed = "" if earlier is None else f" ({shown_differences(earlier.manifest, manifest)})"
        raise RefusedError(
            f"{folder} holds pairs of other books or settings{changed}; use another --out, or the earlier settings"
        )


def _refuse_nothing(
    train: SplitCounts, num_books: int, missing: Mapping[str, int], settings: BooksSettings
) -> None:
    """Raise InputError where there is no positive or no negative to train on."""
    shown = ", ".join(f"{kind} {number:,}" for kind, number in missing.items())
    if not train.positives:
        way_out = (
            f"give longer books, or less than --min-gap-sentences {settings.min_gap_sentences}"
            if settings.task == "same_book"
            else "give several books by one author"
        )
        raise InputError(f"the training books give no positive pair (missing: {shown}); {way_out}")
    if train.positives == train.pairs and num_books == 1:
        raise InputError(
            "one book alone is left for training, and a negative pair needs two; add books, or do without a split "
            "(--test-share 0)"
        )
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
    table, found = listing.table, shelved.found
    ids = Column[str](table.column("book_id"))
    used = np.flatnonzero([split is not None for split in splits])
    used_splits = [splits[number] or "" for number in used]
    keys = Column[str | None](table.column("author_key"), used)
    editions = shelved.books.column("edition").to_numpy()[used]
    kept = shelved.books.column("num_kept").to_numpy()
    errors = Column[str | None](shelved.books.column("error"))
    notes = [*listing.notes, *found.notes, *models.notes]
    with_years = int(
        pc.sum(pc.or_(table.column("birth_year").is_valid(), table.column("death_year").is_valid())).as_py()
    )
    if "same_period" in settings.weights() and with_years < len(ids):
        notes.append(
            f"the author's years are known for {with_years:,} of {len(ids):,} books; the others get no negatives "
            "of the same period (--catalogue gives years)"
        )
    return BooksReport(
        source=settings.source,
        task=settings.task,
        seed=settings.seed,
        split_by=settings.split_by,
        books=len(ids),
        authors=_num_authors(listing),
        size_bytes=_num_bytes(listing),
        notes=notes,
        books_unused={ids[n]: errors[n] or "no chunk left" for n in np.flatnonzero(kept == 0).tolist()},
        chunks=found.num_chunks,
        chunks_dropped={
            "twice in a book": found.num_within,
            "in an earlier book too": found.num_across,
            "in more than three books": found.num_boilerplate,
        },
        near_duplicate_chunks=found.num_near,
        editions=[[ids[number] for number in group] for group in found.editions],
        shared_passages=sorted(
            ((ids[one], ids[other], share) for one, other, share in found.shares),
            key=lambda each: (-each[2], each[0], each[1]),
        ),
        splits={
            name: _figures(
                each,
                used_splits.count(name),
                {key for key, split in zip(keys, used_splits, strict=True) if split == name},
            )
            for name, each in counts.items()
        },
        crossings=_crossings(
            {"editions": editions, "books that share passages": shelved.books.column("tie").to_numpy()[used]},
            map(author_keys, keys) if settings.split_by == "author" else None,
            used_splits,
        ),
        not_had=not_had(run),
        leaks=measure_leaks(listing, shelved, used.tolist(), seed=settings.seed, is_cleaned=settings.cleaned),
        same_author_pairs_of_editions=_share_of_editions(keys, editions),
        max_length=settings.max_length,
        seconds={},
        runs={"chunks": found.chunks_run, **models.runs, "pairs": run.manifest.run_id},
    )


def _crossings(
    groups: Mapping[str, NDArray[np.int64]], authors: Iterable[list[str]] | None, splits: Sequence[str]
) -> dict[str, int]:
    """How many authors and groups of books lie in two splits, by kind; a book that is its own group cannot."""
    found = {} if authors is None else {"authors": len(crossings(authors, splits))}
    for name, values in groups.items():
        shared = np.flatnonzero(_is_shared(values)).tolist()
        found[name] = len(crossings(([int(values[book])] for book in shared), [splits[n] for n in shared]))
    return found


def _is_shared(groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which books share their group with another."""
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    shared: NDArray[np.bool_] = sizes[group_of] > 1
    return shared


def _share_of_editions(keys: Sequence[str | None], editions: NDArray[np.int64]) -> float | None:
    """Of the pairs of books by one author, the share that is one work; None where no author has two books."""
    by_author: Counter[str] = Counter()
    by_work: Counter[tuple[str, int]] = Counter()
    is_one_of_several = _is_shared(editions)
    for key, edition, is_counted in zip(keys, editions, is_one_of_several, strict=True):
        for author in author_keys(key):
            by_author[author] += 1
            if is_counted:
                by_work[author, int(edition)] += 1
    pairs = sum(math.comb(number, 2) for number in by_author.values())
    return sum(math.comb(number, 2) for number in by_work.values()) / pairs if pairs else None


def _figures(counts: SplitCounts, num_books: int, authors: set[str | None]) -> SplitFigures:
    counted = counts.with_tokens > 0
    return SplitFigures(
        books=num_books,
        authors=len(authors - {None}),
        pairs=counts.pairs,
        positives=counts.positives,
        negatives_by_kind=dict(sorted(counts.by_kind.items())),
        easy=counts.by_difficulty["easy"],
        hard=counts.by_difficulty["hard"],
        pairs_cut=counts.cut_pairs if counted else None,
        tokens_cut_share=counts.cut_tokens / counts.tokens if counted else None,
    )
