"""`assay bench`: the figures on both sides, what is printed, and what is refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.scoring import MAX_LENGTH, make_classifier, make_texts, tokenize_here, write_parquet

from assay.engine.load import load_engine
from assay.ensemble.build import ensemble_build
from assay.ensemble.settings import BuildSettings
from assay.errors import InputError, SourceError, UsageError
from assay.score.bench.bench import bench
from assay.score.bench.settings import BenchSettings


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A classifier of random weights."""
    return make_classifier(tmp_path_factory.mktemp("bench") / "model")


@pytest.fixture
def source(tmp_path):
    """Forty short texts."""
    return write_parquet(tmp_path / "corpus.parquet", make_texts(40))


def bench_here(source, bundle, **settings):
    """The report on a source, of one round on the CPU."""
    settings = {"rounds": 1, "device": "cpu", **settings}
    return bench(BenchSettings(sources=(str(source),), bundle=str(bundle), **settings))


def test_both_sides_are_measured_on_the_same_documents(source, bundle):
    """Engine and transformers' padded pass run the same tokens, and their scores agree."""
    # of one round, whose ratio is that of its two rates: rounds of a busy machine differ by more than any bound
    report = bench_here(source, bundle, rounds=1, for_documents="1M", price_per_hour=2.0)
    assert report.padded is not None
    assert report.engine.num_documents == report.padded.num_documents == 40
    assert report.engine.num_tokens == report.padded.num_tokens
    assert report.ratio == pytest.approx(report.engine.docs_per_second / report.padded.docs_per_second)
    assert report.largest_difference is not None
    assert report.largest_difference < 1e-5
    assert (report.precision, report.num_rows, report.estimate.num_documents) == ("fp32", 40, 1_000_000)
    assert report.estimate.cost == pytest.approx(report.estimate.hours * 2.0)
    assert report.estimate.bound == "both"
    assert report.engine.ceiling_share == pytest.approx(report.engine.teraflops / report.ceiling)
    assert report.sample.num_tokens_longest == MAX_LENGTH
    assert 0 < report.sample.truncated_share < 1


def test_an_ensemble_is_measured_with_all_its_members(source, bundle, tmp_path):
    """Both sides run every member, and their pooled scores agree; padding is a member's; TFLOP/s are not given."""
    alone = bench_here(source, bundle)
    other = make_classifier(tmp_path / "other", seed=1)
    ensemble_build(BuildSettings(out=str(tmp_path / "both"), members=(f"{bundle},{other}",)))
    report = bench_here(source, tmp_path / "both")
    assert report.description.startswith("2 members, each: ")
    assert report.largest_difference < 1e-5
    assert report.engine.teraflops is report.padded.teraflops is None
    assert report.padded.padding_waste == pytest.approx(alone.padded.padding_waste)
    assert report.padded.num_tokens == alone.padded.num_tokens
    assert json.loads(json.dumps(report.to_json()))["engine"]["teraflops"] is None
    assert " 2 outputs" in str(report)


def test_the_report_reads_and_parses(source, bundle):
    """For people a table, a ratio and the estimate; as JSON the same figures, serializable."""
    report = bench_here(source, bundle)
    text = str(report)
    for word in ("docs/s", "of ceiling", "padding", "transformers, padded", "ratio", "tokenizer", "estimate"):
        assert word in text
    assert "40 documents: " in text, "by default the rows of the sources are estimated"
    content = json.loads(json.dumps(report.to_json()))
    assert content["sample"]["documents"] == 40
    assert content["engine"]["docs_per_second"] > 0
    assert content["estimate"]["cost"] is None


def test_the_padded_engine_has_nothing_beside_it(source, bundle):
    """Where transformers' own pass is the engine there is no second side and no ratio."""
    report = bench_here(source, bundle, engine="padded")
    assert (report.padded, report.ratio, report.largest_difference) == (None, None, None)
    assert not load_engine(bundle, packed=False).packed
    assert "transformers, padded" not in str(report)


def test_bad_rows_are_left_out_and_told(tmp_path, bundle):
    """A null text is not a document of the sample; the report says how many there were."""
    source = write_parquet(tmp_path / "corpus.parquet", ["one text", None, "another text", None])
    report = bench_here(source, bundle)
    assert (report.sample.num_documents, report.sample.num_rows) == (2, 4)
    assert report.engine.num_documents == 2
    assert "2 bad rows left out" in str(report)


def test_a_token_run_needs_no_tokenizing(source, bundle, tmp_path):
    """The run of `assay tokenize` is measured on its ids; the tokenizer then bounds nothing."""
    tokens = tokenize_here(source, bundle, tmp_path / "tokens")
    report = bench_here(tokens.url, bundle)
    assert (report.tokenize_docs_per_second, report.estimate.bound) == (None, "engine")
    assert report.engine.num_tokens == bench_here(source, bundle).engine.num_tokens


def test_windows_count_as_their_document(source, bundle):
    """A document cut into windows is one document, whose tokens all count."""
    cut, whole = bench_here(source, bundle), bench_here(source, bundle, on_long="window-mean")
    assert whole.engine.num_documents == cut.engine.num_documents == 40
    assert whole.sample.sequences.num_sequences > 40
    assert whole.engine.num_tokens > cut.engine.num_tokens


def test_stored_ids_are_measured(tmp_path, bundle):
    """Ids made elsewhere are taken as they are."""
    ids = [[101, 2023, 102], [101, 102], []]
    pq.write_table(pa.table({"input_ids": pa.array(ids, pa.list_(pa.uint16()))}), tmp_path / "ids.parquet")
    report = bench_here(tmp_path / "ids.parquet", bundle, input_ids_column="input_ids")
    assert (report.engine.num_documents, report.engine.num_tokens) == (2, 5)
    assert np.diff(report.sample.sequences.offsets).tolist() == [3, 2]


# ------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"for_documents": "lots"}, "'lots' is not a number of documents"),
        ({"engine": "fake"}, "engine fake makes scores up"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not there"),
        ({"max_length": 1000}, "takes 1 to 64 tokens"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_be_are_refused(source, bundle, settings, message):
    """Each with the value seen, the rule and the way out, before anything is loaded."""
    with pytest.raises(UsageError, match=message):
        bench_here(source, bundle, **settings)


def test_sources_without_a_document_are_refused(tmp_path, bundle):
    """Nothing to measure is not a figure: a missing column, no rows, or none that can be scored."""
    source = write_parquet(tmp_path / "nulls.parquet", [None, None])
    with pytest.raises(InputError, match="none of the 2 rows sampled can be scored"):
        bench_here(source, bundle)
    empty = write_parquet(tmp_path / "empty.parquet", [])
    with pytest.raises(InputError, match="none of the 0 rows"):
        bench_here(empty, bundle)
    with pytest.raises(SourceError, match="no column 'body'"):
        bench_here(source, bundle, text_column="body")
