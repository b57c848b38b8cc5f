"""The same client, to be awaited: it sends, waits, and keeps several requests in flight with tasks."""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Sequence,
)
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from assay.client.calls import (
    HEALTH,
    INFO,
    Item,
    batch_call,
    embed_call,
    embed_tail,
    one_call,
    pack,
    quote_all,
    quote_for_vectors,
    rerank_call,
)
from assay.client.connection import check_settings, headers_of, lost
from assay.client.replies import (
    Health,
    Info,
    JsonObject,
    Prediction,
    RerankedText,
    joined_vectors,
    read_health,
    read_info,
    read_predictions,
    read_ranks,
    read_vectors,
)
from assay.client.rows import (
    Row,
    StreamColumns,
    check_columns,
    read_row,
    row_bytes,
    row_packer,
    score_rows,
    scored_rows,
)
from assay.client.wire import Call, Lost, Reply, Retrying, Steps, Wait, exchange
from assay.extras import need_packages

if TYPE_CHECKING:
    import httpx
    import numpy as np
    import numpy.typing as npt

T = TypeVar("T")
R = TypeVar("R")


class AsyncClient:
    """The same as `Client`, to be awaited; for one event loop. Close it with `aclose` or `async with`."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 5,
        in_flight: int = 4,
        transport: "httpx.AsyncBaseTransport | None" = None,
    ) -> None:
        self._settings = check_settings(url, api_key, timeout, retries, in_flight)
        need_packages("httpx", used_by="assay.Client")
        import httpx

        self._http = httpx.AsyncClient(
            base_url=self._settings.url,
            headers=headers_of(self._settings),
            timeout=timeout,
            # `in_flight` bounds them, and each is used again
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            transport=transport,
        )
        self._retrying = Retrying(retries=retries, jitter=random.random)
        self._info: Info | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def health(self) -> Health:
        """As `Client.health`."""
        return read_health(await self._drive(exchange(HEALTH, retries=0, jitter=random.random)))

    async def info(self) -> Info:
        """As `Client.info`."""
        self._info = read_info(await self._send(INFO))
        return self._info

    async def predict(self, text: str, text_pair: str | None = None) -> Prediction:
        """As `Client.predict`."""
        return read_predictions(await self._send(one_call(text, text_pair)), 1)[0]

    async def predict_batch(
        self, texts: Iterable[str], text_pairs: Iterable[str] | None = None, *, details: bool = False
    ) -> list[Prediction]:
        """As `Client.predict_batch`."""
        items = quote_all(texts, text_pairs)
        batches = pack(items, self._info or await self.info()) if items else ()

        async def work(batch: list[Item]) -> list[Prediction]:
            return read_predictions(await self._send(batch_call(batch, details=details)), len(batch))

        return [prediction async for found in self._spread(work, _each(batches)) for prediction in found]

    async def stream(
        self,
        rows: Iterable[JsonObject] | AsyncIterable[JsonObject],
        text_column: str = "text",
        *,
        text_pair_column: str | None = None,
        details: bool = False,
    ) -> AsyncIterator[dict[str, Any]]:
        """As `Client.stream`; the rows may come from an asynchronous iterator too."""
        info = self._info or await self.info()
        check_columns(info, text_pair_column)
        columns = StreamColumns(info, details=details)

        async def work(batch: list[Row]) -> list[Row]:
            return await self._drive(score_rows(batch, details=details, **self._retrying))

        async def batches() -> AsyncIterator[list[Row]]:
            packer = row_packer(info)
            async for row in _each(rows):
                ready = read_row(row, text_column, text_pair_column, info)
                full = packer.add(ready, row_bytes(ready))
                if full:
                    yield full
            yield packer.rest()

        async with contextlib.aclosing(self._spread(work, batches())) as spread:
            async for batch in spread:
                for row in scored_rows(batch, columns.learn(batch), details=details):
                    yield row

    async def embed(
        self,
        texts: Iterable[str],
        *,
        prompt_name: str | None = None,
        normalize: bool | None = None,
        truncate: bool | None = None,
    ) -> "npt.NDArray[np.float32]":
        """As `Client.embed`."""
        items = quote_for_vectors(texts)
        tail = embed_tail(prompt_name=prompt_name, normalize=normalize, truncate=truncate)
        info = self._info or await self.info()
        batches = pack(items, info, envelope_bytes=len(embed_call([], tail).body or b""))

        async def work(batch: list[Item]) -> "npt.NDArray[np.float32]":
            return read_vectors(await self._send(embed_call(batch, tail)), len(batch))

        return joined_vectors([part async for part in self._spread(work, _each(batches))], info.dimension)

    async def rerank(
        self, query: str, texts: Sequence[str], *, raw_scores: bool = False, return_text: bool = False
    ) -> list[RerankedText]:
        """As `Client.rerank`."""
        call = rerank_call(query, texts, raw_scores=raw_scores, return_text=return_text)
        return read_ranks(await self._send(call))

    async def _spread(
        self, work: Callable[[T], Coroutine[Any, Any, R]], batches: AsyncIterable[T]
    ) -> AsyncGenerator[R]:
        """What `work` makes of each batch, in order, several at once, taking few batches ahead."""
        limit = self._settings.in_flight
        under_way: deque[asyncio.Task[R]] = deque()
        try:
            async for batch in batches:
                under_way.append(asyncio.create_task(work(batch)))
                if len(under_way) >= limit:
                    yield await under_way.popleft()
            while under_way:
                yield await under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _send(self, call: Call) -> Reply:
        return await self._drive(exchange(call, **self._retrying))

    async def _drive(self, steps: Steps[T]) -> T:
        outcome: Reply | Lost | None = None
        try:
            while True:
                step = steps.send(outcome)
                if isinstance(step, Wait):
                    await asyncio.sleep(step.seconds)
                    outcome = None
                else:
                    outcome = await self._try(step)
        except StopIteration as done:
            return cast("T", done.value)

    async def _try(self, call: Call) -> Reply | Lost:
        import httpx

        try:
            response = await self._http.request(call.method, call.path, content=call.body)
        except httpx.HTTPError as error:
            return lost(error)
        return Reply(status=response.status_code, body=response.content, headers=dict(response.headers))


async def _each(rows: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """The same items, whichever way they come."""
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row
