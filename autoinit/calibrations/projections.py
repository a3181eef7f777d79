"""The input projections of nn.MultiheadAttention, which it computes out of sight, seen and changed before it does."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..task.evaluation import ForwardOnly

Change = Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""(name of a weight, the weight, what it is about to put out without a bias) → the weight to use in its place, and what
to add to the bias; None for nothing."""


def projection_weights(model: nn.Module) -> dict[str, Tensor]:
    """Returns the weights of input projections by name, derived ones as `parametrize.cached()` has them."""
    paths = [path for path, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)]
    names = [f"{path}.{own}".lstrip(".") for path in paths for own in ("in_proj_weight", *_SEPARATE)]
    found = {name: attrgetter(name)(model) for name in names}
    return {name: weight for name, weight in found.items() if weight is not None}


class Projections(ForwardOnly):
    """Shows what the input projections of attention are about to put out, and has attention use what it is told.

    It passes over `loss.backward()`.

    Attributes:
        names: of the weights that it is about, by the id of the tensor that attention is called with.
        parts: rows of the queries, keys and values of the attention at hand, which are stacked in what is shown of a
            weight for all three.
    """

    def __init__(self, change: Change) -> None:
        """Makes one that knows no weight yet; `change` is asked at each use of one."""
        super().__init__()
        self.names: Mapping[int, str] = {}
        self.parts: tuple[int, ...] = ()
        self._change = change

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns what the function returns, of attention with the weights that `change` says."""
        if func is not F.multi_head_attention_forward:
            return super().called(func, args, kwargs)
        bound = inspect.signature(func).bind(*args, **kwargs)
        self.parts = tuple(bound.arguments[key].shape[:-1].numel() for key in _INPUTS)
        self._put(bound.arguments)
        return func(*bound.args, **bound.kwargs)

    def _put(self, given: dict[str, Any]) -> None:
        """Puts other weights and biases into the arguments of a call."""
        inputs = [given[key] for key in _INPUTS]
        packed = given.get("in_proj_weight")
        if isinstance(packed, Tensor) and id(packed) in self.names:
            weights = packed.detach().chunk(3)
            products = [F.linear(x, weight).flatten(0, -2) for x, weight in zip(inputs, weights, strict=True)]
            given["in_proj_weight"], shift = self._change(self.names[id(packed)], packed, torch.cat(products))
            given["in_proj_bias"] = given["in_proj_bias"] if shift is None else given["in_proj_bias"] + shift
        for x, key in zip(inputs, _SEPARATE, strict=True):
            weight = given.get(key)
            if isinstance(weight, Tensor) and id(weight) in self.names:
                given[key], _ = self._change(self.names[id(weight)], weight, F.linear(x, weight.detach()))


_INPUTS = ("query", "key", "value")
_SEPARATE = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
