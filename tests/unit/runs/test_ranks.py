"""Rank and world size of a static worker, from flags or from each launcher's environment."""

import pytest

from assay.errors import UsageError
from assay.runs.placement import place_workers, static_place
from assay.runs.ranks import RANK_VARIABLES, find_rank
from assay.runs.settings import RunSettings


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "2", "WORLD_SIZE": "5"},
        {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "5"},
        {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "5", "SLURM_ARRAY_TASK_MIN": "1"},
        {"JOB_COMPLETION_INDEX": "2", "NUM_WORKERS": "5"},
        {"JOB_COMPLETION_INDEX": "2", "WORLD_SIZE": "5"},
        {"SKYPILOT_NODE_RANK": "2", "SKYPILOT_NUM_NODES": "5"},
        {
            "SKYPILOT_JOB_RANK": "2",
            "SKYPILOT_NUM_JOBS": "5",
            "SKYPILOT_NODE_RANK": "0",
            "SKYPILOT_NUM_NODES": "1",
        },
        {"POD_ID": "2", "NUM_WORKERS": "5"},
    ],
)
def test_each_launcher(environment):
    """Every launcher's variables say which worker of how many this is, a first rank of 1 included."""
    assert find_rank(environment) == (2, 5)


def test_every_launcher_is_tested():
    """The list above has a case for each launcher that is known."""
    assert len(RANK_VARIABLES) == 6


def test_flags_win():
    """A flag wins over the environment; each may come from its own place."""
    environment = {"POD_ID": "2", "NUM_WORKERS": "5"}
    assert find_rank(environment, rank=0, world_size=3) == (0, 3)
    assert find_rank(environment, rank=4) == (4, 5)
    assert find_rank(environment, world_size=3) == (2, 3)
    assert find_rank({}, rank=1, world_size=2) == (1, 2)


def test_flags_need_no_sound_environment():
    """With both flags given, what the environment holds does not matter."""
    assert find_rank({"RANK": "first"}, rank=1, world_size=2) == (1, 2)


def test_the_first_launcher_wins():
    """Where two launchers left their variables, the order of precedence decides, not a mixture."""
    environment = {"RANK": "1", "WORLD_SIZE": "2", "POD_ID": "7", "NUM_WORKERS": "9"}
    assert find_rank(environment) == (1, 2)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "no rank for the static executor; set --rank"),
        ({"POD_ID": "1"}, "no world size for the static executor; set --world-size"),
        ({"NUM_WORKERS": "4"}, "no rank"),
        ({"POD_ID": "pod-1", "NUM_WORKERS": "4"}, "POD_ID='pod-1' is not a whole number"),
        ({"POD_ID": "1", "NUM_WORKERS": ""}, "NUM_WORKERS='' is not a whole number"),
        ({"POD_ID": "4", "NUM_WORKERS": "4"}, r"rank 4 of world size 4 \(from pods\)"),
        ({"RANK": "-1", "WORLD_SIZE": "4"}, r"rank -1 of world size 4 \(from torchrun\)"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "rank 0 of world size 0"),
    ],
)
def test_an_impossible_place_is_refused(environment, message):
    """A missing, unreadable or impossible place is a usage error that names it and the way out."""
    with pytest.raises(UsageError, match=message):
        find_rank(environment)


def test_a_place_is_for_the_static_executor(monkeypatch):
    """The local executor takes no rank: a flag is refused, the environment is left alone."""
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert static_place(RunSettings(run="run")) == (0, 1)
    assert static_place(RunSettings(run="run", executor="static")) == (3, 4)
    with pytest.raises(UsageError, match="--executor static"):
        static_place(RunSettings(run="run", rank=0))


def test_devices():
    """`auto` takes every GPU or one process; a number means as many of either."""
    assert place_workers("auto", num_gpus=0).num_workers == 1
    assert place_workers("3", num_gpus=0).num_workers == 3
    assert (place_workers("auto", num_gpus=4).kind, place_workers("auto", num_gpus=4).num_workers) == (
        "cuda",
        4,
    )
    assert place_workers("2", num_gpus=4).num_workers == 2
    with pytest.raises(UsageError, match="devices 5; this machine has 4 GPUs"):
        place_workers("5", num_gpus=4)
