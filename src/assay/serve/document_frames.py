"""[pure] What goes over the socket between a front process and the core: documents, their outputs, and plain words.

    front -> core   DOCUMENTS  token ids of documents of many requests, for one pool of engines
                    CANCEL     numbers of requests that nobody waits for any more
    core -> front   SCORES     outputs of documents, those of a front in one batch of an engine
    both            SAY        JSON with a key "event"

The number in the head of the first three is that of the pool. A front numbers its requests and its documents itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from assay.serve.frames import HEAD, FrameHead, FrameKind

Longs = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentsFrame:
    """Tokenized documents, N of them, those of a request one behind the other."""

    requests_N: Longs
    """Number of the request of each."""
    documents_N: Longs
    """Number of each."""
    deadlines_N: Doubles
    """Event loop time, which all processes of a machine share."""
    second_starts_N: Ints
    normalize_N: Ints
    """1 where vectors are to have length 1."""
    num_views_N: Ints
    lengths: Ints
    """Of each view."""
    flat_ids: Ints


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoresFrame:
    """Outputs of documents, N of them with S views."""

    documents_N: Longs
    num_views_N: Ints
    started_N: Doubles
    """When each one's request first went to an engine, by `time.perf_counter`, which all processes share."""
    outputs_SC: npt.NDArray[np.float32]
    seconds: float
    """Wall time of the forward passes."""


def pack_documents(pool: int, frame: DocumentsFrame) -> bytes:
    """A DOCUMENTS frame."""
    parts = (
        frame.requests_N.astype("<i8", copy=False),
        frame.documents_N.astype("<i8", copy=False),
        frame.deadlines_N.astype("<f8", copy=False),
        frame.second_starts_N.astype("<i4", copy=False),
        frame.normalize_N.astype("<i4", copy=False),
        frame.num_views_N.astype("<i4", copy=False),
        frame.lengths.astype("<i4", copy=False),
        frame.flat_ids.astype("<i4", copy=False),
    )
    payload = b"".join(part.tobytes() for part in parts)
    num_documents, num_tokens = len(frame.documents_N), len(frame.flat_ids)
    return HEAD.pack(len(payload), FrameKind.DOCUMENTS, 0, pool, num_documents, num_tokens, 0.0) + payload


def unpack_documents(head: FrameHead, payload: bytes) -> DocumentsFrame:
    """The documents of a DOCUMENTS frame, as views of the payload."""
    n = head.num_sequences
    longs = np.frombuffer(payload, "<i8", 2 * n)
    deadlines = np.frombuffer(payload, "<f8", n, 16 * n)
    ints = np.frombuffer(payload, "<i4", offset=24 * n)
    return DocumentsFrame(
        requests_N=longs[:n],
        documents_N=longs[n:],
        deadlines_N=deadlines,
        second_starts_N=ints[:n],
        normalize_N=ints[n : 2 * n],
        num_views_N=ints[2 * n : 3 * n],
        lengths=ints[3 * n : len(ints) - head.width],
        flat_ids=ints[len(ints) - head.width :],
    )


def pack_scores(pool: int, frame: ScoresFrame) -> bytes:
    """A SCORES frame; the head counts documents, and the outputs of a view."""
    parts = (
        frame.documents_N.astype("<i8", copy=False),
        frame.started_N.astype("<f8", copy=False),
        frame.num_views_N.astype("<i4", copy=False),
        frame.outputs_SC.astype("<f4", copy=False),
    )
    payload = b"".join(part.tobytes() for part in parts)
    num_documents, width = len(frame.documents_N), frame.outputs_SC.shape[1]
    head = HEAD.pack(len(payload), FrameKind.SCORES, 0, pool, num_documents, width, frame.seconds)
    return head + payload


def unpack_scores(head: FrameHead, payload: bytes) -> ScoresFrame:
    """The outputs of a SCORES frame, as views of the payload."""
    n = head.num_sequences
    return ScoresFrame(
        documents_N=np.frombuffer(payload, "<i8", n),
        started_N=np.frombuffer(payload, "<f8", n, 8 * n),
        num_views_N=np.frombuffer(payload, "<i4", n, 16 * n),
        outputs_SC=np.frombuffer(payload, "<f4", offset=20 * n).reshape(-1, head.width),
        seconds=head.seconds,
    )


def pack_cancel(pool: int, requests: Sequence[int]) -> bytes:
    """A CANCEL frame."""
    payload = np.array(requests, dtype="<i8").tobytes()
    return HEAD.pack(len(payload), FrameKind.CANCEL, 0, pool, len(requests), 0, 0.0) + payload


def unpack_cancel(payload: bytes) -> list[int]:
    """The requests of a CANCEL frame."""
    found: list[int] = np.frombuffer(payload, "<i8").tolist()
    return found
