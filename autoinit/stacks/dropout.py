"""Dropout in a stack with the very mask of a training by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..task.interceptor import Interceptor
from .plain_attention import attention


class SameDropout(Interceptor):
    """Draws one mask for all candidates as one candidate by itself would draw it.

    A mask is drawn in the order of memory, and on CUDA by a fused kernel; under `torch.vmap` it would be drawn in the
    order of the axes, by another one. Where attention drops weights, it is computed by its formula.
    """

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns what the function returns, and for dropout the input times a mask."""
        return _SAME.get(func, func)(*args, **kwargs)


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    if not training or not 0.0 < p < 1.0:
        return F.dropout(input, p, training, inplace)
    mask: Tensor = _Mask.apply(input, p)  # type: ignore[no-untyped-call]
    return input.mul_(mask) if inplace else input * mask


def _attention(*args: Any, **kwargs: Any) -> Tensor:
    drops = args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)
    return attention(_dropout, *args, **kwargs) if drops else F.scaled_dot_product_attention(*args, **kwargs)


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


def _calling(function: Any, **others: Callable[..., Any]) -> FunctionType:
    """Returns a copy of a function that calls others in the place of those that it finds by their names."""
    made = FunctionType(function.__code__, {**function.__globals__, **others}, None, function.__defaults__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


_SAME: dict[Callable[..., Any], Callable[..., Any]] = {
    F.dropout: _dropout,
    F.scaled_dot_product_attention: _attention,
    # What a function of torch calls itself goes past an interceptor that has seen the function.
    F.multi_head_attention_forward: _calling(
        F.multi_head_attention_forward, dropout=_dropout, scaled_dot_product_attention=_attention
    ),
}
"""Functions that draw a mask, with what draws it as a training by itself does."""
