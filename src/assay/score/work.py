"""How a unit becomes a part of scores; `embed.engine_work` has the steps, `Scorer` what is made of logits."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from assay.embed.engine_work import EngineWork
from assay.runs.manifest import Manifest
from assay.score.kind import SCORE
from assay.tokenize.encode import Encoder

if TYPE_CHECKING:
    from assay.score.scorer import Scorer


class ScoreWork(EngineWork):
    """Scores the units of a run."""

    def __init__(
        self,
        manifest: Manifest,
        encoder: Encoder,
        load_scorer: "Callable[[], Scorer]",
        *,
        worker: str = "",
    ) -> None:
        """Work for the run of `manifest`; `worker` names this process in the parts' footers."""
        _, settings = manifest.read(SCORE)
        super().__init__(manifest, encoder, load_scorer, strict=settings.strict, worker=worker)
