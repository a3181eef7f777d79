"""What only a model's modules tell, and no step: what its normalizations are, constants beside its tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from ..graph import Graph, Layer

_PER_CHANNEL = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_OF_PICTURES = (nn.BatchNorm2d, nn.BatchNorm3d, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm)
_ROOT_MEAN_SQUARE = ("RMSNorm", "T5LayerNorm")
"""Ends of the names of classes that divide by a root mean square and subtract no mean."""


@dataclass(frozen=True)
class Norms:
    """The normalizations of a model by the name of their scale: over which units they take their statistics.

    Attributes:
        whole: over all units, a LayerNorm or an RMSNorm.
        rms: those of `whole` that subtract no mean.
        grouped: over groups of units, and how many groups there are.
        flat: those that get rows of vectors, and no pictures.
        eps: of those that normalize each unit alone, by the path of the module.
    """

    whole: frozenset[str] = frozenset()
    rms: frozenset[str] = frozenset()
    grouped: Mapping[str, int] = field(default_factory=dict)
    flat: frozenset[str] = frozenset()
    eps: Mapping[str, float] = field(default_factory=dict)


def norms(model: nn.Module, graph: Graph) -> Norms:
    """Returns the normalizations of a model."""
    modules = dict(model.named_modules())
    scales = (layer.name for layer in graph.layers if layer.role == "norm_scale")
    owner = {name: modules.get(name.rpartition(".")[0]) for name in scales}
    grouped = {name: module.num_groups for name, module in owner.items() if isinstance(module, nn.GroupNorm)}
    whole = {name for name, module in owner.items() if not isinstance(module, _PER_CHANNEL)} - set(grouped)
    rms = {name for name in whole if type(owner[name]).__name__.endswith(_ROOT_MEAN_SQUARE)}
    flat = {name for name, module in owner.items() if not isinstance(module, _OF_PICTURES)}
    eps = {path: module.eps for path, module in modules.items() if isinstance(module, _PER_CHANNEL)}
    return Norms(frozenset(whole), frozenset(rms), grouped, frozenset(flat), eps)


def resizing(model: nn.Module) -> frozenset[str]:
    """Returns the weights of convolutions whose pictures get another size, or another border than zeros."""
    return frozenset(
        f"{path}.weight" if path else "weight"
        for path, module in model.named_modules()
        if isinstance(module, nn.modules.conv._ConvNd) and not _keeps_size(module)
    )


def _keeps_size(module: nn.modules.conv._ConvNd) -> bool:
    half = tuple(step * (size - 1) // 2 for step, size in zip(module.dilation, module.kernel_size, strict=True))
    return set(module.stride) == {1} and (module.padding == "same" or module.padding == half)


def constants(model: nn.Module, graph: Graph) -> dict[str, float]:
    """Returns what each weight is multiplied by on its way: by what a step showed, and by a number beside a table.

    Gemma's embeddings have √width in a buffer. A constant of the model's code that is in no buffer is not seen.
    """
    return {layer.name: layer.multiplier * _beside(model, layer) for layer in graph.layers}


def _beside(model: nn.Module, layer: Layer) -> float:
    if layer.kind != "embedding":
        return 1.0
    modules = dict(model.named_modules())
    owner = modules.get(layer.name.rpartition(".")[0])
    buffers = [] if owner is None else list(owner.buffers(recurse=False))
    numbers = (buffer for buffer in buffers if buffer.numel() == 1 and buffer.is_floating_point())
    return math.prod(float(buffer) for buffer in numbers if not buffer.is_meta)
