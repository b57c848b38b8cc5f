"""`assay clean`: what is Assay's is found, shown and deleted where asked; nothing else is touched."""

import fcntl
import json
import os
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from support.bundles import write_bundle
from support.fake_runs import contents, make_run, publish_unit, write_sources
from support.fake_store import at_random

from assay.bundle.description import Description, write_description
from assay.clean.clean import clean
from assay.clean.settings import CleanSettings
from assay.cli.main import main
from assay.data.storage import open_store
from assay.embed.cache import VectorCache
from assay.embed.kind import EmbedIdentity
from assay.errors import RefusedError, SourceError, StorageError
from assay.fleet.estimate import estimate
from assay.fleet.settings import EstimateSettings
from assay.runs.notes import Heartbeat, Notes
from assay.runs.run import find_run, open_run
from assay.runs.verify import verify
from assay.score.estimate.record import ESTIMATE_PATH

ALL = {"runs": True, "models": True, "caches": True}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A source of 100 rows, beside the places that are cleaned."""
    return write_sources(tmp_path_factory.mktemp("sources"), [100])


@pytest.fixture
def place(tmp_path):
    """A folder to clean."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def notes_of(run, name="a"):
    """The notes of a command on a run."""
    now = time.time()
    heartbeat = Heartbeat(
        id=name,
        host="pod-7",
        rank=0,
        world_size=1,
        num_workers=1,
        assay_version="0",
        started_at=now,
        beat_at=now,
    )
    return Notes(run.store, heartbeat, clock=time.time)


def leave_notes(run):
    """What a command that ended leaves: its last heartbeat, a failure, a claim, an unfinished file; four files."""
    notes = notes_of(run)
    notes.fail("a-0-20", "cursed")
    notes.leave("failed")
    run.store.create("claims/0-3.gone", b"")
    run.store.create("damaged/a-0-20.parquet", b"bad")


def write_model(folder):
    """A model that Assay made: seven files."""
    write_bundle(folder)
    description = Description(
        assay_version="0",
        created="2026-01-01T00:00:00+00:00",
        task="single_label",
        labels=("ham", "spam"),
        max_length=64,
        is_pair=False,
        provenance={},
    )
    write_description(folder, description)
    (folder / "metrics.jsonl").write_text("{}")
    (folder / "train_report.html").write_text("<html>")
    return folder


def write_cache(folder):
    """A cache of vectors: one file."""
    identity = EmbedIdentity(
        tokenizer="t",
        max_length=16,
        on_long="truncate",
        stride=0,
        bundle="b",
        pooling="mean",
        normalized=True,
        precision="fp32",
        engine="auto",
    )
    VectorCache(folder, identity, dimension=4).add(np.ones((1, 2), np.uint64), np.ones((1, 4), np.float32))
    return folder


def files_of(folder):
    """Every file and link below a folder, by its path in it."""
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()
    }


def clean_at(place, **settings):
    """The report of `assay clean`."""
    return clean(CleanSettings(place=str(place), **settings))


def kinds_of(items):
    """How many files of each kind there are."""
    return {item.kind: len(item.files) for item in items}


# ------------------------------------------------------------ what is deleted


def test_nothing_is_deleted_unless_asked_for(place, sources, capsys):
    """The command says what would go and how many bytes, changes nothing, and keeps what was not named."""
    run = make_run(place / "run", sources, publish=True)
    leave_notes(run)
    write_model(place / "model")
    write_cache(place / "cache")
    before = files_of(place)
    assert main(["clean", str(place)]) == 0
    assert files_of(place) == before
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"would delete leftovers {run.url} (of a run: ")
    assert lines[0].endswith(": 4 files, " + lines[-1].removeprefix("4 files, ").partition(" in all")[0])
    assert f"keeps        run {run.url} (score, 5 of 5 units published): 6 files, " in lines[1]
    assert [line.rpartition(": ")[2] for line in lines[1:4]] == ["--runs", "--models", "--caches"]
    assert lines[-1].endswith("nothing is deleted without --delete")
    assert clean_at(place, **ALL).num_files == len(before)


def test_leftovers_go_and_the_run_stays(place, sources):
    """What commands that ended left is deleted; the parts are as they were, and the run is whole."""
    run = make_run(place / "run", sources, publish=True)
    before, parts = files_of(place), contents(run)
    leave_notes(run)
    report = clean_at(run.url, delete=True)
    assert (report.deleted, report.num_files) == (True, 4)
    assert files_of(place) == before
    assert contents(run) == parts
    assert verify(run.url, sources=True).holds
    assert clean_at(run.url, delete=True).num_files == 0


@pytest.mark.parametrize(("kind", "num_files"), [("runs", 6), ("models", 7), ("caches", 1)])
def test_each_kind_where_it_is_named(place, sources, kind, num_files):
    """A flag deletes that kind, with its folders, and no other."""
    make_run(place / "a/run", sources, publish=True)
    write_model(place / "b/model")
    write_cache(place / "c/cache")
    report = clean_at(place, delete=True, **{kind: True})
    assert report.num_files == num_files
    assert len(report.kept) == 2
    assert len(files_of(place)) == 14 - num_files
    folder = {"runs": "a/run", "models": "b/model", "caches": "c/cache"}[kind]
    assert not any((place / folder).rglob("*"))
    assert clean_at(place, delete=True, **ALL).num_files == 14 - num_files
    assert files_of(place) == set()


@pytest.mark.parametrize("name", [f"proofs/{'0' * 64}", f"language/{'0' * 64}.arrow"])
@pytest.mark.parametrize("below", ["", "assay", "assay/{}"])
def test_what_a_machine_keeps_for_itself(place, below, name):
    """Notes on self tests and the unpacked language model are caches, whether the place is their folder or above."""
    file = place / "assay" / name
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    below = below.format(name.partition("/")[0])
    assert clean_at(place / below).num_files == 0
    assert clean_at(place / below, caches=True, delete=True).num_files == 1


def test_files_of_others_stay(place, sources):
    """Whatever is not recognized stays where it is, in runs, in models and beside them, and is named."""
    run = make_run(place / "run", sources, publish=True)
    theirs = {
        "corpus.parquet": b"",
        "run.json.bak": b"",
        "run/notes.txt": b"",
        "run/parts/a-0-7.parquet": b"a stray part",
        "run/parts/sub/a-0-20.parquet": b"",
        "run/report.html": b"a page of another run",
        "run/workers/readme": b"",
        "run/tmp/mine.txt": b"",
        "model/my_notes.md": b"",
        "plain/config.json": b"{}",
        "plain/model.safetensors": b"",
        "other/run.json": b'{"name": "of another tool"}',
        "other/parts/a-0-20.parquet": b"",
        "older/run.json": json.dumps(
            {**json.loads((Path(run.url) / "run.json").read_text()), "format_version": 1}
        ).encode(),
        "cache/0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef.arrow": b"not vectors",
        "theirs/assay.json": b'{"metal": "gold"}',
    }
    write_model(place / "model")
    for path, content in theirs.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content)
    report = clean_at(place, delete=True, **ALL)
    assert report.num_files == 6 + 7
    assert files_of(place) == set(theirs)
    assert {"run/notes.txt", "run/parts/a-0-7.parquet", "model/my_notes.md", "older/run.json"} <= set(
        report.others
    )
    assert "corpus.parquet" not in report.others


def test_links_are_not_followed(place, sources, tmp_path):
    """Links to folders and files outside stay, and so does what they lead to; the place itself may be a link."""
    outside = tmp_path / "outside"
    make_run(outside / "run", sources, publish=True)
    write_model(outside / "model")
    kept = files_of(outside)
    run = make_run(place / "run", sources)
    units = run.manifest.units()
    (place / "run/parts").mkdir()
    (place / "run/parts" / f"{units[0].name}.parquet").symlink_to(
        outside / f"run/parts/{units[0].name}.parquet"
    )
    (place / "run/workers").symlink_to(outside / "run/parts")
    (place / "elsewhere").symlink_to(outside / "run")
    (place / "loop").symlink_to(place)
    (tmp_path / "here").symlink_to(place)
    report = clean_at(tmp_path / "here", delete=True, **ALL)
    assert report.num_files == 1
    assert files_of(outside) == kept
    assert files_of(place) == {f"run/parts/{units[0].name}.parquet", "run/workers", "elsewhere", "loop"}
    assert f"run/parts/{units[0].name}.parquet" in report.others


def test_a_folder_that_becomes_a_link_meanwhile(place, sources, tmp_path, monkeypatch):
    """Nothing is deleted through a link that was put there after the listing."""
    run = make_run(place / "run", sources, publish=True)
    outside = tmp_path / "outside"
    from assay.clean import clean as module

    def swap(*arguments, **options):
        found = find(*arguments, **options)
        (place / "run/parts").rename(outside)
        (place / "run/parts").symlink_to(outside)
        return found

    find = module.find_items
    monkeypatch.setattr(module, "find_items", swap)
    with pytest.raises(StorageError, match="has become a link"):
        clean_at(run.url, delete=True, runs=True)
    assert len(files_of(outside)) == 5
    assert (place / "run/run.json").exists()


# ------------------------------------------------------------ who is at work


def test_what_a_run_costs_goes_with_it_alone(place, sources):
    """What pods have cost counts against the budget of those that come, an estimate is for the report: no leftovers."""
    run = make_run(place / "run", sources, publish=True)
    run.store.create("launches/assay-run-03236a.json", b"{}")
    run.store.create(ESTIMATE_PATH, b"{}")
    clean_at(place, delete=True)
    assert (place / "run" / "launches" / "assay-run-03236a.json").exists()
    assert (place / "run" / ESTIMATE_PATH).exists()
    report = clean_at(place, delete=True, runs=True)
    assert (files_of(place), report.others) == (set(), ())
    assert not (place / "run" / "launches").exists()


def test_an_estimate_of_a_run_that_was_never_begun_is_one(place):
    """`estimate.json` alone is shown and goes with the runs, as nothing else of that name does."""
    settings = EstimateSettings(
        tokens_per_second=1_000.0, for_documents="1000", tokens_per_document=50.0, run=str(place / "run")
    )
    estimate(settings)
    (place / "other").mkdir()
    (place / "other" / ESTIMATE_PATH).write_text("{}")
    kept = clean_at(place, delete=True)
    assert [item.what for item in kept.kept] == ["an estimate of a run that was not begun"]
    clean_at(place, delete=True, runs=True)
    assert files_of(place) == {f"other/{ESTIMATE_PATH}"}


def test_a_run_at_work_is_refused(place, sources, capsys):
    """Nothing at all is deleted while a command works on a run; once it is silent for long, or left, it is."""
    make_run(place / "done", sources, publish=True)
    run = make_run(place / "busy", sources)
    notes_of(run).beat()
    before = files_of(place)
    assert main(["clean", str(place), "--runs", "--delete"]) == 3
    said = capsys.readouterr().err
    assert f"{run.url} is in use (1 command is at work, on pod-7 a heartbeat 0:0" in said
    assert said.count("\n") == 1
    assert files_of(place) == before
    assert main(["clean", str(place), "--runs"]) == 0
    assert "IN USE: 1 command is at work" in capsys.readouterr().out
    old = time.time() - 1000
    os.utime(place / "busy/workers/a.json", (old, old))
    assert clean_at(place, runs=True, delete=True).num_files == len(before)


@pytest.mark.parametrize("where", ["disk", "bucket"])
def test_a_clock_that_is_wrong(place, sources, fake_store, monkeypatch, where):
    """Who is at work goes by the clock that stamps the files; that this machine is a day ahead changes nothing."""
    run = make_run(place / "run" if where == "disk" else "s3://bucket/run", sources)
    notes_of(run).beat()
    server_time = time.time
    monkeypatch.setattr("assay.clean.clean.time", Mock(time=lambda: server_time() + 86_400))
    with pytest.raises(RefusedError, match="is in use"):
        clean_at(run.url, runs=True, delete=True)
    names = {info.path for info in run.store.list()}
    assert names == {"run.json", "workers/a.json"}


def test_a_file_that_a_living_process_writes(place, sources):
    """A locked file in the run's folder means that someone is at work, whatever became of the heartbeats."""
    run = make_run(place / "run", sources)
    file = run.store.scratch() / f"a-0-20.{'0' * 32}.scratch"
    with file.open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RefusedError, match="a process of this machine writes a part"):
            clean_at(run.url, runs=True, delete=True)
    assert clean_at(run.url, delete=True).num_files == 1
    assert files_of(place) == {"run/run.json"}


def test_files_being_made_are_left_for_an_hour(place, sources):
    """A file without a lock that was staged lately may be a report that is being written."""
    run = make_run(place / "run", sources)
    file = run.store.scratch() / f"report.html.17.{'0' * 32}"
    file.write_bytes(b"half")
    assert clean_at(run.url, delete=True).num_files == 0
    os.utime(file, (time.time() - 4000,) * 2)
    assert clean_at(run.url, delete=True).num_files == 1


def test_a_model_that_was_never_finished(place):
    """What a killed command left of one goes; one that is being written stays, named or not, and so do odd files."""
    ours, busy, odd = (write_model(place / f".model.tmp-abcd{name}_45") for name in "xyz")
    (odd / "notes.txt").write_text("")
    descriptor = os.open(busy, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        assert clean_at(place, delete=True, **ALL).num_files == 7
    finally:
        os.close(descriptor)
    assert not ours.exists()
    assert len(files_of(busy)) == 7
    assert len(files_of(odd)) == 8


def test_checkpoints_of_a_training(place):
    """They are models; a training that holds its folder is refused."""
    folder = place / "model.training"
    for name in ("step-00000300", "best-00000200.1"):
        (folder / name).mkdir(parents=True)
        for file in ("model.safetensors", "state.json"):
            (folder / name / file).write_bytes(b"x")
    with (folder / "lock").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(RefusedError, match="a training of this machine"):
            clean_at(place, models=True, delete=True)
    assert clean_at(place, delete=True).num_files == 0
    assert clean_at(place, models=True, delete=True).num_files == 5
    assert files_of(place) == set()


# ------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("after", [0, 3, 5])
def test_an_interrupted_clean_goes_on(place, sources, monkeypatch, after):
    """Killed at any file, what is left is a run that is known as one, and the same command ends the work."""
    run = make_run(place / "run", sources, publish=True)
    unlink, left = Path.unlink, [None] * after

    def interrupted(path, **options):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        unlink(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", interrupted)
        with pytest.raises(KeyboardInterrupt):
            clean_at(run.url, runs=True, delete=True)
    assert len(find_run(run.url).part_files()) == 5 - after
    assert clean_at(run.url, runs=True, delete=True).num_files == 6 - after
    assert not (place / "run").exists()


def test_folders_that_may_not_be_listed(place, sources, monkeypatch):
    """A folder of others is left alone and named; what lies beside it is cleaned. The place itself must be listed."""
    make_run(place / "run", sources, publish=True)
    (place / "theirs").mkdir()
    scandir = os.scandir

    def refuse(folder):
        if Path(folder).name == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    closed = "theirs"
    report = clean_at(place, runs=True, delete=True)
    assert "leaves alone 1 folder that you may not list: theirs" in str(report)
    assert [path.name for path in place.iterdir()] == ["theirs"]
    closed = place.name
    with pytest.raises(StorageError, match=r"could not be listed \(Permission denied\)"):
        clean_at(place)


def test_files_that_are_read_only(place, sources, monkeypatch):
    """A read-only file in a folder that can be changed goes; one that cannot is named, and the run is still one."""
    run = make_run(place / "run", sources, publish=True)
    make_run(place / "second", sources, publish=True)
    parts = sorted((place / "run/parts").iterdir())
    for part in parts:
        part.chmod(0o400)
    unlink = Path.unlink

    def refuse(path, **options):
        if path.name == parts[2].name and path.parent.parent.name == "run":
            raise PermissionError(13, "Permission denied")
        unlink(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        with pytest.raises(StorageError, match=r"run/parts/a-.*could not be deleted \(Permission denied\)"):
            clean_at(place, runs=True, delete=True)
    assert not (place / "second").exists()
    assert open_run(run.url).part_files()
    clean_at(place, runs=True, delete=True)
    assert files_of(place) == set()


def test_a_place_that_is_not_there(place, capsys):
    """One line, status 2."""
    with pytest.raises(SourceError, match="no such folder; give a run"):
        clean_at(place / "nothing")
    assert main(["clean", str(place / "nothing")]) == 2
    assert main(["clean", "ftp://host/x"]) == 2
    assert main(["clean", str(place), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_files"] == 0


# ------------------------------------------------------------ buckets


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_run_in_a_bucket(fake_store, sources, scheme):
    """The same in a bucket, with requests that fail; files of others stay."""
    run = make_run(f"{scheme}://bucket/runs/one", sources, publish=True)
    other = make_run(f"{scheme}://bucket/runs/two", sources)
    publish_unit(other, other.manifest.units()[0])
    open_store(f"{scheme}://bucket/runs").create("one/parts/mine.txt", b"")
    notes = notes_of(other)
    notes.beat()
    with pytest.raises(RefusedError, match="runs/two is in use"):
        clean_at(f"{scheme}://bucket/runs", runs=True, delete=True)
    notes.leave("drained")
    faults = at_random(3, 0.3)
    fake_store.plan = lambda *request: faults(*request).replace("late", "503")  # what was put is listed
    report = clean_at(f"{scheme}://bucket/runs", delete=True)
    assert report.num_files == 1
    report = clean_at(f"{scheme}://bucket/runs", runs=True, delete=True)
    fake_store.plan = lambda *_: ""
    assert report.num_files == 6 + 2
    assert list(fake_store.buckets["bucket"].objects) == ["runs/one/parts/mine.txt"]
    assert report.others == ("one/parts/mine.txt",)
    assert find_run(run.url) is None


def test_a_thousand_parts_are_one_request(fake_store, tmp_path):
    """A bucket of S3 deletes a thousand objects at once."""
    run = make_run("s3://bucket/run", write_sources(tmp_path, [5000], row_group_rows=5000), unit_rows=2)
    for unit in run.manifest.units():
        fake_store.buckets["bucket"].put(f"run/parts/{unit.name}.parquet", b"", {})
    fake_store.requests.clear()
    assert clean_at(run.url, runs=True, delete=True).num_files == 2501
    assert fake_store.requests["delete"] == 3 + 1  # one of the file that tells the time
    assert fake_store.requests.total() < 15
