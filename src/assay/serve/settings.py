"""What a user may set for `assay serve`. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass, field

from assay.engine.precision import Precision
from assay.score.settings import EngineChoice
from assay.tokenize.settings import OnLong


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSettings:
    """Serve a bundle over HTTP."""

    bundle: str = field(metadata={"positional": True, "metavar": "BUNDLE"})
    """Directory of the classifier; any transformers sequence classification directory."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every network, with API keys please."""
    port: int = 8000
    """Port to listen on; 0 takes a free one and says which."""
    devices: str = "auto"
    """How many GPUs, or engine processes where there are none."""
    precision: Precision = "auto"
    """fp32, bf16, fp16 or fp8 (products in fp8); auto is bf16 on a GPU and fp32 on a CPU."""
    engine: EngineChoice = "auto"
    """`padded`: the transformers model itself; `fake`: made-up scores, to time the rest."""
    deterministic: bool = False
    """Give a document the same bits in any company; slower."""
    max_length: int | None = None
    """Most tokens of a document; by default what the model was trained for."""
    on_long: OnLong = "truncate"
    """Longer documents: truncate, head-tail, window-mean, window-max or error."""
    stride: int = 0
    """Tokens that neighbouring windows share, for the window policies."""
    max_batch_tokens: int | None = None
    """Tokens of a forward pass; by default what suits the device."""
    max_queue: int = 8192
    """Documents that may wait; more are answered with 429."""
    timeout: float = 30.0
    """Seconds until a request is answered with 504; one that would wait longer is refused at once."""
    max_client_batch_size: int = 1024
    """Documents of one request."""
    max_body_bytes: int = 32 << 20
    """Bytes of one request's body."""
    max_text_chars: int = 1_000_000
    """Characters of one text."""
    keys_file: str | None = None
    """File of API keys: a `name:key` line each, or TOML `name = "key"`; a key may be `sha256:HEX`."""
    rate_limit: int | None = None
    """Documents a minute that each API key may send, on average over a minute."""
    tls_cert: str | None = None
    """PEM file of the certificate chain, for HTTPS."""
    tls_key: str | None = None
    """PEM file of the certificate's private key."""
    drain_seconds: float = 30.0
    """How long SIGTERM waits for what has been accepted."""
    log_texts: bool = False
    """Write the texts of requests into the log too."""


def is_fake(engine: str) -> bool:
    """Whether an engine, `fake` or `fake:NUM_OUTPUTS[:SECONDS_PER_TOKEN]`, makes its scores up."""
    return engine.startswith("fake")
