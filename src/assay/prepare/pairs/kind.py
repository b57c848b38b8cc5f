"""The pairs run as a kind: what makes its pairs, and what its workers need."""

from assay.prepare.pairs.draw import PairTask
from assay.prepare.pairs.places import Sides
from assay.runs.kinds import RunKind, RunRecord


class MinedIdentity(RunRecord):
    """The model that chose negatives among candidates, and how; which it chose is the run's source."""

    bundle: str
    """Fingerprint."""
    label: str
    trials: int
    """Candidates of a book."""


class PairsIdentity(RunRecord):
    """How pairs are drawn; the books, their splits and partners are the run's source."""

    chunks: str
    """Id of the run that made the chunks."""
    task: PairTask
    positives: int
    negatives: int
    weights: dict[str, float]
    chunks_per_side: int
    sides: Sides
    min_gap_sentences: int
    seed: int
    mined: MinedIdentity | None = None
    """None without a model, and for a run that draws the candidates of one."""


class PairsRecord(RunRecord):
    """What the workers of a pairs run need besides."""

    shelf: str
    """File with all chunks, absolute."""


PAIRS = RunKind(name="pairs", identity=PairsIdentity, settings=PairsRecord, rows_out="any_number")
