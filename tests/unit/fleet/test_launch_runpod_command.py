"""`assay launch runpod` and its `stop` as commands, on a fake account: what they say, and what they cost."""

import json
import re

import pytest
from support.fake_runpod import KEY, FakeRunPod
from support.fake_runs import make_run, publish_unit, write_sources
from support.fake_store import FakeStore

from assay.cli.main import main
from assay.fleet.launch.runpod import follow, launcher
from assay.fleet.launch.runpod.api import RunPod
from assay.fleet.launch.runpod.watched import ALL_PUBLISHED, RunOfPods, VisibleRun
from assay.runs.notes import list_failures
from assay.runs.supply import open_supply
from assay.runs.verify import VERIFIED

OPTIONS = ["--image", "assay:1", "--gpu-type", "RTX4090", "--shared", "/model", "--workers", "2"]


@pytest.fixture
def account(monkeypatch):
    """An account that the environment opens, at whose end no pod runs."""
    with FakeRunPod() as fake:
        for name, value in fake.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(follow, "LOOK_SECONDS", 0.05)
        monkeypatch.setattr(follow, "DELETING_LOOK_SECONDS", 0.05)
        monkeypatch.setattr(
            launcher, "RunPod", lambda *words, **more: RunPod(*words, **more, sleep=lambda _: None)
        )
        yield fake
        assert fake.running() == []


@pytest.fixture
def launch(account, capsys, kept_sigterm):
    """The command with --submit, as it ends: status, stdout, lines of stderr."""

    def call(run, *options, budget=("--budget", "50"), source="s3://bucket/corpus"):
        capsys.readouterr()
        words = ["launch", "runpod", *OPTIONS, *budget, *map(str, options), "--submit", "--"]
        status = main([*words, "score", source, "--bundle", "/model", "--run", str(run)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err.splitlines()

    return call


ENV = ("--env", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def published(url, folder, *, units=None):
    """A run of which so many units are published, or all."""
    run = make_run(url, write_sources(folder, [60]))
    for unit in run.manifest.units()[:units]:
        publish_unit(run, unit)
    return run


def test_a_run_in_a_bucket_is_watched_to_its_proof(account, launch, fake_store, tmp_path, monkeypatch):
    """Pods have the bucket's credentials and their place; once the run is whole and proved they are gone."""
    run = published("s3://bucket/run", tmp_path / "corpus", units=1)
    left = run.manifest.units()[1:]

    class Working(VisibleRun):
        """A run that gets a part with each look at which pods work."""

        def look(self, pods):
            if len(pods) == 2 and left:
                publish_unit(run, left.pop())
            return super().look(pods)

    monkeypatch.setattr(launcher, "VisibleRun", Working)
    status, out, lines = launch("s3://bucket/run", *ENV)
    assert status == 0, lines
    assert out.startswith("s3://bucket/run is verified; 2 pods, ")
    assert out.endswith(" $; none is left\n")
    assert not any(line.startswith("stop ") for line in lines)
    made = account.made.values()
    assert {pod["body"]["env"]["AWS_ACCESS_KEY_ID"] for pod in made} == {"testing"}
    assert [pod["body"]["env"]["POD_ID"] for pod in made] == ["0", "1"]
    assert not any(KEY in json.dumps(pod["body"]) for pod in made)
    objects = fake_store.buckets["bucket"].objects
    assert not any(KEY.encode() in content for content, *_ in objects.values())
    (ledger,) = (key for key in objects if "launches" in key)
    assert re.fullmatch(r"run/launches/assay-run-[0-9a-f]{6}\.json", ledger)
    assert account.pods(f"{ledger[13:-5]}-0"), "as the pods are called"


def test_a_damaged_part_is_made_again(account, launch, fake_store, tmp_path, monkeypatch):
    """Whole but for a part that is not what was published: it is taken out, pods go on, and the proof holds then."""
    run = published("s3://bucket/run", tmp_path / "corpus")
    first = run.manifest.units()[0]
    content = run.store.read_bytes(f"parts/{first.name}.parquet")
    run.store.replace(f"parts/{first.name}.parquet", content[:200] + b"x" * 50 + content[250:])

    class Working(VisibleRun):
        def look(self, pods):
            if len(pods) == 2:
                publish_unit(run, first)
            return super().look(pods)

    monkeypatch.setattr(launcher, "VisibleRun", Working)
    status, out, lines = launch("s3://bucket/run", *ENV)
    assert (status, out.partition(";")[0]) == (0, "s3://bucket/run is verified")
    assert any("1 damaged part is taken out" in line for line in lines)


def test_what_no_pod_can_fix_ends_it(account, launch, fake_store, tmp_path):
    """Sources that changed since: pods are gone, and one line says why."""
    published("s3://bucket/run", tmp_path / "corpus")
    write_sources(tmp_path / "corpus", [61])
    status, out, lines = launch("s3://bucket/run", *ENV)
    assert (status, out) == (1, "")
    assert "every unit is published, and " in lines[-1]
    assert "none is left" in lines[-1]


def test_a_unit_that_fails_everywhere_ends_it(account, launch, fake_store, tmp_path, monkeypatch):
    """All others are published, nobody is at work: more pods would only cost money. The next command tries it again."""
    run = published("s3://bucket/run", tmp_path / "corpus", units=2)
    last = run.manifest.units()[2]

    class Failing(VisibleRun):
        """A run of which the pods find that its last unit fails."""

        def look(self, pods):
            if len(pods) == 2:
                for number in range(3):
                    run.store.create(f"failures/{last.name}/{number}.json", b'{"message": "ValueError: odd"}')
            return super().look(pods)

    monkeypatch.setattr(launcher, "VisibleRun", Failing)
    for num_pods in (2, 4):
        status, _, lines = launch("s3://bucket/run", *ENV)
        assert status == 1
        assert (
            "1 unit failed 3 times, on whichever pod (a-40-60: ValueError: odd); the others are pub"
            in lines[-1]
        )
        assert f"fix the cause and run the same command again; {num_pods} pods, " in lines[-1]
        assert len(account.made) == num_pods


def test_failures_of_others_at_work_are_not_forgotten(account, launch, fake_store, tmp_path):
    """A watcher that comes while a command is at work leaves its notes alone."""
    run = published("s3://bucket/run", tmp_path / "corpus", units=2)
    _, board = open_supply(run)
    board.fail(2, "odd")
    VisibleRun(run.url, print).look([])
    assert list_failures(run.store) == {"a-40-60": 1}
    board.leave("failed")
    VisibleRun(run.url, print).look([])
    assert list_failures(run.store) == {}


@pytest.mark.parametrize(
    ("run", "options", "said"),
    [
        (
            "s3://bucket/run",
            [],
            "run is s3://bucket/run, and pods have no credentials of their own; name the variables",
        ),
        (
            "s3://bucket/run",
            ["--env", "NOT_SET_HERE"],
            "env names NOT_SET_HERE, which is not set here; export it",
        ),
        (
            "s3://bucket/run",
            ["--env", "RUNPOD_API_KEY"],
            "env names RUNPOD_API_KEY, which opens the whole account",
        ),
        (
            "s3://bucket/run",
            [*ENV, "--gpu-type", "NVIDIA B300"],
            "gpu_type 'NVIDIA B300' is not for rent at RunPod now; it ",
        ),
        (
            "s3://bucket/run",
            [*ENV, "--gpu-type", "4090"],
            "gpu_type is '4090', which runpod is not known to have; did",
        ),
        (
            "s3://bucket/run",
            [*ENV, "--volume", "nope"],
            "volume 'nope': the account has no network volume of that id",
        ),
        ("s3://bucket/run", [*ENV, "--budget", "0.1"], "budget is 0.1 $, which pays 2 pods for "),
        (
            "/model/run",
            [],
            "run is /model/run, which pods do not share; give a URL, or a folder of a network volume",
        ),
    ],
    ids=["keys", "variable", "own-key", "gpu", "near", "volume", "budget", "image"],
)
def test_bad_input_costs_nothing(account, launch, fake_store, run, options, said):
    """One line with the way out, status 2, and not a pod was asked for."""
    status, out, lines = launch(run, *options)
    assert (status, out) == (2, "")
    assert lines[-1].startswith(f"assay: error: {said}"), lines
    assert not account.made


def test_a_gpu_without_a_price_needs_hours(account, launch, fake_store):
    """Where nothing tells what a pod costs, a budget in dollars would never be spent."""
    account.unpriced = {"NVIDIA GeForce RTX 4090"}
    status, _, lines = launch("s3://bucket/run", *ENV)
    assert status == 2
    assert "has no price in the secure cloud now" in lines[-1]
    assert lines[-1].endswith("set --hours too, or another --cloud")
    assert not account.made


def test_keys_that_fail_cost_nothing(account, launch, fake_store, monkeypatch):
    """No key, or a wrong one: a line that does not show it."""
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_WRONG")
    status, _, (line,) = launch("s3://bucket/run", *ENV)
    assert (status, "does not know the key in RUNPOD_API_KEY" in line, "WRONG" in line) == (2, True, False)
    monkeypatch.delenv("RUNPOD_API_KEY")
    status, _, (line,) = launch("s3://bucket/run", *ENV)
    assert (status, "RUNPOD_API_KEY is not set; create a key" in line) == (2, True)
    assert not account.made


def test_a_bucket_that_lets_two_writers_win_is_refused(account, launch, monkeypatch):
    """Before a pod is made: two puts of one name, of which the second must not succeed."""
    with FakeStore(conditional="ignored") as store:
        for name, value in store.s3_environment().items():
            monkeypatch.setenv(name, value)
        status, _, (line,) = launch("s3://bucket/run", *ENV)
        assert status == 2
        assert "this store has no conditional writes" in line
        assert not store.buckets["bucket"].objects, "the probe is gone"
    assert not account.made


def test_a_run_that_only_pods_see_is_proved_by_the_first(account, launch, monkeypatch, tmp_path):
    """On a network volume: rank 0 writes the proof, its log says so, and then all pods go."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("RUNPOD_VOLUME_ID", raising=False)
    account.program = ["sh", "-c", f'sleep 0.1; echo "{ALL_PUBLISHED}"; echo "  {VERIFIED}"; sleep 60']
    status, out, lines = launch("/workspace/run", "--volume", "vol1", source="/workspace/corpus")
    assert status == 0, lines
    assert out.startswith("/workspace/run is verified; 2 pods, ")
    first, second = (pod["body"] for pod in account.made.values())
    assert first["mounts"] == {"network": [{"volumeId": "vol1", "path": "/workspace"}]}
    assert first["dataCenterIds"] == ["EU-RO-1"], "where the volume lies"
    assert "&& assay verify /workspace/run &&" in first["args"]
    assert second["args"].startswith("sh -c 'assay score /workspace/corpus ")
    assert "verify" not in second["args"]
    assert len(list(tmp_path.glob("assay/launches/assay-run-*.json"))) == 1


def test_runs_in_folders_of_one_name_share_no_pods(capsys, kept_sigterm):
    """Pods are known by their names, so a name says which run it is, wherever it is launched from."""
    names = []
    for run in ("s3://a/run", "s3://b/run", "s3://a/run"):
        main(["launch", "runpod", *OPTIONS, "--hours", "1", *ENV, "--", "join", run])
        names.append(json.loads(capsys.readouterr().out)["fleet"])
    assert names[0] == names[2] != names[1]
    assert all(name.startswith("assay-run-") for name in names)


def test_only_the_first_pod_is_needed_for_the_proof(account):
    """Others that ended well are not made again while it runs."""
    account.program = ["sh", "-c", f'echo "{ALL_PUBLISHED}"; sleep 60']
    account.add("a-0")
    api = RunPod(KEY, base_url=account.url)
    while not (look := RunOfPods(api, "a").look(api.list_pods())).num_done:
        assert look.line == "no line of the first pod yet"
    assert (look.num_needed, look.is_verified) == (1, False)
    account.close()


def test_stop_says_what_it_deletes_and_what_stays(account, capsys, kept_sigterm):
    """By the fleet's name alone; with --dry-run nothing goes; a name that no pod has is an error that lists others."""
    for name in ("assay-run-0", "assay-run-1", "notebook"):
        account.add(name)
    assert main(["launch", "runpod", "stop", "assay-run", "--dry-run"]) == 0
    said = "2 pods would be deleted (1.00 $/h); other pods of the account stay: notebook\n"
    assert capsys.readouterr().out == said
    assert len(account.names()) == 3
    assert main(["launch", "runpod", "stop", "assay-run"]) == 0
    assert capsys.readouterr().out.startswith("2 pods deleted ")
    assert account.names() == ["notebook"]
    assert main(["launch", "runpod", "stop", "assay-run"]) == 2
    assert "other pods of the account stay: notebook; give the name of the fleet" in capsys.readouterr().err
    account.close()
