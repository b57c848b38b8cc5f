"""What drivers leave for each other: seen from one listing, by the store's clock, and never an error."""

import json
import os
from pathlib import Path

import pytest

from assay.data.storage import LocalStore
from assay.errors import StorageError
from assay.runs.notes import Heartbeat, Notes, beat_seconds, read_heartbeats

NOW = 1_800_000_000.0


def notes_of(store, name, *, now=NOW, replaces=lambda _: False):
    """The notes of a driver whose clock stands still."""
    heartbeat = Heartbeat(
        id=name,
        host="h",
        rank=0,
        world_size=1,
        num_workers=2,
        assay_version="0",
        started_at=now - 10,
        beat_at=now,
    )
    return Notes(store, heartbeat, clock=lambda: now, replaces=replaces)


def rows_of(seen):
    """The claims that were seen."""
    claims = seen.claims
    return list(zip(claims.starts.tolist(), claims.stops.tolist(), claims.made_at.tolist(), strict=True))


@pytest.fixture
def store(tmp_path):
    """The store of a run."""
    return LocalStore(tmp_path)


def age(store, name, seconds):
    """Make all files of a driver so old, by the store's clock."""
    paths = [*Path(store.url, "workers").glob(f"{name}.json"), *Path(store.url, "claims").glob(f"*.{name}")]
    for path in paths:
        os.utime(path, (NOW - seconds, NOW - seconds))


def test_others_are_seen_with_their_claims(store):
    """One listing shows who lives and what they claim; one's own is left out, and what is done is released."""
    mine, other = notes_of(store, "a"), notes_of(store, "b")
    for notes in (mine, other):
        notes.beat()
        notes.claim(3, 5)
    for name in ("a", "b"):
        age(store, name, 0)
    seen = mine.look()
    assert (seen.num_drivers, rows_of(seen)) == (1, [(3, 5, NOW)])
    other.release(3)
    assert rows_of(mine.look()) == [(3, 5, NOW)]
    other.release(4)
    assert rows_of(mine.look()) == []


def test_a_driver_that_left_is_not_waited_for(store):
    """Who ended took its claims along, and its last heartbeat says how."""
    mine, other = notes_of(store, "a"), notes_of(store, "b")
    other.beat()
    other.claim(0, 4)
    other.leave("drained")
    assert mine.look().num_drivers == 0
    assert [beat.state for beat, _ in read_heartbeats(store)] == ["drained"]
    assert not list(Path(store.url, "claims").iterdir())


def test_a_silent_driver_is_gone(store):
    """Three heartbeats without a file of a driver, and its claims count for nothing; a claim is a sign of life too."""
    mine, other = notes_of(store, "a"), notes_of(store, "b")
    mine.beat()
    other.beat()
    age(store, "a", 0)
    age(store, "b", 3 * beat_seconds(2) + 10)
    assert mine.look().num_drivers == 0
    other.claim(0, 1)
    os.utime(Path(store.url, "claims", "0-1.b"), (NOW - 5, NOW - 5))
    assert rows_of(mine.look()) == [(0, 1, NOW - 5)]


@pytest.mark.parametrize("skew", [-86_400, 86_400])
def test_ages_are_told_by_the_clock_of_the_store(store, skew):
    """A driver whose own clock is a day off still knows who is at work, by the time of its own heartbeat."""
    mine, other = notes_of(store, "a", now=NOW + skew), notes_of(store, "b")
    mine.beat()
    other.beat()
    age(store, "a", 0)
    age(store, "b", 30)
    assert mine.look().num_drivers == 1
    later = notes_of(store, "a", now=NOW + skew)
    later.beat()
    age(store, "a", 0)
    age(store, "b", 1000)
    assert later.look().num_drivers == 0


def test_the_first_heartbeat_tells_the_clock_of_the_store(store):
    """Before it a driver whose clock is a day ahead takes all others for gone; the look that follows knows better."""
    mine, other = notes_of(store, "a", now=NOW + 86_400), notes_of(store, "b")
    other.beat()
    age(store, "b", 30)
    assert mine.look().num_drivers == 0
    mine.beat()
    age(store, "a", 0)
    assert mine.look().num_drivers == 1


def test_a_listing_that_fails_makes_nobody_silent(store, monkeypatch):
    """What is known of others stays until heartbeats can be listed again: a claim that is older than that holds."""
    mine, other = notes_of(store, "a"), notes_of(store, "b")
    for notes in (mine, other):
        notes.beat()
    other.claim(0, 4)
    for name in ("a", "b"):
        age(store, name, 0)
    assert len(rows_of(mine.look())) == 1
    os.utime(Path(store.url, "claims", "0-4.b"), (NOW - 500, NOW - 500))
    list_all = store.list

    def list_claims(prefix):
        if prefix == "workers/":
            raise StorageError("slow down")
        return list_all(prefix)

    monkeypatch.setattr(store, "list", list_claims)
    mine._clock = lambda: NOW + 200
    assert len(rows_of(mine.look())) == 1


def test_who_was_started_again_replaces_its_own_ghost(store):
    """Claims of a driver in whose place this one was started are void at once."""
    ghost = notes_of(store, "1-of-4-x")
    ghost.beat()
    ghost.claim(0, 9)
    age(store, "1-of-4-x", 0)
    again = notes_of(store, "1-of-4-y", replaces=lambda name: name.startswith("1-of-4-"))
    assert rows_of(again.look()) == []
    assert len(rows_of(notes_of(store, "2-of-4-y").look())) == 1


def test_failures_are_counted_anywhere(store):
    """Each failure of a unit is a file of its own, whoever notes it; they can be forgotten."""
    first, second = notes_of(store, "a"), notes_of(store, "b")
    assert [first.fail("u-0-20", "one"), second.fail("u-0-20", "two"), first.fail("u-20-40", "three")] == [
        1,
        2,
        1,
    ]
    assert second.failures() == {"u-0-20": 2, "u-20-40": 1}
    assert first.last_message("u-0-20") in {"one", "two"}
    first.forget()
    assert second.failures() == {}


def test_that_all_is_published_is_heard_once_it_is_new(store):
    """Who looks again sees that another saw every part; what was there when one began may be of parts since removed."""
    mine, other = notes_of(store, "a"), notes_of(store, "b")
    assert not mine.look().is_all_published
    other.tell_all_published()
    assert mine.look().is_all_published
    assert not notes_of(store, "c").look().is_all_published
    notes_of(store, "d").forget()
    assert not mine.look().is_all_published


def test_nothing_that_lies_there_is_an_error(store):
    """Files that nobody wrote, damaged ones, and folders in the way cost nothing but what they say."""
    folder = Path(store.url, "workers")
    folder.mkdir()
    (tmp := Path(store.url, "claims")).mkdir()
    for name in ("x.json", "README", "a.b.c.json", "w.left.json"):
        (folder / name).write_bytes(b"\xff{")
    for name in ("1-2.y", "9-3.z", "1-2", "a-b.c", f"0-{'9' * 30}.d"):
        (tmp / name).touch()
    (folder / "v.json").write_text(json.dumps({"id": 3, "units": None}))
    (folder / "a.json").mkdir()
    notes = notes_of(store, "a")
    notes.beat()
    notes.claim(0, 3)
    notes.look()
    notes.release(0)
    notes.leave("finished")
    assert [beat.id for beat, _ in read_heartbeats(store)] == ["a"]
    Path(store.url, "failures").write_text("in the way")
    assert notes.fail("u", "m") == 0
    assert notes.failures() == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", ["a"]),
        ("host", None),
        ("host", "\ud800"),
        ("rank", "1"),
        ("world_size", -1),
        pytest.param("num_workers", 10**400, id="num_workers-huge"),
        ("started_at", "yesterday"),
        ("beat_at", float("nan")),
        ("beat_at", -float("inf")),
        ("state", "asleep"),
        ("rows", float("inf")),
        ("units", [1]),
    ],
)
def test_a_heartbeat_that_is_made_up_is_left_out(store, name, value):
    """A field that is not what a driver writes makes the file worthless, and no error; those of others are read."""
    notes_of(store, "a").beat()
    path = Path(store.url, "workers", "a.json")
    Path(store.url, "workers", "b.json").write_text(json.dumps({**json.loads(path.read_text()), "id": "b"}))
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    assert [beat.id for beat, _ in read_heartbeats(store)] == ["b"]
