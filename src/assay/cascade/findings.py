"""What a tuning of a cascade found, as a value and as lines for people."""

from dataclasses import dataclass, field

from assay.cascade.choose import ChosenThresholds
from assay.cascade.settings import CascadeTuneSettings
from assay.score.cascade.files import CascadeFile, StageEntry


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """What one choice of thresholds does to the pairs."""

    chosen: ChosenThresholds
    share: float
    """Of the pairs that reach the second model."""
    cost: float
    """Seconds of the cascade over those of the second model alone, as measured."""
    accuracy: float
    auc: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Alone:
    """One model by itself on the same pairs."""

    stage: StageEntry
    pairs_per_second: float
    """As measured, texts that several pairs share counted once where the model encodes them once."""
    accuracy: float
    """At a probability of 0.5."""
    auc: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CascadeReport:
    """What a tuning found."""

    settings: CascadeTuneSettings
    cascade: CascadeFile
    point: Point
    """The one that was chosen."""
    curve: tuple[Point, ...]
    """Others, by rising share of the pairs that are turned away."""
    first: Alone
    second: Alone
    num_pairs: int
    num_with_label: int
    num_authors: int | None
    page: str
    created: str
    notes: tuple[str, ...] = field(default=())
    """What a reader must know, a sentence each."""

    def __str__(self) -> str:
        """What was chosen and what it gives, for people."""
        point, chosen = self.point, self.point.chosen
        first, second = self.first, self.second
        lines = [
            f"tuned on {self.num_pairs:,} pairs, {self.num_with_label:,} of them {self.cascade.labels[1]}",
            f"{chosen.thresholds}: {point.share:.1%} reach the second model",
            f"recall {chosen.recall:.4f}, lower bound {chosen.recall_bound:.4f} ({self.settings.confidence:g} sure)",
            f"cost {point.cost:.1%} of the second model alone, which takes {second.pairs_per_second:,.0f} pairs/s",
            f"AUC {point.auc:.4f}, alone {first.auc:.4f} and {second.auc:.4f}",
            f"accuracy {point.accuracy:.4f}, alone {first.accuracy:.4f} and {second.accuracy:.4f}",
        ]
        wrote = f"wrote {self.settings.out} and {self.page}"
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes), wrote])
