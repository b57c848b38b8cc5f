"""What a user may set for `assay gutenberg`. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass, field

from assay.errors import UsageError
from assay.gutenberg import rules
from assay.settings import COUNT, Settings, within

_DAY_SECONDS = 86_400


@dataclass(frozen=True, kw_only=True)
class ShelfSettings(Settings):
    """Where books go, and which are wanted."""

    out: str
    """Folder for the texts and their index; made, or continued."""
    languages: tuple[str, ...] = ()
    """Keep books in these languages alone (ISO 639-1: en pl); a book that names no language is kept."""
    catalogue: str | None = None
    """The publisher's pg_catalog.csv: life years of authors, and what a book does not say of itself."""
    keep_raw: bool = False
    """Keep the bytes as they came, in raw/."""
    again: bool = False
    """Ask again for books that were passed over earlier: missing, quarantined, in another language."""
    max_book_mib: float = field(default=64.0, metadata=within(above=0, at_most=1_000_000))
    """Largest file of a book, in MiB; a larger one is not read to its end."""

    @property
    def max_book_bytes(self) -> int:
        """Largest file of a book in bytes."""
        return int(self.max_book_mib * 2**20)


@dataclass(frozen=True, kw_only=True)
class Patience(Settings):
    """How long and how often a server is asked."""

    timeout_seconds: float = field(default=90.0, metadata=within(above=0, at_most=_DAY_SECONDS))
    """Longest time for one file, from the request to its last byte."""
    tries: int = field(default=3, metadata=within(at_least=1, at_most=1_000))
    """How often a file is asked for when the server fails; a 404 is asked for once."""
    max_wait_seconds: float = field(default=300.0, metadata=within(at_least=0, at_most=_DAY_SECONDS))
    """Longest wait that a server may ask for (Retry-After) before the book is left for the next time."""


@dataclass(frozen=True, kw_only=True)
class FetchSettings(ShelfSettings, Patience):
    """Fetch single books over HTTP."""

    contact: str
    """E-mail address or page of who asks, for the User-Agent: the publisher wants to know whom to write to."""
    url: str | None = None
    """Address of one book's text."""
    ids: tuple[str, ...] = ()
    """Numbers of books: 12,1342."""
    range: str | None = None
    """Numbers of books from one to another: 1-50."""
    base: str = rules.BASE_URL
    """Address above the folders of the books; a mirror's for more than 100 books."""
    connections: int = field(default=2, metadata=within(at_least=1, at_most=16))
    """Requests to one host at the same time."""

    def check(self) -> None:
        """Refuse an address beside numbers, neither, and a server that the rules do not allow."""
        rules.user_agent(self.contact)
        if (self.url is not None) == bool(self.ids or self.range):
            raise UsageError(
                "give either an address (--url) or numbers (--ids 12,1342, --range 1-50), and not both"
            )
        rules.check_url(self.base, "base")
        if self.url is not None:
            rules.check_url(self.url, "url")
        else:
            rules.check_amount(len(rules.parse_ids(self.ids, self.range)), self.base)


@dataclass(frozen=True, kw_only=True)
class HarvestSettings(ShelfSettings, Patience):
    """Follow the publisher's list for robots, one request every two seconds."""

    contact: str
    """E-mail address or page of who asks, for the User-Agent: the publisher wants to know whom to write to."""
    url: str = rules.HARVEST_URL
    """The list, or a page of it to go on from."""
    limit: int | None = field(default=None, metadata=COUNT)
    """Stop after this many new books."""

    def check(self) -> None:
        """The list has an address, and who asks too."""
        rules.user_agent(self.contact)
        rules.check_url(self.url, "url")


@dataclass(frozen=True, kw_only=True)
class SyncSettings(ShelfSettings):
    """Copy the texts of a mirror with rsync, and clean them."""

    mirror: str = rules.MIRROR
    """Module of a mirror: rsync://host/module; the main tree or the generated one."""
    shards: int = field(default=2, metadata=within(at_least=1, at_most=6))
    """Top-level digits copied at the same time."""
    digits: str = "0123456789"
    """Which top-level digits to copy; machines may share the work."""
    utf8_only: bool = False
    """Leave out books whose only text is not UTF-8 by its name."""
    limit: int | None = field(default=None, metadata=COUNT)
    """At most this many books a digit, for a trial."""
    rsync: str = "rsync"
    """The rsync program."""
    timeout_seconds: int = field(default=60, metadata=within(at_least=1, at_most=_DAY_SECONDS))
    """Longest silence of the mirror."""
    contact: str | None = None
    """Not sent: rsync carries no User-Agent. Taken so that one config file serves every command."""

    def check(self) -> None:
        """A module of rsync, and digits that there are."""
        if not self.mirror.startswith("rsync://") and "::" not in self.mirror:
            raise UsageError(
                f"mirror is {self.mirror!r}; it must be a module of rsync; write rsync://host/module"
            )
        if self.mirror.startswith("-"):
            raise UsageError(
                f"mirror is {self.mirror!r}; it must not begin with a dash; write rsync://host/module"
            )
        if not self.digits.isdecimal() or not self.digits.isascii():
            raise UsageError(
                f"digits is {self.digits!r}; it must be digits such as 01234; leave it out for all"
            )
        if self.contact is not None:
            rules.user_agent(self.contact)


@dataclass(frozen=True, kw_only=True)
class ArchiveSettings(ShelfSettings):
    """Take the books out of one archive of texts."""

    archive: str
    """ZIP or tar file of texts, the publisher's txt-files.tar.zip included; a path or an http(s) address."""
    limit: int | None = field(default=None, metadata=COUNT)
    """Stop after this many new books."""
    contact: str | None = None
    """For an address: e-mail address or page of who asks, for the User-Agent."""
    timeout_seconds: float = field(default=90.0, metadata=within(above=0, at_most=_DAY_SECONDS))
    """For an address: longest silence of the server."""
    max_archive_gib: float = field(default=100.0, metadata=within(above=0, at_most=1_000_000))
    """For an address: largest archive, in GiB."""

    @property
    def is_url(self) -> bool:
        """Whether the archive is downloaded first."""
        return self.archive.startswith(("http://", "https://"))

    def check(self) -> None:
        """Who asks a server says whom to write to."""
        if self.is_url:
            rules.user_agent(self.contact)
            rules.check_url(self.archive, "archive")
