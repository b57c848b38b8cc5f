"""`assay launch slurm`: an array job of Slurm whose tasks share one run."""

from assay.cli.launching import example, launch_with
from assay.cli.verb import Verb
from assay.fleet.launch.settings import SlurmSettings


def run(settings: SlurmSettings) -> int:
    """Print the job file, or submit it."""
    return launch_with("slurm", settings)


VERB = Verb(settings=SlurmSettings, run=run, example=example("slurm", "--workers 12 --gpus 1 --hours 24"))
