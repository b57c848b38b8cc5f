"""`assay estimate`: what is measured, taken from elsewhere and simulated, and how the report looks back on it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.cli import use_hosted_workers
from support.fake_runs import FAKE, make_run, write_sources
from support.scoring import make_classifier, make_texts, write_parquet

from assay.cli.main import main
from assay.errors import InputError, SourceError, UsageError
from assay.fleet.estimate import estimate
from assay.fleet.settings import EstimateSettings
from assay.fleet.wall import fleet_conditions, machine_conditions, simulate_wall
from assay.score.estimate.intervals import Estimated, Slice
from assay.score.report.report import report
from assay.score.settings import ScoreSettings
from assay.score.verb import score


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A classifier of random weights."""
    return make_classifier(tmp_path_factory.mktemp("estimate") / "model")


@pytest.fixture
def source(tmp_path):
    """Two thousand short texts."""
    return write_parquet(tmp_path / "corpus.parquet", make_texts(40) * 50)


@pytest.fixture(autouse=True)
def _hosted(monkeypatch, score_worker_host):
    use_hosted_workers(monkeypatch.setattr, host=score_worker_host)


GIVEN = {"for_documents": "1M", "tokens_per_document": 5.0, "tokens_per_second": 9.0}
"""All that an estimate needs without sources."""


def settings(source, bundle, **changes):
    """Of an estimate on the fake engine."""
    return EstimateSettings(sources=(str(source),), bundle=str(bundle), engine="fake", **changes)


def test_a_run_is_compared_with_its_estimate(source, bundle, tmp_path, capsys):
    """The sample is scored, the estimate lies beside the run, and the report says how far it was off."""
    run = tmp_path / "run"
    found = estimate(settings(source, bundle, run=str(run), price_per_hour=3.6))
    timed = [each for each in found.slices if each.seconds is not None]
    assert (found.num_documents, found.num_sources, found.num_workers) == (2000, 1, 1)
    assert len(timed) >= 30
    assert found.tokens.low == found.tokens.high, "every document was looked at"
    assert found.device_seconds.low < found.device_seconds.value < found.device_seconds.high
    assert found.wall_seconds.value == pytest.approx(
        found.boot_seconds + found.device_seconds.value, rel=0.05
    )
    assert found.cost.value == pytest.approx(found.wall_seconds.value / 1000)
    assert found.assumptions == ()
    score(ScoreSettings(sources=(str(source),), bundle=str(bundle), run=str(run), engine="fake"))
    tokens, hours, working = report(str(run)).estimates
    assert tokens.is_inside
    assert tokens.error == pytest.approx(0.0, abs=1e-9)
    assert (hours.name, working.name) == ("device-hours", "time from first to last part")
    page = (run / "report.html").read_text()
    assert "estimate off by" in page
    assert "the rate from this machine" in page
    (run / "estimate.json.kept").write_bytes((run / "estimate.json").read_bytes())
    (run / "estimate.json").write_text("{}")
    assert report(str(run)).estimates == ()
    assert "estimate.json is not an estimate" in (run / "report.html").read_text()
    (run / "estimate.json.kept").rename(run / "estimate.json")
    kept = (run / "estimate.json").read_bytes()
    with pytest.raises(UsageError, match="has published parts, and an estimate made now would be compared"):
        estimate(settings(source, bundle, measured=str(run), run=str(run)))
    assert (run / "estimate.json").read_bytes() == kept
    # the run that was scored serves as the measurement of the next
    other = estimate(settings(source, bundle, measured=str(run), workers=2))
    assert other.rate_from == str(run)
    assert other.device_seconds.value > 0
    assert other.slices[-1].worker.endswith("-cpu")
    assert not any("had another" in each for each in other.assumptions)
    unlike = EstimateSettings(sources=(str(source),), bundle=str(bundle), measured=str(run))
    assert any(each.endswith("run, which had another engine") for each in estimate(unlike).assumptions)
    assert (
        main(
            [
                "estimate",
                "--measured",
                str(run / "estimate.json"),
                "--for-documents",
                "1M",
                "--tokens-per-document",
                "100",
                "--workers",
                "12",
                "--price-per-hour",
                "0.7",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "documents 1.00M" in out
    assert "with 12 workers" in out
    assert "assumed   devices of the fleet differ in speed by 5% (standard deviation)" in out
    assert "assumed   a machine boots in 60 to 300 s, as nothing was said" in out


def test_the_page_shows_what_the_command_prints(capsys):
    """The worked example of the page on estimates; what is simulated may move by a hundredth."""
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "estimate.md").read_text(encoding="utf-8")
    examples = re.findall(r"^assay (estimate --for-.*)\n```\n\n```text\n((?:.+\n)+)```$", page, re.MULTILINE)
    assert len(examples) == 2
    for words, shown in examples:
        assert main(words.split()) == 0
        for printed, expected in zip(capsys.readouterr().out.splitlines(), shown.splitlines(), strict=True):
            if expected.startswith(("wall time", "cost")):
                assert first_figure(printed) == pytest.approx(first_figure(expected), rel=0.01)
            elif not expected.startswith("   "):
                assert printed == expected


def first_figure(line):
    """The first number or time of a line, times in seconds."""
    figure = re.search(r"[\d.:,]+", line)[0].replace(",", "")
    return sum(float(part) * 60**power for power, part in enumerate(reversed(figure.split(":"))))


# ------------------------------------------------------------ wall time


def wall(unit_rows, seconds, *, num_workers=1, conditions=None, slices=(), **changes):
    """The simulated time of a run of these units."""
    return simulate_wall(
        unit_rows,
        Estimated(value=seconds, low=seconds, high=seconds),
        slices,
        num_workers=num_workers,
        conditions=conditions or machine_conditions(0.0),
        is_one_machine=conditions is None,
        seed=0,
        **changes,
    )


def test_boot_and_tail_are_in_the_wall_time():
    """Three equal units on two workers take the time of two; the boot comes on top."""
    found = wall([10, 10, 10], 30.0, num_workers=2, conditions=None)
    assert found.seconds.value == pytest.approx(20.0, rel=0.01)
    assert found.over_ideal == pytest.approx(20 / 15, rel=0.01)
    later = wall([10] * 100, 1000.0, conditions=machine_conditions(60.0))
    assert later.boot_seconds == 60.0


def test_a_long_run_is_simulated_in_part():
    """A million units take as long as their work and the boot; most of them are not simulated."""
    conditions = fleet_conditions(
        boot_seconds=180.0, start_seconds=10.0, speed_spread=0.0, hours_between_losses=None
    )
    found = wall([100] * 1_000_000, 6e7, num_workers=12, conditions=conditions)
    assert found.seconds.value == pytest.approx(6e7 / 12, rel=0.001)
    assert 70.0 <= found.boot_seconds <= 310.0


def test_units_cost_what_slices_do():
    """Where a few slices are dear the last units may be too, and the run ends later than an even split."""
    even = wall([10] * 40, 400.0, num_workers=4)
    mixed = [Slice(num_rows=1, num_tokens=1, seconds=seconds) for seconds in (1.0, 1.0, 1.0, 12.0)]
    assert wall([10] * 40, 400.0, num_workers=4, slices=mixed).seconds.value > even.seconds.value * 1.02


def test_machines_that_are_lost_cost_time():
    """With a loss every hour a run of some hours takes longer than without."""

    def of(hours):
        conditions = fleet_conditions(
            boot_seconds=60.0, start_seconds=0.0, speed_spread=0.0, hours_between_losses=hours
        )
        return wall([10] * 400, 400 * 60.0, num_workers=4, conditions=conditions).seconds.value

    assert of(1.0) > of(None) * 1.01


# ------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "no sources; name some, or say --for-documents and --tokens-per-document"),
        ({"sources": ("a",)}, "sources without a bundle; name the classifier with --bundle"),
        ({"for_documents": "1M", "tokens_per_document": 5.0}, "no sources to measure on"),
        (
            {"for_documents": "1M", "tokens_per_document": 5.0, "tokens_per_second": 9.0, "measured": "run"},
            "both --measured and --tokens-per-second",
        ),
        (
            {"sources": ("a",), "bundle": "b", "plan_for": "cuda"},
            "plan_for is cuda, and the rate would be measured",
        ),
        (
            {"for_documents": "many", "tokens_per_document": 5.0, "tokens_per_second": 9.0},
            "is not a number of doc",
        ),
        (
            {**GIVEN, "sample_documents": 50},
            "sample_documents is 50, and nothing is measured here where the rate is given",
        ),
        ({**GIVEN, "text_column": "body"}, "text_column is 'body', and there are no sources to read"),
        ({**GIVEN, "devices": "2"}, "devices is '2', and there are no sources to read and no model to run"),
    ],
    ids=[
        *("nothing", "no bundle", "no rate", "two rates", "other device", "no count"),
        *("a sample of nothing", "a column of nothing", "devices of nothing"),
    ],
)
def test_what_says_too_little_or_too_much(changes, message):
    """A line each, before anything is read."""
    with pytest.raises(UsageError, match=message):
        estimate(EstimateSettings(**changes))


@pytest.mark.parametrize("changes", [{"hours_between_losses": 5.0}, {"speed_spread": 0.2}])
def test_a_fleet_of_one_machine(source, bundle, changes):
    """What only machines of a fleet do is refused where the estimate is of this machine's workers."""
    with pytest.raises(
        UsageError, match=r"which is of a fleet, and the estimate is of the .* of this machine"
    ):
        estimate(settings(source, bundle, devices="1", **changes))


def test_what_shows_no_rate(source, bundle, tmp_path):
    """No run, a file of something else, sources without rows or without texts: a line each with the way out."""
    with pytest.raises(SourceError, match="holds no run with parts and no estimate"):
        estimate(settings(source, bundle, measured=str(tmp_path / "none")))
    tokens = make_run(
        tmp_path / "tokens",
        write_sources(tmp_path / "texts", [100]),
        publish=True,
        kind=replace(FAKE, name="tokenize"),
    )
    with pytest.raises(InputError, match="is a tokenize run; this takes a score run"):
        estimate(settings(source, bundle, measured=tokens.url))
    (tmp_path / "other.json").write_text(json.dumps({"tokens": 3}))
    with pytest.raises(InputError, match=r"other.json is not an estimate \(.*make one with assay estimate"):
        estimate(settings(source, bundle, measured=str(tmp_path / "other.json")))
    with pytest.raises(InputError, match="hold no rows"):
        estimate(settings(write_parquet(tmp_path / "empty.parquet", []), bundle))
    with pytest.raises(InputError, match="none of the 2 rows sampled can be scored"):
        estimate(settings(write_parquet(tmp_path / "nulls.parquet", [None, None]), bundle))
