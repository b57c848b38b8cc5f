"""The process that computes: `python -m assay.serve.engine_process BUNDLE --socket FD --device cuda:0`.

Batches of token ids come in over a socket, outputs go back (`frames`). On a GPU two threads take turns: one waits for
its outputs while the other's batch is already queued on the device. The process ends when its server
does. Where a share of documents is to run in fp32 too, that is done while no batch is there (`parity`).

Signals are the server's business and are ignored here, so that a terminal's Ctrl-C drains too.
"""

import argparse
import contextlib
import ctypes
import math
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from assay import errors
from assay.errors import InputError, WorkError
from assay.serve import frames
from assay.serve.frames import BatchFrame, FrameHead, FrameKind
from assay.serve.settings import is_fake
from assay.tokenize.settings import WINDOWS

if TYPE_CHECKING:
    import torch

    from assay.engine.engine import Engine
    from assay.model.packing import PackedBatch
    from assay.serve.kinds import ServedModel
    from assay.serve.parity import Samples

WARM_UP_TOKENS = 64
BATCH_TOKENS_PER_PROCESSOR = 1024
"""Tokens of a batch for each multiprocessor of a GPU at most, unless asked for: what comes next waits for it, 45 ms
for RoBERTa-base on an H100."""
QUIET_SECONDS = 0.002
"""Without a batch, after which a document may run in fp32 too."""
LOOK_SECONDS = 0.05
"""How often it is looked whether one waits."""
_PR_SET_PDEATHSIG = 1


class ServerLink:
    """The engine's end of the socket. Any thread may send or receive."""

    def __init__(self, connection: socket.socket) -> None:
        """Talk over `connection`, which blocks."""
        self._connection = connection
        self._sending = threading.Lock()
        self._receiving = threading.Lock()

    def send(self, frame: bytes) -> None:
        """Send one frame; a server that is gone ends the process."""
        try:
            with self._sending:
                self._connection.sendall(frame)
        except OSError:
            os._exit(0)

    def receive(self, idle: Callable[[], bool] | None = None) -> tuple[FrameHead, bytes]:
        """The next frame; a server that is gone ends the process.

        While none comes, `idle` is called, which says whether to call it again soon.
        """
        with self._receiving:
            pause = QUIET_SECONDS
            while idle is not None and not select.select([self._connection], [], [], pause)[0]:
                pause = QUIET_SECONDS if idle() else LOOK_SECONDS
            head = frames.read_head(self._exactly(frames.HEAD.size))
            return head, self._exactly(head.num_bytes)

    def _exactly(self, num_bytes: int) -> bytes:
        try:
            data = self._connection.recv(num_bytes, socket.MSG_WAITALL)
        except OSError:
            data = b""
        if len(data) < num_bytes:
            os._exit(0)
        return data


class Overlapped:
    """An engine that two threads may use at once: `forward` waits outside of the lock for its own batch."""

    def __init__(self, engine: "Engine") -> None:
        """Wrap a loaded engine; its attributes are this one's."""
        from assay.engine.engine import in_fp32, loaded_once

        self._engine = engine
        self._lock = threading.Lock()
        self.name, self.packed, self.wants_sorted = engine.name, engine.packed, engine.wants_sorted
        self.output_shape, self.max_length = engine.output_shape, engine.max_length
        self.vocab_size, self.deterministic = engine.vocab_size, engine.deterministic
        self.default_batch_tokens = engine.default_batch_tokens
        self.num_padded_tokens = 0
        self.fp32: Callable[[], Engine] | None = None
        if engine.fp32 is not None:
            self.fp32 = loaded_once(lambda: Overlapped(in_fp32(engine)))

    @property
    def device_seconds(self) -> float | None:
        """None: asking the engine would wait for the other thread's batch too."""
        return None

    def forward(self, batch: "PackedBatch") -> "torch.Tensor":
        """The outputs, on the host."""
        import torch

        with self._lock:
            outputs_NC = self._engine.forward(batch)
            if outputs_NC.device.type != "cuda":
                return outputs_NC
            host_NC = torch.empty(outputs_NC.shape, dtype=outputs_NC.dtype, pin_memory=True)
            host_NC.copy_(outputs_NC, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record(torch.cuda.current_stream(outputs_NC.device))
        copied.synchronize()
        return host_NC

    def description(self) -> str:
        """The engine's own line."""
        return self._engine.description()


class Computing:
    """Computes what came over the link, in one thread or two."""

    def __init__(
        self,
        link: ServerLink,
        engine: "Engine",
        *,
        max_batch_tokens: int | None,
        device: str,
        samples: "Samples | None" = None,
    ) -> None:
        """Compute with a loaded engine on `device`; `samples` are offered what was answered."""
        self._link = link
        self._engine = engine
        self._max_batch_tokens = max_batch_tokens
        self._device = device
        self._samples = samples
        self._counting = threading.Lock()
        self._num_computing = 0

    def run(self) -> None:
        """Never returns: the process ends with its server."""
        if self._device.startswith("cuda"):
            threading.Thread(target=self._compute, name="compute-2", daemon=True).start()
        self._compute()

    def _compute(self) -> None:
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.set_device(self._device)
        idle = None if self._samples is None else self._idle
        while True:
            head, payload = self._link.receive(idle)
            with self._counting:
                self._num_computing += 1
            self._answer(head, payload)
            with self._counting:
                self._num_computing -= 1

    def _answer(self, head: FrameHead, payload: bytes) -> None:
        """Answer a batch; a failure that may have harmed the device ends the process."""
        try:
            batch = frames.unpack_batch(head, payload)
            outputs_NC, seconds = run_batch(self._engine, batch, max_batch_tokens=self._max_batch_tokens)
        except (InputError, WorkError) as error:
            self._link.send(frames.pack_json(FrameKind.FAILED, {"message": str(error)}, number=head.number))
            return
        except BaseException as error:  # noqa: BLE001  the device's state is unknown: a new process starts over
            self._die(error, head.number)
        self._link.send(frames.pack_outputs(head.number, outputs_NC, seconds))
        if self._samples is not None:
            self._samples.offer(batch, outputs_NC)

    def _idle(self) -> bool:
        """No batch comes: one sequence in fp32, unless the other thread computes; whether more may be to do soon."""
        assert self._samples is not None, "it is asked where there are some"
        if self._num_computing:
            return True
        try:
            self._samples.step()
        except BaseException as error:  # noqa: BLE001  as above
            self._die(error, 0)
        return self._samples.is_waiting

    def _die(self, error: BaseException, number: int) -> NoReturn:
        """Say what ends the process, and of which batch, and end it."""
        traceback.print_exception(error)
        content = {"message": f"{type(error).__name__}: {error}"[:500], "is_fatal": True}
        self._link.send(frames.pack_json(FrameKind.FAILED, content, number=number))
        os._exit(1)


def run_batch(engine: "Engine", batch: BatchFrame, *, max_batch_tokens: int | None) -> tuple[Any, float]:
    """The outputs [N, C] of a batch, at length 1 where it says so, and the seconds that they took."""
    import numpy as np
    import torch

    from assay.engine.run import run_sequences
    from assay.engine.sequences import Sequences

    began = time.perf_counter()
    sequences = Sequences(
        flat_ids=batch.flat_ids, offsets=batch.offsets.astype(np.int64), second_starts=batch.second_starts
    )
    outputs_NC, _ = run_sequences(engine, sequences, max_batch_tokens=max_batch_tokens)
    if batch.normalize is not None:
        rows = np.flatnonzero(batch.normalize)
        # as the head of an embed run does it, to the bit
        outputs_NC[rows] = torch.nn.functional.normalize(torch.from_numpy(outputs_NC[rows]), dim=1).numpy()
    return outputs_NC, time.perf_counter() - began


def load(arguments: argparse.Namespace, model: "ServedModel") -> "Engine":
    """The engine that the server asked for."""
    from assay.engine.load import load_engine

    if is_fake(arguments.engine):
        return load_engine(
            arguments.engine if ":" in arguments.engine else f"{arguments.engine}:{model.num_outputs}"
        )
    engine = model.load_engine(
        device=arguments.device,
        precision=arguments.precision,
        num_threads=arguments.threads,
        packed=arguments.engine != "padded",
        deterministic=arguments.deterministic,
    )
    if not arguments.device.startswith("cuda"):
        return engine
    if arguments.max_batch_tokens is None:
        import torch

        num_processors = torch.cuda.get_device_properties(arguments.device).multi_processor_count
        # the engine fills batches up to it, so it is the engine that is told
        engine.default_batch_tokens = min(
            engine.default_batch_tokens, num_processors * BATCH_TOKENS_PER_PROCESSOR
        )
    return Overlapped(engine)


def dtype_of(arguments: argparse.Namespace) -> str:
    """What the engine computes in, as torch has it: `float32`, `bfloat16`, `float16`; or `fp8`."""
    from assay.engine.devices import DTYPES

    if is_fake(arguments.engine):
        return "float32"
    precision = arguments.precision
    return precision if precision == "fp8" else str(DTYPES[precision]).removeprefix("torch.")


def warm_up(engine: "Engine", *, max_batch_tokens: int | None) -> float:
    """Have the engine answer a made-up batch twice; tokens a second of the second time."""
    import numpy as np

    length = min(WARM_UP_TOKENS, engine.max_length)
    num_sequences = max(1, 4 * WARM_UP_TOKENS // length)
    offsets = np.arange(num_sequences + 1, dtype=np.int32) * length
    ids = (np.arange(int(offsets[-1])) % min(engine.vocab_size, 1000)).astype(np.int32)
    batch, seconds = BatchFrame(ids, offsets, None), 1.0
    for _ in range(2):
        outputs_NC, seconds = run_batch(engine, batch, max_batch_tokens=max_batch_tokens)
        if outputs_NC.shape != (num_sequences, *engine.output_shape):
            msg = f"the warm-up gave outputs {outputs_NC.shape}; an engine gives a row a sequence"
            raise WorkError(msg)
    return len(ids) / max(seconds, 1e-6)


def make_samples(
    link: ServerLink, arguments: argparse.Namespace, model: "ServedModel", engine: "Engine"
) -> "Samples":
    """What runs a share of documents in fp32 too, with its model loaded and warm: no request waits for that.

    Raises UsageError where nothing can be compared, WorkError where the device has no room for the model in fp32.
    """
    import torch

    from assay.engine.engine import in_fp32
    from assay.serve.parity import check_share, samples_of

    check_share(arguments.parity_share, model, engine=arguments.engine, precision=arguments.precision)
    try:
        exact = in_fp32(engine)
        warm_up(exact, max_batch_tokens=None)
    except torch.OutOfMemoryError:
        raise WorkError(
            f"parity_share={arguments.parity_share:g}; the device has no room for the model in fp32 beside this one; "
            "leave it out, or use a device with more memory"
        ) from None
    return samples_of(
        model,
        lambda batch: run_batch(exact, batch, max_batch_tokens=None)[0],
        lambda content: link.send(frames.pack_json(FrameKind.COMPARED, content)),
        share=arguments.parity_share,
        precision=arguments.precision,
        how=WINDOWS.get(arguments.on_long),
    )


def count_gpus() -> int:
    """GPUs that torch can use here."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def start(link: ServerLink, arguments: argparse.Namespace) -> None:
    """Load, warm up, say so, serve; the server hears what loading failed of."""
    try:
        if arguments.device == "cuda:0":
            num_gpus = count_gpus()
            link.send(frames.pack_json(FrameKind.HELLO, {"num_gpus": num_gpus}))
            arguments.device = "cuda:0" if num_gpus else "cpu"
        from assay.serve.kinds import open_model

        model = open_model(arguments.bundle, kind=arguments.model_kind, pooling=arguments.pooling)
        if not is_fake(arguments.engine):
            arguments.precision = model.parse_precision(arguments.precision, device=arguments.device)
        engine = load(arguments, model)
        tokens_per_second = warm_up(engine, max_batch_tokens=arguments.max_batch_tokens)
        samples = make_samples(link, arguments, model, engine) if arguments.parity_share else None
    except Exception as error:  # noqa: BLE001  whatever it is, the server decides what follows
        kind = errors.kind_of(error)
        message = str(error) if kind else f"{type(error).__name__}: {error}"
        if not kind:
            traceback.print_exc()
        link.send(frames.pack_json(FrameKind.FAILED, {"message": message, "kind": kind, "is_fatal": True}))
        os._exit(1)
    ready = {
        "description": engine.description(),
        "fingerprint": model.fingerprint,
        "num_outputs": math.prod(engine.output_shape),
        "is_padded": not engine.packed,
        "default_batch_tokens": engine.default_batch_tokens,
        "tokens_per_second": tokens_per_second,
        "dtype": dtype_of(arguments),
    }
    link.send(frames.pack_json(FrameKind.READY, ready))
    Computing(
        link,
        engine,
        max_batch_tokens=arguments.max_batch_tokens,
        device=arguments.device,
        samples=samples,
    ).run()


def begin_as_child() -> None:
    """Leave signals to the server, have what libraries print on stderr, log, and end with the server.

    Where it is Linux, the kernel ends this process with its server, whatever is being computed.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # whatever libraries print goes to stderr
    with contextlib.suppress(OSError):
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    from assay.telemetry import configure_logging

    configure_logging()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Parse the server's arguments and serve until it is gone."""
    parser = argparse.ArgumentParser(prog="assay.serve.engine_process", description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--model-kind", default="auto")
    parser.add_argument("--pooling", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--max-batch-tokens", type=int, default=None)
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--parity-share", type=float, default=0.0)
    parser.add_argument("--on-long", default="truncate")
    arguments = parser.parse_args()
    begin_as_child()
    start(ServerLink(socket.socket(fileno=arguments.socket)), arguments)


if __name__ == "__main__":
    main()
