"""The client that blocks: it sends, waits, and keeps several requests in flight with threads."""

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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


class Client:
    """A client of one server. Thread-safe; close it, or use it in a `with` block.

    `timeout` is seconds of one try, `retries` is how often a request is tried again after a lost
    connection, 429, 503 or 504; nothing else is. `in_flight` requests at most are under way at once
    in `predict_batch` and `stream`. `transport` replaces the network, for tests. Errors: UsageError
    for a wrong address or key, InputError for what the server refuses, WorkError for what failed.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 5,
        in_flight: int = 4,
        transport: "httpx.BaseTransport | None" = None,
    ) -> None:
        self._settings = check_settings(url, api_key, timeout, retries, in_flight)
        need_packages("httpx", used_by="assay.Client")
        import httpx

        self._http = httpx.Client(
            base_url=self._settings.url,
            headers=headers_of(self._settings),
            timeout=timeout,
            # `in_flight` bounds them, and each is used again
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            transport=transport,
        )
        self._retrying = Retrying(retries=retries, jitter=random.random)
        self._info: Info | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def health(self) -> Health:
        """Whether the server is ready, tried once; raises WorkError where nothing answers."""
        return read_health(self._drive(exchange(HEALTH, retries=0, jitter=random.random)))

    def info(self) -> Info:
        """What the server serves, asked again at each call."""
        self._info = read_info(self._send(INFO))
        return self._info

    def predict(self, text: str, text_pair: str | None = None) -> Prediction:
        """The prediction for one text (and its second, for pair models), with token count and timings."""
        return read_predictions(self._send(one_call(text, text_pair)), 1)[0]

    def predict_batch(
        self, texts: Iterable[str], text_pairs: Iterable[str] | None = None, *, details: bool = False
    ) -> list[Prediction]:
        """A prediction for each text, in order, in as many requests as the server's limits ask for."""
        items = quote_all(texts, text_pairs)
        batches = pack(items, self._info or self.info()) if items else ()

        def work(batch: list[Item]) -> list[Prediction]:
            return read_predictions(self._send(batch_call(batch, details=details)), len(batch))

        return [prediction for found in self._spread(work, batches) for prediction in found]

    def stream(
        self,
        rows: Iterable[JsonObject],
        text_column: str = "text",
        *,
        text_pair_column: str | None = None,
        details: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Each row with its scores added, in order; rows are taken as they are needed.

        The columns are those of a scored part. A row whose text is missing, not a string, not Unicode or
        larger than a request may be is not sent, and one that the server refuses has no scores; `error`
        says why. Raises InputError for a row that lacks a column or already has one of the scores.
        """
        info = self._info or self.info()
        check_columns(info, text_pair_column)
        columns = StreamColumns(info, details=details)

        def work(batch: list[Row]) -> list[Row]:
            return self._drive(score_rows(batch, details=details, **self._retrying))

        def batches() -> Iterator[list[Row]]:
            packer = row_packer(info)
            for row in rows:
                ready = read_row(row, text_column, text_pair_column, info)
                full = packer.add(ready, row_bytes(ready))
                if full:
                    yield full
            yield packer.rest()

        for batch in self._spread(work, batches()):
            yield from scored_rows(batch, columns.learn(batch), details=details)

    def embed(
        self,
        texts: Iterable[str],
        *,
        prompt_name: str | None = None,
        normalize: bool | None = None,
        truncate: bool | None = None,
    ) -> "npt.NDArray[np.float32]":
        """The vectors of texts, in order, float32 [N, D]; in as many requests as the server's limits ask for.

        `prompt_name` puts one of the model's prompts before each text; `normalize` and `truncate` are as the
        server was told unless they are set. Raises InputError for an empty text.
        """
        items = quote_for_vectors(texts)
        tail = embed_tail(prompt_name=prompt_name, normalize=normalize, truncate=truncate)
        info = self._info or self.info()
        batches = pack(items, info, envelope_bytes=len(embed_call([], tail).body or b""))

        def work(batch: list[Item]) -> "npt.NDArray[np.float32]":
            return read_vectors(self._send(embed_call(batch, tail)), len(batch))

        return joined_vectors(list(self._spread(work, batches)), info.dimension)

    def rerank(
        self, query: str, texts: Sequence[str], *, raw_scores: bool = False, return_text: bool = False
    ) -> list[RerankedText]:
        """The texts from the best answer to the query to the worst; pair models of one output or two."""
        call = rerank_call(query, texts, raw_scores=raw_scores, return_text=return_text)
        return read_ranks(self._send(call))

    def _spread(self, work: Callable[[T], R], batches: Iterable[T]) -> Iterator[R]:
        """What `work` makes of each batch, in order, several at once, taking few batches ahead."""
        limit = self._settings.in_flight
        under_way: deque[Future[R]] = deque()
        pool = ThreadPoolExecutor(limit, thread_name_prefix="assay-client")
        try:
            for batch in batches:
                under_way.append(pool.submit(work, batch))
                if len(under_way) >= limit:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            # Whoever stops early should not wait for the back-off of requests that nobody wants.
            pool.shutdown(wait=False, cancel_futures=True)

    def _send(self, call: Call) -> Reply:
        return self._drive(exchange(call, **self._retrying))

    def _drive(self, steps: Steps[T]) -> T:
        outcome: Reply | Lost | None = None
        try:
            while True:
                step = steps.send(outcome)
                if isinstance(step, Wait):
                    time.sleep(step.seconds)
                    outcome = None
                else:
                    outcome = self._try(step)
        except StopIteration as done:
            return cast("T", done.value)

    def _try(self, call: Call) -> Reply | Lost:
        import httpx

        try:
            response = self._http.request(call.method, call.path, content=call.body)
        except httpx.HTTPError as error:
            return lost(error)
        return Reply(status=response.status_code, body=response.content, headers=dict(response.headers))
