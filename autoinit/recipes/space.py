"""The search space of an architecture: the dimensions that its roles give a meaning to."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..activations import LINEAR
from ..errors import RecipeError
from ..graph import Graph
from .adapters import ADAPTER_ROWS
from .calibrations import CALIBRATION_ROWS
from .catalogue import ENTRIES, as_recipe, check_fits
from .inherited import NEW_ROWS
from .needs import NEEDS, meets
from .recipe import Recipe
from .schemes import SCHEMES

LR_STEPS = (-2, -1, 0, 1, 2)
LR_RATIO = 10**0.5
"""Neighbours on the learning-rate grid differ by this factor; the grid is the same for every candidate."""

LARGEST_SCALED = 2**24
"""Weights of a model above which calibrations that differentiate gradients are not offered: they hold scaled copies of
the weights and two graphs, and would take several times the memory of a training step."""


Measured = Literal["loss", "outputs", "nothing"]
"""What calibrations can look at."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """One searched choice: one of `choices`, or a number from `low` to `high` (whole where the default is)."""

    name: str
    default: float | int | str
    choices: tuple[str | int, ...] = ()
    low: float = 0.0
    high: float = 0.0

    def holds(self, value: Any) -> bool:
        """Whether a value is one of the choices, or in the range."""
        return value in self.choices if self.choices else self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Space:
    """What a search may choose from.

    Attributes:
        dimensions: shared by all candidates.
        opening: well-known candidates, tried first; as-is is not among them.
        listed: the only candidates, as-is first, where the caller named them; empty for the whole space.
    """

    dimensions: tuple[Dimension, ...]
    opening: tuple[Recipe, ...]
    listed: tuple[Recipe, ...] = ()

    def has(self, name: str) -> bool:
        """Whether a dimension of that name exists."""
        return any(dimension.name == name for dimension in self.dimensions)

    def holds(self, recipe: Recipe) -> bool:
        """Whether a recipe is a point of the space."""
        if self.listed:
            return recipe in self.listed
        point = self.encode(recipe)
        within = all(dimension.holds(point[dimension.name]) for dimension in self.dimensions)
        return within and self.decode(point)[0] == recipe

    def decode(self, point: Mapping[str, Any]) -> tuple[Recipe, int]:
        """Returns the recipe and the learning-rate step of one point."""
        fields = dict(point)
        lr_step = int(fields.pop("lr_step", 0))
        if self.listed:
            return self.listed[int(fields["candidate"])], lr_step
        # Three decimals are finer than any effect, and keep recipe keys short and exact.
        rounded: dict[str, Any] = {
            name: round(value, 3) if isinstance(value, float) else value for name, value in fields.items()
        }
        return dataclasses.replace(Recipe(), **rounded), lr_step

    def encode(self, recipe: Recipe, lr_step: int = 0) -> dict[str, Any]:
        """Returns the point of a recipe, the inverse of `decode`; fields without a dimension are left out."""
        values: dict[str, Any] = {**dataclasses.asdict(recipe), "lr_step": lr_step}
        if self.listed:
            values["candidate"] = self.listed.index(recipe)
        return {dimension.name: values[dimension.name] for dimension in self.dimensions}


def space_of(
    graph: Graph,
    *,
    lr_searched: bool,
    recipes: str | Recipe | Sequence[str | Recipe] | None = None,
    allowance: float = 0.0,
    measured: Measured = "loss",
) -> Space:
    """Returns the search space of one architecture.

    Args:
        graph: tells which roles exist; a dimension whose role is absent is left out.
        lr_searched: whether the learning rate is a dimension too.
        recipes: the only candidates to consider, by name or as `Recipe`, one or several; None for the whole space.
        allowance: training steps that the search may take; large ones bring in costly calibrations.
        measured: what calibrations can look at: the loss, outputs alone, or nothing.

    Raises:
        RecipeError: `recipes` is empty, names an unknown recipe, or one that is for other architectures.
    """
    lr = (Dimension("lr_step", 0, low=LR_STEPS[0], high=LR_STEPS[-1]),) if lr_searched else ()
    if recipes is None:
        found = (_measurable(one, measured) for one in _dimensions(graph, allowance))
        dimensions = tuple(one for one in found if one.choices != ("none",))
        names = {dimension.name for dimension in dimensions}
        space = Space((*dimensions, *lr), ())
        # A field without a dimension falls back to its default, so two openings can become one.
        known = (
            one for one in _opening(graph, names) if measured == "nothing" or can_measure(one.calibration, measured)
        )
        distinct = dict.fromkeys(space.decode(space.encode(recipe))[0] for recipe in known)
        return dataclasses.replace(space, opening=tuple(recipe for recipe in distinct if recipe != Recipe()))
    chosen = [as_recipe(what) for what in ([recipes] if isinstance(recipes, (str, Recipe)) else recipes)]
    if not chosen:
        raise RecipeError(f"`recipes` must hold at least one recipe or name. Got {recipes!r}.")
    for recipe in chosen:
        check_fits(recipe, graph)
        check_measurable(recipe, measured)
    # dict.fromkeys drops repeats and keeps the order.
    listed = tuple(dict.fromkeys([Recipe(), *chosen]))
    candidate = Dimension("candidate", 0, choices=tuple(range(len(listed))))
    return Space((candidate, *lr), listed[1:], listed)


def _measurable(dimension: Dimension, measured: Measured) -> Dimension:
    if dimension.name != "calibration":
        return dimension
    choices = (name for name in dimension.choices if can_measure(str(name), measured))
    return dataclasses.replace(dimension, choices=tuple(choices))


def check_measurable(recipe: Recipe, measured: Measured) -> None:
    """Raises RecipeError where a recipe's calibration measures what cannot be measured."""
    if can_measure(recipe.calibration, measured):
        return
    lacking = "is measured on a batch; there is none"
    if measured == "outputs":
        lacking = "looks at gradients of the loss; the example is an input, and gives none"
    raise RecipeError(
        f"{recipe.calibration!r} {lacking}. Give example (a batch with its target, or a callable (model) -> scalar), "
        "or leave the recipe out."
    )


def can_measure(calibration: str, measured: Measured) -> bool:
    """Whether a calibration has what it measures."""
    if calibration == "none" or measured == "loss":
        return True
    return measured == "outputs" and not CALIBRATION_ROWS[calibration].by_loss


def random_recipes(space: Space, count: int, seed: int) -> list[Recipe]:
    """Returns recipes drawn evenly from every dimension of a space.

    Args:
        space: of one architecture.
        count: of recipes.
        seed: the same one gives the same recipes.
    """
    generator = np.random.default_rng(seed)
    return [space.decode({one.name: _drawn(one, generator) for one in space.dimensions})[0] for _ in range(count)]


def _drawn(dimension: Dimension, generator: np.random.Generator) -> float | int | str:
    if dimension.choices:
        return dimension.choices[int(generator.integers(len(dimension.choices)))]
    if isinstance(dimension.default, int):
        return int(generator.integers(int(dimension.low), int(dimension.high) + 1))
    return float(generator.uniform(dimension.low, dimension.high))


def _dimensions(graph: Graph, allowance: float) -> list[Dimension]:
    """Returns the dimensions of the table in the order that people read them."""
    adapted = NEEDS["adapters"].met(graph)
    beside = (adapted or NEEDS["rows"].met(graph)) and not graph.weights  # nothing that a scheme could draw
    found = [] if beside else [Dimension("base", "as_is", choices=_bases(graph))]
    if graph.grows:
        found.append(Dimension("growth", "none", choices=("none", *graph.grows)))
    if adapted:
        found.append(Dimension("adapter", "same", choices=("same", *_adapters(graph))))
    if NEEDS["rows"].met(graph):
        found.append(Dimension("rows", "same", choices=("same", *NEW_ROWS)))
    if any(not layer.normalized for layer in graph.weights):
        found.append(Dimension("log2_gain", 0.0, low=-3.0, high=3.0))
    if len({layer.depth for layer in graph.weights}) > 2:
        found.append(Dimension("depth_slope", 0.0, low=-2.0, high=2.0))
    if NEEDS["residuals"].met(graph):
        if any(layer.in_branch and not layer.closes_branch for layer in graph.weights):
            found.append(Dimension("branch_power", 0.0, low=0.0, high=0.5))
        scaled = ("scaled",) if graph.residual_adds > 1 else ()
        found.append(Dimension("residual_out", "same", choices=("same", *scaled, "zero")))
    if NEEDS["transformer"].met(graph):
        found.append(Dimension("depth_rule", "none", choices=("none", "t_fixup", "deepnorm")))
    if graph.has_role("output"):
        closed = ("class_means",) if _learned_by(graph) else ()
        found.append(Dimension("head", "same", choices=("same", "eighth", "zero", *closed)))
    if graph.output_biases:
        prior = ("label_prior",) if graph.label_prior else ()
        found.append(Dimension("head_bias", "as_is", choices=("as_is", "zero", *prior)))
    if graph.has_role("embedding"):
        found.append(Dimension("embedding", "same", choices=("same", "small", "inverse_sqrt")))
    if graph.has_role("query", "key", "qkv"):
        found.append(Dimension("qk_log2", 0.0, low=-2.0, high=1.0))
        found.append(Dimension("attention", "same", choices=("same", "mimetic")))
    if graph.has_role("recurrent"):
        found.append(Dimension("recurrent", "same", choices=_recurrent_rules(graph)))
    if SCHEMES["normal"].searched(graph) and NEEDS["norms"].met(graph):
        found.append(Dimension("norms", "same", choices=("same", "around_one")))
    if NEEDS["modulation"].met(graph):
        found.append(Dimension("modulation", "same", choices=("same", "zero")))
    if not beside:
        found.append(Dimension("calibration", "none", choices=_calibrations(graph, allowance)))
    return found


def _learned_by(graph: Graph) -> bool:
    """Whether a new head can be worked out from features that somebody has trained."""
    return bool(graph.trained) and NEEDS["class_head"].met(graph)


def _adapters(graph: Graph) -> tuple[str, ...]:
    """Returns the starts of adapters that fit the network."""
    return tuple(name for name, row in ADAPTER_ROWS.items() if meets(graph, row.about.needs))


def _bases(graph: Graph) -> tuple[str, ...]:
    return tuple(name for name, scheme in SCHEMES.items() if scheme.searched(graph))


def _recurrent_rules(graph: Graph) -> tuple[str, ...]:
    lstm = any(layer.cell == "lstm" for layer in graph.layers)
    found = ["same", "orthogonal", *(["orthogonal_forget"] if lstm else []), "identity"]
    return (*found, "chrono") if NEEDS["gates"].met(graph) else tuple(found)


def _calibrations(graph: Graph, allowance: float) -> tuple[str, ...]:
    """Returns the calibrations that fit the network, those on gradients only where they cost a hundredth at most.

    In memory they cost several models, so that large ones are spared them.
    """
    small = sum(layer.size for layer in graph.layers) <= LARGEST_SCALED
    offered = [
        row
        for row in CALIBRATION_ROWS.values()
        if meets(graph, row.about.needs) and (not row.steps or (small and allowance >= 100 * row.steps))
    ]
    return ("none", *(row.name for row in sorted(offered, key=lambda row: row.steps)))


def _critical(graph: Graph) -> Recipe | None:
    """Returns orthogonal weights at the critical gain of the commonest activation, where that is another gain."""
    plain = [layer.activation for layer in graph.weights if layer.kind != "recurrent"]
    shapes = Counter(activation for activation in plain if activation != LINEAR)
    if not shapes:
        return None
    activation = shapes.most_common(1)[0][0]
    log2_gain = round(math.log2(activation.critical_gain() / activation.gain()), 3)
    return Recipe(base="orthogonal", log2_gain=min(3.0, max(-3.0, log2_gain))) if abs(log2_gain) > 0.25 else None


_ALONE = ("siren", "fluctuation_driven")
"""Named recipes for networks that hardly train with any other: tried before all others where their needs are met."""

_SPECIALISTS = (
    (Recipe(base="xavier_normal", calibration="admin"), "post_norm"),
    (Recipe(base="xavier_normal", depth_rule="deepnorm"), "post_norm"),
    (Recipe(base="xavier_normal", head="zero", embedding="small", modulation="zero"), "modulation"),
    (Recipe(attention="mimetic"), "attention"),
    (Recipe(recurrent="chrono"), "gates"),
    (Recipe(calibration="multi_task"), "heads"),
)
"""Recipes for one kind of network, and what they need: tried among the first where it is met."""


def _opening(graph: Graph, names: set[str]) -> list[Recipe]:
    """Returns the recipes that people know, as far as this architecture has their roles; the likeliest first."""
    bases = [name for name in _bases(graph) if name != "as_is"] if "base" in names else []
    known = [Recipe(base=name) for name in ("rl", "looks_linear", "dynamical_isometry") if name in bases]
    special = [recipe for recipe, need in _SPECIALISTS if NEEDS[need].met(graph)]
    measured = [Recipe(base="orthogonal", calibration="lsuv"), Recipe(base="orthogonal", calibration="lsuv_centred")]
    found = [*measured, *known, *special]
    if "residual_out" in names:
        found.insert(1, Recipe(residual_out="zero"))
    if "embedding" in names:
        found.insert(1, Recipe(embedding="small"))
    if "recurrent" in names:
        lstm = any(layer.cell == "lstm" for layer in graph.layers)
        found.insert(1, Recipe(base="xavier_normal", recurrent="orthogonal_forget" if lstm else "orthogonal"))
    if "norms" in names:
        found.insert(1, ENTRIES["dcgan"].recipe)
    if critical := _critical(graph):
        found.append(critical)
    found += [Recipe(base=name) for name in bases if Recipe(base=name) not in found]
    found.append(Recipe(base="he_normal", calibration="lsuv"))
    found.append(Recipe(base="lecun_normal", calibration="within_layer"))
    if "residual_out" in names:
        found.append(Recipe(base="truncated_normal", residual_out="scaled"))
        found.append(Recipe(base="he_normal", branch_power=0.5, residual_out="zero", head="zero"))
    if "head" in names:
        found.append(Recipe(head="zero"))
    if NEEDS["rows"].met(graph):
        found = [*(Recipe(rows=name) for name in NEW_ROWS), *found]
    if "head" in names and _learned_by(graph):
        found.insert(0, Recipe(head="class_means"))
    found = [*(Recipe(growth=name) for name in graph.grows), *found]
    found = [*(Recipe(adapter=name) for name in _adapters(graph)), *found]
    named = [ENTRIES[name] for name in _ALONE]
    alone = [entry.recipe for entry in named if meets(graph, entry.about.needs)]
    return [*alone, *(recipe for recipe in found if recipe not in alone)]
