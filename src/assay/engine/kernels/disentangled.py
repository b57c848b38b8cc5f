"""Disentangled attention (He et al. 2021, equation 4) over packed sequences, in plain torch.

    score(i, j) = scale * (q_i k_j + q_i position_keys[row(i - j)] + k_j position_queries[row(i - j)])

On any device and for any shape; what the kernels of triton_disentangled.py are tested against.

Axes: T rows of the batch, N sequences, n sequences of a group, L the longest of them, H hidden, A heads,
D of a head, P rows of relative positions, X distances.
"""

from dataclasses import dataclass

import torch

from assay.engine.kernels.layout import DeviceBatch
from assay.engine.kernels.plain import groups

HEAD_SIZES = frozenset({16, 32, 64, 128})
"""What triton_disentangled.py takes; other shapes run here."""
_GROUP = 16
"""Sequences of like length that one product takes."""
_STEP = 64
"""Reaches are a multiple of it, so that batches meet few shapes of products."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Distances:
    """The relative positions of one layer, a row for each distance: buckets shared by many are repeated.

    So what a query meets at neighbouring keys, or a key at neighbouring queries, lies side by side.
    """

    keys_AXD: torch.Tensor | None
    """What queries meet (c2p), row `reach` + key - query; None where the model has no such term."""
    queries_AXD: torch.Tensor | None
    """What keys meet (p2c), row `reach` + query - key; None where the model has no such term."""
    reach: int
    """X is twice this; distances are from -reach to reach - 1."""

    @classmethod
    def of(
        cls,
        position_keys_APD: torch.Tensor | None,
        position_queries_APD: torch.Tensor | None,
        relative_rows: torch.Tensor,
    ) -> "Distances":
        """Lay out the position tensors of a layer; `relative_rows` as in `DebertaWeights`."""
        farthest = relative_rows.shape[0] // 2
        reach = -(-(farthest + 1) // _STEP) * _STEP
        distance_X = torch.arange(-reach, reach).clamp(-farthest, farthest)
        ahead_X, past_X = (relative_rows.cpu()[sign * distance_X + farthest].long() for sign in (-1, 1))
        return cls(
            keys_AXD=_rows(position_keys_APD, ahead_X),
            queries_AXD=_rows(position_queries_APD, past_X),
            reach=reach,
        )

    def within(self, max_seqlen: int) -> "Distances":
        """Return those that sequences of at most `max_seqlen` tokens take; shares memory."""
        reach = min(self.reach, -(-max_seqlen // _STEP) * _STEP)
        kept = slice(self.reach - reach, self.reach + reach)
        return Distances(
            keys_AXD=None if self.keys_AXD is None else self.keys_AXD[:, kept],
            queries_AXD=None if self.queries_AXD is None else self.queries_AXD[:, kept],
            reach=reach,
        )


def attention(
    qkv_TH: torch.Tensor, distances: Distances, batch: DeviceBatch, *, num_heads: int, scale: float
) -> torch.Tensor:
    """Return disentangled attention within each sequence, [T, H]; rows of no token are 0.

    qkv is [T, 3H]. A term that the model does not have is left out. Arithmetic is float32 at least.
    """
    parts = qkv_TH.chunk(3, dim=1)
    out_TH = torch.zeros_like(parts[0])
    for rows_nL, mask_nL, _ in groups(batch, size=_GROUP):
        queries, keys, values = (_heads(part[rows_nL], num_heads) for part in parts)
        places_L = torch.arange(rows_nL.shape[1], device=qkv_TH.device)
        # [row, column]: how far the column is ahead
        ahead_LL = places_L - places_L[:, None] + distances.reach
        scores = queries @ keys.mT
        if distances.keys_AXD is not None:
            met = queries @ distances.keys_AXD.to(queries.dtype).mT
            scores += met.gather(-1, ahead_LL.expand(scores.shape))
        if distances.queries_AXD is not None:
            met = keys @ distances.queries_AXD.to(keys.dtype).mT
            # [key, query] turned to [query, key]
            scores += met.gather(-1, ahead_LL.expand(scores.shape)).mT
        attended = _softmax(scores * scale, mask_nL) @ values
        out_TH[rows_nL[mask_nL]] = attended.transpose(1, 2).flatten(2)[mask_nL].to(out_TH.dtype)
    return out_TH


def first_attention(
    queries_NH: torch.Tensor,
    keys_values_TH: torch.Tensor,
    distances: Distances,
    batch: DeviceBatch,
    *,
    num_heads: int,
    scale: float,
) -> torch.Tensor:
    """Return the attention of first tokens alone, [N, H]; keys and values are [T, 2H]."""
    parts = keys_values_TH.chunk(2, dim=1)
    out_NH = torch.empty_like(queries_NH)
    for rows_nL, mask_nL, sequences_n in groups(batch, size=_GROUP):
        keys, values = (_heads(part[rows_nL], num_heads) for part in parts)
        queries = _heads(queries_NH[sequences_n, None], num_heads)
        places_L = torch.arange(rows_nL.shape[1], device=queries.device)
        scores = queries @ keys.mT
        if distances.keys_AXD is not None:
            scores += queries @ distances.keys_AXD[:, distances.reach + places_L].to(queries.dtype).mT
        if distances.queries_AXD is not None:
            met = keys * distances.queries_AXD[:, distances.reach - places_L].to(keys.dtype)
            scores += met.sum(-1)[:, :, None]
        attended = _softmax(scores * scale, mask_nL) @ values
        out_NH[sequences_n] = attended.flatten(1).to(out_NH.dtype)
    return out_NH


def _rows(table_APD: torch.Tensor | None, rows_X: torch.Tensor) -> torch.Tensor | None:
    return None if table_APD is None else table_APD[:, rows_X.to(table_APD.device)].contiguous()


def _softmax(scores: torch.Tensor, mask_nL: torch.Tensor) -> torch.Tensor:
    """Softmax over the keys that are tokens of the sequence."""
    return scores.masked_fill(~mask_nL[:, None, None, :], float("-inf")).softmax(dim=-1)


def _heads(x_nLH: torch.Tensor, num_heads: int) -> torch.Tensor:
    """[n, A, L, D] in float32 or wider."""
    x = x_nLH.view(*x_nLH.shape[:2], num_heads, -1).transpose(1, 2)
    return x.to(torch.promote_types(x.dtype, torch.float32))
