"""[pure] What a page of the publisher's list for robots offers: files of books, and the next page."""

from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit

from assay.gutenberg.mirroring import preference
from assay.gutenberg.rules import id_in_url

ENDINGS = (".txt", ".zip", ".txt.utf-8", ".txt.utf8")


@dataclass(frozen=True, kw_only=True, slots=True)
class HarvestPage:
    """One page of the list."""

    books: tuple[tuple[int, str], ...]
    """Number and address of each book's best file, in the order of the page."""
    next_url: str | None
    """The page after it; None for the last one."""


class _Links(HTMLParser):
    """Collects the targets of all links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def first_page(base: str, languages: Sequence[str]) -> str:
    """The address of the list's first page: text files, in the languages given."""
    query = [("filetypes[]", "txt"), *(("langs[]", language) for language in languages)]
    return f"{base}?{urlencode(query)}"


def read_page(html: str, url: str) -> HarvestPage:
    """What a page offers; `url` is its own address, against which its links are read.

    The list names a book's encodings one by one; the best of each book is kept.
    """
    links = _Links()
    links.feed(html)
    best: dict[int, str] = {}
    next_url = None
    here = urlsplit(url)
    for link in links.found:
        target = urljoin(url, link.strip())
        parts = urlsplit(target)
        if parts.scheme not in {"http", "https"}:
            continue
        if parts.path == here.path and parts.netloc == here.netloc and "offset=" in parts.query:
            next_url = target if target != url else None
            continue
        number = id_in_url(target)
        if number is None or not parts.path.endswith(ENDINGS):
            continue
        if number not in best or preference(parts.path) > preference(best[number]):
            best[number] = target
    return HarvestPage(books=tuple(best.items()), next_url=next_url)
