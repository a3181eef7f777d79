"""What a task and a recipe on it are, in numbers: what the recommender learns from. One table names them all.

A weight's *relative gain* is log2 of the standard deviation of its entries over gain(φ)/√fan_in, the one that keeps the
second moment: 0 for He et al.'s rule on any activation, −1 for half of it. In these numbers a recipe that was never
tried on an architecture stands beside those that were.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, pstdev
from typing import TypeVar

import numpy as np

from ..activations import Activation
from ..graph import Graph, Layer
from ..plans.fill import Fill
from ..plans.plan import Plan
from ..recipes.formulas import gain, kernel_size, rows_and_columns
from .passage import Strength, passage

T = TypeVar("T")

Features = dict[str, float]
"""By the names of `FEATURES`; what is unknown is left out."""

LIMIT = 10.0
"""Relative gains end at ± this: weights at zero have −10."""
SMALLEST_NORM = 1e-12
"""Of a gradient; smaller ones count as this."""

FEATURES: dict[str, str] = {
    # the architecture
    "net_parameters": "log10 of the number of parameters",
    "net_depth": "log2 of 1 + the weights on the longest path",
    "net_weights": "log2 of the number of free matrices",
    "net_fan_in": "mean log2 of their fan_in",
    "net_fan_in_spread": "standard deviation of that",
    "net_widening": "mean log2 of fan_out over fan_in",
    "net_kernel": "mean log2 of the taps of a kernel",
    "net_grouped": "share of grouped convolutions among the matrices",
    "net_adds": "log2 of 1 + the residual adds on the longest path",
    "net_branches": "share of matrices inside residual branches",
    "net_branch_length": "mean number of matrices in series on a branch",
    "net_post_norm": "share of closing matrices whose add a normalization follows",
    "net_normalized": "share of matrices whose scale a normalization takes away",
    "net_norms": "normalizations for each matrix",
    "net_layer_scales": "multipliers of branches for each branch",
    "net_attention": "share of matrices that attend",
    "net_heads": "log2 of the most heads",
    "net_cross": "1 where attention crosses two streams",
    "net_gates": "share of gates and routers",
    "net_embedded": "1 where tokens are embedded",
    "net_tied": "1 where weights are shared under two names",
    "net_recurrent": "share of recurrent matrices",
    "net_gated_cells": "share of those in cells with gates (LSTM, GRU)",
    "net_steps": "log2 of the time steps that recurrence runs over",
    "net_biased": "biases for each matrix",
    "net_kept": "share of the parameters' entries that must stay",
    "net_gain": "mean gain of the activations: 1 linear, √2 ReLU, 1.593 tanh",
    "net_critical": "mean critical gain of the activations",
    "net_bare_depth": "log2 of 1 + the weights on the longest path outside branches and normalization",
    "net_branch_share": "share of the matrices' parameters that lies inside residual branches",
    "net_per_row": "log2 of the parameters for each row of data to train on",
    "net_kinked": "share of activations with a kink at 0, as ReLU has",
    "net_saturating": "share of activations that are flat far out on both sides",
    "net_odd": "share of activations with φ(−x) = −φ(x)",
    "net_periodic": "share of sines and spikes",
    "net_linear": "share of matrices that no activation follows",
    "net_outputs": "log2 of the rows of the output weight",
    # the owner's own draw
    "own_gain": "mean relative gain of the owner's weights",
    "own_gain_spread": "standard deviation of it",
    "own_growth": "sum of the relative gains along the depth, outside branches and normalization",
    "own_head": "relative gain of the owner's output weight",
    "own_branch": "mean relative gain of what closes residual branches",
    "own_embedding": "log2 of the owner's embeddings' standard deviation",
    "own_signal": "log2 of the size of what the output weight reads, by theory, of the owner's weights",
    "own_output": "log2 of the output's standard deviation, by theory, of the owner's weights",
    "own_apart": "log2 of 1 − the correlation, at the output, of two inputs that had none, of the owner's weights",
    "own_backward": "log2 of how a gradient grows from the output back to the first weight, of the owner's weights",
    "own_backward_range": "log2 of the largest over the smallest gradient on its way back, of the owner's weights",
    "own_stream": "log2 of how the residual stream grows from its first add to its end, of the owner's weights",
    "own_branch_first": "log2 of the size of what the first branch adds over its stream's, of the owner's weights",
    "own_branch_last": "log2 of the size of what the last branch adds over its stream's, of the owner's weights",
    "own_bend": "share of the units' variance that is no linear function of their inputs, of the owner's weights",
    # the data
    "data_size": "log2 of the numbers in one input row",
    "data_rank": "participation ratio of the inputs' covariance, over its largest possible value",
    "data_mean": "mean of the inputs over their standard deviation",
    "data_scale": "log2 of the inputs' root mean square",
    "data_tokens": "1 where the inputs are whole numbers to be embedded",
    "data_classes": "log2 of the number of classes; 0 where there are none",
    "data_entropy": "entropy of the labels over its largest possible value",
    "data_reference": "log of the loss of the best constant prediction",
    "data_batch": "log2 of the rows of a batch",
    "data_batches": "log2 of the batches that there are to train on",
    # the training
    "train_adaptive": "1 where steps are scaled by second moments, as Adam does",
    "train_momentum": "momentum, or the first β",
    "train_lr": "log10 of the learning rate",
    "train_decay": "log10 of the weight decay, −8 for none",
    # one pass of the owner's weights
    "pass_loss": "log of the first loss over the best constant prediction's",
    "pass_gradient": "log10 of the gradient's norm",
    "pass_range": "log10 of the largest over the smallest gradient norm of a weight",
    "pass_agreement": "cosine between the gradients of two halves of a batch",
    "pass_dead": "mean share of units that are flat on the whole batch",
    "pass_saturated": "mean share of values on the flat part of a bounded activation",
    "pass_output": "log2 of the outputs' standard deviation",
    "pass_growth": "log2 of the standard deviation behind the last weight before the output over the first's",
    "pass_curvature": "curvature of the loss along the gradient, as asinh",
    # the recipe on this architecture
    "init_as_is": "1 where every weight stays as its owner drew it",
    "init_kept": "share of the matrices that stay or are only rescaled",
    "init_gain": "mean relative gain",
    "init_gain_least": "smallest relative gain",
    "init_gain_most": "largest relative gain",
    "init_growth": "sum of the relative gains along the depth, outside branches and normalization",
    "init_critical": "mean relative gain less that of the critical gain, where no normalization follows",
    "init_critical_growth": "sum of that along the depth, outside branches",
    "init_slope": "relative gain of the deepest matrices less that of the shallowest",
    "init_normalized": "mean relative gain of matrices whose scale a normalization takes away",
    "init_first": "relative gain of what meets the data",
    "init_head": "relative gain of the output weight",
    "init_interior": "mean relative gain inside residual branches, without what closes them",
    "init_branch": "mean relative gain of what closes residual branches",
    "init_branch_sum": "that, plus half of log2 of the residual adds: what all branches add up to",
    "init_zero_branch": "share of branches that start at zero",
    "init_query_key": "mean relative gain of queries and keys",
    "init_value_out": "mean relative gain of values and what follows attention",
    "init_recurrent": "mean relative gain of recurrent matrices",
    "init_embedding": "log2 of the embeddings' standard deviation",
    "init_change": "mean of the relative gain less the owner's",
    "init_change_size": "mean size of that difference",
    "init_change_head": "that difference at the output weight",
    "init_orthogonal": "share of matrices with orthogonal rows or columns",
    "init_sparse": "share of matrices that are mostly zeros: identity, delta, sparse, Hadamard",
    "init_mirrored": "share of mirrored (looks-linear) matrices",
    "init_uniform": "share of uniform draws",
    "init_mimetic": "share of mimetic attention weights",
    "init_bias": "share of biases that are not zero",
    "init_label_prior": "1 where the output bias is the labels' log frequencies",
    "init_chrono": "1 where recurrent gates are set for the sequence's length, or to remember",
    "init_calibrated": "1 where a calibration measures the scale on batches",
    "init_centred": "1 where it sets biases too",
    "init_within": "1 where it evens out the gradients within layers",
    "init_signal": "log2 of the size of what the output weight reads, by theory",
    "init_output": "log2 of the output's standard deviation, by theory",
    "init_apart": "log2 of 1 − the correlation, at the output, of two inputs that had none",
    "init_backward": "log2 of how a gradient grows from the output back to the first weight",
    "init_backward_range": "log2 of the largest over the smallest gradient on its way back",
    "init_stream": "log2 of how the residual stream grows from its first add to its end",
    "init_branch_first": "log2 of the size of what the first branch adds over its stream's",
    "init_branch_last": "log2 of the size of what the last branch adds over its stream's",
    "init_bend": "share of the units' variance that is no linear function of their inputs",
    "init_lr": "mean log2 of the learning rate's factor (μP)",
    # before the first step, where the recipe's weights were drawn
    "zero_loss": "log of the first loss over the best constant prediction's",
    "zero_gradient": "log10 of the gradient's norm",
    "zero_range": "log10 of the largest over the smallest gradient norm of a weight",
}
"""Every feature and what it says."""


def architecture_features(graph: Graph) -> Features:
    """Returns what an architecture is, in numbers.

    Args:
        graph: from the autograd graph or from the module tree.
    """
    weights = graph.weights
    count = max(1, len(weights))
    closers = [layer for layer in weights if layer.closes_branch]
    recurrent = [layer for layer in weights if layer.kind == "recurrent"]
    kinds = Counter(layer.kind for layer in graph.layers)
    found: Features = {
        "net_parameters": math.log10(max(1, sum(layer.size for layer in graph.layers))),
        "net_depth": math.log2(1 + graph.weight_depths[1] - graph.weight_depths[0]),
        "net_weights": math.log2(count),
        "net_fan_in": _mean(math.log2(max(1, layer.fan_in)) for layer in weights),
        "net_fan_in_spread": _spread([math.log2(max(1, layer.fan_in)) for layer in weights]),
        "net_widening": _mean(math.log2(max(1, layer.fan_out) / max(1, layer.fan_in)) for layer in weights),
        "net_kernel": _mean(math.log2(kernel_size(layer)) for layer in weights),
        "net_grouped": _share(weights, lambda layer: layer.groups > 1),
        "net_adds": math.log2(1 + graph.residual_adds),
        "net_branches": _share(weights, lambda layer: layer.in_branch),
        "net_branch_length": _mean((layer.branch_weights for layer in closers), 0.0),
        "net_post_norm": _share(closers, lambda layer: layer.post_norm),
        "net_normalized": _share(weights, lambda layer: layer.normalized),
        "net_norms": sum(layer.role == "norm_scale" for layer in graph.layers) / count,
        "net_layer_scales": sum(layer.role == "layer_scale" for layer in graph.layers) / max(1, len(closers)),
        "net_attention": _share(weights, lambda layer: bool(layer.attention)),
        "net_heads": math.log2(max(1, max((layer.heads for layer in weights), default=1))),
        "net_cross": float(any(layer.cross for layer in weights)),
        "net_gates": _share(weights, lambda layer: layer.role in ("gate", "router")),
        "net_embedded": float(kinds["embedding"] > 0),
        "net_tied": float(any(layer.tied_to for layer in graph.layers)),
        "net_recurrent": len(recurrent) / count,
        "net_gated_cells": _share(recurrent, lambda layer: layer.cell in ("lstm", "gru")),
        "net_biased": sum(layer.role == "bias" for layer in graph.layers) / count,
        "net_kept": _kept_share(graph),
        "net_outputs": math.log2(max(1, _outputs(graph))),
        "net_bare_depth": math.log2(1 + len({one.depth for one in weights if not (one.in_branch or one.normalized)})),
        "net_branch_share": sum(one.size for one in weights if one.in_branch)
        / max(1, sum(one.size for one in weights)),
        **_activation_features(weights),
    }
    if graph.sequence_length is not None:
        found["net_steps"] = math.log2(max(1, graph.sequence_length))
    return found


def own_features(graph: Graph, own: Mapping[str, float]) -> Features:
    """Returns what the owner's draw is, in numbers.

    Args:
        graph: the architecture.
        own: root mean square of each weight's entries, by the parameter's name; of those that are known.
    """
    gains = {layer.name: relative_gain(layer, own[layer.name]) for layer in graph.weights if layer.name in own}
    if not gains:
        return {}
    placed = [(layer, gains[layer.name]) for layer in graph.weights if layer.name in gains]
    found: Features = {
        "own_gain": fmean(gains.values()),
        "own_gain_spread": _spread(list(gains.values())),
        "own_growth": _growth(placed),
        **_means(placed, {"own_head": _is_head, "own_branch": lambda layer: layer.closes_branch}),
    }
    embedded = [layer for layer in graph.layers if layer.kind == "embedding" and layer.name in own]
    if embedded:
        found["own_embedding"] = _mean(_log2(own[layer.name]) for layer in embedded)
    strengths = {one.name: _strength(one, own[one.name]) for one in graph.layers if one.name in own}
    return found | _passage_features("own", graph, strengths)


def recipe_features(plan: Plan, graph: Graph, own: Mapping[str, float]) -> Features:
    """Returns what a recipe is on an architecture, in numbers.

    A calibration's factors are not known before it is measured: of one that brings outputs to unit variance the gains
    are those that it aims at, of any other those that it starts from.

    Args:
        plan: the recipe resolved for the graph.
        graph: the architecture.
        own: root mean square of each weight's entries as its owner drew it, by name; of those that are known. A
            weight that keeps its draw has no gain without it.
    """
    weights = graph.weights
    placed = [(layer, value) for layer in weights if (value := _plan_gain(plan, layer, own)) is not None]
    fills = [plan[layer.name] for layer in weights]
    found: Features = {
        "init_as_is": float(all(fill.untouched for fill in plan.fills) and plan.recipe.calibration == "none"),
        "init_kept": _share(fills, lambda fill: fill.distribution == "keep"),
        "init_zero_branch": _share([layer for layer in weights if layer.closes_branch], _set_to_zero(plan)),
        **_structure_features(plan, graph, fills),
    }
    if placed:
        found |= _gain_features(placed, graph)
    if embedded := [layer for layer in graph.layers if layer.kind == "embedding"]:
        stds = [std for layer in embedded if (std := _plan_std(plan[layer.name], own)) is not None]
        found |= {"init_embedding": _mean(map(_log2, stds))} if stds else {}
    changes = {layer: gain - relative_gain(layer, own[layer.name]) for layer, gain in placed if layer.name in own}
    if changes:
        found["init_change"] = fmean(changes.values())
        found["init_change_size"] = fmean(map(abs, changes.values()))
        found |= _means(list(changes.items()), {"init_change_head": _is_head})
    return found | _passage_features("init", graph, _plan_strengths(plan, graph, own))


def ratio_features(found: Mapping[str, float]) -> Features:
    """Returns what follows from features of the architecture and of the data together."""
    if not {"net_parameters", "data_batch", "data_batches"} <= found.keys():
        return {}
    rows = found["data_batch"] + found["data_batches"]
    return {"net_per_row": found["net_parameters"] * math.log2(10) - rows}


def first_pass_features(
    loss: float | None, gradient_norm: float | None, gradient_range: float | None, log_reference: float | None
) -> Features:
    """Returns what one forward and backward pass through a recipe's weights tells; of what is known and finite.

    Args:
        loss: of the first batch.
        gradient_norm: of all weights together.
        gradient_range: log10 of the largest over the smallest gradient norm of a weight.
        log_reference: log of the best constant prediction's loss.
    """
    found: Features = {}
    if loss is not None and log_reference is not None and math.isfinite(loss) and loss > 0:
        found["zero_loss"] = math.log(loss) - log_reference
    if gradient_norm is not None and math.isfinite(gradient_norm):
        found["zero_gradient"] = math.log10(max(gradient_norm, SMALLEST_NORM))
    if gradient_range is not None and math.isfinite(gradient_range):
        found["zero_range"] = gradient_range
    return found


def relative_gain(layer: Layer, std: float) -> float:
    """Returns log2 of a weight's standard deviation over the one that keeps the second moment, within ± `LIMIT`."""
    wanted = gain(layer) / math.sqrt(max(1, layer.fan_in))
    return min(LIMIT, max(-LIMIT, math.log2(std / wanted))) if std > 0 else -LIMIT


# Parts


def _activation_features(weights: Sequence[Layer]) -> Features:
    shapes = [layer.activation for layer in weights if layer.kind != "recurrent"]
    if not shapes:
        return {}
    return {
        "net_gain": fmean(shape.gain() for shape in shapes),
        "net_critical": fmean(shape.critical_gain() for shape in shapes),
        "net_kinked": _share(shapes, _is_kinked),
        "net_saturating": _share(shapes, _is_saturating),
        "net_odd": _share(shapes, _is_odd),
        "net_periodic": _share(shapes, lambda shape: shape.name in ("sin", "spike")),
        "net_linear": _share(shapes, lambda shape: shape.name == "linear"),
    }


def _gain_features(placed: Sequence[tuple[Layer, float]], graph: Graph) -> Features:
    """Returns what the relative gains of a plan's weights come to."""
    values = [value for _, value in placed]
    first, last = graph.weight_depths
    critical = [(layer, value - _critical_gain(layer)) for layer, value in placed]
    deep = [value for layer, value in placed if layer.depth >= first + 0.75 * (last - first)]
    shallow = [value for layer, value in placed if layer.depth <= first + 0.25 * (last - first)]
    found: Features = {
        "init_gain": fmean(values),
        "init_gain_least": min(values),
        "init_gain_most": max(values),
        "init_growth": _growth(placed),
        "init_critical_growth": _growth(critical),
        "init_slope": _mean(deep) - _mean(shallow),
        **_means(placed, _PARTS),
    }
    if free := [value for layer, value in critical if not layer.normalized]:
        found["init_critical"] = fmean(free)
    if "init_branch" in found:
        found["init_branch_sum"] = found["init_branch"] + 0.5 * math.log2(max(1, graph.residual_adds))
    return found


def _structure_features(plan: Plan, graph: Graph, fills: Sequence[Fill]) -> Features:
    """Returns what is drawn, whatever its scale."""
    recipe = plan.recipe
    biases = [plan[layer.name] for layer in graph.layers if layer.role == "bias" and not layer.keep]
    factors = [fill.lr_adam for fill in fills]
    return {
        "init_orthogonal": _share(fills, lambda fill: fill.distribution in _ORTHOGONAL),
        "init_sparse": _share(fills, lambda fill: fill.distribution in _SPARSE),
        "init_mirrored": _share(fills, lambda fill: fill.distribution.startswith("mirrored")),
        "init_uniform": _share(fills, lambda fill: fill.distribution == "uniform"),
        "init_mimetic": _share(fills, lambda fill: fill.distribution.startswith("mimetic")),
        "init_bias": _share(biases, lambda fill: fill.distribution != "constant" or any(fill.values)),
        "init_label_prior": float(recipe.head_bias == "label_prior"),
        "init_chrono": float(recipe.recurrent in ("chrono", "orthogonal_forget")),
        "init_calibrated": float(recipe.calibration != "none"),
        "init_centred": float(recipe.calibration == "lsuv_centred"),
        "init_within": float(recipe.calibration == "within_layer"),
        "init_lr": _mean(math.log2(factor) for factor in factors if factor > 0),
    }


def _plan_gain(plan: Plan, layer: Layer, own: Mapping[str, float]) -> float | None:
    """Returns a weight's relative gain under a plan; None where it is the owner's, and unknown."""
    fill = plan[layer.name]
    if plan.recipe.calibration in _TO_UNIT_VARIANCE and layer.kind != "recurrent" and fill.distribution != "constant":
        return min(LIMIT, max(-LIMIT, _log2(abs(fill.scale))))
    std = _plan_std(plan[layer.name], own)
    return None if std is None else relative_gain(layer, std)


def _plan_std(fill: Fill, own: Mapping[str, float]) -> float | None:
    """Returns the standard deviation of a weight's entries under a plan; None where it is the owner's, and unknown."""
    std = own.get(fill.name) if fill.distribution == "keep" else fill.std
    slices = math.sqrt(_mean((factor**2 for factor in fill.slice_factors), 1.0))
    return None if std is None else abs(std * fill.factor) * slices


def _plan_strengths(plan: Plan, graph: Graph, own: Mapping[str, float]) -> dict[str, Strength]:
    """Returns what each weight does to a signal under a plan; those that are the owner's, and unknown, are left out."""
    found = {}
    for layer in graph.layers:
        if not (layer.is_matrix or layer.kind == "embedding"):
            continue
        fill = plan[layer.name]
        aims = plan.recipe.calibration in _TO_UNIT_VARIANCE and layer.is_matrix and fill.distribution != "constant"
        if (std := _plan_std(fill, own)) is not None:
            found[layer.name] = _strength(layer, std, abs(fill.scale) if aims else None)
    return found


def _strength(layer: Layer, std: float, aimed: float | None = None) -> Strength:
    return Strength(std * abs(layer.multiplier) * math.sqrt(max(1, layer.fan_in)), aimed)


def _passage_features(part: str, graph: Graph, strengths: Mapping[str, Strength]) -> Features:
    """Returns what mean-field theory says of weights of these strengths; of what there is."""
    found = passage(graph, strengths)
    named = {} if found is None else dataclasses.asdict(found)
    return {f"{part}_{name}": value for name, value in named.items() if value is not None}


def _set_to_zero(plan: Plan) -> Callable[[Layer], bool]:
    return lambda layer: plan[layer.name].distribution == "constant" and not any(plan[layer.name].values)


def _growth(placed: Sequence[tuple[Layer, float]]) -> float:
    """Returns log2 of how a signal's scale changes from the input to the output of what lies on the main path."""
    by_depth: dict[int, list[float]] = {}
    for layer, value in placed:
        if not layer.in_branch and not layer.normalized:
            by_depth.setdefault(layer.depth, []).append(value)
    return sum(map(fmean, by_depth.values()))


def _critical_gain(layer: Layer) -> float:
    """Returns the relative gain at which gradients neither vanish nor explode with depth."""
    return 0.0 if layer.kind == "recurrent" else math.log2(layer.activation.critical_gain() / layer.activation.gain())


def _is_head(layer: Layer) -> bool:
    return layer.role == "output"


_PARTS: dict[str, Callable[[Layer], bool]] = {
    "init_normalized": lambda layer: layer.normalized,
    "init_first": lambda layer: layer.role == "input",
    "init_head": _is_head,
    "init_interior": lambda layer: layer.in_branch and not layer.closes_branch,
    "init_branch": lambda layer: layer.closes_branch,
    "init_query_key": lambda layer: layer.role in ("query", "key", "qkv"),
    "init_value_out": lambda layer: layer.role in ("value", "attention_out"),
    "init_recurrent": lambda layer: layer.role == "recurrent",
}
"""Which weights a feature is the mean relative gain of."""

_TO_UNIT_VARIANCE = frozenset({"lsuv", "lsuv_centred"})
_ORTHOGONAL = frozenset({"orthogonal", "butterfly_orthogonal", "delta_orthogonal", "hadamard", "identity"})
_SPARSE = frozenset({"sparse", "identity", "delta_orthogonal", "hadamard"})


_NEAR, _FAR, _PAIRS = np.array([-0.02, 0.02]), np.array([-8.0, 8.0]), np.array([-1.3, -0.4, 0.4, 1.3])


def _is_kinked(activation: Activation) -> bool:
    left, right = activation.slope(_NEAR)
    return bool(abs(right - left) > 0.5)


def _is_saturating(activation: Activation) -> bool:
    return bool(np.max(np.abs(activation.slope(_FAR))) < 0.02)


def _is_odd(activation: Activation) -> bool:
    values = activation(_PAIRS)
    return activation.name != "linear" and bool(np.allclose(values, -values[::-1], atol=1e-3))


def _outputs(graph: Graph) -> int:
    return max((rows_and_columns(layer)[0] for layer in graph.weights if layer.role == "output"), default=1)


def _kept_share(graph: Graph) -> float:
    whole = sum(layer.size for layer in graph.layers)
    return sum(layer.size for layer in graph.layers if layer.keep) / max(1, whole)


# Arithmetic


def _log2(value: float) -> float:
    return math.log2(value) if value > 0 else -LIMIT


def _mean(values: Iterable[float], default: float = 0.0) -> float:
    found = list(values)
    return fmean(found) if found else default


def _spread(values: Sequence[float]) -> float:
    return pstdev(values) if values else 0.0


def _share(items: Sequence[T], holds: Callable[[T], bool]) -> float:
    return sum(map(holds, items)) / len(items) if items else 0.0


def _means(placed: Sequence[tuple[Layer, float]], parts: Mapping[str, Callable[[Layer], bool]]) -> Features:
    """Returns the mean of each part's values; parts without any are left out."""
    chosen = {name: [value for layer, value in placed if holds(layer)] for name, holds in parts.items()}
    return {name: fmean(values) for name, values in chosen.items() if values}
