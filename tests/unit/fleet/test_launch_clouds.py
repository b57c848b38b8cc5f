"""Jobs for SkyPilot and Modal: what is written, what is found before money is spent, and what their own clients say."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.pages import ROOT

from assay.cli.main import main
from assay.errors import UsageError
from assay.fleet.launch.cloud_settings import ModalSettings, RunPodSettings, SkyPilotSettings
from assay.fleet.launch.gpus import GPUS, spell_gpu
from assay.fleet.launch.job import Job
from assay.fleet.launch.launchers import LAUNCHERS
from assay.fleet.launch.settings import KubernetesSettings

SCORE = (
    "score",
    "s3://b/corpus/*.parquet",
    "--bundle",
    "/models/q",
    "--run",
    "s3://b/quality",
    "--executor",
    "static",
)
SKY = ROOT / ".venv-skypilot" / "bin" / "python"
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def job(**changes):
    """A job as the tests render it."""
    values = {"gpus": 1, "gpu_type": "L40S", "cpus": 4, "memory_gib": 16, "env": KEYS, "workers": 3}
    return Job(**{"name": "assay-quality", "command": SCORE, "run": "s3://b/quality"} | values | changes)


def text_of(name, settings, **changes):
    """The file that a launcher writes, checked by it."""
    launcher, made = LAUNCHERS[name], job(**changes)
    launcher.refuse(made, settings)
    text = launcher.render(made, settings)
    assert list(launcher.check(text)) == []
    return text


def sky_task(**options):
    """A task as SkyPilot reads it."""
    changes = {key: options.pop(key) for key in list(options) if key in Job.__dataclass_fields__}
    settings = SkyPilotSettings(command=("x",), **{"image": "assay:1", **options})
    return yaml.safe_load(text_of("skypilot", settings, **changes))


def modal_module(**options):
    """The module of an app."""
    changes = {key: options.pop(key) for key in list(options) if key in Job.__dataclass_fields__}
    return text_of("modal", ModalSettings(command=("x",), packages=("assay.whl",), **options), **changes)


# ---------------------------------------------------------------- kinds of GPU


@pytest.mark.parametrize(
    ("cloud", "asked", "spelled"),
    [
        ("runpod", "RTX4090", "NVIDIA GeForce RTX 4090"),
        ("runpod", "rtx 4090", "NVIDIA GeForce RTX 4090"),
        ("runpod", "NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("skypilot", "l40s", "L40S"),
        ("skypilot", "a100-80gb", "A100-80GB"),
        ("modal", "A10G", "A10"),
        ("modal", "A100", "A100-40GB"),
    ],
)
def test_each_cloud_has_its_spelling(cloud, asked, spelled):
    """Case, blanks, dashes and the maker's name do not matter; each cloud gets what it knows."""
    assert spell_gpu(cloud, asked) == spelled


@pytest.mark.parametrize(
    ("cloud", "asked", "near"),
    [
        ("skypilot", "H1000", "H100"),
        ("modal", "H10", "H100"),
        ("runpod", "4090", "RTX4090"),
        ("modal", "RTX4090", ""),
    ],
)
def test_a_gpu_that_is_not_known_is_refused(cloud, asked, near):
    """SkyPilot and Modal would take any name; the line names those near, or all where none is."""
    with pytest.raises(UsageError, match=f"gpu_type is '{asked}'") as caught:
        spell_gpu(cloud, asked)
    assert near in str(caught.value)
    assert "did you mean" in str(caught.value) or "known are RTXPRO6000, T4, A10" in str(caught.value)


def test_no_two_kinds_are_one_name():
    """What users type means one kind."""
    names = [gpu.skypilot for gpu in GPUS]
    assert len(set(names)) == len(names)
    for cloud in ("runpod", "skypilot"):
        for gpu in GPUS:
            if (spelling := getattr(gpu, cloud)) is not None:
                assert spell_gpu(cloud, gpu.skypilot) == spelling


# ---------------------------------------------------------------- skypilot


def test_a_task_is_one_worker_of_many():
    """One node a job, which comes back after a drain; secrets have no value; several clouds are a choice."""
    task = sky_task(
        infra=("runpod", "aws"), spot=True, copies=("s3://b/model:/models/q",), volumes=("fine:/workspace",)
    )
    assert task["num_nodes"] == 1
    resources = task["resources"]
    assert resources["any_of"] == [{"infra": "runpod"}, {"infra": "aws"}]
    assert resources["job_recovery"] == {"max_restarts_on_errors": 0, "recover_on_exit_codes": [75]}
    assert (resources["accelerators"], resources["image_id"]) == ("L40S:1", "docker:assay:1")
    assert task["secrets"] == dict.fromkeys(KEYS)
    assert task["file_mounts"] == {"/models/q": {"source": "s3://b/model", "mode": "COPY"}}
    assert task["volumes"] == {"/workspace": "fine"}


def test_in_a_pool_the_machines_are_those_of_the_pool():
    """SkyPilot would ignore image, volumes and setup there, so they are refused."""
    task = sky_task(pool="gpus", image=None, gpu_type="odd-name")
    assert not {"setup", "file_mounts", "volumes"} & task.keys()
    assert not {"image_id", "disk_size", "use_spot"} & task["resources"].keys()
    command = LAUNCHERS["skypilot"].start(
        SkyPilotSettings(command=("x",), pool="gpus", workers=3), "a b.yaml"
    )
    assert command == "sky jobs launch --yes --detach-run --pool gpus --num-jobs 3 'a b.yaml'"
    with pytest.raises(UsageError, match="pool and image are both set"):
        SkyPilotSettings(command=("x",), pool="gpus", image="assay:1")


@pytest.fixture
def worker(tmp_path):
    """What the script of a task does on a machine whose `assay` ends with a status: status, its calls, its output."""

    def run(task, status, *, rank=0, until=10**12, sleep=0):
        log = tmp_path / "calls"
        log.unlink(missing_ok=True)
        tool = tmp_path / "assay"
        tool.write_text(
            f'#!/bin/sh\necho "$1 $RANK" >>{log}\n[ "$1" = verify ] && exit 4\nsleep {sleep}\nexit {status}\n'
        )
        tool.chmod(0o755)
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "RANK": "9"}
        environment |= {"SKYPILOT_JOB_RANK": str(rank), "SKYPILOT_NUM_JOBS": "3", "ASSAY_UNTIL": str(until)}
        done = subprocess.run(
            ["bash", "-c", task["run"]],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, log.read_text().splitlines() if log.exists() else [], done.stdout

    return run


def test_a_worker_ends_as_the_run_does(worker):
    """Drained: 75, to be started again. All published: the first proves it, and its status is the proof's."""
    for task in (sky_task(), sky_task(hours=8)):
        assert worker(task, 75)[0] == 75
        assert worker(task, 3)[0] == 3
        assert worker(task, 0, rank=1)[:2] == (0, ["score "])
        assert worker(task, 0, rank=0)[:2] == (4, ["score ", "verify "])


def test_a_worker_stops_when_its_hours_are_over(worker):
    """It is told to drain, ends with what SkyPilot does not start again, and says so; later tries begin nothing."""
    task = sky_task(hours=8)
    import time

    status, calls, said = worker(task, 0, until=int(time.time()) + 2, sleep=30)
    assert (status, calls) == (1, ["score "])
    assert "the 8 hours are over" in said
    assert worker(task, 0, until=1)[:2] == (1, [])
    command = LAUNCHERS["skypilot"].start(SkyPilotSettings(command=("x",), image="i", hours=8), "f")
    assert '--env ASSAY_UNTIL="$(($(date +%s) + 28800))" f' in command


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("num_nodes: 1", "num_nodes: 4"), "num_nodes is above 1"),
        (("    - 75\n", "    - 1\n"), "a worker that drains would not come back"),
        (("L40S:1", "H1000:1"), "accelerator 'H1000' is not known"),
        (("AWS_ACCESS_KEY_ID: null", "AWS_ACCESS_KEY_ID: AKIA"), "a secret has its value in the file"),
    ],
    ids=["nodes", "drain", "gpu", "secret"],
)
def test_a_task_that_skypilot_takes_and_a_fleet_would_suffer_from(change, said):
    """Our own check finds what its validation does not."""
    settings = SkyPilotSettings(command=("x",), image="assay:1", infra=("aws",))
    text = LAUNCHERS["skypilot"].render(job(), settings)
    assert change[0] in text
    (problem,) = LAUNCHERS["skypilot"].check(text.replace(*change))
    assert problem.startswith(said)


@pytest.mark.parametrize(
    ("said", "stop"),
    [
        ("Jobs submitted with IDs: 3-5, 9.\nUseful", "sky jobs cancel 3 4 5 9"),
        ("Managed job ID: 7", "sky jobs cancel 7"),
        ("odd", "sky jobs cancel JOBS"),
    ],
)
def test_jobs_are_cancelled_by_number(tmp_path, monkeypatch, capsys, said, stop):
    """SkyPilot refuses a name that several jobs have, so the numbers that it says are kept."""
    tool = tmp_path / "sky"
    tool.write_text(f'#!/bin/sh\necho "$*" >{tmp_path}/asked\nprintf "%b" {shlex.quote(said)}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    words = [
        "launch",
        "skypilot",
        "--workers",
        "3",
        "--image",
        "i",
        "--hours",
        "2",
        "--submit",
        "--shared",
        "/models",
    ]
    assert main([*words, "--", *SCORE[:-2]]) == 0
    assert f"stop    {stop}" in capsys.readouterr().err.splitlines()
    assert "--num-jobs 3 --env ASSAY_UNTIL=1" in (tmp_path / "asked").read_text()


@pytest.mark.slow
def test_skypilot_itself_takes_the_task(tmp_path):
    """Its own library reads what is written here, and refuses a field that it does not have."""
    if not SKY.exists():
        pytest.skip("SkyPilot needs an environment of its own; make .venv-skypilot builds it")
    tasks = [
        sky_task(infra=("runpod",), gpu_type="RTX4090", hours=8, volumes=("fine:/workspace",)),
        sky_task(infra=("runpod", "aws"), spot=True, copies=("s3://b/model:/models/q",)),
        sky_task(pool="gpus", image=None),
        sky_task(image=None, setup=("pip install assay-corpus",), gpus=0, gpu_type=None),
    ]
    for task in tasks:
        task.update({name: dict.fromkeys(task[name], "1") for name in ("envs", "secrets") if name in task})
        task.pop("file_mounts", None)  # it would ask the bucket
    script = """\
import json, sys
import sky
for config in json.load(sys.stdin):
    try:
        task = sky.Task.from_yaml_config(config)
        [resources, *_] = task.resources
        print(task.num_nodes, resources.job_recovery and resources.job_recovery["recover_on_exit_codes"])
    except Exception as error:
        print(type(error).__name__)
"""
    done = subprocess.run(
        [SKY, "-c", script],
        input=json.dumps([*tasks, {**tasks[0], "nmu_nodes": 2}]),
        env={**os.environ, "HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.stdout.splitlines() == [*["1 [75]"] * 4, "InvalidSkyPilotConfigError"], done.stderr[-2000:]


# ---------------------------------------------------------------- modal


@pytest.mark.parametrize(
    ("run", "options", "said"),
    [
        ("/data/run", {}, "run /data/run is on the volume assay-data, where the second of two writers wins"),
        ("/image/run", {}, "run is /image/run, which containers do not share; give the URL of a bucket"),
        ("s3://b/run", {"env": ()}, "containers have no credentials of their own"),
        ("s3://b/run", {"gpu_type": "H1000"}, "gpu_type is 'H1000', which modal is not known to have"),
        ("s3://b/run", {"gpu_type": None}, "gpu_type is missing, and Modal needs one"),
    ],
    ids=["volume", "image", "keys", "gpu", "no-gpu"],
)
def test_what_an_app_cannot_do_is_refused(run, options, said):
    """A run on a volume above all: it would lose parts, and Modal would say nothing."""
    with pytest.raises(UsageError) as caught:
        modal_module(run=run, **options)
    assert said in str(caught.value)


@pytest.mark.parametrize(("gpus", "kind", "most"), [(9, "H100", 8), (5, "A10", 4)])
def test_more_gpus_than_a_container_has(gpus, kind, most):
    """Modal's client takes any number when an app is defined."""
    text = LAUNCHERS["modal"].render(job(gpus=gpus, gpu_type=kind), ModalSettings(command=("x",), image="i"))
    (problem,) = LAUNCHERS["modal"].check(text)
    assert problem.endswith(f"set --gpus {most} or less")


def in_modal(tmp_path, script, seconds=120, **environment):
    """Run Python with Modal's client on the app in `app.py`, away from any account."""
    pytest.importorskip("modal")
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "PYTHONWARNINGS": "ignore", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )


FUNCTIONS = ("start", "work", "prove", "whole", "prepare", "train", "score", "infer", "two_stage")


def test_modal_lists_what_the_app_has(tmp_path):
    """Its client loads the module without an account, and finds every function; a list of GPUs is one."""
    (tmp_path / "app.py").write_text(modal_module(gpus=2, gpu_type="L40S,H100", bundle="/models/q"))
    assert "GPU = ['L40S:2', 'H100:2']" in (tmp_path / "app.py").read_text()
    script = (
        "import sys; sys.argv = ['modal', 'run', 'app.py::nothing']; from modal.__main__ import main; main()"
    )
    done = in_modal(tmp_path, script)
    listed = {
        line.removeprefix("- ").split(" / ")[0] for line in done.stderr.splitlines() if line.startswith("- ")
    }
    assert listed == set(FUNCTIONS), done.stderr


def test_the_functions_call_assay(tmp_path):
    """Run here, by `.local()`: each gives `assay` its words and its place, and heeds how it ends."""
    (tmp_path / "app.py").write_text(modal_module(gpus=0, gpu_type=None, workers=4, bundle="/models/q"))
    tool = tmp_path / "assay"
    tool.write_text(
        "#!/bin/sh\n"
        f'echo "$POD_ID/$NUM_WORKERS $*" >>{tmp_path}/calls\n'
        '[ "$1" = prepare ] && mkdir "$5" && echo made >"$5/file"\n'
        '[ "$2" = bad.toml ] && exit 2\n'
        '[ "$1" = train ] && exit 1\n'
        '[ "$POD_ID" = 2 ] && exit 3\n'
        '[ "$POD_ID" = 3 ] && exec sleep 60\n'
        "exit 0\n"
    )
    tool.chmod(0o755)
    script = f"""\
import time
import app
print(app.work.local(1))
print(app.work.local(2))
print(app.train.local(["bad.toml"]))
print(app.work.local(3, until=time.time() + 0.5))
print(app.prove.local("s3://b/merged"))
print(app.prepare.local(["books", "/data/books"], {str(tmp_path / "out")!r}))
app.score.local(["corpus", "--bundle", "/models/q", "--run", "s3://b/x"])
for call in (lambda: app.train.local(["t.toml"]), lambda: app.score.local(["c", "--run", "/data/run"])):
    try:
        call()
    except Exception as error:
        print(type(error).__name__, error)
"""
    done = in_modal(tmp_path, script, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.stdout.splitlines() == [
        "worker 1: every unit is published",
        "worker 2 ended with 3, and another try would too; its log says why",
        "assay train bad.toml ended with 2, and another try would too; its log says why",
        "worker 3: the hours are over",
        "s3://b/quality is verified and merged into s3://b/merged",
        str(tmp_path / "out"),
        "RuntimeError assay train t.toml ended with 1; its log says why",
        "ValueError run /data/run is on a volume, where the second of two writers wins; give a bucket's URL",
    ], done.stderr
    assert (tmp_path / "out" / "file").read_text() == "made\n"
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == f"1/4 {' '.join(SCORE)}"
    assert calls[4:6] == ["/ verify s3://b/quality", "/ merge s3://b/quality --out s3://b/merged"]


def test_an_app_is_deployed_and_its_workers_started(tmp_path, monkeypatch, capsys):
    """With --submit Modal's client is called twice; what it refuses, as without a token, is one line."""
    tool = tmp_path / "modal"
    tool.write_text(
        f'#!/bin/sh\necho "$*" >>{tmp_path}/asked\ncp "${{2%%::*}}" {tmp_path}/seen\necho "fc-1"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    words = ["launch", "modal", "--env", "AWS_REGION", "--image", "i", "--submit", "--shared", "/models"]
    words += ["--", *SCORE[:-2]]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == "fc-1"
    assert "stop    modal app stop assay-quality" in captured.err.splitlines()
    deploy, start = (tmp_path / "asked").read_text().splitlines()
    assert deploy.startswith("deploy ")
    assert start == f"run {deploy.removeprefix('deploy ')}::start"
    assert 'NAME = "assay-quality"' in (tmp_path / "seen").read_text()
    tool.write_text("#!/bin/sh\necho 'Token missing.' >&2\nexit 1\n")
    assert main(words) == 1
    assert capsys.readouterr().err == "assay: error: modal failed with status 1: Token missing.\n"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_functions_score_and_infer_for_real(tmp_path):
    """By `.local()`, with the real `assay`: two workers make one run, it is proved, and a bundle answers texts."""
    from support.fake_runs import write_sources
    from support.models import write_model

    bundle, corpus, run = (
        write_model(tmp_path / "model"),
        write_sources(tmp_path / "c", [300]),
        tmp_path / "run",
    )
    text = LAUNCHERS["modal"].render(
        job(
            command=(
                "score",
                str(corpus),
                "--bundle",
                str(bundle),
                "--run",
                str(run),
                "--executor",
                "static",
            ),
            run=str(run),
            gpus=0,
            gpu_type=None,
            workers=2,
        ),
        ModalSettings(command=("x",), image="i", bundle=str(bundle)),
    )
    (tmp_path / "app.py").write_text(text)
    script = """\
from concurrent.futures import ThreadPoolExecutor
import app
with ThreadPoolExecutor(2) as pool:
    print(*pool.map(app.work.local, range(2)))
print(app.prove.local())
print([row["prediction"] for row in app.infer.local(["alpha beta", "gamma"])])
"""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = in_modal(tmp_path, script, seconds=600, PATH=path)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("worker", str(run), "["))]
    assert lines[0] == "worker 0: every unit is published worker 1: every unit is published", done.stderr
    assert lines[1] == f"{run} is verified"
    assert set(json.loads(lines[2].replace("'", '"'))) <= {"ham", "spam"}


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("settings", "values", "said"),
    [
        (
            RunPodSettings,
            {"image": "i", "hours": 1},
            "gpu_type is missing, and RunPod rents out machines by it",
        ),
        (RunPodSettings, {"image": "i", "hours": 1, "gpu_type": ","}, "gpu_type is missing"),
        (
            RunPodSettings,
            {"image": "i", "gpu_type": "L4", "hours": 1, "min_cuda": "12"},
            "min_cuda is '12'; it must be a version such as 12.8",
        ),
        (RunPodSettings, {"image": "i", "gpu_type": "L4"}, "there is no budget, and pods cost money"),
        (RunPodSettings, {"image": "i", "gpu_type": "L4", "budget": 0}, "budget is 0.*it must be above 0"),
        (RunPodSettings, {"image": "i", "gpu_type": "L4", "hours": 0}, "hours is 0.*it must be above 0"),
        (
            RunPodSettings,
            {"image": "i", "gpu_type": "L4", "hours": 1, "gpus": 0},
            "gpus is 0; it must be at least 1",
        ),
        (
            RunPodSettings,
            {"image": "i", "gpu_type": "L4", "hours": 1, "volume": "v", "mount": "data"},
            "mount is 'data'; it must be an absolute path",
        ),
        (
            RunPodSettings,
            {"image": "i", "gpu_type": "L4", "hours": 1, "mount": "/data"},
            "mount is '/data' and there is no volume to mount there; add --volume ID",
        ),
        (
            KubernetesSettings,
            {"image": "i", "secret": "s"},
            "secret is 's', of which pods get the variables of --env, and there are none",
        ),
        (SkyPilotSettings, {}, "nothing says where machines get assay from"),
        (SkyPilotSettings, {"image": "i", "hours": 0}, "hours is 0.*it must be above 0"),
        (
            SkyPilotSettings,
            {"image": "i", "hours": 1, "most_failures": 2},
            "hours and most_failures are both set",
        ),
        (
            SkyPilotSettings,
            {"image": "i", "copies": ("s3://b/m",)},
            "copies has 's3://b/m'; write SOURCE:/folder",
        ),
        (ModalSettings, {"hours": 24}, "hours is 24.*at most 23"),
        (ModalSettings, {"image": "i", "volumes": ("data",)}, "volumes has 'data'; write NAME:/folder"),
        (ModalSettings, {}, "where functions get assay from; set --image or --packages"),
        (
            ModalSettings,
            {"image": "i", "python": "3.13"},
            "packages and python are for functions without one",
        ),
    ],
)
def test_settings_that_cannot_work(settings, values, said):
    """A line each, before anything is written."""
    with pytest.raises(UsageError, match=said):
        settings(command=("x",), **values)
