"""Chunks of some books, as printed and as written to pairs, to measure leaks on."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

from assay.books.cleaning import clean_book, decode_book
from assay.prepare.leaks import Leak, edition_scores, measure, name_scores, typography_scores
from assay.prepare.listing import Listing
from assay.prepare.shelf import BookChunks, Shelf
from assay.prepare.shelving import Shelved

LEAK_BOOKS = 60
LEAK_CHUNKS = 12
"""Books, and chunks of each, that leaks are measured on."""


def measure_leaks(
    listing: Listing, shelved: Shelved, used: Sequence[int], *, seed: int, is_cleaned: bool
) -> dict[str, Leak]:
    """What typography (as printed, and as written), names and editions alone tell, by name of the score."""
    shelf = Shelf(shelved.chunks)
    chosen = sorted(Random(f"{seed}|leaks").sample(list(used), min(LEAK_BOOKS, len(used))))
    dropped = shelved.books.column("dropped")
    printed: list[str] = []
    written: list[str] = []
    books: list[int] = []
    author_of = {}
    for book in chosen:
        chunks, listed = shelf.book(book), listing.books[book]
        author_of[book] = listed.author_key
        left_out = set(dropped[book].as_py())
        kept = [position for position in range(len(chunks)) if position not in left_out]
        positions = apart(chunks, Random(f"{seed}|leaks|{book}").sample(kept, len(kept)), LEAK_CHUNKS)
        text = printed_text(Path(listed.path), is_cleaned=is_cleaned)
        starts, stops = chunks.column("start"), chunks.column("stop")
        printed += [text[starts[position] : stops[position]] for position in positions]
        written += [chunks.text(position) for position in positions]
        books += [book] * len(positions)
    authors = [author_of[book] for book in books]
    shares = {(one, other): share for one, other, share in shelved.found.shares}
    keys = [author_of[book] for book in chosen]
    return {
        "typography as printed": measure(typography_scores(printed), books, authors),
        "typography as written": measure(typography_scores(written), books, authors),
        "names as written": measure(name_scores(written), books, authors),
        "editions (of whole books)": measure(edition_scores(chosen, shares), chosen, keys),
    }


def apart(chunks: BookChunks, order: Sequence[int], most: int) -> list[int]:
    """The first chunks of `order` that do not overlap, ascending: shared sentences are not what is measured."""
    starts, stops = chunks.column("start"), chunks.column("stop")
    taken: list[int] = []
    for position in order:
        if len(taken) == most:
            break
        if all(stops[position] <= starts[each] or stops[each] <= starts[position] for each in taken):
            taken.append(position)
    return sorted(taken)


def printed_text(path: Path, *, is_cleaned: bool) -> str:
    """The text that the places of chunks count in: cleaned, typography as it is."""
    text = decode_book(path.read_bytes()).text
    return text if is_cleaned else clean_book(text).text
