"""The named schemes: one row per way to draw a weight, with its formula, source and what it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import RecipeError, did_you_mean
from ..graph import Graph
from ..recipes import formulas
from .formulas import Distribution, Mode, Rule
from .needs import NEEDS


@dataclass(frozen=True, slots=True)
class Scheme:
    """How the weight matrices of a network are drawn.

    Attributes:
        name: as used in recipes.
        title: as people say it.
        draw: what one layer of a graph gets.
        formula: with the symbols of the source.
        source: author, year, arXiv number.
        purpose: the networks it was made for.
        prefer: when to take it rather than another.
        cost: of drawing, in words.
        mode: the fan that its variance is divided by; None where the formula has no such choice.
        embeddings: whether embedding tables are drawn too; else they are kept.
        needs: keys of `autoinit.recipes.needs.NEEDS`: an architecture without them is refused.
        searched: whether a search offers it for an architecture.
    """

    name: str
    title: str
    draw: Rule
    formula: str
    source: str
    purpose: str
    prefer: str
    cost: str = "one pass over the weights"
    mode: Mode | None = None
    embeddings: bool = False
    needs: tuple[str, ...] = ()
    searched: Callable[[Graph], bool] = lambda graph: False


# Where a search offers them


def _plain(graph: Graph) -> bool:
    """Whether depth alone decides: neither normalization nor skip connection, and three layers or more."""
    free = not any(layer.role == "norm_scale" for layer in graph.layers) and not graph.residual_adds
    return free and len({layer.depth for layer in graph.weights}) >= 3


def _plain_with(need: str) -> Callable[[Graph], bool]:
    """Returns whether a graph is plain and meets a need as well."""
    return lambda graph: _plain(graph) and NEEDS[need].met(graph)


def _has_convolution(graph: Graph) -> bool:
    return any(layer.kernel_axes and formulas.kernel_size(layer) > 1 for layer in graph.weights)


def _always(graph: Graph) -> bool:
    return True


# The rows

_HE = (
    "std = gain(φ)/√fan_in",
    "He et al. 2015, arXiv:1502.01852",
    "ReLU-like networks; the gain is computed for any activation",
    "the first thing to try on networks without normalization",
)
_XAVIER = (
    "std = √(2/(fan_in + fan_out))",
    "Glorot & Bengio 2010",
    "tanh-like networks, Transformers",
    "where forward and backward variance matter alike",
)
_LECUN = (
    "std = 1/√fan_in",
    "LeCun et al. 1998",
    "normalized networks, linear layers",
    "where a normalization follows each layer",
)
_FAMILIES: dict[str, tuple[str, Mode, tuple[str, str, str, str]]] = {
    "he": ("He", "fan_in", _HE),
    "xavier": ("Xavier", "fan_avg", _XAVIER),
    "lecun": ("LeCun", "fan_in", _LECUN),
}
_SHAPES: dict[str, Distribution] = {"normal": "normal", "uniform": "uniform", "truncated": "truncated_normal"}
_SHAPES_IN_WORDS = {"normal": "normal", "uniform": "uniform", "truncated": "normal, cut at two widths"}


def _variance_scaling() -> list[Scheme]:
    """Returns He, Xavier and LeCun, each normal, uniform and truncated.

    The search takes the normal ones: draws of one variance train alike.
    """
    return [
        Scheme(
            f"{family}_{shape}",
            title,
            formulas.scaled(distribution, family),
            f"{formula}, {_SHAPES_IN_WORDS[shape]}",
            source,
            purpose,
            prefer,
            mode=mode,
            searched=_always if shape == "normal" else lambda graph: False,
        )
        for family, (title, mode, (formula, source, purpose, prefer)) in _FAMILIES.items()
        for shape, distribution in _SHAPES.items()
    ]


_QR = "a QR decomposition, O(n³) for an n×n matrix"

_ROWS = (
    Scheme(
        "as_is",
        "as is",
        formulas.owner,
        "the weights as the model's own code drew them",
        "the model's owner",
        "every network",
        "the baseline that every other choice has to beat",
        cost="none",
        searched=_always,
    ),
    Scheme(
        "zeros",
        "Zeros",
        formulas.fixed("constant", 0.0),
        "W = 0",
        "-",
        "checks; heads, by rules={'output': 'zeros'}",
        "never for a whole network: its units would stay equal",
    ),
    Scheme(
        "constant",
        "Constant",
        formulas.average,
        "W = 1/fan_in",
        "-",
        "checks: every unit is the mean of its inputs",
        "never for a whole network: its units would stay equal",
    ),
    Scheme(
        "normal",
        "Normal",
        formulas.fixed("normal", 0.02),
        "std = 0.02",
        "Radford et al. 2019 (GPT-2)",
        "Transformers of the GPT family",
        "to reproduce GPT-like models",
        embeddings=True,
    ),
    Scheme(
        "uniform",
        "Uniform",
        formulas.fixed("uniform", 0.02),
        "std = 0.02, U(−0.0346, 0.0346)",
        "-",
        "comparisons with a scale that ignores the fans",
        "rarely: a scale that follows the fans carries over to other widths",
        embeddings=True,
    ),
    Scheme(
        "truncated_normal",
        "Truncated normal",
        formulas.fixed("truncated_normal", 0.02),
        "std = 0.02, cut at two widths of the normal before the cut",
        "Devlin et al. 2018, arXiv:1810.04805",
        "Transformers of the BERT and ViT families",
        "to reproduce BERT-like models",
        embeddings=True,
        searched=_always,
    ),
    Scheme(
        "sparse",
        "Sparse",
        formulas.sparse,
        "15 non-zero weights for each unit, from N(0, gain²/15)",
        "Martens 2010",
        "wide plain networks under second-order or momentum methods",
        "where units should start different although they are many",
    ),
    *_variance_scaling(),
    Scheme(
        "selu",
        "SELU's LeCun normal",
        formulas.selu,
        "std = 1/√fan_in, which makes (0, 1) the fixed point of mean and variance",
        "Klambauer et al. 2017, arXiv:1706.02515",
        "self-normalizing networks",
        "whenever the activation is SELU",
        mode="fan_in",
        needs=("selu",),
    ),
    Scheme(
        "orthogonal",
        "Orthogonal",
        formulas.orthogonal("orthogonal"),
        "W = gain(φ)·Q, QᵀQ = 1 or QQᵀ = 1, Haar-distributed",
        "Saxe et al. 2014, arXiv:1312.6120",
        "deep and recurrent networks",
        "deep networks without normalization; recurrent matrices",
        cost=_QR,
        searched=_always,
    ),
    Scheme(
        "butterfly_orthogonal",
        "Butterfly orthogonal",
        formulas.orthogonal("butterfly_orthogonal"),
        "W = gain(φ)·Q, Q a product of sparse random rotations, arranged as in a shallow quantum circuit",
        "this project; Parker 1995 (random butterflies), Saxe et al. 2014",
        "what orthogonal is for, at large widths",
        "in the place of orthogonal, from about a thousand units on",
        cost="O(n² log n) for an n×n matrix",
    ),
    Scheme(
        "delta_orthogonal",
        "Delta-orthogonal",
        formulas.delta,
        "W = gain(φ)·Q at the centre of the kernel, 0 elsewhere",
        "Xiao et al. 2018, arXiv:1806.05393",
        "very deep convolutional networks without normalization or skips",
        "plain CNNs of tens of layers",
        cost=_QR,
        searched=lambda graph: _has_convolution(graph) and _plain(graph),
    ),
    Scheme(
        "looks_linear",
        "Looks-linear",
        formulas.mirrored,
        "W = [[A, −A], [−A, A]], A orthogonal; [A; −A] first, [A, −A] last",
        "Balduzzi et al. 2017, arXiv:1702.08591",
        "deep plain networks of ReLU-like units",
        "where a ReLU network is too deep for he_normal: it starts as a linear isometry",
        cost=_QR,
        needs=("straight",),
        searched=_plain_with("straight"),
    ),
    Scheme(
        "identity",
        "Identity",
        formulas.identity,
        "W = 1, padded where not square; at the centre of a convolution's kernel (dirac)",
        "-",
        "recurrent layers; layers that should start by passing their input on",
        "recurrent matrices; layers added to a trained network, which should change nothing at first",
    ),
    Scheme(
        "hadamard",
        "ZerO",
        formulas.hadamard,
        "W = partial identity; a truncated normalized Hadamard matrix where outputs outnumber inputs; the last weight "
        "of each residual branch 0",
        "Zhao et al. 2021, arXiv:2110.12661",
        "residual networks; the same weights in every run",
        "where a start without randomness is wanted",
        searched=lambda graph: any(layer.closes_branch for layer in graph.weights),
    ),
    Scheme(
        "edge_of_chaos",
        "Edge of chaos",
        formulas.critical,
        "std = σ_w/√fan_in, biases N(0, σ_b²), with χ = σ_w²·E[φ'(√q·z)²] = 1 at the fixed point q",
        "Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2017, arXiv:1611.01232",
        "deep plain networks of any smooth activation",
        "deep sigmoid-like networks, whose critical gain is far from he_normal's",
        needs=("critical",),
        searched=_plain_with("critical"),
    ),
    Scheme(
        "dynamical_isometry",
        "Dynamical isometry",
        formulas.isometric,
        "orthogonal at the critical point (σ_w, σ_b) whose q is small enough for the depth",
        "Pennington et al. 2017, arXiv:1711.04735; Xiao et al. 2018, arXiv:1806.05393",
        "very deep plain networks of tanh-like units",
        "plain tanh or erf networks of tens of layers and more",
        cost=_QR,
        needs=("isometry",),
        searched=_plain_with("isometry"),
    ),
    Scheme(
        "siren",
        "SIREN",
        formulas.siren,
        "first layer U(−1/n, 1/n), the others U(−√(6/n)/ω, √(6/n)/ω), biases U(−1/√n, 1/√n)",
        "Sitzmann et al. 2020, arXiv:2006.09661",
        "networks of sines",
        "whenever the activation is a sine",
        needs=("sines",),
        searched=NEEDS["sines"].met,
    ),
)

SCHEMES: dict[str, Scheme] = {row.name: row for row in _ROWS}

SCHEME_ALIASES = {"truncated_normal_002": "truncated_normal"}
"""Names of earlier versions, as saved plans have them."""


def scheme(name: str) -> Scheme:
    """Returns the row called `name`.

    Raises:
        RecipeError: unknown name; the message holds the nearest known one.
    """
    try:
        return SCHEMES[SCHEME_ALIASES.get(name, name)]
    except KeyError:
        raise RecipeError(f"No initialization scheme is called {name!r}. {did_you_mean(name, SCHEMES)}") from None
