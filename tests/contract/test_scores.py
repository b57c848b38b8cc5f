"""The scores of a run are the model's own: equal to transformers, whatever the engine, the policy or the way in."""

import numpy as np
import pyarrow as pa
import pytest
from support.scoring import (
    MAX_LENGTH,
    Reference,
    assert_close,
    calibrate,
    make_classifier,
    make_texts,
    read_parts,
    score_here,
    sigmoid,
    softmax,
    tokenize_here,
    write_parquet,
)

pytestmark = pytest.mark.usefixtures("kept_threads")

TOLERANCE = 1e-5
THREE = ("ham", "spam", "fowl")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder for the bundles and sources of this module."""
    return tmp_path_factory.mktemp("scores")


@pytest.fixture(scope="module")
def texts():
    """40 texts of up to 150 words, so that some are over the limit of 64 tokens."""
    return make_texts(40)


@pytest.fixture(scope="module")
def source(place, texts):
    """The texts as a Parquet file of three row groups."""
    return write_parquet(place / "source.parquet", texts)


@pytest.fixture(scope="module")
def bundle(place):
    """Three labels, packed."""
    return make_classifier(place / "bundle", labels=THREE)


@pytest.fixture(scope="module")
def plain(bundle, source, place):
    """The scores of the source by the defaults."""
    return read_parts(score_here(source, bundle, place / "plain", unit_rows=16))


def column(table, name):
    """A column as an array."""
    return table[name].to_numpy()


@pytest.mark.parametrize("family", ["bert", "mpnet", "deberta-v2"])
def test_single_label(family, place, source, texts, tmp_path):
    """Softmax of transformers' logits; the prediction is the likeliest label, the probability its own."""
    bundle = make_classifier(place / family, family=family, labels=THREE)
    run = score_here(source, bundle, tmp_path / "run", unit_rows=16)
    table = read_parts(run)
    expected = softmax(Reference(bundle).logits(texts))
    assert table.column_names == [
        "id",
        "num_tokens",
        "truncated",
        "error",
        "prediction",
        "probability",
        *(f"prob_{label}" for label in THREE),
    ]
    for number, label in enumerate(THREE):
        np.testing.assert_allclose(column(table, f"prob_{label}"), expected[:, number], atol=TOLERANCE)
    assert table["prediction"].to_pylist() == [THREE[k] for k in expected.argmax(axis=1)]
    np.testing.assert_allclose(column(table, "probability"), expected.max(axis=1), atol=TOLERANCE)
    assert len(set(table["prediction"].to_pylist())) > 1, "the model must tell the texts apart"


def test_ids_lengths_truncation_and_errors(plain, texts, bundle):
    """Ids pass through typed, token counts are the model's input, truncation is marked, nothing is in error."""
    reference = Reference(bundle)
    whole = [len(reference.content(text)) + 2 for text in texts]
    assert plain["id"].to_pylist() == [f"row-{row}" for row in range(len(texts))]
    assert plain["num_tokens"].to_pylist() == [min(count, MAX_LENGTH) for count in whole]
    assert plain["truncated"].to_pylist() == [count > MAX_LENGTH for count in whole]
    assert 0 < sum(plain["truncated"].to_pylist()) < len(texts)
    assert plain["error"].null_count == len(texts)
    assert plain.schema.metadata[b"assay.calibration"] == b"none"
    assert plain.schema.metadata[b"assay.task"] == b"single_label"


def test_multi_label(source, texts, tmp_path):
    """Sigmoid of each logit, and the labels that hold."""
    bundle = make_classifier(tmp_path / "bundle", labels=THREE, problem_type="multi_label_classification")
    table = read_parts(score_here(source, bundle, tmp_path / "run"))
    expected = sigmoid(Reference(bundle).logits(texts))
    assert table.column_names[4:] == ["labels", *(f"prob_{label}" for label in THREE)]
    assert table.schema.field("labels").type == pa.list_(pa.string())
    assert table["labels"].to_pylist() == [
        [label for label, probability in zip(THREE, row, strict=True) if probability >= 0.5]
        for row in expected
    ]
    for number, label in enumerate(THREE):
        np.testing.assert_allclose(column(table, f"prob_{label}"), expected[:, number], atol=TOLERANCE)


def test_regression(source, texts, tmp_path):
    """The output itself; a calibration of probabilities has nothing to say about it."""
    bundle = make_classifier(tmp_path / "bundle", labels=("LABEL_0",), problem_type="regression")
    table = read_parts(score_here(source, bundle, tmp_path / "run"))
    assert table.column_names[4:] == ["prediction"]
    assert table.schema.field("prediction").type == pa.float32()
    np.testing.assert_allclose(
        column(table, "prediction"), Reference(bundle).logits(texts)[:, 0], atol=TOLERANCE, rtol=1e-5
    )


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_pairs(family, place, texts, tmp_path):
    """Two texts a row: token types and the truncation of pairs are transformers' own."""
    bundle = make_classifier(tmp_path / "bundle", family=family)
    pairs = make_texts(len(texts), seed=1)
    source = write_parquet(tmp_path / "pairs.parquet", texts, other=pairs)
    table = read_parts(score_here(source, bundle, tmp_path / "run", text_pair_column="other"))
    expected = softmax(Reference(bundle).logits(texts, pairs))
    np.testing.assert_allclose(column(table, "prob_positive"), expected[:, 1], atol=TOLERANCE)
    tokens = tokenize_here(source, bundle, tmp_path / "tokens", text_pair_column="other")
    again = read_parts(score_here(tokens.url, bundle, tmp_path / "again"))
    assert by_id(again) == by_id(table)


@pytest.mark.parametrize("threshold", [None, 0.2, 0.9, 1.0, 0])
def test_temperature_and_threshold(threshold, place, source, texts, tmp_path):
    """Logits are divided by the temperature; the second of two labels is predicted from its threshold on."""
    bundle = make_classifier(tmp_path / "bundle", calibration={"temperature": 2.5, "threshold": threshold})
    table = read_parts(score_here(source, bundle, tmp_path / "run"))
    expected = softmax(Reference(bundle).logits(texts) / 2.5)
    positive = column(table, "prob_positive")
    np.testing.assert_allclose(positive, expected[:, 1], atol=TOLERANCE)
    np.testing.assert_allclose(column(table, "prob_negative"), expected[:, 0], atol=TOLERANCE)
    chosen = positive >= np.float32(0.5 if threshold is None else threshold)
    assert table["prediction"].to_pylist() == ["positive" if yes else "negative" for yes in chosen]
    own = np.where(chosen, positive, column(table, "prob_negative"))
    np.testing.assert_array_equal(column(table, "probability"), own)
    assert table.schema.metadata[b"assay.calibration"] == b"temperature"


def test_temperature_of_a_multi_label_model(source, texts, tmp_path):
    """Each logit is divided by the temperature before its sigmoid."""
    bundle = make_classifier(tmp_path / "bundle", labels=THREE, problem_type="multi_label_classification")
    calibrate(bundle, temperature=0.5)
    table = read_parts(score_here(source, bundle, tmp_path / "run"))
    expected = sigmoid(Reference(bundle).logits(texts) / 0.5)
    np.testing.assert_allclose(column(table, "prob_fowl"), expected[:, 2], atol=TOLERANCE)


def test_the_padded_engine_equals_the_packed_one(bundle, source, plain, tmp_path):
    """Both engines give the same scores."""
    padded = score_here(source, bundle, tmp_path / "run", engine="padded")
    assert_close(read_parts(padded), plain)


def test_duplicates_once_or_each(bundle, source, plain, tmp_path):
    """Running equal token sequences once changes no score."""
    each = score_here(source, bundle, tmp_path / "run", deduplicate=False, unit_rows=16)
    assert_close(read_parts(each), plain, tolerance=1e-6)


def by_id(table):
    """Rows without their id by id, so that the order of token parts does not matter."""
    return {row.pop("id"): row for row in table.to_pylist()}


@pytest.mark.parametrize("on_long", ["truncate", "head-tail", "window-mean", "window-max", "error"])
def test_tokenize_then_score(on_long, bundle, source, tmp_path):
    """Scores of token parts are bit for bit those of the text, under every policy for long documents."""
    stride = 5 if on_long.startswith("window") else 0
    direct = score_here(source, bundle, tmp_path / "direct", on_long=on_long, stride=stride, unit_rows=40)
    tokens = tokenize_here(source, bundle, tmp_path / "tokens", on_long=on_long, stride=stride, unit_rows=40)
    scored = score_here(tokens.url, bundle, tmp_path / "scored", unit_rows=40)
    assert scored.manifest.identity == direct.manifest.identity
    left, right = read_parts(direct), read_parts(scored)
    assert by_id(left) == by_id(right)
    assert left.schema.equals(right.schema, check_metadata=True)


@pytest.mark.parametrize(("how", "stride"), [("mean", 0), ("max", 0), ("mean", 20), ("max", 61)])
def test_windows(how, stride, bundle, source, texts, tmp_path):
    """The mean or maximum of the logits of the windows, which transformers gives one by one."""
    table = read_parts(score_here(source, bundle, tmp_path / "run", on_long=f"window-{how}", stride=stride))
    reference = Reference(bundle)
    capacity, expected = MAX_LENGTH - 2, []
    for text in texts:
        content = reference.content(text)
        windows, start = [content[:capacity]], 0
        while start + capacity < len(content):
            start += capacity - stride
            windows.append(content[start : start + capacity])
        logits = np.stack([reference.logits_of(reference.around(window)) for window in windows])
        expected.append(logits.mean(axis=0) if how == "mean" else logits.max(axis=0))
    expected = softmax(np.stack(expected))
    for number, label in enumerate(THREE):
        np.testing.assert_allclose(column(table, f"prob_{label}"), expected[:, number], atol=TOLERANCE)
    assert table["num_tokens"].to_pylist() == [len(reference.content(text)) + 2 for text in texts]
    assert not any(table["truncated"].to_pylist())


def test_head_and_tail(bundle, source, texts, tmp_path):
    """A long document keeps 128 of 510 parts of its room from its beginning, the rest from its end."""
    table = read_parts(score_here(source, bundle, tmp_path / "run", on_long="head-tail"))
    reference = Reference(bundle)
    room = MAX_LENGTH - 2
    head = round(room * 128 / 510)
    expected = []
    for text in texts:
        content = reference.content(text)
        if len(content) > room:
            content = content[:head] + content[len(content) - (room - head) :]
        expected.append(reference.logits_of(reference.around(content)))
    expected = softmax(np.stack(expected))
    np.testing.assert_allclose(column(table, "prob_ham"), expected[:, 0], atol=TOLERANCE)
    assert any(table["truncated"].to_pylist())


def test_too_long_is_an_error_where_asked(bundle, source, plain, tmp_path):
    """Under `error` a long document has a code and no score; the others have the scores that they had."""
    table = read_parts(score_here(source, bundle, tmp_path / "run", on_long="error"))
    for row, before in zip(table.to_pylist(), plain.to_pylist(), strict=True):
        if before["truncated"]:
            assert row["error"] == "too_long"
            assert row["num_tokens"] == 0
            assert not row["truncated"]
            assert all(row[name] is None for name in table.column_names[4:])
        else:
            assert row["error"] is None
            assert row["prob_ham"] == pytest.approx(before["prob_ham"], abs=TOLERANCE)


def test_a_shorter_limit(bundle, source, texts, tmp_path):
    """`max_length` cuts where transformers cuts."""
    table = read_parts(score_here(source, bundle, tmp_path / "run", max_length=9))
    expected = softmax(Reference(bundle).logits(texts, max_length=9))
    np.testing.assert_allclose(column(table, "prob_spam"), expected[:, 1], atol=TOLERANCE)
    assert max(table["num_tokens"].to_pylist()) == 9


def test_null_texts_keep_their_place(bundle, texts, plain, tmp_path):
    """A null text is a row with an error code; the scores of its neighbours do not move."""
    holed = [None if row % 5 == 2 else text for row, text in enumerate(texts)]
    source = write_parquet(tmp_path / "holed.parquet", holed)
    table = read_parts(score_here(source, bundle, tmp_path / "run"))
    assert table["error"].to_pylist() == ["null" if text is None else None for text in holed]
    for row, (text, before) in enumerate(zip(holed, plain["prob_ham"].to_pylist(), strict=True)):
        found = table["prob_ham"][row].as_py()
        assert found is None if text is None else found == pytest.approx(before, abs=TOLERANCE)
