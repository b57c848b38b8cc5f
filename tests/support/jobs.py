"""A job for many workers, as the tests of the launchers render it."""

from assay.fleet.launch.job import Job


def job(**changes):
    """A job with these values changed."""
    values = {"gpus": 0, "gpu_type": None, "cpus": 4, "memory_gib": 16, "env": (), "workers": 3}
    command = ("score", "s3://b/corpus/*.parquet", "--bundle", "/model", "--run", "s3://b/quality")
    return Job(**{"name": "assay-quality", "command": command, "run": "s3://b/quality"} | values | changes)
