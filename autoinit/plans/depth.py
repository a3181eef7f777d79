"""How papers scale residual branches with depth: Fixup, T-Fixup, DeepNorm; as factors on one layer's weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..graph import TABLES, Graph, Layer
from ..recipes.recipe import Recipe

_FEED_FORWARD = frozenset({"hidden", "residual_out", "gate"})


@dataclass(frozen=True, slots=True)
class DepthScale:
    """What a depth rule does to one weight.

    Attributes:
        factor: on the whole weight.
        value_factor: on the value slice of a fused query, key and value weight.
        fold: on the weight and on its bias: a multiplier of the skip that the normalization after it lets fold.
        why: the factors, in words.
    """

    factor: float = 1.0
    value_factor: float = 1.0
    fold: float = 1.0
    why: str = ""


def fixup(layer: Layer, graph: Graph) -> DepthScale:
    """Returns L^(−1/(2m−2)) on the weights inside a branch of m weights, of L branches.

    The last weight of a branch is zero by `Recipe.residual_out`. Zhang, Dauphin & Ma 2019, arXiv:1901.09321, section 3.
    """
    m = layer.branch_weights
    if not layer.in_branch or layer.closes_branch or m < 2:
        return DepthScale()
    return DepthScale(graph.residual_adds ** (-1 / (2 * m - 2)), why=f"{graph.residual_adds}^(−1/{2 * m - 2}), Fixup")


def t_fixup(layer: Layer, graph: Graph) -> DepthScale:
    """Returns 0.67·N^(−1/4) in an encoder of N layers, (9N)^(−1/4) in a decoder with cross-attention and on embeddings.

    It goes on values, attention outputs and feed-forward weights. A stack without cross-attention counts as an encoder.
    Huang, Pérez, Ba & Volkovs 2020, ICML, section 3.
    """
    encoder, decoder = stack_depths(graph)
    if layer.role in TABLES:
        layers = decoder or encoder
        return DepthScale((9 * layers) ** -0.25, why=f"(9·{layers})^(−1/4), T-Fixup")
    if layer.stack == "decoder":
        return _on_values(layer, (9 * decoder) ** -0.25, f"(9·{decoder})^(−1/4), T-Fixup")
    return _on_values(layer, 0.67 * encoder**-0.25, f"0.67·{encoder}^(−1/4), T-Fixup")


def deepnorm(layer: Layer, graph: Graph) -> DepthScale:
    """Returns β on values, attention outputs and feed-forward weights, and 1/α to fold into a branch's last weight.

        N layers                  α = (2N)^(1/4)             β = (8N)^(−1/4)
        encoder of N, decoder     α = 0.81·(N⁴M)^(1/16)      β = 0.87·(N⁴M)^(−1/16)
        of M, the decoder's       α = (3M)^(1/4)             β = (12M)^(−1/4)

    LN(α·x + f) = LN(x + f/α), to within the normalization's epsilon. Wang et al. 2022, arXiv:2203.00555, figure 2.
    """
    alpha, beta = _deepnorm_constants(layer, graph)
    scale = _on_values(layer, beta, f"β = {beta:.3g}, DeepNorm")
    if not _folds(layer, graph):
        return scale
    why = f"{scale.why}; 1/α = 1/{alpha:.3g}, folded"
    return DepthScale(scale.factor, scale.value_factor, 1 / alpha, why)


def _folds(layer: Layer, graph: Graph) -> bool:
    """Whether a multiplier of the skip can go into a branch's last weight, and into the bias that goes with it."""
    if not (layer.closes_branch and layer.post_norm) or layer.keep:
        return False
    return not any(other.keep for other in graph.layers if other.role == "bias" and other.of == layer.name)


def _deepnorm_constants(layer: Layer, graph: Graph) -> tuple[float, float]:
    """Returns α and β of the stack that a layer stands in, of N encoder and M decoder layers."""
    n, m = stack_depths(graph)
    if not m:
        return (2 * n) ** 0.25, (8 * n) ** -0.25
    if layer.stack == "decoder":
        return (3 * m) ** 0.25, (12 * m) ** -0.25
    return 0.81 * (n**4 * m) ** (1 / 16), 0.87 * (n**4 * m) ** (-1 / 16)


def stack_depths(graph: Graph) -> tuple[int, int]:
    """Returns the layers of the encoder, or of the only stack, and those of a decoder with cross-attention.

    The only stack has a layer for each pair of residual adds, where layers share their weights or have no attention.
    """
    cross = {layer.attention for layer in graph.layers if layer.cross}
    own = {layer.attention for layer in graph.layers if layer.attention and not layer.cross}
    decoder = {layer.attention for layer in graph.layers if layer.attention and layer.stack == "decoder"}
    run = 0 if cross else graph.residual_adds // 2
    return max(1, run, len(own - decoder)), len(cross)


def _on_values(layer: Layer, factor: float, why: str) -> DepthScale:
    """Returns a factor on what carries values through a Transformer's branches: not on queries and keys."""
    if layer.role == "qkv":
        return DepthScale(value_factor=factor, why=f"values × {why}")
    carries = layer.role in ("value", "attention_out") or (layer.in_branch and layer.role in _FEED_FORWARD)
    return DepthScale(factor, why=why) if carries else DepthScale()


DEPTH_RULES: dict[str, Callable[[Layer, Graph], DepthScale]] = {
    "none": lambda layer, graph: DepthScale(),
    "fixup": fixup,
    "t_fixup": t_fixup,
    "deepnorm": deepnorm,
}
"""The values of `Recipe.depth_rule`."""


def depth_scale(layer: Layer | None, rule: str, graph: Graph) -> DepthScale:
    """Returns what a depth rule does to one layer's weight; nothing where there is none."""
    return DepthScale() if layer is None else DEPTH_RULES[rule](layer, graph.around(layer))


def is_zeroed(layer: Layer, recipe: Recipe, graph: Graph) -> bool:
    """Returns whether a residual branch is to start at zero by this parameter.

    That is the branch's own multiplier where it has one (ReZero, SkipInit), else its last weight; under Fixup always
    the weight, beside a multiplier of 1. Never both, and never before a ReLU: neither would get a gradient.
    """
    if recipe.residual_out != "zero" or layer.keep:
        return False
    if layer.role == "layer_scale":
        return multiplies(layer, graph) and recipe.depth_rule != "fixup"
    multipliers = (other for other in graph.layers if other.role == "layer_scale" and other.of == layer.name)
    if not layer.closes_branch or layer.rectified:
        return False
    return not any(is_zeroed(other, recipe, graph) for other in multipliers)


def multiplies(layer: Layer, graph: Graph) -> bool:
    """Returns whether a parameter multiplies a residual branch whose last weight is free; a kept one may be zero."""
    closer = graph.get(layer.of or "")
    return layer.role == "layer_scale" and closer is not None and not closer.keep and not closer.rectified


def left_out(rule: str, graph: Graph) -> str:
    """Returns what a depth rule asks for that is no weight of this model; empty where nothing is missing."""
    closers = [layer for layer in graph.layers if layer.is_matrix and layer.closes_branch]
    if rule == "fixup":
        multiplied = any(layer.role == "layer_scale" for layer in graph.layers)
        return "" if multiplied else "Fixup's scalar multiplier and biases are left out: the model has none."
    if rule == "t_fixup" and any(layer.role == "norm_scale" for layer in graph.layers):
        return "T-Fixup also takes out layer normalization and warm-up; the model keeps its normalization."
    if rule == "deepnorm" and (loose := sum(not _folds(layer, graph) for layer in closers)):
        return (
            f"DeepNorm's α is left out at {loose} of {len(closers)} residual branches: no normalization follows "
            "their add, or their weight or bias must stay, so it cannot be folded into the weights."
        )
    return ""
