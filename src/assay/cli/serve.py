"""`assay serve`: a bundle over HTTP."""

from assay.cli.verb import Verb, say
from assay.serve.settings import ServeSettings


def run(settings: ServeSettings) -> int:
    """Serve until told to stop; what happens is said on stderr."""
    from assay.fleet.serving import serve

    serve(settings, on_message=say)
    return 0


VERB = Verb(settings=ServeSettings, run=run, example="example: assay serve model/ --port 8000", config="flag")
