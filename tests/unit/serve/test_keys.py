"""API keys: where they come from, what they are compared with, how much each may send."""

import hashlib

import pytest

from assay.errors import UsageError
from assay.serve.keys import RateLimit, read_keys

HASH = hashlib.sha256(b"s3cret").hexdigest()


def test_lines_of_a_file(tmp_path):
    """`name:key` lines, with comments and empty lines; a key may be a hash."""
    file = tmp_path / "keys"
    file.write_text(f"# keys\n\nci:one:two\n web : sha256:{HASH}\n")
    keys = read_keys(str(file), {})
    assert keys.name_of("one:two") == "ci"
    assert keys.name_of("s3cret") == "web"
    assert keys.name_of(HASH) is None
    assert keys.name_of("") is None
    assert keys.name_of("\ud800") is None


def test_toml(tmp_path):
    """The same as TOML."""
    file = tmp_path / "keys.toml"
    file.write_text(f'ci = "one"\nweb = "sha256:{HASH}"\n')
    keys = read_keys(str(file), {})
    assert (keys.name_of("one"), keys.name_of("s3cret")) == ("ci", "web")


def test_environment():
    """Several from the environment; one without a name is called `default`."""
    keys = read_keys(None, {"ASSAY_API_KEYS": f"ci:one, web:sha256:{HASH}, bare"})
    assert [keys.name_of(key) for key in ("one", "s3cret", "bare")] == ["ci", "web", "default"]
    hashed = read_keys(None, {"ASSAY_API_KEYS": f"sha256:{HASH}"})
    assert hashed.name_of("s3cret") == "default"


def test_none_at_all():
    """Without file and environment there are no keys."""
    assert read_keys(None, {}).digests == ()


@pytest.mark.parametrize("value", ["", " ", ",", " , "])
def test_an_empty_variable_is_refused(tmp_path, value):
    """A variable that was meant to hold a key never means that there are no keys."""
    with pytest.raises(UsageError, match="ASSAY_API_KEYS is set and holds no key"):
        read_keys(None, {"ASSAY_API_KEYS": value})


@pytest.mark.parametrize(
    ("name", "content"),
    [("keys", "# c\r\nci:one\r\n\r\nweb:two\r\n"), ("keys.toml", 'ci = "one"\r\nweb = "two"')],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_files_from_windows(tmp_path, name, content, mark):
    """Carriage returns and a byte order mark are not part of names and keys."""
    file = tmp_path / name
    file.write_bytes(f"{mark}{content}".encode())
    keys = read_keys(str(file), {})
    assert [keys.name_of(key) for key in ("one", "two")] == ["ci", "web"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("keys", "just-a-key\n", "no colon"),
        ("keys", "", "holds no key"),
        ("keys", "a b:key\n", "unique and of"),
        ("keys", "a:one\na:two\n", "unique and of"),
        ("keys", "a:sha256:12\n", "64 hex digits"),
        ("keys", "a:with space\n", "spaces"),
        ("keys.toml", "a = 1\n", "more than strings"),
        ("keys.toml", "s3cret\n", "not TOML"),
    ],
)
def test_bad_files(tmp_path, name, content, said):
    """What cannot be used is refused in a line that shows no key."""
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(UsageError, match=said) as caught:
        read_keys(str(file), {})
    assert "s3cret" not in str(caught.value)
    assert "just-a-key" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    """A file that is not there never means that there are no keys."""
    with pytest.raises(UsageError, match="cannot be read"):
        read_keys(str(tmp_path / "none"), {})


def test_rate_limit():
    """A minute's worth at once, then evenly; each name has its own bucket."""
    limit = RateLimit(60)
    assert limit.seconds_to_wait("a", 60, 0.0) == 0
    assert limit.seconds_to_wait("a", 1, 0.0) == pytest.approx(1)
    assert limit.seconds_to_wait("b", 1, 0.0) == 0
    assert limit.seconds_to_wait("a", 1, 0.5) == pytest.approx(0.5)
    assert limit.seconds_to_wait("a", 1, 1.0) == 0
    assert limit.seconds_to_wait("a", 1, 1.0) > 0


def test_a_large_request_is_paid_for_afterwards():
    """A request of more than a minute's worth is served, and its debt waited for."""
    limit = RateLimit(60)
    assert limit.seconds_to_wait("a", 180, 0.0) == 0
    assert limit.seconds_to_wait("a", 1, 60.0) > 0
    assert limit.seconds_to_wait("a", 1, 122.0) == 0
