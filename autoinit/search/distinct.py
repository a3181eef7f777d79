"""Which candidates are one and the same on an architecture, and whether any of them changes a weight at all."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Hashable, Iterator

from ..calibrations.standardize import reason_to_skip
from ..graph import Graph
from ..judging.trials import Candidate
from ..plans.fill import Fill
from ..plans.rules import resolve
from ..recipes.calibrations import CALIBRATION_ROWS
from ..recipes.recipe import OWN, Recipe
from ..recipes.space import Space

SHOWN_REASONS = 3


class Distinct:
    """The candidates of one search that differ: the first that gives some weights stands for all that give the same."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._first: dict[Hashable, Candidate] = {}

    def standing_for(self, candidate: Candidate) -> Candidate:
        """Returns the first candidate that gave the same weights at the same learning rate; itself where it is new."""
        return self._first.setdefault((_weights(candidate.recipe, self._graph), candidate.lr_step), candidate)


def nothing_to_choose(graph: Graph, space: Space) -> str:
    """Returns why no recipe of a space changes a weight of a network, in words; empty where one does.

    Args:
        graph: its architecture.
        space: with every calibration that may be offered.
    """
    own = _weights(OWN, graph)
    moves = list(_moves(space))
    if any(_weights(recipe, graph) != own for recipe in moves):
        return ""
    reasons = Counter(fill.reason for fill in resolve(next(iter(moves), OWN), graph).fills)
    said = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common(SHOWN_REASONS))
    more = "; …" if len(reasons) > SHOWN_REASONS else ""
    which = "no recipe" if not space.listed else "none of the given recipes"
    rates = "; learning rates alone are not searched" if space.has("lr_step") else ""
    return (
        f"there is nothing to choose: {which} changes any of the model's {len(graph.layers)} parameters ({said}{more})"
        f"{rates}"
    )


def _moves(space: Space) -> Iterator[Recipe]:
    """Yields the space's well-known recipes, and each of its choices by itself.

    A parameter that stays under all of these stays under whatever they add up to: each rule looks at one choice, and
    keeps what it may not touch whatever the others say.
    """
    yield from space.opening
    for dimension in () if space.listed else space.dimensions:
        for value in dimension.choices or (dimension.low, dimension.high):
            if dimension.name != "lr_step":
                yield dataclasses.replace(OWN, **{dimension.name: value})  # type: ignore[arg-type]


def _weights(recipe: Recipe, graph: Graph) -> Hashable:
    """Returns what tells the weights of two recipes apart: what is set and how, and what is measured on it."""
    fills = [fill for fill in resolve(recipe, graph).fills if not fill.untouched]
    given = {fill.name: "it is given" for fill in fills if fill.distribution == "given"}  # after any calibration
    start = recipe.inherited if any(fill.distribution == "given" for fill in fills) else ()
    measured = "none" if recipe.growth != "none" else _measured(recipe.calibration, graph.keeping(given))
    return measured, start, tuple(map(_drawn, fills))


def _drawn(fill: Fill) -> Fill:
    """Returns a fill without its words, its numbers as far as two formulas for the same thing agree."""
    std = None if fill.std is None else float(f"{fill.std:.9g}")
    return dataclasses.replace(
        fill, reason="", std=std, factor=float(f"{fill.factor:.9g}"), scale=float(f"{fill.scale:.9g}")
    )


def _measured(calibration: str, graph: Graph) -> str:
    """Returns the name of a calibration, or of one that does the same: none where it may change nothing."""
    if calibration == "none":
        return calibration
    if CALIBRATION_ROWS[calibration].steps:  # by gradients of scales, which whatever is not kept may have
        return calibration if any(not layer.keep for layer in graph.layers) else "none"
    if not any(not reason_to_skip(layer) for layer in graph.layers):
        return "none"
    centred = any(layer.role == "bias" and not layer.keep for layer in graph.layers)
    return calibration if centred or calibration != "lsuv_centred" else "lsuv"
