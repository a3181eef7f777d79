"""Deeper: new blocks that add nothing at first, or pass on what they get; and why some cannot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import torch
from torch import Tensor

from ..graph import Graph, Layer

IDEMPOTENT = frozenset({"linear", "relu", "relu6", "hardtanh"})
"""Activations that leave alone what they have made."""


def identity(
    graph: Graph,
    names: Sequence[str],
    values: Mapping[str, Tensor],
    eps: Mapping[str, float],
    resizing: AbstractSet[str],
) -> tuple[dict[str, Tensor], str]:
    """Returns what makes a new block pass on what it gets, and why it does not quite; empty where it does.

    x + f(x) with the last weight of f at zero, or the scale of the normalization after it; elsewhere a weight that is
    the identity, before an activation with φ(φ(x)) = φ(x) (Net2DeeperNet: Chen et al. 2016, arXiv:1511.05641).

    Args:
        graph: of the model.
        names: the block's tensors.
        values: what its neighbour's would be here.
        eps: of each batch normalization, by the path of its module.
        resizing: convolutions that cannot be the identity.
    """
    layers = [graph[name] for name in names if name in graph]
    last = [layer for layer in layers if layer.closes_branch]
    if last:
        return _silent(layers, last, values)
    matrices = [layer for layer in layers if layer.is_matrix]
    if any(layer.cell for layer in matrices):
        return {}, "a recurrent layer without a skip passes nothing on unchanged"
    if len(matrices) > 1:
        return {}, "several weights in series without a skip do not add up to the identity"
    if any(layer.kind == "norm" for layer in layers) and not any(name.endswith("running_mean") for name in names):
        return {}, "a normalization of each row changes it"
    if any(layer.name in resizing for layer in matrices):
        return {}, "a convolution with a stride, or without padding, changes the size of pictures"
    found, reason = _passing(matrices, names, values, eps)
    return found, reason or next(filter(None, (_bent(graph, layer) for layer in matrices)), "")


def _silent(
    layers: Sequence[Layer], last: Sequence[Layer], values: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], str]:
    """Returns zeros for what ends the branches of a block."""
    ends: list[str] = []
    for layer in last:
        norm = _norm_after(layer, layers)
        owner = layer if norm is None else norm
        ends += [owner.name, *(other.name for other in layers if other.of == owner.name and other.role == "bias")]
    reason = ""
    if any(layer.post_norm for layer in last):
        reason = "a normalization after the residual add changes what it gets a second time"
    offset = {layer.name: layer.offset for layer in layers}
    return {name: torch.full_like(values[name], -offset.get(name, 0.0)) for name in ends}, reason


def _norm_after(layer: Layer, layers: Sequence[Layer]) -> Layer | None:
    """Returns the scale of the normalization between a branch's last weight and the residual add."""
    if layer.post_norm or not layer.normalized:
        return None
    after = (one for one in layers if one.role == "norm_scale" and one.depth == layer.depth + 1)
    return next((one for one in after if one.shape[0] == layer.shape[layer.out_axes[0]]), None)


def _passing(
    matrices: Sequence[Layer], names: Sequence[str], values: Mapping[str, Tensor], eps: Mapping[str, float]
) -> tuple[dict[str, Tensor], str]:
    """Returns the identity: of one weight, and of the batch normalization after it."""
    found: dict[str, Tensor] = {}
    for layer in matrices:
        unit = _unit(layer, values[layer.name])
        if unit is None:
            return {}, "a weight with more outputs than inputs, or fewer, is no identity"
        found[layer.name] = unit
    for name in names:
        path, _, kind = name.rpartition(".")
        if kind == "running_var":
            found[name] = torch.full_like(values[name], 1 - eps.get(path, 0.0))
        elif kind in ("bias", "running_mean"):
            found[name] = torch.zeros_like(values[name])
        elif kind == "weight" and name not in found:
            found[name] = torch.ones_like(values[name])
    return found, ""


def _bent(graph: Graph, layer: Layer) -> str:
    """Returns why the activation after a new layer changes what it gets; empty where it does not."""
    name = layer.activation.name
    if name not in IDEMPOTENT:
        return f"{name} changes what it has made already"
    before = (one.activation for one in graph.layers if one.is_matrix and one.depth == layer.depth - 1)
    if name != "linear" and any(activation != layer.activation for activation in before):
        return f"{name} changes what no {name} has made"
    return ""


def _unit(layer: Layer, value: Tensor) -> Tensor | None:
    """Returns the weight that passes its input on; None where inputs and outputs differ in number."""
    kernel = [value.shape[axis] for axis in layer.kernel_axes]
    outs, ins = value.shape[layer.out_axes[0]], math.prod(value.shape[axis] for axis in layer.in_axes[:1])
    if (layer.groups == 1 and outs != ins) or (layer.groups > 1 and outs != ins * layer.groups):
        return None
    if any(size % 2 == 0 for size in kernel) or layer.kind not in ("linear", "conv"):
        return None
    found = torch.zeros_like(value)
    for unit in range(outs):
        place = {axis: value.shape[axis] // 2 for axis in layer.kernel_axes}
        place |= {layer.out_axes[0]: unit, layer.in_axes[0]: unit % ins}
        found[tuple(place[axis] for axis in range(value.dim()))] = 1
    return found
