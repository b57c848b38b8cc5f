"""Windows over long documents, and back."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from assay.errors import UsageError
from assay.tokenize.encode import Encoder
from assay.tokenize.windows import expand_windows, reduce_windows

PREFIX, SUFFIX = (901,), (902, 903)


def windows_of(contents, *, max_length, stride=0, nulls=()):
    """The windows of documents given by their content ids."""
    rows = [[] if row in nulls else [*PREFIX, *ids, *SUFFIX] for row, ids in enumerate(contents)]
    offsets = np.cumsum([0, *map(len, rows)])
    flat = np.array([token for row in rows for token in row], dtype=np.uint16)
    windows = expand_windows(
        flat, offsets, prefix=PREFIX, suffix=SUFFIX, max_length=max_length, stride=stride
    )
    assert windows.flat_ids.dtype == flat.dtype
    return windows, [window.tolist() for window in np.split(windows.flat_ids, windows.offsets[1:-1])]


def slow_windows(ids, capacity, stride):
    """What the `tokenizers` library does in `Encoding.truncate`, a window at a time."""
    windows, start = [], 0
    while True:
        windows.append([*PREFIX, *ids[start : start + capacity], *SUFFIX])
        if start + capacity >= len(ids):
            return windows
        start += capacity - stride


def test_worked_example():
    """Ten tokens, four a window, one shared: windows start at 0, 3 and 6."""
    windows, ids = windows_of([range(10)], max_length=7, stride=1)
    assert ids == [[901, 0, 1, 2, 3, 902, 903], [901, 3, 4, 5, 6, 902, 903], [901, 6, 7, 8, 9, 902, 903]]
    assert windows.document_of_window.tolist() == [0, 0, 0]
    assert windows.offsets.tolist() == [0, 7, 14, 21]


def test_empty_documents_give_one_window_and_empty_rows_none():
    """A document without content is one window of special tokens; a null row has no window."""
    windows, ids = windows_of([[], [1], [2]], max_length=5, nulls={1})
    assert ids == [[901, 902, 903], [901, 2, 902, 903]]
    assert windows.document_of_window.tolist() == [0, 2]


def test_no_documents_give_no_windows():
    """Zero rows, and null rows only, give zero windows and offsets of [0]."""
    for nulls in ((), (0,)):
        windows, _ = windows_of([[1]] * len(nulls), max_length=5, nulls=nulls)
        assert windows.offsets.tolist() == [0]
        assert len(windows.flat_ids) == len(windows.document_of_window) == 0


@given(
    contents=st.lists(st.lists(st.integers(0, 900), max_size=40), min_size=1, max_size=8),
    capacity=st.integers(1, 12),
    data=st.data(),
)
def test_windows_equal_the_slow_way(contents, capacity, data):
    """Each document's windows are those of a plain loop; none holds tokens of two documents."""
    stride = data.draw(st.integers(0, capacity - 1))
    nulls = data.draw(st.sets(st.integers(0, len(contents) - 1), max_size=len(contents) - 1))
    windows, ids = windows_of(contents, max_length=capacity + 3, stride=stride, nulls=nulls)
    expected = [
        (row, window)
        for row, content in enumerate(contents)
        if row not in nulls
        for window in slow_windows(content, capacity, stride)
    ]
    assert ids == [window for _, window in expected]
    assert windows.document_of_window.tolist() == [row for row, _ in expected]


@pytest.mark.parametrize(("max_length", "stride"), [(16, 0), (16, 5), (16, 13), (512, 100)])
def test_windows_equal_transformers_overflow(wordpiece_folder, max_length, stride):
    """Text in, windows out: what AutoTokenizer returns with return_overflowing_tokens."""
    texts = ["", "short one", "the quick brown fox " * 30, "pack my box with five dozen jugs " * 200]
    encoder = Encoder.from_bundle(
        wordpiece_folder, max_length=max_length, on_long="window-mean", stride=stride
    )
    tokens = encoder.encode(pa.array(texts))
    windows = expand_windows(
        tokens.flat_ids,
        tokens.offsets,
        prefix=encoder.special_tokens.prefix,
        suffix=encoder.special_tokens.suffix,
        max_length=max_length,
        stride=stride,
    )
    expected = AutoTokenizer.from_pretrained(wordpiece_folder)(
        texts, truncation=True, max_length=max_length, stride=stride, return_overflowing_tokens=True
    )
    ids = [window.tolist() for window in np.split(windows.flat_ids, windows.offsets[1:-1])]
    assert ids == expected["input_ids"]
    assert windows.document_of_window.tolist() == list(expected["overflow_to_sample_mapping"])


@pytest.mark.parametrize(("max_length", "stride"), [(3, 0), (8, 5), (8, -1)])
def test_windows_without_progress_are_refused(max_length, stride):
    """No room for content, or an overlap as long as a window, is a UsageError."""
    with pytest.raises(UsageError, match="smaller stride"):
        windows_of([[1, 2, 3]], max_length=max_length, stride=stride)


@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=12), how=st.sampled_from(["mean", "max"]))
def test_reduce_equals_the_slow_way(counts, how):
    """Each document gets the mean or maximum of its windows; one without windows gets NaN."""
    document_of_window = np.repeat(np.arange(len(counts)), counts)
    logits = np.random.default_rng(0).normal(size=(sum(counts), 3)).astype(np.float32)
    reduced = reduce_windows(logits, document_of_window, len(counts), how=how)
    assert reduced.dtype == np.float32
    assert reduced.shape == (len(counts), 3)
    for row, count in enumerate(counts):
        own = logits[document_of_window == row]
        if count == 0:
            assert np.isnan(reduced[row]).all()
        elif how == "max":
            np.testing.assert_array_equal(reduced[row], own.max(axis=0))
        else:
            np.testing.assert_array_equal(
                reduced[row], own.astype(np.float64).mean(axis=0).astype(np.float32)
            )


def test_one_window_keeps_its_logits_exactly():
    """A document of one window has that window's logits, bit for bit."""
    logits = np.array([[0.1, -3.3], [1e-38, 3e38]], dtype=np.float32)
    for how in ("mean", "max"):
        np.testing.assert_array_equal(reduce_windows(logits, np.arange(2), 2, how=how), logits)
