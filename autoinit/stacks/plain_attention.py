"""Attention in a stack: by its formula, whose dropout is drawn as that of a training by itself."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Dropout = Callable[[Tensor, float], Tensor]
"""Drops a share of a tensor's entries."""


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Computes attention by its formula: the fused kernels have no rule for stacked weights.

    On CUDA they also draw their dropout inside, in an order of their own, which no formula can draw again.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def attention(
    dropout: Dropout,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Returns what torch's `scaled_dot_product_attention` does, with a dropout that is given.

    Args:
        dropout: of the weights.
        query: [..., heads, L, E].
        key: [..., heads, S, E].
        value: [..., heads, S, V].
        attn_mask: bool, true where attention is allowed, or numbers that are added; it extends to [..., heads, L, S].
        dropout_p: share of the weights that is dropped.
        is_causal: whether a place attends to none after it.
        scale: of the products; None for 1/√E.
        enable_gqa: whether several heads of the query share one of the key.
    """
    if enable_gqa:
        shared = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(shared, -3), value.repeat_interleave(shared, -3)
    half = math.sqrt(1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    scores = (query * half) @ (key * half).mT
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return dropout(scores.softmax(-1), dropout_p) @ value
