"""Books to pairs in the usual way, for prepare_books.py: `python _reference_pairs.py OUT CORES FOLDER:LANGUAGE ...`.

spaCy's rule-based sentencizer of a blank pipeline; sentences of 20 characters or fewer dropped; windows of 14 sentences
every 10; those of at least 200 characters, English ones only where they look English, at most 800 of a book; equal
chunks known by SHA-1 of their letters and digits in lower case, and dropped where they stand in more than three books;
books shuffled into three splits; of each book 20 pairs of itself and 40 with others, by the same author and by any.
A process a core makes chunks, the longest books first.
"""

import hashlib
import random
import re
import sys
from collections import Counter, defaultdict
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import spacy

SHORTEST_SENTENCE = 20
WINDOW, STEP = 14, 10
LEAST_CHARS = 200
MOST_CHUNKS = 800
MOST_BOOKS_OF_CHUNK = 3
POSITIVES, NEGATIVES = 20, 40
SAME_AUTHOR = 0.7
"""Share of negatives by the same author, of those that need neither an encoder nor dates: .35 to .15."""
SPLITS = {"train": 0.7, "validation": 0.15, "test": 0.15}
SEED = 42
STOPWORDS = frozenset(
    "the and of to a in that it is was he for on with as his they be at by i had not are but".split()  # noqa: SIM905
)
NO_WORD = re.compile(r"[^a-z0-9]+")
NO_LETTER = re.compile(r"[\W\d_]+")
NO_ENGLISH_LETTER = re.compile(r"[^A-Za-z]+")

_pipelines: dict[str, Any] = {}


def pipeline_of(language: str) -> Any:  # noqa: ANN401  spaCy's own type
    """The blank pipeline of a language, once a process."""
    if language not in _pipelines:
        pipeline = spacy.blank(language)
        pipeline.add_pipe("sentencizer")
        pipeline.max_length = 10_000_000
        _pipelines[language] = pipeline
    return _pipelines[language]


def looks_english(text: str) -> bool:
    """Whether letters are mostly those of English, and two stopwords are there."""
    letters = NO_LETTER.sub("", text)
    if len(NO_ENGLISH_LETTER.sub("", text)) < 0.6 * len(letters):
        return False
    return len(STOPWORDS.intersection(text.lower().split())) >= 2


def chunks_of(job: tuple[str, str]) -> list[tuple[str, str]]:
    """The chunks of a book with their hashes."""
    path, language = job
    text = " ".join(Path(path).read_text(encoding="utf-8", errors="replace").split())
    sentences = [span.text.strip() for span in pipeline_of(language)(text).sents]
    sentences = [sentence for sentence in sentences if len(sentence) > SHORTEST_SENTENCE]
    chunks = []
    for first in range(0, max(1, len(sentences) - WINDOW + 1), STEP):
        chunk = " ".join(sentences[first : first + WINDOW])
        if len(chunk) >= LEAST_CHARS and (language != "en" or looks_english(chunk)):
            chunks.append(chunk)
    if len(chunks) > MOST_CHUNKS:
        chunks = random.Random(f"{SEED}|{path}").sample(chunks, MOST_CHUNKS)
    return [(chunk, hashlib.sha1(NO_WORD.sub("", chunk.lower()).encode()).hexdigest()) for chunk in chunks]  # noqa: S324


def without_duplicates(books: dict[str, list[tuple[str, str]]]) -> dict[str, list[str]]:
    """The chunks of each book, each once, without those of many books."""
    num_books = Counter(digest for chunks in books.values() for digest in {digest for _, digest in chunks})
    kept = {}
    for book, chunks in books.items():
        texts = {digest: chunk for chunk, digest in chunks if num_books[digest] <= MOST_BOOKS_OF_CHUNK}
        kept[book] = list(texts.values())
    return kept


def pairs_of(books: dict[str, list[str]]) -> list[dict[str, Any]]:
    """The pairs of one split."""
    rng = random.Random(SEED)
    of_author = defaultdict(list)
    for book in books:
        of_author[author_of(book)].append(book)
    rows = []
    for book, chunks in books.items():
        num_positives = POSITIVES if len(chunks) > 1 else 0
        rows += [row(book, book, *rng.sample(chunks, 2)) for _ in range(num_positives)]
        for _ in range(NEGATIVES if chunks else 0):
            same = [other for other in of_author[author_of(book)] if other != book]
            any_other = [other for other in books if author_of(other) != author_of(book)]
            partners = same if same and rng.random() < SAME_AUTHOR else any_other
            if partners:
                other = rng.choice(partners)
                if books[other]:
                    rows.append(row(book, other, rng.choice(chunks), rng.choice(books[other])))
    return rows


def row(book: str, other: str, text: str, other_text: str) -> dict[str, Any]:
    """One pair."""
    same_author = author_of(book) == author_of(other)
    return {
        "text1": text,
        "text2": other_text,
        "label": int(book == other),
        "book1": book,
        "book2": other,
        "author1": author_of(book),
        "author2": author_of(other),
        "same_author": same_author,
        "neg_type": None if book == other else "author_same" if same_author else "random",
    }


def author_of(book: str) -> str:
    """Of `Austen_Emma`."""
    return book.partition("_")[0]


def main() -> None:
    """Read, cut, pair, write."""
    out, cores, *folders = sys.argv[1:]
    jobs = []
    for each in folders:
        folder, _, language = each.rpartition(":")
        jobs += [(str(path), language) for path in sorted(Path(folder).glob("*.txt"))]
    jobs.sort(key=lambda job: -Path(job[0]).stat().st_size)
    with Pool(int(cores)) as pool:
        found = pool.map(chunks_of, jobs, chunksize=1)
    books = without_duplicates(
        {Path(path).stem: chunks for (path, _), chunks in zip(jobs, found, strict=True)}
    )
    names = sorted(books)
    random.Random(SEED).shuffle(names)
    Path(out).mkdir()
    begin, num_pairs = 0, 0
    for split, share in SPLITS.items():
        end = len(names) if split == "test" else begin + round(share * len(names))
        rows = pairs_of({name: books[name] for name in names[begin:end]})
        pq.write_table(pa.Table.from_pylist(rows), Path(out) / f"{split}.parquet")
        begin, num_pairs = end, num_pairs + len(rows)
    print(f"{len(names)} books, {sum(map(len, books.values()))} chunks, {num_pairs} pairs")


if __name__ == "__main__":
    main()
