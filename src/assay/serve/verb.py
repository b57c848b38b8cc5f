"""`assay serve`: check the settings, start the engines, serve until told to stop.

SIGTERM, SIGINT   accept nothing more, answer what was accepted, end with status 0
SIGHUP            read keys and bundle again; the old ones go on until the new ones are there
"""

import contextlib
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from assay.errors import BundleError, UsageError
from assay.serve.engines import Child, EngineSpec
from assay.serve.keys import Keys, read_keys
from assay.serve.placement import asked_devices, start_first
from assay.serve.settings import ServeSettings


def serve(settings: ServeSettings, *, on_message: Callable[[str], None] | None = None) -> None:
    """Serve the bundle until SIGTERM or SIGINT; `on_message` hears where and when.

    Raises UsageError for settings that do not fit, BundleError for a bundle that cannot be served,
    WorkError where the engine does not start.
    """
    check_settings(settings)
    say = on_message or (lambda _: None)
    keys = read_keys(settings.keys_file, os.environ)
    for warning in warnings(settings, keys):
        say(warning)
    with listening(settings) as listener:
        # they load while this process imports what it needs
        children = start_first(settings)
        try:
            from assay.serve.server import run_server
        except BaseException:
            _end(children)
            raise
        run_server(settings, keys, listener, children, say)


def check_settings(settings: ServeSettings) -> None:
    """Raise UsageError for values out of range, before anything is started."""
    least = {
        "port": 0, "stride": 0, "max_queue": 1, "max_client_batch_size": 1, "max_body_bytes": 1,
        "max_text_chars": 1,
    }  # fmt: skip
    for name, low in least.items():
        if getattr(settings, name) < low:
            _refuse(name, getattr(settings, name), f"at least {low}")
    for name in ("max_batch_tokens", "rate_limit", "max_length"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            _refuse(name, value, "at least 1")
    if settings.port > 65_535:
        _refuse("port", settings.port, "at most 65535")
    if not 0 < settings.timeout <= 3600:
        _refuse("timeout", settings.timeout, "above 0 and at most 3600 seconds")
    if not 0 <= settings.drain_seconds <= 3600:
        _refuse("drain_seconds", settings.drain_seconds, "0 to 3600")
    if settings.max_queue < settings.max_client_batch_size:
        _refuse(
            "max_queue",
            settings.max_queue,
            f"at least max_client_batch_size, {settings.max_client_batch_size}",
        )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        msg = "one of tls_cert and tls_key is set; HTTPS needs both; set the other too"
        raise UsageError(msg)
    asked_devices(settings)
    if not (Path(settings.bundle) / "config.json").is_file():
        msg = f"{settings.bundle}: no folder with a config.json; a bundle is one; check the path"
        raise BundleError(msg)


def _refuse(name: str, value: object, rule: str) -> None:
    msg = f"{name} {value}; it must be {rule}; set --{name.replace('_', '-')} within"
    raise UsageError(msg)


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
def listening(settings: ServeSettings) -> Iterator[socket.socket]:
    """A socket bound to the address; raises UsageError where that cannot be."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            msg = (
                f"cannot listen on {settings.host}:{settings.port} ({error.strerror or error}); "
                "choose another --port or --host"
            )
            raise UsageError(msg) from None
        yield listener


def _end(children: Sequence[tuple[EngineSpec, Child]]) -> None:
    for _, child in children:
        child.connection.close()
        child.process.kill()
        child.process.wait()
