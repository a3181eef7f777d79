"""The architecture as far as the module tree tells it, for a model without data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn

from ..activations import GRID, LINEAR, Activation
from ..graph import Graph, Kind, Layer, Role
from ..text import few
from .inventory import Item, inventory
from .recurrent import recurrent_layer
from .responses import name_of

_ACTIVATIONS: tuple[type[nn.Module], ...] = (
    nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign,
    nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.LogSigmoid, nn.Tanhshrink, nn.Threshold,
    nn.Hardshrink, nn.Softshrink,
)  # fmt: skip
_NORMS: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm, nn.RMSNorm,
)  # fmt: skip
_CONVOLUTION = nn.modules.conv._ConvNd
_TRANSPOSED = nn.modules.conv._ConvTransposeNd
_PASSING: tuple[type[nn.Module], ...] = (
    nn.Dropout, nn.Dropout2d, nn.Flatten, nn.Identity, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Unflatten,
)  # fmt: skip
_UNTOLD = "the module tree does not tell how it acts; pass data to read it"


def read_modules(model: nn.Module) -> Graph:
    """Returns what the types of the modules tell about each parameter.

    Depth is the order of definition, a plain guess. The first weight counts as input and the last as output only
    inside one `nn.Sequential`; residual branches are not seen.
    """
    items = inventory(model)
    chains = _chains(model)
    layers: dict[str, Layer] = {}
    depth = 0
    for path, module in model.named_modules():
        reader = _reader(module)
        if reader is None:
            continue
        found = list(reader(_Place(path, module, depth, chains.get(path))))
        layers.update({layer.name: layer for layer in found})
        depth += any(layer.is_matrix or layer.kind == "embedding" for layer in found)
    _add_attentions(model, layers)
    for name in _modulating(model):
        layers[name] = replace(layers[name], modulates=True)
    notes = ["Read from the module tree, without data: residual branches and functional calls are not seen."]
    if unseen := _without_neighbours(model, chains):
        notes.append(f"Activations between modules are not seen without data ({few(unseen)}: linear); pass data.")
    return Graph(tuple(_finished(item, layers) for item in items), source="modules", notes=tuple(notes))


def _add_attentions(model: nn.Module, layers: dict[str, Layer]) -> None:
    """Writes down what nn.MultiheadAttention and torch's own transformer layers tell about the weights inside."""
    decoders = [path for path, module in model.named_modules() if isinstance(module, nn.TransformerDecoderLayer)]
    for path, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            inside = [layers[name] for name in layers if _is_within(name, path)]
            members = [layer for layer in inside if layer.role in ("qkv", "query", "key", "value", "attention_out")]
            first = next(layer.name for layer in members if layer.role in ("qkv", "query"))
            cross = any(path == (f"{decoder}.multihead_attn" if decoder else "multihead_attn") for decoder in decoders)
            for layer in members:
                layers[layer.name] = replace(layer, attention=first, heads=module.num_heads, cross=cross)
        elif decoders and isinstance(module, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)):
            stack: Any = "decoder" if isinstance(module, nn.TransformerDecoderLayer) else "encoder"
            layers.update({n: replace(layer, stack=stack) for n, layer in layers.items() if _is_within(n, path)})


def _modulating(model: nn.Module) -> Iterator[str]:
    """Yields the weights that shift, scale and gate by a condition, as far as the tree tells.

    Of a module with a normalization without a scale of its own it is the linear layer that follows an activation, in an
    `nn.Sequential` of both (DiT) or as the only one beside it (diffusers), with a multiple of the normalized width as
    outputs.
    """
    for path, module in model.named_modules():
        children = dict(module.named_children())
        widths = {_norm_width(child) for child in children.values() if isinstance(child, _NORMS) and _is_bare(child)}
        pairs = {name: _after_activation(child) for name, child in children.items()}
        found = {f"{name}.{own}": linear for name, pair in pairs.items() if pair for own, linear in [pair]}
        own = {name: child for name, child in children.items() if isinstance(child, nn.Linear)}
        if len(own) == 1 and any(isinstance(child, _ACTIVATIONS) for child in children.values()):
            found |= own
        for name, linear in found.items():
            if any(linear.out_features > width and linear.out_features % width == 0 for width in widths):
                yield f"{path}.{name}.weight" if path else f"{name}.weight"


def _is_bare(norm: nn.Module) -> bool:
    return norm._parameters.get("weight") is None


def _norm_width(norm: Any) -> int:
    """Returns the number of channels that a normalization is told."""
    told = ("normalized_shape", "num_channels", "num_features")
    width = next(vars(norm)[name] for name in told if name in vars(norm))
    return int(width[-1] if isinstance(width, (tuple, list)) else width)


def _after_activation(module: nn.Module) -> tuple[str, nn.Linear] | None:
    """Returns the name and the layer of an `nn.Sequential` of an activation and one linear layer."""
    children = list(module.named_children()) if isinstance(module, nn.Sequential) else []
    if len(children) != 2 or not isinstance(children[0][1], _ACTIVATIONS):
        return None
    name, last = children[1]
    return (name, last) if isinstance(last, nn.Linear) else None


def _is_within(name: str, path: str) -> bool:
    return not path or name.startswith(f"{path}.")


@dataclass(frozen=True, slots=True)
class _Neighbours:
    """What stands around a module in its `nn.Sequential`."""

    activation: Activation
    normalized: bool
    first: bool
    last: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """A module, where it is, how many weights were defined before it, and its neighbours."""

    path: str
    module: Any
    depth: int
    around: _Neighbours | None

    def name(self, own: str) -> str:
        return f"{self.path}.{own}" if self.path else own

    def shape(self, own: str) -> tuple[int, ...]:
        return tuple(self.module.get_parameter(own).shape) if own in self.module._parameters else ()

    def bias(self, own: str = "bias", of: str = "weight") -> Iterator[Layer]:
        if self.module._parameters.get(own) is not None:
            yield Layer(
                name=self.name(own),
                shape=self.shape(own),
                kind="bias",
                role="bias",
                of=self.name(of),
                depth=self.depth,
            )


def _finished(item: Item, layers: dict[str, Layer]) -> Layer:
    layer = layers.get(item.name)
    for name in item.tied_to if layer is None else ():
        layer = layer or layers.get(name)
    if layer is None:
        layer = Layer(name=item.name, shape=item.shape, kind="other", role="other", keep=_UNTOLD)
    return replace(
        layer,
        name=item.name,
        shape=item.shape,
        tied_to=item.tied_to,
        parametrized=item.parametrized,
        keep=item.keep or layer.keep,
    )


def _reader(module: nn.Module) -> Callable[[_Place], Iterator[Layer]] | None:
    if type(module).__name__ == "Conv1D" and "nf" in vars(module):  # transformers' [in, out] linear layer
        return _transposed_linear
    for kinds, reader in _READERS:
        if isinstance(module, kinds):
            return reader
    return None


def _matrix(place: _Place, shape: tuple[int, ...], kind: Kind, fans: tuple[int, int], **more: Any) -> Layer:
    around = place.around
    role: Role = "hidden" if around is None else "input" if around.first else "output" if around.last else "hidden"
    options: dict[str, Any] = {
        "role": role,
        "out_axes": (0,),
        "in_axes": tuple(range(1, len(shape))),
        "activation": around.activation if around else LINEAR,
        "normalized": around.normalized if around else False,
        "depth": place.depth,
    }
    return Layer(name=place.name("weight"), shape=shape, kind=kind, fan_in=fans[0], fan_out=fans[1], **(options | more))


def _weight_shape(module: Any) -> tuple[int, ...]:
    return tuple(module.weight.shape)


def _linear(place: _Place) -> Iterator[Layer]:
    shape = _weight_shape(place.module)
    yield _matrix(place, shape, "linear", (shape[1], shape[0]))
    yield from place.bias()


def _transposed_linear(place: _Place) -> Iterator[Layer]:
    shape = _weight_shape(place.module)
    yield _matrix(place, shape, "linear", (shape[0], shape[1]), in_axes=(0,), out_axes=(1,))
    yield from place.bias()


def _bilinear(place: _Place) -> Iterator[Layer]:
    shape = _weight_shape(place.module)
    yield _matrix(place, shape, "bilinear", (shape[1] * shape[2], shape[0]))
    yield from place.bias()


def _convolution(place: _Place) -> Iterator[Layer]:
    module, shape = place.module, _weight_shape(place.module)
    kernel = math.prod(shape[2:])
    if isinstance(module, _TRANSPOSED):
        fan_in = max(1, shape[0] * kernel // module.groups // math.prod(module.stride))
        axes = {"in_axes": (0, *range(2, len(shape))), "out_axes": (1,)}
        fans = (fan_in, shape[1] * kernel)
        yield _matrix(place, shape, "conv_transposed", fans, groups=module.groups, **axes)
    else:
        fans = (shape[1] * kernel, shape[0] * kernel // module.groups)
        yield _matrix(place, shape, "conv", fans, groups=module.groups)
    yield from place.bias()


def _embedding(place: _Place) -> Iterator[Layer]:
    words = place.path.lower().replace(".", "_").split("_")
    role: Role = "position" if any(word in ("wpe", "pos", "position") for word in words) else "embedding"
    yield Layer(
        name=place.name("weight"),
        shape=_weight_shape(place.module),
        kind="embedding",
        role=role,
        out_axes=(1,),
        depth=place.depth,
    )


def _norm(place: _Place) -> Iterator[Layer]:
    if place.module._parameters.get("weight") is not None:
        yield Layer(
            name=place.name("weight"),
            shape=place.shape("weight"),
            kind="norm",
            role="norm_scale",
            depth=place.depth,
        )
    for layer in place.bias() if "bias" in place.module._parameters else ():
        yield replace(layer, kind="norm")


def _recurrent(place: _Place) -> Iterator[Layer]:
    module = place.module
    call = type(module).__name__.removesuffix("Cell").lower()
    if isinstance(module, (nn.RNN, nn.RNNCell)):
        call = f"rnn_{module.nonlinearity}"
    for own, parameter in module.named_parameters(recurse=False):
        yield recurrent_layer(place.name(own), tuple(parameter.shape), call, place.depth)


def _attention(place: _Place) -> Iterator[Layer]:
    """Yields what nn.MultiheadAttention holds itself; its out_proj is told apart from other linear layers here."""
    module, width = place.module, place.module.embed_dim
    roles: dict[str, Role] = {
        "in_proj_weight": "qkv", "q_proj_weight": "query", "k_proj_weight": "key", "v_proj_weight": "value",
    }  # fmt: skip
    for own, role in roles.items():
        if module._parameters.get(own) is not None:
            shape = place.shape(own)
            yield Layer(
                name=place.name(own), shape=shape, kind="linear", role=role, fan_in=shape[1], fan_out=width,
                out_axes=(0,), in_axes=(1,), slices=3 if role == "qkv" else 1, depth=place.depth,
            )  # fmt: skip
    first = "in_proj_weight" if module._parameters.get("in_proj_weight") is not None else "q_proj_weight"
    yield from place.bias("in_proj_bias", first)
    for own in ("bias_k", "bias_v"):
        if module._parameters.get(own) is not None:
            yield Layer(
                name=place.name(own), shape=place.shape(own), kind="other", role="other",
                keep="a learned token joined to the data; its scale belongs to the embeddings beside it",
            )  # fmt: skip


def _attention_out(place: _Place) -> Iterator[Layer]:
    for layer in _linear(place):
        yield replace(layer, role="attention_out") if layer.is_matrix else layer


def _prelu(place: _Place) -> Iterator[Layer]:
    yield Layer(
        name=place.name("weight"), shape=place.shape("weight"), kind="other", role="other",
        keep="the slope of an activation (PReLU)",
    )  # fmt: skip


_READERS: tuple[tuple[Any, Callable[[_Place], Iterator[Layer]]], ...] = (
    (nn.modules.linear.NonDynamicallyQuantizableLinear, _attention_out),
    (nn.Linear, _linear),
    (nn.Bilinear, _bilinear),
    (_CONVOLUTION, _convolution),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    (_NORMS, _norm),
    ((nn.RNNBase, nn.RNNCellBase), _recurrent),
    (nn.MultiheadAttention, _attention),
    (nn.PReLU, _prelu),
)


def _chains(model: nn.Module) -> dict[str, _Neighbours]:
    """Returns, for each weight inside an `nn.Sequential`, what comes after it."""
    found: dict[str, _Neighbours] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Sequential):
            whole = module is model
            children = [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]
            weights = [at for at, (_, child) in enumerate(children) if _is_weight(child)]
            for at in weights:
                activation, normalized = _after([child for _, child in children[at + 1 :]])
                first, last = whole and at == weights[0], whole and at == weights[-1]
                before = all(_is_plain(child) for _, child in children[:at])
                after = all(_is_plain(child) for _, child in children[at + 1 :])
                found[children[at][0]] = _Neighbours(activation, normalized, first and before, last and after)
    return found


def _without_neighbours(model: nn.Module, chains: dict[str, _Neighbours]) -> list[str]:
    """Returns the weights that may be followed by a call in some forward; none if only the last, a likely output."""
    weights = [path for path, module in model.named_modules() if _is_weight(module) and not _is_inside(module)]
    unseen = [path for path in weights if path not in chains]
    return [f"{path}.weight" if path else "weight" for path in unseen] if unseen != weights[-1:] else []


def _is_inside(module: nn.Module) -> bool:
    """Whether it belongs to attention, where no activation follows."""
    return isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)


def _is_weight(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, nn.Bilinear, _CONVOLUTION))


def _is_plain(module: nn.Module) -> bool:
    return not list(module.parameters()) or isinstance(module, _NORMS)


def _after(modules: list[nn.Module]) -> tuple[Activation, bool]:
    """Returns the activation before the next weight, and whether a normalization comes before that."""
    normalized = False
    for module in modules:
        if isinstance(module, _NORMS):
            normalized = True
        elif isinstance(module, _ACTIVATIONS):
            return _tabulated(module), normalized
        elif isinstance(module, nn.PReLU):
            return Activation("leaky_relu", (0.25,)), normalized
        elif not isinstance(module, _PASSING):
            return LINEAR, normalized
    return LINEAR, normalized


def _tabulated(module: nn.Module) -> Activation:
    points = torch.tensor([*GRID, 1e-5], dtype=torch.float64)
    with torch.no_grad():
        values = cast(torch.Tensor, module(points.clone())).numpy()
    return name_of(values[:-1], float(values[-1]))
