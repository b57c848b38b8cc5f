"""What both clients are made with: checked settings, headers, httpx, and what its errors mean."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from assay.client.wire import Lost
from assay.errors import UsageError

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientSettings:
    """What a client was made with."""

    url: str
    api_key: str | None = field(repr=False)
    in_flight: int
    """Requests under way at once, at the most."""


def check_settings(
    url: str, api_key: str | None, timeout: float, retries: int, in_flight: int
) -> ClientSettings:
    """The arguments of a client, checked; raises UsageError."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.query
    except (AttributeError, ValueError):
        is_address = False
    if not is_address:
        msg = f"url {url!r}; an address of a server is needed; pass one such as http://127.0.0.1:8000"
        raise UsageError(msg)
    if api_key is not None and (not api_key or not api_key.isascii() or not api_key.isprintable()):
        msg = "api_key holds characters that a header cannot carry, or none; pass the key as it stands"
        raise UsageError(msg)
    if not 0 < timeout < math.inf:
        msg = f"timeout {timeout}; a try takes more than 0 seconds; pass for example 30"
        raise UsageError(msg)
    if retries < 0:
        msg = f"retries {retries}; it must be 0 or more; pass 0 to try once"
        raise UsageError(msg)
    if in_flight < 1:
        msg = f"in_flight {in_flight}; requests under way at once are 1 or more; pass 1 for one after another"
        raise UsageError(msg)
    return ClientSettings(url=url.rstrip("/"), api_key=api_key, in_flight=in_flight)


def headers_of(settings: ClientSettings) -> dict[str, str]:
    """The headers of every request."""
    key = {} if settings.api_key is None else {"Authorization": f"Bearer {settings.api_key}"}
    return {"Content-Type": "application/json", "Accept": "application/json", **key}


def lost(error: "httpx.HTTPError") -> Lost:
    """What a failed try of httpx means: connections are tried again, time-outs of an answer are not."""
    import httpx

    if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
        msg = f"{error}; the address or a header cannot be sent; check url="
        raise UsageError(msg)
    again = isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError | httpx.ConnectTimeout)
    said = " ".join(str(error).split())
    return Lost(reason=f"{type(error).__name__}{f': {said}' if said else ''}", again=again)
