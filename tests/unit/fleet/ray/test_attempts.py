"""A training on a cluster, from what its ranks say: when it begins again, with what, and when it is over."""

import signal

import pytest

from assay.errors import InputError, StorageError, WorkError
from assay.fleet.ray.attempts import MOST_IN_A_ROW, Attempts

JOB = {"out": "model", "resume": False, "overwrite": True}


class Driver:
    """Attempts of two ranks, what the user hears, and the newest checkpoint."""

    def __init__(self):
        """Nothing has begun."""
        self.said, self.heard, self.checkpoint = [], [], None
        self.attempts = Attempts(
            JOB,
            num_processes=2,
            newest=lambda: self.checkpoint,
            way_out=lambda: "go on with --resume",
            on_event=self.heard.append,
            say=self.said.append,
        )

    def end(self, rank, returncode, *, was_asked=False, tail=()):
        """A rank's process has ended."""
        event = {"event": "ended", "returncode": returncode, "was_asked": was_asked}
        self.attempts.take(rank, {**event, "tail": list(tail), "host": f"node{rank}"})

    def fail(self, rank, kind, message):
        """A rank says what it died of."""
        self.attempts.take(rank, {"event": "failed", "kind": kind, "message": message, "trace": "", "at": 0})
        self.end(rank, 1)


@pytest.fixture
def driver():
    """A driver whose first attempt has begun."""
    made = Driver()
    assert made.attempts.begin("one") == {"job": JOB, "earlier": []}
    return made


def test_a_training_that_ends_well(driver):
    """Rank 0 is heard, and its result is the training's."""
    driver.attempts.take(0, {"event": "message", "value": "split"})
    driver.attempts.take(0, {"event": "result", "value": {"out": "model"}})
    driver.end(0, 0)
    driver.end(1, 0)
    assert driver.attempts.end() is None
    assert driver.attempts.result["value"] == {"out": "model"}
    assert driver.heard == [{"event": "message", "value": "split"}]


@pytest.mark.parametrize("has_trained", [False, True])
def test_a_rank_that_is_killed(driver, has_trained):
    """All begin again, from a checkpoint only where it is one of this training: another may still lie there."""
    if has_trained:
        driver.attempts.take(0, {"event": "progress", "value": {}})
    driver.end(1, -signal.SIGKILL, tail=["the last line"])
    driver.attempts.take(
        0, {"event": "failed", "kind": "WorkError", "message": "rank 1 is gone", "trace": ""}
    )
    driver.end(0, 1)
    assert driver.attempts.begin("two") == {"job": {**JOB, "resume": has_trained}, "earlier": ["one"]}
    assert driver.said == [
        (
            "rank 1 of 2 on node1 was killed by SIGKILL (out of memory?); its last line was: the last line; "
            "starting again from the last checkpoint"
        )
    ]


def test_a_machine_that_is_lost(driver):
    """Nobody says how a rank ended whose machine is gone; of the others' ends none was the first."""
    driver.end(0, -signal.SIGTERM, was_asked=True)
    driver.attempts.lose(1, "the node died")
    assert driver.attempts.begin("two")["job"] is not None
    assert driver.said == ["rank 1 of 2 was lost (the node died); starting again from the last checkpoint"]


def test_an_error_that_no_other_try_changes(driver):
    """What is wrong with rows or disk ends the training with the line that one machine gives."""
    driver.fail(0, "InputError", "rows.csv: no column label")
    driver.end(1, -signal.SIGABRT)
    assert driver.attempts.begin("two") == {"job": None, "earlier": ["one"]}
    error = driver.attempts.end()
    assert isinstance(error, InputError)
    assert str(error) == "rows.csv: no column label"


def test_an_error_that_is_not_ours(driver):
    """It names the rank and the way out."""
    driver.fail(1, None, "RuntimeError: no memory")
    error = driver.attempts.end()
    assert isinstance(error, WorkError)
    assert str(error) == "rank 1 of 2: RuntimeError: no memory; go on with --resume"


def test_a_rank_that_is_lost_after_the_result(driver):
    """The bundle is there: nothing is done again."""
    driver.attempts.take(0, {"event": "result", "value": {}})
    driver.end(1, -signal.SIGKILL)
    assert driver.attempts.is_broken
    assert driver.attempts.begin("two")["job"] is None
    assert driver.attempts.end() is None


def test_attempts_that_end_without_a_word(driver):
    """Whatever became of Ray Train, it is not taken for success."""
    driver.end(0, 0)
    assert "did not say why; go on with --resume" in str(driver.attempts.end())
    other = Driver()
    other.attempts.begin("one")
    other.end(0, -signal.SIGKILL)
    assert "without a result; go on with --resume" in str(other.attempts.end())


def test_losses_without_progress(driver):
    """A rank that is lost every time before a checkpoint ends it; one checkpoint, and the count begins again."""
    for number in range(MOST_IN_A_ROW + 1):
        if number == 1:
            driver.checkpoint = "step-00000001"
        driver.end(0, -signal.SIGKILL)
        answer = driver.attempts.begin(str(number))
        assert (answer["job"] is None) == (number == MOST_IN_A_ROW)
    assert f"{MOST_IN_A_ROW} times in a row without a checkpoint; go on with --resume" in str(
        driver.attempts.end()
    )


def test_a_checkpoint_that_could_not_be_written(driver):
    """After an interruption the full disk is the error, not the interruption."""
    assert driver.attempts.unsaved is None
    driver.fail(0, "StorageError", "disk full")
    assert isinstance(driver.attempts.unsaved, StorageError)
