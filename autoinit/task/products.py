"""Which parameter is the weight of each product, watched while a model runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from .batches import tensors
from .interceptor import Interceptor

_PRODUCTS = frozenset(
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d matmul mm bmm addmm baddbmm mv"
    " __matmul__ __rmatmul__ einsum embedding embedding_bag bilinear".split()
)
"""Functions whose result is a product of data and a weight."""
_SAME_WEIGHT = frozenset(
    "t transpose permute view reshape to float double half bfloat16 contiguous expand unsqueeze squeeze clone flatten"
    " transpose_ swapaxes movedim type_as __get__".split()
)
"""Functions whose result stands for the weight that they are called on: views of it, and casts."""
_MULTIPLES = frozenset("mul __mul__ __rmul__ multiply div __truediv__ divide".split())
"""Functions whose result stands for the weight if what they multiply it with is a constant."""


def parameter_names(model: nn.Module) -> dict[int, str]:
    """Returns id of each parameter tensor → its name; of tied ones the first."""
    return {id(parameter): name for name, parameter in model.named_parameters()}


def derived_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Returns name → tensor for every parametrized weight; call it under `parametrize.cached()`."""
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module):
            parametrizations: Any = module.parametrizations
            for name in parametrizations:
                found[f"{path}.{name}" if path else name] = attrgetter(name)(module)
    return found


OnProduct = Callable[[str, Tensor], None]
OnInput = Callable[[str, Tensor], Tensor]


class _Products(Interceptor):
    """Calls back for every product of data and a named weight."""

    def __init__(self, names: dict[int, str], on_product: OnProduct, on_input: OnInput | None) -> None:
        super().__init__()
        self._names = names
        self._on_product = on_product
        self._on_input = on_input
        self._views: list[Tensor] = []

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        name = str(func.__name__)
        if self._on_input is not None and name in _PRODUCTS:
            args = self._with_inputs(self._on_input, args)
        result = func(*args, **kwargs)
        if func is F.multi_head_attention_forward:
            self._see_attention(result[0], inspect.signature(func).bind(*args, **kwargs).arguments)
        if not isinstance(result, Tensor):
            return result
        weight = self._weight(name, args, result)
        if weight is not None:
            self._names[id(result)] = weight
            self._views.append(result)
        elif name in _PRODUCTS:
            for tensor in tensors((args, dict(kwargs))):
                weight = self._names.get(id(tensor))
                if weight is not None and tensor.dim() > 1:
                    self._on_product(weight, result)
        return result

    def _with_inputs(self, on_input: OnInput, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns a product's arguments with what `on_input` returns in the place of data."""
        named = [self._names[id(one)] for one in args if id(one) in self._names and one.dim() > 1]
        if not named:
            return args
        data = [isinstance(one, Tensor) and id(one) not in self._names for one in args]
        return tuple(on_input(named[0], one) if is_data else one for one, is_data in zip(args, data, strict=True))

    def _weight(self, name: str, args: tuple[Any, ...], result: Tensor) -> str | None:
        """Returns the weight that a call's result stands for: a view of it, or a constant multiple."""
        if name in _SAME_WEIGHT and args:
            return self._names.get(id(args[0]))
        named = [value for value in args if id(value) in self._names]
        if name not in _MULTIPLES or len(args) != 2 or len(named) != 1 or named[0].shape != result.shape:
            return None
        learned = [value for value in args if isinstance(value, Tensor) and value.requires_grad]
        return self._names[id(named[0])] if len(learned) <= 1 else None

    def _see_attention(self, output: Tensor, given: Mapping[str, Any]) -> None:
        """Calls back for the weights of nn.MultiheadAttention, whose products happen out of sight.

        The input projection is computed once more, so that whoever changes it in place changes a copy.
        """
        inputs = [given[key] for key in ("query", "key", "value")]
        separate = [given.get(f"{key}_proj_weight") for key in "qkv"]
        packed = given.get("in_proj_weight")
        if isinstance(packed, Tensor) and id(packed) in self._names:
            parts = [F.linear(x, w) for x, w in zip(inputs, packed.chunk(3), strict=True)]
            self._on_product(self._names[id(packed)], torch.cat([part.flatten(0, -2) for part in parts]))
        for x, weight in zip(inputs, separate, strict=True):
            if isinstance(weight, Tensor) and id(weight) in self._names:
                self._on_product(self._names[id(weight)], F.linear(x, weight))
        if id(given["out_proj_weight"]) in self._names:
            self._on_product(self._names[id(given["out_proj_weight"])], output)


@contextmanager
def watch_products(model: nn.Module, on_product: OnProduct, on_input: OnInput | None = None) -> Iterator[None]:
    """Calls `on_product(weight name, output)` for every product with a weight, while the context lasts.

    Linear layers, convolutions, embeddings, matrix products and einsum on bare parameters are seen, through views,
    transposes and casts of the weight; of a parametrized weight under the name of the derived tensor. The output is
    the raw one, bias included.

    Args:
        model: whose weights are watched.
        on_product: called with the name of a weight and what a product with it has put out.
        on_input: called before it with the name and each tensor that the weight meets, and returns what it meets in its
            place; a weight that torch's attention function is given is not shown so.
    """
    with parametrize.cached():
        names = parameter_names(model)
        derived = derived_tensors(model)
        names.update({id(tensor): name for name, tensor in derived.items()})
        mode: Any = _Products(names, on_product, on_input)
        with mode:
            yield
