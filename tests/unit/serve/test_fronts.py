"""What processes of one server share and send each other; who is refused, and how many there are."""

import os
from types import SimpleNamespace

import numpy as np
import pytest

from assay import machine
from assay.errors import UsageError
from assay.serve import document_frames, frames, placement
from assay.serve.board import Board, make_board
from assay.serve.document_frames import DocumentsFrame, ScoresFrame
from assay.serve.keys import RateLimit
from assay.serve.metrics import Metrics
from assay.serve.placement import choose_num_fronts
from assay.serve.settings import ServeSettings


def split(frame):
    """Head and payload."""
    head = frames.read_head(frame[: frames.HEAD.size])
    payload = frame[frames.HEAD.size :]
    assert head.num_bytes == len(payload)
    return head, payload


def test_documents_and_scores_come_as_they_were():
    """Documents of one view and of several, with whatever is known of them."""
    sent = DocumentsFrame(
        requests_N=np.array([7, 7, 1 << 40]),
        documents_N=np.array([1, 2, 3]),
        deadlines_N=np.array([0.5, 0.5, 1e9]),
        second_starts_N=np.array([0, 2, 0], np.int32),
        normalize_N=np.array([0, 0, 1], np.int32),
        num_views_N=np.array([1, 2, 1], np.int32),
        lengths=np.array([2, 1, 3, 1], np.int32),
        flat_ids=np.arange(7, dtype=np.int32),
    )
    head, payload = split(document_frames.pack_documents(5, sent))
    found = document_frames.unpack_documents(head, payload)
    assert head.number == 5
    for name in DocumentsFrame.__slots__:
        np.testing.assert_array_equal(getattr(found, name), getattr(sent, name), err_msg=name)

    scored = ScoresFrame(
        documents_N=np.array([3, 1]),
        num_views_N=np.array([2, 1], np.int32),
        started_N=np.array([1.5, 2.5]),
        outputs_SC=np.arange(6, dtype=np.float32).reshape(3, 2),
        seconds=0.25,
    )
    head, payload = split(document_frames.pack_scores(4, scored))
    back = document_frames.unpack_scores(head, payload)
    assert (head.number, back.seconds) == (4, 0.25)
    for name in ("documents_N", "num_views_N", "started_N", "outputs_SC"):
        np.testing.assert_array_equal(getattr(back, name), getattr(scored, name), err_msg=name)
    head, payload = split(document_frames.pack_cancel(4, [3, 1 << 40]))
    assert document_frames.unpack_cancel(payload) == [3, 1 << 40]


def test_a_rate_is_shared():
    """What one process lets in counts for the other; each key has its own."""
    descriptor = make_board(2)
    try:
        one, other = (RateLimit(60, Board(descriptor, 2)) for _ in range(2))
        assert one.seconds_to_wait("a", 40, 0.0) == 0
        assert other.seconds_to_wait("a", 20, 0.0) == 0
        assert one.seconds_to_wait("a", 1, 0.0) == pytest.approx(1)
        assert other.seconds_to_wait("b", 60, 0.0) == 0
        assert other.seconds_to_wait("a", 1, 1.0) == 0
    finally:
        os.close(descriptor)


def test_counts_of_several_processes_add_up():
    """What was taken from one and added to another is counted once, in counters and in histograms."""
    total, part, alone = Metrics(), Metrics(), Metrics()
    for metrics in (part, alone, total, alone):
        metrics.request("predict", is_batch=False, num_documents=1)
        metrics.times(total=0.003, tokenize=0.001, queue=100.0, forward=0.002)
    total.add(part.take())
    total.add(part.take())
    assert total.exposition() == alone.exposition()
    assert b'te_request_queue_duration_bucket{le="30.0"} 0.0' in total.exposition()
    assert b'te_request_duration_bucket{le="0.005"} 2.0' in total.exposition()


@pytest.mark.parametrize(
    ("cores", "has_gpu", "asked", "expected"),
    [(2, False, "auto", 1), (64, False, "auto", 1), (4, True, "auto", 1), (16, True, "auto", 8), (2, False, "3", 3)],
)  # fmt: skip
def test_how_many_there_are(monkeypatch, cores, has_gpu, asked, expected):
    """One process on small machines and without a GPU, unless asked."""
    monkeypatch.setattr(machine, "usable_cores", lambda: cores)
    monkeypatch.setattr(machine, "has_gpu_driver", lambda: has_gpu)
    assert choose_num_fronts(ServeSettings(bundle="b", front_processes=asked)) == expected


def test_too_many_are_refused(monkeypatch):
    """More than a few a core, or several where a port cannot be shared."""
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    with pytest.raises(UsageError, match="set 8 or less"):
        choose_num_fronts(ServeSettings(bundle="b", front_processes="9"))
    monkeypatch.setattr(placement, "sys", SimpleNamespace(platform="darwin"))
    with pytest.raises(UsageError, match="on Linux alone; set 1"):
        choose_num_fronts(ServeSettings(bundle="b", front_processes="2"))
