"""The books of a folder, sorted, with what their names say of authors and titles."""

import pytest

from assay.errors import SourceError
from assay.prepare.listing import author_key, list_books, name_parts


def listed(folder):
    """The books of a folder; their table lies in another."""
    return list_books(str(folder), None, folder.parent / f"{folder.name}.arrow")


@pytest.mark.parametrize(
    ("relative", "parts"),
    [
        ("Austen_Emma", ("Austen", "Emma", None)),
        ("Austen/Emma", ("Austen", "Emma", None)),
        ("novels/Austen/Sense_and_Sensibility", ("Austen", "Sense and Sensibility", None)),
        ("reymont_chlopi_1908", ("reymont", "chlopi 1908", None)),
        ("austen/emma__pg158", ("austen", "emma", 158)),
        ("pg1342", (None, "pg1342", 1342)),
        ("1342-0", (None, "1342-0", 1342)),
        ("Emma", (None, "Emma", None)),
        ("158/Austen_Emma", ("Austen", "Emma", None)),
        ("1/3/4/1342/1342-0", (None, "1342-0", 1342)),
        ("Austen/1815/Emma", ("Austen", "Emma", None)),
        ("Zoe\u0308_Two\nlines", ("Zo\u00eb", "Two lines", None)),
    ],
)
def test_names_tell_author_and_title(relative, parts):
    """Both ways of naming, and numbers of Project Gutenberg."""
    assert name_parts(relative) == parts


def test_an_author_has_one_key_however_spelled():
    """The order of the words, case and marks do not matter; nobody in particular has none."""
    assert author_key("Austen, Jane") == author_key("jane AUSTEN") == "austen jane"
    assert author_key("Zoe\u0308 B.") == author_key("ZO\u00cb B") == "b zo\u00eb"
    assert author_key("\u0930\u093e\u092e") != author_key("\u0930\u0940\u092e"), "a vowel is a mark in Hindi"
    assert (
        author_key("Anonymous") is author_key("Unknown author") is author_key(None) is author_key("!") is None
    )


def test_a_folder_lists_its_texts_by_id(tmp_path):
    """Hidden files are left out, and what is known is said."""
    for name in ("b_Two.txt", "a/One.txt", ".hidden.txt", "lonely.txt", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("words")
    listing = listed(tmp_path)
    assert [book.book_id for book in listing.books] == ["a/One", "b_Two", "lonely"]
    assert listing.table.column("author").to_pylist() == ["a", "b", None]
    assert len(listing.notes) == 2
    assert "lonely" in listing.notes[1]


def test_a_text_that_changed_has_another_fingerprint(tmp_path):
    """Content of the same length too."""
    (tmp_path / "a_b.txt").write_text("one")
    before = listed(tmp_path).books[0].fingerprint
    (tmp_path / "a_b.txt").write_text("two")
    assert listed(tmp_path).books[0].fingerprint != before


def test_what_is_not_books_is_refused_with_the_way_out(tmp_path):
    """No folder, an empty one, one of HTML files, and HTML that is named as text."""
    with pytest.raises(SourceError, match="is not a folder"):
        listed(tmp_path / "none")
    with pytest.raises(SourceError, match=r"has no \.txt file"):
        listed(tmp_path)
    (tmp_path / "a.html").write_text("<p>")
    with pytest.raises(SourceError, match="1 HTML files and no"):
        listed(tmp_path)
    (tmp_path / "b.txt").write_text("\n<!DOCTYPE html>")
    with pytest.raises(SourceError, match="is HTML"):
        listed(tmp_path)
