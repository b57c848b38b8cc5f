"""`assay gutenberg fetch`: single books over HTTP, in the order of their numbers."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from assay.extras import need_packages
from assay.gutenberg import rules
from assay.gutenberg.download import Bounds, Downloader, Fetched, Timing, open_client
from assay.gutenberg.ingest import Arrival, Gathered, Ingest
from assay.gutenberg.markers import is_cut_short
from assay.gutenberg.names import book_key
from assay.gutenberg.settings import FetchSettings, Patience, ShelfSettings
from assay.gutenberg.shelf import TextShelf

MOST_FAILURES_IN_A_ROW = 5
AHEAD = 4
"""Books asked for ahead of the one to be filed next, for each connection."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """A book to ask for, and the addresses where it may be, best first."""

    key: str
    gutenberg_id: int | None
    urls: tuple[str, ...]


def fetch(settings: FetchSettings, *, on_message: Say | None = None, clock: Timing | None = None) -> Gathered:
    """Fetch the books that are not in the folder yet; go on where an earlier try stopped.

    Raises UsageError, SourceError for an index of another version, WorkError where the host is down.
    """
    need_packages("httpx", used_by="assay gutenberg fetch", extra="books")
    ingest = open_ingest(settings)
    return asyncio.run(_fetch(settings, ingest, on_message or (lambda _: None), clock))


def wishes(settings: FetchSettings) -> list[Wish]:
    """What the settings ask for."""
    if settings.url is not None:
        number = rules.id_in_url(settings.url)
        return [Wish(key=book_key(number, settings.url), gutenberg_id=number, urls=(settings.url,))]
    return [
        Wish(
            key=book_key(number, ""), gutenberg_id=number, urls=tuple(rules.candidates(settings.base, number))
        )
        for number in rules.parse_ids(settings.ids, settings.range)
    ]


def open_ingest(settings: ShelfSettings) -> Ingest:
    """The folder of the settings, ready for filing."""
    return Ingest(
        TextShelf(settings.out),
        languages=settings.languages,
        catalogue=settings.catalogue,
        keep_raw=settings.keep_raw,
        again=settings.again,
    )


def bounds_of(settings: ShelfSettings, patience: Patience) -> Bounds:
    """What one file may take, by the settings."""
    return Bounds(
        max_bytes=settings.max_book_bytes,
        timeout_seconds=patience.timeout_seconds,
        tries=patience.tries,
        max_wait_seconds=patience.max_wait_seconds,
    )


async def _fetch(settings: FetchSettings, ingest: Ingest, say: Say, clock: Timing | None) -> Gathered:
    gathered = Gathered(out=settings.out)
    asked = []
    for wish in wishes(settings):
        if ingest.is_done(wish.key, wish.urls[0]):
            gathered.counts["already"] += 1
        elif wish.gutenberg_id is not None and ingest.is_unwanted(wish.gutenberg_id):
            gathered.counts["language"] += 1
        else:
            asked.append(wish)
    async with open_client(settings.contact, settings.timeout_seconds) as client:
        downloader = Downloader(
            client, bounds_of(settings, settings), connections=settings.connections, clock=clock
        )
        try:
            await _file_in_order(asked, settings.connections * AHEAD, downloader, ingest, gathered, say)
        finally:
            ingest.shelf.merge()
    return gathered


async def _file_in_order(
    asked: Sequence[Wish], ahead: int, downloader: Downloader, ingest: Ingest, gathered: Gathered, say: Say
) -> None:
    """Ask for some books ahead, and file them in order, so that names never depend on who answers first."""
    tasks: list[asyncio.Task[Fetched]] = []
    failures = 0
    try:
        for at, wish in enumerate(asked):
            while len(tasks) < min(len(asked), at + ahead):
                tasks.append(asyncio.create_task(obtain(asked[len(tasks)], downloader, ingest.shelf)))
            answer = await tasks[at]
            came = file_answer(wish, answer, "fetch", ingest, gathered)
            say(f"{wish.key}: {came}")
            failures = failures + 1 if came == "failed" else 0
            if failures >= MOST_FAILURES_IN_A_ROW:
                gathered.notes.append(
                    f"stopped after {failures} failures in a row; the rest was not requested"
                )
                return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def obtain(wish: Wish, downloader: Downloader, shelf: TextShelf) -> Fetched:
    """The body of a book from the first address that gives one, or what the addresses gave instead.

    A body that an earlier command left is taken from the folder; a new one is kept there until it is filed.
    """
    kept = shelf.incoming(wish.key)
    if kept is not None:
        return Fetched(kind="ok", url=kept[0], body=kept[1])
    others: list[Fetched] = []
    for url in wish.urls:
        answer = await downloader.get(url)
        if answer.kind == "ok" and is_cut_short(answer.body):
            answer = Fetched(kind="failed", url=url, detail="cut short: its closing line is missing")
        if answer.kind == "ok":
            shelf.keep_incoming(wish.key, answer.url, answer.body)
            return answer
        others.append(answer)
    # what may pass comes first, then what says more than that nothing is there
    order = ("failed", "out_of_scope", "too_large", "not_text", "missing")
    return min(others, key=lambda answer: order.index(answer.kind))


def file_answer(wish: Wish, answer: Fetched, source: str, ingest: Ingest, gathered: Gathered) -> str:
    """File what came for a wish, or remember why nothing did; returns what is counted."""
    arrival = Arrival(source=source, url=answer.url, gutenberg_id=wish.gutenberg_id, content=answer.body)
    if answer.kind == "ok":
        came = ingest.take(arrival)
    elif answer.kind in {"failed", "out_of_scope"}:
        gathered.failed.append((wish.key, answer.detail))
        return "failed"
    else:
        came = ingest.pass_over(wish.key, answer.kind, answer.detail, arrival)
    gathered.counts[came] += 1
    return came
