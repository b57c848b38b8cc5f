"""Project Gutenberg's catalogue: numbers, titles, people and the years in which they lived."""

import gzip
import io

import pytest

from assay.books.catalogue import CatalogueEntry, Person, read_catalogue, read_person
from assay.errors import SourceError

CATALOGUE = (
    "Text#,Type,Issued,Title,Language,Authors,Subjects,LoCC,Bookshelves\n"
    '11,Text,2008-06-27,"Alice\'s Adventures\nin Wonderland",en,"Carroll, Lewis, 1832-1898",Fantasy,PR,x\n'
    '61,Text,2005-01-25,Manifesto,en; de,"Engels, Friedrich, 1820-1895; Marx, Karl, 1818-1883; '
    'Moore, Samuel, 1838-1911 [Translator]",x,HX,x\n'
    "12,Sound,2003-01-01,A recording,en,,x,x,x\n"
)


def test_reads_texts():
    """Titles in one line, authors apart from translators, several languages; sounds are left out."""
    assert read_catalogue(io.StringIO(CATALOGUE)) == {
        11: CatalogueEntry(
            title="Alice's Adventures in Wonderland",
            authors=(Person(name="Carroll, Lewis", birth_year=1832, death_year=1898),),
            contributors=(),
            languages=("en",),
        ),
        61: CatalogueEntry(
            title="Manifesto",
            authors=(
                Person(name="Engels, Friedrich", birth_year=1820, death_year=1895),
                Person(name="Marx, Karl", birth_year=1818, death_year=1883),
            ),
            contributors=(Person(name="Moore, Samuel", birth_year=1838, death_year=1911, role="Translator"),),
            languages=("en", "de"),
        ),
    }


@pytest.mark.parametrize(
    ("words", "name", "birth", "death"),
    [
        ("Carroll, Lewis, 1832-1898", "Carroll, Lewis", 1832, 1898),
        ("Homer, 751? BCE-651? BCE", "Homer", -751, -651),
        ("Virgil, 71 BCE-20 BCE", "Virgil", -71, -20),
        ("Livy, 60 BCE-18", "Livy", -60, 18),
        ("Shute, Nevil, 1899-", "Shute, Nevil", 1899, None),
        ("Bede, -735", "Bede", None, 735),
        ("Doe, J., active 1850", "Doe, J.", None, None),
        ("Doe, J., born 1850", "Doe, J.", 1850, None),
        ("Doe, J., died 1850", "Doe, J.", None, 1850),
        ("Various", "Various", None, None),
        ("Doe, John, Sir, 1700?-1760?", "Doe, John, Sir", 1700, 1760),
        ("Doe, John, 1700-1760 [Author]", "Doe, John", 1700, 1760),
        ("Company 1234", "Company 1234", None, None),
    ],
)
def test_people(words, name, birth, death):
    """Names in every form, with the years that are certain enough to tell a period."""
    person = read_person(words)
    assert (person.name, person.birth_year, person.death_year, person.role) == (name, birth, death, None)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_files(tmp_path, suffix):
    """A file may be gzipped, and may begin with a byte order mark."""
    path = tmp_path / f"pg_catalog{suffix}"
    content = b"\xef\xbb\xbf" + CATALOGUE.encode()
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    assert sorted(read_catalogue(path)) == [11, 61]
    assert sorted(read_catalogue(str(path))) == [11, 61]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b\n1,2\n", "no column 'Text#'"),
        (b"", "no column 'Text#'"),
        (b"Text#,Title,Language,Authors\nxi,Emma,en,\n", "number 'xi'"),
        (b"Text#,Title,Language,Authors\n1,\xff\xfe,en,\n", "not UTF-8"),
    ],
)
def test_another_file_is_refused(tmp_path, content, words):
    """One line that names the file and says what to give instead."""
    path = tmp_path / "pg_catalog.csv"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=words) as caught:
        read_catalogue(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_damaged_file_is_refused(tmp_path):
    """The same for a path that is not there, and for a download that was cut short."""
    with pytest.raises(SourceError, match="cannot be read"):
        read_catalogue(tmp_path / "none.csv")
    damaged = tmp_path / "pg_catalog.csv.gz"
    damaged.write_bytes(gzip.compress(CATALOGUE.encode())[:60])
    with pytest.raises(SourceError, match="cannot be read"):
        read_catalogue(damaged)
