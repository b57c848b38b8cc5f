"""One URL to its bytes: bounded in size and time, tried again where that may help, in scope, never too fast.

What is not covered: a server that states too small a length. HTTP ends there; `markers.is_cut_short` sees it in
the text.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urljoin, urlsplit

from assay.errors import WorkError
from assay.gutenberg import rules

if TYPE_CHECKING:
    import httpx

Kind = Literal["ok", "missing", "not_text", "too_large", "out_of_scope", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """What a server gave for one address."""

    kind: Kind
    url: str
    """The address after redirects."""
    body: bytes = b""
    detail: str = ""
    """What was wrong, for the user."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Time and chance, passed in so that a test does not wait."""

    now: Callable[[], float] = time.time
    """Unix seconds."""
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    draw: Callable[[], float] = random.random
    """0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """What one file may take."""

    max_bytes: int
    timeout_seconds: float
    tries: int
    max_wait_seconds: float


class _FailedTry(Exception):  # noqa: N818  a try that may be made again
    """One try failed in a way that may pass."""

    def __init__(self, said: str, *, wait_seconds: float | None = None, unreachable: bool = False) -> None:
        super().__init__(said)
        self.wait_seconds = wait_seconds
        self.unreachable = unreachable


class _Host:
    """The turns at one host: a few requests at a time, spaced out, and none before the time that the host set."""

    def __init__(self, connections: int, pause_seconds: float, clock: Timing) -> None:
        self._turns = asyncio.Semaphore(connections)
        self._pause_seconds = pause_seconds
        self._clock = clock
        self.not_before = 0.0

    async def __aenter__(self) -> None:
        await self._turns.acquire()
        try:
            while (wait := self.not_before - self._clock.now()) > 0:
                await self._clock.sleep(wait)
            if self._pause_seconds:
                self.not_before = self._clock.now() + self._pause_seconds
        except BaseException:
            self._turns.release()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._turns.release()


class Downloader:
    """Asks for files one by one. Use it in one event loop."""

    def __init__(
        self,
        client: "httpx.AsyncClient",
        bounds: Bounds,
        *,
        connections: int = 1,
        pause_seconds: float = 0.0,
        one_queue: bool = False,
        clock: Timing | None = None,
    ) -> None:
        """`connections` and `pause_seconds` hold for each host, or with `one_queue` for all of them together."""
        self._client = client
        self._bounds = bounds
        self._clock = clock or Timing()
        self._connections = connections
        self._pause_seconds = pause_seconds
        self._one_queue = one_queue
        self._hosts: dict[str, _Host] = {}

    async def get(self, url: str, *, html: bool = False) -> Fetched:
        """The body at an address, or why there is none; pages of HTML are taken where `html` says so.

        Raises WorkError where the host cannot be reached or does not want the program: no book of it would come.
        """
        tries = 0
        while True:
            tries += 1
            try:
                return await self._follow(url, html=html)
            except _FailedTry as failed:
                if (
                    tries < self._bounds.tries
                    and (failed.wait_seconds or 0.0) <= self._bounds.max_wait_seconds
                ):
                    pause = max(rules.pause_seconds(tries, self._clock.draw()), failed.wait_seconds or 0.0)
                    await self._clock.sleep(pause)
                    continue
                if failed.unreachable:
                    msg = (
                        f"{_host(url)} cannot be reached ({failed}); what was fetched is kept; "
                        "run the same command later, or use another mirror"
                    )
                    raise WorkError(msg) from failed
                return Fetched(kind="failed", url=url, detail=f"{failed}, after {tries} tries")

    async def _follow(self, url: str, *, html: bool) -> Fetched:
        at = url
        for _ in range(rules.MOST_REDIRECTS + 1):
            answer, target = await self._ask(at, html=html)
            if target is None:
                return answer
            following = urljoin(at, target)
            if not rules.is_in_scope(url, following):
                return Fetched(kind="out_of_scope", url=at, detail=f"a redirect to {following}, another site")
            at = following
        return Fetched(kind="failed", url=url, detail=f"more than {rules.MOST_REDIRECTS} redirects")

    async def _ask(self, url: str, *, html: bool) -> tuple[Fetched, str | None]:
        """One request; the answer, or where it leads."""
        import httpx

        name = "" if self._one_queue else urlsplit(url).netloc
        host = self._hosts.setdefault(name, _Host(self._connections, self._pause_seconds, self._clock))
        try:
            async with (
                host,
                asyncio.timeout(self._bounds.timeout_seconds),
                self._client.stream("GET", url) as reply,
            ):
                self._heed(host, reply)
                target = reply.headers.get("location")
                if reply.status_code in rules.REDIRECTS and target:
                    return Fetched(kind="failed", url=url), target
                return await self._read(url, reply, html=html), None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _FailedTry(_said(error), unreachable=True) from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _FailedTry(_said(error)) from error
        except httpx.InvalidURL as error:
            return Fetched(kind="out_of_scope", url=url, detail=f"an invalid address ({error})"), None
        except TimeoutError as error:
            raise _FailedTry(f"not complete after {self._bounds.timeout_seconds:g} seconds") from error

    def _heed(self, host: _Host, reply: "httpx.Response") -> None:
        """Raise for a status that stops this try, or all of them; a pause that is asked for holds for the host."""
        status = reply.status_code
        if status in rules.BLOCKED:
            msg = (
                f"{_host(str(reply.url))} refuses this program (status {status}); wait a day, "
                "or use another mirror"
            )
            raise WorkError(msg)
        if status not in rules.RETRIED:
            return
        now = self._clock.now()
        wait = rules.retry_after_seconds(reply.headers.get("retry-after"), now)
        if wait is not None and wait <= self._bounds.max_wait_seconds:
            host.not_before = max(host.not_before, now + wait)
        asked = "" if wait is None else f", with a request to wait {wait:,.0f} seconds"
        raise _FailedTry(f"status {status}{asked}", wait_seconds=wait)

    async def _read(self, url: str, reply: "httpx.Response", *, html: bool) -> Fetched:
        if reply.status_code != 200:
            return Fetched(kind="missing", url=url, detail=f"status {reply.status_code}")
        kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in rules.HTML and not html:
            return Fetched(kind="not_text", url=url, detail=f"a page of {kind}")
        most = self._bounds.max_bytes
        too_large = Fetched(kind="too_large", url=url, detail=f"more than {most:,} bytes")
        stated = reply.headers.get("content-length", "")
        if stated.isdecimal() and int(stated) > most:
            return too_large
        body = bytearray()
        async for piece in reply.aiter_bytes(64 * 1024):
            body += piece
            if len(body) > most:
                return too_large
        return Fetched(kind="ok", url=url, body=bytes(body))


def open_client(contact: str | None, timeout_seconds: float) -> "httpx.AsyncClient":
    """A client that says who asks, and follows nothing by itself."""
    import httpx

    headers = {"User-Agent": rules.user_agent(contact), "Accept-Encoding": "identity"}
    return httpx.AsyncClient(headers=headers, timeout=timeout_seconds, follow_redirects=False)


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
