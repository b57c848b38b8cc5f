"""The quickstart says what it does while it does it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from assay import quickstart as room
from assay.cli.main import main
from assay.quickstart import quickstart, this_python
from assay.train.checkpoints import training_folder


class StoppedError(Exception):
    """Where the training would have gone on."""


@pytest.mark.parametrize("show_progress", [True, False])
def test_a_training_of_minutes_shows_how_far_it_is_where_asked_to(
    show_progress, tmp_path, monkeypatch, capsys
):
    """Reading, loading and every step of the training are shown on stderr, for those who wait; else nothing is."""

    def begin(settings, train_rows, validation_rows, *, on_progress, on_phase):
        if on_phase is not None:
            on_phase("loading the base")
        raise StoppedError

    monkeypatch.setattr(room, "fit", begin)
    with pytest.raises(StoppedError):
        quickstart(str(tmp_path / "quickstart"), show_progress=show_progress)
    assert ("loading the base" in capsys.readouterr().err) == show_progress


def test_the_next_step_works_where_no_environment_is_active(tmp_path, monkeypatch):
    """`make quickstart` leaves the shell as it was, so the interpreter is named by a path that leads there."""
    for folder in (Path(sys.prefix), tmp_path):
        monkeypatch.chdir(folder)
        command = f'{this_python()} -c "import assay, sys; print(sys.prefix)"'
        said = subprocess.run(
            ["sh", "-c", command],
            env={"PATH": os.defpath},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert said.stdout.strip() == sys.prefix, said.stderr
    monkeypatch.chdir(sys.prefix)
    assert not Path(this_python()).is_absolute()


def test_an_interrupted_quickstart_is_begun_again_by_the_same_command(tmp_path, monkeypatch, capsys):
    """What the training had written does not stand in the way, and the last line says what the command will do."""
    place = tmp_path / "quickstart"

    def stop(settings, train_rows, validation_rows, **_):
        folder = training_folder(settings.out)
        assert not folder.exists()
        folder.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "fit", stop)
    for _ in range(2):
        assert main(["quickstart", str(place)]) == 130
        said = capsys.readouterr().err.splitlines()
        assert said[-1] == "interrupted: the same command begins again, from scratch"


def test_what_a_killed_quickstart_was_writing_is_removed(tmp_path, monkeypatch):
    """A kill leaves folders and files under hidden names; the next start removes them, and nothing else."""
    place = tmp_path / "quickstart"
    (place / ".model.tmp-ab12").mkdir(parents=True)
    (place / ".model.tmp-ab12" / "config.json").write_text("{}")
    (place / ".model.old-cd34").mkdir()
    (place / ".report.html.12ab34cd").write_text("<p>")

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(room, "fit", stop)
    (place / ".mine").write_text("")
    assert main(["quickstart", str(place)]) == 2
    assert len(list(place.iterdir())) == 4
    (place / ".mine").unlink()
    assert main(["quickstart", str(place)]) == 130
    assert [path.name for path in place.iterdir()] == ["corpus.parquet"]
