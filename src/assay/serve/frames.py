"""[pure] What goes over the sockets between the server's processes: bytes, nothing pickled.

A frame is a head of 32 bytes and a payload of as many bytes as the head says.

    server -> engine   BATCH    N + 1 offsets int32, [N second starts int32], [N normalize int32],
                                [N documents int32], T ids int32
    engine -> server   OUTPUTS  N x C outputs float32
                       HELLO    JSON: what the process runs on; said before the model is loaded
                       READY    JSON: the engine, loaded and warm
                       FAILED   JSON: what a batch (number above 0) or the start failed of
                       COMPARED JSON: how far documents were from fp32

Those between a front process and the core are in `document_frames`.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

HEAD = struct.Struct("<IBBxxQIId")
"""Bytes of the payload, kind, flags, number of the batch, N, T or C, seconds."""
_HAS_SECOND_STARTS = 1
_HAS_NORMALIZE = 2
_HAS_DOCUMENTS = 4


class FrameKind(IntEnum):
    """What a frame holds."""

    BATCH = 1
    OUTPUTS = 2
    HELLO = 3
    READY = 4
    FAILED = 5
    DOCUMENTS = 6
    SCORES = 7
    CANCEL = 8
    SAY = 9
    COMPARED = 10


class FrameHead(NamedTuple):
    """The head of a frame; a tuple, as `struct` gives it, for there is one a batch."""

    num_bytes: int
    kind: int
    """A `FrameKind`."""
    flags: int
    number: int
    """Number of the batch; 0 for frames of no batch."""
    num_sequences: int
    width: int
    """Tokens of a batch; numbers of one output."""
    seconds: float
    """Wall time of the forward passes, for outputs."""


@dataclass(frozen=True, slots=True)
class BatchFrame:
    """Token sequences to run together."""

    flat_ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int32]
    second_starts: npt.NDArray[np.int32] | None = None
    normalize: npt.NDArray[np.int32] | None = None
    """1 for a sequence whose output is to have length 1, 0 for any other; None for none."""
    documents: npt.NDArray[np.int32] | None = None
    """Number of the document that each sequence is a window of, never falling; None where each is a whole one."""


def read_head(data: bytes | bytearray) -> FrameHead:
    """The head of a frame from its first 32 bytes."""
    return FrameHead._make(HEAD.unpack_from(data))


def pack_batch(number: int, batch: BatchFrame) -> bytes:
    """A BATCH frame."""
    payload, flags = batch.offsets.astype("<i4", copy=False).tobytes(), 0
    for flag, numbers in (
        (_HAS_SECOND_STARTS, batch.second_starts),
        (_HAS_NORMALIZE, batch.normalize),
        (_HAS_DOCUMENTS, batch.documents),
    ):
        if numbers is not None:
            payload += numbers.astype("<i4", copy=False).tobytes()
            flags |= flag
    payload += batch.flat_ids.astype("<i4", copy=False).tobytes()
    head = HEAD.pack(
        len(payload), FrameKind.BATCH, flags, number, len(batch.offsets) - 1, len(batch.flat_ids), 0.0
    )
    return head + payload


def unpack_batch(head: FrameHead, payload: bytes) -> BatchFrame:
    """The sequences of a BATCH frame, as views of the payload."""
    numbers = np.frombuffer(payload, dtype="<i4")
    stop = head.num_sequences + 1
    offsets, rest = numbers[:stop], numbers[stop:]
    found: dict[int, npt.NDArray[np.int32]] = {}
    for flag in (_HAS_SECOND_STARTS, _HAS_NORMALIZE, _HAS_DOCUMENTS):
        if head.flags & flag:
            found[flag], rest = rest[: head.num_sequences], rest[head.num_sequences :]
    return BatchFrame(
        rest, offsets, found.get(_HAS_SECOND_STARTS), found.get(_HAS_NORMALIZE), found.get(_HAS_DOCUMENTS)
    )


def pack_outputs(number: int, outputs_NC: npt.NDArray[np.float32], seconds: float) -> bytes:
    """An OUTPUTS frame."""
    payload = outputs_NC.astype("<f4", copy=False).tobytes()
    return HEAD.pack(len(payload), FrameKind.OUTPUTS, 0, number, *outputs_NC.shape, seconds) + payload


def unpack_outputs(head: FrameHead, payload: bytes) -> npt.NDArray[np.float32]:
    """The outputs [N, C] of an OUTPUTS frame."""
    return np.frombuffer(payload, dtype="<f4").reshape(head.num_sequences, head.width)


def pack_json(kind: FrameKind, content: Mapping[str, Any], *, number: int = 0) -> bytes:
    """A frame of JSON: HELLO, READY, FAILED, COMPARED, or SAY of `document_frames`."""
    payload = json.dumps(content).encode()
    return HEAD.pack(len(payload), kind, 0, number, 0, 0, 0.0) + payload


def unpack_json(payload: bytes) -> dict[str, Any]:
    """The content of a frame of JSON."""
    content: dict[str, Any] = json.loads(payload)
    return content
