"""Attention over packed documents, with gradients and dropout of the attention's weights.

On a GPU in half precision torch's FlashAttention 2 for documents of any length (Dao 2023); else a
product for each run of documents of like length, padded to the longest of the run. Torch's public
`varlen_attn` has no dropout, so its operator is called by name.

Axes: T tokens, S documents, A heads, D of a head, n documents of a run, L its longest.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling

WASTE = 8
"""A run takes in shorter documents while at most one in so many of its tokens is padding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthRun:
    """Neighbouring documents that are attended to together, padded to the first one's length."""

    first_document: int
    first_token: int
    lengths: tuple[int, ...]
    """Tokens of each, longest first."""

    @property
    def num_tokens(self) -> int:
        """Real tokens."""
        return sum(self.lengths)

    @property
    def is_even(self) -> bool:
        """Whether all are of one length."""
        return self.lengths[0] == self.lengths[-1]


def cut_runs(lengths: tuple[int, ...]) -> tuple[LengthRun, ...]:
    """[pure] Documents, longest first, as runs of little padding."""
    runs: list[LengthRun] = []
    start = first_token = 0
    while start < len(lengths):
        stop, real = start, 0
        while stop < len(lengths):
            padded = lengths[start] * (stop + 1 - start)
            if (padded - real - lengths[stop]) * WASTE > padded:
                break
            real += lengths[stop]
            stop += 1
        runs.append(LengthRun(first_document=start, first_token=first_token, lengths=lengths[start:stop]))
        start, first_token = stop, first_token + real
    return tuple(runs)


def flash_attention(
    q_RAD: torch.Tensor,
    k_TAD: torch.Tensor,
    v_TAD: torch.Tensor,
    *,
    cu_queries: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_queries: int,
    max_seqlen: int,
    dropout: float,
    window: int | None,
) -> torch.Tensor:
    """Attention of each document's queries to its own tokens, [R, A, D]; bf16 or fp16 on a GPU."""
    side = -1 if window is None else window
    result: torch.Tensor = torch.ops.aten._flash_attention_forward(  # noqa: SLF001
        q_RAD,
        k_TAD,
        v_TAD,
        cu_queries,
        cu_seqlens,
        max_queries,
        max_seqlen,
        dropout,
        False,  # noqa: FBT003
        False,  # noqa: FBT003
        window_size_left=side,
        window_size_right=side,
    )[0]
    return result


def run_attention(
    q_RAD: torch.Tensor,
    k_TAD: torch.Tensor,
    v_TAD: torch.Tensor,
    runs: tuple[LengthRun, ...],
    *,
    dropout: float,
    window: int | None,
) -> torch.Tensor:
    """As `flash_attention`, on any device in any precision.

    `q_RAD` holds every token's query, or one a document where it has as many rows as documents.
    """
    firsts_only = q_RAD.shape[0] != k_TAD.shape[0]
    return torch.cat([_attend(q_RAD, k_TAD, v_TAD, run, firsts_only, dropout, window) for run in runs])


def _attend(
    q_RAD: torch.Tensor,
    k_TAD: torch.Tensor,
    v_TAD: torch.Tensor,
    run: LengthRun,
    firsts_only: bool,  # noqa: FBT001
    dropout: float,
    window: int | None,
) -> torch.Tensor:
    count, longest = len(run.lengths), run.lengths[0]
    tokens = slice(run.first_token, run.first_token + run.num_tokens)
    documents = slice(run.first_document, run.first_document + count)
    where_nL, is_token_nL = (None, None) if run.is_even else _places(run, k_TAD.device)
    keys, values = (_padded(x_TAD[tokens], where_nL, count, longest) for x_TAD in (k_TAD, v_TAD))
    chosen = q_RAD[documents if firsts_only else tokens]
    queries = chosen[:, :, None] if firsts_only else _padded(chosen, where_nL, count, longest)
    mask = None if is_token_nL is None else is_token_nL[:, None, None, :]
    if window is not None and longest > window + 1:
        places = torch.arange(longest, device=k_TAD.device)
        near_LL = (places[: queries.shape[2], None] - places).abs() <= window
        mask = near_LL if mask is None else mask & near_LL
        # a padded query may see no token at all: let it see itself, its result is dropped
        if is_token_nL is not None and not firsts_only:
            mask = mask | torch.eye(longest, dtype=torch.bool, device=k_TAD.device)
    out_nAXD = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, dropout_p=dropout)
    if firsts_only:
        return out_nAXD[:, :, 0]
    out_XAD = out_nAXD.transpose(1, 2).flatten(0, 1)
    return out_XAD if is_token_nL is None else out_XAD[is_token_nL.flatten().nonzero()[:, 0]]


def _places(run: LengthRun, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each place of the padded run lies among its tokens, and whether it is a token; [n, L]."""
    lengths_n = torch.tensor(run.lengths, device=device)
    starts_n = lengths_n.cumsum(0) - lengths_n
    places_L = torch.arange(run.lengths[0], device=device)
    is_token_nL = places_L < lengths_n[:, None]
    return torch.where(is_token_nL, starts_n[:, None] + places_L, 0), is_token_nL


def _padded(x_XAD: torch.Tensor, where_nL: torch.Tensor | None, count: int, longest: int) -> torch.Tensor:
    """[n, A, L, D] of a run's tokens."""
    rows = x_XAD if where_nL is None else x_XAD.index_select(0, where_nL.flatten())
    return rows.view(count, longest, *rows.shape[1:]).transpose(1, 2)
