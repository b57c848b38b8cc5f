"""[pure] What the server says, as values, read from its JSON."""

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from assay.client.wire import OK, Reply, error_text
from assay.errors import WorkError
from assay.tasks import STAGE_COLUMNS, Task

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

T = TypeVar("T")
JsonObject = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """Where the server spent its time on a request, in milliseconds."""

    tokenize_ms: float
    queue_ms: float
    forward_ms: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What the model says of one text."""

    label: str | None = None
    """The predicted label; single-label models only."""
    confidence: float | None = None
    """Its probability."""
    labels: tuple[str, ...] | None = None
    """The labels that hold; multi-label models only."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Probability of each label, calibrated where the bundle is; empty for regression."""
    score: float | None = None
    """The predicted number; regression only."""
    int_score: int | None = None
    """The same, rounded and clipped, where the bundle has whole scores; regression only."""
    interval: tuple[float, float] | None = None
    """Where the true number lies, as far as the bundle was calibrated for that; regression only."""
    stages: Mapping[str, Any] | None = None
    """What each model of a cascade said, by the names of its columns, None for what was not asked; cascades only."""
    num_tokens: int | None = None
    """Tokens that the model saw; with `details`."""
    truncated: bool | None = None
    """Whether the text was longer than that; with `details`."""
    timings: Timings | None = None
    """Where the time went; with `details`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RerankedText:
    """One text of a reranked list."""

    index: int
    """Its place in the texts as given."""
    score: float
    """How well it answers the query."""
    text: str | None = None
    """The text, where it was asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """Whether the server answers predictions now."""

    ready: bool
    reason: str = ""
    """Why not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Info:
    """What the server serves, and within which limits."""

    model_id: str
    fingerprint: str
    """Hash of all of the bundle that can change a score."""
    task: Task | None
    """single_label, multi_label or regression; None for an encoder."""
    labels: tuple[str, ...]
    """Empty for an encoder."""
    dimension: int | None
    """D, numbers of a vector; None for a classifier."""
    is_pair: bool | None
    """Whether the model takes two texts; None where the bundle does not say."""
    version: str
    """Of Assay, on the server."""
    max_client_batch_size: int
    """Most texts of one request."""
    max_body_bytes: int
    """Most bytes of one request."""
    max_text_chars: int
    """Most characters of one text."""
    max_input_length: int
    """Most tokens of a text that the model sees."""
    raw: JsonObject = field(repr=False)
    """The whole answer."""


def read_json(reply: Reply, kind: type[T], path: str) -> T:
    """The JSON in a reply; raises WorkError unless it is a `kind`."""
    try:
        content = json.loads(reply.body)
    except ValueError:
        content = None
    if not isinstance(content, kind):
        msg = f"{path}: the answer is not a JSON {kind.__name__}; `assay serve` gives one; check the address"
        raise WorkError(msg)
    return content


def read_predictions(reply: Reply, num_texts: int) -> list[Prediction]:
    """The predictions of a batch; raises WorkError unless there is one for each text."""
    content = read_json(reply, list, "/predict/batch")
    if len(content) != num_texts:
        msg = f"/predict/batch: {len(content)} answers to {num_texts} texts; each has one; check the server's version"
        raise WorkError(msg)
    return [read_prediction(item) for item in content]


def read_prediction(content: object) -> Prediction:
    """One prediction from its JSON; raises WorkError where it lacks its scores."""
    try:
        item = cast("JsonObject", content)
        labels, interval, timings = item.get("labels"), item.get("interval"), item.get("timings")
        score = item.get("score")
        found = Prediction(
            label=item.get("label"),
            confidence=item.get("confidence"),
            labels=None if labels is None else tuple(labels),
            probabilities=dict(item.get("all_probabilities") or {}),
            score=None if score is None else float(score),
            int_score=item.get("int_score"),
            interval=None if interval is None else (float(interval[0]), float(interval[1])),
            stages={name: item.get(name) for name in STAGE_COLUMNS} if "stage" in item else None,
            num_tokens=item.get("num_tokens"),
            truncated=item.get("truncated"),
            timings=None if timings is None else read_timings(timings),
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        found = Prediction()
    if found.score is None and not found.probabilities:
        seen = json.dumps(content)[:200]
        msg = f"a prediction is {seen}; it has probabilities or a score; check the server's version"
        raise WorkError(msg)
    return found


def read_timings(content: JsonObject) -> Timings:
    """The server's times from their JSON."""
    return Timings(
        tokenize_ms=float(content["tokenize_ms"]),
        queue_ms=float(content["queue_ms"]),
        forward_ms=float(content["forward_ms"]),
    )


def read_health(reply: Reply) -> Health:
    """Whether the server is ready, and why not."""
    return Health(ready=reply.status == OK, reason="" if reply.status == OK else error_text(reply.body))


def read_info(reply: Reply) -> Info:
    """What the server serves; raises WorkError for an answer that is not of `assay serve`."""
    content = read_json(reply, dict, "/info")
    dimension = content.get("dimension")
    try:
        return Info(
            model_id=str(content["model_id"]),
            fingerprint=str(content["fingerprint"]),
            task=None if dimension is not None else Task(content["task"]),
            labels=() if dimension is not None else tuple(map(str, content["labels"])),
            dimension=None if dimension is None else int(dimension),
            is_pair=content["is_pair"],
            version=str(content["version"]),
            max_client_batch_size=int(content["max_client_batch_size"]),
            max_body_bytes=int(content["max_body_bytes"]),
            max_text_chars=int(content["max_text_chars"]),
            max_input_length=int(content["max_input_length"]),
            raw=content,
        )
    except (KeyError, TypeError, ValueError) as error:
        msg = f"/info: the answer lacks {error}; `assay serve` gives it; check the address and the server's version"
        raise WorkError(msg) from None


def read_ranks(reply: Reply) -> list[RerankedText]:
    """Ranks as the server sorted them; raises WorkError where an item is not a rank."""
    content = read_json(reply, list, "/rerank")
    try:
        return [
            RerankedText(index=int(item["index"]), score=float(item["score"]), text=item.get("text"))
            for item in content
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        msg = "/rerank: an item has no index and score; a rank has both; check the server's version"
        raise WorkError(msg) from None


def read_vectors(reply: Reply, num_texts: int) -> "npt.NDArray[np.float32]":
    """The vectors of a batch, float32 [num_texts, D]; raises WorkError unless there is one for each text."""
    import numpy as np

    content = read_json(reply, dict, "/v1/embeddings")
    try:
        found = {
            item["index"]: np.frombuffer(b64decode(item["embedding"], validate=True), "<f4")
            for item, _ in zip(content["data"], range(num_texts), strict=True)
        }
        return np.stack([found[index] for index in range(num_texts)]).astype(np.float32, copy=False)
    except (KeyError, TypeError, ValueError):
        msg = (
            f"/v1/embeddings: the answer does not hold {num_texts} vectors in base64; each text has one; "
            "check the server's version"
        )
        raise WorkError(msg) from None


def joined_vectors(
    parts: "Sequence[npt.NDArray[np.float32]]", dimension: int | None
) -> "npt.NDArray[np.float32]":
    """The vectors of all batches, float32 [N, D]."""
    import numpy as np

    return np.concatenate(parts) if parts else np.empty((0, dimension or 0), np.float32)
