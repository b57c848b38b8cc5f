"""`assay gutenberg harvest`: the publisher's list for robots, one request every two seconds."""

import asyncio
from dataclasses import replace

from assay.errors import WorkError
from assay.extras import need_packages
from assay.gutenberg import rules
from assay.gutenberg.download import Downloader, Fetched, Timing, open_client
from assay.gutenberg.fetch import (
    MOST_FAILURES_IN_A_ROW,
    Say,
    Wish,
    bounds_of,
    file_answer,
    obtain,
    open_ingest,
)
from assay.gutenberg.harvesting import first_page, read_page
from assay.gutenberg.ingest import Gathered, Ingest, unzip_text
from assay.gutenberg.names import book_key
from assay.gutenberg.settings import HarvestSettings


def harvest(
    settings: HarvestSettings, *, on_message: Say | None = None, clock: Timing | None = None
) -> Gathered:
    """Follow the list to its end or to the limit; books in the folder are not asked for again.

    Raises the same errors as `fetch`.
    """
    need_packages("httpx", used_by="assay gutenberg harvest", extra="books")
    ingest = open_ingest(settings)
    return asyncio.run(_harvest(settings, ingest, on_message or (lambda _: None), clock))


async def _harvest(settings: HarvestSettings, ingest: Ingest, say: Say, clock: Timing | None) -> Gathered:
    gathered = Gathered(out=settings.out)
    async with open_client(settings.contact, settings.timeout_seconds) as client:
        # One request at a time, whatever the host: the list and the files it names count together.
        downloader = Downloader(
            client,
            bounds_of(settings, settings),
            pause_seconds=rules.HARVEST_PAUSE_SECONDS,
            one_queue=True,
            clock=clock,
        )
        try:
            await _walk(settings, downloader, ingest, gathered, say)
        finally:
            ingest.shelf.merge()
    return gathered


async def _walk(
    settings: HarvestSettings, downloader: Downloader, ingest: Ingest, gathered: Gathered, say: Say
) -> None:
    page_url: str | None = (
        settings.url if "?" in settings.url else first_page(settings.url, settings.languages)
    )
    seen: set[str] = set()
    failures = 0
    while page_url is not None and page_url not in seen:
        seen.add(page_url)
        answer = await downloader.get(page_url, html=True)
        if answer.kind != "ok":
            msg = (
                f"the list at {page_url} was not received ({answer.detail}); what was fetched is kept; "
                f"continue later with --url '{page_url}'"
            )
            raise WorkError(msg)
        page = read_page(answer.body.decode("utf-8", "replace"), answer.url)
        say(f"{page_url}: {len(page.books)} books")
        for number, url in page.books:
            key = book_key(number, url)
            if ingest.is_done(key):
                gathered.counts["already"] += 1
                continue
            if ingest.is_unwanted(number):
                gathered.counts["language"] += 1
                continue
            wish = Wish(key=key, gutenberg_id=number, urls=(url,))
            came = file_answer(
                wish,
                _unpacked(await obtain(wish, downloader, ingest.shelf), settings),
                "harvest",
                ingest,
                gathered,
            )
            say(f"{key}: {came}")
            failures = failures + 1 if came == "failed" else 0
            if failures >= MOST_FAILURES_IN_A_ROW:
                gathered.notes.append(f"stopped after {failures} failures in a row, on page {page_url}")
                return
            if settings.limit is not None and gathered.counts["new"] >= settings.limit:
                gathered.notes.append(f"stopped at the limit; continue with --url '{page_url}'")
                return
        page_url = page.next_url


def _unpacked(answer: Fetched, settings: HarvestSettings) -> Fetched:
    """The text inside a ZIP file; other answers as they are."""
    if answer.kind != "ok" or not answer.body.startswith(b"PK\x03\x04"):
        return answer
    text = unzip_text(answer.body, settings.max_book_bytes)
    if isinstance(text, str):
        return replace(answer, kind="not_text", body=b"", detail=text)
    return replace(answer, body=text)
