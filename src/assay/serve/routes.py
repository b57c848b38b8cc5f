"""The HTTP interface: Assay's own routes, and those of text-embeddings-inference under the same addresses."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt
import orjson

from assay._version import __version__
from assay.bundle.bundle import Bundle
from assay.serve import answers, models
from assay.serve.bodies import Held, read_json
from assay.serve.cascade import CascadeDeployment
from assay.serve.deployment import Deployment
from assay.serve.docs import docs_page, document
from assay.serve.edge import EXCHANGE, Answer, App, Exchange, Receive, Scope
from assay.serve.kinds import ServedClassifier, ServedEncoder
from assay.serve.metrics import CONTENT_TYPE, Metrics, RequestKind
from assay.serve.models import (
    BatchRequest,
    EmbeddingsRequest,
    EmbedRequest,
    InputsRequest,
    PredictRequest,
    RerankRequest,
)
from assay.serve.page import CONTENT_SECURITY_POLICY, read_page_files
from assay.serve.refusals import Refusal
from assay.serve.service import Service
from assay.serve.settings import ServeSettings
from assay.serve.tickets import AnsweredText, How, RequestTexts, Ticket
from assay.serve.vectors import stacked
from assay.tasks import Task
from assay.tokenize.content import TruncationSide
from assay.tokenize.settings import ONE_PIECE, WINDOWS

DOCS_PATHS = ("/docs", "/openapi.json")
PROBE_PATHS = ("/health", "/ping", "/live")


@dataclass(frozen=True, slots=True)
class Request:
    """What a route is asked."""

    scope: Scope
    receive: Receive


TeiRequest = InputsRequest | RerankRequest | EmbedRequest | EmbeddingsRequest
AS_TOLD = How()
"""Read as the server was told."""
Handler = Callable[[Request], Awaitable[Answer]]


class Routes:
    """What each route does."""

    def __init__(self, service: Service, settings: ServeSettings, metrics: Metrics) -> None:
        """Answer with what `service` scores."""
        self._service = service
        self._settings = settings
        self._metrics = metrics
        self.held = Held()
        self.held.most_bytes //= service.num_processes
        self._limit = service.limit

    # ------------------------------------------------------------ predictions

    async def predict(self, request: Request) -> Answer:
        """A text or a pair, in Assay's shape or in that of text-embeddings-inference."""
        content = await self._body(request)
        wants_details = _wants_details(request)
        if isinstance(content, dict) and "inputs" in content:
            return await self._predict_inputs(request, models.check(InputsRequest, content))
        asked: PredictRequest = models.check(PredictRequest, content)
        bundle, ticket, found = await self._score(request, [(asked.text, asked.text_pair)])
        answer = answers.prediction(bundle, found[0])
        if wants_details or asked.details:
            answers.add_details(answer, found[0], ticket)
        return _json(answer)

    async def root(self, request: Request) -> Answer:
        """What text-embeddings-inference answers by its host alone: as /predict or /embed, a `query` as /rerank."""
        content = await self._body(request)
        if isinstance(content, dict) and "query" in content and "inputs" not in content:
            return await self._rerank(request, models.check(RerankRequest, content))
        if isinstance(self._deployment().model, ServedEncoder):
            return await self._embed(request, models.check(EmbedRequest, content))
        return await self._predict_inputs(request, models.check(InputsRequest, content))

    async def invocations(self, request: Request) -> Answer:
        """The same at the address that SageMaker asks."""
        return await self.root(request)

    async def _predict_inputs(self, request: Request, asked: InputsRequest) -> Answer:
        texts, is_batch = models.sequences(asked.inputs)
        bundle, ticket, found = await self._score(request, texts, self._how(asked), is_batch=is_batch)
        scores = [answers.label_scores(bundle, scored, raw_scores=asked.raw_scores) for scored in found]
        return _json(scores if is_batch else scores[0], _times(ticket, found))

    async def predict_batch(self, request: Request) -> Answer:
        """Several texts or pairs; a prediction for each, in order."""
        asked: BatchRequest = models.check(BatchRequest, await self._body(request))
        wants_details = _wants_details(request) or asked.details
        pairs: Sequence[str | None] = (
            [None] * len(asked.texts) if asked.text_pairs is None else asked.text_pairs
        )
        if len(pairs) != len(asked.texts):
            message = f"text_pairs: {len(pairs)} second texts for {len(asked.texts)} texts; a pair needs both"
            raise Refusal("invalid", message)
        texts = list(zip(asked.texts, pairs, strict=True))
        bundle, ticket, found = await self._score(request, texts, is_batch=True)
        predictions = [answers.prediction(bundle, scored) for scored in found]
        if wants_details:
            for answer, scored in zip(predictions, found, strict=True):
                answers.add_details(answer, scored, ticket)
        return _json(predictions)

    async def rerank(self, request: Request) -> Answer:
        """Texts by how well they answer a query, the best first; for pair models of one or two outputs."""
        return await self._rerank(request, models.check(RerankRequest, await self._body(request)))

    async def _rerank(self, request: Request, asked: RerankRequest) -> Answer:
        bundle = self._classifier().bundle
        if bundle.is_pair is False or len(bundle.labels) > 2 or bundle.task is Task.MULTI_LABEL:
            message = "this model does not rerank; that needs a pair model of one output or two labels"
            raise Refusal("not_this_model", message)
        pairs = [(asked.query, text) for text in asked.texts]
        bundle, ticket, found = await self._score(
            request, pairs, self._how(asked), work="rerank", is_batch=True
        )
        ranked = answers.ranks(
            bundle, found, asked.texts, raw_scores=asked.raw_scores, return_text=asked.return_text
        )
        return _json(ranked, _times(ticket, found))

    # ------------------------------------------------------------ vectors

    async def embed(self, request: Request) -> Answer:
        """A vector for each text, in order, as text-embeddings-inference gives them; for encoders."""
        return await self._embed(request, models.check(EmbedRequest, await self._body(request)))

    async def _embed(self, request: Request, asked: EmbedRequest) -> Answer:
        _, ticket, found, vectors_ND = await self._vectors(request, asked, asked.inputs, "inputs")
        return _json(vectors_ND, _times(ticket, found))

    async def embeddings(self, request: Request) -> Answer:
        """The same in the shape of OpenAI's interface; for encoders."""
        asked: EmbeddingsRequest = models.check(EmbeddingsRequest, await self._body(request))
        model, ticket, found, vectors_ND = await self._vectors(request, asked, asked.input, "input")
        answer = answers.embeddings(
            vectors_ND,
            model_id=str(model.path),
            num_tokens=sum(each.num_tokens for each in found),
            encoding_format=asked.encoding_format or "float",
        )
        return _json(answer, _times(ticket, found))

    async def _vectors(
        self, request: Request, asked: EmbedRequest | EmbeddingsRequest, inputs: object, where: str
    ) -> tuple[ServedEncoder, Ticket, list[AnsweredText], npt.NDArray[np.float32]]:
        """The vectors [N, D] of a request's texts; raises Refusal where the model is a classifier."""
        texts = models.texts_of(inputs, where)
        deployment = self._deployment()
        model = deployment.model
        if not isinstance(model, ServedEncoder):
            message = "this server's model is a classifier and gives no vectors; ask /predict, or an encoder's server"
            raise Refusal("not_this_model", message)
        if asked.dimensions not in {None, model.num_outputs}:
            message = f"dimensions: {asked.dimensions}; this model gives {model.num_outputs}; leave it out"
            raise Refusal("invalid", message)
        prompt = _prompt(model, asked.prompt_name)
        how = self._how(asked, normalize=model.normalized if asked.normalize is None else asked.normalize)
        ticket, found = await self._answer(
            request,
            [(prompt + text, None) for text in texts],
            how,
            work="embed",
            is_batch=not isinstance(inputs, str),
        )
        vectors = [each.vector for each in found]
        is_mean = deployment.encoder.on_long in WINDOWS
        return model, ticket, found, stacked(vectors, normalize=how.normalize and is_mean)

    # ------------------------------------------------------------ the server itself

    async def health(self, request: Request) -> Answer:
        """200 while predictions are answered, else 503 and why not."""
        del request
        trouble = self._service.trouble()
        if trouble is not None:
            raise Refusal("unhealthy", f"not ready: {trouble}", {"Retry-After": "1"})
        return _json({"status": "healthy", "model_loaded": True})

    async def ping(self, request: Request) -> Answer:
        """The same as /health, at the address that SageMaker asks."""
        return await self.health(request)

    async def live(self, request: Request) -> Answer:
        """200 as long as the process answers at all."""
        del request
        return _json({"status": "live"})

    async def info(self, request: Request) -> Answer:
        """What is served, and within which limits."""
        del request
        deployment = self._deployment()
        model, encoder = deployment.model, deployment.encoder
        ready = deployment.ready_engines()
        return _json(
            {
                "model_id": str(model.path),
                "model_sha": model.fingerprint,
                "model_dtype": next((each.dtype for each in ready), self._settings.precision),
                "max_concurrent_requests": self._settings.max_queue,
                "max_input_length": encoder.max_length,
                "max_batch_tokens": self._settings.max_batch_tokens
                or max((each.default_batch_tokens for each in ready), default=0),
                "max_batch_requests": None,
                "max_client_batch_size": self._settings.max_client_batch_size,
                "auto_truncate": self._settings.on_long != "error",
                "tokenization_workers": deployment.num_tokenizing_threads * self._service.num_processes,
                "version": __version__,
                "fingerprint": model.fingerprint,
                "is_pair": model.is_pair,
                **model.info(),
                "on_long": self._settings.on_long,
                "max_queue": self._settings.max_queue,
                "max_body_bytes": self._settings.max_body_bytes,
                "max_text_chars": self._settings.max_text_chars,
                "timeout_seconds": self._settings.timeout,
                "engines": [each.description for each in ready],
            }
        )

    async def metrics(self, request: Request) -> Answer:
        """Counters, for Prometheus."""
        del request
        return Answer(await self._service.exposition(), CONTENT_TYPE)

    # ------------------------------------------------------------ shared steps

    async def _body(self, request: Request) -> Any:  # noqa: ANN401  JSON
        return await read_json(
            request.scope,
            request.receive,
            held=self.held,
            max_bytes=self._settings.max_body_bytes,
            timeout_seconds=self._settings.timeout,
        )

    def _deployment(self) -> Deployment | CascadeDeployment:
        deployment = self._service.deployment
        if deployment is None:
            raise Refusal("unhealthy", f"not ready: {self._service.trouble()}", {"Retry-After": "1"})
        return deployment

    def _classifier(self) -> ServedClassifier:
        model = self._deployment().model
        if not isinstance(model, ServedClassifier):
            message = "this server's model is an encoder and gives vectors, not predictions; ask /embed"
            raise Refusal("not_this_model", message)
        return model

    async def _score(
        self,
        request: Request,
        texts: RequestTexts,
        how: How = AS_TOLD,
        *,
        work: RequestKind = "predict",
        is_batch: bool = False,
    ) -> tuple[Bundle, Ticket, list[AnsweredText]]:
        """The scores of texts, and the bundle that they are of; raises Refusal where the model is an encoder."""
        # until it is admitted, nothing is awaited: what answers is this model
        bundle = self._classifier().bundle
        return bundle, *await self._answer(request, texts, how, work=work, is_batch=is_batch)

    async def _answer(
        self, request: Request, texts: RequestTexts, how: How, *, work: RequestKind, is_batch: bool
    ) -> tuple[Ticket, list[AnsweredText]]:
        """What the model says of texts within every limit; counts the request, and its answer once written."""
        exchange: Exchange = request.scope[EXCHANGE]
        exchange.documents = len(texts)
        if self._settings.log_texts:
            exchange.texts = texts
        self._metrics.request(work, is_batch=is_batch, num_documents=len(texts))
        self._check(texts)
        self._check_rate(exchange, len(texts))
        deployment = self._service.admit(self._deployment().num_documents(texts))
        ticket, found = await deployment.answer(
            texts, how, request_id=exchange.request_id, receive=request.receive
        )
        exchange.tokens = sum(each.num_tokens for each in found)
        total = time.perf_counter() - ticket.arrived_at
        exchange.when_answered = partial(
            self._count, ticket, total, work=work, is_batch=is_batch, found=found
        )
        return ticket, found

    def _count(
        self,
        ticket: Ticket,
        total: float,
        *,
        work: RequestKind,
        is_batch: bool,
        found: Sequence[AnsweredText],
    ) -> None:
        """Count a request that was answered, and its times."""
        num_tokens = sum(each.num_tokens for each in found)
        self._metrics.success(work, is_batch=is_batch, num_documents=len(found), num_tokens=num_tokens)
        tokenize, queue, forward = answers.seconds(ticket)
        self._metrics.times(total=total, tokenize=tokenize, queue=queue, forward=forward)

    def _how(self, asked: TeiRequest, *, normalize: bool = False) -> How:
        return How(truncate=asked.truncate, truncation_side=self._side(asked), normalize=normalize)

    def _side(self, asked: TeiRequest) -> TruncationSide:
        """Where over-long texts are cut; raises Refusal where this server does not cut them on the left."""
        if (asked.truncation_direction or "right").lower() == "right":
            return "right"
        policy = self._settings.on_long
        if policy not in ONE_PIECE:
            message = f"truncation_direction: this server reads long texts by {policy}; leave Left out"
            raise Refusal("invalid", message)
        return "left"

    def _check(self, texts: RequestTexts) -> None:
        """Raise Refusal where the texts are too many, too long, or not what the model takes."""
        most, most_chars = self._settings.max_client_batch_size, self._settings.max_text_chars
        if len(texts) > most:
            raise Refusal("invalid", f"{len(texts)} texts in one request; at most {most} are taken")
        model = self._deployment().model
        is_pair = model.is_pair
        is_apart = isinstance(model, ServedClassifier) and model.siamese is not None
        for index, (first, second) in enumerate(texts):
            where = "" if len(texts) == 1 else f"text {index}: "
            num_chars = max(len(first), len(second or ""))
            if num_chars > most_chars:
                raise Refusal("invalid", f"{where}{num_chars} characters; at most {most_chars} are taken")
            if is_pair and second is None:
                raise Refusal("invalid", f"{where}this model takes pairs of texts; send a second text too")
            if is_pair is False and second is not None:
                raise Refusal("invalid", f"{where}this model takes single texts, not pairs")
            if second is not None and self._settings.on_long not in ONE_PIECE and not is_apart:
                raise Refusal(
                    "invalid", f"{where}this server takes no pairs: it runs with windows or head-tail"
                )

    def _check_rate(self, exchange: Exchange, num_documents: int) -> None:
        if self._limit is None:
            return
        seconds = self._limit.seconds_to_wait(exchange.who, num_documents, asyncio.get_running_loop().time())
        if seconds > 0:
            wait = str(max(1, round(seconds + 0.5)))
            message = f"{self._limit.per_minute} documents a minute are allowed; try again in {wait} s"
            raise Refusal("rate_limited", message, {"Retry-After": wait})


def make_app(service: Service, settings: ServeSettings, metrics: Metrics) -> App:
    """The application: every address with what it does. A table, since no address has parts that vary."""
    routes = Routes(service, settings, metrics)
    table: dict[str, dict[str, Handler]] = {
        "/predict": {"POST": routes.predict},
        "/predict/batch": {"POST": routes.predict_batch},
        "/rerank": {"POST": routes.rerank},
        "/embed": {"POST": routes.embed},
        "/v1/embeddings": {"POST": routes.embeddings},
        "/": {"POST": routes.root},
        "/invocations": {"POST": routes.invocations},
        "/health": {"GET": routes.health},
        "/ping": {"GET": routes.ping},
        "/live": {"GET": routes.live},
        "/info": {"GET": routes.info},
        "/metrics": {"GET": routes.metrics},
    }
    made = document(table)
    files = {
        **read_page_files(),
        "/openapi.json": (orjson.dumps(made), "application/json"),
        "/docs": (docs_page(made), "text/html; charset=utf-8"),
    }
    for path, (content, media) in files.items():
        table.setdefault(path, {})["GET"] = _file(content, media)

    async def app(scope: Scope, receive: Receive) -> Answer:
        methods = table.get(scope["path"])
        if methods is None:
            raise Refusal("not_found", "there is nothing at this address; see /docs")
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        handler = methods.get(method)
        if handler is None:
            message = f"{scope['method'][:20]} is not for this address"
            allowed = {*methods, "HEAD"} if "GET" in methods else methods
            raise Refusal("method", message, {"Allow": ", ".join(sorted(allowed))})
        try:
            return await handler(Request(scope, receive))
        finally:
            routes.held.release(scope[EXCHANGE])

    return app


def _file(content: bytes, media: str) -> Handler:
    """A file that was read at the start."""

    async def answer(request: Request) -> Answer:
        del request
        return Answer(content, media, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})

    return answer


def _prompt(model: ServedEncoder, name: str | None) -> str:
    """What the model's files put before a text under a name; raises Refusal for one that they do not have."""
    if name is None:
        return ""
    prompts = model.embedder.files.prompts
    if name not in prompts:
        known = ", ".join(prompts) or "none"
        raise Refusal("invalid", f"prompt_name: the model has no prompt of this name; it has {known[:200]}")
    return prompts[name]


def _wants_details(request: Request) -> bool:
    """Whether the query asks for details; raises Refusal where it says neither true nor false."""
    query: bytes = request.scope["query_string"]
    if not query:
        return False
    said = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)).get("details", "false")
    if said not in {"true", "false"}:
        raise Refusal("invalid", "details in the query is neither true nor false")
    return said == "true"


def _json(content: object, headers: dict[str, str] | None = None) -> Answer:
    return Answer(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), headers=headers or {})


def _times(ticket: Ticket, found: Sequence[AnsweredText]) -> dict[str, str]:
    """TEI's headers of a request's times, milliseconds."""
    tokenize, queue, forward = (str(round(1000 * part)) for part in answers.seconds(ticket))
    total = time.perf_counter() - ticket.arrived_at
    return {
        "x-compute-tokens": str(sum(each.num_tokens for each in found)),
        "x-total-time": str(round(1000 * total)),
        "x-tokenization-time": tokenize,
        "x-queue-time": queue,
        "x-inference-time": forward,
    }
