"""The rules of biases: kept, zero, critical, a label prior, the gates of a recurrent cell."""

from __future__ import annotations

import math

from .. import text
from ..graph import HEADS, Graph, Layer
from ..recipes.formulas import Distribution
from ..recipes.recipe import Recipe
from ..recipes.schemes import scheme
from .depth import depth_scale, is_zeroed
from .fill import Fill, constant, kept, make

SMALLEST_FREQUENCY = 1e-4
"""A class rarer than this gets this frequency in a label prior, so that its log stays finite."""

SHORTEST = 3
"""Time steps from which on gates can be spread over time scales: log U(1, T − 1) is 0 alone for T = 2."""


def bias(layer: Layer, recipe: Recipe, graph: Graph) -> Fill:
    """Returns what one bias gets.

    At the output: the log frequency of each label (Recipe.head_bias), so that the loss starts at their entropy; under
    binary cross-entropy its log odds (Lin et al. 2017, arXiv:1708.02002, section 4.1). Of gates: the forget gate at 1
    (Jozefowicz, Zaremba & Sutskever 2015, ICML), or log U(1, T − 1) (Tallec & Ollivier 2018, arXiv:1804.11188). Others
    are zero, drawn where their weight's scheme has a σ_b, or kept.

    Args:
        layer: the bias.
        recipe: that is resolved.
        graph: the network that it is part of.
    """
    owner = graph.get(layer.of or "")
    if owner is not None and owner.role in HEADS and recipe.head_bias != "as_is":
        return _head_bias(layer, recipe, graph)
    if owner is not None and owner.keep:
        return kept(layer, f"its weight is kept: {owner.keep}")
    if owner is not None and owner.role == "gate":
        return kept(layer, "a gate's bias decides what passes at the start; it is its owner's choice")
    if owner is not None and is_zeroed(owner, recipe, graph):
        return constant(layer, (0.0,), "the residual branch starts at zero")
    if owner is not None and owner.modulates and recipe.modulation == "zero":
        return constant(layer, (0.0,), "streams pass unchanged and gated branches start closed")
    if layer.cell in ("lstm", "gru") and recipe.recurrent in ("orthogonal_forget", "chrono"):
        fill = _gate_bias(layer, recipe, graph)
        if fill is not None:
            return fill
    fold = depth_scale(owner, recipe.depth_rule, graph).fold
    base = recipe.base if owner is None else recipe.base_of(owner.role)
    if recipe.bias == "zero" or base != "as_is":
        return _drawn_bias(layer, owner, recipe, graph, fold)
    if fold != 1.0:
        return make(layer, "keep", f"as its owner drew it; × {text.number(fold)} (folded with its weight)", factor=fold)
    return kept(layer, "as its owner drew it")


def _drawn_bias(layer: Layer, owner: Layer | None, recipe: Recipe, graph: Graph, fold: float) -> Fill:
    """Returns a bias at zero, or drawn as the scheme of its weight says, times what is folded into that weight."""
    if owner is not None and owner.is_matrix and owner.size and recipe.bias != "zero":
        base = scheme(recipe.base_of(owner.role))
        draw = base.draw(owner, graph)
        if std := draw.bias_std * fold:
            shape: Distribution = "uniform" if draw.distribution == "uniform" else "normal"
            return make(layer, shape, f"{base.about.title}: biases of std {text.number(std)}", std=std)
    return constant(layer, (0.0,), "biases start at zero")


def _gate_bias(layer: Layer, recipe: Recipe, graph: Graph) -> Fill | None:
    """Returns an LSTM's or GRU's bias; one of the two that each has carries the values, the other is zero.

    None where the rule says nothing: chrono of sequences that are unknown or too short to have time scales, a forget
    gate of a cell that has none.
    """
    other = next((one for one in graph.layers if one.name == _partner(layer.name)), None)
    if other is not None and other.keep:
        return kept(layer, f"the cell's other bias, to which it is added, must stay: {other.keep}")
    owner = graph.get(layer.of or "")
    carries = owner is not None and owner.role == "recurrent_input"
    if recipe.recurrent == "chrono":
        steps = graph.sequence_length or 0
        if steps < SHORTEST:
            return None
        if not carries:
            return constant(layer, (0.0,), "the cell's other bias carries the gates'")
        why = f"gates' biases from log U(1, {steps - 1}): memories of up to {steps} steps (Tallec & Ollivier 2018)"
        return make(layer, "chrono", why, values=(float(steps),))
    if layer.cell != "lstm":
        return None
    forget = 1.0 if carries else 0.0  # the second slice of i, f, g, o
    return constant(layer, (0.0, forget, 0.0, 0.0), f"forget gate {forget:g} (Jozefowicz et al. 2015), others 0")


def _partner(name: str) -> str:
    """Returns the name of a cell's other bias."""
    return name.replace("bias_hh", "bias_ih") if "bias_hh" in name else name.replace("bias_ih", "bias_hh")


def _head_bias(layer: Layer, recipe: Recipe, graph: Graph) -> Fill:
    if recipe.head_bias == "zero":
        return constant(layer, (0.0,), "the output bias starts at zero")
    if len(graph.label_prior) != layer.size:
        return kept(layer, f"no label prior of {layer.size} classes is known")
    if graph.independent_labels:
        bounded = [min(max(p, SMALLEST_FREQUENCY), 1 - SMALLEST_FREQUENCY) for p in graph.label_prior]
        odds = tuple(math.log(p / (1 - p)) for p in bounded)
        return constant(layer, odds, "log odds of each label, log(p/(1 − p)), so that training starts at their entropy")
    logs = [math.log(max(p, SMALLEST_FREQUENCY)) for p in graph.label_prior]
    return constant(layer, tuple(logs), "log frequencies of the labels, so that training starts at their entropy")
