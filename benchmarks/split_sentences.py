"""Sentence splitting: megabytes a second of one core and labelled places told rightly, against spaCy's sentencizer.

Corpus: every `.txt` file of the folder `--books`, in the order of their names; spaCy, which is slower by far, is
given the first `--baseline-mb` megabytes of them. Both are given the texts in pieces of about 20,000 characters,
cut at line ends, with white space made one space, as spaCy expects. Time is CPU time of this process. Rounds
alternate between the two; the ratio is that of the medians of their rates.

Quality: 55 places in British novels (tests/support/sentence_boundaries.jsonl), labelled by hand by one person.
A place is right where a splitter begins a sentence there just if the label says so.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from _record import finish, parser

from assay.books.sentences import split_sentences

PLACES = Path(__file__).parents[1] / "tests/support/sentence_boundaries.jsonl"
PIECE_CHARS = 20_000

Starts = Callable[[str], Sequence[int]]
"""Where the sentences of a text begin."""


def read_pieces(folder: Path) -> list[str]:
    """The texts of the folder in pieces."""
    pieces: list[str] = []
    for path in sorted(folder.glob("*.txt")):
        held: list[str] = []
        size = 0
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            held.append(line)
            size += len(line) + 1
            if size >= PIECE_CHARS:
                pieces.append(" ".join(" ".join(held).split()))
                held, size = [], 0
        pieces.append(" ".join(" ".join(held).split()))
    return [piece for piece in pieces if piece]


def megabytes(pieces: Sequence[str]) -> float:
    """Their size as UTF-8."""
    return sum(len(piece.encode()) for piece in pieces) / 1e6


def rate(starts: Starts, pieces: Sequence[str]) -> float:
    """Megabytes of a second of CPU time."""
    begin = time.process_time()
    for piece in pieces:
        starts(piece)
    return megabytes(pieces) / (time.process_time() - begin)


def num_right(starts: Starts) -> tuple[int, int]:
    """Places told rightly, and how many there are."""
    right = 0
    lines = PLACES.read_text(encoding="utf-8").splitlines()
    for line in lines:
        place = json.loads(line)
        text = place["left"] + place["right"]
        begin = len(text) - len(place["right"].lstrip())
        right += (begin in set(starts(text))) == place["is_boundary"]
    return right, len(lines)


def spacy_starts() -> Starts:
    """The rule-based splitter of spaCy, in a blank English pipeline."""
    try:
        import spacy
    except ImportError:
        raise SystemExit("spaCy is not installed; pip install 'assay-corpus[bench]'") from None
    pipeline = spacy.blank("en")
    pipeline.add_pipe("sentencizer")

    def starts(text: str) -> list[int]:
        # A sentence of spaCy's begins with the white space before it where there are several spaces.
        return [
            sentence.start_char + len(sentence.text) - len(sentence.text.lstrip())
            for sentence in pipeline(text).sents
        ]

    return starts


def our_starts(text: str) -> list[int]:
    """Ours."""
    starts: list[int] = split_sentences(text)[:, 0].tolist()
    return starts


def main() -> None:
    """Measure and print."""
    flags = parser(__doc__)
    flags.add_argument("--books", type=Path, required=True, help="folder of .txt files")
    flags.add_argument("--baseline-mb", type=float, default=2.0)
    flags.add_argument("--rounds", type=int, default=3)
    arguments = flags.parse_args()

    pieces = read_pieces(arguments.books)
    if not pieces:
        raise SystemExit(f"{arguments.books} has no .txt file; give a folder of books")
    few = pieces[: max(1, int(len(pieces) * arguments.baseline_mb / megabytes(pieces)))]
    theirs = spacy_starts()
    ours_right, num_places = num_right(our_starts)
    theirs_right, _ = num_right(theirs)
    rate(our_starts, few)
    our_rates: list[float] = []
    their_rates: list[float] = []
    for _ in range(arguments.rounds):
        our_rates.append(rate(our_starts, pieces))
        their_rates.append(rate(theirs, few))
    ours, baseline = statistics.median(our_rates), statistics.median(their_rates)
    print(f"texts     {megabytes(pieces):.1f} MB, of which spaCy was given {megabytes(few):.1f}")
    for name, rates, right in (("ours", our_rates, ours_right), ("spaCy", their_rates, theirs_right)):
        print(
            f"{name:8s}  {statistics.median(rates):8.2f} MB/s a core ({min(rates):.2f} to {max(rates):.2f}), "
            f"{right} of {num_places} places"
        )
    finish(
        "books.boundaries_right_of_55",
        ours_right,
        "places",
        f"spaCy's sentencizer: {theirs_right}",
        ceiling=str(num_places),
        packages=("numpy", "spacy"),
        record=arguments.record,
    )
    finish(
        "cpu.split_sentences_vs_spacy",
        ours / baseline,
        "ratio",
        f"spaCy's sentencizer: {baseline:.2f} MB/s a core, {theirs_right} of {num_places} places right",
        packages=("numpy", "spacy"),
        details={
            "megabytes_per_second": float(f"{ours:.3g}"),
            "places_right": ours_right,
            "num_places": num_places,
            "megabytes": float(f"{megabytes(pieces):.3g}"),
        },
        record=arguments.record,
    )


if __name__ == "__main__":
    main()
