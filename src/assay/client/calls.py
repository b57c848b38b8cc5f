"""[pure] Texts to the requests that carry them, within the limits of a server."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from assay.client.replies import Info
from assay.client.wire import OK, Call
from assay.errors import InputError

T = TypeVar("T")
Item = tuple[bytes, bytes | None]
"""A text as JSON, and its second text."""

HEALTH = Call(method="GET", path="/health", accepts=frozenset({OK, 503}))
INFO = Call(method="GET", path="/info")


def quote(text: object, what: str) -> bytes:
    """A text as JSON in UTF-8; raises InputError for anything else."""
    if not isinstance(text, str):
        msg = f"{what} is {type(text).__name__}; a text is a string; pass strings"
        raise InputError(msg)
    try:
        return json.dumps(text, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        at, seen = next((at, seen) for at, seen in enumerate(text) if "\ud800" <= seen <= "\udfff")
        msg = f"{what} holds {seen!a} at {at}; a text is valid Unicode; decode it again"
        raise InputError(msg) from None


def batch_call(items: Sequence[Item], *, details: bool) -> Call:
    """`POST /predict/batch` for quoted texts, either all or none of them with a pair."""
    parts = [b'{"texts":[', b",".join(text for text, _ in items), b"]"]
    if items and items[0][1] is not None:
        parts += [b',"text_pairs":[', b",".join(pair for _, pair in items if pair is not None), b"]"]
    parts.append(b',"details":true}' if details else b',"details":false}')
    return Call(method="POST", path="/predict/batch", body=b"".join(parts))


ENVELOPE_BYTES = len(b'{"texts":[],"text_pairs":[],"details":false}')
"""Bytes of a body beside its texts, at the most."""


def embed_call(items: Sequence[Item], tail: bytes) -> Call:
    """`POST /v1/embeddings` for quoted texts, `tail` of `embed_tail` behind them."""
    body = b'{"input":[' + b",".join(text for text, _ in items) + b"]" + tail
    return Call(method="POST", path="/v1/embeddings", body=body)


def embed_tail(*, prompt_name: str | None, normalize: bool | None, truncate: bool | None) -> bytes:
    """What stands behind the texts in a body that asks for vectors; what is None is left to the server."""
    asked = {"prompt_name": prompt_name, "normalize": normalize, "truncate": truncate}
    said = {name: value for name, value in asked.items() if value is not None}
    return b"," + json.dumps({"encoding_format": "base64", **said}).encode()[1:]


def item_bytes(item: Item) -> int:
    """Bytes that a quoted text and its pair take in a body, commas included."""
    return len(item[0]) + 1 + (len(item[1]) + 1 if item[1] is not None else 0)


class Packer(Generic[T]):
    """Cuts items into consecutive batches within a count and a size."""

    def __init__(self, *, max_batch: int, max_bytes: int) -> None:
        self._max_batch = max_batch
        self._max_bytes = max_bytes
        self._batch: list[T] = []
        self._size = 0

    def add(self, item: T, size_bytes: int) -> list[T] | None:
        """Add one item; returns the batch before it where the item no longer fits in.

        An item larger than the limit becomes a batch of its own, for the server to refuse.
        """
        full = None
        if self._batch and (len(self._batch) >= self._max_batch or self._size + size_bytes > self._max_bytes):
            full = self.rest()
        self._batch.append(item)
        self._size += size_bytes
        return full

    def rest(self) -> list[T]:
        """The last batch, which may be empty."""
        batch, self._batch, self._size = self._batch, [], 0
        return batch


def pack(items: Iterable[Item], info: Info, *, envelope_bytes: int = ENVELOPE_BYTES) -> Iterator[list[Item]]:
    """Quoted texts in as few calls as the limits of a server allow, order kept."""
    packer: Packer[Item] = Packer(
        max_batch=info.max_client_batch_size, max_bytes=info.max_body_bytes - envelope_bytes
    )
    for item in items:
        full = packer.add(item, item_bytes(item))
        if full:
            yield full
    last = packer.rest()
    if last:
        yield last


def one_call(text: str, text_pair: str | None) -> Call:
    """The call for one text, with all details."""
    pair = None if text_pair is None else quote(text_pair, "text_pair")
    return batch_call([(quote(text, "text"), pair)], details=True)


def rerank_call(query: str, texts: Sequence[str], *, raw_scores: bool, return_text: bool) -> Call:
    """`POST /rerank`, as text-embeddings-inference has it."""
    quoted = b",".join(text for text, _ in quote_all(texts, None))
    flags = json.dumps({"raw_scores": raw_scores, "return_text": return_text}).encode()[1:]
    body = b'{"query":' + quote(query, "query") + b',"texts":[' + quoted + b"]," + flags
    return Call(method="POST", path="/rerank", body=body)


def quote_for_vectors(texts: Iterable[str]) -> list[Item]:
    """Texts as JSON; raises InputError unless they are a list of texts, none of them empty."""
    if isinstance(texts, str):
        msg = "texts is one string; embed takes a list of them; pass [text]"
        raise InputError(msg)
    given = list(texts)
    if "" in given:
        msg = f"text {given.index('')} is empty; the server gives no vector for it; leave it out"
        raise InputError(msg)
    return quote_all(given, None)


def quote_all(texts: Iterable[str], text_pairs: Iterable[str] | None) -> list[Item]:
    """Texts and their pairs as JSON; raises InputError unless both are lists of texts."""
    if isinstance(texts, str) or isinstance(text_pairs, str):
        msg = "texts is one string; predict_batch takes a list of them; use predict for one"
        raise InputError(msg)
    first = [quote(text, f"text {number}") for number, text in enumerate(texts)]
    if text_pairs is None:
        return [(text, None) for text in first]
    second = [quote(text, f"second text {number}") for number, text in enumerate(text_pairs)]
    if len(first) != len(second):
        msg = (
            f"{len(first)} texts and {len(second)} second texts; a pair needs both; pass lists of one length"
        )
        raise InputError(msg)
    return list(zip(first, second, strict=True))
