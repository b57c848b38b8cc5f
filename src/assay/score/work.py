"""How a unit becomes a part of scores; `embed.engine_work` has the steps, `Scorer` what is made of logits."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from assay.data.rows import SourceRows
from assay.embed.engine_work import EngineWork
from assay.runs.manifest import Manifest
from assay.score.kind import SCORE
from assay.siamese.reading import PairReader
from assay.tokenize.chunks import ChunkRows, EncodedChunk
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
        pairs: PairReader | None = None,
        worker: str = "",
    ) -> None:
        """Work for the run of `manifest`; `worker` names this process in the parts' footers.

        `pairs` reads the rows for a bundle that encodes the texts of a pair apart.
        """
        _, settings = manifest.read(SCORE)
        super().__init__(manifest, encoder, load_scorer, strict=settings.strict, worker=worker)
        self._pairs = pairs

    def _chunks(self, rows: Iterable[SourceRows], chunk_rows: ChunkRows) -> Iterator[EncodedChunk]:
        if self._pairs is None:
            return super()._chunks(rows, chunk_rows)
        return self._pairs.chunks(rows, chunk_rows)
