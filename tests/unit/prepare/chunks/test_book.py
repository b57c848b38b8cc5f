"""One file to its chunks, or to what is wrong with it."""

import pytest

from assay.books.cleaning import clean_book, decode_book
from assay.books.normal_forms import normalise_typography
from assay.errors import UsageError
from assay.prepare.chunks.book import chunk_book
from assay.prepare.chunks.quality import hash_of
from assay.prepare.chunks.settings import ChunkRules

SENTENCES = [
    f"“Number {number} is here,” said Mr. Bennet — and Lizzy went out with him to see it."
    for number in range(100)
]
BOOK = "\n".join(SENTENCES).encode()
ENGLISH = {"language": "en", "language_check": "off"}


def chunked(content, book_id="book", count_tokens=None, **changes):
    """The chunks of a file."""
    return chunk_book(content, book_id, ChunkRules(**{**ENGLISH, **changes}), count_tokens)


def count_words(texts):
    """Stands for a tokenizer."""
    return [len(text.split()) for text in texts]


def test_every_chunk_can_be_shown_in_its_book():
    """Offsets are those of the cleaned text; the text there, in normal form, is the chunk."""
    content = b"\xef\xbb\xbf" + BOOK.replace(b"\n", b"\r\n")
    text = clean_book(decode_book(content).text).text
    book = chunked(content)
    assert [(chunk.number, chunk.num_sentences) for chunk in book.chunks] == [(n, 14) for n in range(9)]
    for chunk in book.chunks:
        assert normalise_typography(text[chunk.start : chunk.stop]) == chunk.text
        assert chunk.text.startswith(f'"Number {10 * chunk.number} is here," said Mr. Bennet - and')
        assert chunk.text_hash == hash_of(chunk.text)
        assert chunk.num_tokens is None
    assert (book.language, book.error) == ("en", None)
    assert book.counts == {"sentences": 100, "windows": 9, "not_sampled": 0}


def test_a_budget_of_tokens():
    """Chunks are whole sentences within the budget, side by side, and say how many tokens they have."""
    book = chunked(BOOK, count_tokens=count_words, chunk_tokens=60)
    assert {chunk.num_sentences for chunk in book.chunks} == {3}
    assert [chunk.num_tokens for chunk in book.chunks] == count_words([chunk.text for chunk in book.chunks])
    assert all(one.stop < two.start for one, two in zip(book.chunks, book.chunks[1:], strict=False))


def test_tokens_that_do_not_add_up_are_counted_again():
    """Where a tokenizer counts a chunk otherwise than its sentences, the chunk's own count is given."""
    book = chunked(BOOK, count_tokens=lambda texts: [len(t.split()) + 1 for t in texts], chunk_tokens=60)
    assert [chunk.num_tokens for chunk in book.chunks] == [len(c.text.split()) + 1 for c in book.chunks]


def test_a_sample_of_a_long_book():
    """At most so many chunks, in the order of the text, others with another seed; the rest is counted."""
    book = chunked(BOOK, max_chunks=4)
    numbers = [chunk.number for chunk in book.chunks]
    assert len(numbers) == 4
    assert numbers == sorted(numbers)
    assert book.counts["not_sampled"] == 5
    assert (
        len({tuple(c.number for c in chunked(BOOK, max_chunks=4, seed=seed).chunks) for seed in range(9)}) > 1
    )


def test_what_is_not_worth_keeping_is_dropped():
    """Chunks of few letters and short ones go, and are counted; the sample is filled up with others."""
    table = "\n\n".join(
        f"{number}, {number * 7}, {number * 77}, {number * 777}" for number in range(2000, 2200)
    )
    content = (table + "\n\n").encode() + BOOK
    book = chunked(content, max_chunks=8)
    assert len(book.chunks) == 8
    assert all("Bennet" in chunk.text for chunk in book.chunks)
    assert book.counts["few_letters"] > 0
    assert chunked(BOOK, min_chars=2000).error == "no_good_chunk"


def test_names_are_masked_by_the_whole_book():
    """A name is known from all of the book, and masked in each chunk."""
    book = chunked(BOOK, mask_names=True)
    assert all("Bennet" not in c.text and "Lizzy" not in c.text and "Mr. Xx" in c.text for c in book.chunks)


def test_raw_typography():
    """A book's own quotes and line ends stay."""
    text = BOOK.decode()
    for chunk in chunked(BOOK, typography="raw").chunks:
        assert chunk.text == text[chunk.start : chunk.stop]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "not_text"),
        (b" \n\n ", "not_text"),
        (b"PNG\x00\x00 and so on", "not_text"),
        (b"\xef\xbb\xbf<!DOCTYPE html>\n<html><body>" + BOOK + b"</body></html>", "html"),
        (b"A book of one sentence, and no more than that. " * 5, "shorter_than_a_chunk"),
    ],
)
def test_what_is_no_book(content, error):
    """A file without chunks says why."""
    book = chunked(content)
    assert (book.chunks, book.error) == ((), error)
    assert chunked(content, cleaned=True).error == error


def test_cleaned_texts_are_left_as_they_are():
    """What looks like a publisher's header is text where the texts are cleaned already."""
    head = (
        b"The Project Gutenberg eBook of Numbers\n\n*** START OF THE PROJECT GUTENBERG EBOOK NUMBERS ***\n\n"
    )
    assert chunked(head + BOOK).chunks[0].text.startswith('"Number 0')
    assert "Project Gutenberg" in chunked(head + BOOK, cleaned=True).chunks[0].text


FRENCH = "\n".join(
    f"Le roi numéro {number} ne voulait pas que ses enfants fussent malheureux dans cette ville."
    for number in range(40)
)


class TestLanguages:
    """With py3langid."""

    @pytest.fixture(autouse=True)
    def _package(self):
        pytest.importorskip("py3langid")

    def test_found_where_nothing_says_it(self):
        """The language is that of the text."""
        assert chunk_book(FRENCH.encode(), "book", ChunkRules()).language == "fr"
        assert chunk_book(BOOK, "book", ChunkRules()).language == "en"

    def test_a_header_is_believed_and_checked(self):
        """Chunks in another language than the header's are dropped; here all."""
        head = "Title: Le roi\n\nLanguage: English\n\n*** START OF THE PROJECT GUTENBERG EBOOK LE ROI ***\n\n"
        book = chunk_book((head + FRENCH).encode(), "book", ChunkRules())
        assert (book.error, book.language) == ("other_language", "en")

    @pytest.mark.parametrize("check", ["sample", "every"])
    def test_a_passage_in_another_language(self, check):
        """It is dropped wherever the sample meets one of its chunks, as it does here."""
        content = BOOK + b"\n\n" + FRENCH.encode() * 2
        book = chunk_book(content, "book", ChunkRules(language_check=check, overlap=0))
        assert book.language == "en"
        assert book.counts["other_language"] > 0
        assert not any(chunk.text.startswith("Le roi") for chunk in book.chunks)


def test_overlap_must_leave_a_sentence():
    """Chunks that share all their sentences would never come to an end."""
    with pytest.raises(UsageError, match=r"overlap 14 of 14 sentences; .* set overlap to 13 or less"):
        ChunkRules(overlap=14)
    assert ChunkRules(chunk_sentences=3).overlap_sentences == 2
    assert ChunkRules(chunk_tokens=250).overlap_sentences == 0
    assert ChunkRules().overlap_sentences == 4
