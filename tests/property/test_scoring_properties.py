"""What no plan may change: the score of a document, its place, and that it has one or a reason why not."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.scoring import MAX_LENGTH, make_classifier, read_parts, write_parquet

from assay.embed.engine_work import EngineWork
from assay.engine.load import load_engine
from assay.runs.pipeline import run_unit
from assay.runs.run import create_or_join
from assay.score.scorer import Scorer
from assay.score.settings import ScoreSettings
from assay.score.verb import plan_here
from assay.tokenize.chunks import read_with
from assay.tokenize.encode import Encoder
from assay.tokenize.settings import OnLong

TOLERANCE = 1e-5
NAMES = ("prob_ham", "prob_spam", "prob_fowl")
few = settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
numbers = itertools.count()

texts_of_any_kind = st.lists(
    st.one_of(
        st.none(),
        st.text(max_size=40),
        st.integers(1, 120).map(lambda count: "council bridge " * count),
        st.sampled_from(["", "same", "same", "the same"]),
    ),
    min_size=1,
    max_size=24,
)
policies = st.sampled_from(OnLong.__args__)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier of three labels; runs go beside it."""
    folder = tmp_path_factory.mktemp("properties")
    make_classifier(folder / "bundle", labels=("ham", "spam", "fowl"))
    return folder


@pytest.fixture(scope="module")
def engine(folder, kept_threads):
    """The classifier's engine, loaded once."""
    return load_engine(folder / "bundle", num_threads=1)


@pytest.fixture(scope="module")
def score(folder, engine):
    """Scores texts by a whole run, its units dealt to so many workers; the rows of its parts in order."""

    def score(texts, *, num_workers=1, **changes):
        number = next(numbers)
        source = write_parquet(folder / f"{number}.parquet", texts, row_group_rows=6)
        chosen = ScoreSettings(
            sources=(str(source),),
            bundle=str(folder / "bundle"),
            run=str(folder / f"run{number}"),
            **changes,
        )
        manifest, bundle, _ = plan_here(chosen)
        run, _ = create_or_join(chosen.run, manifest)
        encoder = Encoder.from_bundle(bundle.path, max_length=MAX_LENGTH, on_long=chosen.on_long)
        scorer = Scorer(
            bundle,
            engine,
            encoder,
            max_batch_tokens=chosen.max_batch_tokens,
            deduplicate=chosen.deduplicate,
        )
        works = [
            EngineWork(manifest, read_with(encoder), lambda: scorer, strict=False) for _ in range(num_workers)
        ]
        for work in works:
            work.load()
        units = run.manifest.units()
        for unit, work in reversed(list(zip(units, itertools.cycle(works), strict=False))):
            run_unit(run, work, unit)
        return read_parts(run)

    return score


def probabilities(table):
    """Probabilities [N, 3]; NaN where a row has none."""
    return np.stack([table[name].to_numpy() for name in NAMES], axis=1)


@few
@given(
    texts=texts_of_any_kind,
    unit_rows=st.integers(1, 30),
    max_batch_tokens=st.sampled_from([1, 70, 500, None]),
    num_workers=st.integers(1, 3),
    deduplicate=st.booleans(),
    on_long=policies,
)
def test_no_plan_changes_a_score(
    texts, unit_rows, max_batch_tokens, num_workers, deduplicate, on_long, score
):
    """Unit size, batch size, workers and duplicates move no score beyond rounding, and no row from its place."""
    plain = score(texts, on_long=on_long)
    other = score(
        texts,
        on_long=on_long,
        unit_rows=unit_rows,
        max_batch_tokens=max_batch_tokens,
        num_workers=num_workers,
        deduplicate=deduplicate,
    )
    np.testing.assert_allclose(probabilities(other), probabilities(plain), atol=TOLERANCE, rtol=0)
    for name in ("id", "num_tokens", "truncated", "error"):
        assert other[name].to_pylist() == plain[name].to_pylist()


@few
@given(texts=texts_of_any_kind, chance=st.randoms(use_true_random=False), on_long=policies)
def test_order_out_equals_order_in(texts, chance, on_long, score):
    """Shuffled documents have their scores shuffled alike."""
    order = list(range(len(texts)))
    chance.shuffle(order)
    plain = probabilities(score(texts, on_long=on_long, unit_rows=5))
    shuffled = probabilities(score([texts[k] for k in order], on_long=on_long, unit_rows=5))
    np.testing.assert_allclose(shuffled, plain[order], atol=TOLERANCE, rtol=0)


@few
@given(texts=texts_of_any_kind, on_long=policies, data=st.data())
def test_a_document_alone_equals_itself_in_company(texts, on_long, data, score):
    """A document's score does not depend on what it is scored beside."""
    row = data.draw(st.integers(0, len(texts) - 1))
    together = score(texts, on_long=on_long)
    alone = score([texts[row]], on_long=on_long)
    np.testing.assert_allclose(probabilities(alone)[0], probabilities(together)[row], atol=TOLERANCE, rtol=0)
    for name in ("num_tokens", "truncated", "error"):
        assert alone[name][0].as_py() == together[name][row].as_py()


@few
@given(texts=texts_of_any_kind, on_long=policies)
def test_every_row_has_a_score_or_a_reason(texts, on_long, score):
    """Each row has exactly one of a prediction and an error code, and its probabilities sum to one."""
    table = score(texts, on_long=on_long, unit_rows=7)
    assert table["id"].to_pylist() == [f"row-{row}" for row in range(len(texts))]
    for text, row in zip(texts, table.to_pylist(), strict=True):
        assert (row["prediction"] is None) == (row["error"] is not None)
        assert all((row[name] is None) == (row["error"] is not None) for name in ("probability", *NAMES))
        if text is None:
            assert row["error"] == "null"
        elif row["error"] is None:
            assert sum(row[name] for name in NAMES) == pytest.approx(1.0, abs=1e-5)
            assert row["probability"] == max(row[name] for name in NAMES) == row[f"prob_{row['prediction']}"]
        else:
            assert row["error"] == "too_long"
            assert on_long == "error"
