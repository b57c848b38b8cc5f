"""Globs in buckets: what they match is what the same glob matches on disk."""

import glob

import pytest

from assay.data.listing import glob_files, static_root
from assay.data.storage import LocalStore

NAMES = [
    *(
        "a.csv",
        "b.csv",
        "^.csv",
        "&.csv",
        "[.csv",
        "x&&y.csv",
        "ab.csv",
        ".h.csv",
        "a]b.csv",
        "-.csv",
        "\\.csv",
    ),
    *("d/a.csv", "d/e/b.csv", "d/.h/c.csv", "d/e/.c.csv", "é.csv", "line\nend.csv", "~.csv", "|.csv"),
]
PATTERNS = [
    *(
        "*.csv",
        "?.csv",
        "[ab].csv",
        "[!ab].csv",
        "[^a].csv",
        "[a^].csv",
        "[[].csv",
        "[[:a:].csv",
        "[&~|].csv",
    ),
    *(
        "[a&&b].csv",
        "[a--b].csv",
        "[]a].csv",
        "a[]]b.csv",
        "**/*.csv",
        "d/**",
        "d/*/*.csv",
        "**/.h/*",
        "[\\].csv",
    ),
    *("[a-b].csv", "x[&][&]y.csv", "[~~].csv", "[||].csv", "*", "[z-a].csv", "d[!x]a.csv"),
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.filterwarnings("error")
def test_a_glob_means_the_same_in_a_bucket(tmp_path, pattern, monkeypatch):
    """Sets, wildcards and hidden names match as Python's glob matches them, without a warning."""
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    wanted = glob.glob(pattern, root_dir=tmp_path, recursive=True)  # noqa: PTH207  the one to compare with
    wanted = sorted(name for name in wanted if (tmp_path / name).is_file())
    assert found(f"{tmp_path}/{pattern}", tmp_path) == wanted
    monkeypatch.setattr("assay.data.listing.is_object_url", lambda uri: True)
    monkeypatch.setattr("assay.data.listing.split_url", lambda uri: (LocalStore(uri), ""))
    assert found(f"{tmp_path}/{pattern}", tmp_path) == wanted


def found(uri, root):
    """What a glob matches, relative to the root."""
    folder = static_root(uri)
    return sorted(f"{folder}/{info.path}".removeprefix(f"{root}/") for info in glob_files(uri)[2])
