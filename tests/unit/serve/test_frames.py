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


@pytest.mark.parametrize("documents", [None, np.array([0, 0], np.int32)])
@pytest.mark.parametrize("normalize", [None, np.array([1, 0], np.int32)])
@pytest.mark.parametrize("starts", [None, np.array([0, 2], np.int32)])
def test_batches(starts, normalize, documents):
    """Ids, offsets, second starts, what is to have length 1 and whose windows these are come back as they were."""
    sent = BatchFrame(
        np.array([5, 6, 7, 8, 9], np.int32), np.array([0, 2, 5], np.int32), starts, normalize, documents
    )
    head, payload = split(frames.pack_batch(7, sent))
    assert (head.kind, head.number) == (FrameKind.BATCH, 7)
    received = frames.unpack_batch(head, payload)
    np.testing.assert_array_equal(received.flat_ids, sent.flat_ids)
    np.testing.assert_array_equal(received.offsets, sent.offsets)
    for found, wanted in (
        (received.second_starts, starts),
        (received.normalize, normalize),
        (received.documents, documents),
    ):
        assert (found is None) is (wanted is None)
        if wanted is not None:
            np.testing.assert_array_equal(found, wanted)


def test_outputs():
    """Outputs keep their bits."""
    logits_NC = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    head, payload = split(frames.pack_outputs(9, logits_NC, 0.25))
    assert (head.kind, head.number, head.seconds) == (FrameKind.OUTPUTS, 9, 0.25)
    np.testing.assert_array_equal(frames.unpack_outputs(head, payload), logits_NC)


def test_json():
    """So does what is said in words."""
    head, payload = split(frames.pack_json(FrameKind.FAILED, {"message": "né"}, number=3))
    assert (head.kind, head.number, frames.unpack_json(payload)) == (FrameKind.FAILED, 3, {"message": "né"})
