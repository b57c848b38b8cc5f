"""Books are fetched over real sockets from a server that misbehaves; nobody waits, for the clock is passed in."""

import json

import pytest
from support.books import book
from support.faulty_http import CUT, STALL, FaultyServer, endless, reply

from assay.books.index import read_index
from assay.cli.main import main
from assay.errors import SourceError, UsageError, WorkError
from assay.gutenberg.fetch import fetch
from assay.gutenberg.settings import FetchSettings
from assay.gutenberg.shelf import TextShelf


def path(number, suffix=".txt"):
    """Where the server has a book."""
    return f"/{number}/pg{number}{suffix}"


def settings(server, out, **others):
    """A fetch from the server into a folder."""
    given = {"ids": ("7",), "timeout_seconds": 20.0} | others
    if "url" in given:
        del given["ids"]
    return FetchSettings(out=str(out), base=server.url(), contact="me@example.org", **given)


def run(scripts, out, clock, **others):
    """One fetch; what it did, and the server, for what it was asked."""
    with FaultyServer(scripts) as server:
        return fetch(settings(server, out, **others), clock=clock), server


def skipped(out):
    """What was passed over, by key."""
    lines = (out / "skipped.jsonl").read_text(encoding="utf-8").splitlines()
    return {each["key"]: each for each in map(json.loads, lines)}


def test_a_book_is_fetched_cleaned_and_filed(tmp_path, clock):
    """The text lies under author and title, the index knows it, and the server knows who asked."""
    content = book(7, title="PRIDE AND PREJUDICE", author="Jane Austen")
    gathered, server = run({path(7): [reply(body=content)]}, tmp_path, clock, keep_raw=True)
    assert dict(gathered.counts) == {"new": 1}
    (record,) = read_index(tmp_path / "index.jsonl")
    assert record.processed_path == "texts/jane_austen/pride_and_prejudice.txt"
    assert (record.gutenberg_id, record.author, record.languages) == (7, "Jane Austen", ("en",))
    assert (record.url, record.size_bytes) == (server.url(path(7)), len(content))
    text = (tmp_path / record.processed_path).read_text(encoding="utf-8")
    assert text.strip().startswith("It rained on the 0th day")
    assert "Gutenberg" not in text
    assert (tmp_path / record.raw_path).read_bytes() == content
    assert "me@example.org" in server.headers[0]


def test_a_second_run_asks_for_nothing(tmp_path, clock):
    """Neither for what is there, nor for what is known to be missing."""
    scripts = {path(7): [reply(body=book(7))]}
    first, _ = run(scripts, tmp_path, clock, ids=("7,8",))
    assert dict(first.counts) == {"new": 1, "missing": 1}
    before = (tmp_path / "index.jsonl").read_bytes()
    second, server = run(scripts, tmp_path, clock, ids=("7,8",))
    assert dict(second.counts) == {"already": 2}
    assert server.asked == []
    assert (tmp_path / "index.jsonl").read_bytes() == before


def test_missing_books_are_asked_for_again_on_request(tmp_path, clock):
    """`again` takes back what was passed over."""
    run({}, tmp_path, clock)
    assert skipped(tmp_path)["pg7"]["reason"] == "missing"
    gathered, _ = run({path(7): [reply(body=book(7))]}, tmp_path, clock, again=True)
    assert dict(gathered.counts) == {"new": 1}
    assert skipped(tmp_path) == {}


def test_candidates_are_tried_in_order_and_404_once(tmp_path, clock):
    """A 404 is not tried again, and nobody waits for it."""
    _, server = run({path(7, "-8.txt"): [reply(body=book(7))]}, tmp_path, clock)
    assert server.asked == [path(7, end) for end in (".txt", "-0.txt", ".txt.utf-8", "-utf8.txt", "-8.txt")]
    assert clock.waits == []


@pytest.mark.parametrize("kind", ["text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml"])
def test_a_page_is_not_a_book(tmp_path, clock, kind):
    """200 with HTML is not accepted; the next address is asked."""
    scripts = {
        path(7): [reply(body=b"<html>Sorry</html>", kind=kind)],
        path(7, "-0.txt"): [reply(body=book(7))],
    }
    gathered, server = run(scripts, tmp_path, clock)
    assert dict(gathered.counts) == {"new": 1}
    assert server.asked == [path(7), path(7, "-0.txt")]


def test_a_page_that_claims_to_be_text_is_passed_over(tmp_path, clock):
    """The bytes tell."""
    gathered, _ = run({path(7): [reply(body=b"\n<!DOCTYPE html><html>" + b"x" * 500)]}, tmp_path, clock)
    assert dict(gathered.counts) == {"not_text": 1}
    assert read_index(tmp_path / "index.jsonl") == []


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 408])
def test_a_server_in_trouble_is_asked_again(tmp_path, clock, status):
    """After half a second and a second, and a bit."""
    scripts = {path(7): [reply(status), reply(status), reply(body=book(7))]}
    gathered, server = run(scripts, tmp_path, clock)
    assert dict(gathered.counts) == {"new": 1}
    assert server.asked == [path(7)] * 3
    assert [0.5 <= clock.waits[0] <= 0.75, 1.0 <= clock.waits[1] <= 1.25] == [True, True]


def test_retry_after_is_honoured(tmp_path, clock):
    """The wait that the server asked for, not a shorter one."""
    run({path(7): [reply(429, retry_after="120"), reply(body=book(7))]}, tmp_path, clock)
    assert sum(clock.waits) >= 120


def test_a_wait_that_is_too_long_leaves_the_book_for_later(tmp_path, clock):
    """Not waited for, not counted as missing: the same command asks again."""
    scripts = {path(7): [reply(503, retry_after="86400")]}
    gathered, _ = run(scripts, tmp_path, clock)
    assert clock.waits == []
    assert gathered.failed[0][0] == "pg7"
    assert "86,400 seconds" in gathered.failed[0][1]
    assert skipped(tmp_path) == {}
    gathered, _ = run({path(7): [reply(body=book(7))]}, tmp_path, clock)
    assert dict(gathered.counts) == {"new": 1}


@pytest.mark.parametrize(
    "script",
    [
        [*reply(body=book(7)[:900], length=len(book(7))), CUT],
        [*reply(body=book(7, closed=False), length=10**6), CUT],
        [
            b"HTTP/1.1 200 X\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\nabc",
            CUT,
        ],
        [CUT],
        [b"HTTP/1.1 200 X\r\nContent-", CUT],
        [b"not HTTP at all\r\n\r\n", CUT],
    ],
)
def test_a_body_that_is_cut_is_asked_for_again(tmp_path, clock, script):
    """Whatever is cut: body, chunk, head; never filed as a book."""
    gathered, server = run({path(7): [script, reply(body=book(7))]}, tmp_path, clock)
    assert dict(gathered.counts) == {"new": 1}
    assert server.asked == [path(7), path(7)]
    (record,) = read_index(tmp_path / "index.jsonl")
    assert record.size_bytes == len(book(7))


def test_a_length_that_is_too_small_is_seen_in_the_text(tmp_path, clock):
    """HTTP sees no error; the closing line is missing, so the next address is asked."""
    scripts = {path(7): [reply(body=book(7), length=1200)], path(7, "-0.txt"): [reply(body=book(7))]}
    gathered, server = run(scripts, tmp_path, clock)
    assert dict(gathered.counts) == {"new": 1}
    assert server.asked[-1] == path(7, "-0.txt")
    gathered, _ = run({path(9): [reply(body=book(9), length=1200)]}, tmp_path, clock, ids=("9",))
    assert gathered.failed == [("pg9", "cut short: its closing line is missing")]


def test_endless_bodies_are_bounded(tmp_path, clock):
    """Read up to the limit, then left; a stated length above it is not read at all."""
    scripts = {path(7): [endless()], path(8): [reply(body=b"", length=10**12)]}
    gathered, _ = run(scripts, tmp_path, clock, ids=("7,8",), max_book_mib=0.5)
    assert dict(gathered.counts) == {"too_large": 2}
    assert skipped(tmp_path)["pg7"]["detail"] == "more than 524,288 bytes"


def test_a_slow_server_is_left_in_time(tmp_path, clock):
    """The whole file has a time, however little comes now and then."""
    gathered, server = run(
        {path(7): [[*reply(length=500), STALL]]}, tmp_path, clock, timeout_seconds=0.1, tries=2
    )
    assert gathered.failed == [("pg7", "not complete after 0.1 seconds, after 2 tries")] or (
        "after 2 tries" in gathered.failed[0][1]
    )
    assert server.asked.count(path(7)) == 2


def test_redirects_are_followed_on_the_site_alone(tmp_path, clock):
    """One on the same host is followed; one to another site is refused, and that site is never asked."""
    with FaultyServer({"/secret": [reply(body=book(7))]}) as other:
        scripts = {
            path(7): [reply(302, location="/moved/7.txt")],
            "/moved/7.txt": [reply(body=book(7))],
            path(8): [reply(302, location=other.url("/secret"))],
            path(9): [reply(301, location=path(9))],
        }
        gathered, _ = run(scripts, tmp_path, clock, ids=("7,8,9",))
        assert other.asked == []
    assert dict(gathered.counts) == {"new": 1}
    failed = dict(gathered.failed)
    assert "another site" in failed["pg8"]
    assert "more than 5 redirects" in failed["pg9"]


def test_a_refusal_stops_the_command(tmp_path, clock):
    """403: the site does not want us; what came before is kept."""
    scripts = {path(7): [reply(body=book(7))], path(8): [reply(403)]}
    with FaultyServer(scripts) as server, pytest.raises(WorkError, match="wait a day"):
        fetch(settings(server, tmp_path, ids=("7,8,9",), connections=1), clock=clock)
    assert [record.gutenberg_id for record in read_index(tmp_path / "index.jsonl")] == [7]


def test_a_mirror_that_is_down_is_one_line(tmp_path, clock, capsys):
    """Nothing is lost, and the way out is named."""
    with FaultyServer({}) as server:
        base = server.url()
    wanted = FetchSettings(out=str(tmp_path), base=base, contact="me@example.org", ids=("7",))
    with pytest.raises(WorkError, match=r"127.0.0.1:\d+ cannot be reached .* use another mirror"):
        fetch(wanted, clock=clock)
    assert len(clock.waits) == 2


def test_failures_in_a_row_end_the_command(tmp_path, clock):
    """A host that only fails is not asked for thousands of books."""
    scripts = {path(number): [reply(500)] for number in range(1, 41)}
    gathered, server = run(scripts, tmp_path, clock, ids=(), range="1-40", tries=1, connections=1)
    assert len(gathered.failed) == 5
    assert "in a row" in gathered.notes[0]
    assert len({each for each in server.asked if each.endswith(".txt") and "-" not in each}) < 20


def test_connections_to_a_host_are_bounded(tmp_path, clock):
    """Never more at a time than asked for."""
    scripts = {path(number): [reply(body=book(number))] for number in range(1, 31)}
    gathered, server = run(scripts, tmp_path, clock, ids=(), range="1-30", connections=3)
    assert gathered.counts["new"] == 30
    assert server.most_open <= 3


def test_names_do_not_depend_on_who_answers_first(tmp_path, clock):
    """Four books of one name: the lowest number keeps it, however many connections there are."""
    scripts = {
        path(n): [reply(500), reply(body=book(n))] if n % 2 else [reply(body=book(n))] for n in range(1, 5)
    }
    found = []
    for connections in (1, 4):
        out = tmp_path / str(connections)
        run(scripts, out, clock, ids=("4,3,2,1",), connections=connections)
        found.append([record.processed_path for record in read_index(out / "index.jsonl")])
        assert {each.relative_to(out).as_posix() for each in out.glob("texts/*/*")} == set(found[-1])
    ends = ("", "__pg2", "__pg3", "__pg4")
    assert found[0] == found[1] == [f"texts/ann_author/the_rain{end}.txt" for end in ends]


def test_other_languages_are_passed_over_until_they_are_wanted(tmp_path, clock):
    """A book in two languages needs both; another wish later asks again."""
    scripts = {
        path(1): [reply(body=book(1, language="English"))],
        path(2): [reply(body=book(2, language="English, French"))],
        path(3): [reply(body=book(3, language="Polish"))],
    }
    gathered, _ = run(scripts, tmp_path, clock, ids=("1,2,3",), languages=("en",))
    assert dict(gathered.counts) == {"new": 1, "language": 2}
    gathered, server = run(scripts, tmp_path, clock, ids=("1,2,3",), languages=("pl", "en"))
    assert dict(gathered.counts) == {"already": 2, "new": 1}
    assert server.asked == [path(3)]


def test_the_same_text_is_one_book(tmp_path, clock):
    """Identity is the cleaned text: under a second number it is named, and not kept twice."""
    body = book(1)
    scripts = {path(1): [reply(body=body)], path(2): [reply(body=body.replace(b"#1]", b"#2]"))]}
    gathered, _ = run(scripts, tmp_path, clock, ids=("1,2",))
    assert dict(gathered.counts) == {"new": 1, "same_text": 1}
    assert skipped(tmp_path)["pg2"]["detail"] == "the text of pg1"


def test_what_cleaning_would_empty_is_quarantined(tmp_path, clock):
    """The bytes are kept, with the reason."""
    gathered, _ = run({path(7): [reply(body=book(7, body="Gone.\n"))]}, tmp_path, clock)
    assert dict(gathered.counts) == {"quarantined": 1}
    assert (tmp_path / "quarantine" / "pg7.txt").read_bytes() == book(7, body="Gone.\n")
    assert skipped(tmp_path)["pg7"]["detail"]


def test_a_single_address_is_fetched_once(tmp_path, clock):
    """An address that does not tell the number: the book does, and the second run knows."""
    scripts = {"/wonder.txt": [reply(body=book(7))]}
    with FaultyServer(scripts) as server:
        wanted = settings(server, tmp_path, url=server.url("/wonder.txt"))
        assert dict(fetch(wanted, clock=clock).counts) == {"new": 1}
        assert dict(fetch(wanted, clock=clock).counts) == {"already": 1}
        assert server.asked == ["/wonder.txt"]
    assert read_index(tmp_path / "index.jsonl")[0].gutenberg_id == 7
    assert list((tmp_path / "incoming").glob("*")) == []


def test_a_body_that_came_before_a_kill_is_not_asked_for_again(tmp_path, clock):
    """It lies in incoming/ until its book is filed."""
    TextShelf(tmp_path).keep_incoming("pg7", "http://127.0.0.1/7.txt", book(7))
    gathered, server = run({}, tmp_path, clock)
    assert dict(gathered.counts) == {"new": 1}
    assert server.asked == []
    assert list((tmp_path / "incoming").glob("*")) == []


def test_an_index_of_another_version_is_refused_before_anything_is_asked(tmp_path, clock):
    """One line with the way out; the index stays."""
    tmp_path.joinpath("index.jsonl").write_text('{"version": 9}\n', encoding="utf-8")
    with FaultyServer({path(7): [reply(body=book(7))]}) as server:
        with pytest.raises(SourceError, match="version 9"):
            fetch(settings(server, tmp_path), clock=clock)
        assert server.asked == []
    assert tmp_path.joinpath("index.jsonl").read_text(encoding="utf-8") == '{"version": 9}\n'


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ids", "7"], "needs --contact"),
        (["--ids", "7", "--contact", "me"], "contact is 'me'"),
        (["--contact", "a@b.org"], "and not both"),
        (["--contact", "a@b.org", "--range", "1-5000"], "assay gutenberg sync"),
        (["--contact", "a@b.org", "--url", "ftp://x/1"], "http:// or https://"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, capsys, arguments, said):
    """Nothing is made and nobody is asked."""
    assert main(["gutenberg", "fetch", "--out", str(tmp_path / "out"), *arguments]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_is_still_to_do(tmp_path, capsys):
    """Exit status 1 and one line; 0 when the rest came."""
    arguments = ["gutenberg", "fetch", "--out", str(tmp_path), "--ids", "7,8", "--contact", "me@example.org"]
    with FaultyServer({path(7): [reply(body=book(7))], path(8): [reply(500), reply(body=book(8))]}) as server:
        arguments += ["--base", server.url(), "--tries", "1"]
        server.scripts |= {
            path(8, end): [reply(500)] for end in ("-0.txt", ".txt.utf-8", "-utf8.txt", "-8.txt")
        }
        assert main(arguments) == 1
        assert "still to do: 1, pg8 first" in capsys.readouterr().out
        assert main(arguments) == 0
    assert len(read_index(tmp_path / "index.jsonl")) == 2


def test_more_than_a_hundred_of_the_publisher_are_refused_in_python_too(tmp_path):
    """The rule is the settings', not the command line's."""
    with pytest.raises(UsageError, match="from a mirror"):
        FetchSettings(out=str(tmp_path), contact="a@b.org", range="1-101")
