"""The OpenAPI document with examples, and `/docs`: the same as one page without scripts."""

import html
import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from assay._version import __version__
from assay.serve.models import (
    BatchRequest,
    EmbeddingsRequest,
    EmbeddingsResponse,
    EmbedRequest,
    Error,
    InputsRequest,
    LabelScore,
    OpenAIError,
    PredictRequest,
    PredictResponse,
    RankedText,
    RerankRequest,
)

Json = dict[str, Any]


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT = "Shares of the chip maker rose after a strong quarter."
_SECOND = "The home side won in extra time."
_PREDICTION: Json = {
    "label": "Business",
    "confidence": 0.92,
    "all_probabilities": {"World": 0.02, "Sports": 0.01, "Business": 0.92, "Sci/Tech": 0.05},
}
_SCORES = [{"label": "Business", "score": 0.92}, {"label": "World", "score": 0.08}]

_RERANK: Json = {
    "a query and texts": {
        "query": "What is deep learning?",
        "texts": ["Deep learning is ...", "A river is ..."],
        "return_text": True,
    }
}
_RANKS: Json = {"a query and texts": [{"index": 0, "score": 0.97}, {"index": 1, "score": 0.02}]}
_VECTORS = [[0.0312, -0.1177, 0.0894], [0.0461, -0.0390, -0.0224]]
_OF_HOST: Json = {"TEI": {"inputs": _TEXT}, **_RERANK}

REQUEST_EXAMPLES: Mapping[str, Json] = {
    "predict": {
        "one text": {"text": _TEXT},
        "with details": {"text": _TEXT, "details": True},
        "a pair": {"text": "What is deep learning?", "text_pair": "Deep learning is ..."},
        "TEI": {"inputs": _TEXT, "truncate": True, "truncation_direction": "Left"},
        "TEI, a batch": {"inputs": [[_TEXT], [_SECOND]], "raw_scores": True},
    },
    "predict_batch": {"texts": {"texts": [_TEXT, _SECOND]}},
    "rerank": _RERANK,
    "root": _OF_HOST,
    "invocations": _OF_HOST,
    "embed": {
        "one text": {"inputs": _TEXT},
        "several": {"inputs": [_TEXT, _SECOND], "normalize": True, "truncate": True},
    },
    "embeddings": {
        "several": {"input": [_TEXT, _SECOND], "model": "any"},
        "in base64": {"input": _TEXT, "encoding_format": "base64"},
    },
}
_SCORES_OR_LIST = [_ref("LabelScores"), {"type": "array", "items": _ref("LabelScores")}]
_RANK_LIST: Json = {"type": "array", "items": _ref("RankedText")}
_BODIES: Mapping[str, tuple[str, ...]] = {
    "predict": ("PredictRequest", "InputsRequest"),
    "predict_batch": ("BatchRequest",),
    "rerank": ("RerankRequest",),
    "root": ("InputsRequest", "RerankRequest", "EmbedRequest"),
    "invocations": ("InputsRequest", "RerankRequest", "EmbedRequest"),
    "embed": ("EmbedRequest",),
    "embeddings": ("EmbeddingsRequest",),
}
_ANSWERS: Mapping[str, Json] = {
    "predict": {"anyOf": [_ref("PredictResponse"), *_SCORES_OR_LIST]},
    "predict_batch": {"type": "array", "items": _ref("PredictResponse")},
    "rerank": _RANK_LIST,
    "root": {"anyOf": [*_SCORES_OR_LIST, _RANK_LIST, _ref("Vectors")]},
    "invocations": {"anyOf": [*_SCORES_OR_LIST, _RANK_LIST, _ref("Vectors")]},
    "embed": _ref("Vectors"),
    "embeddings": _ref("EmbeddingsResponse"),
    "metrics": {"type": "string"},
}
ANSWER_EXAMPLES: Mapping[str, Json] = {
    "predict": {"one text": _PREDICTION, "TEI": _SCORES, "TEI, a batch": [_SCORES, _SCORES]},
    "predict_batch": {"texts": [_PREDICTION, _PREDICTION]},
    "rerank": _RANKS,
    "root": {"TEI": _SCORES, **_RANKS},
    "invocations": {"TEI": _SCORES, **_RANKS},
    "embed": {"one text": _VECTORS[:1], "several": _VECTORS},
    "embeddings": {
        "several": {
            "object": "list",
            "data": [
                {"object": "embedding", "embedding": vector, "index": index}
                for index, vector in enumerate(_VECTORS)
            ],
            "model": "/models/encoder",
            "usage": {"prompt_tokens": 19, "total_tokens": 19},
        }
    },
}
_ERRORS = {
    "401": "No API key, or one that is not known.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is not declared as JSON.",
    "422": "The body is not what is asked for, or beyond a limit.",
    "424": "The model is not of this kind, or cannot score this.",
    "429": "Too many requests; Retry-After says when to come back.",
    "503": "Not ready; the answer says why.",
    "504": "Not answered in time.",
}
_UNREADY = {"401", "503"}
_DESCRIPTION = (
    "Calibrated predictions of one text classifier, or the vectors of one encoder. Numbers are not rounded: they are "
    "those of `assay score` and `assay embed`. "
    "Requests of text-embeddings-inference are answered in its shapes."
)


def document(table: Mapping[str, Mapping[str, Callable[..., Any]]]) -> Json:
    """The OpenAPI document of a table of routes: path, method, and the function that answers."""
    shapes = (
        PredictRequest,
        BatchRequest,
        InputsRequest,
        RerankRequest,
        PredictResponse,
        LabelScore,
        RankedText,
        EmbedRequest,
        EmbeddingsRequest,
        EmbeddingsResponse,
        OpenAIError,
        Error,
    )
    _, found = models_json_schema(
        [(shape, "validation") for shape in shapes], ref_template="#/components/schemas/{model}"
    )
    schemas = found["$defs"]
    schemas["Vectors"] = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    schemas["LabelScores"] = {"type": "array", "items": _ref("LabelScore")}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Assay", "version": __version__, "description": _DESCRIPTION},
        "paths": {
            path: {method.lower(): operation(handler) for method, handler in methods.items()}
            for path, methods in table.items()
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Where the server has keys."}
            },
        },
        "security": [{}, {"key": []}],
    }


def operation(handler: Callable[..., Any]) -> Json:
    """What the document says of one route."""
    name = handler.__name__
    bodies = _BODIES.get(name, ())
    errors = _ERRORS if bodies else {code: text for code, text in _ERRORS.items() if code in _UNREADY}
    responses: Json = {"200": {"description": "The answer."}}
    for code, text in errors.items():
        shape = _ref("OpenAIError" if name == "embeddings" else "Error")
        content = {"application/json": {"schema": shape}}
        responses[code] = {"description": text, "content": content}
    made: Json = {
        "operationId": name,
        "summary": (handler.__doc__ or "").strip().splitlines()[0],
        "responses": responses,
    }
    media = "text/plain" if name == "metrics" else "application/json"
    responses["200"]["content"] = {media: {"schema": _ANSWERS.get(name, {})}}
    if bodies:
        refs = [_ref(body) for body in bodies]
        schema = refs[0] if len(refs) == 1 else {"anyOf": refs}
        made["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {"schema": schema, "examples": _examples(REQUEST_EXAMPLES[name])}
            },
        }
        responses["200"]["content"][media]["examples"] = _examples(ANSWER_EXAMPLES[name])
    if name in {"predict", "predict_batch"}:
        made["parameters"] = [
            {
                "name": "details",
                "in": "query",
                "required": False,
                "description": "Add num_tokens, truncated and timings.",
                "schema": {"type": "boolean", "default": False},
            }
        ]
    return made


def docs_page(made: Json) -> bytes:
    """The document as a page for people."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        "<title>Assay: HTTP interface</title><link rel='icon' href='icon.svg'>",
        "<link rel='stylesheet' href='page.css'></head><body><main>",
        f"<h1>HTTP interface</h1><p>{html.escape(made['info']['description'].replace('`', ''))} ",
        "The same for programs: <a href='openapi.json'>openapi.json</a>.</p>",
    ]
    for path, methods in made["paths"].items():
        for method, each in methods.items():
            parts.append(f"<section><h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(each['summary'])}</p>")
            body = each.get("requestBody", {}).get("content", {}).get("application/json", {})
            answer = each["responses"]["200"].get("content", {}).get("application/json", {})
            answers = answer.get("examples", {})
            for name, example in body.get("examples", {}).items():
                parts.append(f"<h3>{html.escape(name)}</h3>{_code(example['value'])}")
                if name in answers:
                    parts.append(f"<p>gives</p>{_code(answers[name]['value'])}")
            codes = "".join(
                f"<li><code>{code}</code> {html.escape(text['description'])}</li>"
                for code, text in each["responses"].items()
                if code != "200"
            )
            parts.append(f"<details><summary>Errors</summary><ul>{codes}</ul></details></section>")
    return "".join([*parts, "</main></body></html>"]).encode()


def _code(value: object) -> str:
    text = html.escape(json.dumps(value, indent=2, ensure_ascii=False))
    return f"<pre tabindex='0'><code>{text}</code></pre>"


def _examples(named: Json) -> Json:
    return {name: {"value": value} for name, value in named.items()}
