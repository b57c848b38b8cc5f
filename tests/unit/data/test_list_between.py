"""A listing between two paths, which many commands on one large run take page by page."""

import pytest

from assay.data.storage import open_store


@pytest.fixture(params=["disk", "s3", "google"])
def store(request, tmp_path):
    """A store with five files in one folder, and one beside it."""
    url = str(tmp_path) if request.param == "disk" else request.getfixturevalue(f"{request.param}_url")
    store = open_store(url)
    for path in ("a/1", "a/2", "a/3", "a/30", "a/4", "b/1"):
        store.create(path, b"x")
    return store


@pytest.mark.parametrize(
    ("after", "until", "expected"),
    [
        (None, None, ["a/1", "a/2", "a/3", "a/30", "a/4"]),
        ("a/1", None, ["a/2", "a/3", "a/30", "a/4"]),
        (None, "a/2", ["a/1", "a/2"]),
        ("a/2", "a/30", ["a/3", "a/30"]),
        ("a/25", "a/35", ["a/3", "a/30"]),
        ("a/4", None, []),
    ],
)
def test_a_listing_between_two_paths(store, after, until, expected):
    """Only what comes after the one and not after the other is listed, in order, of that folder alone."""
    assert [info.path for info in store.list("a/", after=after, until=until)] == expected
