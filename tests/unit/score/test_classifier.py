"""`assay.load(path).predict(texts)`: whatever a notebook holds goes in, the numbers of a run come out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from support.models import write_model

import assay
from assay.api import ScoreSettings, score
from assay.bundle.calibration import save_calibration
from assay.errors import BundleError, InputError, UsageError
from assay.outcome.calibration import Calibration
from assay.runs.run import open_run

pytestmark = pytest.mark.usefixtures("kept_threads")

TEXTS = ["document 1 of 2", "document of 37", "", "of of of 5"]
LONG = " ".join(str(number) for number in range(100))
SINGLE = ["num_tokens", "truncated", "error", "prediction", "probability", "prob_ham", "prob_spam"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A two-label model."""
    return write_model(tmp_path_factory.mktemp("models") / "single")


@pytest.fixture(scope="module")
def classifier(folder):
    """It, loaded."""
    return assay.load(folder)


@pytest.fixture(scope="module")
def expected(classifier):
    """What it says of TEXTS."""
    return classifier.predict(TEXTS)


# ------------------------------------------------------------ what comes out


def test_a_row_for_each_text_with_the_columns_of_a_part(classifier, expected):
    """The table has the columns and types of a scored part, without the id, a row a text, in order."""
    assert expected.schema.names == SINGLE
    assert [str(kind) for kind in expected.schema.types] == [
        "int32",
        "bool",
        "string",
        "string",
        *["float"] * 3,
    ]
    assert expected["num_tokens"].to_pylist() == [6, 5, 2, 6]
    assert expected["error"].null_count == len(TEXTS)
    total = np.add(expected["prob_ham"].to_numpy(), expected["prob_spam"].to_numpy())
    assert total == pytest.approx(np.ones(len(TEXTS)), abs=1e-6)
    best = pc.max_element_wise(expected["prob_ham"], expected["prob_spam"])
    assert expected["probability"].equals(best)
    assert set(expected["prediction"].to_pylist()) <= set(classifier.labels) == {"ham", "spam"}


def test_the_numbers_are_those_of_transformers(folder, expected):
    """Softmax of the transformers model's own logits, a text alone, within 1e-6."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for row, text in enumerate(TEXTS):
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits
        wanted = torch.softmax(logits.double(), 1)[0, 1].item()
        assert expected["prob_spam"][row].as_py() == pytest.approx(wanted, abs=1e-6)


def test_a_text_alone_equals_itself_in_company(classifier):
    """Neighbours, batches and order do not move a score."""
    texts = [*TEXTS, LONG, *(f"document {number} of {number + 1}" for number in range(60))]
    together = np.array(classifier.predict(texts)["prob_spam"])
    backwards = np.array(classifier.predict(texts[::-1])["prob_spam"])[::-1]
    alone = np.array([classifier.predict(text)["prob_spam"][0].as_py() for text in texts])
    assert together == pytest.approx(alone, abs=1e-6)
    assert together == pytest.approx(backwards, abs=1e-6)


def test_more_texts_than_a_batch(classifier):
    """Thousands of texts keep their order and their error codes across batches."""
    texts = [None if row % 1000 == 999 else f"document {row % 100}" for row in range(5000)]
    table = classifier.predict(texts)
    assert table.num_rows == 5000
    assert [row for row, code in enumerate(table["error"].to_pylist()) if code] == [
        999,
        1999,
        2999,
        3999,
        4999,
    ]
    scores = table["prob_spam"].to_pylist()
    assert scores[:99] == pytest.approx(scores[4900:4999], abs=1e-6)


def test_predict_equals_a_run(folder, tmp_path):
    """The scores of a run over the same texts, errors included, are those of predict, within 1e-6."""
    texts = [*TEXTS, LONG, None, 3, "lone \udc80 surrogate", "   ", "documents of unknown words", "of" * 5000]
    texts += [f"document {number}" for number in range(80)]
    lines = [json.dumps({"id": row, "text": text}) for row, text in enumerate(texts)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    settings = ScoreSettings(
        sources=(str(tmp_path / "texts.jsonl"),), bundle=str(folder), run=str(tmp_path / "run"), unit_rows=40
    )
    score(settings)
    run = open_run(str(tmp_path / "run"))
    parts = [
        pq.read_table(tmp_path / "run" / "parts" / f"{unit.name}.parquet") for unit in run.manifest.units()
    ]
    scored = pa.concat_tables(parts)
    found = assay.load(folder).predict(texts)
    assert scored["id"].to_pylist() == list(range(len(texts)))
    assert scored["error"].to_pylist()[5:8] == ["null", "not_text", "not_utf8"]
    for name in SINGLE[:4]:
        assert found[name].to_pylist() == scored[name].to_pylist(), name
    for name in SINGLE[4:]:
        left, right = (table[name].to_numpy() for table in (found, scored))
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-6)


# ------------------------------------------------------------ what goes in


def as_dictionary(texts):
    """Dictionary-encoded chunks whose dictionaries differ."""
    return pa.chunked_array(
        [pa.array(texts[:2]).dictionary_encode(), pa.array(texts[2:]).dictionary_encode()]
    )


@pytest.mark.parametrize(
    "column",
    [
        list,
        tuple,
        iter,
        lambda texts: (text for text in texts),
        lambda texts: dict.fromkeys(texts).keys(),
        np.array,
        lambda texts: np.array(texts, dtype=object),
        lambda texts: pd.Series(texts, dtype=object),
        lambda texts: pd.Series(texts, dtype="string"),
        lambda texts: pd.Series(texts, dtype="str"),
        lambda texts: pd.Series(texts, dtype="string[pyarrow]"),
        lambda texts: pd.Series(texts, index=[9, 7, 5, 3]),
        lambda texts: pd.Series(texts, dtype="category"),
        pd.Index,
        pl.Series,
        lambda texts: pl.Series(texts).cast(pl.Categorical),
        pa.array,
        lambda texts: pa.array(texts, pa.large_string()),
        lambda texts: pa.array(texts, pa.string_view()),
        lambda texts: pa.array(["x", *texts, "y"]).slice(1, 4),
        lambda texts: pa.array([text.encode() for text in texts]),
        lambda texts: pa.array(texts).dictionary_encode(),
        lambda texts: pa.chunked_array([texts[:1], [], texts[1:]]),
        lambda texts: pa.chunked_array([texts[:1], texts[1:]], pa.string_view()),
        as_dictionary,
    ],
)
def test_any_column_of_texts(classifier, expected, column):
    """Python, NumPy, pandas, Polars and Arrow columns of the same texts give the same table."""
    found = classifier.predict(column(TEXTS))
    assert found.schema == expected.schema
    assert found.equals(expected)


def test_one_string_is_one_text(classifier, expected):
    """A string is a text, not a sequence of letters."""
    assert classifier.predict(TEXTS[0]).num_rows == 1
    assert classifier.predict(TEXTS[0])["num_tokens"].to_pylist() == expected["num_tokens"].to_pylist()[:1]


@pytest.mark.parametrize(
    "empty", [[], (), np.array([], dtype=str), pd.Series([], dtype=object), pl.Series([], dtype=pl.String)]
)
def test_no_texts_give_no_rows(classifier, expected, empty):
    """An empty column is an empty table of the same columns."""
    assert classifier.predict(empty).num_rows == 0
    assert classifier.predict(empty).schema == expected.schema
    assert classifier.predict(pa.chunked_array([], pa.string())).num_rows == 0


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        (["of", None, "of"], [None, "null", None]),
        (["of", float("nan"), "of"], [None, "null", None]),
        (["of", np.float64("nan"), pd.NA, pd.NaT], [None, "null", "null", "null"]),
        (["of", 3, 0.5, b"of", True, ["of"]], [None, *["not_text"] * 5]),
        (["of", "a \ud800 b", "of"], [None, "not_utf8", None]),
        (pd.Series(["of", None, float("nan")], dtype=object), [None, "null", "null"]),
        (pd.Series(["of", None], dtype="string"), [None, "null"]),
        (pd.Series(["of", None], dtype="str"), [None, "null"]),
        (pl.Series(["of", None, "of"]), [None, "null", None]),
        (pl.Series([None, None], dtype=pl.Null), ["null", "null"]),
        (pa.array(["of", None]), [None, "null"]),
        (pa.nulls(2), ["null", "null"]),
        (pa.array(["of", None, "of"]).dictionary_encode(), [None, "null", None]),
        (pa.array([b"of", b"\xff\xfe", None]), [None, "not_utf8", "null"]),
        (pa.array([b"of", b"\xff\xfe"]).view(pa.string()), [None, "not_utf8"]),
    ],
)
def test_a_bad_text_is_a_row_with_a_code(classifier, values, codes):
    """Null, no text and no UTF-8 have the codes that a run gives them, null scores, and no effect on others."""
    table = classifier.predict(values)
    assert table["error"].to_pylist() == codes
    alone = classifier.predict("of")["prob_spam"][0].as_py()
    for row, code in enumerate(codes):
        scores = [table[name][row].as_py() for name in SINGLE[3:]]
        if code:
            assert scores == [None] * 4
            assert table["num_tokens"][row].as_py() == 0
        else:
            assert table["prob_spam"][row].as_py() == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (3, "texts are int"),
        (None, "texts are NoneType"),
        (b"of", "texts are bytes"),
        ({"text": "of"}, "texts are dict"),
        ({"of", "document"}, "texts are set"),
        (np.array([["of", "of"]]), "texts are ndarray"),
        (pa.array([1, 2]), "texts are an Arrow column of int64"),
        (pl.Series([1, 2]), "texts are an Arrow column of int64"),
    ],
)
def test_what_is_no_column_of_texts_is_refused(classifier, values, shown):
    """A matrix, a dictionary, a number: the message says what was passed and what to pass."""
    with pytest.raises(InputError, match=f"^{shown}; pass "):
        classifier.predict(values)


# ------------------------------------------------------------ pairs, lengths, heads


def test_pairs(classifier):
    """Two columns are pairs: both count as tokens, order matters, and either's error is the row's."""
    table = classifier.predict(["document 1", None, "of", 5], ["of 2", "of", None, None])
    assert table["error"].to_pylist() == [None, "null", "null", "not_text"]
    assert table["num_tokens"].to_pylist() == [7, 0, 0, 0]
    swapped = classifier.predict("of 2", "document 1")
    assert swapped["num_tokens"].to_pylist() == [7]
    assert swapped["prob_spam"][0].as_py() != pytest.approx(table["prob_spam"][0].as_py(), abs=1e-6)


@pytest.mark.parametrize("as_pairs", [list, tuple, lambda pairs: [list(pair) for pair in pairs]])
def test_a_list_of_pairs(classifier, as_pairs):
    """Tuples or lists of two texts are two columns; a missing or bad half is the row's error."""
    pairs = [("document 1", "of 2"), ("of", None), (5, "of")]
    table = classifier.predict(as_pairs(pairs))
    assert table == classifier.predict([first for first, _ in pairs], [second for _, second in pairs])
    assert table["error"].to_pylist() == [None, "null", "not_text"]


def test_a_missing_pair_is_a_row(classifier):
    """None among pairs keeps its place."""
    table = classifier.predict([None, ("document 1", "of 2")])
    assert table["error"].to_pylist() == ["null", None]


@pytest.mark.parametrize("odd", [("a", "b", "c"), ("a",), "a text"])
def test_rows_that_are_not_two_texts_are_named(classifier, odd):
    """A list of pairs says which of its rows is not one."""
    with pytest.raises(InputError, match=r"row 1 is .*; each row of a list of pairs is two texts"):
        classifier.predict([("a", "b"), odd])


class Stream:
    """Something that gives its columns as an Arrow stream and has no other face."""

    def __init__(self, columns):
        self._table = pa.table(columns)

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


FRAMES = [
    pd.DataFrame,
    pl.DataFrame,
    pa.table,
    pa.RecordBatch.from_pydict,
    lambda columns: pa.table(columns).to_reader(),
    Stream,
    # a column beside the texts that Arrow does not take
    lambda columns: pd.DataFrame({**columns, "odd": [object(), 1, "x", None]}),
]


@pytest.mark.parametrize("frame", FRAMES)
def test_a_data_frame_by_the_names_of_its_columns(classifier, expected, frame):
    """pandas, Polars, Arrow and any Arrow stream give what the column alone gives; pairs likewise."""
    columns = {"body": TEXTS, "other": TEXTS[::-1]}
    assert classifier.predict(frame(columns), text_column="body") == expected
    pairs = classifier.predict(frame(columns), text_column="body", text_pair_column="other")
    assert pairs == classifier.predict(TEXTS, TEXTS[::-1])


def test_a_frame_with_bad_rows(classifier):
    """What is missing or not text in a frame's column has its code, as in a column."""
    frame = pd.DataFrame({"text": ["document 1", None, 5]}, dtype=object)
    table = classifier.predict(frame, text_column="text")
    assert table["error"].to_pylist() == [None, "null", "not_text"]


@pytest.mark.parametrize("frame", FRAMES)
def test_a_frame_says_which_columns_it_has(classifier, frame):
    """No column named, or one that is not there: the message lists those that are."""
    columns = {"body": TEXTS, "other": TEXTS}
    with pytest.raises(
        InputError, match=r"a table of columns body, other.*; name that of the texts with text_column"
    ):
        classifier.predict(frame(columns))
    with pytest.raises(InputError, match=r"text_column 'text'; none of .* give one of body, other"):
        classifier.predict(frame(columns), text_column="text")
    with pytest.raises(InputError, match=r"text_pair_column 'text'; none of .* give one of body, other"):
        classifier.predict(frame(columns), text_column="body", text_pair_column="text")
    with pytest.raises(InputError, match=r"text_pairs beside a table; .* with text_pair_column"):
        classifier.predict(frame(columns), TEXTS, text_column="body")


def test_a_frame_with_a_name_twice(classifier):
    """Two columns of the name are not guessed between."""
    frame = pd.DataFrame([["a", "b"]], columns=["text", "text"])
    with pytest.raises(InputError, match="text_column 'text'; 2 of the table's columns has this name"):
        classifier.predict(frame, text_column="text")


@pytest.mark.parametrize("values", ["one text", TEXTS, pa.array(TEXTS), pd.Series(TEXTS), pl.Series(TEXTS)])
def test_a_column_has_no_columns(classifier, values):
    """text_column beside what is not a table is refused."""
    with pytest.raises(InputError, match=r"name columns of a table; texts are .*; leave them out"):
        classifier.predict(values, text_column="text")


def test_what_a_classifier_says_of_itself(classifier, folder, tmp_path):
    """Model, task, labels, engine and device; of many labels the first and how many there are."""
    assert repr(classifier) == (f"<Classifier {folder}: single_label of ham, spam; engine cpu-packed on cpu>")
    many = write_model(tmp_path / "many", labels=[f"l{number}" for number in range(40)])
    assert "of l0, l1, l2, l3, l4, l5, l6, l7, l8, l9, ... 40 in all;" in repr(assay.load(many))


def test_columns_of_two_lengths_are_no_pairs(classifier):
    """A pair needs both texts."""
    with pytest.raises(InputError, match="2 texts and 1 second texts; a pair needs both; "):
        classifier.predict(["a", "b"], ["c"])


@pytest.mark.parametrize(
    ("on_long", "num_tokens", "truncated", "error"),
    [
        ("truncate", 16, True, None),
        ("head-tail", 16, True, None),
        ("window-mean", 102, False, None),
        ("window-max", 102, False, None),
        ("error", 0, False, "too_long"),
    ],
)
def test_policies_for_long_texts(folder, on_long, num_tokens, truncated, error):
    """`on_long` and `max_length` work as in a run; short texts do not notice them."""
    loaded = assay.load(folder, max_length=16, on_long=on_long)
    table = loaded.predict([LONG, "of"])
    assert [table[name][0].as_py() for name in SINGLE[:3]] == [num_tokens, truncated, error]
    assert (table["probability"][0].as_py() is None) == (error is not None)
    assert table["prob_spam"][1].as_py() == pytest.approx(
        loaded.predict("of")["prob_spam"][0].as_py(), abs=1e-6
    )


def test_window_mean_is_the_mean_of_the_windows(folder):
    """The logits of the windows are averaged, then made probabilities."""
    words = LONG.split()
    windows = [" ".join(words[start : start + 14]) for start in range(0, 100, 14)]
    whole = assay.load(folder, max_length=16, on_long="window-mean").predict(LONG)
    parts = assay.load(folder, max_length=16).predict(windows)
    spam, ham = parts["prob_spam"].to_numpy(), parts["prob_ham"].to_numpy()
    difference = np.log(spam.astype(float) / ham).mean()
    assert whole["prob_spam"][0].as_py() == pytest.approx(1 / (1 + np.exp(-difference)), abs=1e-5)


def test_a_regression_head(tmp_path):
    """One output without labels is a `prediction`, the model's own number."""
    loaded = assay.load(write_model(tmp_path / "model", labels=("score",), task="regression"))
    table = loaded.predict([*TEXTS, None])
    assert table.schema.names == ["num_tokens", "truncated", "error", "prediction"]
    assert table.schema.field("prediction").type == pa.float32()
    assert table["prediction"].null_count == 1
    assert len(set(table["prediction"].to_pylist())) == 5


def test_a_multi_label_head(tmp_path):
    """Each label has a probability of its own, and holds from its threshold on; a bad row has no labels."""
    folder = write_model(tmp_path / "model", labels=("a", "b", "c"), task="multi_label")
    save_calibration(folder, Calibration(threshold=(0.0, 0.4, 1.0)))
    table = assay.load(folder).predict([*TEXTS, None])
    assert table.schema.names == ["num_tokens", "truncated", "error", "labels", "prob_a", "prob_b", "prob_c"]
    rows = table.to_pylist()
    assert rows.pop()["labels"] is None
    assert [row["labels"] for row in rows] == [
        ["a", *(["b"] if row["prob_b"] >= 0.4 else [])] for row in rows
    ]
    assert not np.allclose([row["prob_a"] + row["prob_b"] + row["prob_c"] for row in rows], 1)


def test_labels_with_odd_names(tmp_path):
    """Labels keep their names, whatever they hold, in columns and predictions."""
    labels = ("not ok / 1", "naïve", "prob")
    loaded = assay.load(write_model(tmp_path / "model", labels=labels))
    table = loaded.predict(TEXTS)
    assert table.schema.names[5:] == [f"prob_{label}" for label in labels]
    assert set(table["prediction"].to_pylist()) <= set(labels)


def test_what_the_user_should_hear_of_a_bundle_is_logged(folder, tmp_path, caplog):
    """A notebook hears of weights that are not read and of tokenizer files that disagree; else of nothing."""
    assay.load(folder)
    assert not caplog.records
    odd = Path(shutil.copytree(folder, tmp_path / "odd"))
    shutil.copy(odd / "model.safetensors", odd / "model-00001-of-00001.safetensors")
    (odd / "tokenizer_config.json").write_text(json.dumps({"unk_token": "<other>"}))
    loaded = assay.load(odd)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert [record.getMessage() for record in caplog.records] == list(loaded.bundle.notes)
    assert "not read" in caplog.text
    assert "unk_token is '<other>'" in caplog.text


def test_a_text_for_which_the_model_gives_nan(tmp_path):
    """It gets the code `not_finite` and null scores; its neighbours keep theirs."""
    plain = assay.load(write_model(tmp_path / "plain"))
    broken = assay.load(write_model(tmp_path / "broken", nan_word="37"))
    table = broken.predict(TEXTS)
    assert table["error"].to_pylist() == [None, "not_finite", None, None]
    assert [table[name][1].as_py() for name in SINGLE[3:]] == [None] * 4
    scores = plain.predict(TEXTS)["prob_spam"].to_numpy()
    assert np.delete(table["prob_spam"].to_numpy(), 1) == pytest.approx(np.delete(scores, 1), abs=1e-6)


# ------------------------------------------------------------ loading


def test_loading_what_is_no_bundle(tmp_path, folder):
    """A missing folder, a file, an empty folder: BundleError, naming it."""
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none", tmp_path / "empty", folder / "config.json"):
        with pytest.raises(BundleError, match=str(path)):
            assay.load(path)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"max_length": 65}, "max_length 65; .* takes 1 to 64 tokens; set --max-length within"),
        ({"max_length": 0}, "max_length is 0; it must be at least 1"),
        ({"max_length": 2}, "max_length 2; the tokenizer adds 2 special tokens; use at least 3"),
        ({"on_long": "cut"}, "on_long is 'cut'; it must be one of truncate, "),
        ({"on_long": "window-mean", "stride": 62}, "stride 62; windows of 62 tokens must overlap by fewer"),
        ({"stride": -1}, "stride is -1; it must be at least 0"),
        ({"device": "tpu"}, "tpu"),
        ({"precision": "int8"}, "int8"),
    ],
)
def test_loading_with_a_setting_out_of_range(folder, options, shown):
    """A setting that the model or the tokenizer cannot have is a UsageError that says the range."""
    with pytest.raises(UsageError, match=shown):
        assay.load(folder, **options)
