"""Samples that run in fp32 too: what footers and reports say of them, and where runs stop."""

import numpy as np
import pytest
from support.scoring import make_classifier, read_parts, score_here, stats_of_parts, write_parquet

from assay.embed.differences import sum_of
from assay.embed.engine_work import DIFFERENCES
from assay.errors import CheckError, RefusedError, UsageError
from assay.score.report.report import report

pytestmark = pytest.mark.usefixtures("kept_threads")

TEXTS = ["a new film", "the river", "results", "", None, "a film won", "no bridge", "the bank warned"] * 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier and texts, some of them empty and some missing."""
    place = tmp_path_factory.mktemp("evidence")
    make_classifier(place / "model")
    write_parquet(place / "texts.parquet", TEXTS)
    return place


def scored(folder, run, **settings):
    """A run in half precision on the CPU."""
    settings = {"precision": "fp16", "unit_rows": 16, "devices": "1", **settings}
    return score_here(folder / "texts.parquet", folder / "model", run, **settings)


def differences_of(run):
    """The samples of all parts."""
    return [stats.get(DIFFERENCES) for stats in stats_of_parts(run)]


def test_each_part_says_how_far_its_sample_is_off(folder, tmp_path):
    """All rows that have a score are compared, scores stay what they are, and the differences are the true ones."""
    run = scored(folder, tmp_path / "run", parity_share=1.0, deduplicate=False)
    plain = scored(folder, tmp_path / "plain", parity_share=0.0)
    exact = scored(folder, tmp_path / "exact", precision="fp32")
    found = sum_of(differences_of(run))
    table, in_fp32 = read_parts(run), read_parts(exact)
    assert table.equals(read_parts(plain))
    has_score = np.array(table["error"].is_null())
    assert found.num_documents == has_score.sum()
    apart = np.abs(
        np.array(table["prob_positive"].to_pylist(), dtype=float)
        - np.array(in_fp32["prob_positive"].to_pylist(), dtype=float)
    )[has_score]
    assert 0 < found.largest < 0.01
    assert found.largest == pytest.approx(apart.max(), rel=0.02)
    assert differences_of(plain) == differences_of(exact) == [None] * 3
    summary = report(run.url)
    assert summary.differences == found
    page = run.store.read_bytes("report.html").decode()
    assert "Differences to fp32, of all documents" in page
    assert "differs by more than 0.01" in page


def test_windows_and_pairs_are_compared_as_they_are_scored(folder, tmp_path):
    """A long document by what its windows come to."""
    source = write_parquet(tmp_path / "long.parquet", [" ".join(["the river won a film"] * 30), "results"])
    run = score_here(
        source, folder / "model", tmp_path / "run", precision="bf16", devices="1", parity_share=1.0,
        on_long="window-mean", max_length=16,
    )  # fmt: skip
    found = sum_of(differences_of(run))
    assert found.num_documents == 2
    assert 0 < found.largest < 0.04


def test_a_run_stops_past_the_tolerance(folder, tmp_path):
    """As at the gate, with the row and the way out; what was published before stays."""
    with pytest.raises(
        CheckError, match=r"row \d+ of source texts.* differs from fp32 by .*--parity-tolerance"
    ):
        scored(folder, tmp_path / "run", parity_share=1.0, parity_tolerance=1e-9)


def test_the_share_is_part_of_the_run(folder, tmp_path):
    """Another share wants another run; the default samples one in 5,000 and says so where it drew none."""
    run = scored(folder, tmp_path / "run")
    assert differences_of(run)[0]["counts"] == [0] * len(differences_of(run)[0]["counts"])
    report(run.url)
    assert "none was drawn" in run.store.read_bytes("report.html").decode()
    with pytest.raises(RefusedError, match=r"parity_share was 0\.0002, now 0\.5"):
        scored(folder, tmp_path / "run", parity_share=0.5)


def test_where_nothing_can_be_compared_a_share_is_refused(folder, tmp_path):
    """fp32 beside fp32 would prove nothing."""
    with pytest.raises(UsageError, match="computes in fp32 itself"):
        scored(folder, tmp_path / "run", precision="fp32", parity_share=0.5)
