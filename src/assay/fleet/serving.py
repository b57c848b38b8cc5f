"""`assay serve` on the devices that its settings ask for: of this machine, or of a cluster that is joined for it."""

from collections.abc import Callable

from assay.extras import need_packages
from assay.fleet.executors import cluster_of
from assay.serve import verb as _serving
from assay.serve.settings import ServeSettings


def serve(settings: ServeSettings, *, on_message: Callable[[str], None] | None = None) -> None:
    """Serve the bundle until SIGTERM or SIGINT; `on_message` hears where and when.

    Raises UsageError for an address that cannot be had or a package that is missing, BundleError for a bundle
    that cannot be served, WorkError where the engine does not start.
    """
    if settings.executor == "ray":
        need_packages("ray", "starlette", used_by="assay serve --executor ray", extra="ray-serve")
    with cluster_of(settings) as cluster:
        if cluster is None:
            _serving.serve(settings, on_message=on_message)
            return
        from assay.fleet.ray.serving import serve_on

        serve_on(cluster, settings, on_message or (lambda _: None))
