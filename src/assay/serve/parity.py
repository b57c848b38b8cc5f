"""Some documents in fp32 too, while an engine has nothing else to do: how far its answers are off.

    offer(batch, outputs)   after the answer: which documents, by a hash of their token ids
    step()                  one sequence of one of them in fp32, and what it came to once it was the last

As in a run, but for what a document that comes twice counts for: once, so that what `/metrics` bounds is a share of
distinct documents. Used by an engine process, which knows the socket.
"""

import hashlib
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from assay.embed.unit_length import unit_length
from assay.engine.parity import TOLERANCES, VECTOR_TOLERANCES, document_differences, vector_differences
from assay.engine.precision import Computed
from assay.errors import InputError, UsageError, WorkError
from assay.serve.frames import BatchFrame
from assay.serve.kinds import ServedClassifier, ServedModel
from assay.serve.settings import is_fake
from assay.tokenize.views import reduce_windows

_log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
Compare = Callable[[Floats, Floats], tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]]
"""Outputs [N, C] and fp32's to each document's difference [N], NaN for one without answer, and whether its label is
another [N]."""

MOST_WAITING = 64
"""Documents that wait for a moment without work; further ones are dropped."""
MOST_REMEMBERED = 1 << 16
"""Documents chosen last, by their hashes: one that comes again is not compared again."""
TELL_SECONDS = 1.0
"""How often an engine that is never idle says what it dropped."""
LOG_SECONDS = 60.0
"""How often documents past the tolerance are logged at most."""


@dataclass(slots=True)
class _Sample:
    """A document that was answered."""

    key: int
    views: list[BatchFrame]
    """Its sequences, each alone."""
    outputs_VC: Floats
    """What was answered of them."""
    exact: list[Floats] = field(default_factory=list)
    """What fp32 gives, as far as it ran: [1, C] each."""


class Samples:
    """The documents of one engine that run in fp32 too. Any thread may offer; one at a time may step."""

    def __init__(
        self,
        run: Callable[[BatchFrame], Floats],
        compare: Compare,
        tell: Callable[[dict[str, Any]], None],
        *,
        share: float,
        allowed: float,
        how: Literal["mean", "max"] | None = None,
    ) -> None:
        """Each document has the chance `share`; `run` gives fp32's outputs of a batch.

        `tell` gets what `metrics.Compared` holds; `how` brings windows together.
        """
        self._run = run
        self._compare = compare
        self._tell = tell
        self._chosen_below = share * 2.0**64
        self._allowed = allowed
        self._how = how
        self._lock = threading.Lock()
        self._waiting: deque[_Sample] = deque()
        self._remembered: OrderedDict[int, None] = OrderedDict()
        self._num_dropped = 0
        self._told_at = self._logged_at = -float("inf")
        self._num_beyond = 0
        """Since they were last logged."""

    @property
    def is_waiting(self) -> bool:
        """Whether documents wait to be run."""
        return bool(self._waiting)

    def offer(self, batch: BatchFrame, outputs_SC: Floats) -> None:
        """Choose among the documents of a batch that was answered; its arrays are not kept."""
        firsts = list(range(len(batch.offsets) - 1))
        if batch.documents is not None:
            firsts = np.flatnonzero(np.diff(batch.documents, prepend=-1)).tolist()
        for first, last in zip(firsts, [*firsts[1:], len(batch.offsets) - 1], strict=True):
            ids = batch.flat_ids[batch.offsets[first] : batch.offsets[last]]
            key = int.from_bytes(hashlib.blake2b(ids.tobytes(), digest_size=8).digest())
            if key < self._chosen_below:
                self._choose(key, batch, first, last, outputs_SC)
        if self._num_dropped and time.monotonic() - self._told_at > TELL_SECONDS:
            self._say()

    def step(self) -> None:
        """Run one sequence in fp32, where a document waits."""
        if not self._waiting:
            return
        sample = self._waiting[0]
        try:
            sample.exact.append(self._run(sample.views[len(sample.exact)]))
        except (InputError, WorkError) as error:
            _log.warning("a document could not run in fp32 too: %s", error)
            self._drop(self._waiting.popleft())
            return
        if len(sample.exact) == len(sample.views):
            self._waiting.popleft()
            self._conclude(sample)

    def _choose(self, key: int, batch: BatchFrame, first: int, last: int, outputs_SC: Floats) -> None:
        with self._lock:
            if key in self._remembered:
                self._remembered.move_to_end(key)
                return
            self._remembered[key] = None
            if len(self._remembered) > MOST_REMEMBERED:
                self._remembered.popitem(last=False)
        sample = _Sample(
            key, [_alone(batch, row) for row in range(first, last)], outputs_SC[first:last].copy()
        )
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(sample)
        else:
            self._drop(sample)

    def _drop(self, sample: _Sample) -> None:
        with self._lock:
            self._num_dropped += 1
            self._remembered.pop(sample.key, None)

    def _conclude(self, sample: _Sample) -> None:
        found, changed = self._compare(
            self._whole(sample, sample.outputs_VC), self._whole(sample, np.concatenate(sample.exact))
        )
        difference = float(found[0])
        if np.isnan(difference):
            return
        is_beyond = difference > self._allowed
        if is_beyond:
            self._warn(sample, difference)
        self._say(differences=[difference], labels_changed=int(changed[0]), beyond=int(is_beyond))

    def _whole(self, sample: _Sample, outputs_VC: Floats) -> Floats:
        """The outputs of a document [1, C] from those of its sequences."""
        normalize = sample.views[0].normalize
        num_views = len(outputs_VC)
        if num_views == 1:
            return outputs_VC
        assert self._how is not None, "only windows give a document several sequences"
        whole_1C = reduce_windows(
            self._how, outputs_VC, np.zeros(num_views, np.int64), np.arange(num_views), num_rows=1
        )
        return whole_1C if normalize is None or not normalize[0] else unit_length(whole_1C)

    def _warn(self, sample: _Sample, difference: float) -> None:
        self._num_beyond += 1
        now = time.monotonic()
        if now - self._logged_at > LOG_SECONDS:
            _log.warning(
                "a document of %d tokens differs from fp32 by %.4g (allowed %g), one of %d past the tolerance since "
                "this was last said; serve with --precision fp32, or with bf16 in place of fp8",
                sum(len(view.flat_ids) for view in sample.views), difference, self._allowed, self._num_beyond,
            )  # fmt: skip
            self._logged_at, self._num_beyond = now, 0

    def _say(self, **compared: Any) -> None:  # noqa: ANN401  the fields of `Compared`
        with self._lock:
            dropped, self._num_dropped = self._num_dropped, 0
        self._told_at = time.monotonic()
        self._tell({**compared, "dropped": dropped})


def samples_of(
    model: ServedModel,
    run: Callable[[BatchFrame], Floats],
    tell: Callable[[dict[str, Any]], None],
    *,
    share: float,
    precision: Computed,
    how: Literal["mean", "max"] | None,
) -> Samples:
    """Those of a model's documents, within the tolerance that the parity gate of a run has by default."""
    if isinstance(model, ServedClassifier):
        decider, task, tolerance = model.bundle.decider, model.bundle.task, TOLERANCES[precision]
        allowed = tolerance.probability if task.is_classifier else tolerance.logit

        def compare(found: Floats, exact: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
            return document_differences(decider.logits(found), decider.logits(exact), task=task)

        return Samples(run, compare, tell, share=share, allowed=allowed, how=how)
    allowed = VECTOR_TOLERANCES[precision]
    return Samples(run, vector_differences, tell, share=share, allowed=allowed, how=how)


def check_share(share: float, model: ServedModel, *, engine: str, precision: str) -> None:
    """Raise UsageError for a share of documents that nothing can be compared of."""
    why_none = None
    if is_fake(engine):
        why_none = "the fake engine has no model"
    elif isinstance(model, ServedClassifier) and model.siamese is not None:
        why_none = "scores of pairs of vectors are compared by the parity gate of a run alone"
    elif precision == "fp32":
        why_none = "the engine computes in fp32 itself"
    if why_none is not None:
        raise UsageError(f"parity_share={share:g}; {why_none}; leave it out")


def _alone(batch: BatchFrame, row: int) -> BatchFrame:
    """A sequence of a batch as a batch, copied."""
    ids = batch.flat_ids[batch.offsets[row] : batch.offsets[row + 1]].copy()
    return BatchFrame(
        ids,
        np.array([0, len(ids)], np.int32),
        None if batch.second_starts is None else batch.second_starts[row : row + 1].copy(),
        None if batch.normalize is None else batch.normalize[row : row + 1].copy(),
    )
