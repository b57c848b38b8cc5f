"""Files are named after author and title, alike on every machine."""

import pytest

from assay.gutenberg.names import author_slug, book_key, text_paths, title_slug


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("PRIDE AND PREJUDICE", "pride_and_prejudice"),
        ("Emma", "emma"),
        ("Bolesław Prus: Lalka, tom drugi", "boleslaw_prus_lalka_tom_drugi"),
        ("Les Misérables -- L'Œuvre", "les_miserables_loeuvre"),
        ("Straße", "strasse"),
        ("紅樓夢", "紅樓夢"),
        ("../../etc/passwd", "etc_passwd"),
        ("...", "untitled"),
        (None, "untitled"),
        ("A\x00B\u202e", "a_b"),
    ],
)
def test_a_title_becomes_a_file_name(title, name):
    """Lower case, no accents, nothing that a path could mean something by."""
    assert title_slug(title) == name


def test_long_names_that_begin_alike_stay_two():
    """Cut to what a filesystem takes, with a part of the hash at the end."""
    one, two = title_slug("ab " * 100 + "one"), title_slug("ab " * 100 + "two")
    assert one != two
    assert len(one) <= 120
    assert len(title_slug("紅" * 200).encode()) <= 120
    assert len(author_slug("x" * 200)) == 80


def test_a_second_book_of_that_name_has_its_number():
    """The suffix is there on collision alone."""
    assert text_paths("jane_austen", "emma", "pg158") == (
        "texts/jane_austen/emma.txt",
        "texts/jane_austen/emma__pg158.txt",
    )


def test_a_book_without_number_is_known_by_its_address():
    """The same address, the same key."""
    assert book_key(12, "x") == "pg12"
    assert book_key(None, "x") == book_key(None, "x") != book_key(None, "y")
