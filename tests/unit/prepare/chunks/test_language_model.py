"""The language model, unpacked once."""

import os
import shutil
import subprocess
import sys

import pytest

from assay.prepare.chunks import language_model
from assay.proofs import notes_folder

langid = pytest.importorskip("py3langid.langid")
PACKED = langid.MODEL_DIR / langid.MODEL_FILE
TEXTS = (
    "It was the best of times, it was the worst of times.",
    "Było to najlepsze z czasów i najgorsze z czasów.",
    "C'était le meilleur des temps et le pire des temps.",
    "Es war die beste und die schlimmste aller Zeiten.",
    "これは日本語の文です。",
    "CAPITALS ALONE",
    "12345",
    "",
)


@pytest.fixture(scope="module", autouse=True)
def unpacked(tmp_path_factory):
    """The model is unpacked once for these tests; each changes a copy."""
    return language_model.identifier(PACKED)


def test_languages_and_scores_are_those_of_the_package(unpacked):
    """Not only the language but every bit of its score."""
    assert [unpacked.classify(text) for text in TEXTS] == [langid.classify(text) for text in TEXTS]
    assert isinstance(unpacked.tk_nextmove, memoryview)  # mapped, not held by each process


def test_no_process_unpacks_it_again(monkeypatch):
    """The file that the first one left is all that the next ones need."""
    monkeypatch.setattr(language_model, "_unpack", None)
    assert language_model.identifier(PACKED).classify(TEXTS[1])[0] == "pl"


def test_a_damaged_file_is_made_anew(monkeypatch, tmp_path):
    """A disk that was full or a crash leaves a file that is not used."""
    (whole,) = (notes_folder() / "language").iterdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "assay" / "language" / whole.name
    file.parent.mkdir(parents=True)
    file.write_bytes(whole.read_bytes()[:1_000_000])
    monkeypatch.setattr(language_model, "_unpack", lambda _, file: shutil.copy(whole, file))
    assert language_model.identifier(PACKED).classify(TEXTS[2])[0] == "fr"


def test_a_cache_that_cannot_be_written_to_costs_only_time(tmp_path):
    """Then each process unpacks the model for itself, as py3langid does."""
    (tmp_path / "file").write_text("")
    script = "from assay.prepare.chunks.languages import language_of as of; assert of('Było to dawno temu') == 'pl'"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "file")}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=60)
    assert (tmp_path / "file").read_text() == ""
