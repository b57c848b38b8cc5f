"""The figures on test rows of several languages: those of each beside those of all."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay.evaluate.settings import EvaluateSettings
from assay.pipeline.figures import cascade_figures, has_languages

SETTINGS = EvaluateSettings(
    bundle="cross",
    data=("test.parquet",),
    text_column="text1",
    text_pair_column="text2",
    group_columns=("author1", "author2"),
    group_column="language",
    resamples=0,
)


@pytest.fixture
def files(tmp_path):
    """What a cascade said of eight pairs, and the pairs: the English ones it has right, the Polish ones wrong."""
    labels = [1, 0, 1, 0] * 2
    said = [0.9, 0.1, 0.8, 0.2, 0.1, 0.9, 0.2, 0.8]
    answers = {
        "final_probability": said,
        "same_book": [probability > 0.5 for probability in said],
        "stage": ["bi"] * 8,
    }
    authors = list("abcdefgh")
    rows = {
        "label": pa.array(labels, pa.int8()),
        "author1": authors,
        "author2": authors,
        "language": ["en"] * 4 + ["pl"] * 4,
    }
    pq.write_table(pa.table(answers), tmp_path / "answers.parquet")
    pq.write_table(pa.table(rows), tmp_path / "test.parquet")
    return tmp_path


def test_each_language_has_figures_of_its_own(files):
    """A cascade that knows one language alone does not hide behind the figure of both."""
    found = cascade_figures(files / "answers.parquet", str(files / "test.parquet"), SETTINGS)
    assert found["figures"]["accuracy"]["value"] == 0.5
    aucs = {language: each["figures"]["auc"]["value"] for language, each in found["languages"].items()}
    assert aucs == {"en": 1.0, "pl": 0.0}
    assert [each["num_pairs"] for each in found["languages"].values()] == [4, 4]


@pytest.mark.parametrize(
    ("languages", "has"), [(["en", "pl"], True), (["en", "en"], False), (["en", None], False)]
)
def test_rows_are_parted_where_each_says_its_language(languages, has, tmp_path):
    """One language, and pairs of which it is not known, are not parted: no row is left out of the figures."""
    pq.write_table(pa.table({"language": pa.array(languages, pa.string())}), tmp_path / "test.parquet")
    assert has_languages(str(tmp_path / "test.parquet")) is has
