"""`assay serve`: start the engines, serve until told to stop.

SIGTERM, SIGINT   accept nothing more, answer what was accepted, end with status 0
SIGHUP            read keys and bundle again; the old ones go on until the new ones are there
"""

import contextlib
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator

from assay import machine
from assay.bundle.folders import cascade_file
from assay.errors import UsageError
from assay.extras import need_packages
from assay.model.checkpoint import read_config
from assay.serve.keys import Keys, read_keys
from assay.serve.placement import bundle_folders, choose_num_fronts, start_first
from assay.serve.settings import ServeSettings
from assay.telemetry import format_number_of


def serve(settings: ServeSettings, *, on_message: Callable[[str], None] | None = None) -> None:
    """Serve the bundle until SIGTERM or SIGINT; `on_message` hears where and when.

    Raises UsageError for an address that cannot be had or a package that is missing, BundleError for a bundle
    that cannot be served, WorkError where the engine does not start.
    """
    assert settings.executor == "local", "who calls opens the cluster"
    need_server_packages()
    check_bundle(settings)
    say = on_message or (lambda _: None)
    keys = read_keys(settings.keys_file, os.environ)
    for warning in warnings(settings, keys):
        say(warning)
    num_fronts = choose_num_fronts(settings)
    if num_fronts > 1:
        say(f"{num_fronts} front processes before the engines")
    with listening(settings, num_fronts) as listeners:
        # they load while this process imports what it needs
        children = start_first(settings)
        if children[0][0].device == "cpu":
            threads = machine.choose_threads(settings.num_threads, num_processes=len(children))
            say(
                f"{format_number_of(len(children), 'engine process', 'engine processes')}, each with {threads}"
            )
        try:
            from assay.serve.server import run_server
        except BaseException:
            for _, child in children:
                child.end()
            raise
        run_server(settings, keys, listeners, children, say)


def need_server_packages() -> None:
    """Raise UsageError where a package that the server needs is not installed."""
    need_packages("uvicorn", "httptools", "orjson", "prometheus_client", used_by="assay serve")


def check_bundle(settings: ServeSettings) -> None:
    """Raise BundleError where there is no bundle, before anything is started; UsageError for a cascade to compare."""
    if settings.parity_share and cascade_file(settings.bundle) is not None:
        raise UsageError(
            f"parity_share={settings.parity_share:g}; a pair near a threshold of a cascade goes to its second model in "
            "one precision and not in the other; leave it out, or serve a single model"
        )
    for folder in bundle_folders(settings.bundle):
        read_config(folder)


def warnings(settings: ServeSettings, keys: Keys) -> list[str]:
    """What the user should hear before the server is reachable."""
    found = []
    if not keys.digests and not is_loopback(settings.host):
        found.append(
            f"warning: {settings.host} can be reached from other machines and there are no API keys: anyone may "
            "send texts; set --keys-file or ASSAY_API_KEYS, or listen on 127.0.0.1"
        )
    if keys.digests and settings.tls_cert is None and not is_loopback(settings.host):
        found.append(
            "warning: API keys travel in the clear without TLS; set --tls-cert and --tls-key, or use a proxy"
        )
    if settings.log_texts:
        found.append("warning: the texts of requests are written into the log, as --log-texts asks")
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextlib.contextmanager
def listening(settings: ServeSettings, num_sockets: int = 1) -> Iterator[list[socket.socket]]:
    """Sockets bound to the address, for a process each; raises UsageError where that cannot be."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(_bound(settings, settings.port))]
        if num_sockets > 1:
            # the first one, which shares with nobody, has shown that the port is free
            port = found.pop().getsockname()[1]
            stack.close()
            found = [stack.enter_context(_bound(settings, port, is_shared=True)) for _ in range(num_sockets)]
        yield found


def _bound(settings: ServeSettings, port: int, *, is_shared: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((settings.host, port))
    except OSError as error:
        listener.close()
        msg = (
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror or error}); "
            "choose another --port or --host"
        )
        raise UsageError(msg) from None
    return listener
