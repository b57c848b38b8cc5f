"""One archive of texts becomes a folder of books, whatever kind of archive, and a broken one is one line."""

import io
import tarfile
import zipfile

import pytest
from support.books import book
from support.faulty_http import CUT, FaultyServer, reply

from assay.books.index import read_index
from assay.errors import SourceError, UsageError, WorkError
from assay.gutenberg.archive import archive
from assay.gutenberg.settings import ArchiveSettings

MEMBERS = {
    "cache/epub/1/pg1.txt": book(1),
    "cache/epub/2/pg2.txt": book(2, title="Snow"),
    "cache/epub/3/pg3.html": b"<html>",
    "1/2/12/12-8.txt": book(12, title="Old").replace(b"rained", b"rain\xe9d"),
    "1/2/12/12-0.txt": book(12, title="Old"),
    "1/2/12/old/12.txt": book(12, title="Older"),
}


def tar_bytes(members, mode="w"):
    """A tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_bytes(members):
    """A ZIP file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


ARCHIVES = {
    "a.zip": zip_bytes(MEMBERS),
    "a.tar": tar_bytes(MEMBERS),
    "a.tar.gz": tar_bytes(MEMBERS, "w:gz"),
    "txt-files.tar.zip": zip_bytes({"txt-files.tar": tar_bytes(MEMBERS)}),
}


def take(path, out, **others):
    """File an archive's books."""
    return archive(ArchiveSettings(archive=str(path), out=str(out), **others))


@pytest.mark.parametrize("name", ARCHIVES)
def test_every_kind_of_archive_gives_the_same_books(tmp_path, name):
    """UTF-8 is preferred among a book's encodings, old/ is left out, and a second run files nothing."""
    path = tmp_path / name
    path.write_bytes(ARCHIVES[name])
    out = tmp_path / "out"
    gathered = take(path, out)
    assert gathered.counts["new"] == 3
    records = read_index(out / "index.jsonl")
    assert [(each.gutenberg_id, each.url) for each in records] == [
        (1, "cache/epub/1/pg1.txt"),
        (2, "cache/epub/2/pg2.txt"),
        (12, "1/2/12/12-0.txt"),
    ]
    assert "\u00e9" not in (out / records[2].processed_path).read_text(encoding="utf-8")
    assert dict(take(path, out).counts) == {"already": 3}


def test_names_that_lead_out_of_the_folder_lead_nowhere(tmp_path):
    """A member's name is never a path here."""
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes({"../../7/pg7.txt": book(7, title="../../evil", author="/etc")}))
    take(path, tmp_path / "in" / "out")
    assert {each.name for each in tmp_path.iterdir()} == {"a.tar", "in"}
    (record,) = read_index(tmp_path / "in" / "out" / "index.jsonl")
    assert record.processed_path == "texts/etc/evil.txt"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.zip", ARCHIVES["a.tar.gz"][:300], "damaged or of another kind"),
        ("a.tar.gz", b"not an archive at all", "damaged or of another kind"),
        ("a.zip", zip_bytes({"readme.md": b"x"}), "holds no texts"),
        ("a.zip", None, "cannot be read"),
    ],
)
def test_what_is_not_such_an_archive_is_one_line(tmp_path, name, content, said):
    """Said with the way out."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=said):
        take(path, tmp_path / "out")


def test_what_comes_before_the_damage_is_kept(tmp_path):
    """A cut archive gives the books before the cut."""
    content = ARCHIVES["a.tar"]
    path = tmp_path / "a.tar"
    path.write_bytes(content[: content.index(b"Snow") + 500])
    with pytest.raises(SourceError, match="damaged"):
        take(path, tmp_path / "out")
    assert [each.gutenberg_id for each in read_index(tmp_path / "out" / "index.jsonl")] == [1]


def test_members_are_bounded(tmp_path):
    """A member that unpacks to more than a book's bytes is passed over."""
    path = tmp_path / "a.zip"
    path.write_bytes(zip_bytes({"1/pg1.txt": b"x" * 10**7, "2/pg2.txt": book(2)}))
    gathered = take(path, tmp_path / "out", max_book_mib=1)
    assert dict(gathered.counts) == {"too_large": 1, "new": 1}


def test_an_address_is_downloaded_once(tmp_path):
    """Whole, or not at all; redirects to another site and answers that are cut are refused."""
    scripts = {
        "/a.zip": [reply(302, location="/b.zip")],
        "/b.zip": [reply(body=ARCHIVES["a.zip"], kind="application/zip")],
        "/cut.zip": [[*reply(body=ARCHIVES["a.zip"][:500], length=5000), CUT]],
        "/away.zip": [reply(302, location="http://example.invalid/a.zip")],
        "/page.zip": [reply(404)],
    }
    out = tmp_path / "out"
    with FaultyServer(scripts) as server:
        assert take(server.url("/a.zip"), out, contact="me@example.org").counts["new"] == 3
        asked = len(server.asked)
        assert dict(take(server.url("/a.zip"), out, contact="me@example.org").counts) == {"already": 3}
        assert len(server.asked) == asked
        for path, said in (
            ("/cut.zip", "not received whole"),
            ("/away.zip", "another site"),
            ("/page.zip", "status 404"),
        ):
            with pytest.raises(WorkError, match=said):
                take(server.url(path), out, contact="me@example.org")
    assert len(list((out / "downloads").iterdir())) == 1


def test_an_address_needs_a_contact(tmp_path):
    """A file does not."""
    with pytest.raises(UsageError, match="--contact"):
        ArchiveSettings(archive="https://example.org/a.zip", out=str(tmp_path))
