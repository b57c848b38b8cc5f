"""Windows over long documents, and back."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from assay.engine.sequences import Sequences
from assay.errors import UsageError
from assay.tokenize.encode import Encoder
from assay.tokenize.views import OffsetWindows, WholeRows, Windows, number_views

PREFIX, SUFFIX = (901,), (902, 903)


def make_windows(max_length, *, stride=0, how="mean"):
    """Windows between the special tokens of this file."""
    return Windows(prefix=PREFIX, suffix=SUFFIX, max_length=max_length, stride=stride, how=how)


def windows_of(contents, *, max_length, stride=0, nulls=()):
    """What documents, given by their content ids, expand to, and the ids of each window."""
    rows = [[] if row in nulls else [*PREFIX, *ids, *SUFFIX] for row, ids in enumerate(contents)]
    offsets = np.cumsum([0, *map(len, rows)])
    flat = np.array([token for row in rows for token in row], dtype=np.uint16)
    expanded = make_windows(max_length, stride=stride).expand(Sequences(flat_ids=flat, offsets=offsets))
    assert expanded.sequences.flat_ids.dtype == flat.dtype
    return expanded, ids_of(expanded)


def ids_of(expanded):
    """The ids of each sequence."""
    sequences = expanded.sequences
    return [ids.tolist() for ids in np.split(sequences.flat_ids, sequences.offsets[1:-1])]


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
    assert windows.row_S.tolist() == [0, 0, 0]
    assert windows.view_S.tolist() == [0, 1, 2]
    assert windows.sequences.offsets.tolist() == [0, 7, 14, 21]


def test_empty_documents_give_one_window_and_empty_rows_none():
    """A document without content is one window of special tokens; a null row has no window."""
    windows, ids = windows_of([[], [1], [2]], max_length=5, nulls={1})
    assert ids == [[901, 902, 903], [901, 2, 902, 903]]
    assert windows.row_S.tolist() == [0, 2]


def test_no_documents_give_no_windows():
    """Zero rows, and null rows only, give zero windows and offsets of [0]."""
    for nulls in ((), (0,)):
        windows, _ = windows_of([[1]] * len(nulls), max_length=5, nulls=nulls)
        assert windows.sequences.offsets.tolist() == [0]
        assert len(windows.sequences.flat_ids) == len(windows.row_S) == 0


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
    assert windows.row_S.tolist() == [row for row, _ in expected]


@pytest.mark.parametrize(("max_length", "stride"), [(16, 0), (16, 5), (16, 13), (512, 100)])
def test_windows_equal_transformers_overflow(wordpiece_folder, max_length, stride):
    """Text in, windows out: what AutoTokenizer returns with return_overflowing_tokens."""
    texts = ["", "short one", "the quick brown fox " * 30, "pack my box with five dozen jugs " * 200]
    encoder = Encoder.from_bundle(
        wordpiece_folder, max_length=max_length, on_long="window-mean", stride=stride
    )
    tokens = encoder.encode(pa.array(texts))
    windows = encoder.views.expand(tokens.rows)
    expected = AutoTokenizer.from_pretrained(wordpiece_folder)(
        texts, truncation=True, max_length=max_length, stride=stride, return_overflowing_tokens=True
    )
    assert ids_of(windows) == expected["input_ids"]
    assert windows.row_S.tolist() == list(expected["overflow_to_sample_mapping"])


@pytest.mark.parametrize(("max_length", "stride"), [(3, 0), (8, 5), (8, -1)])
def test_windows_without_progress_are_refused(max_length, stride):
    """No room for content, or an overlap as long as a window, is a UsageError."""
    with pytest.raises(UsageError, match="smaller stride"):
        windows_of([[1, 2, 3]], max_length=max_length, stride=stride)


VIEWS = st.sampled_from([WholeRows(), *(make_windows(9, stride=2, how=how) for how in ("mean", "max"))])


@given(
    contents=st.lists(st.none() | st.lists(st.integers(0, 900), max_size=40), max_size=8),
    views=VIEWS,
)
def test_every_row_has_its_views_in_order(contents, views):
    """A row with ids has a view at least, a row without has none; rows and views within a row keep their order."""
    rows = [[] if ids is None else [*PREFIX, *ids, *SUFFIX] for ids in contents]
    flat = np.array([token for row in rows for token in row], dtype=np.uint16)
    offsets = np.cumsum([0, *map(len, rows)])
    expanded = views.expand(Sequences(flat_ids=flat, offsets=offsets))
    assert set(expanded.row_S.tolist()) == {row for row, ids in enumerate(contents) if ids is not None}
    assert (np.diff(expanded.row_S) >= 0).all()
    counts = np.bincount(expanded.row_S, minlength=len(contents))
    assert expanded.view_S.tolist() == number_views(counts).tolist()
    assert expanded.view_S.tolist() == [view for count in counts for view in range(count)]
    assert expanded.sequences.num_sequences == len(expanded.row_S)


@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=12), how=st.sampled_from(["mean", "max"]))
def test_reduce_equals_the_slow_way(counts, how):
    """Each document gets the mean or maximum of its windows; one without windows gets NaN."""
    row_S = np.repeat(np.arange(len(counts)), counts)
    logits = np.random.default_rng(0).normal(size=(sum(counts), 3)).astype(np.float32)
    views = make_windows(9, how=how)
    reduced = views.reduce(logits, row_S, number_views(np.array(counts)), len(counts))
    assert reduced.dtype == np.float32
    assert reduced.shape == (len(counts), 3)
    for row, count in enumerate(counts):
        own = logits[row_S == row]
        if count == 0:
            assert np.isnan(reduced[row]).all()
        elif how == "max":
            np.testing.assert_array_equal(reduced[row], own.max(axis=0))
        else:
            np.testing.assert_array_equal(
                reduced[row], own.astype(np.float64).mean(axis=0).astype(np.float32)
            )


@given(
    rows=st.lists(st.booleans(), min_size=1, max_size=10),
    views=VIEWS,
    seed=st.integers(0, 99),
)
def test_one_view_keeps_its_outputs_exactly(rows, views, seed):
    """A row of one view has that view's outputs, bit for bit; a row without views has NaN."""
    row_S = np.flatnonzero(rows)
    outputs = (np.random.default_rng(seed).normal(size=(len(row_S), 2)) * 10.0**30).astype(np.float32)
    reduced = views.reduce(outputs, row_S, np.zeros_like(row_S), len(rows))
    np.testing.assert_array_equal(reduced[row_S], outputs)
    assert np.isnan(reduced[~np.array(rows)]).all()


@pytest.mark.parametrize("views", [WholeRows(), make_windows(9, how="max")])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_hidden(views, odd):
    """A row of which one view has an output that is not finite is NaN throughout; its neighbour is not."""
    outputs = np.array([[1.0, odd], [1.0, 2.0]], np.float32)
    reduced = views.reduce(outputs, np.arange(2), np.zeros(2, np.int64), 2)
    assert np.isnan(reduced[0]).all()
    assert reduced[1].tolist() == [1.0, 2.0]


def test_pairs_keep_their_second_texts():
    """The second segments stay with their rows when empty rows are left out."""
    rows = Sequences(
        flat_ids=np.arange(9, dtype=np.uint16),
        offsets=np.array([0, 0, 5, 5, 9]),
        second_starts=np.array([0, 2, 0, 3], np.int32),
    )
    expanded = WholeRows().expand(rows)
    assert expanded.row_S.tolist() == [1, 3]
    assert expanded.sequences.second_starts.tolist() == [2, 3]
    assert np.diff(expanded.sequences.offsets).tolist() == [5, 4]


# ---------------------------------------------------------------- windows at several offsets


def slow_series(ids, capacity, stride, second):
    """A series of windows whose second one begins at a token, one after the other."""
    windows, start, stop = [ids[:capacity]], second, second + stride
    if len(ids) <= capacity:
        return windows
    while stop < len(ids):
        windows.append(ids[start : start + capacity])
        start, stop = start + capacity - stride, stop + capacity - stride
    return windows


@given(
    lengths=st.lists(st.integers(-1, 40), max_size=8),
    capacity=st.integers(1, 9),
    stride=st.integers(0, 8),
    num_offsets=st.integers(1, 9),
    how=st.sampled_from(["mean", "max"]),
)
def test_predictions_of_windows_at_offsets_come_back_for_each_document(
    lengths, capacity, stride, num_offsets, how
):
    """The outputs of a document are those of each series by itself, side by side; a null row has none (length -1)."""
    stride = min(stride, capacity - 1)
    step = capacity - stride
    num_offsets = min(num_offsets, step)
    plain = make_windows(capacity + 3, stride=stride, how=how)
    views = OffsetWindows(windows=plain, num_offsets=num_offsets)
    firsts = np.cumsum([0, *(max(length, 0) for length in lengths)])
    contents = [
        list(range(first, first + length)) for first, length in zip(firsts.tolist(), lengths, strict=False)
    ]
    whole = [
        [*PREFIX, *ids, *SUFFIX] if length >= 0 else [] for ids, length in zip(contents, lengths, strict=True)
    ]
    rows = Sequences(
        flat_ids=np.array([token for row in whole for token in row], dtype=np.int32),
        offsets=np.cumsum([0, *map(len, whole)]),
    )
    expanded = views.expand(rows)
    assert all(len(ids) <= capacity + 3 for ids in ids_of(expanded))
    assert (np.diff(expanded.row_S) >= 0).all()
    assert (
        expanded.view_S.tolist() == number_views(np.bincount(expanded.row_S, minlength=len(lengths))).tolist()
    )

    def output(ids):
        return [float(sum(ids) + len(ids)), float(len(ids) - 7 * (ids[0] if ids else 0))]

    outputs = np.array([output(ids[1:-2]) for ids in ids_of(expanded)], np.float32).reshape(-1, 2)
    found = views.reduce(outputs, expanded.row_S, expanded.view_S, len(lengths))
    assert found.shape == (len(lengths), 2 * num_offsets)
    seconds = [step, *(step * k // num_offsets for k in range(1, num_offsets))]
    for row, (ids, length) in enumerate(zip(contents, lengths, strict=True)):
        if length < 0:
            assert np.isnan(found[row]).all()
            continue
        series = [slow_series(ids, capacity, stride, second) for second in seconds]
        assert all(set(ids) <= set().union(*map(set, windows)) for windows in series), "nothing is left out"
        join = np.mean if how == "mean" else np.max
        expected = [join([output(window) for window in windows], axis=0) for windows in series]
        np.testing.assert_allclose(found[row], np.concatenate(expected), rtol=1e-5)
        num_computed = (expanded.row_S == row).sum()
        assert num_computed == 1 + sum(len(windows) - 1 for windows in series), "the first one is shared"
    apart = plain.expand(rows)
    outputs = np.array([output(ids[1:-2]) for ids in ids_of(apart)], np.float32).reshape(-1, 2)
    first = plain.reduce(outputs, apart.row_S, apart.view_S, len(lengths))
    np.testing.assert_allclose(found[:, :2], first, rtol=1e-5, err_msg="the first series is that of Windows")


def test_a_window_at_an_offset_that_is_not_finite_has_no_score():
    """Whichever series it is of: the whole document has none, the next one keeps its own."""
    views = OffsetWindows(windows=make_windows(7), num_offsets=2)
    outputs = np.array([[1], [2], [np.inf], [4]], np.float32)
    found = views.reduce(outputs, np.array([0, 0, 0, 1]), np.array([0, 1, 2, 0]), 2)
    assert np.isnan(found[0]).any()
    assert found[1].tolist() == [4, 4]


def test_more_offsets_than_tokens_between_windows_are_refused():
    """Two series would be the same."""
    with pytest.raises(UsageError, match="windows begin 3 tokens apart, so at most 3 offsets differ"):
        OffsetWindows(windows=make_windows(7, stride=1), num_offsets=4)
