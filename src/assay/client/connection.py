"""What both clients are made with: checked settings, headers, httpx, and what its errors mean."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from assay.client.wire import Lost
from assay.errors import UsageError
from assay.settings import Settings, within

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, kw_only=True)
class ClientSettings(Settings):
    """What a client was made with."""

    url: str
    api_key: str | None = field(repr=False)
    timeout: float = field(metadata=within(above=0, at_most=86_400))
    """Seconds of one try."""
    retries: int = field(metadata=within(at_least=0, at_most=1_000))
    """How often a request is tried again."""
    in_flight: int = field(metadata=within(at_least=1, at_most=1_024))
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
    is_key = isinstance(api_key, str) and api_key and api_key.isascii() and api_key.isprintable()
    if api_key is not None and not is_key:  # the message does not show it
        msg = "api_key holds characters that a header cannot carry, or none; pass the key as it stands"
        raise UsageError(msg)
    return ClientSettings(
        url=url.rstrip("/"), api_key=api_key, timeout=timeout, retries=retries, in_flight=in_flight
    )


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
