"""The quickstart says what it does while it does it."""

import pytest

from assay import quickstart as room
from assay.quickstart import quickstart


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
