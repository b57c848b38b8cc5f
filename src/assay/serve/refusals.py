"""Why a request is not answered: one table from reasons to HTTP status and TEI's `error_type`.

Messages say what the client did, or that the server cannot now; never the text of an exception.
"""

from collections.abc import Mapping
from typing import Literal

from assay.errors import AssayError, InputError

Reason = Literal[
    "invalid", "empty", "too_long", "too_large", "media_type", "unauthorized", "rate_limited", "overloaded",
    "unhealthy", "timeout", "slow_body", "backend", "not_this_model", "not_found", "method", "internal",
    "malformed", "large_head",
]  # fmt: skip

STATUS: Mapping[Reason, tuple[int, str]] = {
    "invalid": (422, "validation"),
    "empty": (422, "empty"),
    "too_long": (422, "tokenizer"),
    "too_large": (413, "validation"),
    "media_type": (415, "validation"),
    "unauthorized": (401, "unauthorized"),
    "rate_limited": (429, "overloaded"),
    "overloaded": (429, "overloaded"),
    "unhealthy": (503, "unhealthy"),
    "timeout": (504, "timeout"),
    "slow_body": (408, "timeout"),
    "backend": (424, "backend"),
    "not_this_model": (424, "backend"),
    "not_found": (404, "validation"),
    "method": (405, "validation"),
    "internal": (500, "backend"),
    "malformed": (400, "validation"),
    "large_head": (431, "validation"),
}
"""Status and `error_type` of each reason; 424 and the types up to `empty` are TEI's."""


class Refusal(Exception):  # noqa: N818  it answers a request; few are errors of ours
    """A request that gets an error for an answer."""

    def __init__(self, reason: Reason, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Answer with the status of `reason`, a `message` for the client, and `headers` such as Retry-After."""
        super().__init__(message)
        self.reason: Reason = reason
        self.message = message
        self.headers = headers or {}

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.reason][0]

    @property
    def error_type(self) -> str:
        """TEI's word for the kind of error."""
        return STATUS[self.reason][1]

    def body(self, request_id: str) -> dict[str, str]:
        """The answer, as TEI has it, and the request's id."""
        return {"error": self.message, "error_type": self.error_type, "request_id": request_id}

    def openai_body(self, request_id: str) -> dict[str, str | int]:
        """The same in the shape of TEI's routes for clients of OpenAI."""
        return {
            "message": self.message,
            "code": self.status,
            "type": self.error_type,
            "request_id": request_id,
        }


def refusal_of(error: Exception) -> Refusal:
    """What a client hears of an error: an input that cannot be used, or that something failed here."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, InputError):
        return Refusal("invalid", "the model cannot take this input")
    if isinstance(error, AssayError):
        return Refusal("backend", "the model could not answer this")
    return Refusal("internal", "the server failed; its log has the request's id")
