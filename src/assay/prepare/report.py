"""What `assay prepare books` did, for people and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from assay.prepare.leaks import Leak
from assay.telemetry import format_duration, format_number_of, printable

SHOWN = 5
WHY = {
    "missing_file": "the file is gone; put it back, and use another --out",
    "unreadable_file": "the file cannot be read",
    "not_text": "the file holds no text",
    "html": "the file is HTML; convert it to plain text",
    "quarantined": "cleaning would drop too much, or the file holds two books; cut it by hand, or give --cleaned",
    "shorter_than_a_chunk": "shorter than a chunk; give fewer --chunk-sentences",
    "other_language": "its chunks are in another language; give --language",
    "no_good_chunk": "every chunk is too short or has few letters",
    "no chunk left": "each of its chunks stands in other books too",
}
"""Why a book has no pairs, and what can be done, by the code that `report.json` has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitFigures:
    """One split."""

    books: int
    authors: int
    pairs: int
    positives: int
    negatives_by_kind: Mapping[str, int]
    easy: int
    hard: int
    pairs_cut: int | None
    """Longer than the model takes; None where tokens are not counted."""
    tokens_cut_share: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BooksReport:
    """The whole of it."""

    source: str
    task: str
    seed: int
    split_by: str
    books: int
    authors: int
    size_bytes: int
    notes: Sequence[str]
    books_unused: Mapping[str, str]
    """Books without pairs and why, by id."""
    chunks: int
    chunks_dropped: Mapping[str, int]
    near_duplicate_chunks: int | None
    editions: Sequence[Sequence[str]]
    """Books that are editions of one work."""
    shared_passages: Sequence[tuple[str, str, float]]
    """Two books that share passages, and the share of the smaller one; the largest first."""
    splits: Mapping[str, SplitFigures]
    crossings: Mapping[str, int]
    """What lies in two splits, by kind; all 0."""
    not_had: Mapping[str, int]
    """Pairs that were asked for and cannot be had, by kind."""
    leaks: Mapping[str, Leak]
    same_author_pairs_of_editions: float | None
    """Share of the pairs of books by one author that are editions of one work."""
    max_length: int
    seconds: dict[str, float]
    """By step."""
    runs: Mapping[str, str]
    """Ids of the runs behind it."""

    def to_json(self) -> dict[str, Any]:
        """As `report.json` has it."""
        return asdict(self)

    def __str__(self) -> str:
        """For people."""
        lines = [
            (
                f"books     {self.books:,} by {format_number_of(self.authors, 'author')}, "
                f"{self.size_bytes / 1e6:,.1f} MB; task {self.task}, seed {self.seed}"
            ),
            *(f"          {note}" for note in self.notes),
            *self._chunks(),
            *self._splits(),
            *self._pairs(),
            *self._leaks(),
            f"time      {', '.join(f'{step} {format_duration(each)}' for step, each in self.seconds.items())}",
        ]
        return "\n".join(map(printable, lines))

    def _chunks(self) -> list[str]:
        dropped = ", ".join(f"{number:,} {kind}" for kind, number in self.chunks_dropped.items() if number)
        near = self.near_duplicate_chunks
        lines = [
            (
                f"chunks    {self.chunks:,}; dropped: {dropped or 'none'}; near-duplicates in a sample: "
                f"{'not looked for' if near is None else f'{near:,}'}"
            )
        ]
        for code in sorted(set(self.books_unused.values())):
            unused = [book for book, why in self.books_unused.items() if why == code]
            why = WHY.get(code, code)
            lines.append(f"unused    {format_number_of(len(unused), 'book')}: {_some(unused)} ({why})")
        lines += [f"editions  {' = '.join(group)}" for group in self.editions[:SHOWN]]
        if len(self.editions) > SHOWN:
            lines.append(f"          and {len(self.editions) - SHOWN:,} more works in several editions")
        others = [each for each in self.shared_passages if not self._is_edition(each)]
        lines += [f"passages  {one} and {other} share {share:.1%}" for one, other, share in others[:SHOWN]]
        if len(others) > SHOWN:
            lines.append(f"          and {len(others) - SHOWN:,} more pairs of books that share less")
        return lines

    def _is_edition(self, shared: tuple[str, str, float]) -> bool:
        return any(shared[0] in group and shared[1] in group for group in self.editions)

    def _splits(self) -> list[str]:
        lines = [
            f"{'splits' if first else '':10}{name}: {format_number_of(each.books, 'book')} by "
            f"{format_number_of(each.authors, 'author')}, {each.pairs:,} pairs ({each.positives:,} positive)"
            for first, (name, each) in zip(
                [True, *([False] * len(self.splits))], self.splits.items(), strict=False
            )
        ]
        crossing = ", ".join(f"{number:,} {kind}" for kind, number in self.crossings.items())
        return [*lines, f"checked   in two splits: {crossing} (split by {self.split_by})"]

    def _pairs(self) -> list[str]:
        lines = []
        for name, each in self.splits.items():
            kinds = ", ".join(f"{kind} {number:,}" for kind, number in each.negatives_by_kind.items())
            lines.append(f"negatives {name}: {kinds or 'none'}; {each.easy:,} easy, {each.hard:,} hard")
        missing = {kind: number for kind, number in self.not_had.items() if kind != "positive"}
        if missing:
            shown = ", ".join(f"{kind} {number:,}" for kind, number in missing.items())
            lines.append(f"missing   {shown}; other kinds took their share, by weight")
        if positives := self.not_had.get("positive"):
            why = (
                "no two sides that far apart"
                if self.task == "same_book"
                else "no second book by their author"
            )
            count = format_number_of(positives, "positive")
            lines.append(f"missing   {count}, and negatives in proportion; those books have {why}")
        for name, each in self.splits.items():
            if not each.positives or each.positives == each.pairs:
                lines.append(
                    f"lacking   {name} has {each.positives:,} positives and {each.pairs - each.positives:,} negatives; "
                    f"nothing can be measured on it: add books{' of other authors' if each.positives else ''}"
                )
        counted = [each for each in self.splits.values() if each.pairs_cut is not None and each.pairs]
        if counted:
            cut = sum(each.pairs_cut or 0 for each in counted)
            share = sum((each.tokens_cut_share or 0.0) * each.pairs for each in counted)
            pairs = sum(each.pairs for each in counted)
            lines.append(
                f"length    {cut / pairs:.1%} of the pairs are longer than {self.max_length} tokens; "
                f"the model would not see {share / pairs:.2%} of the tokens"
            )
        else:
            lines.append("length    unknown: without a tokenizer tokens are not counted")
        return lines

    def _leaks(self) -> list[str]:
        lines = [f"{'leaks':10}{'AUC of':32}{'same book':>12}{'same book':>14}{'same author':>14}"]
        lines.append(f"{'':10}{'':32}{'/ others':>12}{'/ same author':>14}{'/ others':>14}")
        for name, leak in self.leaks.items():
            figures = (leak.same_book_or_other_author, leak.same_book_or_same_author, leak.same_author)
            shown = [("-" if value is None else f"{value:.3f}") for value in figures]
            lines.append(f"{'':10}{name:32}{shown[0]:>12}{shown[1]:>14}{shown[2]:>14}")
        share = self.same_author_pairs_of_editions
        if share is not None:
            lines.append(f"{'':10}{share:.1%} of the pairs of books by one author are editions of one work")
        return lines


def notes_of_second_books(found: Mapping[str, str]) -> list[str]:
    """For people, of files that seem to hold two books; `found` has the place of each by the id of the book."""
    notes = [
        f"{book} may hold two books: see {place}; if it does, split the file there, and use another --out"
        for book, place in list(found.items())[:SHOWN]
    ]
    if len(found) > SHOWN:
        notes.append(f"and {len(found) - SHOWN:,} more files may hold two books")
    return notes


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
