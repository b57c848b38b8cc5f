"""The settings of each step: from the files, from the pipeline, and what is refused before anything is done."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.training import write_base

from assay.configs import read_config
from assay.errors import CheckError, UsageError
from assay.pipeline.disjoint import check_disjoint
from assay.pipeline.plan import SPLITS, make_plan
from assay.pipeline.settings import PipelineSettings


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny encoder that takes 64 tokens."""
    return str(write_base(tmp_path_factory.mktemp("base") / "encoder"))


def planned(base, tmp_path, *, files=None, **changes):
    """The plan under settings, with files by the name of their setting."""
    for name, content in (files or {}).items():
        path = tmp_path / f"{name}.toml"
        path.write_text(content)
        changes[name] = str(path)
    asked = {"base": base, "out": str(tmp_path / "out"), "source": "novels", **changes}
    return make_plan(PipelineSettings(**asked), device="cpu")


def test_each_split_has_one_use(base, tmp_path):
    """Training, early stopping, calibration, tuning and test read files of their own."""
    plan = planned(base, tmp_path)
    cross, siamese = plan.cross_of(1), plan.siamese_training()
    read = {
        "train": {*cross.data, *siamese.data},
        "validation": {*cross.validation_data, *siamese.validation_data},
        "calibration": {*plan.calibration_of(plan.siamese_model, num_folds=2).data},
        "tuning": {*plan.tuning().data},
        "test": {*plan.evaluation_settings(by_language=True).data},
    }
    assert read == {split: {str(tmp_path / "out" / "pairs" / f"{split}.parquet")} for split in SPLITS}
    assert set(plan.books.shares()) == set(SPLITS)
    assert plan.books.split_by == "author"


def test_the_models_fit_the_pairs(base, tmp_path):
    """A pair fits the cross-encoder, a passage the Siamese model; both choose their weights by AUC."""
    plan = planned(base, tmp_path)
    assert plan.books.bundle == base
    assert plan.books.chunk_rules().chunk_tokens == 30
    assert (plan.cross_of(1).max_length, plan.siamese_training().max_length) == (64, 33)
    assert plan.cross_of(1).best_by == plan.siamese_training().best_by == "auc"
    assert plan.siamese_training().teacher == str(tmp_path / "out" / "cross")
    assert planned(base, tmp_path, distil=False).siamese_training().teacher is None


def test_documents_are_of_the_same_chunks(base, tmp_path):
    """Many chunks a side, and each as long as those of the pairs."""
    books = planned(base, tmp_path, chunks_per_document=4).books_of_documents()
    assert (books.chunks_per_side, books.chunk_rules().chunk_tokens) == (4, 30)


def test_rounds_mine_with_the_model_before(base, tmp_path):
    """Each round has pairs and a cross-encoder of its own; the last one teaches and is the second stage."""
    plan = planned(base, tmp_path, rounds=3, files={"prepare": "weight_model_mined = 0.7\n"})
    out = tmp_path / "out"
    assert [plan.books_of(number).mine_with for number in (1, 2, 3)] == [
        None,
        str(out / "cross"),
        str(out / "cross-2"),
    ]
    assert plan.books_of(2).weights()["model_mined"] == 0.7
    assert "model_mined" not in plan.books_of(1).weights()
    assert plan.cross_of(2).data == (str(out / "pairs-2" / "train.parquet"),)
    assert plan.cross_of(2).validation_data == plan.cross_of(1).validation_data
    assert plan.siamese_training().teacher == plan.tuning().second == str(out / "cross-3")


def test_files_say_what_the_pipeline_does_not(base, tmp_path):
    """Settings of the commands hold; places and columns are the pipeline's, which is said."""
    siamese = 'epochs = 7\nout = "elsewhere"\nteacher = "another"\nvector_size = 16\n'
    plan = planned(base, tmp_path, files={"siamese": siamese, "prepare": "positives = 3\ntest_share = 0.2\n"})
    found = plan.siamese_training()
    assert (found.epochs, found.vector_size, found.out) == (7, 16, str(tmp_path / "out" / "siamese"))
    assert (plan.books.positives, plan.books.test_share, plan.books.tuning_share) == (3, 0.2, 0.1)
    assert plan.ignored == (f"{tmp_path / 'siamese.toml'}: the pipeline itself says out, teacher",)


def test_the_recipes_of_novels_go_in_as_they_are(tmp_path):
    """The files that `assay train` takes are those of the pipeline, base included."""
    root = Path(__file__).parents[3] / "recipes" / "novels"
    base = str(write_base(tmp_path / "encoder"))
    for name in ("cross", "siamese"):
        text = (root / f"{name}.toml").read_text().replace('base = "roberta-large"', f'base = "{base}"')
        (tmp_path / f"{name}.toml").write_text(text.replace("max_length = 512", "max_length = 64"))
    files = {name: str(tmp_path / f"{name}.toml") for name in ("cross", "siamese")}
    plan = planned(None, tmp_path, **files)
    assert plan.siamese_training().contrastive_weight == 0.2
    assert plan.siamese_training().warmup_steps == plan.cross_of(1).warmup_steps == 1000
    assert plan.books.bundle == base


@pytest.mark.parametrize(
    ("files", "changes", "match"),
    [
        ({"cross": "epoch = 3\n"}, {}, "unknown key in .*cross.toml epoch; did you mean epochs"),
        ({"prepare": "tuning_share = 0\n"}, {}, "tuning_share is 0; .* authors of their own"),
        ({"prepare": "test_share = 0.8\n"}, {}, "leave nothing to train on"),
        ({"siamese": "max_length = 65\n"}, {}, "max_length=65 for the siamese model; .* set max_length=64"),
        ({"siamese": "max_length = 0\n"}, {}, "max_length is 0"),
        ({"siamese": 'contrastive = "supcom"\n'}, {}, "contrastive in .* is 'supcom'"),
        ({}, {"base": None}, "no encoder for the cross model; name its folder with --base"),
        ({}, {"rounds": 0}, "rounds is 0"),
        ({}, {"recall": 1.0}, "recall is 1.0"),
        ({}, {"cross": "no-such.toml"}, "no-such.toml cannot be read"),
    ],
)
def test_what_cannot_be_is_said_first(files, changes, match, base, tmp_path):
    """One line with the way out, before a book is read."""
    with pytest.raises(UsageError, match=match):
        planned(**{"base": base, "tmp_path": tmp_path, "files": files, **changes})


def test_a_config_of_the_pipeline_is_read(tmp_path):
    """All its settings may stand in one TOML file."""
    (tmp_path / "p.toml").write_text('base = "encoder"\nrounds = 2\nrecall = 0.9\n')
    assert read_config(tmp_path / "p.toml", PipelineSettings) == {
        "base": "encoder",
        "rounds": 2,
        "recall": 0.9,
    }


def write_splits(folder, **authors):
    """Files of pairs with the authors of each split, a book each."""
    folder.mkdir()
    for split in SPLITS:
        names = authors.get(split, [f"{split} {number}" for number in range(2)])
        books = [f"book of {name}" for name in names]
        columns = {"author1": names, "author2": names[::-1], "book1": books, "book2": books[::-1]}
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    return folder


def test_splits_that_share_nothing_are_counted(tmp_path):
    """Over all data sets of the same books."""
    one, two = write_splits(tmp_path / "one"), write_splits(tmp_path / "two")
    found = check_disjoint({"one": one, "two": two})
    assert found["counts"]["tuning"] == {"authors": 2, "books": 2}
    assert "no author and no book is in two splits, of 2 data sets" in found["said"]


def test_an_author_in_two_splits_is_found(tmp_path):
    """Within a data set, and in one split here and another there."""
    within = write_splits(tmp_path / "within", test=["Austen"], tuning=["Austen"])
    with pytest.raises(CheckError, match="the author 'Austen' is in tuning and, in within, in test"):
        check_disjoint({"within": within})
    one, two = (
        write_splits(tmp_path / name, **{split: ["Austen"]})
        for name, split in (("a", "train"), ("b", "test"))
    )
    with pytest.raises(CheckError, match="the author 'Austen' is in train and, in b, in test"):
        check_disjoint({"a": one, "b": two})
