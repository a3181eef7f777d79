"""The rules: a recipe and a graph → what each parameter gets. Pure arithmetic; `resolve` is the way in."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from .. import text
from ..errors import ArgumentError
from ..graph import TABLES, WITHOUT_VALUES, Graph, Layer
from ..recipes.catalogue import as_recipe, check_fits, entry_of
from ..recipes.formulas import LayerDraw, fan, mimetic, rows_and_columns
from ..recipes.growths import GROWTH_ROWS
from ..recipes.recipe import Recipe
from ..recipes.schemes import Scheme, scheme
from ..seeds import check_seed
from ..version import __version__
from .adapters import adapter, remainder
from .bias import bias
from .depth import depth_scale, is_zeroed, left_out, multiplies
from .fill import Fill, constant, copied, kept, make
from .inherited import closed_head, is_closed, new_rows, renewed, started
from .plan import Base, Plan
from .width import mup, mup_left_out

NORM_STD = 0.02
"""Standard deviation of drawn scales of normalizations."""

CONDITION_STD = 0.02
"""Standard deviation of weights that embed times and the like, where what they condition starts at zero."""


def resolve(recipe: Recipe | str, graph: Graph, *, seed: int = 0) -> Plan:
    """Returns what each parameter of the graph gets under a recipe.

    A recipe names roles and no parameters; the plan that comes of it names every parameter of one architecture, with
    its distribution, its standard deviation or value, its learning-rate factor, and the reason in words. This is
    arithmetic on shapes: no model is needed, no weight is drawn or changed, and it takes milliseconds.

    Draw the plan with `apply_(model, plan)`, or call `apply_(model, recipe, data)`, which traces, resolves and draws in
    one call.

    Args:
        recipe: This is the portable choice, a `Recipe` or its name ("he_normal"; `catalogue()` lists them).
        graph: This is the architecture, from `trace`.
        seed: This whole number decides the draws when the plan is applied; nothing in the arithmetic depends on it.

    Returns:
        A `Plan`, a mapping from the parameter's name to its `Fill`. Print it for the table; `save(path)` writes it as
        JSON.

    Raises:
        RecipeError: The name is unknown, or the recipe is for other architectures than this one; the message says what
            it needs and what to use.
        ArgumentError: The graph is none, or the seed is out of range.

    Example:
        A plan for a model whose weights have no memory yet:

        >>> import autoinit, torch
        >>> from torch import nn
        >>> with torch.device("meta"):
        ...     model = nn.Sequential(nn.Linear(784, 4096), nn.ReLU(), nn.Linear(4096, 10))
        >>> plan = autoinit.resolve("orthogonal", autoinit.trace(model, torch.empty(8, 784, device="meta")))
        >>> for name, fill in plan.items():
        ...     print(f"{name:8}  {fill.distribution:10}  {fill.reason}")
        0.weight  orthogonal  Orthogonal for relu: std = √2/√4096 = 0.0221
        0.bias    constant    biases start at zero
        2.weight  orthogonal  Orthogonal: std = 1/√4096 = 0.0156
        2.bias    constant    biases start at zero
    """
    if not isinstance(graph, Graph):
        raise ArgumentError(
            f"graph is a {type(graph).__name__}. Pass the Graph that autoinit.trace(model, data) returns; "
            "apply_(model, recipe, data) traces, resolves and draws in one call."
        )
    check_seed(seed)
    recipe = as_recipe(recipe)
    check_fits(recipe, graph)
    base: Base = "trained" if graph.trained else "own"
    graph = graph.stale() if recipe.renewal != "none" else graph
    drawn = ((_unmultiplied(_fill(layer, recipe, graph), layer), layer) for layer in graph.layers)
    fills = {layer.name: _rated(fill, layer, recipe, graph) for fill, layer in drawn}
    fills |= {layer.name: _copied(layer, fills[layer.copy_of], recipe) for layer in graph.layers if layer.copy_of}
    keeps = any(fill.distribution == "keep" for fill in fills.values())
    read = (note for note in graph.notes if keeps or note != WITHOUT_VALUES)
    notes = (*read, *_taken_for(graph), *_notes(recipe, graph))
    return Plan(recipe, seed, tuple(fills.values()), notes=notes, made_with=__version__, base=base)


def _taken_for(graph: Graph) -> Iterator[str]:
    """Yields what was taken for trained, and what for new, where a graph tells them apart."""
    if not graph.trained:
        return
    stays = [layer for layer in graph.layers if layer.keep]
    new = [layer for layer in graph.layers if not layer.keep]
    adapters = sum(bool(layer.adapter) for layer in new)
    which = f", {adapters} of them of adapters" if 0 < adapters < len(new) else ", all of adapters" * bool(adapters)
    yield (
        f"Taken for trained: {len(stays)} parameters ({text.count(sum(one.size for one in stays))} values); "
        f"for new: {len(new)} ({text.count(sum(one.size for one in new))} values{which})."
    )
    for layer in graph.layers:
        if layer.new_rows and layer.role != "bias":
            rows = layer.shape[0]
            yield f"Rows {layer.new_rows:,} to {rows - 1:,} of {layer.name} are new, the others are trained."


def _copied(layer: Layer, original: Fill, recipe: Recipe) -> Fill:
    if original.untouched and recipe.calibration == "none":
        return kept(layer, f"a copy of {layer.copy_of}, which stays")
    return copied(layer)


def _notes(recipe: Recipe, graph: Graph) -> Iterator[str]:
    """Yields what the recipe's paper asks for beyond initial weights."""
    entry = entry_of(recipe)
    multiplied = recipe.residual_out == "zero" and any(layer.role == "layer_scale" for layer in graph.layers)
    unattended = recipe.widths == "mup" and not any(layer.attention for layer in graph.layers)
    if missing := left_out(recipe.depth_rule, graph):
        yield missing
    elif (
        entry is not None
        and entry.about.left_out
        and (recipe.depth_rule, recipe.growth) == ("none", "none")  # a grown plan says what holds for it
        and not (multiplied or unattended)
    ):
        yield f"{entry.about.title}, left out here: {entry.about.left_out}."
    if _of_heads(recipe) and not any(layer.role == "output" or layer.tied_to for layer in graph.layers):
        yield (
            f"No head was told, so {_of_heads(recipe)} sets nothing. With data or an example the architecture is read "
            "from a pass, which tells heads."
        )
    closers = [layer for layer in graph.weights if layer.closes_branch]
    if recipe.residual_out == "zero" and (stuck := sum(layer.rectified for layer in closers)):
        yield f"{stuck} of {len(closers)} branches end in a ReLU, which passes no gradient at zero: they are drawn."
    if recipe.attention == "mimetic":
        yield from _unlike_mimetic(graph)
    if recipe.base == "looks_linear":
        yield from _not_linear(graph)
    if recipe.widths == "mup" and (tied := mup_left_out(graph)):
        yield tied


def _of_heads(recipe: Recipe) -> str:
    """Returns what a recipe says of heads alone, in words; empty where it says nothing."""
    if recipe.base == "rl":
        return "what rl gives a policy's head and a value's"
    return "" if recipe.head == "same" else f"head={recipe.head}"


def _unlike_mimetic(graph: Graph) -> Iterator[str]:
    groups = {layer.attention for layer in graph.weights if layer.attention}
    fitting = {layer.attention for layer in graph.weights if mimetic(layer, graph)}
    if rest := len(groups - fitting):
        yield (
            f"{rest} of {len(groups)} attentions are drawn as the base has it: they are cross-attention, share keys "
            "among heads, or have weights that must stay."
        )


def _not_linear(graph: Graph) -> Iterator[str]:
    """Yields what keeps mirrored units from adding up to a linear map."""
    inner = [layer for layer in graph.weights if layer.role != "output"]
    odd = sum(rows_and_columns(layer)[0] % 2 for layer in inner)
    grouped = sum(layer.groups > 1 for layer in inner)
    why = [f"{odd} layers of odd width"] * bool(odd) + [f"{grouped} grouped convolutions"] * bool(grouped)
    why += ["residual branches"] * bool(graph.residual_adds)
    if why:
        yield f"The network starts as no linear map, because of {', '.join(why)}; max pooling would do the same."


def _rated(fill: Fill, layer: Layer, recipe: Recipe, graph: Graph) -> Fill:
    """Returns the fill with its learning-rate factors: those of μP, and those that undo a folded multiplier.

    A weight that carries 1/α of its scale moves the output as the unfolded one would under a learning rate of 1/α² by
    SGD, 1/α by Adam.
    """
    if recipe.widths != "mup" and recipe.depth_rule == "none":
        return fill
    adam, sgd = 1.0, 1.0
    if recipe.widths == "mup":
        scale = mup(layer, graph.around(layer), recipe.base_width)
        adam, sgd = scale.lr_adam, scale.lr_sgd
    carrier = layer if layer.role != "bias" else graph.get(layer.of or "")
    fold = depth_scale(carrier, recipe.depth_rule, graph).fold
    return dataclasses.replace(fill, lr_adam=adam * fold, lr_sgd=sgd * fold**2)


def _fill(layer: Layer, recipe: Recipe, graph: Graph) -> Fill:
    if recipe.start != "none":
        return started(layer, recipe)
    if layer.lends and (taken := remainder(layer, recipe, graph)):
        return taken
    if layer.inherits and recipe.growth != "none":
        return make(layer, "given", f"from the source ({GROWTH_ROWS[recipe.growth].about.title})")
    if layer.new_rows and recipe.rows != "same":
        return new_rows(layer, recipe)
    if layer.keep:
        return kept(layer, layer.keep)
    if is_closed(layer, recipe, graph):
        return closed_head(layer, recipe)
    if recipe.renewal != "none":
        return renewed(_fill(layer, dataclasses.replace(recipe, renewal="none"), graph), layer, recipe)
    if not layer.size:
        return kept(layer, "it has no entries")
    if layer.adapter:
        return adapter(layer, recipe, graph)
    if layer.role == "layer_scale" and is_zeroed(layer, recipe, graph):
        return constant(layer, (0.0,), "the residual branch starts at zero by its multiplier (ReZero, SkipInit)")
    if recipe.depth_rule == "fixup" and multiplies(layer, graph):
        return constant(layer, (1.0,), "Fixup's multiplier starts at 1, beside a last weight of 0")
    if layer.role == "bias":
        return bias(layer, recipe, graph)
    if layer.role == "norm_scale" and recipe.norms == "around_one":
        return _norm_scale(layer)
    if layer.role in TABLES:
        return _table(layer, recipe, graph)
    if layer.is_matrix:
        return _matrix(layer, recipe, graph)
    return kept(layer, f"a {layer.role.replace('_', ' ')} keeps its owner's value")


def _modulation(layer: Layer) -> Fill | None:
    """Returns what a weight gets whose outputs modulate streams, or that makes the condition for it; None for others.

    Peebles & Xie 2023, arXiv:2212.09748, in their code.
    """
    if layer.modulates:
        return constant(layer, (0.0,), "streams pass unchanged and gated branches start closed (adaLN-Zero)")
    if layer.conditions:
        reason = f"it makes the condition that modulates streams: std = {CONDITION_STD:g}"
        return make(layer, "normal", reason, std=CONDITION_STD)
    return None


def _norm_scale(layer: Layer) -> Fill:
    """Returns the scale of a normalization around 1 (Radford et al. 2015, in their code), however it is stored."""
    stored = f", stored less the {text.number(layer.offset)} that is added to it" if layer.offset else ""
    reason = f"scales of normalizations: N(1, {NORM_STD:g}²){stored} (DCGAN)"
    return make(layer, "normal", reason, std=NORM_STD, mean=1.0 - layer.offset)


def _unmultiplied(fill: Fill, layer: Layer) -> Fill:
    """Returns the fill of what a constant multiplies at use: with that, it has the scale that the rules ask for."""
    size = layer.multiplier
    sized = fill.std is None or fill.std or any(fill.values)
    if size == 1.0 or layer.adapter or fill.distribution in ("keep", "chrono", "given", "remainder") or not sized:
        return fill
    reason = f"{fill.reason}; ÷ {text.number(size)} (the constant that multiplies it)"
    if fill.distribution == "constant":
        values = tuple(value / size for value in fill.values)
        return dataclasses.replace(fill, values=values, reason=reason)
    if fill.std is None:
        return dataclasses.replace(fill, factor=fill.factor / size, reason=reason)
    return dataclasses.replace(fill, std=fill.std / size, mean=fill.mean / size, reason=reason)


def _table(layer: Layer, recipe: Recipe, graph: Graph) -> Fill:
    """Returns what an embedding gets, or a table of positions, which is added to one and must not drown it."""
    depth = depth_scale(layer, recipe.depth_rule, graph)
    tail = f"; × {text.number(depth.factor)} ({depth.why})" if depth.factor != 1 else ""
    if recipe.embedding == "small":
        return make(layer, "normal", f"small embeddings: std = 0.02{tail}", std=0.02 * depth.factor)
    if recipe.embedding == "inverse_sqrt":
        width = _table_width(layer, graph)
        std = 1 / math.sqrt(width)
        reason = f"embeddings of unit length: std = 1/√{width} = {text.number(std)}{tail}"
        return make(layer, "normal", reason, std=std * depth.factor)
    base = scheme(recipe.base_of("embedding"))
    if base.embeddings:
        draw = base.draw(layer, graph)
        reason = f"{base.about.title}: std = {text.number(draw.std)}{tail}"
        return make(layer, draw.distribution, reason, std=draw.std * depth.factor)
    if depth.factor != 1:
        return make(layer, "keep", f"as its owner drew it{tail}", factor=depth.factor)
    head = f"; it is the head as well ({layer.tied_to[0]})" if layer.tied_to else ""
    what = "an embedding's" if layer.role == "embedding" else "a position table's"
    return kept(layer, f"{what} scale does not follow from fans{head}")


def _table_width(layer: Layer, graph: Graph) -> int:
    """Returns the length of a table's rows: its last axis, or that which is as long as what weights read or write.

    A learned map that is added to images has its channels on another axis.
    """
    lengths = {fan for one in graph.weights for fan in (one.fan_in, one.fan_out)}
    lengths |= {one.shape[-1] for one in graph.layers if one.role == "embedding" and one.shape}
    last = layer.shape[-1] if layer.shape else 1
    return next((length for length in reversed(layer.shape) if length in lengths), last)


def _matrix(layer: Layer, recipe: Recipe, graph: Graph) -> Fill:
    if layer.parametrized in ("orthogonal", "spectral_norm"):
        return kept(layer, f"its {layer.parametrized} parametrization fixes its scale")
    if layer.role == "output" and recipe.head == "zero" and not layer.rectified:
        return constant(layer, (0.0,), "the head starts at zero, so that every output is equal")
    if is_zeroed(layer, recipe, graph):
        return constant(layer, (0.0,), "the residual branch starts at zero (its block is the identity)")
    if layer.role == "recurrent" and recipe.recurrent in ("orthogonal", "orthogonal_forget", "identity"):
        return _recurrent(layer, recipe)
    if recipe.modulation == "zero" and (fill := _modulation(layer)):
        return fill
    factors = _factors(layer, recipe, graph)
    slices = _slice_factors(layer, recipe, graph)
    tail = "".join(f"; × {text.number(value)} ({why})" for why, value in factors.items())
    if slices:
        tail += f"; slices × {', '.join(map(text.number, slices))} ({'query, ' * (len(slices) == 3)}key, value)"
    scale = math.prod(factors.values())
    shared = mimetic(layer, graph) if recipe.attention == "mimetic" else None
    if shared is not None:
        rest = {"factor": scale, "scale": scale, "slice_factors": slices}
        return make(layer, shared.distribution, shared.why + tail, stream=f"{layer.attention}/{shared.stream}", **rest)
    base = scheme(recipe.base_of(layer.role))
    draw = base.draw(layer, graph)
    if draw.distribution == "keep":
        return make(layer, "keep", f"as its owner drew it{tail}", factor=scale, scale=scale, slice_factors=slices)
    reason = _drawn_reason(layer, base, draw) + tail
    if draw.distribution == "constant":
        return constant(layer, tuple(draw.std * scale * part for part in slices or (1.0,)), reason)
    return make(layer, draw.distribution, reason, std=draw.std * scale, scale=scale, slice_factors=slices)


def _drawn_reason(layer: Layer, base: Scheme, draw: LayerDraw) -> str:
    gained = draw.worked and "φ" in base.about.formula and layer.activation.name != "linear" and not draw.instead
    phi = f" for {layer.activation}" if gained else ""
    worked = " = ".join(dict.fromkeys(part for part in (draw.worked, text.number(draw.std)) if part))
    return f"{draw.instead or base.about.title}{phi}: {'W' if draw.distribution == 'constant' else 'std'} = {worked}"


def _recurrent(layer: Layer, recipe: Recipe) -> Fill:
    size = max(rows_and_columns(layer))
    if recipe.recurrent == "identity":
        reason = "recurrent identity (Le et al. 2015, arXiv:1504.00941)"
        return make(layer, "identity", reason, std=1 / math.sqrt(size))
    reason = "recurrent orthogonal: the state keeps its norm (Saxe et al. 2014)"
    return make(layer, "orthogonal", reason, std=1 / math.sqrt(size))


def _factors(layer: Layer, recipe: Recipe, graph: Graph) -> dict[str, float]:
    """Returns the recipe's factors on one matrix by what they are called in a reason; those of 1 left out."""
    found: dict[str, float] = {}
    own = scheme(recipe.base_of(layer.role)).mode
    if recipe.mode != "own" and own is not None:
        found[f"{recipe.mode} for {own}"] = math.sqrt(fan(layer, own) / fan(layer, recipe.mode))
    if not layer.normalized:
        found["gain"] = 2.0**recipe.log2_gain
        found["depth"] = 2.0 ** (recipe.depth_slope * (_position(layer, graph) - 0.5))
    adds = max(1, graph.around(layer).residual_adds)
    if layer.in_branch and not layer.closes_branch:
        found["residual depth"] = adds**-recipe.branch_power
    if layer.closes_branch and recipe.residual_out == "scaled":
        found[f"1/√{adds} residual adds"] = adds**-0.5
    depth = depth_scale(layer, recipe.depth_rule, graph)
    found[depth.why] = depth.factor * depth.fold
    if layer.role == "output" and recipe.head == "eighth":
        found["small head"] = 1 / 8
    if layer.role in ("query", "key"):
        found["query and key"] = 2.0**recipe.qk_log2
    if recipe.widths == "mup":
        found[f"μP, base width {recipe.base_width}"] = mup(layer, graph.around(layer), recipe.base_width).factor
    return {why: value for why, value in found.items() if value != 1.0}


def _position(layer: Layer, graph: Graph) -> float:
    """Returns the layer's depth from 0 (first matrix) to 1 (last)."""
    depths = graph.around(layer).weight_depths
    return (layer.depth - depths[0]) / max(1, depths[1] - depths[0])


def _slice_factors(layer: Layer, recipe: Recipe, graph: Graph) -> tuple[float, ...]:
    """Returns a factor for each of query, key and value in one fused weight; none where all are 1."""
    if layer.role != "qkv" or layer.slices not in (2, 3):
        return ()
    qk, value = 2.0**recipe.qk_log2, depth_scale(layer, recipe.depth_rule, graph).value_factor
    factors = (*[qk] * (layer.slices - 1), value)  # two slices are keys and values, beside queries of their own
    return factors if any(factor != 1.0 for factor in factors) else ()
