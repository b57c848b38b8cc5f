"""Labelled rows from every format and for every task, or one line that says which rows cannot be used."""

import decimal
import json
import math

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from assay.errors import SourceError
from assay.labelled.read import read_labelled
from assay.labelled.settings import LabelledSources
from assay.tasks import Task

ARROW, CSV, JSONL, PARQUET = "rows.arrow", "rows.csv", "rows.jsonl", "rows.parquet"


@pytest.fixture
def read(tmp_path):
    """Writes columns under a name, in the format of its ending, and reads them back as labelled rows."""

    def read_back(name, columns, *, task=Task.SINGLE_LABEL, **options):
        path = tmp_path / name
        columns = {"text": [f"text {row}" for row in range(len(next(iter(columns.values()))))], **columns}
        if name == PARQUET:
            pq.write_table(pa.table(columns), path, row_group_size=2)
        elif name == ARROW:
            table = pa.table(columns)
            with pa.ipc.new_file(path, table.schema) as file:
                file.write_table(table, max_chunksize=2)
        elif name == JSONL:
            rows = zip(*columns.values(), strict=True)
            path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
        else:
            pcsv.write_csv(pa.table(columns), path)
        return read_labelled([str(path)], LabelledSources(**options), task=task)

    return read_back


EVERY_FORMAT = pytest.mark.parametrize("name", [PARQUET, ARROW, JSONL, CSV])


@EVERY_FORMAT
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["spam", "ham", "spam"], ("spam", "ham", "spam")),
        ([0, 1, 12], ("0", "1", "12")),
        ([True, False, True], ("true", "false", "true")),
        ([1.0, 0.0, 2.0], ("1", "0", "2")),
    ],
)
def test_single_labels_are_names(read, name, values, expected):
    """Strings, whole numbers and booleans; a pandas column that became float keeps its whole numbers."""
    rows = read(name, {"label": values})
    if name == CSV and isinstance(values[0], float):
        expected = tuple(str(value).removesuffix(".0") for value in values)
    assert rows.labels == expected
    assert rows.texts == ("text 0", "text 1", "text 2")
    assert rows.text_pairs is rows.groups is rows.ids is None


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array(["a", "b"], pa.large_string()),
        pa.array(["a", "b"], pa.string_view()),
        pa.array([b"a", b"b"]),
    ],
    ids=lambda column: str(column.type)[:12],
)
def test_every_arrow_type_of_text_is_a_label(read, column):
    """Dictionaries, large strings, views and bytes are names like others."""
    assert read(ARROW, {"label": column}).labels == ("a", "b")


@pytest.mark.parametrize("name", [PARQUET, ARROW, JSONL])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([["a", "b"], [], ["c"]], (("a", "b"), (), ("c",))),
        ([[3, 1], [], [2]], (("3", "1"), (), ("2",))),
        (['["a", "b"]', "[]", "[7]"], (("a", "b"), (), ("7",))),
    ],
)
def test_label_sets_come_from_lists(read, name, values, expected):
    """Lists of strings or numbers, or JSON arrays as text; a row without labels is legal."""
    assert read(name, {"label": values}, task=Task.MULTI_LABEL).labels == expected


def test_label_sets_come_from_csv_as_json_arrays(read):
    """CSV has no lists: the field holds a JSON array."""
    rows = read(CSV, {"label": ['["a", "b"]', "[]", "[7]"]}, task=Task.MULTI_LABEL)
    assert rows.labels == (("a", "b"), (), ("7",))


@pytest.mark.parametrize(
    "kind", [pa.large_list(pa.string()), pa.list_(pa.string(), 1), pa.list_view(pa.string())]
)
def test_every_kind_of_list_is_a_label_set(read, kind):
    """Large, fixed-size and view lists read alike."""
    assert read(ARROW, {"label": pa.array([["a"], ["b"]], kind)}, task=Task.MULTI_LABEL).labels == (
        ("a",),
        ("b",),
    )


@EVERY_FORMAT
@pytest.mark.parametrize("values", [[1, 2, 5], [1.5, -2.0, 3e-3], ["1", " 2.5", "-3e2"]])
def test_regression_targets_are_numbers(read, name, values):
    """Numeric columns, and numbers as text."""
    assert read(name, {"label": values}, task=Task.REGRESSION).labels == tuple(
        float(value) for value in values
    )


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16(), pa.uint8(), pa.int64(), pa.decimal128(5, 2)])
def test_every_numeric_type_is_a_target(read, kind):
    """Whatever its width."""
    values = [decimal.Decimal(value) if pa.types.is_decimal(kind) else value for value in (1, 2)]
    assert read(PARQUET, {"label": pa.array(values).cast(kind)}, task=Task.REGRESSION).labels == (1.0, 2.0)


@pytest.mark.parametrize("name", [JSONL, CSV])
def test_targets_may_begin_with_whole_numbers(read, name):
    """A thousand whole scores and then 3.5: no type was promised by the first rows."""
    values = [1] * 1200 + [3.5]
    columns = {"label": values if name == JSONL else [str(value) for value in values]}
    assert read(name, columns, task=Task.REGRESSION).labels == tuple(float(value) for value in values)


@pytest.mark.parametrize("name", [JSONL, CSV])
def test_labels_may_begin_with_whole_numbers(read, name):
    """Numbers and then a word are names all the same."""
    values = [1] * 1200 + ["other"]
    columns = {"label": values if name == JSONL else [str(value) for value in values]}
    assert set(read(name, columns).labels) == {"1", "other"}


@EVERY_FORMAT
def test_groups_and_ids_become_strings(read, name):
    """Any scalar type; the same name whatever the format."""
    columns = {"label": ["x", "y"], "author": [7, 12], "id": ["a", "b"], "by": [True, False]}
    rows = read(name, columns, group_column="author", id_column="id")
    assert (rows.groups, rows.ids) == (("7", "12"), ("a", "b"))
    assert read(name, columns, group_column="by").groups == ("true", "false")
    assert read(name, columns, group_column="by").ids is None


def test_pairs_are_read(read):
    """The second text of each row."""
    rows = read(PARQUET, {"label": ["x", "y"], "answer": ["one", ""]}, text_pair_column="answer")
    assert rows.text_pairs == ("one", "")


@pytest.mark.parametrize(
    ("name", "columns", "options", "expected"),
    [
        (
            PARQUET,
            {"label": ["x", None, " "]},
            {},
            r"2 of 3 rows .*\(2 without a label\), the first is row 1 ",
        ),
        (CSV, {"label": ["x", "", "y"]}, {}, r"1 of 3 rows cannot be used \(1 without a label\)"),
        (PARQUET, {"label": [1.0, math.nan]}, {}, r"1 of 2 rows cannot be used \(1 with NaN as a label\)"),
        (
            PARQUET,
            {"label": [1.0, 1.5]},
            {},
            r"1 with a fraction as a label.*, 1\.5; .*task is regression",
        ),
        (
            PARQUET,
            {"label": [1.0, math.nan, None]},
            {"task": "regression"},
            "1 with NaN .*, 1 without a label",
        ),
        (
            CSV,
            {"label": ["1", "NaN", "inf"]},
            {"task": "regression"},
            "1 with NaN .*, 1 with an infinite label",
        ),
        (PARQUET, {"label": [1e39, 1.0]}, {"task": "regression"}, "1 with an infinite label"),
        (
            CSV,
            {"label": ["1", "good"]},
            {"task": "regression"},
            "1 with a label .*not a number.*'good'; write numbers",
        ),
        (JSONL, {"label": [["a"], None]}, {"task": "multi_label"}, "1 without a label"),
        (JSONL, {"label": [["a"], ["b", None]]}, {"task": "multi_label"}, "1 with an empty name in a list"),
        (
            CSV,
            {"label": ["a", '["b"]']},
            {"task": "multi_label"},
            "1 with a label that is not a list of names",
        ),
        (
            PARQUET,
            {"label": [[0, 1, 1], [0, 1, 0]]},
            {"task": "multi_label"},
            "2 with a list that names a label twice",
        ),
        (PARQUET, {"label": ["x", "y"], "g": [None, "b"]}, {"group_column": "g"}, "1 without a group"),
        (
            PARQUET,
            {"label": ["x", "y"], "g": [1.0, math.nan]},
            {"group_column": "g"},
            "1 with NaN or infinity",
        ),
        (PARQUET, {"label": ["x", "y"], "i": ["a", None]}, {"id_column": "i"}, "1 without an id"),
        (JSONL, {"text": ["a", None], "label": ["x", None]}, {}, r"1 of 2 rows cannot be used \(1 null\)"),
    ],
)
def test_rows_that_cannot_be_used_are_counted_and_refused(read, name, columns, options, expected):
    """Never trained on in part: how many, what is wrong, and where the first one stands."""
    with pytest.raises(SourceError, match=expected) as caught:
        read(name, columns, **options)
    assert "\n" not in str(caught.value)
    assert "fix or drop these rows" in str(caught.value)


@EVERY_FORMAT
@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("sports", '["sports"]'),
        ("sports; tennis", '["sports", "tennis"]'),
        ("sports|tennis,golf", '["sports", "tennis", "golf"]'),
        ("Tennis \u2014 men", '["Tennis \u2014 men"]'),
        ("{'sports'}", '["sports", "tennis"]'),
        ("7", '["7"]'),
    ],
)
def test_a_text_where_a_list_is_wanted_is_shown_with_its_form(read, name, value, form):
    """The value seen, and how it would be written."""
    with pytest.raises(SourceError) as caught:
        read(name, {"label": ['["a"]', value]}, task=Task.MULTI_LABEL)
    assert f"row 1 (from 0), {value!r}" in str(caught.value)
    assert f"JSON array as text: {form}; for one label a row the task is single_label" in str(caught.value)


@pytest.mark.parametrize(
    ("column", "task", "expected"),
    [
        (pa.array([["a"]]), "single_label", "the task is multi_label"),
        (pa.array([{"a": 1}]), "single_label", "label column 'label' is struct"),
        (pa.array([[0.5, 1.0]]), "multi_label", "a multi_label column holds lists of names"),
        (pa.array([3]), "multi_label", "the task is single_label"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), "multi_label", "holds lists of names"),
        (pa.array([True]), "regression", "a regression column holds numbers"),
        (pa.array([["a"]]), "regression", "a regression column holds numbers"),
    ],
)
def test_a_column_of_another_type_names_the_way_out(read, column, task, expected):
    """The type seen, what the task wants, and the task that would fit."""
    with pytest.raises(SourceError, match=expected):
        read(ARROW, {"label": column}, task=task)


@pytest.mark.parametrize(
    ("label", "task", "expected"),
    [
        ("\ud800", "single_label", r"1 of 1 rows cannot be used \(1 not_utf8\)"),
        (["a", "\ud800"], "multi_label", r"1 of 1 rows cannot be used \(1 not_utf8\)"),
        ([["a"]], "multi_label", "'label' is nested"),
        ({"a": 1}, "single_label", "'label' is nested"),
        ([], "single_label", "the task is multi_label"),
    ],
)
def test_odd_json_labels_are_refused(read, label, task, expected):
    """Lone surrogates, lists in lists and objects end in one line."""
    with pytest.raises(SourceError, match=expected) as caught:
        read(JSONL, {"label": [label]}, task=task)
    assert "\n" not in str(caught.value)


def test_missing_columns_are_named(read):
    """With the flag that chooses another."""
    with pytest.raises(SourceError, match=r"no column 'author'; nearest: 'autor'.*Set --group-column"):
        read(PARQUET, {"label": ["x"], "autor": ["y"]}, group_column="author")
    with pytest.raises(SourceError, match="Set --label-column"):
        read(PARQUET, {"topic": ["x"]})
    with pytest.raises(SourceError, match="a group is one value"):
        read(PARQUET, {"label": ["x"], "author": [["y"]]}, group_column="author")


def test_no_rows_are_refused(read):
    """An empty table has nothing to learn."""
    with pytest.raises(SourceError, match="0 rows; labelled rows are needed"):
        read(PARQUET, {"label": pa.array([], pa.string())})


def test_labelled_rows_of_any_delimiter(tmp_path):
    """A delimiter that is named holds for labelled rows as for any source."""
    (tmp_path / "a.csv").write_text("text|label\na, b|x\nc;d|y\n")
    rows = read_labelled([str(tmp_path / "a.csv")], LabelledSources(delimiter="|"), task=Task.SINGLE_LABEL)
    assert (rows.texts, rows.labels) == (("a, b", "c;d"), ("x", "y"))


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_further_columns_say_what_rows_belong_to(tmp_path, name):
    """Names of any scalar by column, None for null; a column that is not there is named with the flags."""
    path = tmp_path / name
    columns = {
        "text": ["a b", "c d", "e f"],
        "label": ["x", "y", "x"],
        "book": [7, 8, None],
        "by": ["A", "A", "B"],
    }
    if name.endswith("parquet"):
        pq.write_table(pa.table(columns), path)
    elif name.endswith("jsonl"):
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("text,label,book,by\na b,x,7,A\nc d,y,8,A\ne f,x,,B\n")
    rows = read_labelled([str(path)], LabelledSources(), task=Task.SINGLE_LABEL, keys=("book", "by"))
    assert rows.keys["book"] == ("7", "8", None)
    assert rows.keys["by"] == ("A", "A", "B")
    assert rows.take([2, 0]).keys["by"] == ("B", "A")
    with pytest.raises(
        SourceError, match=r"no column 'author'.*--book-columns, --author-columns or --group-columns"
    ):
        read_labelled([str(path)], LabelledSources(), task=Task.SINGLE_LABEL, keys=("author",))
