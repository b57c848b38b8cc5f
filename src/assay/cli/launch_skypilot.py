"""`assay launch skypilot`: managed jobs of SkyPilot that share one run."""

from assay.cli.launching import example, launch_with
from assay.cli.verb import Verb
from assay.fleet.launch.cloud_settings import SkyPilotSettings


def run(settings: SkyPilotSettings) -> int:
    """Print the task, or submit it."""
    return launch_with("skypilot", settings)


VERB = Verb(
    settings=SkyPilotSettings,
    run=run,
    example=example(
        "skypilot", "--workers 12 --gpus 1 --gpu-type L40S --spot --image registry.example.com/assay:0.1.0"
    ),
)
