"""A fleet of pods on a fake account over HTTP, whose pods are processes: nothing is made twice, nothing is left."""

import json
import random
import time

import pytest
from support.fake_runpod import KEY, FakeRunPod

from assay.data.storage import open_store
from assay.errors import AssayError, InputError, StorageError, UsageError, WorkError
from assay.fleet.launch.runpod.api import KeyRefusedError, NoAnswerError, RunPod
from assay.fleet.launch.runpod.follow import Budget, Fleet, Follower, Look, delete_fleet
from assay.fleet.launch.runpod.ledger import Ledger
from assay.fleet.launch.runpod.pods import Pod, Shape, find_difference, rank_of

GPU = "NVIDIA GeForce RTX 4090"


class Clock:
    """Time that runs ahead when someone waits."""

    def __init__(self):
        self.ahead = 0.0
        self.at_sleep = []

    def now(self):
        return time.time() + self.ahead

    def sleep(self, seconds):
        self.ahead += seconds
        time.sleep(0.02)
        if self.at_sleep:
            self.at_sleep.pop(0)()


class Watched:
    """A run that goes on by a unit a look and is whole after so many."""

    def __init__(self, looks):
        self.looks = looks
        self.num = 0

    def look(self, pods):
        self.num += any(pod.is_alive for pod in pods)
        return Look(line=f"{self.num} units", num_done=self.num, is_verified=self.num > self.looks)


class Endless:
    """A run that does not get on."""

    def look(self, pods):
        return Look(line="no part yet")


@pytest.fixture
def account():
    """An account, and at its end no pod that runs."""
    with FakeRunPod() as fake:
        yield fake
        assert fake.running() == [] or fake.stuck, "a pod was left"


@pytest.fixture
def clock():
    """Time that passes when someone waits."""
    return Clock()


def api_of(account, clock, key=KEY):
    """The API of an account."""
    return RunPod(key, base_url=account.url, sleep=clock.sleep, chance=random.Random(1))


def shape(**changes):
    """A shape as the tests make it."""
    return Shape(**{"image": "assay:1", "args": "assay join s3://b/run", "env": {}, **changes})


@pytest.fixture
def follow(account, clock, tmp_path):
    """Watch a fleet of three from beginning to end; what was said is in `said`."""
    said = []

    def run(watched, *, num_pods=3, budget=None, gpus=(GPU,), name="scores", key=KEY):
        follower = Follower(
            api_of(account, clock, key),
            Fleet(name=name, num_pods=num_pods, shape=shape(), gpus=gpus, dollars_per_hour=0.5 * num_pods),
            watched,
            budget=budget or Budget(hours=10),
            ledger=Ledger(open_store(tmp_path), name),
            say=said.append,
            clock=clock.now,
            sleep=clock.sleep,
            chance=random.Random(2),
        )
        return follower.follow()

    run.said = said
    return run


# ------------------------------------------------------------ what is decided


def pod(name, *, id="x", status="RUNNING", at=0.0):
    """A pod of a listing."""
    return Pod(id=id, name=name, status=status, dollars_per_hour=0.5, created_at=at)


@pytest.mark.parametrize(
    ("name", "rank"),
    [("scores-0", 0), ("scores-12", 12), ("scores-01", None), ("scores", None), ("scores-1-0", None)],
)
def test_a_rank_is_read_from_a_name(name, rank):
    """The pods of `scores-1` are not those of `scores`, and a name that we would not write is not ours."""
    assert rank_of(name, "scores") == rank


def test_the_difference_keeps_the_older_of_two():
    """Of two pods of a rank the older stays; a dead one is made again; what is gone or another's is let be."""
    pods = [
        pod("a-0", id="young", at=5),
        pod("a-0", id="old", at=1),
        pod("a-1", id="dead", status="EXITED"),
        pod("a-2", id="gone", status="TERMINATED"),
        pod("a-3", id="beyond"),
        pod("b-0", id="other"),
        pod("a-2", id="new", status="PAUSED_BY_THE_MOON"),
    ]
    found = find_difference(pods, "a", 3, now=100.0)
    assert {rank: each.id for rank, each in found.alive.items()} == {0: "old", 2: "new"}
    assert [each.id for each in found.dead] == ["dead"]
    assert {each.id for each in found.extra} == {"young", "beyond"}
    assert found.missing == (1,)
    slow = pod("a-0", status="PROVISIONING")
    assert find_difference([slow], "a", 1, now=600).alive, "a large image takes its time"
    assert find_difference([slow], "a", 1, now=3_000).dead == (slow,), "it will never run"


def test_the_ledger_counts_pods_that_are_gone(tmp_path):
    """Money of deleted pods stays counted by whoever watches next; hours in which two ran count once."""
    ledger = Ledger(open_store(tmp_path), "a")
    ledger.saw([pod("a-0", id="1", at=0), pod("a-1", id="2", at=1800)], 3600)
    ledger.saw([pod("a-1", id="2", at=1800)], 3600)
    ledger.save()
    again = Ledger(open_store(tmp_path), "a")
    assert again.dollars(7200) == pytest.approx(0.5 + 0.75)
    assert again.hours(7200) == pytest.approx(2.0)


@pytest.mark.parametrize(
    "content",
    ["{torn", "[]", '{"pods": 3}', '{"pods": {"1": {"name": "a-0", "dollars_per_hour": NaN, "since": 0}}}'],
)
def test_a_ledger_that_cannot_be_read_counts_nothing(tmp_path, content):
    """A file that is damaged, or made up with amounts that no budget would end: what is alive is counted anew."""
    (tmp_path / "launches").mkdir()
    (tmp_path / "launches" / "a.json").write_text(content)
    ledger = Ledger(open_store(tmp_path), "a")
    assert ledger.dollars(7200) == 0
    ledger.saw([pod("a-0", at=3600)], 7200)
    assert ledger.dollars(7200) == pytest.approx(0.5)


# ------------------------------------------------------------ the whole way


def test_pods_work_until_the_run_verifies(account, follow):
    """A pod a rank with its place in the environment, no second one, and none left once the run is proved."""
    account.add("somebody-0")
    ended = follow(Watched(3))
    assert (ended.why, ended.num_pods) == ("verified", 3)
    assert account.names() == ["somebody-0"]
    bodies = [each["body"] for each in account.made.values() if each["name"] != "somebody-0"]
    assert [body["env"] for body in bodies] == [{"POD_ID": str(n), "NUM_WORKERS": "3"} for n in range(3)]
    assert {body["gpu"]["id"] for body in bodies} == {GPU}
    account.close()


@pytest.mark.parametrize("order", ["lost", "late", "torn"])
@pytest.mark.parametrize("lag", [0, 1])
def test_an_answer_that_was_lost_makes_no_second_pod(account, follow, order, lag):
    """The pod of an answer that never came is found by its name, even by a listing that lags."""
    account.orders = [order]
    account.hide(lag)
    assert follow(Watched(6)).num_pods == 3
    assert len(account.made) == 3, "no pod was made twice"
    assert account.names() == []


def test_a_pod_that_shows_up_late_is_deleted(account, follow):
    """A listing that lags for longer than is waited for: two pods of a rank, of which one goes at the next look."""
    account.orders = ["lost"]
    account.hide(6)
    assert follow(Watched(12)).num_pods == 4
    assert any("one too many" in line for line in follow.said)
    assert account.names() == []


def test_a_pod_that_may_yet_show_up_is_waited_for_at_the_end(account, follow):
    """An answer was lost and no listing shows the pod: nobody leaves before it must have shown up, and is deleted."""
    account.orders = ["lost"]
    account.hide(5)
    follow(Watched(0))
    assert account.names() == []


def test_a_run_that_cannot_be_read_does_not_cost_more_than_the_budget(account, follow):
    """The bucket is out of reach for good: the pods go on, as the run may, but not for longer than is paid for."""

    class Unreadable:
        def look(self, pods):
            raise StorageError("s3://bucket: timed out")

    ended = follow(Unreadable(), num_pods=2, budget=Budget(hours=0.1))
    assert (ended.why, ended.num_pods) == ("budget", 2)
    assert "cannot be read from here now (s3://bucket: timed out)" in ended.look.line


def test_a_listing_that_cannot_be_read_is_no_empty_listing(account, clock, monkeypatch):
    """A pod without an id, or no list at all: an error, never a reason to make more pods."""
    account.add("a-0")
    for view in ({"name": "a-0"}, {"id": "1", "cost": "dear"}):
        monkeypatch.setattr(account, "view", lambda _, view=view: view)
        with pytest.raises(NoAnswerError, match="a pod that cannot be read"):
            api_of(account, clock).list_pods()
    account.close()


def test_an_error_before_anything_is_asked_again(account, follow):
    """A 500 after which no pod is there: after a while the pod is asked for again."""
    account.orders = ["error", "busy"]
    assert follow(Watched(6)).num_pods == 3


def test_no_machine_is_waited_for(account, follow, clock):
    """Where no machine is free the fleet asks again, later each time, and works with what it has."""
    account.orders = ["", *["full"] * 6]
    begin = clock.now()
    assert follow(Watched(60)).num_pods == 3
    waits = [line for line in follow.said if "asking again" in line]
    assert len(waits) == 6
    assert clock.now() - begin > 300


def test_another_gpu_is_taken_where_the_first_is_not_free(account, follow):
    """Kinds of GPU are tried in the order given."""
    account.orders = ["full"]
    follow(Watched(1), num_pods=1, gpus=(GPU, "NVIDIA L40S"))
    (made,) = account.made.values()
    assert made["body"]["gpu"]["id"] == "NVIDIA L40S"


def test_a_pod_that_dies_is_made_again(account, follow, clock):
    """Its successor has its name and rank; the two are never there at once, and both are paid for."""
    clock.at_sleep = [lambda: account.kill("scores-1")]
    assert follow(Watched(4)).num_pods == 4
    assert len(account.pods("scores-1")) == 2
    assert not account.overlaps("scores-1")


def test_pods_that_someone_deletes_are_not_made_again(account, follow, clock):
    """`stop` in another shell, or the console: the watcher ends. One that is gone of several is made again."""

    def stop(*ranks):
        for rank in ranks:
            for each in account.pods(f"scores-{rank}"):
                account.delete(each["id"])

    clock.at_sleep = [lambda: stop(1), lambda: None, lambda: stop(0, 1, 2)]
    assert follow(Endless()).why == "stopped"
    assert [len(account.pods(f"scores-{rank}")) for rank in range(3)] == [1, 2, 1]


def test_pods_that_end_at_once_are_not_made_for_ever(account, follow):
    """Where nothing is published and every pod ended three times, all is over, with what to look at."""
    account.program = ["sh", "-c", "echo 'no such bundle'; exit 2"]
    ended = follow(Endless(), num_pods=2)
    assert any(line.endswith("scores-0 wrote: no such bundle") for line in follow.said)
    assert ended.why == "hopeless"
    assert "read a pod's log" in ended.look.hopeless
    assert len(account.made) == 6
    assert account.names() == []


@pytest.mark.parametrize("budget", [Budget(dollars=0.05), Budget(hours=0.1)])
def test_a_budget_is_kept(account, follow, budget):
    """Pods go before the money or the hours are overdrawn; the next try of the same fleet counts them."""
    ended = follow(Endless(), num_pods=2, budget=budget)
    assert ended.why == "budget"
    spent = ended.dollars / budget.dollars if budget.dollars else ended.hours / budget.hours
    assert 0.8 < spent <= 1
    made = len(account.made)
    again = follow(Endless(), num_pods=2, budget=budget)
    assert (again.why, len(account.made)) == ("budget", made), "not a pod more"


def test_what_a_look_takes_is_spent_too(account, follow, clock):
    """A proof reads every part: the budget is looked at after it, not as it was before."""

    class Slow:
        num = 0

        def look(self, pods):
            self.num += 1
            clock.ahead += 600
            return Look(line="no part yet")

    slow = Slow()
    assert follow(slow, num_pods=2, budget=Budget(hours=0.1)).why == "budget"
    assert slow.num == 2


def test_pods_that_are_listed_at_no_cost_still_count(account, follow, monkeypatch):
    """Where the API shows no price of a pod that works, that of the price list is spent."""
    view = account.view
    monkeypatch.setattr(account, "view", lambda pod: {**view(pod), "cost": 0.0})
    assert follow(Endless(), num_pods=2, budget=Budget(dollars=0.05, hours=10)).dollars > 0.04


def test_a_watcher_that_dies_is_replaced(account, follow, clock):
    """Ctrl-C leaves the pods and says so; the same command finds them by name, and makes none."""

    def interrupt():
        raise KeyboardInterrupt

    clock.at_sleep = [lambda: None, interrupt]
    with pytest.raises(KeyboardInterrupt):
        follow(Watched(9))
    assert (
        "3 pods run on and cost money: rerun to watch, or assay launch runpod stop scores" in follow.said[-1]
    )
    assert len(account.running()) == 3
    assert follow(Watched(2)).num_pods == 3
    assert len(account.made) == 3


def test_an_api_that_fails_for_a_while_stops_nothing(account, follow, clock):
    """Errors of every call for longer than calls are tried: the watcher says so and goes on."""

    def fail():
        account.failing = 8

    clock.at_sleep = [fail]
    assert follow(Watched(4)).num_pods == 3
    assert any("the pods go on" in line for line in follow.said)


# ------------------------------------------------------------ what is refused


def test_a_key_that_fails_makes_nothing(account, follow):
    """A wrong key is one line, before a pod is made, and shows no key."""
    with pytest.raises(KeyRefusedError, match="does not know the key in RUNPOD_API_KEY") as caught:
        follow(Watched(1), key="rpa_WRONG")
    assert "rpa_WRONG" not in str(caught.value)
    assert not account.made


def test_a_key_that_is_revoked_says_what_runs_on(account, follow, clock):
    """Where pods can no longer be deleted, the message says how many there are."""

    def revoke():
        account.key = "another"

    clock.at_sleep = [revoke]
    with pytest.raises(KeyRefusedError, match="3 pods run on and cost money"):
        follow(Watched(9))
    account.close()


def test_an_account_without_money_makes_nothing(account, follow):
    """402: one line, and nothing is waited for."""
    account.orders = ["poor"]
    with pytest.raises(InputError, match="has no money left"):
        follow(Watched(1))


def test_a_pod_that_may_yet_show_up_is_told_when_all_ends_at_once(account, follow):
    """The answer to the first request was lost, the second ends the command: the first pod may be there."""
    account.orders = ["lost", "poor"]
    account.hide(9)
    with pytest.raises(InputError, match="has no money left"):
        follow(Watched(1))
    assert "a pod was asked for without an answer, and may run and cost money" in follow.said[-1]
    assert follow.said[-1].endswith("assay launch runpod stop scores")
    account.close()


def test_a_request_that_breaks_a_rule_is_not_taken_for_a_lack_of_machines(account, follow):
    """Both are a 400; what no waiting fixes is said at once."""
    with pytest.raises(InputError, match="gpu type NVIDIA X does not exist"):
        follow(Watched(1), gpus=("NVIDIA X",))


def test_pods_that_cannot_be_deleted_are_named(account, follow):
    """What may cost money is the last line, with ids and price."""
    account.stuck = {"pod0001"}
    with pytest.raises(WorkError, match=r"1 pod could not be deleted and may cost 0.50 \$/h: pod0001"):
        follow(Watched(1))
    account.stuck = set()
    account.delete("pod0001")


@pytest.mark.parametrize("end", [Watched(1), Endless()], ids=["verified", "budget"])
def test_a_pod_whose_deletion_is_refused_keeps_no_other(account, follow, end):
    """The others go at once, whatever RunPod says of the first; what it said is in the message."""
    account.refusing = {"pod0000": 409}
    with pytest.raises(WorkError, match=r"1 pod could not be deleted .* pod0000 \(RunPod refuses .* 409"):
        follow(end, budget=Budget(hours=0.1))
    assert account.names() == ["scores-0"]
    account.refusing = {}
    account.delete("pod0000")


def test_a_pod_whose_deletion_is_not_answered_keeps_no_other(account, follow, clock):
    """The others go all the same; the watcher says so, and stays until the last has gone too."""
    account.refusing = {"pod0000": 503}
    left = []

    def answer_again():
        if any("the pods go on" in line for line in follow.said):
            left.extend(account.names())
            account.refusing = {}
        clock.at_sleep.append(answer_again)

    clock.at_sleep = [answer_again]
    assert follow(Watched(1)).why == "verified"
    assert left == ["scores-0"]


def test_a_pod_whose_deletion_fails_keeps_none_from_being_made(account, follow, clock):
    """A pod that ended and cannot be deleted is told of at each look; that of another rank is made again meanwhile."""

    def die():
        account.refusing["pod0000"] = 409
        account.kill("scores-0")
        account.kill("scores-2")

    clock.at_sleep = [die, *[lambda: None] * 3, account.refusing.clear]
    assert follow(Watched(8)).num_pods == 5
    assert any(
        line.startswith("scores-0 (pod0000) is not deleted yet (RunPod refuses") for line in follow.said
    )


@pytest.mark.parametrize("key", ["", "rpa with space", "rpa\n", "ключ"])
def test_what_cannot_be_a_key_is_refused_unseen(key):
    """Before any request, and the message does not repeat it."""
    with pytest.raises(UsageError, match="RUNPOD_API_KEY") as caught:
        RunPod(key)
    assert not key or key not in str(caught.value)


def test_a_key_is_not_sent_in_the_clear(account):
    """Plain http is for loopback alone, and a redirect is not followed."""
    with pytest.raises(UsageError, match="https alone"):
        RunPod(KEY, base_url="http://api.example.com/v2")
    assert KEY not in repr(RunPod(KEY, base_url=account.url))


# ------------------------------------------------------------ stop


def test_stop_deletes_the_pods_of_one_fleet(account, clock):
    """Pods of a fleet whose name is longer, or another's, stay; a long listing comes in pages."""
    account.page = 2
    for name in ("a-0", "a-1", "a-2", "a-1-0", "b-0"):
        account.add(name)
    assert delete_fleet(api_of(account, clock), "a", sleep=clock.sleep, clock=clock.now) == {}
    assert account.names() == ["a-1-0", "b-0"]
    account.close()


def test_no_answer_is_an_error_of_its_own(account, clock):
    """A server that only fails is asked several times, with pauses at random, then given up in one line."""
    account.failing = 100
    with pytest.raises(NoAnswerError, match="in 6 tries"):
        api_of(account, clock).list_pods()
    assert len(account.asked) == 6


def test_the_ledger_and_the_requests_hold_no_key(account, follow, tmp_path):
    """What is written down has names, prices and times; the key is nowhere."""
    follow(Watched(1))
    text = (tmp_path / "launches" / "scores.json").read_text()
    assert KEY not in text
    assert KEY not in json.dumps([each["body"] for each in account.made.values()])
    assert not any(issubclass(each, AssayError) and KEY in str(each) for each in AssayError.__subclasses__())
