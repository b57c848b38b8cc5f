"""`assay launch`: one command for many machines; what cannot work there is one line before anything is submitted."""

import itertools
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import fields

import pytest
from support.commands import VERBS
from support.jobs import job
from support.pages import ROOT, commands, read_blocks

from assay.cli.launching import PLACES
from assay.cli.main import main
from assay.fleet.launch.job import Job
from assay.fleet.launch.launchers import LAUNCHERS
from assay.fleet.launch.settings import KubernetesSettings, SlurmSettings
from assay.fleet.launch.slurm import LEAD_SECONDS
from assay.runs import driver

IMAGE = "registry.example.com/assay:0.1.0"
OPTIONS = {
    "slurm": [],
    "kubernetes": ["--image", IMAGE],
    "skypilot": ["--image", IMAGE],
    "runpod": ["--image", IMAGE, "--gpu-type", "RTX4090", "--budget", "50", "--env", "AWS_REGION"],
    "modal": ["--env", "AWS_REGION", "--image", "assay:1"],
}
TOOLS = {"slurm": "sbatch", "kubernetes": "kubectl", "skypilot": "sky", "modal": "modal"}
SCORE = ["score", "s3://b/corpus/*.parquet", "--bundle", "/model", "--run", "s3://b/quality"]
JOIN = ["join", "s3://b/quality"]
NO_PLACE = {
    *(
        "run",
        "executor",
        "rank",
        "world_size",
        "devices",
        "num_threads",
        "id_column",
        "unit_rows",
        "limit_rows",
    ),
    *("strict", "dry_run", "format", "delimiter", "text_column", "text_pair_column", "max_length", "on_long"),
    *(
        "stride",
        "engine",
        "deterministic",
        "precision",
        "max_batch_tokens",
        "deduplicate",
        "plan_for",
        "dtype",
    ),
    *(
        "unique_ids",
        "parity_documents",
        "parity_tolerance",
        "parity_share",
        "input_ids_column",
        "pooling",
        "normalize",
        "keys",
    ),
    *("anchor_column", "positive_column", "exclude_same", "output_format", "texts", "index", "num_negatives"),
    *("range_min", "range_max", "max_score", "min_score", "absolute_margin", "relative_margin", "percentile"),
    *("sampling_strategy", "seed", "guard_max", "guard_label", "split", "permutes", "views", "noise"),
    *("noise_seeds", "settled", "num_steps", "batch_size", "num_batch", "max_workers", "gpu_memory_limit"),
    *("retry_failed", "scratch", "ray_address"),
}
"""Settings of commands on runs that name nothing a worker opens."""


@pytest.fixture
def launch(capsys, kept_sigterm, monkeypatch, tmp_path):
    """`assay launch` in this process, where no launcher's tool is installed: status, stdout, lines of stderr."""
    monkeypatch.setenv("PATH", str(tmp_path / "no-tools"))

    def call(name, *options, command=SCORE):
        capsys.readouterr()
        words = ["launch", name, *OPTIONS[name], *map(str, options)]
        status = main([*words, "--", *map(str, command)] if command is not None else words)
        captured = capsys.readouterr()
        return status, captured.out, captured.err.splitlines()

    return call


def error_of(result):
    """The one line of an error."""
    status, out, lines = result
    assert (status, out, len(lines)) == (2, "", 1), result
    return lines[0].removeprefix("assay: error: ")


def test_what_is_shared_is_named(launch):
    """The hint for a bundle below the root is the bundle itself: the root of a disk is nowhere shared."""
    assert error_of(launch("slurm")).endswith("--shared /model")
    assert "the whole disk of a machine" in error_of(launch("slurm", "--shared", "/"))


@pytest.mark.parametrize("name", OPTIONS)
def test_a_job_file_is_printed_and_how_to_go_on_is_said(launch, name, tmp_path):
    """The file alone is on stdout, or where --out says; how to submit, follow and stop it is on stderr."""
    status, out, lines = launch(name, "--shared", "/model")
    assert (status, LAUNCHERS[name].check(out)) == (0, [])
    assert "--executor" in out
    assert "assay-quality" in out
    assert {line.split()[0] for line in lines} == {"submit", "follow", "stop"}
    assert "follow  assay status s3://b/quality" in lines
    status, nothing, lines = launch(name, "--shared", "/model", "--out", tmp_path / "job")
    assert (status, nothing) == (0, "")
    assert (tmp_path / "job").read_text() == out
    assert str(tmp_path / "job") in lines[0]


def test_the_job_files_of_the_docs_are_those_that_are_rendered(launch):
    """Each `assay launch` in the page is followed by exactly the file that it prints."""
    blocks = read_blocks(ROOT / "docs" / "how-to" / "many-machines.md")
    shown = {}
    for block, following in itertools.pairwise(blocks):
        if block.text.startswith("assay launch"):
            (line,) = commands(block)
            words = shlex.split(line)[2:]
            at = words.index("--")
            options = [word for word in words[1:at] if word not in OPTIONS[words[0]]]
            shown[words[0]] = following.text
            assert (
                launch(words[0], *OPTIONS[words[0]], *options, command=words[at + 1 :])[1] == following.text
            )
    assert set(shown) == {"slurm", "kubernetes"}


@pytest.mark.parametrize(("name", "tool"), TOOLS.items())
def test_without_its_tool_a_launcher_submits_nothing(launch, name, tool):
    """One line says which tool is missing, and what to do instead."""
    said = error_of(launch(name, "--shared", "/model", "--submit"))
    assert said.startswith(f"--submit needs {tool}, which is not on the PATH here; run this ")
    assert said.endswith("or leave --submit out and submit the file there")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (None, "assay launch slurm needs a COMMAND after --; see assay launch slurm --help"),
        (["scroe", *SCORE[1:]], "unknown command scroe; did you mean score?"),
        (
            ["verify", "s3://b/run"],
            "assay verify is not a command that machines share; there is tokenize, score, ",
        ),
        (["gutenberg"], "assay gutenberg is not a command that machines share; there is "),
        (
            ["prepare", "books", "/b", "--out", "/o"],
            "assay prepare books works on one machine; its steps on runs",
        ),
        (SCORE[:2], "assay score needs --bundle"),
        ([*SCORE, "--bundel", "x"], "unknown flag --bundel; did you mean --bundle?"),
        ([*SCORE, "--rank", "0"], "--rank is not for a command that is launched; each worker finds its own"),
        ([*SCORE, "--dry-run"], "--dry-run is not for a command that is launched; "),
        (
            ["join", "s3://b/run", "--executor", "ray"],
            "executor is 'ray', and workers that are launched share a run",
        ),
        ([*SCORE, "--ray-address", "a:1"], "ray_address is 'a:1', and workers that are launched use no Ray"),
        ([*SCORE, "--executor", "local"], "executor is 'local', and workers that are launched share a run; "),
    ],
    ids=[
        "none",
        "unknown",
        "reads",
        "group",
        "books",
        "lacks",
        "flag",
        "rank",
        "dry",
        "ray",
        "ray address",
        "local",
    ],
)
def test_the_command_is_parsed_as_its_workers_will(launch, command, said):
    """A command that would fail on every machine fails here, in the words that it has."""
    assert error_of(launch("slurm", "--shared", "/model", command=command)).startswith(said)


@pytest.mark.parametrize(
    ("options", "command", "said"),
    [
        (
            ["--workers", "0"],
            SCORE,
            "workers is 0; it must be at least 1 and at most 100,000; set for example 1",
        ),
        (["--name", "My_Job"], SCORE, "name is 'My_Job'; it must be a DNS label, "),
        (["--name", "a" * 62], SCORE, f"name is '{'a' * 62}'; it must be a DNS label, "),
        (
            ["--env", "KEY=s3cret"],
            SCORE,
            "env has 'KEY' with more than a name; give names alone, values are never ",
        ),
        (
            ["--env", "RANK"],
            SCORE,
            "env has RANK, which tells a worker its place among the others; leave it out",
        ),
        (["--gpu-type", "a100"], SCORE, "gpu_type is 'a100', and a worker has no GPU; add --gpus 1 or more"),
        (
            [],
            [*SCORE[:-1], "s3://key:s3cret@b/run"],
            "s3://b: the URL holds credentials or a port, and would be ",
        ),
        (
            [],
            [*SCORE[:-1], "ftp://b/run"],
            "ftp://b/run: no store for ftp://; use a local path or one of s3://, ",
        ),
        ([], [*SCORE[:-1], "run"], "run is 'run', and workers start in folders of their own; write /"),
        (
            [],
            [*SCORE[:-1], "/data/run"],
            "run /data/run is a path of this machine, which others may not see; give a",
        ),
        (
            [],
            ["score", "/corpus", *SCORE[2:]],
            "sources /corpus is a path of this machine, which others may not see; ",
        ),
        (
            [],
            ["join", "/data/run"],
            "run /data/run is a path of this machine, which others may not see; give a URL",
        ),
        (
            [],
            [*SCORE, "--config={config}"],
            "config {config} is a path of this machine, which others may not see; ",
        ),
        (["--shared", "model"], SCORE, "shared has 'model', which is relative; write /"),
        (
            [],
            [*SCORE[:3], "/models/m", *SCORE[4:]],
            "bundle /models/m is a path of this machine, which others may ",
        ),
        (
            ["--shared", "/model/b"],
            SCORE,
            "bundle /model is a path of this machine, which others may not see; name ",
        ),
    ],
)
def test_what_cannot_work_on_many_machines(launch, options, command, said, tmp_path):
    """A wrong number or name, a secret, a path that others cannot see: a line each, and no secret in it."""
    config = tmp_path / "score.toml"
    config.write_text("strict = true\n")
    command = [word.replace("{config}", str(config)) for word in command]
    shared = [] if "--shared" in options else ["--shared", "/model"]
    error = error_of(launch("slurm", *options, *shared, command=command))
    assert error.startswith(said.replace("{config}", str(config)))
    assert "s3cret" not in error


def test_every_checkpoint_of_an_ensemble_is_looked_at(launch):
    """A list with commas is a list of places."""
    command = ["ensemble", "s3://b/puzzles", "--checkpoints", "/shared/a,/other/b", "--run", "s3://b/run"]
    said = error_of(launch("slurm", "--shared", "/shared", command=command))
    assert said.startswith("checkpoints /other/b is a path of this machine, which others may not see; ")


def test_what_cannot_be_written_is_one_line(launch, tmp_path):
    """A file in a folder that is missing, and a folder for logs where a file is."""
    said = error_of(launch("slurm", "--shared", "/model", "--out", tmp_path / "no" / "job"))
    assert said.endswith(
        "cannot be written (No such file or directory); name a file in a folder that is there"
    )
    (tmp_path / "no-tools").mkdir()
    tool(tmp_path / "no-tools" / "sbatch", f": > {tmp_path}/submitted")
    out = tmp_path / "no" / "job"
    assert "cannot be written" in error_of(launch("slurm", "--submit", "--out", out, command=JOIN))
    assert not (tmp_path / "submitted").exists()
    (tmp_path / "file").touch()
    said = error_of(launch("slurm", "--logs", tmp_path / "file", "--submit", command=JOIN))
    assert said.endswith("cannot be made (File exists); name another folder")


def test_what_is_not_there_is_not_submitted(launch, tmp_path):
    """On a cluster's own disk a mistyped bundle is found before the job waits; a run is made, a glob is expanded."""
    (tmp_path / "model").mkdir()
    (tmp_path / "no-tools").mkdir()
    tool(tmp_path / "no-tools" / "sbatch", "echo 7")
    command = ["score", f"{tmp_path}/*.parquet", "--run", tmp_path / "run", "--bundle"]
    options = ["--shared", tmp_path, "--logs", tmp_path]
    assert launch("slurm", *options, "--submit", command=[*command, tmp_path / "model"])[0] == 0
    said = error_of(launch("slurm", *options, "--submit", command=[*command, tmp_path / "modle"]))
    assert (
        said == f"bundle {tmp_path}/modle is not there, and every worker would find that out; check the path"
    )
    assert launch("slurm", *options, command=[*command, tmp_path / "modle"])[0] == 0


def test_a_shared_disk_is_a_place_for_all(launch):
    """Below a shared folder runs, sources and bundles may be local; a mounted volume of a pod is one."""
    command = ["score", "/shared/corpus", "--bundle", "/shared/model", "--run", "/shared/Run 7"]
    status, out, _ = launch("slurm", "--shared", "/shared", command=command)
    assert status == 0
    assert "#SBATCH --job-name=assay-run-7\n" in out
    assert "--run '/shared/Run 7'" in out
    assert launch("kubernetes", "--volumes", "data:/shared", command=command)[0] == 0
    said = error_of(launch("kubernetes", "--volumes", "data", command=command))
    assert said == "volumes has 'data'; write CLAIM:/folder, such as assay-data:/shared"


def test_the_command_stands_behind_the_dashes(launch):
    """Without `--`, or with a word before it, one line shows how it is written; --debug behind is not ours."""
    said = error_of(launch("slurm", *SCORE, command=None))
    usage = "write assay launch slurm [options] -- COMMAND..."
    assert said == f"'score' stands before --; {usage}"
    assert error_of(launch("slurm", "score", command=SCORE)).endswith(usage)
    assert (
        "--debug --executor static &" in launch("slurm", "--shared", "/model", command=[*SCORE, "--debug"])[1]
    )


def test_join_and_assay_itself_may_be_launched(launch):
    """A worker that joins finds its place by itself; the word `assay` before the command does no harm."""
    for command in (["join", "s3://b/r"], ["assay", "join", "s3://b/r"]):
        assert "\nassay join s3://b/r &\n" in launch("slurm", command=command)[1]


def test_every_setting_that_names_a_place_is_known():
    """Each setting of a command that can be launched is either a place that workers open, or known not to be one."""
    shared = [verb.settings for verb in VERBS.values() if verb.is_of_a_run]
    names = {
        field.name for each in shared for field in fields(each) if "world_size" in each.__dataclass_fields__
    }
    assert names - NO_PLACE == set(PLACES)


def test_settings_of_every_launcher_have_the_same_names():
    """What launchers share is inherited: a flag means the same wherever it is."""
    both = set(SlurmSettings.__dataclass_fields__) & set(KubernetesSettings.__dataclass_fields__)
    assert {
        "command",
        "workers",
        "gpus",
        "gpu_type",
        "cpus",
        "memory_gib",
        "name",
        "env",
        "shared",
        "hours",
    } <= both


# ---------------------------------------------------------------- slurm


def script(**options):
    """A job script as text."""
    changes = {key: options.pop(key) for key in list(options) if key in Job.__dataclass_fields__}
    settings = SlurmSettings(command=("x",), **options)
    return LAUNCHERS["slurm"].render(job(**changes), settings)


def test_a_job_script_says_what_was_asked_for():
    """Each option has its line, nothing stands in the script that was not asked for, and bash can parse it."""
    text = script(
        workers=12,
        gpus=2,
        gpu_type="a100",
        env=("AWS_REGION",),
        hours=1.5,
        environment="/shared/venv/",
        setup=("module load cuda",),
        partition="gpu",
        logs="/logs",
    )
    options = {line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")}
    assert {"array=0-11", "gres=gpu:a100:2", "time=01:30:00", "partition=gpu", "requeue"} <= options
    assert {"cpus-per-task=4", "mem=16G", "output=/logs/%x-%A_%a.log", "open-mode=append"} <= options
    assert "\nmodule load cuda\nPATH=/shared/venv/bin:$PATH\n" in text
    assert not any(
        option.startswith(("gres", "time", "partition", "account")) for option in script().split("--")
    )
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_task_is_told_in_time():
    """USR1 comes as long before the time limit as a drain takes, and the stop of the workers after it."""
    assert driver.GRACE_SECONDS[signal.SIGUSR1] + driver.STOP_SECONDS <= LEAD_SECONDS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("#SBATCH --requeue\n", ""), "the script is not requeued after a preemption"),
        (("#SBATCH --array=0-2", "#SBATCH --array=1-3"), "the script has no array from 0"),
        (("=append", "=truncate"), "a task that comes back would empty its log"),
        (("B:USR1", "USR1"), "nothing tells the script of its time limit"),
        (
            ("#SBATCH --requeue", "#SBATCH --requeue\n#SBATCH --time=00:02:00"),
            "the time limit is 2 minutes; ",
        ),
        (
            ("job-name=assay-quality", "job-name=a b"),
            "job-name is 'a b', which Slurm would read as more than one word",
        ),
    ],
    ids=["requeue", "array", "log", "signal", "time", "space"],
)
def test_a_script_that_slurm_takes_and_that_would_lose_time(change, said):
    """What sbatch accepts and a fleet would suffer from is found by our own check."""
    check = LAUNCHERS["slurm"].check
    assert check(script()) == []
    changed = script().replace(*change)
    assert changed != script()
    (problem,) = check(changed)
    assert problem.startswith(said)


def test_an_array_has_a_largest_size(launch, monkeypatch, tmp_path):
    """As Slurm has it by default, as is set, or as the cluster says; one line with the way out."""
    said = error_of(launch("slurm", "--workers", "2000", "--shared", "/model"))
    assert said.startswith("workers is 2,000 and MaxArraySize 1,001 by default; set --workers 1001 or less")
    assert said.endswith("or --max-array-size where your cluster takes more")
    assert launch("slurm", "--workers", "1001", "--shared", "/model")[0] == 0
    assert launch("slurm", "--workers", "2000", "--max-array-size", "4000", "--shared", "/model")[0] == 0
    (tmp_path / "no-tools").mkdir()
    tool(tmp_path / "no-tools" / "scontrol", 'echo "MaxArraySize            = 11"')
    said = error_of(launch("slurm", "--workers", "12", "--shared", "/model"))
    assert said.startswith("workers is 12 and MaxArraySize 11 of this cluster; set --workers 11 or less")


def tool(path, body):
    """A stand-in for a launcher's tool."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_what_a_tool_says_is_passed_on(launch, tmp_path, monkeypatch):
    """What was submitted is on stdout, the file is what was shown; a tool that refuses is heard in one line."""
    folder = tmp_path / "no-tools"
    folder.mkdir()
    tool(
        folder / "sbatch", f'[ "$*" = "--parsable --export=ALL" ] && /bin/cat >{tmp_path}/seen && echo "7;c"'
    )
    logs = tmp_path / "logs"
    _, text, _ = launch("slurm", "--shared", "/model", "--logs", logs, command=JOIN)
    status, out, lines = launch("slurm", "--shared", "/model", "--logs", logs, "--submit", command=JOIN)
    assert (status, out) == (0, "7\n")
    assert (tmp_path / "seen").read_text().rstrip() == text.rstrip()
    assert logs.is_dir()
    assert lines[-1] == "stop    scancel 7"
    monkeypatch.delenv("AWS_REGION", raising=False)
    said = error_of(launch("slurm", "--env", "AWS_REGION", "--submit", command=JOIN))
    assert said.startswith("env names AWS_REGION, which is not set here; export it")
    tool(folder / "kubectl", 'echo "Error from server (AlreadyExists): jobs.batch exists" >&2; exit 1')
    said = error_of(launch("kubernetes", "--shared", "/model", "--submit"))
    assert said.startswith(
        "there is a Job assay-quality already; give another --name, or take it away first: kubectl"
    )
    tool(folder / "kubectl", 'echo "The connection to the server was refused" >&2; exit 1')
    status, out, lines = launch("kubernetes", "--shared", "/model", "--submit")
    assert (status, out) == (1, "")
    assert lines == ["assay: error: kubectl failed with status 1: The connection to the server was refused"]


WORKER = """\
import os, signal, sys, time
def hear(number, frame):
    print("heard", signal.Signals(number).name, flush=True)
    time.sleep(0.3)
    sys.exit({status})
signal.signal(signal.SIGUSR1, hear)
signal.signal(signal.SIGTERM, hear)
print("ready", os.environ.get("RANK"), flush=True)
time.sleep({seconds})
sys.exit({status})
"""


@pytest.mark.parametrize(
    ("told", "status", "ends", "requeued"),
    [
        ("USR1", 75, 0, True),
        ("USR1", 130, 0, True),
        ("USR1", 0, 0, False),
        ("USR1", 3, 3, False),
        ("TERM", 75, 75, False),
        ("TERM", 1, 1, False),
        (None, 75, 75, False),
        (None, 1, 0, True),
        (None, 2, 2, False),
    ],
)
def test_what_is_queued_again(tmp_path, told, status, ends, requeued):
    """What USR1 drained, and what failed by itself; the shell hands USR1 on and lives through both signals."""
    out, returncode, again = run_script(tmp_path, told, status)
    assert out == (f"heard SIG{told}\n" if told else "")
    assert (returncode, again) == (ends, "requeue 7_2\n" if requeued else None)


def test_what_fails_again_and_again_is_left(tmp_path):
    """A task that came back three times and fails is not queued again; one that drained is, however often."""
    assert run_script(tmp_path, None, 1, SLURM_RESTART_COUNT="3")[1:] == (1, None)
    assert run_script(tmp_path, "USR1", 75, SLURM_RESTART_COUNT="30")[1:] == (0, "requeue 7_2\n")


def run_script(tmp_path, told, status, **environment):
    """Run a job script whose worker ends with a status, told to or by itself: what it heard, the status, requeues."""
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER.format(status=status, seconds=30 if told else 0))
    tool(tmp_path / "assay", f"exec {shlex.quote(sys.executable)} {worker}")
    tool(tmp_path / "scontrol", f'echo "$*" >{tmp_path}/requeued')
    place = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "RANK": "5"}
    environment = {**os.environ, **place, **environment, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    shell = subprocess.Popen(
        ["bash", "-c", script()], env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert shell.stdout.readline() == "ready None\n", "variables of other launchers are not for the worker"
    if told == "USR1":
        subprocess.run(["kill", "-USR1", str(shell.pid)], check=True)
    elif told == "TERM":
        subprocess.run(["kill", "-TERM", "--", f"-{shell.pid}"], check=True)
    out, _ = shell.communicate(timeout=30)
    seen = tmp_path / "requeued"
    return out, shell.returncode, seen.read_text() if seen.exists() else None
