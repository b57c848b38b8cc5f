"""Samples that run in fp32 too: what footers and reports say of them, and where runs stop."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.encoders import embed_here, make_encoder_folder
from support.scoring import make_classifier, read_parts, score_here, stats_of_parts, write_parquet

from assay.embed.differences import Differences, sum_of
from assay.embed.engine_work import DIFFERENCES
from assay.embed.evidence import Evidence
from assay.engine.engine import loaded_once
from assay.engine.fake import FakeEngine
from assay.errors import CheckError, RefusedError, UsageError
from assay.runs.gate import Gate
from assay.runs.plan import Unit
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
    assert "half of them differ by at most" in page
    assert "90% of them differ by at most" in page


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
        CheckError,
        match=r"row \d+ of source texts.* \(unit texts.*-0-16\) differs from fp32 by .*--parity-tolerance",
    ):
        scored(folder, tmp_path / "run", parity_share=1.0, parity_tolerance=1e-9)


def test_the_share_is_part_of_the_run(folder, tmp_path):
    """Another share wants another run; the default samples one in 10,000 and says so where it drew none."""
    run = scored(folder, tmp_path / "run")
    assert differences_of(run)[0]["counts"] == [0] * len(differences_of(run)[0]["counts"])
    report(run.url)
    assert "none was drawn" in run.store.read_bytes("report.html").decode()
    with pytest.raises(RefusedError, match=r"parity_share was 0\.0001, now 0\.5"):
        scored(folder, tmp_path / "run", parity_share=0.5)


def test_where_nothing_can_be_compared_a_share_is_refused(folder, tmp_path):
    """fp32 beside fp32 would prove nothing."""
    with pytest.raises(UsageError, match="computes in fp32 itself"):
        scored(folder, tmp_path / "run", precision="fp32", parity_share=0.5)


@pytest.mark.parametrize("settings", [{}, {"on_long": "window-mean", "max_length": 5}])
def test_vectors_are_compared_too(settings, folder, tmp_path):
    """By their distance, windows put together as the run does; a report and the tolerance are as for scores."""
    encoder = make_encoder_folder(tmp_path / "encoder")
    source = folder / "texts.parquet"
    settings = {"devices": "1", "deduplicate": False, **settings}
    run = embed_here(source, encoder, tmp_path / "run", precision="bf16", parity_share=1.0, **settings)
    found = sum_of(differences_of(run))
    vectors, exact = (
        np.array([vector for vector in read_parts(each)["embedding"].to_pylist() if vector is not None])
        for each in (run, embed_here(source, encoder, tmp_path / "exact", precision="fp32", **settings))
    )
    apart = np.linalg.norm(vectors - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert found.num_documents == len(apart)
    assert 0 < found.largest < 0.15
    assert found.largest == pytest.approx(apart.max(), rel=0.02)
    assert report(run.url).differences == found
    page = run.store.read_bytes("report.html").decode()
    assert "the distance of a vector to fp32" in page
    assert "has another label" not in page
    assert run.manifest.identity["parity_share"] == 1.0
    if not settings.get("on_long"):
        with pytest.raises(CheckError, match="differs from fp32 by"):
            embed_here(
                source,
                encoder,
                tmp_path / "narrow",
                precision="bf16",
                parity_share=1.0,
                parity_tolerance=1e-9,
            )


def test_the_model_in_fp32_loads_beside_the_first_unit_that_needs_it():
    """A packed engine computes while it loads; a unit without a sampled row loads nothing."""
    loads: list[str] = []
    engine = FakeEngine()
    engine.fp32 = loaded_once(lambda: loads.append(threading.current_thread().name) or FakeEngine())
    evidence = Evidence(
        SimpleNamespace(engine=engine),
        lambda found, exact: (found, exact),
        Gate(),
        share=1.0,
        allowed=1.0,
        device=torch.device("cpu"),
    )
    evidence.begin(Unit(source=0, source_name="a", start=0, stop=0))
    assert evidence.conclude() == Differences()
    assert not loads
    for _ in range(2):
        evidence.begin(Unit(source=0, source_name="a", start=0, stop=4))
    for thread in threading.enumerate():
        if thread.name == "fp32":
            thread.join()
    engine.fp32()
    assert loads == ["fp32"]
