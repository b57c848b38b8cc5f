"""The publisher's list for robots is followed page by page, a request every two seconds."""

import io
import zipfile

import pytest
from support.books import book
from support.faulty_http import FaultyServer, reply

from assay.books.index import read_index
from assay.errors import WorkError
from assay.gutenberg.harvest import harvest
from assay.gutenberg.harvesting import first_page, read_page
from assay.gutenberg.ingest import unzip_text
from assay.gutenberg.settings import HarvestSettings

PAGE = """<html><body>
<p><a href="http://m.org/1/2/12/12-8.zip">12-8.zip</a></p>
<p><a href="http://m.org/1/2/12/12-0.zip">12-0.zip</a></p>
<p><a href="http://m.org/1/2/12/12.zip">12.zip</a></p>
<p><a href="/files/13/13.txt">13</a></p>
<p><a href="ftp://m.org/14/14.txt">no</a> <a href="http://m.org/15/15.pdf">no</a></p>
<p><a href="harvest?offset=100&amp;filetypes[]=txt">Next Page</a></p></body></html>"""


def zipped(content, name="12-0.txt"):
    """A ZIP file with one text."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def test_a_page_offers_the_best_file_of_each_book():
    """UTF-8 first; other types and schemes are passed over; the next page is found."""
    page = read_page(PAGE, "https://g.org/robot/harvest?filetypes[]=txt")
    assert page.books == ((12, "http://m.org/1/2/12/12-0.zip"), (13, "https://g.org/files/13/13.txt"))
    assert page.next_url == "https://g.org/robot/harvest?offset=100&filetypes[]=txt"
    assert read_page("<p>nothing", "https://g.org/robot/harvest").next_url is None


def test_the_first_page_is_of_the_languages():
    """As the publisher writes the address."""
    assert first_page("https://g.org/robot/harvest", ("en", "pl")) == (
        "https://g.org/robot/harvest?filetypes%5B%5D=txt&langs%5B%5D=en&langs%5B%5D=pl"
    )


def test_a_zip_bomb_is_bounded():
    """Read up to the limit alone."""
    assert "more than 1,000 bytes" in unzip_text(zipped(b"x" * 10**7), 1000)
    assert unzip_text(zipped(b"abc"), 1000) == b"abc"
    assert "0 texts" in unzip_text(zipped(b"abc", "a.pdf"), 1000)
    assert "cannot be read" in unzip_text(zipped(b"abc" * 100)[:60], 1000)


def list_of(server, clock, tmp_path, **others):
    """A harvest of the server's list."""
    settings = HarvestSettings(
        out=str(tmp_path),
        contact="me@example.org",
        url=server.url("/robot/harvest?filetypes[]=txt"),
        **others,
    )
    return harvest(settings, clock=clock)


PAGES = {
    "/robot/harvest?filetypes[]=txt": [
        reply(
            body=b'<a href="/1/1-0.zip">1</a> <a href="/2/2.txt">2</a> <a href="harvest?offset=2">Next</a>',
            kind="text/html",
        )
    ],
    "/robot/harvest?offset=2": [
        reply(body=b'<a href="/3/3.zip">3</a><a href="/2/2.txt">2</a>', kind="text/html")
    ],
    "/1/1-0.zip": [reply(body=zipped(book(1)), kind="application/zip")],
    "/2/2.txt": [reply(body=book(2, title="Snow"))],
    "/3/3.zip": [reply(body=zipped(b"x" * 10**6), kind="application/zip")],
}


def test_the_list_is_followed_slowly(tmp_path, clock):
    """Two seconds between any two requests, whatever they are for; a second run asks for the pages alone."""
    with FaultyServer(PAGES) as server:
        gathered = list_of(server, clock, tmp_path, max_book_mib=0.5)
        assert dict(gathered.counts) == {"new": 2, "not_text": 1, "already": 1}
        assert len(server.asked) == 5
        assert clock.waits == [2.0] * 4
        server.asked.clear()
        again = list_of(server, clock, tmp_path, max_book_mib=0.5)
        assert dict(again.counts) == {"already": 4}
        assert server.asked == list(PAGES)[:2]
    assert [each.source for each in read_index(tmp_path / "index.jsonl")] == ["harvest", "harvest"]


def test_a_limit_says_where_to_go_on(tmp_path, clock):
    """The page is named."""
    with FaultyServer(PAGES) as server:
        gathered = list_of(server, clock, tmp_path, limit=1)
        assert gathered.counts["new"] == 1
        assert "continue with --url 'http://127.0.0.1" in gathered.notes[0]


def test_a_page_that_does_not_come_keeps_what_has_come(tmp_path, clock):
    """The line names the page to go on from."""
    pages = PAGES | {"/robot/harvest?offset=2": [reply(500)]}
    with FaultyServer(pages) as server, pytest.raises(WorkError, match=r"--url 'http://127.+offset=2'"):
        list_of(server, clock, tmp_path)
    assert len(read_index(tmp_path / "index.jsonl")) == 2
