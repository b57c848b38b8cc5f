"""What a comparison found, for people and as JSON. Values in, lines out."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from assay.telemetry import format_number_of

_SHOWN_EVIDENCE = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedText:
    """One of the two."""

    name: str
    num_chunks: int
    num_words: int
    share_in_chunks: float
    """How much of the text is in its chunks, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PassagePlace:
    """A chunk of one of the two."""

    start: int
    """First character."""
    stop: int
    """One past the last."""
    beginning: str
    """Its first words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PassagePair:
    """A chunk of each, and what the model says of the two by themselves."""

    log_odds: float
    first: PassagePlace
    second: PassagePlace


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Whether two texts belong together."""

    relation: str
    """What the probability is of: `same book`, `same author`, or `label` and its name."""
    holds: bool | None
    """The answer; None where it is not certain enough."""
    probability: float
    """That it holds."""
    confidence: float
    """Probability of the likelier of both, 0.5 to 1."""
    calibration: str
    """What made a probability of the number that was compared."""
    stages: Mapping[str, object]
    """What each model of a cascade said, by the names of a scored pair's columns; {} of a single model."""
    aggregate: str
    """How that number was made."""
    score: float
    """The number itself: log-odds, or a cosine."""
    texts: tuple[ComparedText, ComparedText]
    passages_for: tuple[PassagePair, ...]
    """The highest first."""
    passages_against: tuple[PassagePair, ...]
    """The lowest first."""
    evidence: Mapping[str, float]
    """What each piece of evidence of words and style adds to the log-odds, the largest first; {} without any."""
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The same as a JSON object, with `same_book` or `same_author` beside `holds` where it is one of these.

        What the models of a cascade said stands beside them, not under `stages`.
        """
        found = asdict(self)
        found = {**found.pop("stages"), **found}
        if self.relation.startswith("same "):
            found = {self.relation.replace(" ", "_"): self.holds, **found}
        return found

    def __str__(self) -> str:
        """The answer first, then what it rests on."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        answer = {True: "yes", False: "no", None: "not certain"}[self.holds]
        yield (
            f"{self.relation}: {answer}; probability {self.probability:.3f},"
            f" confidence {self.confidence:.3f} ({self.calibration})"
        )
        if self.stages:
            second = self.stages.get("cross_probability")
            said = "was not asked" if second is None else f"{second:.3f}"
            yield f"  {self.stages['stage']}: first model {self.stages['bi_probability']:.3f}, second model {said}"
        for text in self.texts:
            chunks, words = (
                format_number_of(text.num_chunks, "chunk"),
                format_number_of(text.num_words, "word"),
            )
            yield f"  {text.name}: {words}, {chunks}"
        for title, pairs in (("for it", self.passages_for), ("against it", self.passages_against)):
            if pairs:
                yield f"passages that spoke most {title}:"
            for pair in pairs:
                yield f"  {pair.log_odds:+.2f}  {_place(pair.first)}"
                yield f"         {_place(pair.second)}"
        if self.evidence:
            yield "words and style that counted most:"
            for name, share in list(self.evidence.items())[:_SHOWN_EVIDENCE]:
                yield f"  {share:+.2f}  {name}"
        yield from (f"note: {note}" for note in self.notes)


def _place(passage: PassagePlace) -> str:
    return f"{passage.start:,} to {passage.stop:,}: {passage.beginning}"
