"""What an engine process is started with."""

from assay.serve.engines import THREADS_WAIT, child_environment


def test_how_threads_wait_is_the_users_to_say():
    """Ours is a default; one variable of the user's is not mixed with another of ours."""
    assert child_environment({"A": "1"}, num_threads=None) == {"A": "1", **THREADS_WAIT}
    assert child_environment({"GOMP_SPINCOUNT": "7"}, num_threads=2) == {
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "7",
        "OMP_NUM_THREADS": "2",
    }
    assert child_environment({"OMP_WAIT_POLICY": "ACTIVE"}, num_threads=None) == {"OMP_WAIT_POLICY": "ACTIVE"}
