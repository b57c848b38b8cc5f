"""A bundle that says it takes pairs is not run on single texts without a word."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.models import write_model

from assay.errors import InputError, UsageError
from assay.runs.placement import Placement
from assay.score.classifier import load
from assay.score.plan import plan_score
from assay.score.settings import ScoreSettings


@pytest.fixture
def pair_bundle(tmp_path: Path) -> Path:
    """A tiny bundle whose assay.json says that it takes pairs."""
    bundle = write_model(tmp_path / "bundle")
    content = {"format_version": 1, "is_pair": True}
    (bundle / "assay.json").write_text(json.dumps(content), encoding="utf-8")
    return bundle


def test_score_wants_the_second_column(pair_bundle: Path, tmp_path: Path) -> None:
    """`score` without --text-pair-column is refused before a run exists."""
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "one.parquet")
    settings = ScoreSettings(
        sources=(str(tmp_path / "one.parquet"),), bundle=str(pair_bundle), run=str(tmp_path / "run")
    )
    with pytest.raises(UsageError, match=r"takes pairs of texts .* --text-pair-column"):
        plan_score(settings, Placement(kind="cpu", num_workers=1), "fp32")
    assert not (tmp_path / "run").exists()


def test_predict_wants_the_second_column(pair_bundle: Path) -> None:
    """`predict` without text_pairs is refused."""
    with pytest.raises(InputError, match="takes pairs of texts"):
        load(pair_bundle).predict("one text")
