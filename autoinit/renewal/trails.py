"""Where the units of a layer lie in a tensor, and where they are after one of torch's functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import USER_ERRORS
from ..task.batches import map_tensors, tensors

PRODUCTS = {"linear": 1, "matmul": 1, "mm": 1, "addmm": 2} | {
    f"conv{turned}{dims}d": 1 for turned in ("", "_transpose") for dims in (1, 2, 3)
}
"""Functions that multiply data with a weight → the place of the weight among their arguments; the data come before."""
FUNCTIONS = frozenset(
    "relu relu6 leaky_relu elu selu celu gelu silu mish sigmoid tanh softplus softsign hardtanh hardswish hardsigmoid"
    " logsigmoid tanhshrink softshrink hardshrink threshold rrelu prelu exp expm1 log log1p square sqrt rsqrt pow rpow"
    " abs absolute clamp clamp_min clamp_max clip erf sin cos sign maximum minimum reciprocal gt lt ge le heaviside"
    " where rtruediv rdiv".split()
)
"""Functions that no unit can pass unchanged by scale alone, and that mix no unit with another."""
KEEPING = frozenset(
    "dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout feature_alpha_dropout contiguous clone detach"
    " to float double half bfloat16 type type_as neg masked_fill positive"
    " max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d lp_pool2d"
    " adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d adaptive_avg_pool1d adaptive_avg_pool2d"
    " adaptive_avg_pool3d interpolate upsample pad".split()
)
"""Functions whose result has the units along the same axis, and no unit mixed with another."""
MOVING = frozenset(
    "view reshape flatten unflatten transpose permute t swapaxes swapdims movedim moveaxis squeeze unsqueeze chunk"
    " split tensor_split narrow select getitem cat concat concatenate stack unbind expand expand_as repeat"
    " repeat_interleave index_select flip roll get view_as reshape_as hstack vstack".split()
)
"""Functions that only move entries; of them `labels_after` finds where the units are now."""
REDUCING = frozenset("mean sum amax amin".split())
"""Functions over some axes of one tensor."""
NORMS = {"batch_norm": ("running_mean", "running_var", "weight", "bias"), "instance_norm": ("weight", "bias")}
"""Normalizations by unit → their arguments with one entry per unit."""
STARTS = {"running_mean": 0.0, "running_var": 1.0, "weight": 1.0, "bias": 0.0}
"""What a normalization's entries are at the start."""


@dataclass(frozen=True, slots=True)
class Trail:
    """What is known of a tensor: which units it holds along one axis.

    Attributes:
        axis: counted from the front.
        ids: [length] number of the unit of each entry along it; −1 for what is no unit.
        records: the measurements of how active these units are, by number; empty before any activation function.
    """

    axis: int
    ids: Tensor
    records: tuple[int, ...] = ()

    def fits(self, tensor: Tensor) -> bool:
        """Whether the tensor has such an axis."""
        return 0 <= self.axis < tensor.dim() and tensor.shape[self.axis] == len(self.ids)

    def from_the_end(self, tensor: Tensor) -> int:
        """Returns the axis counted from the last one, which is how tensors of unequal shapes are laid together."""
        return tensor.dim() - self.axis


def plain_name(func: Callable[..., Any]) -> str:
    """Returns a function's name without underscores: "mul" for `Tensor.__mul__` and for `Tensor.mul_`."""
    return str(func.__name__).strip("_")


def bound(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the arguments of a call by name; only for functions that are written in Python."""
    return inspect.signature(func).bind(*args, **kwargs).arguments


def labels_after(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], trails: Mapping[int, Trail]
) -> list[Trail | None]:
    """Returns where the units are in each tensor of what a function that only moves entries gives.

    It is called once more, with the numbers of the units in the place of the entries. Where that fails there is none.

    Args:
        func: the function.
        args: of its call.
        kwargs: of its call.
        trails: of the tensors among its arguments, by id; of those that are not there no unit is known.
    """
    known = [trails[id(tensor)] for tensor in tensors((args, dict(kwargs))) if id(tensor) in trails]
    records = tuple(sorted({record for trail in known for record in trail.records}))
    joins = bool(args) and isinstance(args[0], (tuple, list))

    def labelled(tensor: Tensor) -> Tensor:
        trail = trails.get(id(tensor))
        if trail is None and not joins:
            return tensor
        labels = torch.full_like(tensor, -1, dtype=torch.int64)  # with the strides, which decide what `view` takes
        return labels if trail is None else labels.copy_(_along(trail.ids, trail.axis, tensor.dim()))

    try:
        moved = func(*map_tensors(labelled, args), **map_tensors(labelled, dict(kwargs)))
    except USER_ERRORS:  # bits taken for another dtype, or the like
        return []
    return [located(result, records) for result in tensors(moved)]


def located(labels: Tensor, records: tuple[int, ...]) -> Trail | None:
    """Returns the axis along which alone a tensor of numbers varies, with them; None where it is more than one."""
    if not labels.numel() or labels.dtype != torch.int64:
        return None
    corner = [0] * labels.dim()
    lines = [
        labels[tuple(slice(None) if at == axis else 0 for at in range(len(corner)))] for axis in range(len(corner))
    ]
    varying = [axis for axis, line in enumerate(lines) if bool((line != line[0]).any())]
    if len(varying) != 1:
        return None
    axis = varying[0]
    same = torch.equal(_along(lines[axis], axis, labels.dim()).expand_as(labels), labels)
    return Trail(axis, lines[axis].cpu().clone(), records) if same else None


def reduced(args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Tensor, trail: Trail) -> Trail | None:
    """Returns where the units are after some axes were summed up; None where theirs is among them."""
    x = args[0] if args else kwargs["input"]
    given = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis"))
    axes = [given] if isinstance(given, int) else list(given) if isinstance(given, (tuple, list)) else []
    axes = [axis % x.dim() for axis in axes]
    if not axes or trail.axis in axes:
        return None
    kept = result.dim() == x.dim()
    axis = trail.axis if kept else trail.axis - sum(one < trail.axis for one in axes)
    return Trail(axis, trail.ids, trail.records)


def activity(tensor: Tensor, axis: int) -> Tensor:
    """Returns the sum of magnitudes along every other axis, [length] in double precision."""
    sizes = tensor.detach().abs() if tensor.dtype != torch.bool else tensor
    sizes = sizes.to(torch.float32 if tensor.device.type == "mps" else torch.float64)  # there is no double on mps
    others = [one for one in range(tensor.dim()) if one != axis]
    return (sizes.sum(others) if others else sizes).cpu().double()


def _along(values: Tensor, axis: int, dims: int) -> Tensor:
    return values.reshape([-1 if at == axis else 1 for at in range(dims)])
