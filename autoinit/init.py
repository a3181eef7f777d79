"""Initial values of single tensors: plain functions in the manner of `torch.nn.init`, for any layout of a weight.

Every function fills a tensor in place, without gradient, and returns it. Weights are [outputs, inputs, *kernel], as
in `nn.Linear` and `nn.Conv2d`; `transposed` says that they are [inputs, outputs, *kernel], as in
`nn.ConvTranspose2d` and in `x @ weight`. `groups` are those of a convolution. `activation` is what follows the
layer, a name or an `Activation`, whose gain keeps the second moment; or a number, the gain itself. The draw is made
where `generator` is, so one on the CPU gives the same bits on every device; None stands for torch's default generator
of the tensor's device. Tensors on the meta device and empty ones are returned as they are.

    >>> weight = torch.empty(64, 32)
    >>> _ = he_normal_(weight, "gelu", generator=torch.Generator().manual_seed(0))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor

from .activations import FORMULAS, Activation
from .errors import ArgumentError, did_you_mean
from .initializers.draws import fill_
from .initializers.geometry import Geometry
from .initializers.recurrent import chrono_ as _chrono_
from .recipes.formulas import Mode

Entries = Literal["normal", "uniform", "truncated_normal"]
Position = Literal["first", "hidden", "last"]
GatedCell = Literal["lstm", "gru"]
Function = str | Activation | float
"""An activation by name or as an object, or its gain."""

_ENTRIES = ("normal", "uniform", "truncated_normal")
_MODES = ("fan_in", "fan_out", "fan_avg", "fan_geometric")
_MIRRORED = {"first": "mirrored_rows", "hidden": "mirrored", "last": "mirrored_columns"}
_SLICES = {"lstm": 4, "gru": 3}


class Layout(TypedDict, total=False):
    """What every function takes by keyword.

    Attributes:
        transposed: whether the weight is [inputs, outputs, *kernel].
        groups: number of groups of a convolution.
        generator: generator of the draw, on the CPU or a CUDA device; None: torch's default one of the tensor's device.
    """

    transposed: bool
    groups: int
    generator: torch.Generator | None


@dataclass(frozen=True, slots=True)
class _Weight:
    """A tensor and what its shape says: its matrices, outputs and inputs of one group, taps of the kernel."""

    tensor: Tensor
    geometry: Geometry
    rows: int
    channels: int
    taps: int
    generator: torch.Generator

    def fan(self, mode: Mode) -> float:
        """Returns the number that the variance is divided by; at least 1."""
        fan_in, fan_out = max(1, self.channels * self.taps), max(1, self.rows * self.taps)
        fans = {
            "fan_in": float(fan_in),
            "fan_out": float(fan_out),
            "fan_avg": (fan_in + fan_out) / 2,
            "fan_geometric": math.sqrt(fan_in * fan_out),
        }
        return fans[_known("mode", mode, _MODES)]

    def filled(self, distribution: str, std: float) -> Tensor:
        """Returns the tensor, filled."""
        fill_(self.tensor, distribution, self.geometry, std, self.generator)
        return self.tensor

    def filled_at_centre(self, distribution: str, gain: float) -> Tensor:
        """Returns the tensor with a matrix of norm `gain` at the centre tap."""
        return self.filled(distribution, gain / math.sqrt(max(1, self.rows, self.channels) * max(1, self.taps)))


def variance_scaling_(
    tensor: Tensor,
    scale: float = 1.0,
    mode: Mode = "fan_in",
    distribution: Entries = "truncated_normal",
    **layout: Unpack[Layout],
) -> Tensor:
    """Returns the tensor, filled with independent entries of variance scale/fan.

    The fan counts the inputs of an output (fan_in), the outputs of an input (fan_out), or is the arithmetic or
    geometric mean of both, with the taps of the kernel, within one group. The std of a truncated normal is
    corrected for the truncation.

    Raises:
        ArgumentError: a negative scale, an unknown mode or distribution, fewer than two dimensions, or groups that
            do not divide the first.
    """
    if not scale >= 0:
        raise ArgumentError(f"The 'scale' of variance_scaling_ is a variance, at least 0; got {scale}.")
    weight = _weight(tensor, **layout)
    return weight.filled(_known("distribution", distribution, _ENTRIES), math.sqrt(scale / weight.fan(mode)))


def he_normal_(
    tensor: Tensor, activation: Function = "relu", mode: Mode = "fan_in", **layout: Unpack[Layout]
) -> Tensor:
    """Returns the tensor, filled from a normal of variance gain²/fan.

    He et al. 2015, arXiv:1502.01852.
    """
    return variance_scaling_(tensor, _gain(activation) ** 2, mode, "normal", **layout)


def he_uniform_(
    tensor: Tensor, activation: Function = "relu", mode: Mode = "fan_in", **layout: Unpack[Layout]
) -> Tensor:
    """Returns the tensor, filled from a uniform distribution of variance gain²/fan.

    He et al. 2015, arXiv:1502.01852.
    """
    return variance_scaling_(tensor, _gain(activation) ** 2, mode, "uniform", **layout)


def he_truncated_(
    tensor: Tensor, activation: Function = "relu", mode: Mode = "fan_in", **layout: Unpack[Layout]
) -> Tensor:
    """Returns the tensor, filled from a normal cut at two of its widths, of variance gain²/fan.

    He et al. 2015, arXiv:1502.01852.
    """
    return variance_scaling_(tensor, _gain(activation) ** 2, mode, "truncated_normal", **layout)


def xavier_normal_(tensor: Tensor, activation: Function = "linear", **layout: Unpack[Layout]) -> Tensor:
    """Returns the tensor, filled from a normal of variance 2·gain²/(fan_in + fan_out).

    Glorot & Bengio 2010.
    """
    return variance_scaling_(tensor, _gain(activation) ** 2, "fan_avg", "normal", **layout)


def xavier_uniform_(tensor: Tensor, activation: Function = "linear", **layout: Unpack[Layout]) -> Tensor:
    """Returns the tensor, filled from a uniform distribution of variance 2·gain²/(fan_in + fan_out).

    Glorot & Bengio 2010.
    """
    return variance_scaling_(tensor, _gain(activation) ** 2, "fan_avg", "uniform", **layout)


def xavier_truncated_(tensor: Tensor, activation: Function = "linear", **layout: Unpack[Layout]) -> Tensor:
    """Returns the tensor, filled from a normal cut at two of its widths, of variance 2·gain²/(fan_in + fan_out).

    Glorot & Bengio 2010.
    """
    return variance_scaling_(tensor, _gain(activation) ** 2, "fan_avg", "truncated_normal", **layout)


def lecun_normal_(tensor: Tensor, **layout: Unpack[Layout]) -> Tensor:
    """Returns the tensor, filled from a normal of variance 1/fan_in.

    LeCun et al. 1998, "Efficient BackProp".
    """
    return variance_scaling_(tensor, 1.0, "fan_in", "normal", **layout)


def lecun_uniform_(tensor: Tensor, **layout: Unpack[Layout]) -> Tensor:
    """Returns the tensor, filled from a uniform distribution of variance 1/fan_in.

    LeCun et al. 1998, "Efficient BackProp".
    """
    return variance_scaling_(tensor, 1.0, "fan_in", "uniform", **layout)


def lecun_truncated_(tensor: Tensor, **layout: Unpack[Layout]) -> Tensor:
    """Returns the tensor, filled from a normal cut at two of its widths, of variance 1/fan_in.

    LeCun et al. 1998, "Efficient BackProp".
    """
    return variance_scaling_(tensor, 1.0, "fan_in", "truncated_normal", **layout)


def truncated_normal_(tensor: Tensor, std: float = 1.0, *, generator: torch.Generator | None = None) -> Tensor:
    """Returns the tensor of any shape, filled from a normal cut at two of its widths, whose std is `std`.

    `torch.nn.init.trunc_normal_` takes the width before the cut; what it draws has 0.88 of it as std.
    """
    fill_(tensor, "truncated_normal", Geometry(), std, _generator(tensor, generator))
    return tensor


def sparse_(tensor: Tensor, activation: Function = "linear", **layout: Unpack[Layout]) -> Tensor:
    """Returns the tensor, with 15 normal weights of std gain/√15 into every output, at random places, else zeros.

    Outputs of fewer inputs are connected to all of them. (`torch.nn.init.sparse_` zeroes a share of every column
    instead.) Martens 2010, "Deep learning via Hessian-free optimization".
    """
    weight = _weight(tensor, **layout)
    return weight.filled("sparse", _gain(activation) / math.sqrt(weight.fan("fan_in")))


def identity_(tensor: Tensor, activation: Function = "linear", **layout: Unpack[Layout]) -> Tensor:
    """Returns the tensor, filled with gain times the identity, padded with zeros; of a kernel, at the centre tap."""
    return _weight(tensor, **layout).filled_at_centre("identity", _gain(activation))


def orthogonal_(tensor: Tensor, activation: Function = "linear", **layout: Unpack[Layout]) -> Tensor:
    """Returns the tensor, filled with gain times orthonormal rows or columns, whichever are fewer.

    A row holds all taps of the kernel. Haar-distributed. Saxe et al. 2014, arXiv:1312.6120.
    """
    weight = _weight(tensor, **layout)
    return weight.filled("orthogonal", _gain(activation) / math.sqrt(max(weight.rows, weight.fan("fan_in"))))


def butterfly_orthogonal_(tensor: Tensor, activation: Function = "linear", **layout: Unpack[Layout]) -> Tensor:
    """Returns the tensor, filled like `orthogonal_`, in O(n² log n) instead of O(n³) for a matrix of side n.

    Its rows or columns are at least as orthogonal. They are sent through a shallow circuit of random gates, and look
    as if they were drawn uniformly, which they are only nearly.
    """
    weight = _weight(tensor, **layout)
    return weight.filled("butterfly_orthogonal", _gain(activation) / math.sqrt(max(weight.rows, weight.fan("fan_in"))))


def delta_orthogonal_(tensor: Tensor, activation: Function = "linear", **layout: Unpack[Layout]) -> Tensor:
    """Returns the tensor, with gain times an orthogonal matrix at the centre tap of the kernel, else zeros.

    Xiao et al. 2018, arXiv:1806.05393.
    """
    return _weight(tensor, **layout).filled_at_centre("delta_orthogonal", _gain(activation))


def looks_linear_(
    tensor: Tensor, position: Position = "hidden", activation: Function = "linear", **layout: Unpack[Layout]
) -> Tensor:
    """Returns the tensor, mirrored so that a network of ReLUs starts as a linear map.

    With A orthogonal, times the gain, at the centre tap of a kernel: [A; −A] for the first layer, [[A, −A], [−A, A]]
    for hidden layers, [A, −A] for the last. Of an odd number of units the last mirrored one is cut off.
    Balduzzi et al. 2017, arXiv:1702.08591.

    Raises:
        ArgumentError: an unknown position.
    """
    weight = _weight(tensor, **layout)
    distribution = _MIRRORED[_known("position", position, tuple(_MIRRORED))]
    height = weight.rows if position == "last" else -(-weight.rows // 2)
    width = weight.channels if position == "first" else -(-weight.channels // 2)
    return weight.filled(distribution, _gain(activation) / math.sqrt(max(1, height, width) * max(1, weight.taps)))


def hadamard_(tensor: Tensor, activation: Function = "linear", **layout: Unpack[Layout]) -> Tensor:
    """Returns the tensor, filled with gain times a partial identity, or, with more outputs, ±gain/√outputs.

    Deterministic: the signs are those of a Hadamard matrix; of a kernel, at the centre tap.
    Zhao, Schäfer & Anandkumar 2021 (ZerO), arXiv:2110.12661.
    """
    return _weight(tensor, **layout).filled_at_centre("hadamard", _gain(activation))


def siren_(tensor: Tensor, omega: float = 30.0, first: bool = False, **layout: Unpack[Layout]) -> Tensor:
    """Returns the tensor, filled from U(−√(6/fan_in)/ω, √(6/fan_in)/ω); of the first layer, U(−1/fan_in, 1/fan_in).

    For layers sin(ω·(Wx + b)). Sitzmann et al. 2020, arXiv:2006.09661.

    Raises:
        ArgumentError: ω is not positive.
    """
    if not omega > 0:
        raise ArgumentError(f"The 'omega' of siren_ is a positive frequency; got {omega}.")
    weight = _weight(tensor, **layout)
    fan_in = weight.fan("fan_in")
    return weight.filled("uniform", 1.0 / (fan_in * math.sqrt(3.0)) if first else math.sqrt(2.0 / fan_in) / omega)


def mimetic_(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    *,
    heads: int,
    transposed: bool = False,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the four projections of an attention layer, filled like those of trained Transformers.

    W_qᵀW_k ≈ 0.7·Z + 0.7·I for each head and W_out·W_v ≈ 0.4·Z − 0.4·I, Z with entries N(0, 1/width).
    Trockman & Kolter 2023, arXiv:2305.09828.

    Args:
        query: weight of the queries, [heads · head width, width]; of a fused weight pass its slices,
            `*weight.chunk(3)`.
        key: weight of the keys, of the same shape.
        value: weight of the values, [any, width].
        out: weight of the output projection, [width, outputs of value].
        heads: number of heads of the attention.
        transposed: whether all four are the other way round.
        generator: generator of the draws, on the CPU or a CUDA device; None: torch's default one of their device.

    Raises:
        ArgumentError: shapes that do not fit together, or heads that do not divide the outputs of the query.
    """
    _check_attention(query, key, value, out, heads, transposed)
    geometry = Geometry((1,), (0,), heads=heads) if transposed else Geometry(heads=heads)
    source = _generator(query, generator)
    for left, right, names in ((query, key, ("query", "key")), (value, out, ("value", "out"))):
        seed = int(torch.empty((), dtype=torch.int64, device=source.device).random_(generator=source))
        for tensor, name in zip((left, right), names, strict=True):  # a pair starts from one state
            fill_(tensor, f"mimetic_{name}", geometry, 1.0, torch.Generator(source.device).manual_seed(seed))
    return query, key, value, out


def chrono_(bias: Tensor, steps: int, cell: GatedCell = "lstm", *, generator: torch.Generator | None = None) -> Tensor:
    """Returns the bias of an LSTM or GRU, filled so that its units remember for 1 to `steps` − 1 steps.

    LSTM: the forget gate's part is log U(1, steps − 1), the input gate's its negative, the rest zero. GRU, as torch
    has it: the update gate's part is log U(1, steps − 1), the rest zero. torch's modules add two biases, so fill one
    and set the other to zero. Tallec & Ollivier 2018, arXiv:1804.11188.

    Raises:
        ArgumentError: fewer than three steps, an unknown cell, or a bias that is not that many gates long.
    """
    slices = _SLICES[_known("cell", cell, tuple(_SLICES))]
    _chrono_(bias, Geometry((0,), (), slices=slices), steps, _generator(bias, generator))
    return bias


def _generator(tensor: Tensor, generator: torch.Generator | None) -> torch.Generator:
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ArgumentError(
            f"generator is a torch.Generator or None. Got {generator!r}; for a seed pass "
            "torch.Generator().manual_seed(seed)."
        )
    if generator is not None:
        return generator
    return torch.cuda.default_generators[tensor.device.index] if tensor.is_cuda else torch.default_generator


def _gain(activation: Function) -> float:
    """Returns the gain of an activation, its name, or the number itself.

    Raises:
        ArgumentError: an unknown name, or a number below zero.
    """
    if isinstance(activation, Activation):
        return activation.gain()
    if isinstance(activation, str):
        return Activation(_known("activation", activation, tuple(FORMULAS))).gain()
    if isinstance(activation, bool) or not isinstance(activation, (int, float)):
        raise ArgumentError(
            f"An activation is its name ('relu'), an autoinit.activations.Activation, or a number, its gain. "
            f"Got {type(activation).__name__}."
        )
    if not activation >= 0:
        raise ArgumentError(f"A gain is a number of at least 0; got {activation!r}.")
    return float(activation)


def _known(argument: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ArgumentError(f"Unknown {argument} {value!r}. {did_you_mean(str(value), known)}")
    return value


def _weight(
    tensor: Tensor, *, transposed: bool = False, groups: int = 1, generator: torch.Generator | None = None
) -> _Weight:
    """Returns a tensor with what its shape says.

    Raises:
        ArgumentError: fewer than two dimensions, or groups that do not divide the first.
    """
    if not isinstance(tensor, Tensor):
        raise ArgumentError(f"A weight is a torch.Tensor. Got {type(tensor).__name__}.")
    if tensor.ndim < 2:
        raise ArgumentError(
            f"A weight is [outputs, inputs, *kernel] and has at least two dimensions; got {tuple(tensor.shape)}. "
            "Biases are filled by torch.nn.init.zeros_ or constant_."
        )
    if groups < 1 or tensor.shape[0] % groups:
        raise ArgumentError(f"{groups} groups do not divide the first dimension of {tuple(tensor.shape)}.")
    kernel = tuple(range(2, tensor.ndim))
    out, into = (1, 0) if transposed else (0, 1)
    geometry = Geometry((out,), (into, *kernel), groups, kernel_axes=kernel)
    sizes = tensor.shape[0] // groups, tensor.shape[1]
    return _Weight(tensor, geometry, sizes[out], sizes[into], geometry.taps(tensor), _generator(tensor, generator))


def _check_attention(query: Tensor, key: Tensor, value: Tensor, out: Tensor, heads: int, transposed: bool) -> None:
    """Raises ArgumentError where the four projections are not those of one attention layer."""
    shapes = [tuple(tensor.shape) for tensor in (query, key, value, out)]
    if any(len(shape) != 2 for shape in shapes):
        raise ArgumentError(f"The projections of an attention layer are matrices; got the shapes {shapes}.")
    wanted = [shape[::-1] for shape in shapes] if transposed else shapes
    if wanted[0] != wanted[1] or wanted[2][1] != wanted[0][1] or wanted[3] != wanted[2][::-1]:
        raise ArgumentError(
            "mimetic_ needs query and key of one shape [heads · head width, width], value [any, width] and out "
            f"[width, any]; got {shapes}{' with transposed=True' if transposed else ''}. It is for self-attention "
            "with as many heads for keys as for queries."
        )
    if heads < 1 or wanted[0][0] % heads:
        raise ArgumentError(f"{heads} heads do not divide the {wanted[0][0]} outputs of the query.")
