"""The named schemes: one row per way to draw a weight, with its formula, source and what it is for."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import RecipeError, did_you_mean
from ..graph import Graph
from . import formulas
from .about import About
from .formulas import Distribution, Mode, Rule
from .needs import NEEDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How the weight matrices of a network are drawn.

    Attributes:
        name: as used in recipes.
        draw: what one layer of a graph gets.
        mode: the fan that its variance is divided by; None where the formula has no such choice.
        embeddings: whether embedding tables are drawn too; else they are kept.
        searched: whether a search offers it for an architecture.
        about: its formula, its source, what it is for, and what it needs.
    """

    name: str
    draw: Rule
    mode: Mode | None = None
    embeddings: bool = False
    searched: Callable[[Graph], bool] = lambda graph: False
    about: About


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


def _has_transposed(graph: Graph) -> bool:
    """Whether it makes images or the like: DCGAN's draw is for such networks."""
    return any(layer.kind == "conv_transposed" for layer in graph.weights)


def _always(graph: Graph) -> bool:
    return True


# The rows

_FAMILIES: dict[str, tuple[Mode, About]] = {
    "he": (
        "fan_in",
        About(
            title="He",
            purpose="ReLU-like networks; the gain is computed for any activation",
            formula="std = gain(φ)/√fan_in",
            source="He et al. 2015, arXiv:1502.01852",
            prefer="the first thing to try on networks without normalization",
        ),
    ),
    "xavier": (
        "fan_avg",
        About(
            title="Xavier",
            purpose="tanh-like networks, Transformers",
            formula="std = √(2/(fan_in + fan_out))",
            source="Glorot & Bengio 2010",
            prefer="where forward and backward variance matter alike",
        ),
    ),
    "lecun": (
        "fan_in",
        About(
            title="LeCun",
            purpose="normalized networks, linear layers",
            formula="std = 1/√fan_in",
            source="LeCun et al. 1998",
            prefer="where a normalization follows each layer",
        ),
    ),
}
_SHAPES: dict[str, Distribution] = {"normal": "normal", "uniform": "uniform", "truncated": "truncated_normal"}
_SHAPES_IN_WORDS = {"normal": "normal", "uniform": "uniform", "truncated": "normal, cut at two widths"}


def _variance_scaling() -> list[Scheme]:
    """Returns He, Xavier and LeCun, each normal, uniform and truncated.

    The search takes the normal ones: draws of one variance train alike.
    """
    return [
        Scheme(
            name=f"{family}_{shape}",
            draw=formulas.scaled(distribution, family),
            mode=mode,
            searched=_always if shape == "normal" else lambda graph: False,
            about=dataclasses.replace(about, formula=f"{about.formula}, {_SHAPES_IN_WORDS[shape]}"),
        )
        for family, (mode, about) in _FAMILIES.items()
        for shape, distribution in _SHAPES.items()
    ]


_QR = "a QR decomposition, O(n³) for an n×n matrix"

_ROWS = (
    Scheme(
        name="as_is",
        draw=formulas.owner,
        searched=_always,
        about=About(
            title="as is",
            purpose="every network",
            formula="the weights as the model's own code drew them",
            source="the model's owner",
            prefer="the baseline that every other choice has to beat",
            cost="none",
        ),
    ),
    Scheme(
        name="zeros",
        draw=formulas.fixed("constant", 0.0),
        about=About(
            title="Zeros",
            purpose="checks; heads, by rules={'output': 'zeros'}",
            formula="W = 0",
            source="-",
            prefer="never for a whole network: its units would stay equal",
        ),
    ),
    Scheme(
        name="constant",
        draw=formulas.average,
        about=About(
            title="Constant",
            purpose="checks: every unit is the mean of its inputs",
            formula="W = 1/fan_in",
            source="-",
            prefer="never for a whole network: its units would stay equal",
        ),
    ),
    Scheme(
        name="normal",
        draw=formulas.fixed("normal", 0.02),
        embeddings=True,
        searched=_has_transposed,
        about=About(
            title="Normal",
            purpose="Transformers of the GPT family",
            formula="std = 0.02",
            source="Radford et al. 2019 (GPT-2)",
            prefer="to reproduce GPT-like models",
        ),
    ),
    Scheme(
        name="uniform",
        draw=formulas.fixed("uniform", 0.02),
        embeddings=True,
        about=About(
            title="Uniform",
            purpose="comparisons with a scale that ignores the fans",
            formula="std = 0.02, U(−0.0346, 0.0346)",
            source="-",
            prefer="rarely: a scale that follows the fans carries over to other widths",
        ),
    ),
    Scheme(
        name="truncated_normal",
        draw=formulas.fixed("truncated_normal", 0.02),
        embeddings=True,
        searched=_always,
        about=About(
            title="Truncated normal",
            purpose="Transformers of the BERT and ViT families",
            formula="std = 0.02, cut at two widths of the normal before the cut",
            source="Devlin et al. 2018, arXiv:1810.04805",
            prefer="to reproduce BERT-like models",
        ),
    ),
    Scheme(
        name="sparse",
        draw=formulas.sparse,
        about=About(
            title="Sparse",
            purpose="wide plain networks under second-order or momentum methods",
            formula="15 non-zero weights for each unit, from N(0, gain²/15)",
            source="Martens 2010",
            prefer="where units should start different although they are many",
        ),
    ),
    *_variance_scaling(),
    Scheme(
        name="selu",
        draw=formulas.selu,
        mode="fan_in",
        about=About(
            title="SELU's LeCun normal",
            purpose="self-normalizing networks",
            formula="std = 1/√fan_in, which makes (0, 1) the fixed point of mean and variance",
            source="Klambauer et al. 2017, arXiv:1706.02515",
            prefer="whenever the activation is SELU",
            needs=("selu",),
        ),
    ),
    Scheme(
        name="orthogonal",
        draw=formulas.orthogonal("orthogonal"),
        searched=_always,
        about=About(
            title="Orthogonal",
            purpose="deep and recurrent networks",
            formula="W = gain(φ)·Q, QᵀQ = 1 or QQᵀ = 1, Haar-distributed",
            source="Saxe et al. 2014, arXiv:1312.6120",
            prefer="deep networks without normalization; recurrent matrices",
            cost=_QR,
        ),
    ),
    Scheme(
        name="butterfly_orthogonal",
        draw=formulas.orthogonal("butterfly_orthogonal"),
        about=About(
            title="Butterfly orthogonal",
            purpose="what orthogonal is for, at large widths",
            formula="W = gain(φ)·Q, Q a product of sparse random rotations, arranged as in a shallow quantum circuit",
            source="this project; Parker 1995 (random butterflies), Saxe et al. 2014",
            prefer="in the place of orthogonal, from about a thousand units on",
            cost="O(n² log n) for an n×n matrix",
        ),
    ),
    Scheme(
        name="delta_orthogonal",
        draw=formulas.delta,
        searched=lambda graph: _has_convolution(graph) and _plain(graph),
        about=About(
            title="Delta-orthogonal",
            purpose="very deep convolutional networks without normalization or skips",
            formula="W = gain(φ)·Q at the centre of the kernel, 0 elsewhere",
            source="Xiao et al. 2018, arXiv:1806.05393",
            prefer="plain CNNs of tens of layers",
            cost=_QR,
        ),
    ),
    Scheme(
        name="looks_linear",
        draw=formulas.mirrored,
        searched=_plain_with("straight"),
        about=About(
            title="Looks-linear",
            purpose="deep plain networks of ReLU-like units",
            formula="W = [[A, −A], [−A, A]], A orthogonal; [A; −A] first, [A, −A] last",
            source="Balduzzi et al. 2017, arXiv:1702.08591",
            prefer="where a ReLU network is too deep for he_normal: it starts as a linear isometry",
            cost=_QR,
            needs=("straight",),
        ),
    ),
    Scheme(
        name="identity",
        draw=formulas.identity,
        about=About(
            title="Identity",
            purpose="recurrent layers; layers that should start by passing their input on",
            formula="W = 1, padded where not square; at the centre of a convolution's kernel (dirac)",
            source="-",
            prefer="recurrent matrices; layers added to a trained network, which should change nothing at first",
        ),
    ),
    Scheme(
        name="hadamard",
        draw=formulas.hadamard,
        searched=lambda graph: any(layer.closes_branch for layer in graph.weights),
        about=About(
            title="ZerO",
            purpose="residual networks; the same weights in every run",
            formula="W = partial identity; a truncated normalized Hadamard matrix where outputs outnumber inputs; the "
            "last weight of each residual branch 0",
            source="Zhao et al. 2021, arXiv:2110.12661",
            prefer="where a start without randomness is wanted",
        ),
    ),
    Scheme(
        name="edge_of_chaos",
        draw=formulas.critical,
        searched=_plain_with("critical"),
        about=About(
            title="Edge of chaos",
            purpose="deep plain networks of any smooth activation",
            formula="std = σ_w/√fan_in, biases N(0, σ_b²), with χ = σ_w²·E[φ'(√q·z)²] = 1 at the fixed point q",
            source="Poole et al. 2016, arXiv:1606.05340; Schoenholz et al. 2017, arXiv:1611.01232",
            prefer="deep sigmoid-like networks, whose critical gain is far from he_normal's",
            needs=("critical",),
        ),
    ),
    Scheme(
        name="dynamical_isometry",
        draw=formulas.isometric,
        searched=_plain_with("isometry"),
        about=About(
            title="Dynamical isometry",
            purpose="very deep plain networks of tanh-like units",
            formula="orthogonal at the critical point (σ_w, σ_b) whose q is small enough for the depth",
            source="Pennington et al. 2017, arXiv:1711.04735; Xiao et al. 2018, arXiv:1806.05393",
            prefer="plain tanh or erf networks of tens of layers and more",
            cost=_QR,
            needs=("isometry",),
        ),
    ),
    Scheme(
        name="siren",
        draw=formulas.siren,
        searched=NEEDS["sines"].met,
        about=About(
            title="SIREN",
            purpose="networks of sines",
            formula="first layer U(−1/n, 1/n), the others U(−√(6/n)/ω, √(6/n)/ω), biases U(−1/√n, 1/√n)",
            source="Sitzmann et al. 2020, arXiv:2006.09661",
            prefer="whenever the activation is a sine",
            needs=("sines",),
        ),
    ),
    Scheme(
        name="rl",
        draw=formulas.agent,
        searched=NEEDS["actor_critic"].met,
        about=About(
            title="Agents of on-policy learning",
            purpose="actors and critics of PPO, A2C and their kin, with one trunk or two; Q-networks",
            formula="orthogonal: gain √2 for hidden weights, whatever the activation, 0.01 for a policy's head, 1 for "
            "any other head and for recurrent cells; biases 0",
            source="Huang et al. 2022, The 37 Implementation Details of PPO; Andrychowicz et al. 2020, "
            "arXiv:2006.05990",
            prefer="on-policy reinforcement learning: the first actions are nearly equally likely. A head is a policy "
            "by its name, or by having several units beside a head of one; a lone head that no name calls a policy is "
            "taken for a Q-network or a value",
            cost=_QR,
            left_out="the start of log_std, which is its owner's choice",
        ),
    ),
)

SCHEMES: dict[str, Scheme] = {row.name: row for row in _ROWS}

SCHEME_ALIASES = {
    "truncated_normal_002": "truncated_normal",
    "kaiming_normal": "he_normal",
    "kaiming_uniform": "he_uniform",
    "glorot_normal": "xavier_normal",
    "glorot_uniform": "xavier_uniform",
    "trunc_normal": "truncated_normal",
}
"""Names of earlier versions, as saved plans have them, and those of PyTorch and Keras."""

_AUTHORS = {"he": "he", "kaiming": "he", "xavier": "xavier", "glorot": "xavier", "lecun": "lecun"}
"""What people call a scheme by its author, who leaves open whether it is drawn from a normal or a uniform one."""


def spelled(name: str) -> str:
    """Returns a name as it is spelled here: "He-Normal", "HeNormal" and "he_normal_" are "he_normal"."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\s_-]+", "_", parted).rstrip("_").lower()


def which_of(name: str) -> str:
    """Returns what to name instead where a name is that of an author alone; "" where it is not."""
    family = _AUTHORS.get(spelled(name))
    return f"Choose {family}_normal or {family}_uniform. " if family else ""


def scheme_name(name: str) -> str:
    """Returns the name of the row that `name` means; as it was given where there is none."""
    given = spelled(name)
    found = SCHEME_ALIASES.get(given, given)
    return found if found in SCHEMES else name


def scheme(name: str) -> Scheme:
    """Returns the row called `name`.

    Raises:
        RecipeError: unknown name; the message holds the nearest known one.
    """
    try:
        return SCHEMES[scheme_name(name)]
    except KeyError:
        hint = which_of(name) or did_you_mean(spelled(name), SCHEMES)
        raise RecipeError(f"No initialization scheme is called {name!r}. {hint}".rstrip()) from None
