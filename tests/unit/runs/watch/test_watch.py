"""`assay status --watch` and its page: from what drivers left in the run alone, at any width, to the end."""

import json
import os
from pathlib import Path

import pytest
from support.fake_runs import make_run, part_file, publish_unit, write_sources

from assay.cli.main import main
from assay.errors import SourceError, StorageError
from assay.runs.notes import Heartbeat, Notes
from assay.runs.status import Watcher, status
from assay.runs.watch.lines import lines
from assay.runs.watch.page import render_status
from assay.runs.watch.watch import watch

NOW = 1_800_000_000.0


@pytest.fixture
def run(tmp_path):
    """A run of one source and twenty units, none published."""
    return make_run(tmp_path / "run", write_sources(tmp_path / "sources", [400]))


def publish_at(run, ages):
    """Publish one more unit for each age, in seconds before NOW."""
    units = [unit for unit in run.units if not run.is_published(unit)]
    for unit, age in zip(units, ages, strict=False):
        publish_unit(run, unit)
        os.utime(part_file(run, unit), (NOW - age, NOW - age))


def beat(run, name, *, age=0.0, rows=1000, skew=0.0, rank=0, host="pod", left=None):
    """A heartbeat of a driver of two workers, so old by the store's clock; its own is off by `skew`."""
    heartbeat = Heartbeat(
        id=name,
        host=host,
        rank=rank,
        world_size=4,
        num_workers=2,
        assay_version="0",
        started_at=NOW - age - 3600 + skew,
        beat_at=NOW - age + skew,
    )
    notes = Notes(run.store, heartbeat, clock=lambda: NOW - age + skew)
    notes.beat(rows=rows, units_published=rows // 20)
    if left:
        notes.leave(left)
    for path in Path(run.url, "workers").glob(f"{name}.*"):
        os.utime(path, (NOW - age, NOW - age))


def look(run, *, clock=NOW):
    """The status at NOW."""
    return status(run.url, clock=lambda: clock)


def test_a_page_replaces_no_source(run, tmp_path):
    """A source that is named as the page, also by a link to it, is left as it is."""
    (source,) = run.manifest.sources
    before = Path(source.uri).read_bytes()
    (tmp_path / "link").symlink_to(source.uri)
    for out in (source.uri, str(tmp_path / "link")):
        assert main(["status", run.url, "--html", out]) == 2
    assert Path(source.uri).read_bytes() == before


def test_what_is_at_work_costs_until_now(run):
    """Between two heartbeats too: two workers for an hour and two minutes."""
    beat(run, "a", age=120.0)
    assert look(run).worker_hours == pytest.approx(2 * 3720 / 3600)


def shown(run, *, width=100, price=None):
    """What a terminal shows."""
    return "\n".join(lines(look(run), width, price_per_hour=price))


def test_a_run_under_way(run):
    """Share, rate, time left with its interval, who is at work, and what it cost so far."""
    publish_at(run, [100, 90, 80, 70, 60, 50, 40, 30, 20, 10])
    for rank in range(3):
        beat(run, f"d{rank}", rank=rank)
    beat(run, "d3", rank=3, rows=300)
    found = look(run)
    low, high = found.seconds_left_range
    assert low <= found.seconds_left <= high
    assert found.seconds_left == pytest.approx(100)
    assert found.worker_hours == pytest.approx(8.0)
    text = shown(run, price=0.5)
    assert "50% 10 of 20 units, 200 of 400 rows" in text
    assert "left     1:40 (" in text
    assert "at work  4 at work, 1 slow; 8 workers" in text
    assert text.index("pod rank 3: 15 units, 0.083 docs/s, heard 0:00 ago, slow") < text.index("rank 0")
    assert "cost     4.00 so far, 8.0 worker-hours so far at 0.5" in text


def test_workers_that_vanished(run):
    """Nobody can say how long it takes where nobody was heard of, though parts are recent enough for a rate."""
    publish_at(run, [460, 450, 440, 430])
    beat(run, "d0", age=420)
    found = look(run)
    assert found.recent_rows_per_second > 0
    assert found.seconds_left is None
    assert "left     unknown: no worker heard of for 7:00" in shown(run)
    assert "No worker was heard of for 7:00." in page(run)
    assert "unknown left; 1 silent" in str(found)


def test_before_the_first_part_and_after_the_last(run):
    """No part is no rate; a complete run says so and shows no time left."""
    assert "left     unknown: no part yet" in shown(run)
    assert "no command has left a sign of life" in shown(run)
    publish_at(run, range(20))
    beat(run, "d0", left="finished")
    text = shown(run)
    assert "complete; `assay verify` proves what the parts hold" in text
    assert "left " not in text
    assert "1 finished" in text
    assert "<strong>Complete:</strong> 20 units are published." in page(run)


def test_failures_are_named(run):
    """The units that failed, and those that nobody will try again."""
    units = run.units
    notes = Notes(
        run.store,
        Heartbeat(
            id="x",
            host="h",
            rank=0,
            world_size=1,
            num_workers=1,
            assay_version="0",
            started_at=NOW,
            beat_at=NOW,
        ),
        clock=lambda: NOW,
    )
    for number in (0, 0, 0, 1):
        notes.fail(units[number].name, "broken")
    found = look(run)
    assert found.set_aside == [units[0].name]
    assert f"failed   2 units, 1 set aside: {units[0].name} (3 times), {units[1].name} (1 time)" in shown(run)
    assert "1 unit failed too often" in page(run)


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_a_store_whose_clock_is_off(run, skew):
    """Drivers at work are not silent where they and this machine agree and the store's clock is an hour off."""
    for name in ("a", "b", "c"):
        beat(run, name, skew=-skew)
    states = {driver.state for driver in look(run, clock=NOW - skew).drivers}
    assert states == {"working"}


def test_one_driver_whose_clock_is_off(run):
    """It changes nothing for the others, and is at work itself: what counts is the store's time of its file."""
    beat(run, "a")
    beat(run, "b")
    beat(run, "c", skew=7200.0)
    beat(run, "d", age=1000.0)
    found = {driver.id: driver.state for driver in look(run).drivers}
    assert found == {"a": "working", "b": "working", "c": "working", "d": "silent"}


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal(run, width):
    """Whatever it is; what matters is folded, not cut."""
    publish_at(run, [460, 450, 440])
    beat(run, "d0", age=420, host="a-pod-with-a-very-long-name")
    found = lines(look(run), width, price_per_hour=0.7)
    assert max(map(len, found)) <= width
    assert "unknown: no worker heard of for 7:00" in " ".join(" ".join(found).split()) or width < 40


def page(run, **settings):
    """The page of a run."""
    return render_status(look(run), run.url, created="now", **settings).decode()


def test_the_page_trusts_nothing(run):
    """A host's name is text, whatever it is; the page reloads itself only where it is told to."""
    beat(run, "d0", host="<script>alert(1)</script>\x1b[2J")
    assert "\x1b" not in shown(run)
    assert "<script>" not in page(run)
    assert "&lt;script&gt;" in page(run)
    assert 'http-equiv="refresh"' not in page(run)
    assert '<meta http-equiv="refresh" content="5">' in page(run, refresh_seconds=5.0)


def test_a_watch_ends_with_the_run(run):
    """It shows each look, asks again where the store does not answer, and ends once all is published."""
    seen, problems = [], []

    def show(found, problem):
        seen.append(found.units_published)
        problems.append(problem)

    def sleep(_):
        if len(seen) == 1:
            listed.append(run.store.url)
        publish_at(run, [0] * 10)

    listed = []
    real = Watcher.look

    def unreliable(self):
        if listed:
            listed.clear()
            raise StorageError("the store is away")
        return real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Watcher, "look", unreliable)
        last = watch(run.url, every_seconds=0.01, show=show, sleep=sleep, clock=lambda: NOW)
    assert last.is_complete
    assert seen == [0, 0, 20]
    assert problems == ["", "the store is away", ""]
    with pytest.raises(SourceError, match="holds no run"):
        watch(run.url + "-none", every_seconds=1.0, show=show, sleep=sleep)


def test_a_page_that_cannot_be_written_ends_a_watch(run, tmp_path, capsys):
    """It is not the store that does not answer, and looking again would not help."""
    publish_at(run, [0] * 20)
    (tmp_path / "file").touch()
    page = str(tmp_path / "file" / "page.html")
    assert main(["status", run.url, "--watch", "--every-seconds", "0.1", "--html", page]) == 1
    assert "page.html" in capsys.readouterr().err


def test_a_price_that_nothing_would_show(run, capsys):
    """The line of one look has no cost."""
    assert main(["status", run.url, "--price-per-hour", "2"]) == 2
    assert "price_per_hour is shown by --watch and --html alone" in capsys.readouterr().err


def test_only_what_changed_is_read_again(run, monkeypatch):
    """A second look reads no heartbeat that is as it was, and the footers of new parts alone."""
    publish_at(run, [20, 10])
    beat(run, "a")
    beat(run, "b")
    watcher = Watcher(run.url, clock=lambda: NOW)
    first = watcher.look()
    read = []
    store = type(run.store)
    for name in ("read_bytes", "open_input"):
        real = getattr(store, name)

        def noted(self, path, *rest, real=real, **named):
            read.append(path)
            return real(self, path, *rest, **named)

        monkeypatch.setattr(store, name, noted)
    assert watcher.look() == first
    assert read == []
    publish_at(run, [5])
    beat(run, "b", age=-1.0)
    read.clear()  # publishing reads the source
    assert watcher.look().units_published == 3
    assert {path.partition("/")[0] for path in read} == {"parts", "workers"}
    assert len(set(read)) == 2


def test_the_command(run, tmp_path, capsys):
    """Where stdout is not a terminal a look is a line, or an object; --html writes the page."""
    publish_at(run, range(20))
    out = tmp_path / "status.html"
    assert main(["status", run.url, "--watch", "--html", str(out)]) == 0
    assert capsys.readouterr().out.startswith("20 of 20 units are published")
    assert "score run, 100% published" in out.read_text()
    assert main(["status", run.url, "--watch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_complete"] is True
    assert main(["status", str(tmp_path / "none"), "--watch"]) == 2
