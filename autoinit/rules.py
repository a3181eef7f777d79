"""The rules: a recipe and a graph → what each parameter gets. Pure arithmetic; `resolve` is the way in."""

from __future__ import annotations

import math
from typing import Any

from . import text
from .graph import Graph, Layer
from .plan import Fill, Plan
from .recipe import Recipe, as_recipe
from .schemes import Distribution, rows_and_columns, scheme

SMALLEST_FREQUENCY = 1e-4
"""A class rarer than this gets this frequency in a label prior, so that its log stays finite."""


def resolve(recipe: Recipe | str, graph: Graph, seed: int = 0) -> Plan:
    """Returns what each parameter of the graph gets under a recipe.

    Args:
        recipe: the portable choice, or its name.
        graph: the architecture.
        seed: of the draws to come; arithmetic here does not depend on it.
    """
    recipe = as_recipe(recipe)
    return Plan(recipe, seed, tuple(_fill(layer, recipe, graph) for layer in graph.layers), notes=graph.notes)


def _fill(layer: Layer, recipe: Recipe, graph: Graph) -> Fill:
    if layer.keep:
        return _kept(layer, layer.keep)
    if layer.role == "bias":
        return _bias(layer, recipe, graph)
    if layer.role == "embedding":
        return _embedding(layer, recipe)
    if layer.is_matrix:
        return _matrix(layer, recipe, graph)
    return _kept(layer, f"a {layer.role.replace('_', ' ')} keeps its owner's value")


def _make(layer: Layer, distribution: Distribution, reason: str, **rest: Any) -> Fill:
    return Fill(
        name=layer.name,
        shape=layer.shape,
        role=layer.role,
        distribution=distribution,
        out_axes=layer.out_axes,
        in_axes=layer.in_axes,
        groups=layer.groups,
        slices=layer.slices,
        reason=reason,
        **rest,
    )


def _kept(layer: Layer, reason: str) -> Fill:
    return _make(layer, "keep", reason)


def _constant(layer: Layer, values: tuple[float, ...], reason: str) -> Fill:
    return _make(layer, "constant", reason, std=0.0, values=values)


def _bias(layer: Layer, recipe: Recipe, graph: Graph) -> Fill:
    owner = graph.get(layer.of or "")
    if owner is not None and owner.role == "output" and recipe.head_bias != "as_is":
        return _head_bias(layer, recipe, graph)
    if owner is not None and owner.keep:
        return _kept(layer, f"its weight is kept: {owner.keep}")
    if owner is not None and owner.role == "gate":
        return _kept(layer, "a gate's bias decides what passes at the start; it is its owner's choice")
    if layer.cell == "lstm" and recipe.recurrent == "orthogonal_forget":
        # An LSTM adds two biases; one of them carries the forget gate's 1, the second slice of i, f, g, o.
        forget = 1.0 if owner is not None and owner.role == "recurrent_input" else 0.0
        return _constant(layer, (0.0, forget, 0.0, 0.0), f"forget gate {forget:g} (Jozefowicz et al. 2015), others 0")
    if recipe.bias == "zero" or recipe.base != "as_is":
        return _constant(layer, (0.0,), "biases start at zero")
    return _kept(layer, "as its owner drew it")


def _head_bias(layer: Layer, recipe: Recipe, graph: Graph) -> Fill:
    if recipe.head_bias == "zero":
        return _constant(layer, (0.0,), "the output bias starts at zero")
    if len(graph.label_prior) != layer.size:
        return _kept(layer, f"no label prior of {layer.size} classes is known")
    logs = [math.log(max(p, SMALLEST_FREQUENCY)) for p in graph.label_prior]
    return _constant(layer, tuple(logs), "log frequencies of the labels, so that training starts at their entropy")


def _embedding(layer: Layer, recipe: Recipe) -> Fill:
    width = layer.shape[-1] if layer.shape else 1
    if recipe.embedding == "small":
        return _make(layer, "normal", "small embeddings: std = 0.02", std=0.02)
    if recipe.embedding == "inverse_sqrt":
        std = 1 / math.sqrt(width)
        return _make(layer, "normal", f"embeddings of unit length: std = 1/√{width} = {text.number(std)}", std=std)
    base = scheme(recipe.base)
    if base.embeddings:
        std = base.std(layer)
        return _make(layer, base.distribution, f"{base.title}: std = {text.number(std)}", std=std)
    return _kept(layer, "an embedding's scale does not follow from fans")


def _matrix(layer: Layer, recipe: Recipe, graph: Graph) -> Fill:
    if layer.parametrized in ("orthogonal", "spectral_norm"):
        return _kept(layer, f"its {layer.parametrized} parametrization fixes its scale")
    if layer.role == "output" and recipe.head == "zero":
        return _constant(layer, (0.0,), "the head starts at zero, so that every output is equal")
    if layer.closes_branch and recipe.residual_out == "zero":
        return _constant(layer, (0.0,), "the residual branch starts at zero (its block is the identity)")
    if layer.role == "recurrent" and recipe.recurrent != "same":
        return _recurrent(layer, recipe)
    base = scheme(dict(recipe.rules).get(layer.role, recipe.base))
    factors = _factors(layer, recipe, graph)
    scale = math.prod(factors.values())
    slices = _qk_slices(layer, recipe)
    tail = "".join(f"; × {text.number(value)} ({why})" for why, value in factors.items())
    if slices:
        tail += f"; query and key slices × {text.number(slices[0])}"
    if base.distribution == "keep":
        return _make(layer, "keep", f"as its owner drew it{tail}", factor=scale, scale=scale, slice_factors=slices)
    std = base.std(layer)
    phi = f" for {layer.activation}" if base.worked(layer) and layer.activation.name != "linear" else ""
    worked = " = ".join(dict.fromkeys([base.worked(layer), text.number(std)]))
    reason = f"{base.title}{phi}: std = {worked}{tail}"
    return _make(layer, base.distribution, reason, std=std * scale, scale=scale, slice_factors=slices)


def _recurrent(layer: Layer, recipe: Recipe) -> Fill:
    size = max(rows_and_columns(layer))
    if recipe.recurrent == "identity":
        reason = "recurrent identity (Le et al. 2015, arXiv:1504.00941)"
        return _make(layer, "identity", reason, std=1 / math.sqrt(size))
    reason = "recurrent orthogonal: the state keeps its norm (Saxe et al. 2014)"
    return _make(layer, "orthogonal", reason, std=1 / math.sqrt(size))


def _factors(layer: Layer, recipe: Recipe, graph: Graph) -> dict[str, float]:
    """Returns the recipe's factors on one matrix by what they are called in a reason; those of 1 left out."""
    found: dict[str, float] = {}
    if not layer.normalized:
        found["gain"] = 2.0**recipe.log2_gain
        found["depth"] = 2.0 ** (recipe.depth_slope * (_position(layer, graph) - 0.5))
    adds = max(1, graph.residual_adds)
    if layer.in_branch and not layer.closes_branch:
        found["residual depth"] = adds**-recipe.branch_power
    if layer.closes_branch and recipe.residual_out == "scaled":
        found[f"1/√{adds} residual adds"] = adds**-0.5
    if layer.role == "output" and recipe.head == "eighth":
        found["small head"] = 1 / 8
    if layer.role in ("query", "key"):
        found["query and key"] = 2.0**recipe.qk_log2
    return {why: value for why, value in found.items() if value != 1.0}


def _position(layer: Layer, graph: Graph) -> float:
    """Returns the layer's depth from 0 (first matrix) to 1 (last)."""
    depths = graph.weight_depths
    return (layer.depth - depths[0]) / max(1, depths[1] - depths[0])


def _qk_slices(layer: Layer, recipe: Recipe) -> tuple[float, ...]:
    if layer.role != "qkv" or layer.slices != 3 or recipe.qk_log2 == 0:
        return ()
    factor = 2.0**recipe.qk_log2
    return (factor, factor, 1.0)
