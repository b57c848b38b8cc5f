"""`assay gutenberg archive`: the books of one archive, local or downloaded, read as a stream."""

import asyncio
import hashlib
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from assay.errors import SourceError, StorageError, WorkError
from assay.extras import need_packages
from assay.gutenberg import rules
from assay.gutenberg.download import open_client
from assay.gutenberg.fetch import Say, open_ingest
from assay.gutenberg.ingest import Arrival, Gathered, Ingest
from assay.gutenberg.mirroring import preference
from assay.gutenberg.names import book_key
from assay.gutenberg.settings import ArchiveSettings

if TYPE_CHECKING:
    import httpx

DOWNLOADS = "downloads"
TEXT_ENDINGS = (".txt", ".txt.utf-8", ".txt.utf8")
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_BAD = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


def archive(settings: ArchiveSettings, *, on_message: Say | None = None) -> Gathered:
    """File every book of the archive that is not in the folder yet, in the order of the archive.

    Raises SourceError for a file that is not such an archive, or is damaged: what came before the damage is filed.
    """
    say = on_message or (lambda _: None)
    ingest = open_ingest(settings)
    gathered = Gathered(out=settings.out)
    path = asyncio.run(_download(settings, say)) if settings.is_url else Path(settings.archive)
    try:
        _file_all(path, settings, ingest, gathered, say)
    finally:
        ingest.shelf.merge()
    if not gathered.counts and not gathered.failed:
        raise SourceError(
            f"archive {path} holds no texts of books; give a ZIP or tar file of 12345/pg12345.txt"
        )
    return gathered


def _file_all(path: Path, settings: ArchiveSettings, ingest: Ingest, gathered: Gathered, say: Say) -> None:
    # A book may lie there in several encodings; the first one taken by this command gives way to a better one alone.
    held: dict[str, int] = {}
    with closing(members(path)) as found:
        while True:
            with _reading(path):
                name, file = next(found, (None, None))
            if name is None or file is None:
                return
            number = rules.id_in_url(name)
            key = book_key(number, name)
            score = preference(name)
            if "old" in name.split("/")[:-1] or score <= held.get(key, 0):
                continue
            if key not in held and ingest.is_done(key, name):
                gathered.counts["already"] += 1
                held[key] = 1000
                continue
            if number is not None and ingest.is_unwanted(number):
                gathered.counts["language"] += 1
                held[key] = 1000
                continue
            with _reading(path):
                content = file.read(settings.max_book_bytes + 1)
            arrival = Arrival(source="archive", url=name, gutenberg_id=number, content=content)
            if len(content) > settings.max_book_bytes:
                came = ingest.pass_over(
                    key, "too_large", f"more than {settings.max_book_bytes:,} bytes", arrival
                )
            else:
                came = ingest.take(arrival)
            if key not in held:
                gathered.counts[came] += 1
            held[key] = score
            say(f"{key}: {came}")
            if settings.limit is not None and gathered.counts["new"] >= settings.limit:
                gathered.notes.append("stopped at the limit")
                return


def members(path: Path) -> Generator[tuple[str, IO[bytes]], None, None]:
    """Name and content of each text in a ZIP or tar file, and in tar files inside a ZIP file."""
    if not zipfile.is_zipfile(path):
        with tarfile.open(path, mode="r|*") as tar:
            yield from _tar_members(tar)
        return
    with zipfile.ZipFile(path) as outer:
        for info in outer.infolist():
            if info.filename.endswith(TAR_ENDINGS):
                with outer.open(info) as inner, tarfile.open(fileobj=inner, mode="r|*") as tar:
                    yield from _tar_members(tar)
            elif info.filename.endswith(TEXT_ENDINGS):
                with outer.open(info) as file:
                    yield info.filename, file


def _tar_members(tar: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    for member in tar:
        file = tar.extractfile(member) if member.isfile() and member.name.endswith(TEXT_ENDINGS) else None
        if file is not None:
            yield member.name, file


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a broken archive raises into one line."""
    way_out = "give a ZIP or tar file of texts; if it was downloaded, download it again"
    try:
        yield
    except _BAD as error:
        raise SourceError(f"archive {path} is damaged or of another kind ({error}); {way_out}") from error
    except OSError as error:
        reason = error.strerror or error
        raise SourceError(f"archive {path} cannot be read ({reason}); {way_out}") from error


async def _download(settings: ArchiveSettings, say: Say) -> Path:
    """The archive in the folder's downloads/, whole; one that is there is not asked for again."""
    need_packages("httpx", used_by="assay gutenberg archive with an address", extra="books")
    import httpx

    url = settings.archive
    name = urlsplit(url).path.rpartition("/")[2] or "archive"
    target = Path(settings.out) / DOWNLOADS / f"{hashlib.sha256(url.encode()).hexdigest()[:8]}_{name[-100:]}"
    if target.exists():
        say(f"{target} is there already")
        return target
    part = target.with_name(target.name + ".part")
    most = int(settings.max_archive_gib * 2**30)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        async with open_client(settings.contact, settings.timeout_seconds) as client:
            at = url
            for _ in range(rules.MOST_REDIRECTS + 1):
                async with client.stream("GET", at) as reply:
                    if reply.status_code in rules.REDIRECTS and "location" in reply.headers:
                        at = _redirected(url, str(reply.url.join(reply.headers["location"])))
                        continue
                    await _save(reply, part, most)
                    part.replace(target)
                    return target
    except (httpx.TransportError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        msg = f"archive {url} was not received whole ({reason}); run the same command later, or name another address"
        raise WorkError(msg) from error
    except OSError as error:
        raise StorageError(
            f"{part}: cannot be written ({error.strerror}); free space or name another --out"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    raise WorkError(f"archive {url}: more than {rules.MOST_REDIRECTS} redirects; give the final address")


def _redirected(start: str, target: str) -> str:
    if not rules.is_in_scope(start, target):
        raise WorkError(f"archive {start} leads to {target}, another site; give that address if you trust it")
    return target


async def _save(reply: "httpx.Response", part: Path, most: int) -> None:
    if reply.status_code != 200:
        raise WorkError(
            f"archive {reply.url}: status {reply.status_code}; check the address, or run it again later"
        )
    size = 0
    with part.open("wb") as file:
        async for piece in reply.aiter_bytes(1024 * 1024):
            size += len(piece)
            if size > most:
                msg = f"archive {reply.url} is larger than {most:,} bytes; raise --max-archive-gib to take it"
                raise WorkError(msg)
            file.write(piece)
