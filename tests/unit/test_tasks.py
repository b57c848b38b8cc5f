"""Facts about the three tasks."""

from typing import get_args

import pytest

from assay.tasks import Method, Task, TaskName


def test_settings_name_every_task():
    """The names that settings take are the tasks, so that `Task(settings.task)` never fails."""
    assert get_args(TaskName) == tuple(Task)


def test_a_task_is_its_name():
    """A task is written to JSON, and compared with what a file says, as its name."""
    assert f"{Task.MULTI_LABEL}" == Task.MULTI_LABEL == Task("multi_label") == "multi_label"


@pytest.mark.parametrize(
    ("task", "options", "columns"),
    [
        (
            Task.SINGLE_LABEL,
            {},
            {"prediction": "string", "probability": "float32", "prob_x": "float32", "prob_y": "float32"},
        ),
        (Task.MULTI_LABEL, {}, {"labels": "strings", "prob_x": "float32", "prob_y": "float32"}),
        (Task.REGRESSION, {}, {"prediction": "float32"}),
        (
            Task.REGRESSION,
            {"has_interval": True, "has_int_score": True},
            {
                "prediction": "float32",
                "prediction_low": "float32",
                "prediction_high": "float32",
                "int_score": "int32",
            },
        ),
    ],
)
def test_score_columns(task, options, columns):
    """Names and types of a task's score columns, in the order of a part."""
    found = task.score_columns(("x", "y"), **options)
    assert found == columns
    assert list(found) == list(columns)


@pytest.mark.parametrize(
    ("task", "num_outputs", "takes"),
    [
        (Task.SINGLE_LABEL, 2, True),
        (Task.SINGLE_LABEL, 3, False),
        (Task.MULTI_LABEL, 1, True),
        (Task.MULTI_LABEL, 9, True),
        (Task.REGRESSION, 1, False),
    ],
)
def test_what_a_threshold_decides(task, num_outputs, takes):
    """A threshold is for two labels or for each label of many; the likeliest of more needs none."""
    assert task.takes_threshold(num_outputs) is takes


def test_every_method_calibrates_something():
    """No task leaves out a kind of calibration that another one lacks too."""
    found = {method for task in Task for count in (1, 2, 3) for method in task.calibration_methods(count)}
    assert found == set(get_args(Method))


@pytest.mark.parametrize(
    ("task", "num_outputs", "takes"),
    [
        (Task.SINGLE_LABEL, 1, False),
        (Task.SINGLE_LABEL, 2, True),
        (Task.MULTI_LABEL, 1, True),
        (Task.REGRESSION, 1, True),
        (Task.REGRESSION, 2, False),
    ],
)
def test_how_many_outputs_a_head_has(task, num_outputs, takes):
    """One label alone is not a choice, and a regression has one number."""
    assert task.takes_outputs(num_outputs) is takes
