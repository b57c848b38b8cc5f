"""`assay launch runpod stop`: delete the pods of one fleet."""

from assay.cli.flags import stdout
from assay.cli.verb import Verb
from assay.fleet.launch.cloud_settings import RunPodStopSettings


def run(settings: RunPodStopSettings) -> int:
    """Delete them, and say which pods of the account stay."""
    from assay.fleet.launch.runpod.stop import stop_fleet

    stdout(str(stop_fleet(settings)))
    return 0


VERB = Verb(
    settings=RunPodStopSettings, run=run, example="example: assay launch runpod stop assay-run --dry-run"
)
