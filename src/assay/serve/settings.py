"""What a user may set for `assay serve`. Imports nothing heavy: the command line is made from it."""

from dataclasses import dataclass, field
from typing import Literal

from assay.embed.settings import Pooled
from assay.engine.settings import CpuThreads, EngineSettings
from assay.errors import UsageError
from assay.runs.settings import RayAddress
from assay.settings import AUTO, AUTO_OR_COUNT, COUNT, positional, within
from assay.tokenize.settings import LongDocuments

ModelKind = Literal["auto", "classifier", "encoder"]
_UP_TO_AN_HOUR = 3_600


@dataclass(frozen=True, kw_only=True)
class ServeSettings(LongDocuments, EngineSettings, CpuThreads, Pooled, RayAddress):
    """Serve a classifier or a sentence encoder over HTTP."""

    bundle: str = field(metadata=positional("BUNDLE"))
    """Folder of a classifier, a Siamese model or an encoder, or a cascade."""
    model_kind: ModelKind = "auto"
    """What it is; auto: as its files say; `encoder` leaves a classifier's or Siamese model's head out."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every network; set API keys then."""
    port: int = field(default=8000, metadata=within(at_least=0, at_most=65_535))
    """Port to listen on; 0 takes a free one and says which."""
    devices: str = field(default="auto", metadata=AUTO_OR_COUNT)
    """How many GPUs, or engine processes where there are none."""
    parity_share: float = field(default=0.0, metadata=within(at_least=0, at_most=1))
    """Share of texts that an idle engine runs in fp32 too, for /metrics."""
    executor: Literal["local", "ray"] = "local"
    """One server here; ray: a replica a device of a cluster, by Ray Serve."""
    front_processes: str = field(default="auto", metadata=AUTO_OR_COUNT)
    """Processes that read and tokenize; auto: 1, and more beside a GPU."""
    max_queue: int = field(default=8192, metadata=COUNT)
    """Documents that may wait; more are answered with 429."""
    timeout: float = field(default=30.0, metadata=within(above=0, at_most=_UP_TO_AN_HOUR))
    """Seconds until a request gets a 504; what would wait longer is refused."""
    max_client_batch_size: int = field(default=1024, metadata=COUNT)
    """Documents of one request."""
    max_body_bytes: int = field(default=32 << 20, metadata=COUNT)
    """Bytes of one request's body."""
    max_text_chars: int = field(default=1_000_000, metadata=COUNT)
    """Characters of one text."""
    keys_file: str | None = None
    """File of API keys: a `name:key` line each, or TOML `name = "key"`; a key may be `sha256:HEX`."""
    rate_limit: int | None = field(default=None, metadata=COUNT)
    """Documents a minute that each API key may send, on average over a minute."""
    tls_cert: str | None = None
    """PEM file of the certificate chain, for HTTPS."""
    tls_key: str | None = None
    """PEM file of the certificate's private key."""
    drain_seconds: float = field(default=30.0, metadata=within(at_least=0, at_most=_UP_TO_AN_HOUR))
    """Seconds that SIGTERM waits for accepted requests to be answered."""
    log_texts: bool = False
    """Write the texts of requests into the log too."""

    def check(self) -> None:
        """Raise `UsageError` where values do not go together."""
        if self.max_queue < self.max_client_batch_size:
            raise UsageError(
                f"max_queue is {self.max_queue} and max_client_batch_size {self.max_client_batch_size}; "
                "a queue must hold one request; raise the first or lower the second"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("one of tls_cert and tls_key is set; HTTPS needs both; set the other too")
        if self.executor == "ray":
            self._check_ray()

    def _check_ray(self) -> None:
        """Raise `UsageError` for what several servers behind the proxies of Ray Serve cannot promise."""
        if self.rate_limit is not None:
            raise UsageError(
                f"rate_limit is {self.rate_limit} and executor ray; each replica would count by itself; "
                "leave it out and limit in front of Ray Serve"
            )
        if self.tls_cert is not None:
            raise UsageError(
                "tls_cert is set and executor ray; the proxies of Ray Serve speak plain HTTP here; "
                "leave it out and end TLS in front of them"
            )
        if self.front_processes != AUTO:
            raise UsageError(
                f"front_processes is {self.front_processes} and executor ray; a replica has one process; leave it out"
            )
        if not self.port:
            raise UsageError("port is 0 and executor ray; all machines listen on one port; name it")


def is_fake(engine: str) -> bool:
    """Whether an engine, `fake` or `fake:NUM_OUTPUTS[:SECONDS_PER_TOKEN]`, makes its scores up."""
    return engine.startswith("fake")
