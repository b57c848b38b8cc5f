"""Bodies of requests, checked where they enter; and the shapes of answers, for the OpenAPI document."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails

from assay.serve.refusals import Refusal

_STRICT = ConfigDict(strict=True, extra="forbid")
_LENIENT = ConfigDict(strict=True, extra="ignore")
"""TEI's clients send more than its server reads."""
_TEXT_OR_PAIR = {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2}
_INPUTS = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        _TEXT_OR_PAIR,
        {"type": "array", "items": _TEXT_OR_PAIR, "minItems": 1},
    ]
}
"""What `sequences` takes apart."""
_TEXTS = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
    ]
}
"""What `texts_of` takes."""
_WANTED = "a text, a pair [text, text] or a batch [[text], [text, text], ...]"
_EMPTY = {"string_too_short": "character", "too_short": "text"}
"""What is missing, by pydantic's types of error: the shortest that is taken has one."""
_MOST_ERRORS = 3
_MOST_CHARS = 200
EXAMPLE = "Shares of the chip maker rose after a strong quarter."


TruncationDirection = Annotated[
    Literal["Right", "Left", "right", "left"] | None,
    Field(description="Whether a text that is too long loses its end (Right, the default) or its beginning."),
]


class PredictRequest(BaseModel):
    """One text, or one pair of texts."""

    model_config = _STRICT
    text: Annotated[str, Field(min_length=1, examples=[EXAMPLE])]
    text_pair: Annotated[str | None, Field(description="Second text, for pair models.")] = None
    details: Annotated[bool, Field(description="Add num_tokens, truncated and timings.")] = False


class BatchRequest(BaseModel):
    """Several texts, or several pairs."""

    model_config = _STRICT
    texts: Annotated[list[str], Field(min_length=1, examples=[[EXAMPLE, "The home side won in extra time."]])]
    text_pairs: Annotated[list[str] | None, Field(description="Second texts, as many, for pair models.")] = (
        None
    )
    details: Annotated[bool, Field(description="Add num_tokens, truncated and timings.")] = False


class InputsRequest(BaseModel):
    """A request of text-embeddings-inference."""

    model_config = _LENIENT
    inputs: Annotated[
        Any,
        Field(
            description="A text; a pair [text, text]; or a batch [[text], [text, text], ...].",
            examples=[EXAMPLE],
        ),
        WithJsonSchema(_INPUTS),
    ]
    truncate: Annotated[
        bool | None, Field(description="Cut what is too long (true) or refuse it (false).")
    ] = None
    truncation_direction: TruncationDirection = None
    raw_scores: Annotated[bool, Field(description="Give logits instead of probabilities.")] = False


class RerankRequest(BaseModel):
    """A request of text-embeddings-inference, for pair models."""

    model_config = _LENIENT
    query: Annotated[str, Field(min_length=1, examples=["What is deep learning?"])]
    texts: Annotated[list[str], Field(min_length=1, examples=[["Deep learning is ...", "A river is ..."]])]
    truncate: bool | None = None
    truncation_direction: TruncationDirection = None
    raw_scores: bool = False
    return_text: bool = False


class _VectorRequest(BaseModel):
    """What may be asked of vectors."""

    model_config = _LENIENT
    truncate: bool | None = None
    truncation_direction: TruncationDirection = None
    normalize: Annotated[
        bool | None, Field(description="Give vectors of length 1 (true) or as they are (false).")
    ] = None
    prompt_name: Annotated[
        str | None, Field(description="Name of the model's prompt to put before each text.")
    ] = None
    dimensions: Annotated[
        int | None, Field(description="Length of the vectors; that of the model alone is given.")
    ] = None


class EmbedRequest(_VectorRequest):
    """A request of text-embeddings-inference, for encoders."""

    inputs: Annotated[
        Any, Field(description="A text, or a list of texts.", examples=[EXAMPLE]), WithJsonSchema(_TEXTS)
    ]


class EmbeddingsRequest(_VectorRequest):
    """A request in OpenAI's shape, for encoders; beyond it, what `/embed` takes too."""

    input: Annotated[
        Any, Field(description="A text, or a list of texts.", examples=[EXAMPLE]), WithJsonSchema(_TEXTS)
    ]
    model: Annotated[str | None, Field(description="Not read: there is one model.")] = None
    encoding_format: Annotated[
        Literal["float", "base64"] | None,
        Field(description="Numbers, or float32 with the least significant byte first in base64."),
    ] = None


class RequestTimings(BaseModel):
    """Where the time of a request went, milliseconds."""

    tokenize_ms: float
    queue_ms: float
    forward_ms: float


class PredictResponse(BaseModel):
    """What the model says of a text; which members there are depends on the task."""

    label: Annotated[str | None, Field(description="The predicted label; single-label models.")] = None
    confidence: Annotated[float | None, Field(description="Its probability; single-label models.")] = None
    labels: Annotated[list[str] | None, Field(description="The labels that hold; multi-label models.")] = None
    all_probabilities: Annotated[dict[str, float] | None, Field(description="Of each label.")] = None
    score: Annotated[float | None, Field(description="The predicted number; regression.")] = None
    int_score: Annotated[int | None, Field(description="The same, rounded and clipped; regression.")] = None
    interval: Annotated[list[float] | None, Field(description="Where the number lies; regression.")] = None
    stage: Annotated[
        Literal["bi-only", "two-stage"] | None,
        Field(description="Whether both models of a cascade were asked."),
    ] = None
    bi_probability: Annotated[
        float | None, Field(description="A cascade's first model's probability of the second label.")
    ] = None
    bi_confidence: Annotated[float | None, Field(description="That of the likelier label.")] = None
    cross_probability: Annotated[
        float | None, Field(description="The same of the second model, where it was asked.")
    ] = None
    cross_confidence: Annotated[float | None, Field(description="That of the likelier label.")] = None
    final_probability: Annotated[float | None, Field(description="Of both together; a cascade.")] = None
    same_book: Annotated[
        bool | None, Field(description="Whether the pair has the second label; a cascade.")
    ] = None
    num_tokens: Annotated[int | None, Field(description="Tokens of the text; with details.")] = None
    truncated: Annotated[bool | None, Field(description="Whether it was cut; with details.")] = None
    timings: Annotated[RequestTimings | None, Field(description="Of the request; with details.")] = None


class LabelScore(BaseModel):
    """A label and its score, as text-embeddings-inference has it."""

    label: str
    score: float


class RankedText(BaseModel):
    """A text's place among those reranked."""

    index: int
    score: float
    text: str | None = None


class Embedding(BaseModel):
    """The vector of a text, as OpenAI has it."""

    object: Literal["embedding"]
    embedding: list[float] | str
    index: int


class Usage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """The vectors of texts in order, as OpenAI has it."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class OpenAIError(BaseModel):
    """An answer that says why there is no vector, under `/v1/`."""

    message: str
    code: int
    type: str
    request_id: str


class Error(BaseModel):
    """An answer that says why there is no score."""

    error: str
    error_type: str
    request_id: str


def check(model: type[BaseModel], content: object) -> Any:  # noqa: ANN401  an instance of the model
    """The checked body; raises Refusal with where it is wrong and how, never with what it holds."""
    if not isinstance(content, dict):
        raise Refusal("invalid", "the body is not a JSON object; /docs has examples")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        said = [f"{'.'.join(map(str, each['loc']))}: {_plain(each)}" for each in found[:_MOST_ERRORS]]
        is_empty = all(each["type"] in _EMPTY for each in found)
        message = "; ".join(part[:_MOST_CHARS] for part in said)
        raise Refusal("empty" if is_empty else "invalid", message) from None


def _plain(error: ErrorDetails) -> str:
    """In pydantic's own words, but for what is empty."""
    return f"empty; send at least one {wanted}" if (wanted := _EMPTY.get(error["type"])) else error["msg"]


def sequences(inputs: object) -> tuple[list[tuple[str, str | None]], bool]:
    """TEI's `inputs` as texts and second texts, and whether they are a batch; raises Refusal."""
    if isinstance(inputs, str) and inputs:
        return [(inputs, None)], False
    if inputs in ("", []):
        raise Refusal("empty", f"inputs: empty; {_WANTED} is needed")
    if isinstance(inputs, list) and all(isinstance(each, str) for each in inputs):
        return [_sequence(inputs, "inputs")], False
    if isinstance(inputs, list) and all(isinstance(each, list) for each in inputs):
        return [_sequence(each, f"inputs.{index}") for index, each in enumerate(inputs)], True
    raise Refusal("invalid", f"inputs: {_WANTED} is needed")


def _sequence(texts: list[object], where: str) -> tuple[str, str | None]:
    match texts:
        case [str() as first]:
            return first, None
        case [str() as first, str() as second]:
            return first, second
    raise Refusal("invalid", f"{where}: one text, or a pair of texts, is needed")


def texts_of(inputs: object, where: str) -> list[str]:
    """The texts of a request for vectors; raises Refusal for an empty one, and for what is not a text."""
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(texts, list):
        raise Refusal("invalid", f"{where}: a text or a list of texts is needed")
    if not texts:
        raise Refusal("empty", f"{where}: empty; send at least one text")
    for index, text in enumerate(texts):
        place = where if isinstance(inputs, str) else f"{where}.{index}"
        if not isinstance(text, str):
            raise Refusal("invalid", f"{place}: not a text; token ids are not taken, send the text itself")
        if not text:
            raise Refusal("empty", f"{place}: empty; send at least one character")
    return texts
