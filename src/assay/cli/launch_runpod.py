"""`assay launch runpod`: pods of RunPod that share one run, watched until it verifies or their budget is spent."""

from assay.cli.launching import example, launch_with
from assay.cli.verb import Verb
from assay.fleet.launch.cloud_settings import RunPodSettings


def run(settings: RunPodSettings) -> int:
    """Print the fleet, or make its pods and watch them to the end."""
    return launch_with("runpod", settings)


VERB = Verb(
    settings=RunPodSettings,
    run=run,
    example=example(
        "runpod", "--workers 12 --gpu-type RTX4090 --budget 50 --image registry.example.com/assay-work:0.1.0"
    ),
)
