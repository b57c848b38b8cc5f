"""Vectors by content: what one run has computed, no later one computes again.

A vector's key is a hash of the token ids that made it; a folder holds those of one model, pooled and computed in one
way. So a changed text, another tokenizer or another model simply has other keys. Each chunk of a run that computed
something becomes a segment: an Arrow file of its own name, keys in order, written aside, synced and renamed. Workers
share a folder without speaking to each other; one that dies loses the chunk under way, and a file that is not whole
is left out, not believed.

    CACHE/<hash of model, pooling, precision>/<random>.arrow      key: fixed_size_binary[16], vector: float32[D]

The index takes 16 bytes of memory a vector; the vectors stay on disk, mapped. Nothing is ever thrown away: delete the
folder. Axes: S sequences, D dimensions.
"""

import hashlib
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from assay.embed.forward import RunSequences
from assay.embed.kind import EmbedIdentity
from assay.engine.sequences import ForwardStats, Sequences
from assay.errors import StorageError
from assay.model.checkpoint import canonical_digest

_log = logging.getLogger(__name__)

FORMAT_VERSION = 1
KEY_BYTES = 16
ENDING = ".arrow"
_MERGE_SEGMENTS = 32
"""New segments that are searched one by one before they join the index."""

Floats = npt.NDArray[np.float32]
CacheKeys = npt.NDArray[np.uint64]
"""[S, 2]: the halves of each key; the first one sorts."""


class VectorCache:
    """The vectors of one model in a folder. One thread at a time."""

    def __init__(self, folder: Path, identity: EmbedIdentity, *, dimension: int) -> None:
        """Open the vectors of a run's identity, or begin them; StorageError where the folder cannot be made."""
        made_by = identity.model_dump(
            mode="json",
            include={"bundle", "pooling", "normalized", "precision", "engine", "deterministic"},
        )
        self._folder = folder / canonical_digest({"format": FORMAT_VERSION, **made_by})
        self._dimension = dimension
        self._known: set[str] = set()
        self._segments: list[_Segment] = []
        self._index = _Index()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"cache {folder}: {error.strerror or error}; give a writable folder"
            raise StorageError(msg) from error

    def around(self, run: RunSequences) -> RunSequences:
        """What gives the vectors of sequences from here where they are, and of all others from `run`."""

        def run_missing(sequences: Sequences) -> tuple[Floats, ForwardStats]:
            began = time.perf_counter()
            keys = keys_of(sequences)
            vectors_SD = np.empty((sequences.num_sequences, self._dimension), dtype=np.float32)
            is_there_S = self.take(keys, vectors_SD)
            missing = np.flatnonzero(~is_there_S)
            made, stats = run(sequences.take(missing))
            vectors_SD[missing] = made
            self.add(keys[missing], made)
            num_cached = sequences.num_sequences - len(missing)
            return vectors_SD, replace(
                stats,
                num_cached=num_cached,
                seconds=time.perf_counter() - began,
                fp32_sequences=missing[stats.fp32_sequences],
            )

        return run_missing

    def take(self, keys: CacheKeys, out_SD: Floats) -> npt.NDArray[np.bool_]:
        """Write the vectors that are there into their rows; which ones are, [S]."""
        self._look_for_new()
        segment_S, row_S = self._index.find(keys)
        is_there_S = segment_S >= 0
        for number in np.unique(segment_S[is_there_S]).tolist():
            wanted = np.flatnonzero(segment_S == number)
            out_SD[wanted] = self._segments[number].vectors_ND[row_S[wanted]]
        return is_there_S

    def add(self, keys: CacheKeys, vectors_SD: Floats) -> None:
        """Keep these vectors, as one segment; those that are not finite are not kept."""
        usable = np.flatnonzero(np.isfinite(vectors_SD).all(axis=1))
        _, first = np.unique(keys[usable], axis=0, return_index=True)
        chosen = usable[first]
        if not len(chosen):
            return
        table = pa.table(
            {
                "key": pa.FixedSizeBinaryArray.from_buffers(
                    pa.binary(KEY_BYTES), len(chosen), [None, pa.py_buffer(keys[chosen].tobytes())]
                ),
                "vector": pa.FixedSizeListArray.from_arrays(
                    pa.array(vectors_SD[chosen].reshape(-1)), self._dimension
                ),
            }
        )
        name = f"{uuid4().hex}{ENDING}"
        scratch = self._folder / f".{name}"
        try:
            with scratch.open("wb") as file:
                with pa.ipc.new_file(file, table.schema) as writer:
                    writer.write_table(table)
                file.flush()
                os.fsync(file.fileno())
            scratch.rename(self._folder / name)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            msg = f"cache {self._folder}: {error.strerror or error}; free space, or run again without --cache"
            raise StorageError(msg) from error
        self._open(name)

    def _look_for_new(self) -> None:
        """Take in the segments that others have finished since."""
        with os.scandir(self._folder) as found:
            names = sorted(
                entry.name
                for entry in found
                if entry.name.endswith(ENDING) and not entry.name.startswith(".")
            )
        for name in names:
            if name not in self._known:
                self._open(name)

    def _open(self, name: str) -> None:
        self._known.add(name)
        try:
            segment = _Segment(self._folder / name, self._dimension)
        except (OSError, ValueError) as error:
            _log.warning("%s is left out of the cache: %s", self._folder / name, error)
            return
        self._segments.append(segment)
        self._index.add(segment.keys, len(self._segments) - 1)


class _Segment:
    """One file, mapped into memory. Raises what pyarrow does for a file that is not whole (a ValueError)."""

    def __init__(self, file: Path, dimension: int) -> None:
        with pa.memory_map(str(file)) as mapped:
            table = pa.ipc.open_file(mapped).read_all()
        wanted = {"key": pa.binary(KEY_BYTES), "vector": pa.list_(pa.float32(), dimension)}
        if {field.name: field.type for field in table.schema} != wanted:
            msg = f"its columns are {table.schema.names}, not keys and vectors of {dimension} numbers"
            raise ValueError(msg)
        column = table["key"].combine_chunks()
        self.keys: CacheKeys = np.frombuffer(column.buffers()[1], dtype=np.uint64).reshape(-1, 2)
        numbers = table["vector"].combine_chunks().flatten()
        self.vectors_ND: Floats = numbers.to_numpy().reshape(-1, dimension)
        if len(self.keys) != len(self.vectors_ND) or (self.keys[1:, 0] < self.keys[:-1, 0]).any():
            msg = "its keys are not in order"
            raise ValueError(msg)


class _Index:
    """Where each key is: sorted halves of keys, those of new segments apart until there are some."""

    def __init__(self) -> None:
        self._parts: list[tuple[CacheKeys, npt.NDArray[np.int64]]] = []

    def add(self, keys: CacheKeys, segment: int) -> None:
        """Take in the keys of a segment, in order; row k is at k."""
        places = (np.int64(segment) << 32) | np.arange(len(keys), dtype=np.int64)
        self._parts.append((keys, places))
        if len(self._parts) > _MERGE_SEGMENTS:
            keys = np.concatenate([each for each, _ in self._parts])
            places = np.concatenate([each for _, each in self._parts])
            order = np.argsort(keys[:, 0], kind="stable")
            self._parts = [(keys[order], places[order])]

    def find(self, keys: CacheKeys) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Segment and row of each key, [S] each; segment -1 for one that is not there.

        Of two keys with one first half, which nobody will meet, the second counts as not there.
        """
        found = np.full(len(keys), -1, dtype=np.int64)
        for held, places in self._parts:
            at = np.searchsorted(held[:, 0], keys[:, 0])
            at[at == len(held)] = 0
            same = (held[at] == keys).all(axis=1)
            found[same] = places[at[same]]
        return np.where(found < 0, -1, found >> 32), found & 0xFFFF_FFFF


def keys_of(sequences: Sequences) -> CacheKeys:
    """[pure] The key of each sequence: a hash of its ids as int32, and of where its second segment begins."""
    flat = np.ascontiguousarray(sequences.flat_ids, dtype=np.dtype("<i4"))
    starts = sequences.second_starts
    digests = bytearray()
    for row, (start, stop) in enumerate(
        zip(sequences.offsets[:-1].tolist(), sequences.offsets[1:].tolist(), strict=True)
    ):
        second = 0 if starts is None else int(starts[row])
        digest = hashlib.blake2b(
            flat[start:stop].tobytes(), digest_size=KEY_BYTES, salt=second.to_bytes(8, "little")
        )
        digests += digest.digest()
    return np.frombuffer(bytes(digests), dtype=np.uint64).reshape(-1, 2)
