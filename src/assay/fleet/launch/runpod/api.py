"""The calls of RunPod's REST API v2 that a fleet needs, and what their failures mean.

    GET    /pods, /catalog/gpus, /network-volumes/{id}      tried again: they change nothing
    DELETE /pods/{id}                                       tried again: a pod that is gone is what was wanted
    POST   /pods                                            sent once; without a clear answer it is `Lost`

A pod can be there although its creation was answered by an error of the server, so what `Lost` means is for a listing
to say. A lack of machines has no code of its own: it is a 400 whose text says so. v2 knows no spot pods and replaces
no entrypoint; v1, which did, ends in 2026. Source: RunPod's OpenAPI description of v2, and its guide from v1 to v2.

The key is read from `RUNPOD_API_KEY` by the caller; it goes into one header and nowhere else.
"""

import contextlib
import json
import random
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage
from typing import IO, Any

from assay._version import __version__
from assay.errors import InputError, UsageError, WorkError
from assay.fleet.launch.runpod.pods import Pod

BASE_URL = "https://api.runpod.io/v2"
KEY = "RUNPOD_API_KEY"
TRIES = 6
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
TIMEOUT_SECONDS = 60.0
MOST_PAGES = 1_000
_NO_MACHINES = re.compile(
    r"instances? (?:are )?(?:currently )?available|no (?:available )?(?:instances|machines|capacity)|capacity"
    r"|could not be placed|out of stock|not enough free gpus",
    re.IGNORECASE,
)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class NoCapacityError(WorkError):
    """No machine of that kind is free now."""


class LostError(WorkError):
    """No clear answer: what was asked for may have happened."""


class NoAnswerError(WorkError):
    """No answer after several tries to a question that changes nothing."""


class KeyRefusedError(InputError):
    """The key does not open the account, or not this part of it."""


class NoBalanceError(InputError):
    """The account has no money left."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key elsewhere."""

    def redirect_request(
        self,
        req: urllib.request.Request,  # noqa: ARG002
        fp: IO[bytes],  # noqa: ARG002
        code: int,  # noqa: ARG002
        msg: str,  # noqa: ARG002
        headers: HTTPMessage,  # noqa: ARG002
        newurl: str,  # noqa: ARG002
    ) -> None:
        """None: the answer counts as an error."""
        return


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """A kind of GPU as the price list has it."""

    id: str
    name: str
    dollars_per_hour: Mapping[str, float]
    """Of one, by cloud: SECURE, COMMUNITY."""


class RunPod:
    """One account. Not safe for several threads."""

    def __init__(
        self,
        key: str,
        *,
        base_url: str = BASE_URL,
        sleep: Callable[[float], None] = time.sleep,
        chance: random.Random | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """Raises UsageError where the key cannot be a key or the address would show it to others."""
        parts = urllib.parse.urlsplit(base_url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            msg = f"RUNPOD_REST_V2_URL is {base_url!r}; the key goes over https alone; unset it, or use https://"
            raise UsageError(msg)
        if not key:
            msg = f"{KEY} is not set; create a key in RunPod's settings and export {KEY}=..."
            raise UsageError(msg)
        if not (key.isascii() and key.isprintable()) or " " in key:  # the message does not show it
            msg = f"{KEY} holds characters that no key has; export it as RunPod shows it"
            raise UsageError(msg)
        self._key = key
        self._base_url = base_url.rstrip("/")
        self._sleep = sleep
        self._chance = chance or random.SystemRandom()
        self._timeout = timeout_seconds
        self._opener = urllib.request.build_opener(_NoRedirects())

    def __repr__(self) -> str:
        """The address, never the key."""
        return f"RunPod({self._base_url})"

    # ------------------------------------------------------------ calls

    def list_pods(self) -> list[Pod]:
        """Every pod of the account."""
        pods, cursor, asked = [], None, set()
        for _ in range(MOST_PAGES):
            query = "" if cursor is None else "?" + urllib.parse.urlencode({"cursor": cursor})
            page = self._get(f"/pods{query}")
            try:
                pods += [_pod(each) for each in _list_in(page, "pods")]
            except (KeyError, TypeError, ValueError) as error:
                msg = f"RunPod lists a pod that cannot be read ({_reason(error)}); its API may have changed"
                raise NoAnswerError(msg) from None
            paging = page.get("pagination")
            cursor = (
                paging.get("nextCursor") if isinstance(paging, dict) and paging.get("hasNextPage") else None
            )
            if cursor is None:
                return pods
            if cursor in asked:
                break
            asked.add(cursor)
        msg = "RunPod's listing of pods does not end; look at the console before anything is made or deleted"
        raise NoAnswerError(msg)

    def create_pod(self, body: Mapping[str, Any]) -> Pod:
        """Make a pod.

        Raises NoCapacityError, LostError, KeyRefusedError, NoBalanceError, and InputError for a request that would be
        refused every time.
        """
        for last in [False] * (TRIES - 1) + [True]:
            try:
                return _pod(self._send("POST", "/pods", body))
            except _Answer as answer:
                if answer.status == HTTPStatus.REQUEST_TIMEOUT:
                    raise LostError(_unanswered(body, answer)) from None
                if answer.status == 429 and not last:  # refused before anything was done
                    self._sleep(answer.retry_after or self._pause(1))
                    continue
                raise self._meaning(answer) from None
            except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
                raise LostError(_unanswered(body, _reason(error))) from None
        raise AssertionError

    def delete_pod(self, pod_id: str) -> None:
        """Delete a pod and its disk; one that is gone is fine."""
        with contextlib.suppress(_MissingError):
            self._try("DELETE", f"/pods/{urllib.parse.quote(pod_id, safe='')}")

    def list_gpus(self) -> list[Offer]:
        """The GPUs that are for rent."""
        return [
            Offer(
                id=str(each["id"]),
                name=str(each.get("name", each["id"])),
                dollars_per_hour=_prices(each.get("price")),
            )
            for each in _list_in(self._get("/catalog/gpus"), "gpus")
            if "id" in each
        ]

    def data_center_of(self, volume: str) -> str:
        """Where a network volume lies; raises InputError where there is none of that id."""
        try:
            found = self._get(f"/network-volumes/{urllib.parse.quote(volume, safe='')}")
        except _MissingError:
            msg = f"volume {volume!r}: the account has no network volume of that id; copy the id from the console"
            raise InputError(msg) from None
        return str(found.get("dataCenter", ""))

    def log_lines(self, pod_id: str, *, tail: int = 100, seconds: float = 5.0) -> Iterator[str]:
        """The last lines that a pod's process wrote, for `seconds` at the most; nothing where they cannot be read."""
        path = f"/pods/{urllib.parse.quote(pod_id, safe='')}/logs?source=container&tail={tail}"
        ends = time.monotonic() + seconds
        with (
            contextlib.suppress(OSError, HTTPException, ValueError, _Answer),
            self._open("GET", path, None, timeout=seconds) as stream,
        ):
            for raw in stream:
                if raw.startswith(b"data:"):
                    event = json.loads(raw[5:])
                    if isinstance(event, dict):
                        yield str(event.get("line", ""))
                if time.monotonic() >= ends:
                    return

    # ------------------------------------------------------------ the wire

    def _get(self, path: str) -> dict[str, Any]:
        return self._try("GET", path)

    def _try(self, method: str, path: str) -> dict[str, Any]:
        reason = ""
        for number in range(TRIES):
            wait = None
            try:
                return self._send(method, path, None)
            except _Answer as answer:
                if answer.status == 404:
                    raise _MissingError(path) from None
                if answer.status not in {HTTPStatus.REQUEST_TIMEOUT, 429} and answer.status < 500:
                    raise self._meaning(answer) from None
                wait, reason = answer.retry_after, str(answer)
            except (OSError, HTTPException, ValueError) as error:
                reason = _reason(error)
            if number < TRIES - 1:
                self._sleep(self._pause(number) if wait is None else wait)
        msg = f"RunPod gave no answer to {method} {path.partition('?')[0]} in {TRIES} tries ({reason}); try again later"
        raise NoAnswerError(msg)

    def _pause(self, number: int) -> float:
        """Seconds before another try: random up to a limit that doubles, so that many callers do not come at once."""
        return self._chance.uniform(0, min(FIRST_PAUSE_SECONDS * 2**number, LONGEST_PAUSE_SECONDS))

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        with self._open(method, path, body, timeout=self._timeout) as answer:
            content = answer.read()
        found = json.loads(content) if content else {}
        if not isinstance(found, dict):
            msg = "the answer is not a JSON object"
            raise ValueError(msg)
        return found

    @contextlib.contextmanager
    def _open(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, timeout: float
    ) -> Iterator[IO[bytes]]:
        request = urllib.request.Request(  # noqa: S310  `__init__` lets https and loopback pass alone
            self._base_url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Accept": "application/json", "User-Agent": f"assay/{__version__}"},
        )
        request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            with error:
                detail = _detail(error).replace(self._key, "***")
                raise _Answer(error.code, detail, error.headers.get("Retry-After")) from None

    def _meaning(self, answer: "_Answer") -> Exception:
        said = answer.detail
        if answer.status == 401:
            return KeyRefusedError(
                f"RunPod does not know the key in {KEY} ({said}); create one and export it"
            )
        if answer.status == 403:
            way_out = "give it the right to read and write pods in RunPod's settings"
            return KeyRefusedError(f"the key in {KEY} may not do this ({said}); {way_out}")
        if answer.status == 402:
            return NoBalanceError(
                f"this account of RunPod has no money left ({said}); add some in the console"
            )
        if answer.status == 400 and _NO_MACHINES.search(said):
            return NoCapacityError(f"RunPod has no such machine free ({said})")
        if answer.status >= 500:
            return LostError(f"RunPod answered {answer.status} ({said})")
        return InputError(
            f"RunPod refuses the request with {answer.status} ({said}); change the settings it names"
        )


class _Answer(Exception):  # noqa: N818  an answer that is an error
    def __init__(self, status: int, detail: str, retry_after: str | None) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.retry_after = (
            min(float(retry_after), LONGEST_PAUSE_SECONDS)
            if retry_after is not None and retry_after.isascii() and retry_after.isdecimal()
            else None
        )


class _MissingError(Exception):
    """404."""


def _detail(error: urllib.error.HTTPError) -> str:
    """What an answer says in words, from a problem of RFC 9457 or whatever came."""
    try:
        content = error.read(65_536)
        found = json.loads(content)
    except (OSError, HTTPException, ValueError):
        return str(error.reason)
    if not isinstance(found, dict):
        return str(error.reason)
    errors = found.get("errors")
    parts = [found.get("detail") or found.get("title") or str(error.reason)]
    parts += errors if isinstance(errors, list) else []
    return " ".join("; ".join(str(part) for part in parts).split())[:500]


def _reason(error: BaseException) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return " ".join(f"{type(inner).__name__}: {inner}".split()) if str(inner) else type(inner).__name__


def _list_in(page: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = page.get(name)
    if not isinstance(found, list):
        msg = f"RunPod's answer has no list {name!r}; its API may have changed; look for a newer Assay"
        raise NoAnswerError(msg)
    return [each for each in found if isinstance(each, dict)]


def _unanswered(body: Mapping[str, Any], reason: object) -> str:
    return f"RunPod gave no answer to the creation of {body['name']} ({reason})"


def _prices(found: object) -> dict[str, float]:
    prices = found if isinstance(found, dict) else {}
    return {
        str(cloud).upper(): float(price) for cloud, price in prices.items() if isinstance(price, int | float)
    }


def _pod(found: Mapping[str, Any]) -> Pod:
    return Pod(
        id=str(found["id"]),
        name=str(found.get("name", "")),
        status=str(found.get("status", "")),
        dollars_per_hour=float(found.get("cost") or 0.0),
        created_at=_unix_seconds(found.get("createdAt")),
    )


def _unix_seconds(text: object) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return time.time()
