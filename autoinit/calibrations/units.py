"""The units of a layer: where they lie in what it puts out, their moments, and the bias that shifts them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..graph import Graph, Layer
from ..initializers.geometry import Geometry
from ..task.assign import assign, is_parametrized, read
from .fetching import fetched

_CONVOLUTIONS = ("conv", "conv_transposed")


def geometry_of(layer: Layer) -> Geometry:
    """Returns how a weight's tensor stacks its units."""
    return Geometry(
        layer.out_axes or (0,), layer.in_axes, layer.groups, layer.slices, layer.kernel_axes, max(1, layer.heads)
    )


def unit_count(layer: Layer) -> int:
    """Returns the number of output units of a matrix; 0 where axes stack several matrices (experts)."""
    if len(layer.out_axes) + len(layer.in_axes) != len(layer.shape):
        return 0
    rows = math.prod(layer.shape[axis] for axis in layer.out_axes)
    return rows if 0 in layer.out_axes else rows * layer.groups


def unit_axes(layer: Layer, output: Tensor) -> tuple[int, ...]:
    """Returns the axes of an output that run over the units; empty where that is not clear.

    Of a convolution it is the channel axis; else the last axis of this length, or the only combination of axes
    with the lengths of the weight's output axes, in their order (an einsum with heads).
    """
    units = unit_count(layer)
    if layer.kind in _CONVOLUTIONS:
        channels = output.dim() - len(layer.kernel_axes) - 1
        return (channels,) if channels >= 0 and output.shape[channels] == units else ()
    if units and output.dim() and output.shape[-1] == units:
        return (output.dim() - 1,)
    lengths = [layer.shape[axis] for axis in layer.out_axes] if units else [0]
    fitting = [
        axes
        for axes in itertools.combinations(range(output.dim()), len(lengths))
        if [output.shape[axis] for axis in axes] == lengths
    ]
    return fitting[0] if len(fitting) == 1 else ()


def moments(layer: Layer, output: Tensor, parts: Sequence[int] = ()) -> tuple[Tensor, Tensor] | None:
    """Returns mean and variance of every unit over batch and positions, [units] each; None where units are not clear.

    Args:
        layer: the weight.
        output: what it put out.
        parts: rows of the projections of queries, keys and values that are stacked in the output of fused ones.
    """
    values = output if output.dtype == torch.float64 else output.float()
    stacked = output.dim() == 2 and layer.slices > 1 and output.shape[1] * layer.slices == unit_count(layer)
    if stacked and len(parts) == layer.slices and sum(parts) == len(output):
        found = [_moments(part, [0]) for part in torch.split(values, list(parts))]
        return torch.cat([mean for mean, _ in found]), torch.cat([variance for _, variance in found])
    axes = unit_axes(layer, output)
    others = [axis for axis in range(output.dim()) if axis not in axes]
    if not axes or not others:
        return None
    return _moments(values, others)


def _moments(values: Tensor, axes: list[int]) -> tuple[Tensor, Tensor]:
    """Returns mean and variance over some axes, the others flattened.

    In two passes, the second of which also corrects the mean: as good as torch.var_mean, which on the CPU takes up
    to forty times as long over any axis but the last, and more than the layer itself.
    """
    about = values.mean(axes, keepdim=True)
    gaps = values - about
    missed = gaps.mean(axes)
    variance = gaps.square_().mean(axes) - missed.square()
    return (about.flatten() + missed.flatten()), variance.clamp_(min=0.0).flatten()


def along_units(layer: Layer, output: Tensor, values: Tensor) -> Tensor:
    """Returns one value per unit (or one for all) in the shape that broadcasts against an output."""
    if values.numel() == 1:
        return values.to(output).reshape([1] * output.dim())
    axes = unit_axes(layer, output)
    shape = [length if axis in axes else 1 for axis, length in enumerate(output.shape)]
    return values.to(output).reshape(shape)


def free_bias(model: nn.Module, graph: Graph, layer: Layer) -> str:
    """Returns the bias that shifts a weight's units, one entry for each; "" where there is none, or it must stay."""
    for bias in graph.layers:
        fits = bias.of == layer.name and bias.role == "bias" and bias.size == unit_count(layer)
        if fits and not bias.keep and not bias.tied_to and not is_parametrized(model, bias.name):
            return bias.name
    return ""


def set_bias(model: nn.Module, name: str, values: Tensor) -> None:
    """Sets a bias to one value per unit."""
    tensor = read(model, name)
    assign(model, name, values.to(tensor).reshape(tensor.shape))


def scale(model: nn.Module, factors: Sequence[tuple[Layer, Tensor]]) -> dict[str, bool]:
    """Multiplies weights in place and returns which took it, by name; where a parametrization did not, nothing is done.

    The host looks once at what parametrizations have made of theirs, and not at all where there are none.

    Args:
        model: whose weights they are.
        factors: of each weight, on the host: [1], or one per unit.
    """
    behind = [(layer, values) for layer, values in factors if layer.parametrized]
    before = {layer.name: read(model, layer.name).detach().clone() for layer, _ in behind}
    with torch.no_grad():
        for layer, values in factors:
            if not layer.parametrized:
                _scale(read(model, layer.name).detach(), layer, values)
        came = [_assigned(model, layer.name, scaled(before[layer.name], layer, values)) for layer, values in behind]
        taken = {name: bool(same) for name, same in zip(before, fetched(came), strict=True)}
        for name in before:
            if not taken[name]:
                assign(model, name, before[name])
    return {layer.name: taken.get(layer.name, True) for layer, _ in factors}


def _assigned(model: nn.Module, name: str, value: Tensor) -> Tensor:
    """Sets a weight and returns whether it is that now, on its device."""
    assign(model, name, value)
    return torch.isclose(read(model, name), value, rtol=1e-2, atol=1e-6).all()


def scaled(weight: Tensor, layer: Layer, factors: Tensor) -> Tensor:
    """Returns a weight times a factor, or one per unit."""
    if factors.numel() == 1:
        return (weight * factors.to(weight.device)).to(weight.dtype)
    found = weight.clone()
    geometry_of(layer).scale_rows_(found, factors)
    return found


def _scale(tensor: Tensor, layer: Layer, factors: Tensor) -> None:
    if factors.numel() == 1:
        tensor.mul_(factors.item())
    else:
        geometry_of(layer).scale_rows_(tensor, factors)
