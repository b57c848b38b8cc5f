"""Damaged parts: seen, named with the way out, taken out, made again; whatever is sound stays."""

import os

import pytest
from support.fake_handles import fake_spec
from support.fake_runs import make_run, part_file, plan_run, publish_unit, write_sources

from assay.cli.outcome import describe_outcome
from assay.errors import AssayError, CheckError
from assay.runs import parts
from assay.runs.drive import drive_run
from assay.runs.driver import Driver
from assay.runs.status import status
from assay.runs.verify import verify
from assay.score.merge.checks import require_parts


def flip(content):
    """One byte within the first page of data changed."""
    place = 60
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


DAMAGES = {
    "flipped": flip,
    "truncated": lambda content: content[:-9],
    "empty": lambda _: b"",
    "zeros": lambda content: bytes(len(content)),
    "half a footer": lambda content: content[: len(content) // 2] + content[-8:],
}


@pytest.fixture
def folder(tmp_path):
    """A source of 100 rows."""
    return write_sources(tmp_path / "sources", [100])


@pytest.fixture
def run(folder, tmp_path):
    """A run of five units, all published."""
    return make_run(tmp_path / "run", folder, publish=True)


def damage(run, index, how="flipped"):
    """Damage the part of a unit; returns its path within the run."""
    path = part_file(run, run.manifest.units()[index])
    path.write_bytes(DAMAGES[how](path.read_bytes()))
    return f"parts/{path.name}"


def drive(run, folder, said=None):
    """The same command again."""
    return drive_run(
        run.url,
        plan_run(folder),
        lambda run: [fake_spec(run)],
        on_message=None if said is None else said.append,
    )


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_part_is_not_called_complete(run, folder, how):
    """Status and the same command again name the part and the way out, however it was damaged."""
    path = damage(run, 2, how)
    found = status(run.url)
    assert not found.is_complete
    way = f"take it out with `assay verify {run.url} --repair`"
    for text in (str(found), *found.damaged):
        assert path in text
        assert way in text
    with pytest.raises(CheckError, match="1 part is damaged: parts/a-40-60") as refused:
        drive(run, folder)
    assert way in str(refused.value)


@pytest.mark.parametrize("how", ["folder", "broken link"])
def test_what_lies_where_a_part_belongs(run, folder, how):
    """Not a file: no part can be published there, and every command says so with the same words."""
    path = part_file(run, run.manifest.units()[2])
    path.unlink()
    if how == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    words = f"{path} is in the way and is not a file (a folder, a broken link); remove it"
    assert words in str(status(run.url))
    assert not status(run.url).is_complete
    assert verify(run.url).problems[0] == words
    for refuse in (lambda: drive(run, folder), lambda: require_parts(run)):
        with pytest.raises(AssayError) as refused:
            refuse()
        assert str(refused.value) == words


@pytest.mark.parametrize("how", DAMAGES)
def test_repaired_and_made_again(run, folder, how):
    """Repair moves the damaged parts out and says which; the same command makes them again, and the proof holds."""
    sound = part_file(run, run.manifest.units()[0]).read_bytes()
    paths = [damage(run, index, how) for index in (1, 3)]
    held = [part_file(run, run.manifest.units()[index]).read_bytes() for index in (1, 3)]
    proof = verify(run.url, repair=True)
    assert not proof.holds
    assert list(proof.taken_out) == paths
    assert all(path in str(proof) for path in paths)
    kept = [part_file(run, run.manifest.units()[0]).parents[1] / place for place in proof.taken_out.values()]
    assert [path.read_bytes() for path in kept] == held
    _, outcome = drive(run, folder)
    assert (outcome.units_found, outcome.units_published) == (3, 2)
    assert verify(run.url, sources=True).holds
    assert part_file(run, run.manifest.units()[0]).read_bytes() == sound


def test_damaged_twice(run, folder):
    """What is taken out a second time is kept beside the first."""
    kept = []
    for _ in range(2):
        damage(run, 0)
        kept += verify(run.url, repair=True).taken_out.values()
        drive(run, folder)
    assert kept == ["damaged/a-0-20.parquet", "damaged/a-0-20.2.parquet"]


def test_a_sound_run_is_left_alone(run):
    """Repair touches nothing where nothing is wrong, and only what does not belong where something is."""
    before = {path: info.modified for path, info in run.part_files().items()}
    assert verify(run.url, repair=True).taken_out == {}
    part_file(run, run.manifest.units()[0]).with_name("mine.parquet").write_bytes(b"anything")
    assert verify(run.url, repair=True).taken_out == {"parts/mine.parquet": "damaged/mine.parquet"}
    assert {path: info.modified for path, info in run.part_files().items()} == before
    assert verify(run.url).holds


def test_a_disk_that_fails_is_not_a_damaged_part(run, monkeypatch):
    """An error of the system says nothing about the part: it is told, and repair leaves the part where it is."""

    def fail(store, path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(type(run.store), "open_input", fail)
    proof = verify(run.url, repair=True)
    assert proof.taken_out == {}
    assert (
        proof.problems[0] == "parts/a-0-20.parquet cannot be read now (Permission denied); verify again later"
    )
    assert len(run.part_files()) == 5


def test_ids_of_another_source_are_no_reason_to_take_a_part_out(run, folder):
    """Where the sources changed after the run, its parts are sound and stay."""
    write_sources(folder, [90])
    proof = verify(run.url, repair=True)
    assert not proof.holds
    assert proof.taken_out == {}


def test_a_large_run_is_looked_at_by_its_footers(run, monkeypatch):
    """Beyond some size only the footers of the newest parts are read: flipped data is left to verify."""
    monkeypatch.setattr(parts, "BYTES_READ", 1)
    damage(run, 1)
    assert status(run.url).is_complete
    assert not verify(run.url).holds
    path = damage(run, 2, "truncated")
    assert path in str(status(run.url))
    monkeypatch.setattr(parts, "FOOTERS_READ", 1)
    os.utime(part_file(run, run.manifest.units()[2]), (1.0, 1.0))
    assert status(run.url).is_complete


def test_what_others_published_is_counted(folder, tmp_path):
    """Of two drivers of one run each says that all is published, and how much the other did of it."""
    run = make_run(tmp_path / "run", folder)
    publish_unit(run, run.manifest.units()[0])
    driver = Driver(run, [fake_spec(run)])
    for unit in run.manifest.units()[1:4]:
        publish_unit(run, unit)
    outcome = driver.run()
    assert (outcome.units_found, outcome.units_published, outcome.units_by_others) == (1, 1, 3)
    assert describe_outcome(outcome).startswith("5 of 5 units published, 3 of them meanwhile by others; ")


def test_a_driver_that_came_too_late(folder, tmp_path):
    """A driver whose every unit was done by another says so too."""
    run = make_run(tmp_path / "run", folder)
    driver = Driver(run, [fake_spec(run)])
    for unit in run.manifest.units():
        publish_unit(run, unit)
    assert describe_outcome(driver.run()) == "5 of 5 units published, 5 of them meanwhile by others"
