"""Counters for `/metrics`, under TEI's names where they mean the same; else `assay_...`. Several processes' add up.

`prometheus_client` puts `_total` behind the name of a counter. TEI's counters have no such suffix, so
they are handed over as they are, untyped.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import isfinite
from typing import Any, Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from assay.embed.differences import CONFIDENCE, EDGES, EDGES_SHOWN, Differences

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
DOCUMENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
TOKENS = (64, 256, 1024, 4096, 16_384, 65_536, 262_144)
RequestKind = Literal["predict", "rerank", "embed"]
"""What is asked of texts."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COUNTERS = {
    "te_request_count": "Requests for predictions or vectors.",
    "te_request_success": "Requests for predictions or vectors that were answered.",
    "te_request_failure": "Requests that got an error for an answer, by its type.",
    "te_predict_count": "Texts to predict.",
    "te_predict_success": "Texts predicted.",
    "te_rerank_count": "Texts to rerank.",
    "te_embed_count": "Texts to embed.",
    "te_embed_success": "Texts embedded.",
    "assay_tokens": "Tokens of texts that were answered.",
    "assay_retried_documents": "Documents tried again after an engine died.",
    "assay_engine_restarts": "Engine processes that were started again.",
    "assay_front_restarts": "Front processes that were started again.",
    "assay_reloads": "Reloads of bundle and keys, by outcome.",
    "assay_disconnects": "Requests whose client went away before the answer.",
    "assay_parity_documents": "Documents that ran in fp32 too, after their answer.",
    "assay_parity_dropped": "Documents chosen to run in fp32 too that did not: the engine had other work.",
    "assay_parity_labels_changed": "Documents that fp32 gives another label.",
    "assay_parity_beyond_tolerance": "Documents that differ from fp32 by more than the precision allows.",
}

_HISTOGRAMS: dict[str, tuple[str, tuple[float, ...]]] = {
    "te_request_duration": ("Seconds from request to answer.", SECONDS),
    "te_request_tokenization_duration": ("Seconds until a request was tokenized.", SECONDS),
    "te_request_queue_duration": ("Seconds that a request waited.", SECONDS),
    "te_request_inference_duration": ("Seconds of the forward pass.", SECONDS),
    "te_batch_next_size": ("Documents of a batch.", DOCUMENTS),
    "te_batch_next_tokens": ("Tokens of a batch.", TOKENS),
    "assay_parity_difference": ("Differences of documents to fp32.", EDGES),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """What an engine has to say of fp32 since it last did."""

    differences: Sequence[float] = ()
    """Of each document that was compared; infinity where fp32 gave no numbers."""
    labels_changed: int = 0
    """How many fp32 gives another label."""
    beyond: int = 0
    """How many are past the tolerance."""
    dropped: int = 0
    """How many were chosen and could not be compared in time."""


class Metrics:
    """What is counted. Lives in the event loop."""

    def __init__(self) -> None:
        """Everything at 0."""
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._observed = _nothing_observed()
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show what `read` gives under `name`."""
        self._gauges[name] = (text, read)

    def request(self, work: RequestKind, *, is_batch: bool, num_documents: int) -> None:
        """A request to do this was accepted for reading."""
        self._counts["te_request_count", "method", "batch" if is_batch else "single"] += 1
        self._counts[f"te_{work}_count", "", ""] += num_documents

    def success(self, work: RequestKind, *, is_batch: bool, num_documents: int, num_tokens: int) -> None:
        """It was answered."""
        self._counts["te_request_success", "method", "batch" if is_batch else "single"] += 1
        done = "te_embed_success" if work == "embed" else "te_predict_success"
        self._counts[done, "", ""] += num_documents
        self._counts["assay_tokens", "", ""] += num_tokens

    def times(self, *, total: float, tokenize: float, queue: float, forward: float) -> None:
        """How long an answered request took, seconds."""
        self._observe("te_request_duration", total)
        self._observe("te_request_tokenization_duration", tokenize)
        self._observe("te_request_queue_duration", queue)
        self._observe("te_request_inference_duration", forward)

    def failure(self, error_type: str) -> None:
        """A request got an error for an answer."""
        self._counts["te_request_failure", "err", error_type] += 1

    def batch(self, num_documents: int, num_tokens: int) -> None:
        """A batch went to an engine."""
        self._observe("te_batch_next_size", num_documents)
        self._observe("te_batch_next_tokens", num_tokens)

    def retried(self, num_documents: int) -> None:
        """Documents wait once more."""
        self._counts["assay_retried_documents", "", ""] += num_documents

    def restart(self) -> None:
        """An engine process was started again."""
        self._counts["assay_engine_restarts", "", ""] += 1

    def reload(self, outcome: str) -> None:
        """A reload was done, or failed."""
        self._counts["assay_reloads", "outcome", outcome] += 1

    def disconnect(self) -> None:
        """A client went away."""
        self._counts["assay_disconnects", "", ""] += 1

    def compared(self, found: Compared) -> None:
        """Documents ran in fp32 too, or should have."""
        for name, count in (
            ("documents", len(found.differences)),
            ("dropped", found.dropped),
            ("labels_changed", found.labels_changed),
            ("beyond_tolerance", found.beyond),
        ):
            if count:
                self._counts[f"assay_parity_{name}", "", ""] += count
        for difference in found.differences:
            self._observe("assay_parity_difference", difference)

    def front_restart(self) -> None:
        """A front process was started again."""
        self._counts["assay_front_restarts", "", ""] += 1

    def take(self) -> dict[str, Any]:
        """What was counted since the last call, as JSON can hold it; it is no longer counted here."""
        counts, self._counts = self._counts, Counter()
        observed, self._observed = self._observed, _nothing_observed()
        return {"counts": [[*key, count] for key, count in counts.items()], "observed": observed}

    def add(self, taken: Mapping[str, Any]) -> None:
        """Count what `take` gave elsewhere."""
        for name, label, value, count in taken["counts"]:
            self._counts[name, label, value] += count
        for name, numbers in taken["observed"].items():
            here = self._observed[name]
            self._observed[name] = [one + other for one, other in zip(here, numbers, strict=True)]

    def _observe(self, name: str, value: float) -> None:
        numbers = self._observed[name]
        numbers[bisect_left(_HISTOGRAMS[name][1], value)] += 1
        if isfinite(value):
            numbers[-1] += value

    def collect(self) -> Iterator[Metric]:
        """Counters and gauges, for the registry."""
        for name, text in _COUNTERS.items():
            metric = Metric(name, text, "unknown")
            found = {key: count for key, count in self._counts.items() if key[0] == name}
            for (_, label, value), count in found.items() or [((name, "", ""), 0)]:
                metric.add_sample(name, {label: value} if label else {}, count)
            yield metric
        for name, (text, bounds) in _HISTOGRAMS.items():
            *numbers, total = self._observed[name]
            ends = [*map(floatToGoString, bounds), "+Inf"]
            buckets = list(zip(ends, accumulate(numbers), strict=True))
            yield HistogramMetricFamily(name, text, buckets=buckets, sum_value=total)
        yield from self._bounds()
        for name, (text, read) in self._gauges.items():
            metric = Metric(name, text, "gauge")
            metric.add_sample(name, {}, read())
            yield metric

    def _bounds(self) -> Iterator[Metric]:
        """What the documents that were compared say of all; nothing of none."""
        *counts, _ = self._observed["assay_parity_difference"]
        found = Differences(
            counts=tuple(map(int, counts)),
            labels_changed=self._counts["assay_parity_labels_changed", "", ""],
        )
        if not found.num_documents:
            return
        text = f"Of all distinct documents at most this share {{}}, with {CONFIDENCE:.0%} confidence."
        beyond = Metric("assay_parity_most_beyond", text.format("differs from fp32 by more"), "gauge")
        for edge in EDGES_SHOWN:
            beyond.add_sample(beyond.name, {"difference": f"{edge:g}"}, found.most_beyond(edge))
        changed = Metric("assay_parity_most_changed", text.format("has another label in fp32"), "gauge")
        changed.add_sample(changed.name, {}, found.most_changed())
        yield from (beyond, changed)

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)


def _nothing_observed() -> dict[str, list[float]]:
    """By histogram: how many values in each bucket, one above them all, and the sum of the values."""
    return {name: [0] * (len(bounds) + 1) + [0.0] for name, (_, bounds) in _HISTOGRAMS.items()}
