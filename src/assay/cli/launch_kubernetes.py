"""`assay launch kubernetes`: an indexed Job of Kubernetes whose pods share one run."""

from assay.cli.launching import example, launch_with
from assay.cli.verb import Verb
from assay.fleet.launch.settings import KubernetesSettings


def run(settings: KubernetesSettings) -> int:
    """Print the job file, or submit it."""
    return launch_with("kubernetes", settings)


VERB = Verb(
    settings=KubernetesSettings,
    run=run,
    example=example("kubernetes", "--workers 12 --gpus 1 --image registry.example.com/assay:0.1.0"),
)
