"""Frames: what is packed is what is unpacked."""

import numpy as np
import pytest

from assay.serve import frames
from assay.serve.frames import BatchFrame, FrameKind


def split(frame):
    """Head and payload."""
    head = frames.read_head(frame[: frames.HEAD.size])
    payload = frame[frames.HEAD.size :]
    assert head.num_bytes == len(payload)
    return head, payload


@pytest.mark.parametrize("starts", [None, np.array([0, 2], np.int32)])
def test_batches(starts):
    """Ids, offsets and second starts come back as they were."""
    sent = BatchFrame(np.array([5, 6, 7, 8, 9], np.int32), np.array([0, 2, 5], np.int32), starts)
    head, payload = split(frames.pack_batch(7, sent))
    assert (head.kind, head.number) == (FrameKind.BATCH, 7)
    received = frames.unpack_batch(head, payload)
    np.testing.assert_array_equal(received.flat_ids, sent.flat_ids)
    np.testing.assert_array_equal(received.offsets, sent.offsets)
    if starts is None:
        assert received.second_starts is None
    else:
        np.testing.assert_array_equal(received.second_starts, starts)


def test_logits():
    """Logits keep their bits."""
    logits_NC = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    head, payload = split(frames.pack_logits(9, logits_NC, 0.25))
    assert (head.kind, head.number, head.seconds) == (FrameKind.LOGITS, 9, 0.25)
    np.testing.assert_array_equal(frames.unpack_logits(head, payload), logits_NC)


def test_json():
    """So does what is said in words."""
    head, payload = split(frames.pack_json(FrameKind.FAILED, {"message": "né"}, number=3))
    assert (head.kind, head.number, frames.unpack_json(payload)) == (FrameKind.FAILED, 3, {"message": "né"})
