"""Low-rank additions to trained weights: where a model has them, and what a graph says of them."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..graph import BESIDE_ADAPTERS, TRAINED, Graph, Layer

QUANTIZED = "quantized or packed: it cannot be taken from"
ROWS = 8
"""Inputs on which a pair of matrices is compared with what their module does."""
AGREES = 1e-3
"""By how much, relative, a module may differ from the formula of a low-rank addition, in float32."""
_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_FACTORS, _TABLE_FACTORS = ("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")
"""What peft calls its matrices: A reads the input, B gives the output."""

Kind = Literal["linear", "embedding", "conv"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A low-rank addition to a weight: W + s·B·A.

    Attributes:
        base: name of W in the model, of shape [out, in], or [in, out] where it is transposed.
        down: name of A, [r, in]; beside an embedding [r, rows].
        up: name of B, [out, r].
        scale: s.
        module: path of the module whose input is what W multiplies.
        kind: what W is; "linear" is a convolution too whose kernels look at all channels, W and A then with the axes of
            the kernel behind and B with as many of length 1.
        transposed: whether W is stored [in, out] (transformers' Conv1D), or is an embedding's [rows, out].
    """

    base: str
    down: str
    up: str
    scale: float
    module: str
    kind: Kind = "linear"
    transposed: bool = False


def find_pairs(model: nn.Module) -> tuple[Pair, ...]:
    """Returns the low-rank additions of a model, in the order of its modules.

    peft's layers are read by their own names (lora_A, lora_B, scaling), which DoRA and rsLoRA share. Elsewhere a module
    has one where it holds a frozen matrix [out, in] beside two trainable ones, [r, in] and [out, r], and where it does
    what the formula says: that is tried on a copy of the module, which also tells the scale. Nothing of the model
    changes.
    """
    found: dict[str, Pair] = {}
    frozen = any(not parameter.requires_grad for parameter in model.parameters())
    for path, module in model.named_modules():
        if not (frozen or _is_peft(module)):
            continue  # a pair of one's own is beside a frozen weight
        pairs = _of_peft(path, module) if _is_peft(module) else _of_shape(path, module)
        found |= {pair.up: pair for pair in pairs if pair.up not in found}
    return tuple(found.values())


def _is_peft(module: nn.Module) -> bool:
    names = module._modules.keys() | module._parameters.keys()
    return "base_layer" in names and isinstance(module.__dict__.get("scaling"), dict)


def _of_peft(path: str, module: nn.Module) -> Iterator[Pair]:
    """Yields the pairs of a layer of peft, one for each of its active adapters."""
    base, inner = module._modules["base_layer"], path and f"{path}."
    where = f"{inner}base_layer"
    if base is None or "weight" not in base._parameters or base._parameters["weight"] is None:
        return  # a layer within a layer, or one whose weight is derived
    scaling: Mapping[str, float] = module.__dict__["scaling"]
    for names, kind in ((_FACTORS, None), (_TABLE_FACTORS, "embedding")):
        downs, ups = (_members(module, name) for name in names)
        for adapter in downs.keys() & ups.keys() & scaling.keys():
            down, up = (f"{inner}{name}.{adapter}{tail}" for name, tail in zip(names, _tails(kind), strict=True))
            yield Pair(
                f"{where}.weight", down, up, float(scaling[adapter]), where,
                "embedding" if kind else _kind(base), bool(module.__dict__.get("fan_in_fan_out")) or bool(kind),
            )  # fmt: skip


def _tails(kind: str | None) -> tuple[str, str]:
    return ("", "") if kind else (".weight", ".weight")


def _members(module: nn.Module, name: str) -> Mapping[str, object]:
    """Returns what a ModuleDict or a ParameterDict of a module holds; nothing where it has none."""
    held = module._modules.get(name)
    if isinstance(held, nn.ModuleDict):
        return {key: held[key] for key in held}
    return dict(held.items()) if isinstance(held, nn.ParameterDict) else {}


def _kind(base: nn.Module) -> Kind:
    """Returns what a layer is: a convolution of one group multiplies patches as a linear layer does.

    peft's adapters have its kernel, stride and padding, and no dilation.
    """
    if not isinstance(base, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return "linear"
    plain = base.groups == 1 and set(base.dilation) == {1} and base.padding_mode == "zeros"
    return "linear" if plain else "conv"


def _of_shape(path: str, module: nn.Module) -> Iterator[Pair]:
    """Yields the pair of a module that holds three matrices of the right shapes and does what the formula says."""
    matrices = dict(_near(module))
    frozen = {name: tensor for name, tensor in matrices.items() if not tensor.requires_grad}
    trained = [name for name in matrices if name not in frozen]
    if len(frozen) != 1 or len(trained) != 2:
        return
    (base, weight), inner = next(iter(frozen.items())), path and f"{path}."
    for down, up in permutations(trained):
        if not _fits(weight, matrices[down], matrices[up]):
            continue
        scale = _measured_scale(module, base, down, up)
        if scale is not None:
            holder = base.rpartition(".")[0]
            where = f"{inner}{holder}".rstrip(".")
            yield Pair(inner + base, inner + down, inner + up, scale, where)
            return


def _near(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yields the matrices that a module holds itself, or by linear layers right inside of it, or a row of them."""
    for name, parameter in module.named_parameters():
        depth = name.count(".")
        if parameter.dim() == 2 and (depth <= 1 or (depth == 2 and isinstance(_child(module, name), nn.Sequential))):
            yield name, parameter


def _child(module: nn.Module, name: str) -> nn.Module | None:
    return module._modules.get(name.partition(".")[0])


def _fits(base: Tensor, down: Tensor, up: Tensor) -> bool:
    """Whether three matrices are W [out, in], A [r, in] and B [out, r] with a rank below W's sides."""
    rank = down.shape[0]
    return (
        down.shape[1] == base.shape[1]
        and tuple(up.shape) == (base.shape[0], rank)
        and rank < min(base.shape)
        and not any(isinstance(one, nn.parameter.UninitializedParameter) or one.is_meta for one in (base, down, up))
    )


@torch.no_grad()
def _measured_scale(module: nn.Module, base: str, down: str, up: str) -> float | None:
    """Returns s of y = W·x + s·B·A·x (+ b), measured on a copy of a module; None where it does something else."""
    try:
        trial = copy.deepcopy(module).eval().float()
        generator = torch.Generator().manual_seed(0)
        matrices = {name: trial.get_parameter(name) for name in (base, down, up)}
        device = matrices[base].device
        for name in (down, up):
            matrices[name].copy_(torch.randn(matrices[name].shape, generator=generator))
        inputs = torch.randn(ROWS, matrices[base].shape[1], generator=generator).to(device)
        plain, double, without = (_output(trial, inputs, matrices[up], factor) for factor in (1.0, 2.0, 0.0))
    except Exception:  # a module of the owner's own, which takes something else or cannot be copied
        return None
    added, formula = plain - without, inputs @ matrices[down].T @ matrices[up].T
    scale = float((added * formula).sum() / formula.square().sum())
    size = max(float(added.norm()), 1e-30)
    linear = float((double - without - 2 * added).norm()) <= AGREES * size
    right = float((added - scale * formula).norm()) <= AGREES * size
    return scale if linear and right and scale != 0 else None


def _output(module: nn.Module, inputs: Tensor, up: Tensor, factor: float) -> Tensor:
    """Returns the output of a module with one of its matrices times a factor."""
    values = up.clone()
    up.mul_(factor)
    output: Any = module(inputs)
    up.copy_(values)
    if not isinstance(output, Tensor):
        raise TypeError("its output is no tensor")
    return output.float()


def with_pairs(model: nn.Module, graph: Graph) -> Graph:
    """Returns the graph in which low-rank additions are marked: what trains of them is free, whatever it holds.

    Args:
        model: as its owner made it.
        graph: of the same model.
    """
    pairs = [pair for pair in find_pairs(model) if {pair.base, pair.down, pair.up} <= graph.keys()]
    if not pairs:
        return graph
    counts = Counter(pair.base for pair in pairs if model.get_parameter(pair.up).requires_grad)
    marked = {layer.name: layer for pair in pairs for layer in _marked(model, graph, pair, counts[pair.base])}
    layers = tuple(marked.get(layer.name) or _beside(layer) for layer in graph.layers)
    return dataclasses.replace(graph, layers=layers)


def _beside(layer: Layer) -> Layer:
    """Returns what is no adapter in a model that has some: trained, as far as one can know.

    peft keeps the trained module beside one that it trains further: that one is a copy, and must not follow it.
    """
    copy_of = "" if ".original_module." in layer.name else layer.copy_of
    return dataclasses.replace(layer, keep=layer.keep or BESIDE_ADAPTERS, copy_of=copy_of)


def _marked(model: nn.Module, graph: Graph, pair: Pair, beside: int) -> Iterator[Layer]:
    """Yields the layers of a pair and of the weight beside it as a graph has them.

    Args:
        model: that has them.
        graph: before.
        pair: one of its pairs.
        beside: pairs that train beside that weight: from one with several none can take.
    """
    base, down, up = graph[pair.base], graph[pair.down], graph[pair.up]
    trains = [model.get_parameter(name).requires_grad for name in (pair.down, pair.up)]
    yield _part(down, "down", pair.base, 1.0, free=trains[0])
    yield _part(up, "up", pair.base, pair.scale, free=trains[1])
    kind = pair.kind if pair.kind != "linear" or base.kind == "other" else base.kind
    lends = pair.kind == "linear" and beside == 1 and all(trains) and not why_not_lent(model, pair.base)
    out, inside = ((1,), (0,)) if pair.transposed else ((0,), tuple(range(1, max(2, len(base.shape)))))
    keep = f"{TRAINED}: an adapter is beside it" if base.keep else BESIDE_ADAPTERS
    yield dataclasses.replace(base, kind=kind, lends=lends, out_axes=out, in_axes=inside, keep=keep)


def _part(layer: Layer, part: Literal["down", "up"], base: str, scale: float, *, free: bool) -> Layer:
    """Returns the layer of one matrix of a pair: nothing but that matters of its place."""
    return Layer(
        name=layer.name, shape=layer.shape, kind="linear", role="lora",
        fan_in=math.prod(layer.shape[1:]), fan_out=layer.shape[0],
        out_axes=(0,), in_axes=tuple(range(1, len(layer.shape))),
        depth=layer.depth, residual_depth=layer.residual_depth, of=base, multiplier=scale,
        tied_to=layer.tied_to, parametrized=layer.parametrized, keep="" if free else layer.keep, adapter=part,
    )  # fmt: skip


def why_not_lent(model: nn.Module, name: str) -> str:
    """Returns why nothing can be taken from a weight, in words; empty where that can be."""
    path, _, attribute = name.rpartition(".")
    owner = model.get_submodule(path)
    if parametrize.is_parametrized(owner, attribute):
        return "it is derived by a parametrization"
    weight = owner._parameters.get(attribute)
    if weight is None or weight.dtype not in _FLOATS or weight.dim() < 2:
        return QUANTIZED
    return "" if type(weight) is nn.Parameter and type(weight.data) is Tensor else QUANTIZED
