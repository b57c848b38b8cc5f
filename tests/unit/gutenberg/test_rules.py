"""What may be asked of whom is decided without a network."""

import pytest

from assay.errors import UsageError
from assay.gutenberg import rules


def test_candidates_come_utf8_first():
    """Five addresses a book, in the order in which they are tried."""
    names = [
        url.removeprefix("https://m.org/epub/12/") for url in rules.candidates("https://m.org/epub/", 12)
    ]
    assert names == ["pg12.txt", "pg12-0.txt", "pg12.txt.utf-8", "pg12-utf8.txt", "pg12-8.txt"]


@pytest.mark.parametrize(
    "contact", [None, "", "me", "a b@c.de", "x@y", "me@example.org\r\nX: y", "é@example.org"]
)
def test_a_contact_that_nobody_can_write_to_is_refused(contact):
    """The message says what to give."""
    with pytest.raises(UsageError, match="--contact"):
        rules.user_agent(contact)


def test_the_contact_is_in_the_user_agent():
    """An address or a page."""
    assert "me@example.org" in rules.user_agent("me@example.org")
    assert "https://example.org/bot" in rules.user_agent("https://example.org/bot")


@pytest.mark.parametrize(
    "host", ["www.gutenberg.org", "gutenberg.org", "aleph.gutenberg.org", "www.gutenberg.org:443"]
)
def test_many_books_of_the_publisher_are_refused(host):
    """A hundred may be asked for, one more may not, and the line names the mirror."""
    rules.check_amount(100, f"https://{host}/cache/epub")
    with pytest.raises(UsageError, match="assay gutenberg sync"):
        rules.check_amount(101, f"https://{host}/cache/epub")


@pytest.mark.parametrize("host", ["gutenberg.pglaf.org", "notgutenberg.org", "gutenberg.org.example.com"])
def test_mirrors_are_asked_for_any_number(host):
    """Hosts that only look like the publisher's are not the publisher's."""
    rules.check_amount(5000, f"https://{host}/cache/epub")


def test_ids_are_read_once_each_in_order():
    """Lists and ranges together."""
    assert rules.parse_ids(("1342,12", "12"), "10-13") == [10, 11, 12, 13, 1342]


@pytest.mark.parametrize(
    ("ids", "span"), [(("0",), None), (("x",), None), (("-1",), None), ((), "5-1"), ((), "0-3"), ((), "7")]
)
def test_numbers_that_are_not_are_refused(ids, span):
    """The value seen and an example."""
    with pytest.raises(UsageError, match="write --"):
        rules.parse_ids(ids, span)


@pytest.mark.parametrize(
    ("start", "target", "allowed"),
    [
        ("https://a.org/1", "https://a.org/2", True),
        ("http://a.org/1", "https://a.org/1", True),
        ("https://a.org/1", "http://a.org/1", False),
        ("https://a.org/1", "https://b.org/1", False),
        ("https://a.org/1", "https://a.org.evil.com/1", False),
        ("https://a.org/1", "file:///etc/passwd", False),
        ("http://127.0.0.1:80/1", "http://127.0.0.1:81/1", False),
        ("https://gutenberg.org/1", "https://www.gutenberg.org/1", True),
        ("https://www.gutenberg.org/1", "http://www.gutenberg.org/1", False),
    ],
)
def test_redirects_stay_on_the_site(start, target, allowed):
    """Same host, never down to http; the publisher's hosts are one site."""
    assert rules.is_in_scope(start, target) is allowed


def test_pauses_double_and_vary():
    """0.5, 1, 2 seconds, and up to a quarter more."""
    assert [rules.pause_seconds(tries, 0.0) for tries in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert rules.pause_seconds(1, 1.0) == 0.75


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("soon", None),
        ("-3", None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    """A date in the past asks for no wait."""
    assert rules.retry_after_seconds(value, 60.0) == seconds


@pytest.mark.parametrize(
    ("url", "number"),
    [
        ("https://x.org/cache/epub/1342/pg1342.txt", 1342),
        ("https://x.org/1/2/3/4/12345/12345-8.zip", 12345),
        ("https://x.org/files/76/76-0.txt", 76),
        ("https://x.org/etext90/wam10.txt", None),
        ("cache/epub/9/pg9.txt", 9),
    ],
)
def test_an_address_tells_the_number(url, number):
    """From the file's name, or the folder's."""
    assert rules.id_in_url(url) == number
