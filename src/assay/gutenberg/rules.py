"""[pure] What may be requested from which server: addresses, redirects, pauses, and the publisher's own rules.

The publisher (Project Gutenberg) serves people. A program that wants more than about 100 books a day takes them from
a mirror, or follows the list for robots with 2 seconds between requests, and says in its User-Agent whom to write to.
"""

import email.utils
import re
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from assay._version import __version__
from assay.errors import UsageError

PUBLISHER = "gutenberg.org"
MOST_FROM_PUBLISHER = 100
"""Books that one command may ask the publisher's own site for."""
BASE_URL = "https://www.gutenberg.org/cache/epub"
MIRROR = "rsync://gutenberg.pglaf.org/gutenberg-epub"
HARVEST_URL = "https://www.gutenberg.org/robot/harvest"
HARVEST_PAUSE_SECONDS = 2.0
"""What the publisher asks of programs that follow its list for robots."""

SUFFIXES = (".txt", "-0.txt", ".txt.utf-8", "-utf8.txt", "-8.txt")
"""Names of a book's text after `pg{id}`, in the order in which they are tried: UTF-8 first."""
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
BLOCKED = frozenset({401, 403})
"""How a site says that it does not want the program: asking on would be rude."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 5
HTML = frozenset({"text/html", "application/xhtml+xml"})

FIRST_PAUSE_SECONDS = 0.5
JITTER_SECONDS = 0.25
_PORTS = {"http": 80, "https": 443}
_CONTACT = re.compile(r"\S+@\S+\.\S+|https?://\S+")


def candidates(base: str, gutenberg_id: int) -> list[str]:
    """The addresses where the text of a book may be, best first."""
    return [f"{base.rstrip('/')}/{gutenberg_id}/pg{gutenberg_id}{suffix}" for suffix in SUFFIXES]


def user_agent(contact: str | None) -> str:
    """How the program introduces itself; raises UsageError without a contact that could be written to."""
    if contact is None or not _CONTACT.fullmatch(contact.strip()) or not contact.strip().isascii():
        seen = "is missing" if not contact else f"is {contact!r}"
        raise UsageError(
            f"contact {seen}; the publisher asks for someone to write to; "
            "set an e-mail address or a page: --contact you@example.org"
        )
    return f"assay/{__version__} (+{contact.strip()})"


def is_publisher(url: str) -> bool:
    """Whether an address is one of the publisher's own site, not of a mirror elsewhere."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    return host == PUBLISHER or host.endswith("." + PUBLISHER)


def check_amount(num_books: int, base: str) -> None:
    """Raise UsageError where this number of books must come from a mirror."""
    if num_books > MOST_FROM_PUBLISHER and is_publisher(base):
        raise UsageError(
            f"{num_books:,} books from {urlsplit(base).hostname}; the site is for people, and allows programs about "
            f"{MOST_FROM_PUBLISHER} books a day; take them from a mirror: assay gutenberg sync, "
            "or --base with the address of a mirror"
        )


def check_url(url: str, name: str) -> None:
    """Raise UsageError for what is not an HTTP address."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise UsageError(f"{name} is {url!r}; it must be an http:// or https:// address; fix it")


def parse_ids(ids: Sequence[str], span: str | None) -> list[int]:
    """The numbers that `--ids` and `--range` name, each once, in ascending order; raises UsageError."""
    found: set[int] = set()
    for word in ",".join(ids).split(","):
        if not word.strip():
            continue
        if not re.fullmatch(r"[0-9]{1,9}", word.strip()) or int(word) < 1:
            raise UsageError(f"ids holds {word.strip()!r}; books are numbered from 1; write --ids 12,1342")
        found.add(int(word))
    if span is not None:
        match = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", span.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(
                f"range is {span!r}; it must be two book numbers, the smaller first; write --range 1-50"
            )
        found.update(range(int(match[1]), int(match[2]) + 1))
    return sorted(found)


def id_in_url(url: str) -> int | None:
    """The number of the book that an address names: `.../1342/pg1342.txt` and `.../1342-0.zip` name 1342."""
    parts = urlsplit(url).path.split("/")
    name = re.fullmatch(r"(?:pg)?([1-9][0-9]{0,8})(?:[-.].*)?", parts[-1])
    if name is not None:
        return int(name[1])
    folder = re.fullmatch(r"[1-9][0-9]{0,8}", parts[-2]) if len(parts) > 1 else None
    return int(folder[0]) if folder else None


def is_in_scope(start: str, target: str) -> bool:
    """Whether a redirect may be followed: to the same host, never from https to http.

    Hosts of the publisher count as one. The scheme may go up from http to https.
    """
    here, there = urlsplit(start), urlsplit(target)
    if there.scheme not in _PORTS or (here.scheme == "https" and there.scheme == "http"):
        return False
    if is_publisher(start) and is_publisher(target):
        return True
    if here.hostname != there.hostname:
        return False
    goes_up = here.scheme == "http" and there.scheme == "https"
    return _port(here) == _port(there) or (goes_up and _port(here) == 80 and _port(there) == 443)


def _port(parts: SplitResult) -> int:
    return parts.port or _PORTS[parts.scheme]


def pause_seconds(tries: int, draw: float) -> float:
    """Seconds to wait after failed try number `tries` (from 1): doubled each time, plus a random part."""
    return FIRST_PAUSE_SECONDS * 2.0 ** (tries - 1) + JITTER_SECONDS * draw


def retry_after_seconds(value: str | None, now: float) -> float | None:
    """Seconds that a `Retry-After` header asks for, given in seconds or as a date; None where it says nothing.

    `now` is Unix time.
    """
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, date.timestamp() - now)
