"""An index of books is read back as it was written, and one of another version is refused."""

import json

import pytest

from assay.books.index import BookAuthor, BookRecord, read_index, sorted_records, write_records
from assay.errors import SourceError

EMMA = BookRecord(
    source="fetch",
    url="https://example.org/158/pg158.txt",
    gutenberg_id=158,
    author="Jane Austen",
    authors=(BookAuthor(name="Austen, Jane", birth_year=1775, death_year=1817),),
    title="Emma\u2028, a novel",
    author_slug="jane_austen",
    title_slug="emma",
    processed_path="texts/jane_austen/emma.txt",
    languages=("en",),
    size_bytes=12,
    text_sha256="ab" * 32,
)


def test_records_are_read_back_as_they_were_written(tmp_path):
    """Every field survives, line separators inside a title included."""
    path = tmp_path / "index.jsonl"
    path.write_bytes(write_records([EMMA]))
    assert read_index(path) == [EMMA]


def test_an_index_without_versions_is_read(tmp_path):
    """The fields that other tools write are enough."""
    raw = EMMA.model_dump(mode="json")
    for name in ("version", "text_sha256", "authors"):
        del raw[name]
    path = tmp_path / "index.jsonl"
    path.write_text(json.dumps(raw) + "\n\n", encoding="utf-8")
    (record,) = read_index(path)
    assert (record.gutenberg_id, record.version, record.text_sha256) == (158, 1, None)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"version": 2}', "a record of version 2; this assay reads version 1"),
        ("[1]", "not a record"),
        ("{", "not JSON"),
        ('{"source": "fetch"}', "author_slug"),
    ],
)
def test_a_line_that_is_not_a_record_is_refused(tmp_path, line, said):
    """One line says where, what was seen and the way out."""
    path = tmp_path / "index.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(SourceError) as caught:
        read_index(path)
    assert said in str(caught.value)
    assert f"{path}:1" in str(caught.value)


def test_a_missing_index_is_refused(tmp_path):
    """No file: said with the way out."""
    with pytest.raises(SourceError, match="cannot be read"):
        read_index(tmp_path / "index.jsonl")


def test_the_order_does_not_depend_on_who_came_first():
    """By number; books without one come last."""
    plain = EMMA.model_copy(update={"gutenberg_id": None})
    first = EMMA.model_copy(update={"gutenberg_id": 7})
    assert (
        sorted_records([plain, EMMA, first]) == sorted_records([EMMA, first, plain]) == [first, EMMA, plain]
    )
