"""Labels as targets: names in a fixed order, unknown ones refused."""

import numpy as np
import pytest

from assay.errors import InputError
from assay.labelled.labels import label_names, to_targets


def test_names_are_sorted_as_numbers_where_all_are():
    """10 comes after 9; among words it is a word; equal numbers keep one order."""
    assert label_names(["10", "9", "10"], "single_label") == ("9", "10")
    assert label_names(["10", "9", "b"], "single_label") == ("10", "9", "b")
    assert label_names(["1", "01", "001"], "single_label") == ("001", "01", "1")
    assert label_names([("b", "a"), (), ("c",)], "multi_label") == ("a", "b", "c")
    assert label_names([0.5, 1.5], "regression") == ("score",)


def test_targets_of_the_three_tasks():
    """Indices, zeros and ones, numbers; a row without labels is all zeros."""
    np.testing.assert_array_equal(to_targets(["b", "a"], "single_label", ("a", "b")), [1, 0])
    many = to_targets([("b", "a"), (), ("c",)], "multi_label", ("a", "b", "c"))
    np.testing.assert_array_equal(many, [[1, 1, 0], [0, 0, 0], [0, 0, 1]])
    numbers = to_targets([0.5, 2.0], "regression", ("score",))
    assert numbers.dtype == many.dtype == np.float32
    np.testing.assert_array_equal(numbers, [0.5, 2.0])


@pytest.mark.parametrize(("task", "labels"), [("single_label", ["a", "x"]), ("multi_label", [("a", "x")])])
def test_unknown_labels_are_refused(task, labels):
    """What was seen, what is known, where to look."""
    with pytest.raises(
        InputError, match=r"labels \['x'\]; the model knows \['a', 'b'\]; check the label column"
    ):
        to_targets(labels, task, ("a", "b"))
