"""A cascade behind the server: two deployments, the second asked about what the first leaves open.

    pairs of a request -> first deployment -> decided | open -> second deployment -> both put together -> answers

Each model has a tokenizer, a queue and engines of its own. A request keeps one deadline over both, and counts for
what may wait until it is answered. Lives in the event loop.

Axes: M pairs.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from assay.errors import UsageError
from assay.metrics import FloatArray
from assay.score.bundles import refuse_lengths
from assay.score.cascade.bundle import Cascade, read_cascade
from assay.score.cascade.decide import STAGES, Answers, answer, combined, logits_of
from assay.serve.deployment import BUSY_HEADERS, REFUSED_SECONDS, Deployment, Opened, load_here
from assay.serve.edge import Receive
from assay.serve.engine_pool import Pool
from assay.serve.engines import Child, EngineSpec, Ready
from assay.serve.kinds import ServedClassifier
from assay.serve.refusals import Refusal
from assay.serve.scores import Score
from assay.serve.settings import ServeSettings
from assay.serve.tickets import AnsweredText, How, RequestTexts, Ticket


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedCascade:
    """The server's own half of a cascade."""

    bundle: Cascade
    first: Opened
    second: Opened

    def notes(self) -> list[str]:
        """What the user should hear of both models."""
        return [*self.first.notes(), *self.second.notes()]


class CascadeDeployment:
    """What `Deployment` is for one model, for a cascade of two."""

    def __init__(
        self,
        settings: ServeSettings,
        opened: OpenedCascade,
        pools: Sequence[Pool],
    ) -> None:
        """Serve what `load_cascade_here` opened, by a pool of engines for each model."""
        self._bundle = opened.bundle
        self.model = ServedClassifier(bundle=opened.bundle)
        self.first, self.second = (
            Deployment(settings, each, pool=pool)
            for each, pool in zip((opened.first, opened.second), pools, strict=True)
        )
        self.encoder = self.second.encoder
        self._settings = settings
        self._open: dict[asyncio.Future[None], int] = {}
        """The documents of each request that is not answered."""

    # ------------------------------------------------------------ the state

    @property
    def num_tokenizing_threads(self) -> int:
        """Threads that make token ids."""
        return self.first.num_tokenizing_threads + self.second.num_tokenizing_threads

    @property
    def num_waiting(self) -> int:
        """Documents of requests that are not answered: any of them may have to go to the second model too."""
        here = sum(self._open.values())
        return here + self.first.pool.open_elsewhere(here)

    @property
    def seconds_of_work(self) -> float:
        """How long the engines will take for what waits at either model, as far as that can be told."""
        return self.first.seconds_of_work + self.second.seconds_of_work

    def trouble(self) -> str | None:
        """Why a model cannot answer now; None where both can."""
        return self.first.trouble() or self.second.trouble()

    def is_faulty(self) -> bool:
        """Whether no engine of a model answers and starting again has failed too."""
        return self.first.is_faulty() or self.second.is_faulty()

    def ready_engines(self) -> Sequence[Ready]:
        """What the engines that can answer said of themselves."""
        return [*self.first.ready_engines(), *self.second.ready_engines()]

    # ------------------------------------------------------------ a request

    def num_documents(self, texts: RequestTexts) -> int:
        """How many documents pairs count for where documents are counted."""
        return self.first.num_documents(texts)

    async def answer(
        self, texts: RequestTexts, how: How, *, request_id: str, receive: Receive
    ) -> tuple[Ticket, list[AnsweredText]]:
        """What the cascade says of pairs, in order; raises as `Deployment.answer` does."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        self._open[over] = self.num_documents(texts)
        self._publish()
        deadline = loop.time() + self._settings.timeout
        try:
            ticket, found = await self.first.answer(
                texts, how, request_id=request_id, receive=receive, deadline=deadline
            )
            first_M = self._probabilities(self.first, found)
            rows = np.flatnonzero(self._bundle.thresholds.goes_on(first_M))
            second_M = np.empty(0)
            if rows.size:
                other, seconds = await self.second.answer(
                    [texts[row] for row in rows.tolist()],
                    how,
                    request_id=request_id,
                    receive=receive,
                    deadline=deadline,
                    rows=rows.tolist(),
                )
                ticket.add(other)
                second_M = self._probabilities(self.second, seconds)
            return ticket, self._answered(found, first_M, second_M)
        finally:
            over.set_result(None)
            del self._open[over]
            self._publish()

    def _publish(self) -> None:
        self.first.pool.open_elsewhere(sum(self._open.values()))

    def _probabilities(self, deployment: Deployment, found: Sequence[AnsweredText]) -> FloatArray:
        assert isinstance(deployment.model, ServedClassifier), "a stage is a model of pairs"
        place = deployment.model.bundle.labels.index(self._bundle.labels[1])
        return np.array([each.score.values[place] for each in found], dtype=np.float64)

    def _answered(
        self, found: Sequence[AnsweredText], first_M: FloatArray, second_M: FloatArray
    ) -> list[AnsweredText]:
        answers = answer(
            self._bundle.thresholds,
            first_M,
            lambda _: second_M,
            lambda one_M, two_M, _: combined(self._bundle.combination, one_M, two_M),
        )
        logits_M2 = logits_of(answers.final_M)
        return [
            AnsweredText(_score(answers, row, logits_M2[row]), each.num_tokens, each.truncated)
            for row, each in enumerate(found)
        ]

    # ------------------------------------------------------------ start and end

    async def start(self, children: Sequence[tuple[EngineSpec, Child]]) -> None:
        """Take over the engine processes of both models; returns once all are warm. Raises AssayError."""
        stages = [[(spec, child) for spec, child in children if spec.stage == number] for number in (0, 1)]
        try:
            await asyncio.gather(self.first.start(stages[0]), self.second.start(stages[1]))
        except BaseException:
            await asyncio.gather(self.first.end(0), self.second.end(0))
            raise

    async def end(self, limit_seconds: float) -> None:
        """Answer what was accepted, for as long as allowed, and stop the engines."""
        if self._open:
            await asyncio.wait(set(self._open), timeout=limit_seconds)
        self.first.refuse_open()
        self.second.refuse_open()
        if self._open:
            await asyncio.wait(set(self._open), timeout=REFUSED_SECONDS)
        await asyncio.gather(self.first.end(0), self.second.end(0))


def load_cascade_here(settings: ServeSettings) -> OpenedCascade:
    """The server's half of a cascade; takes a moment, in any thread.

    Raises BundleError for models that are not those of the cascade, UsageError for settings that it does not take.
    """
    bundle = read_cascade(settings.bundle)
    refuse_lengths(bundle, settings)
    if settings.model_kind == "encoder":
        raise UsageError(
            f"{bundle.path} is a cascade and gives no vectors; leave --model-kind out, or give the folder of an encoder"
        )
    first, second = (load_here(settings, str(stage.path)) for stage in (bundle.first, bundle.second))
    return OpenedCascade(bundle=bundle, first=first, second=second)


def _score(answers: Answers, row: int, logits: npt.NDArray[np.float32]) -> Score:
    final, holds, goes_on = (float(answers.final_M[row]), bool(answers.holds_M[row]), answers.goes_on_M[row])
    if not np.isfinite(final):
        raise Refusal("backend", f"the models gave no finite numbers for pair {row}", BUSY_HEADERS)
    first, second = float(answers.first_M[row]), float(answers.second_M[row])
    stages: dict[str, object] = {
        "stage": STAGES[int(goes_on)],
        "bi_probability": first,
        "bi_confidence": max(first, 1 - first),
    }
    if goes_on:
        stages |= {"cross_probability": second, "cross_confidence": max(second, 1 - second)}
    return Score(
        logits.tolist(),
        [1 - final, final],
        int(holds),
        final if holds else 1 - final,
        stages={**stages, "final_probability": final, "same_book": holds},
    )
