"""Scores and vectors to the JSON of answers, in the shapes of `models`."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from assay.bundle.bundle import Bundle
from assay.metrics import sigmoid
from assay.serve.tickets import AnsweredText, Ticket
from assay.serve.vectors import base64_of
from assay.tasks import Task


def prediction(bundle: Bundle, scored: AnsweredText) -> dict[str, object]:
    """A text's `PredictResponse`."""
    score = scored.score
    if bundle.task is Task.REGRESSION:
        answer: dict[str, object] = {"score": score.values[0]}
        if score.int_score is not None:
            answer["int_score"] = score.int_score
        if score.interval is not None:
            answer["interval"] = list(score.interval)
        return answer
    probabilities = dict(zip(bundle.labels, score.values, strict=True))
    if score.label is None:
        held = [label for label, holds in zip(bundle.labels, score.holds or (), strict=True) if holds]
        return {"labels": held, "all_probabilities": probabilities}
    return {
        "label": bundle.labels[score.label],
        "confidence": score.probability,
        "all_probabilities": probabilities,
        **(score.stages or {}),
    }


def add_details(answer: dict[str, object], scored: AnsweredText, ticket: Ticket) -> None:
    """Add to a prediction what there is to know of how it was made."""
    tokenize, queue, forward = seconds(ticket)
    answer["num_tokens"] = scored.num_tokens
    answer["truncated"] = scored.truncated
    answer["timings"] = {
        "tokenize_ms": round(1000 * tokenize, 3),
        "queue_ms": round(1000 * queue, 3),
        "forward_ms": round(1000 * forward, 3),
    }


def seconds(ticket: Ticket) -> tuple[float, float, float]:
    """How long a request was tokenized, waited, and was computed (its slowest batch)."""
    return (
        max(0.0, ticket.tokenized_at - ticket.arrived_at),
        max(0.0, ticket.started_at - ticket.tokenized_at),
        ticket.forward_seconds,
    )


def label_scores(bundle: Bundle, scored: AnsweredText, *, raw_scores: bool) -> list[dict[str, object]]:
    """TEI's answer to one text: every label, the likeliest first.

    Probabilities are calibrated as everywhere. A single output goes through a sigmoid as in TEI; its
    plain value is the raw score.
    """
    score = scored.score
    values = score.logits
    if not raw_scores:
        values = score.values if len(values) > 1 or bundle.task.is_classifier else [float(sigmoid(values[0]))]
    pairs = sorted(zip(values, bundle.labels, strict=True), key=lambda pair: -pair[0])
    return [{"label": label, "score": value} for value, label in pairs]


def ranks(
    bundle: Bundle,
    found: Sequence[AnsweredText],
    texts: Sequence[str],
    *,
    raw_scores: bool,
    return_text: bool,
) -> list[dict[str, object]]:
    """TEI's answer to a rerank: the texts' places and scores, best first.

    A model of one output ranks by it, through a sigmoid; one of two labels by the second.
    """
    ranked: list[tuple[float, int]] = []
    for index, scored in enumerate(found):
        score = scored.score
        if raw_scores:
            value = score.logits[-1]
        else:
            value = float(sigmoid(score.logits[0])) if bundle.task is Task.REGRESSION else score.values[-1]
        ranked.append((value, index))
    ranked.sort(key=lambda pair: -pair[0])
    return [
        {"index": index, "score": value, **({"text": texts[index]} if return_text else {})}
        for value, index in ranked
    ]


def embeddings(
    vectors_ND: npt.NDArray[np.float32],
    *,
    model_id: str,
    num_tokens: int,
    encoding_format: Literal["float", "base64"],
) -> dict[str, object]:
    """OpenAI's answer to texts: their vectors in order, as lists of numbers or in base64."""
    listed = vectors_ND if encoding_format == "float" else [base64_of(vector) for vector in vectors_ND]
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": vector, "index": index}
            for index, vector in enumerate(listed)
        ],
        "model": model_id,
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }
