"""Normalizations as plain formulas, for what differentiates a model's loss three times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..task.interceptor import Interceptor


class PlainNorms(Interceptor):
    """Puts (x − mean)/√(var + ε) in the place of the fused batch, instance and layer normalization.

    Their third derivative is wrong in torch 2.13: a difference of second ones tells another. In 2.14 that of batch and
    instance normalization is refused, that of layer normalization wrong still. Running statistics are not updated.
    """

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns the normalization of a formula; what else is called goes on to torch."""
        formula = _FORMULAS.get(func)
        found = None if formula is None else formula(*args, **kwargs)
        return func(*args, **kwargs) if found is None else found


def _batch(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """Returns what `F.batch_norm` does; None where it takes no statistics of its input, and is linear in it."""
    if not training:
        return None
    axes = [0, *range(2, input.dim())]
    return _normalized(input, axes, eps, _by_channel(weight, input), _by_channel(bias, input))


def _instance(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    """Returns what `F.instance_norm` does; None where it takes no statistics of its input, and is linear in it."""
    if not use_input_stats:
        return None
    axes = list(range(2, input.dim()))
    return _normalized(input, axes, eps, _by_channel(weight, input), _by_channel(bias, input))


def _layer(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    """Returns what `F.layer_norm` and `torch.layer_norm` do."""
    return _normalized(input, list(range(-len(normalized_shape), 0)), eps, weight, bias)


def _below(formula: Callable[..., Tensor | None]) -> Callable[..., Tensor | None]:
    """Returns a formula with the order of arguments that torch's own function has, below the one of `F`."""

    def called(
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        training: bool,
        momentum: float,
        eps: float,
        cudnn_enabled: bool,
    ) -> Tensor | None:
        return formula(input, running_mean, running_var, weight, bias, training, momentum, eps)

    return called


_FORMULAS: dict[Callable[..., Any], Callable[..., Tensor | None]] = {
    F.batch_norm: _batch,
    F.instance_norm: _instance,
    F.layer_norm: _layer,
    torch.batch_norm: _below(_batch),
    torch.instance_norm: _below(_instance),
    torch.layer_norm: _layer,
}


def _by_channel(values: Tensor | None, input: Tensor) -> Tensor | None:
    """Returns one value a channel in the shape that meets an input's second axis."""
    return None if values is None else values.view(-1, *[1] * (input.dim() - 2))


def _normalized(input: Tensor, axes: list[int], eps: float, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    wide = input.to(torch.promote_types(input.dtype, torch.float32))
    variance, mean = torch.var_mean(wide, axes, correction=0, keepdim=True)
    found = (wide - mean) / (variance + eps).sqrt()
    if weight is not None:
        found = found * weight
    if bias is not None:
        found = found + bias
    return found.to(input.dtype)
