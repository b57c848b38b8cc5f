"""Several processes that train one model: who is who, how they meet, what they agree on, and who has gone.

Where no launcher speaks there is one process. `torchrun`, Slurm (`srun`) and `launch.launch` give each its
rank; the ranks meet at a store on rank 0's host and then form one group, NCCL for tensors of a GPU, gloo
for those of the CPU. Beside the group each rank counts up a number in the store every second, so that the
others can tell who has gone: a group alone would say that "a peer" has, or wait for it.

Values go between ranks as bytes of arrays; nothing is pickled. Axes: N rows of a rank, R rows of all.
"""

import hashlib
import json
import math
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.distributed.distributed_c10d import PrefixStore, Store

from assay.errors import AssayError, UsageError, WorkError

LISTENING_FD = "ASSAY_STORE_FD"
"""Variable with the number of a listening socket, open in rank 0, on which its store is to answer."""
TIMEOUT_SECONDS = 600.0
BEAT_SECONDS = 1.0
SILENT_BEATS = 4
"""A rank that is asked after is taken for gone once it has not counted up for so many beats."""
MOST_SILENT_SECONDS = 120.0
"""On a GPU, where nothing else would end the wait for a rank that is gone, it may be silent so long."""
STORE_SECONDS = 30.0
"""A store that has not answered for so long is taken for gone, and rank 0 with it."""
LEAVE_SECONDS = 10.0
"""For a main thread to raise by itself."""
END_SECONDS = LEAVE_SECONDS / 4
"""For a group to end after a failure; much less, so that what failed is said before the others end themselves."""

ScalarT = TypeVar("ScalarT", bound=np.generic)

_INTERRUPTED = "interrupted"
_AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"
_BROKEN = re.compile(
    r"gloo|nccl|connection (was |is )?(closed|reset|refused)|broken pipe|timed? ?out", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RankPlace:
    """What a launcher told this process."""

    launcher: str
    """Its name, for messages."""
    rank: int
    """From 0."""
    world_size: int
    """Processes in all."""
    local_rank: int
    """Rank among the processes of this host."""
    host: str
    """Where rank 0 runs."""
    port: int
    """Where rank 0 answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """This process among those that train together."""

    rank: int
    """From 0; rank 0 writes and reports."""
    world_size: int
    """Processes in all; 1: there is no group."""
    local_rank: int
    """Rank among the processes of this host."""
    device: torch.device
    """What this process computes on."""


# ---------------------------------------------------------------- who is who


def find_place(environment: Mapping[str, str]) -> RankPlace | None:
    """The rank that `torchrun`, Slurm or `launch` gave this process, None where none of them started it.

    A Slurm batch script that calls `assay` without `srun` is one process, whatever the job asked for.
    Raises UsageError where the variables do not fit together.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        launcher, default_host, default_port = "torchrun", None, None
    elif "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment:
        size = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
        names = ("SLURM_PROCID", size, "SLURM_LOCALID")
        launcher, default_host = "Slurm", first_host(environment.get("SLURM_JOB_NODELIST", ""))
        # Two jobs that share a node are unlikely to meet, two steps of a job never do.
        job, step = _number(environment, "SLURM_JOB_ID", 0), _number(environment, "SLURM_STEP_ID", 0)
        default_port = 15_000 + (job * 37 + step) % 15_000
    else:
        return None
    rank, world_size, local_rank = (
        _number(environment, name, 0 if "LOCAL" in name else None) for name in names
    )
    if world_size < 1 or not 0 <= rank < world_size:
        raise UsageError(
            f"{names[0]}={rank} and {names[1]}={world_size} (from {launcher}); a rank lies from 0 to world "
            f"size - 1; start the processes with {launcher}, or unset both"
        )
    host = environment.get("MASTER_ADDR") or default_host
    port = _number(environment, "MASTER_PORT", default_port if world_size > 1 else 0)
    if not host and world_size > 1:
        raise UsageError(
            f"{names[0]}={rank} but MASTER_ADDR is not set; every rank must know where rank 0 runs; "
            "start with torchrun or srun, or set MASTER_ADDR and MASTER_PORT"
        )
    if world_size > 1 and not 0 < port < 65_536:
        raise UsageError(
            f"MASTER_PORT={port}; the ranks meet at a port from 1 to 65535; set one, or use torchrun --standalone"
        )
    return RankPlace(
        launcher=launcher,
        rank=rank,
        world_size=world_size,
        local_rank=local_rank,
        host=host or "localhost",
        port=port,
    )


def first_host(nodelist: str) -> str:
    """The first host of a Slurm node list: "gpu003" of "gpu[003-010,12],login1"; "" of ""."""
    first = re.split(r",(?![^\[]*\])", nodelist)[0]
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first)


def _number(environment: Mapping[str, str], name: str, default: int | None) -> int:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise UsageError(
            f"{name}={text!r} is not a whole number; start with torchrun or srun, or set it"
        ) from None


def _pick_device(local_rank: int) -> torch.device:
    num_gpus = torch.cuda.device_count()
    if num_gpus == 0:
        return torch.device("cpu")
    index = 0 if num_gpus == 1 else local_rank  # Slurm may show each task its own GPU alone
    if index >= num_gpus:
        raise UsageError(
            f"local rank {local_rank}; this machine has {num_gpus} GPUs; start {num_gpus} processes on it at most"
        )
    return torch.device("cuda", index)


# ---------------------------------------------------------------- meeting


@contextmanager
def join(
    environment: Mapping[str, str],
    *,
    way_out: Callable[[], str],
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Iterator[World]:
    """Meet the other ranks; inside, the default process group of `torch.distributed` is theirs.

    A process by itself gets a world of size 1 and no group. Where a rank goes away (killed, failed, out of
    reach) the others raise WorkError naming it, ended by what `way_out` says ("the last checkpoint is at
    ..."): at once where gloo notices, after `timeout_seconds` at the latest. A rank on a GPU may be stuck
    inside NCCL, where no exception reaches; it then writes that line to stderr and ends the process.
    Raises UsageError where ranks share a GPU, WorkError where not all have come in `timeout_seconds`.
    """
    place = find_place(environment)
    device = _pick_device(place.local_rank if place else 0)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if place is None or place.world_size == 1:
        yield World(rank=0, world_size=1, local_rank=0, device=device)
        return
    watch = _meet(place, environment, device, way_out=way_out, timeout_seconds=timeout_seconds)
    failed = True
    try:
        yield World(rank=place.rank, world_size=place.world_size, local_rank=place.local_rank, device=device)
        failed = False
    except BaseException as error:
        if not isinstance(error, RuntimeError) or not _is_broken(error):
            watch.leave(_reason(error))
            raise
        explained = watch.explain(error)
        watch.leave(explained)
        raise WorkError(explained) from error
    finally:
        if not failed:
            watch.leave("")
        _end_group(must_wait=not failed)
        if place.rank == 0:  # it goes last: the store goes with it
            watch.wait_for_others(at_most_seconds=2 * BEAT_SECONDS if failed else math.inf)
        watch.stop()


def _meet(
    place: RankPlace,
    environment: Mapping[str, str],
    device: torch.device,
    *,
    way_out: Callable[[], str],
    timeout_seconds: float,
) -> "_PeerWatch":
    """Form the group; returns the watch over its ranks, already beating."""
    timeout = timedelta(seconds=timeout_seconds)
    try:
        store = _open_store(place, environment, timeout)
        _refuse_shared_gpus(store, place, device)
        watch = _PeerWatch(store, place, way_out=way_out, end_process=device.type == "cuda")
        # sums are recorded by each rank when it likes; to register their buffers NCCL would have all meet
        os.environ.setdefault("NCCL_GRAPH_REGISTER", "0")
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("group", store),
            rank=place.rank,
            world_size=place.world_size,
            timeout=timeout,
            device_id=device if device.type == "cuda" else None,
        )
        watch.start(silent_seconds=min(timeout_seconds, MOST_SILENT_SECONDS))
    except RuntimeError as error:  # a DistError, or what gloo and NCCL raise
        raise WorkError(
            f"rank {place.rank} of {place.world_size} did not meet the others at {place.host}:{place.port} "
            f"({_one_line(error)}); start all of them within {timeout_seconds:.0f} s, where that address can be reached"
        ) from error
    return watch


def _open_store(place: RankPlace, environment: Mapping[str, str], timeout: timedelta) -> Store:
    is_master = place.rank == 0 and environment.get(_AGENT_STORE) != "True"
    listening = environment.get(LISTENING_FD)
    # torch documents it, but its `__init__` does not list it
    store: Store = dist.TCPStore(  # type: ignore[attr-defined]
        place.host,
        place.port,
        world_size=place.world_size,
        is_master=is_master,
        timeout=timeout,
        multi_tenant=True,
        master_listen_fd=int(listening) if is_master and listening else None,
    )
    return store


def _refuse_shared_gpus(store: Store, place: RankPlace, device: torch.device) -> None:
    """UsageError where two ranks would compute on one GPU: NCCL cannot, and does not say why."""
    gpu = (
        str(torch.cuda.get_device_properties(device).uuid)
        if device.type == "cuda"
        else f"{device} {place.rank}"
    )
    store.set(f"device/{place.rank}", f"{socket.gethostname()} {gpu}")
    seen: dict[bytes, int] = {}
    for rank, each in enumerate(store.multi_get([f"device/{rank}" for rank in range(place.world_size)])):
        if each in seen:
            raise UsageError(
                f"ranks {seen[each]} and {rank} both found GPU {each.decode()}; each needs one of its own; start "
                "as many processes on a machine as it has GPUs, with LOCAL_RANK from 0"
            )
        seen[each] = rank


def _end_group(*, must_wait: bool) -> None:
    """Destroy the group; after a failure NCCL may wait for a rank that is gone, and is not waited for long."""
    ending = threading.Thread(target=_destroy, daemon=True)
    ending.start()
    ending.join(None if must_wait else END_SECONDS)


def _destroy() -> None:
    with suppress(RuntimeError, AssertionError, ValueError):
        dist.destroy_process_group()


# ---------------------------------------------------------------- who has gone


class _PeerWatch:
    """Counts up in the store for this rank and keeps an eye on the others' counts, in a thread of its own."""

    def __init__(
        self, store: Store, place: RankPlace, *, way_out: Callable[[], str], end_process: bool
    ) -> None:
        self._store = store  # it answers the others for as long as it is held
        self._asked = store.clone()  # type: ignore[attr-defined]  # the stub of Store lacks it
        self._asked.set_timeout(timedelta(seconds=STORE_SECONDS))
        self._place = place
        self._way_out = way_out
        self._end_process = end_process
        self._others = [rank for rank in range(place.world_size) if rank != place.rank]
        self._left: dict[int, str] = {}
        self._is_store_gone = False
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._counts: dict[int, bytes] = {}
        now = time.monotonic()
        self._heard = dict.fromkeys(self._others, now)
        self._count = 0
        self._asked.set(f"count/{place.rank}", "0")
        self._asked.set(f"left/{place.rank}", "")

    def start(self, *, silent_seconds: float) -> None:
        """Begin to beat; every rank has set its count by now. For a stuck GPU, `silent_seconds` is the limit."""
        self._silent_seconds = silent_seconds
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(LEAVE_SECONDS)

    def leave(self, reason: str) -> None:
        """Tell the others that this rank leaves; "" for a good end."""
        with suppress(RuntimeError):
            self._asked.set(f"left/{self._place.rank}", json.dumps(reason))

    def wait_for_others(self, *, at_most_seconds: float) -> None:
        """Return once every other rank has left or has long been silent."""
        deadline = time.monotonic() + at_most_seconds
        while time.monotonic() < deadline and not self._is_store_gone:
            self._look()
            if all(rank in self._left or self._silence(rank) > self._silent_seconds for rank in self._others):
                return
            time.sleep(BEAT_SECONDS / 20)

    def explain(self, error: Exception) -> str:
        """Who is to blame for a collective that broke, and how to go on; takes a few beats."""
        deadline = time.monotonic() + 2 * SILENT_BEATS * BEAT_SECONDS
        while (gone := self._find_gone(SILENT_BEATS * BEAT_SECONDS)) is None and time.monotonic() < deadline:
            time.sleep(BEAT_SECONDS / 10)
            self._look()
        if gone is None:
            return (
                f"the {self._place.world_size} ranks no longer reach one another ({_one_line(error)}) though all are "
                f"there; check the network between their hosts; {self._way_out()}"
            )
        return self._describe(*gone, _one_line(error))

    def _describe(self, rank: int, reason: str, otherwise: str) -> str:
        return f"rank {rank} of {self._place.world_size} has gone ({reason or otherwise}); {self._way_out()}"

    def _find_gone(self, silent_seconds: float) -> tuple[int, str] | None:
        """A rank that left with an error, else the one that has been silent for longest."""
        with self._lock:
            failed = [(rank, reason) for rank, reason in self._left.items() if reason]
            if failed:
                # A rank that left because another had gone is not the first.
                return min(failed, key=lambda each: "has gone" in each[1])
            if self._is_store_gone and self._place.rank != 0:
                return 0, "it no longer answers"
            there = [rank for rank in self._others if rank not in self._left]
            silent = [rank for rank in there if self._silence(rank) > silent_seconds]
            if not silent:
                return None
            return max(silent, key=self._silence), ""

    def _silence(self, rank: int) -> float:
        return time.monotonic() - self._heard[rank]

    def _run(self) -> None:
        beat_seconds = max(BEAT_SECONDS, self._place.world_size / 32)
        while not self._stop.wait(beat_seconds):
            self._look()
            gone = self._find_gone(self._silent_seconds) if self._end_process else None
            # Ranks that were told to stop leave while rank 0 still writes their checkpoint.
            if gone is not None and gone[1] != _INTERRUPTED:
                self._end(gone)

    def _end(self, gone: tuple[int, str]) -> None:
        """Give the main thread time to raise by itself; end the process where it is stuck."""
        if not self._stop.wait(LEAVE_SECONDS):
            silence = f"nothing heard for {self._silent_seconds:.0f} s"
            sys.stderr.write(f"assay: error: {self._describe(*gone, silence)}\n")
            sys.stderr.flush()
            os._exit(1)

    def _look(self) -> None:
        """Count up, and note who else did and who left."""
        ranks = self._others
        with self._lock:
            self._count += 1
            try:
                self._asked.set(f"count/{self._place.rank}", str(self._count))
                answers = self._asked.multi_get(
                    [*(f"count/{rank}" for rank in ranks), *(f"left/{rank}" for rank in ranks)]
                )
            except RuntimeError:
                self._is_store_gone = True
                return
            now = time.monotonic()
            for rank, count, left in zip(ranks, answers[: len(ranks)], answers[len(ranks) :], strict=True):
                if self._counts.get(rank) != count:
                    self._counts[rank], self._heard[rank] = count, now
                if left:
                    self._left[rank] = str(json.loads(left))


def _is_broken(error: RuntimeError) -> bool:
    """Whether a collective failed, as opposed to anything else that torch raises as a RuntimeError."""
    return isinstance(error, dist.DistError) or _BROKEN.search(str(error)) is not None


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    return str(error) if isinstance(error, AssayError) else f"{type(error).__name__}: {_one_line(error)}"


def _one_line(error: BaseException) -> str:
    """The first line of an error, without the place in a C++ source that gloo puts first."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\[\S+?:\d+\] ", "", lines[0])[:200].rstrip(".")


# ---------------------------------------------------------------- agreeing


def sum_over_ranks(world: World, values: NDArray[ScalarT]) -> NDArray[ScalarT]:
    """The element-wise sum over all ranks, the same on each; a new array."""
    if world.world_size == 1:
        return values.copy()
    tensor = torch.from_numpy(values.copy())
    dist.all_reduce(tensor)
    summed: NDArray[ScalarT] = tensor.numpy()
    return summed


def gather_rows(
    world: World, row_indices: NDArray[np.int64], values: NDArray[ScalarT], *, num_rows: int
) -> NDArray[ScalarT]:
    """The values [R, ...] of all rows in row order, the same on every rank, each row once.

    `row_indices` [N] says which rows the `values` [N, ...] of this rank belong to; N may differ between
    ranks and be 0, what follows it may not. A row that several ranks have is taken from the lowest of
    them. Every row from 0 to R - 1 must be there.
    """
    rows_T = _gather_first_axis(world, row_indices)
    values_T = _gather_first_axis(world, values)
    rows_R, first_R = np.unique(rows_T, return_index=True)
    assert np.array_equal(rows_R, np.arange(num_rows)), f"{len(rows_R)} of {num_rows} rows"
    gathered: NDArray[ScalarT] = values_T[first_R]
    return gathered


def gather_tensor(world: World, own: torch.Tensor) -> torch.Tensor:
    """The rows of all ranks one after the other, by rank; gradients flow into this rank's own alone.

    Ranks may have different numbers of rows; what follows the first axis is the same on each.
    """
    if world.world_size == 1:
        return own
    counts = torch.zeros(world.world_size, dtype=torch.int64)
    counts[world.rank] = len(own)
    dist.all_reduce(counts)
    sent = own.new_zeros((int(counts.max()), *own.shape[1:]))
    sent[: len(own)] = own.detach()
    received = [torch.empty_like(sent) for _ in range(world.world_size)]
    dist.all_gather(received, sent)
    pieces = [piece[: int(count)] for piece, count in zip(received, counts, strict=True)]
    pieces[world.rank] = own
    return torch.cat(pieces)


def broadcast_flag(world: World, *, flag: bool) -> bool:
    """What rank 0 says, on every rank."""
    if world.world_size == 1:
        return flag
    tensor = torch.tensor([flag], dtype=torch.uint8)
    dist.broadcast(tensor, src=0)
    return bool(tensor.item())


def any_rank(world: World, *, flag: bool) -> bool:
    """Whether any rank says so, on every rank: a signal may reach one alone, and all must stop at one step."""
    if world.world_size == 1:
        return flag
    tensor = torch.tensor([flag], dtype=torch.uint8)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return bool(tensor.item())


def all_equal(world: World, value: object) -> bool:
    """Whether a plain value (as JSON takes it) is the same on all ranks; the answer is, on every rank."""
    content = json.dumps(value, sort_keys=True).encode()
    digest = np.frombuffer(hashlib.blake2b(content, digest_size=16).digest(), dtype=np.uint8)[None]
    return len(np.unique(_gather_first_axis(world, digest), axis=0)) == 1


def _gather_first_axis(world: World, values: NDArray[ScalarT]) -> NDArray[ScalarT]:
    """The arrays of all ranks one after the other, by rank; they may differ in their first axis."""
    if world.world_size == 1:
        return values
    row_bytes = values.dtype.itemsize * int(np.prod(values.shape[1:], dtype=np.int64))
    counts = torch.zeros(world.world_size, dtype=torch.int64)
    counts[world.rank] = len(values)
    dist.all_reduce(counts)
    most = int(counts.max())
    sent = torch.zeros(most * row_bytes, dtype=torch.uint8)
    own = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    sent.numpy()[: own.size] = own
    received = [torch.zeros_like(sent) for _ in range(world.world_size)]
    dist.all_gather(received, sent)
    content = b"".join(
        piece[: int(count) * row_bytes].numpy().tobytes()
        for piece, count in zip(received, counts, strict=True)
    )
    gathered = np.frombuffer(bytearray(content), dtype=values.dtype)
    return gathered.reshape(-1, *values.shape[1:])
