"""The nearest vectors of a corpus by cosine similarity, on one device.

The corpus is gone through in blocks. Products of a block are only the first look: what they leave is computed
again in float64, a pair at a time, so that a score and the order of equal scores depend neither on the block size
nor on the device. Where the first look cannot be sure of the last places, all that may belong there is computed.

Axes: B anchors, C vectors of a block, D dimensions, K neighbours.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from assay.errors import UsageError
from assay.extras import need_packages
from assay.mine.settings import Index
from assay.mine.store import Floats, Ints, VectorFile, VectorStore

SPARE = 16
"""How many more neighbours the first look keeps."""
RESIDENT_SHARE = 0.6
"""Of a GPU's free memory, for the corpus; a larger one is streamed through it."""
RESIDENT_BYTES = 256 << 20
"""Of host memory, for a corpus that is searched on the CPU; a larger one is read block by block."""
PAIRS_AT_ONCE = 1 << 21
"""Components that are multiplied at once in float64, on a CPU."""
IVF_FROM = 50_000
"""Vectors from which on faiss searches lists of neighbours, not all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbours:
    """The nearest rows of each anchor, the closest first, equal ones in the order of the corpus."""

    rows_BK: Ints
    """-1 where there are no more."""
    scores_BK: Floats
    """Cosine similarities; minus infinity where there are no more."""


class SearchedVectors(Protocol):
    """Vectors that blocks and single rows are taken of, on the device that computes."""

    num_rows: int

    def blocks(self, size: int) -> Iterator[tuple[int, torch.Tensor]]:
        """All rows in order, each block with the number of its first row."""
        ...

    def take(self, rows: Ints) -> torch.Tensor:
        """These rows."""
        ...


class ResidentCorpus:
    """All vectors in the memory of the device."""

    def __init__(self, file: VectorFile, device: torch.device) -> None:
        """Read the file onto the device."""
        self.num_rows = file.num_rows
        self._vectors = torch.empty(file.num_rows, file.dimension, device=device)
        for start in range(0, file.num_rows, 65_536):
            stop = min(start + 65_536, file.num_rows)
            self._vectors[start:stop] = torch.from_numpy(file.read(start, stop)).to(device)

    def blocks(self, size: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Slices of them."""
        for start in range(0, self.num_rows, size):
            yield start, self._vectors[start : start + size]

    def take(self, rows: Ints) -> torch.Tensor:
        """A copy of these rows."""
        return self._vectors[torch.from_numpy(rows).to(self._vectors.device)]


class StreamedCorpus:
    """Vectors that stay in their file."""

    def __init__(self, file: VectorFile, device: torch.device) -> None:
        """Read nothing yet."""
        self.num_rows = file.num_rows
        self._file, self._device = file, device

    def blocks(self, size: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Blocks, read as they are asked for."""
        for start in range(0, self.num_rows, size):
            stop = min(start + size, self.num_rows)
            yield start, torch.from_numpy(self._file.read(start, stop)).to(self._device)

    def take(self, rows: Ints) -> torch.Tensor:
        """These rows, read from the file."""
        return torch.from_numpy(self._file.take(rows)).to(self._device)


def place_corpus(file: VectorFile, device: torch.device) -> SearchedVectors:
    """In the device's memory where it fits, else in its file."""
    size_bytes = file.num_rows * file.dimension * 4
    if device.type == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info(device)
        fits = size_bytes <= RESIDENT_SHARE * free_bytes
    else:
        fits = size_bytes <= RESIDENT_BYTES
    return ResidentCorpus(file, device) if fits else StreamedCorpus(file, device)


class FirstLook(Protocol):
    """What finds the rows that may be among the nearest."""

    def nearest(
        self, anchors_BD: torch.Tensor, groups_B: torch.Tensor | None, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and scores of the k best, in any precision, at least all of those there are; -inf for none."""
        ...

    def above(
        self, anchors_BD: torch.Tensor, groups_B: torch.Tensor | None, threshold_B: torch.Tensor
    ) -> list[Ints]:
        """All rows of at least so high a score; one array an anchor."""
        ...

    error: float
    """How far a score may be from the true one; 0 where `above` cannot tell more than `nearest`."""


class ExactLook:
    """Products with every vector, block by block."""

    def __init__(
        self, corpus: SearchedVectors, groups: torch.Tensor | None, *, block_rows: int, dimension: int
    ) -> None:
        """Look through `corpus`; `groups` are its groups, on the same device."""
        self._corpus, self._groups, self._block_rows = corpus, groups, block_rows
        # What rounding can do to a sum of so many float32 products of vectors of length one.
        self.error = dimension * 2.0**-23

    def _scores(
        self, anchors_BD: torch.Tensor, groups_B: torch.Tensor | None
    ) -> Iterator[tuple[int, torch.Tensor]]:
        for start, block_CD in self._corpus.blocks(self._block_rows):
            scores_BC = anchors_BD @ block_CD.T
            if groups_B is not None and self._groups is not None:
                same_BC = groups_B[:, None] == self._groups[None, start : start + len(block_CD)]
                scores_BC.masked_fill_(same_BC & (groups_B != 0)[:, None], -torch.inf)
            yield start, scores_BC

    def nearest(
        self, anchors_BD: torch.Tensor, groups_B: torch.Tensor | None, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The k best so far, and those of the next block, until none is left."""
        best_scores = anchors_BD.new_empty(len(anchors_BD), 0)
        best_rows = torch.empty(len(anchors_BD), 0, dtype=torch.int64, device=anchors_BD.device)
        for start, scores_BC in self._scores(anchors_BD, groups_B):
            scores, rows = scores_BC.topk(min(k, scores_BC.shape[1]), dim=1, sorted=False)
            best_scores = torch.cat([best_scores, scores], dim=1)
            best_rows = torch.cat([best_rows, rows + start], dim=1)
            if best_scores.shape[1] > k:
                best_scores, places = best_scores.topk(k, dim=1, sorted=False)
                best_rows = best_rows.gather(1, places)
        return best_rows, best_scores

    def above(
        self, anchors_BD: torch.Tensor, groups_B: torch.Tensor | None, threshold_B: torch.Tensor
    ) -> list[Ints]:
        """One more pass."""
        found: list[list[Ints]] = [[] for _ in range(len(anchors_BD))]
        for start, scores_BC in self._scores(anchors_BD, groups_B):
            anchors, rows = torch.nonzero(scores_BC >= threshold_B[:, None], as_tuple=True)
            numbers, places = anchors.cpu().numpy(), rows.cpu().numpy() + start
            for anchor in np.unique(numbers):
                found[anchor].append(places[numbers == anchor])
        return [np.concatenate([*each, np.zeros(0, dtype=np.int64)]) for each in found]


class FaissLook:
    """An inverted file of faiss on the CPU: fast and approximate; all vectors in memory."""

    error = 0.0

    def __init__(self, file: VectorFile, groups: torch.Tensor | None, *, num_threads: int) -> None:
        """Train and fill the index; raises UsageError where faiss is not installed."""
        need_packages("faiss", used_by="--index faiss", or_else="use --index exact")
        import faiss

        faiss.omp_set_num_threads(num_threads)
        self._groups = groups
        self._num_rows = file.num_rows
        if file.num_rows < IVF_FROM:
            self._index: Any = faiss.IndexFlatIP(file.dimension)
        else:
            num_lists = int(4 * np.sqrt(file.num_rows))
            quantizer = faiss.IndexFlatIP(file.dimension)
            self._index = faiss.IndexIVFFlat(quantizer, file.dimension, num_lists, faiss.METRIC_INNER_PRODUCT)
            self._index.nprobe = max(16, num_lists // 16)
            drawn = np.random.default_rng(0).choice(
                file.num_rows, min(file.num_rows, 64 * num_lists), replace=False
            )
            self._index.train(file.take(np.sort(drawn)))
        for start in range(0, file.num_rows, 65_536):
            self._index.add(file.read(start, min(start + 65_536, file.num_rows)))

    def nearest(
        self, anchors_BD: torch.Tensor, groups_B: torch.Tensor | None, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the index finds, of other groups; it is asked for more where groups take too many."""
        asked = k
        while True:
            scores, rows = self._index.search(anchors_BD.numpy(), min(asked, self._num_rows))
            found_rows, found_scores = torch.from_numpy(rows), torch.from_numpy(scores)
            found_scores[found_rows < 0] = -torch.inf
            if groups_B is None or self._groups is None:
                return found_rows, found_scores
            same = (self._groups[found_rows.clamp(min=0)] == groups_B[:, None]) & (groups_B != 0)[:, None]
            found_scores[same] = -torch.inf
            if asked >= self._num_rows or int(torch.isfinite(found_scores).sum(dim=1).min()) >= k:
                found_scores, places = found_scores.topk(min(k, found_scores.shape[1]), dim=1)
                return found_rows.gather(1, places), found_scores
            asked *= 4

    def above(self, *_: object) -> list[Ints]:
        """Never asked: what an approximate search did not see stays unseen."""
        raise AssertionError


class Searcher:
    """The nearest rows of anchors, from a first look made exact."""

    def __init__(
        self, corpus: SearchedVectors, look: FirstLook, device: torch.device, *, anchors_at_once: int
    ) -> None:
        """Search `corpus` by `look`."""
        self._corpus, self._look, self._device = corpus, look, device
        self._anchors_at_once = anchors_at_once

    def nearest(self, anchors: Floats, groups: Ints | None, k: int) -> Neighbours:
        """The k nearest rows of each anchor, none of its own group (0 is none)."""
        k = min(k, self._corpus.num_rows)
        found = [
            self._nearest(
                anchors[start : start + self._anchors_at_once],
                None if groups is None else groups[start : start + self._anchors_at_once],
                k,
            )
            for start in range(0, len(anchors), self._anchors_at_once)
        ]
        if not found:
            return Neighbours(
                rows_BK=np.zeros((0, k), dtype=np.int64), scores_BK=np.zeros((0, k), dtype=np.float32)
            )
        return Neighbours(
            rows_BK=np.concatenate([rows for rows, _ in found]),
            scores_BK=np.concatenate([scores for _, scores in found]),
        )

    def scores(self, anchors: Floats, anchor_P: Ints, rows_P: Ints) -> Floats:
        """The similarity of each pair of an anchor (by its place) and a row of the corpus."""
        on_device = torch.from_numpy(anchors).to(self._device)
        found = [
            self._exact(on_device[torch.from_numpy(anchor_P[start : start + 65_536]).to(self._device)], rows)
            for start in range(0, len(rows_P), 65_536)
            if len(rows := rows_P[start : start + 65_536, None])
        ]
        return np.concatenate([*(each[:, 0] for each in found), np.zeros(0, dtype=np.float32)])

    def _nearest(self, anchors: Floats, groups: Ints | None, k: int) -> tuple[Ints, Floats]:
        anchors_BD = torch.from_numpy(np.ascontiguousarray(anchors)).to(self._device)
        groups_B = None if groups is None else torch.from_numpy(groups).to(self._device)
        rows, looked = self._look.nearest(anchors_BD, groups_B, k + SPARE)
        is_there = torch.isfinite(looked)
        rows_BK = torch.where(is_there, rows, -1).cpu().numpy()
        scores_BK = self._exact(anchors_BD, rows_BK)
        rows_BK, scores_BK = _sorted(rows_BK, scores_BK, k)
        if self._look.error and rows.shape[1] < self._corpus.num_rows:
            # What was not looked at scores at most `unseen`; the last place is safe where it is above that.
            unseen = looked.min(dim=1).values.cpu().numpy()
            last = scores_BK[:, -1].astype(np.float64)
            doubtful = np.flatnonzero(np.isfinite(unseen) & (unseen + 2 * self._look.error >= last))
            if len(doubtful):
                self._look_again(anchors_BD, groups_B, doubtful, rows_BK, scores_BK, k)
        return rows_BK, scores_BK

    def _look_again(
        self,
        anchors_BD: torch.Tensor,
        groups_B: torch.Tensor | None,
        doubtful: Ints,
        rows_BK: Ints,
        scores_BK: Floats,
        k: int,
    ) -> None:
        """Put all that may be among the nearest k of the doubtful anchors to the exact test."""
        places = torch.from_numpy(doubtful).to(self._device)
        least = torch.from_numpy(scores_BK[doubtful, -1]).to(self._device) - 2 * self._look.error
        anchors_ED = anchors_BD[places]
        found = self._look.above(anchors_ED, None if groups_B is None else groups_B[places], least)
        for index, (anchor, rows) in enumerate(zip(doubtful.tolist(), found, strict=True)):
            scores = np.concatenate(
                [
                    self._exact(anchors_ED[index : index + 1], rows[None, start : start + 65_536])[0]
                    for start in range(0, len(rows), 65_536)
                ]
            )
            best_rows, best_scores = _sorted(rows[None], scores[None], k)
            rows_BK[anchor], scores_BK[anchor] = best_rows[0], best_scores[0]

    def _exact(self, anchors_BD: torch.Tensor, rows_BK: Ints) -> Floats:
        """Scores of these rows, each pair by itself in float64, as float32; -inf for a row below 0."""
        num_anchors, num_rows = rows_BK.shape
        found = np.full(rows_BK.shape, -np.inf, dtype=np.float32)
        dimension = anchors_BD.shape[1]
        at_once = PAIRS_AT_ONCE * (64 if self._device.type == "cuda" else 1)
        step = max(1, at_once // max(dimension * num_rows, 1))
        for start in range(0, num_anchors, step):
            rows = rows_BK[start : start + step]
            vectors = self._corpus.take(np.maximum(rows, 0).reshape(-1)).reshape(*rows.shape, dimension)
            found[start : start + step] = _dot(anchors_BD[start : start + step], vectors)
        found[rows_BK < 0] = -np.inf
        return found


def _dot(anchors_BD: torch.Tensor, vectors_BKD: torch.Tensor) -> NDArray[np.float32]:
    """Sums over D in float64, rounded once."""
    if anchors_BD.device.type == "cuda":
        products = anchors_BD.double()[:, None, :] * vectors_BKD.double()
        rounded: NDArray[np.float32] = products.sum(dim=2).float().cpu().numpy()
        return rounded
    anchors, vectors = anchors_BD.numpy().astype(np.float64), vectors_BKD.numpy()
    on_cpu: NDArray[np.float32] = (anchors[:, None, :] * vectors).sum(axis=2).astype(np.float32)
    return on_cpu


def _sorted(rows_BK: Ints, scores_BK: Floats, k: int) -> tuple[Ints, Floats]:
    """The first k by falling score, equal ones by row; what is not there goes last."""
    order = np.lexsort((rows_BK, -scores_BK), axis=1)[:, :k]
    return np.take_along_axis(rows_BK, order, axis=1), np.take_along_axis(scores_BK, order, axis=1)


def block_sizes(device: torch.device, block_rows: int | None = None) -> tuple[int, int]:
    """Anchors and vectors of one product: 2 GiB of scores on a GPU, 32 MiB on a CPU."""
    anchors, rows = (2_048, 262_144) if device.type == "cuda" else (1_024, 8_192)
    return anchors, block_rows or rows


def parse_device(name: str) -> torch.device:
    """The torch device of `cpu` or `cuda:K`."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"device {name!r} does not exist here; use --devices 1 on a machine with a GPU, or the CPU"
        )
    return device


def use_threads(num_threads: int) -> None:
    """Let products on the CPU take so many threads; those on a GPU stay in full float32."""
    torch.set_num_threads(num_threads)
    torch.backends.cuda.matmul.allow_tf32 = False


def open_searcher(
    corpus: VectorStore, device: torch.device, *, index: Index, block_rows: int | None, num_threads: int
) -> Searcher:
    """The search of a store on a device."""
    groups = None if corpus.groups is None else torch.from_numpy(corpus.groups).to(device)
    placed = place_corpus(corpus.vectors, device)
    anchors_at_once, rows = block_sizes(device, block_rows)
    look: FirstLook
    if index == "faiss":
        look = FaissLook(corpus.vectors, groups, num_threads=num_threads)
    else:
        look = ExactLook(placed, groups, block_rows=rows, dimension=corpus.vectors.dimension)
    return Searcher(placed, look, device, anchors_at_once=anchors_at_once)
