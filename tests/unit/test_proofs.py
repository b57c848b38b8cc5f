"""Notes on what was proven: what they depend on, and who waits for whom."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from assay import proofs
from assay.proofs import Note


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "assay"


def test_a_note_is_read_as_it_was_written():
    """By whoever asks for the same parts in the same order, and by nobody else."""
    Note.of("model", 1).write({"loss": 0.5, "sizes": [1, 2], "type": float})
    assert Note.of("model", 1).read() == {"loss": 0.5, "sizes": [1, 2], "type": str(float)}
    assert Note.of("model", 2).read() is None
    assert Note.of(1, "model").read() is None


def test_a_changed_source_file_is_another_note(monkeypatch, tmp_path):
    """Code that was edited proves itself again, whatever its version says."""
    package = tmp_path / "package"
    (package / "engine").mkdir(parents=True)
    (package / "engine" / "kernel.py").write_text("tile = 64")
    monkeypatch.setattr(proofs, "_PACKAGE", package)
    names = []
    for content in ("tile = 64", "tile = 128"):
        (package / "engine" / "kernel.py").write_text(content)
        proofs._code_state.cache_clear()
        names.append(Note.of("model").name)
    proofs._code_state.cache_clear()
    assert names[0] != names[1]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"content": {"loss": 0.1}, "digest": "0"}', b"\xff"]
)
def test_a_damaged_note_is_none(cache, content):
    """What is cut short, edited or something else proves nothing."""
    note = Note.of("model")
    note.write({"loss": 0.5})
    (file,) = (cache / "proofs").iterdir()
    file.write_bytes(content)
    assert note.read() is None


def test_a_cache_that_cannot_be_made_stops_nobody(tmp_path, monkeypatch):
    """Without a cache everything is proven at each start."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    note = Note.of("model")
    note.write({"loss": 0.5})
    assert note.read() is None
    with note.turn():
        pass


@pytest.mark.parametrize("proves", [True, False])
def test_others_wait_for_the_first_and_not_for_each_other(cache, proves):
    """One proves; the others find its note, or where it made none go on together."""
    note = Note.of("model")
    first_is_in, together = threading.Event(), threading.Barrier(3, timeout=20)

    def first():
        with note.turn():
            first_is_in.set()
            time.sleep(0.3)
            if proves:
                note.write({"by": "first"})

    def other():
        first_is_in.wait(20)
        with note.turn():
            together.wait()  # all three are within at once
            return note.read()

    with ThreadPoolExecutor(4) as pool:
        proving = pool.submit(first)
        found = [each.result(30) for each in [pool.submit(other) for _ in range(3)]]
        proving.result()
    assert found == [{"by": "first"} if proves else None] * 3
    assert not list((cache / "turns").iterdir())
