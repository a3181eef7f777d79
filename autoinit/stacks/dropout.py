"""Dropout in a stack with the very mask of a training by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..task.interceptor import Interceptor


class SameDropout(Interceptor):
    """Draws one mask for all candidates as one candidate by itself would draw it.

    A mask is drawn in the order of memory, and on CUDA by a fused kernel; under `torch.vmap` it would be drawn in the
    order of the axes, by another one. Dropout inside fused attention is not seen here.
    """

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns what the function returns, and for dropout the input times a mask."""
        return _dropout(*args, **kwargs) if func is F.dropout else func(*args, **kwargs)


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training or not 0.0 < p < 1.0:
        return F.dropout(input, p, training, inplace)
    mask: Tensor = _Mask.apply(input, p)  # type: ignore[no-untyped-call]
    return input.mul_(mask) if inplace else input * mask


class _Mask(torch.autograd.Function):
    """What dropout multiplies a tensor with; under `torch.vmap` that of one row, drawn outside of it."""

    @staticmethod
    def forward(input: Tensor, p: float) -> Tensor:
        return F.dropout(torch.ones_like(input), p)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, None], input: Tensor, p: float) -> tuple[Tensor, None]:
        row = input if in_dims[0] is None else input.select(in_dims[0], 0)
        return F.dropout(torch.ones_like(row.detach()), p), None
