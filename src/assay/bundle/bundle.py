"""The Bundle value: a checked folder that can be deployed."""

from dataclasses import dataclass
from pathlib import Path

from assay.model.checkpoint import Checkpoint, JsonObject
from assay.outcome.calibration import Calibration
from assay.outcome.decide import Decider
from assay.tasks import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """A checked bundle folder: what it predicts, within which limits, and its identity."""

    checkpoint: Checkpoint
    """The model in it: its files, as they were when they were hashed."""
    task: Task
    """What the head predicts."""
    labels: tuple[str, ...]
    """Names of the outputs, in the order of the logits."""
    calibration: Calibration | None
    """`calibration.json`, where there is one."""
    default_max_length: int
    """Tokens that it was trained and calibrated for; `max_length` where nothing says so."""
    fingerprint: str
    """Hash of all that can change a score, 32 hex digits."""
    tokenizer_fingerprint: str
    """Hash of what turns text into ids, 32 hex digits."""
    is_pair: bool | None
    """Whether it takes two texts; `None` where the folder does not say."""
    provenance: JsonObject
    """Where it came from: base, settings, counts, hashes of the training rows."""
    int_score: tuple[int, int] | None = None
    """Regression: least and greatest whole score, where predictions are also given rounded and clipped."""
    notes: tuple[str, ...] = ()
    """Things the user should hear of, a sentence each."""

    @property
    def path(self) -> Path:
        """The folder."""
        return self.checkpoint.path

    @property
    def provenances(self) -> tuple[JsonObject, ...]:
        """What it and its calibration say that they have seen."""
        calibration = self.calibration
        return (self.provenance, *([] if calibration is None else [calibration.provenance]))

    @property
    def max_length(self) -> int:
        """Most tokens, special tokens included, that the model can take."""
        return self.checkpoint.max_length

    @property
    def decider(self) -> Decider:
        """What turns the model's logits into what it says."""
        return Decider(
            task=self.task, labels=self.labels, calibration=self.calibration, int_score=self.int_score
        )
