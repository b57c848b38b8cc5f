"""Runs that must not be gone on with, and disks that cannot be written: one line, the right status, no loss."""

import json
import os
import shutil
import signal
import subprocess

import pytest
from support.bundles import write_bundle
from support.cli import use_fake_workers
from support.fake_runs import contents, leftovers, make_run, publish_unit, write_sources

from assay.cli.main import main
from assay.errors import SourceError
from assay.runs.run import open_run
from assay.runs.verify import verify


class Assay:
    """The command line in this process over one corpus, with fake workers."""

    def __init__(self, tmp_path, capsys):
        self.sources = write_sources(tmp_path / "sources", [300, 100])
        self.bundle = write_bundle(tmp_path / "bundle")
        self.run = tmp_path / "run"
        self._capsys = capsys

    def __call__(self, *words):
        """Exit status, and the lines on stderr."""
        self._capsys.readouterr()
        status = main(list(words))
        return status, self._capsys.readouterr().err.splitlines()

    def score(self, *more, run=None):
        """`assay score` over the corpus."""
        paths = ["score", str(self.sources), "--bundle", str(self.bundle), "--run", str(run or self.run)]
        return self(*paths, "--engine", "fake", "--unit-rows", "20", *more)

    def refused(self, *more, status, run=None):
        """The one line with which `assay score` refuses, once its status is as expected."""
        found, lines = self.score(*more, run=run)
        assert found == status, lines
        errors = [line for line in lines if line.startswith("assay: error: ")]
        assert lines[-1:] == errors, "one line, the last"
        return errors[0].removeprefix("assay: error: ")


@pytest.fixture
def assay(tmp_path, capsys, monkeypatch, worker_host):
    """The command line, a corpus of 20 units and a bundle."""
    before = signal.getsignal(signal.SIGTERM)
    use_fake_workers(monkeypatch.setattr, host=worker_host)
    yield Assay(tmp_path, capsys)
    signal.signal(signal.SIGTERM, before)


def assert_untouched(run, before):
    """The run is whole and holds what it held."""
    assert contents(open_run(str(run))) == before


# ------------------------------------------------------------ another run


def test_a_run_of_something_else_is_refused(assay):
    """A run directory of another model, setting or input is refused with status 3 and what changed.

    It is left as it was, and the same command as before is welcome again afterwards.
    """
    assert assay.score()[0] == 0
    before = contents(open_run(str(assay.run)))
    assert len(before) == 20

    error = assay.refused("--max-length", "32", status=3)
    assert error == (
        f"{assay.run} holds another run: max_length was 64, now 32; put it back as it was, or use another --run"
    )
    assert "on_long was truncate, now head-tail" in assay.refused("--on-long", "head-tail", status=3)
    assert "source a was planned for 300 rows, now 150" in assay.refused("--limit-rows", "150", status=3)
    assert "id column was None, now 'text'" in assay.refused("--id-column", "text", status=3)
    write_bundle(assay.bundle, weight=1.0)
    error = assay.refused(status=3)
    assert f"{assay.run} holds another run: bundle was " in error
    assert error.endswith("; put it back as it was, or use another --run")
    assert_untouched(assay.run, before)

    write_bundle(assay.bundle)
    status, lines = assay.score()
    assert (status, lines[-1]) == (0, "All 20 units are published already; nothing to do.")
    # What changes no number may change: workers, unit sizes, batches.
    assert assay.score("--devices", "3", "--unit-rows", "50", "--max-batch-tokens", "128")[0] == 0
    assert_untouched(assay.run, before)


def test_sources_that_changed_are_refused(assay):
    """Sources that changed under a run are refused with status 3 and named; verify names them too."""
    assert assay.score("--limit-rows", "400")[0] == 0
    before = contents(open_run(str(assay.run)))
    kept = (assay.sources / "b.parquet").read_bytes()

    write_sources(assay.sources, [300, 101])
    assert "source b was " in assay.refused(status=3)
    status, lines = assay("verify", str(assay.run))
    assert status == 1
    assert "b.parquet changed since the run began (" in lines[-1]

    write_sources(assay.sources, [300, 100, 5])
    assert "source c is new" in assay.refused(status=3)
    (assay.sources / "c.parquet").unlink()
    (assay.sources / "b.parquet").unlink()
    assert "source b is gone" in assay.refused(status=3)
    assert_untouched(assay.run, before)

    (assay.sources / "b.parquet").write_bytes(kept)
    assert assay.score()[0] == 0
    assert assay("verify", str(assay.run), "--check-sources")[0] == 0


def test_a_source_replaced_under_the_workers(tmp_path):
    """A source that is replaced while units are done is never passed off as the one that was planned.

    A unit with too few rows fails. Where the rows still add up verify names the source, and with the first
    content back, each part that is not of it.
    """
    folder = write_sources(tmp_path / "sources", [100])
    run = make_run(tmp_path / "run", folder)
    first, second, third, *_ = run.manifest.units()
    publish_unit(run, first)
    write_sources(folder, [30])
    with pytest.raises(SourceError, match=r"a\.parquet ends at row 30 of 100; it changed or was cut short"):
        publish_unit(run, second)
    assert set(run.part_files()) == {first.name}

    shutil.copy(write_sources(tmp_path / "others", [5, 100]) / "b.parquet", folder / "a.parquet")
    for unit in (second, third):
        publish_unit(run, unit)
    changed = [text for text in verify(run.url).problems if "a.parquet changed since the run began (" in text]
    assert len(changed) == 1
    write_sources(folder, [100])
    foreign = [text.split(":")[0] for text in verify(run.url, sources=True).problems[1:]]
    assert foreign == [f"parts/{second.name}.parquet", f"parts/{third.name}.parquet"]


@pytest.mark.parametrize("version", [1, 3])
@pytest.mark.parametrize("verb", ["score", "status", "verify", "merge", "report"])
def test_an_unknown_run_format_is_refused(assay, verb, version):
    """A run that another Assay wrote is refused with status 3 by every command, naming both versions."""
    assay.run.mkdir()
    manifest = json.dumps({"format_version": version, "anything": "else"})
    (assay.run / "run.json").write_text(manifest)
    more = ["--out", str(assay.run.parent / "out")] if verb in {"merge", "report"} else []
    status, lines = assay.score() if verb == "score" else assay(verb, str(assay.run), *more)
    assert status == 3, lines
    assert (
        f"run.json has run format version {version}; this Assay reads version 2; use the Assay that"
        in lines[-1]
    )
    assert (assay.run / "run.json").read_text() == manifest
    assert not (assay.run.parent / "out").exists()


def test_a_damaged_run_json(assay):
    """A run.json cut short is bad input, status 2, named, and never overwritten."""
    assert assay.score()[0] == 0
    content = (assay.run / "run.json").read_bytes()[:500]
    (assay.run / "run.json").write_bytes(content)
    assert "run.json is not JSON (" in assay.refused(status=2)
    assert (assay.run / "run.json").read_bytes() == content


def test_parts_of_nobody_knows_whom(assay):
    """A directory with parts but no run.json is refused with status 3: whose parts they are is unknown."""
    assert assay.score()[0] == 0
    (assay.run / "run.json").unlink()
    error = assay.refused(status=3)
    assert (
        error
        == f"{assay.run} has parts but no run.json; which run they belong to is unknown; use another --run"
    )
    status, lines = assay("verify", str(assay.run))
    assert (status, "holds no run (no run.json)" in lines[-1]) == (2, True)


# ------------------------------------------------------------ disks


def test_a_run_below_a_file(assay):
    """A run directory that cannot be made fails with status 1 and the path."""
    (assay.run.parent / "file").write_text("not a folder")
    error = assay.refused(status=1, run=assay.run.parent / "file" / "run")
    assert "could not be made (Not a directory); a part of the path is a file; name a folder" in error


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KiB of its own; gives its folder and a function that mounts it again with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mount is not allowed here: {mounted.stderr.decode().strip()}")
    yield (
        folder,
        lambda options: subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True),
    )
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(assay, small_disk):
    """A disk that fills up while parts are published stops the run with status 1 and leaves nothing half.

    What is published stays, and the same command finishes once there is space.
    """
    folder, remount = small_disk
    (folder / "ballast").write_bytes(bytes(180 << 10))
    run = folder / "run"
    error = assay.refused(status=1, run=run)
    assert "No space left on device" in error
    assert error.endswith("; free space on that disk, or put the run on another, and rerun the same command")
    opened = open_run(str(run))
    assert 0 < len(opened.part_files()) < 20
    assert leftovers(opened) == []
    proof = verify(str(run))
    assert len(proof.problems) == 1, proof
    assert "units are not published" in proof.problems[0]

    published = len(opened.part_files())
    (folder / "ballast").unlink()
    remount("size=4m")
    status, lines = assay.score(run=run)
    assert status == 0, lines
    assert f"{published} of 20 units are published; going on with {20 - published}." in lines
    assert verify(str(run), sources=True).holds


def test_a_disk_that_is_full_from_the_start(assay, small_disk):
    """Where not even run.json can be written there is no run, status 1, and later a clean start."""
    folder, _ = small_disk
    with pytest.raises(OSError, match="No space left"):
        (folder / "ballast").write_bytes(bytes(1 << 20))
    error = assay.refused(status=1, run=folder / "run")
    assert "No space left on device" in error
    assert not (folder / "run" / "run.json").exists()
    (folder / "ballast").unlink()
    assert assay.score(run=folder / "run")[0] == 0


def test_a_read_only_run_directory(assay, small_disk):
    """A run on a disk that became read-only: status 1 and the way out for going on; reading still works."""
    folder, remount = small_disk
    remount("size=4m")
    run = folder / "run"
    assert assay.score(run=run)[0] == 0
    next((run / "parts").iterdir()).unlink()
    remount("ro")
    error = assay.refused(status=1, run=run)
    assert "Read-only file system" in error
    assert error.endswith("; name a folder on a disk that can be written")
    assert "Read-only file system" in assay.refused(status=1, run=folder / "new")
    assert assay("status", str(run)) == (0, [])
    assert assay("verify", str(run))[0] == 1
    remount("rw")
    assert assay.score(run=run)[0] == 0
    assert assay("verify", str(run))[0] == 0
