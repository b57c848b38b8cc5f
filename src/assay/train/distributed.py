"""Several processes that train one model: how they meet, and what they agree on.

The ranks meet at a store on rank 0's host and then form one group, NCCL for tensors of a GPU, gloo for those of the
CPU. Values go between ranks as bytes of arrays; nothing is pickled. Axes: N rows of a rank, R rows of all.
"""

import hashlib
import json
import math
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.distributed.distributed_c10d import PrefixStore, Store

from assay.errors import UsageError, WorkError
from assay.train import peers
from assay.train.peers import PeerWatch, is_broken, one_line, reason_of
from assay.train.world import RankPlace, World, find_place, pick_device

LISTENING_FD = "ASSAY_STORE_FD"
"""Variable with the number of a listening socket, open in rank 0, on which its store is to answer."""
TIMEOUT_SECONDS = 600.0
MOST_SILENT_SECONDS = 120.0
"""On a GPU, where nothing else would end the wait for a rank that is gone, it may be silent so long."""
END_SECONDS = peers.LEAVE_SECONDS / 4
"""For a group to end after a failure; much less, so that what failed is said before the others end themselves."""
_AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"

ScalarT = TypeVar("ScalarT", bound=np.generic)


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
    device = pick_device(place.local_rank if place else 0)
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
        if not isinstance(error, RuntimeError) or not is_broken(error):
            watch.leave(reason_of(error))
            raise
        explained = watch.explain(error)
        watch.leave(explained)
        raise WorkError(explained) from error
    finally:
        if not failed:
            watch.leave("")
        _end_group(must_wait=not failed)
        if place.rank == 0:  # it goes last: the store goes with it
            watch.wait_for_others(at_most_seconds=2 * peers.BEAT_SECONDS if failed else math.inf)
        watch.stop()


def _meet(
    place: RankPlace,
    environment: Mapping[str, str],
    device: torch.device,
    *,
    way_out: Callable[[], str],
    timeout_seconds: float,
) -> PeerWatch:
    """Form the group; returns the watch over its ranks, already beating."""
    timeout = timedelta(seconds=timeout_seconds)
    try:
        store = _open_store(place, environment, timeout)
        _refuse_shared_gpus(store, place, device)
        watch = PeerWatch(store, place, way_out=way_out, end_process=device.type == "cuda")
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
            f"({one_line(error)}); start all of them within {timeout_seconds:.0f} s, where that address can be reached"
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
