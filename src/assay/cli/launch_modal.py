"""`assay launch modal`: an app of Modal: workers that share one run, and functions to call."""

from assay.cli.launching import example, launch_with
from assay.cli.verb import Verb
from assay.fleet.launch.cloud_settings import ModalSettings


def run(settings: ModalSettings) -> int:
    """Print the module, or deploy and start it."""
    return launch_with("modal", settings)


VERB = Verb(
    settings=ModalSettings,
    run=run,
    example=example(
        "modal",
        "--workers 12 --gpus 1 --gpu-type L40S --env AWS_REGION --image registry.example.com/assay:0.1.0",
    ),
)
