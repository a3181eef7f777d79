"""Recipes by short names for a screen, "orthogonal, gain × 0.73, LSUV", and what the words in them mean."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import RecipeError
from ..text import number
from .adapters import ADAPTER_ROWS
from .calibrations import CALIBRATION_ROWS
from .catalogue import entry_of
from .growths import GROWTH_ROWS
from .inherited import NEW_ROWS, RENEWALS
from .ready_starts import START_ROWS, start_kind
from .recipe import OWN, Recipe

OWN_TITLE = "own weights"
"""What the owner's weights are called on a screen."""


def _factor(log2: float) -> str:
    return f"× {number(2.0**log2, 2)}"


_SAID: dict[str, Callable[[Any], str] | dict[str, str]] = {
    "mode": lambda mode: mode.replace("_", " "),
    "log2_gain": lambda log2: f"gain {_factor(log2)}",
    "depth_slope": lambda log2: f"last/first {_factor(log2)}",
    "branch_power": lambda power: f"branches / L^{number(power, 2)}",
    "residual_out": {"scaled": "branch ends / √L", "zero": "branch ends zero"},
    "depth_rule": {"fixup": "Fixup", "t_fixup": "T-Fixup", "deepnorm": "DeepNorm"},
    "head": {"eighth": "head / 8", "zero": "head zero", "class_means": "head of class means"},
    "head_bias": {"zero": "head bias zero", "label_prior": "label prior"},
    "embedding": {"small": "embeddings 0.02", "inverse_sqrt": "embeddings 1/√width"},
    "qk_log2": lambda log2: f"q and k {_factor(log2)}",
    "attention": {"mimetic": "mimetic attention"},
    "recurrent": {
        "orthogonal": "recurrence orthogonal",
        "orthogonal_forget": "recurrence orthogonal, forget bias 1",
        "identity": "recurrence identity",
        "chrono": "chrono biases",
    },
    "bias": {"zero": "biases zero"},
    "norms": {"around_one": "norm scales near 1"},
    "modulation": {"zero": "modulation zero"},
    "widths": {"mup": "μP"},
    "base_width": lambda width: f"base width {width}",
    "rules": lambda rules: ", ".join(f"{role} {name}" for role, name in rules),
    "calibration": {"lsuv": "LSUV", "lsuv_centred": "centred LSUV", "within_layer": "within-layer"},
    "growth": lambda name: f"from a trained network by {GROWTH_ROWS[name].about.title}",
    "adapter": lambda name: f"adapters {ADAPTER_ROWS[name].about.title}",
    "rows": lambda name: NEW_ROWS[name].about.title,
    "renewal": lambda name: RENEWALS[name].about.title,
    "start": lambda name: f"{START_ROWS[start_kind(name)].about.title} {name.partition('-')[2]}",
}
"""Field of a recipe → how it is said where it is not at its default, in the order in which it is."""

_MEANINGS = {
    "gain": "factor on every weight matrix, beside the scheme's own",
    "last/first": "gain of the last matrix over that of the first",
    "branches / L^": "inner weights of the L residual branches are divided by this power of L",
    "branch ends": "the last weight of each of the L residual branches",
    "Fixup": "residual branches are scaled with their number, so that no normalization is needed",
    "DeepNorm": "residual branches are scaled with their number, for deep post-norm Transformers",
    "head": "the output weight",
    "label prior": "the output bias begins at the log frequencies of the labels",
    "embeddings": "standard deviation of the tables of tokens and positions",
    "q and k": "query and key weights of attention",
    "mimetic attention": "products of queries and keys begin near the identity, as in trained Transformers",
    "recurrence": "hidden-to-hidden matrices",
    "chrono biases": "gate biases spread over the time scales of the sequences",
    "modulation": "weights by which a condition shifts, scales and gates what other weights make",
    "norm scales": "scales of normalizations, drawn from N(1, 0.02²)",
    "μP": "scales and learning rates follow the width, so that what suits a narrow model suits a wide one",
    "centred LSUV": "each layer's output is brought to mean 0 and variance 1, measured on a batch",
    "LSUV": "each layer's output is brought to variance 1, measured on a batch",
    "new rows": "rows of a table that its checkpoint does not have",
    "shrink": "the model's own weights and a fresh draw, added up",
    "learned start": "weights that were learned from many small tasks",
    "lottery ticket": "weights of which masks keep a part at zero",
    "ReDo": "units that are dormant on the data are drawn anew",
    "adapters": "the pairs of low-rank matrices beside trained weights",
    "within-layer": "every unit's output is brought to mean 0 and variance 1, measured on a batch",
}
"""Words of titles → what they mean, for who has never seen them."""


def title(recipe: Recipe) -> str:
    """Returns a recipe's short name for a screen: "orthogonal, gain × 0.73, LSUV", "own weights".

    A recipe of the catalogue is called what it is called there. `Recipe.key` is exact, and what code takes.
    """
    if recipe == OWN:
        return OWN_TITLE
    if entry := entry_of(recipe):
        return entry.name
    return _spelled(recipe)


def told_apart(names: Mapping[str, str]) -> dict[str, str]:
    """Returns the short name of each recipe by its key, and the key itself where two have the same one."""
    counts = Counter(names.values())
    return {key: name if counts[name] == 1 else key for key, name in names.items()}


def recipe_of(key: str) -> Recipe | None:
    """Returns the recipe that has a key; None where it cannot be read from it."""
    base, *parts = key.split(" ")
    values: dict[str, object] = {"base": base}
    for part in parts:
        name, _, value = part.partition("=")
        if name == "rules":
            values[name] = [pair.split(":") for pair in value.split(",")]
        else:
            values[name] = _number(value)
    try:
        found = Recipe.from_data(values)
    except RecipeError:
        return None
    return found if found.key == key else None


def _number(value: str) -> object:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def recipe_title(key: str) -> str:
    """Returns the short name of the recipe with a key, or the key where it is none of ours."""
    recipe = recipe_of(key)
    return key if recipe is None else title(recipe)


def recipe_titles(keys: Iterable[str]) -> dict[str, str]:
    """Returns the short name of each recipe by its key; where two have the same one, the key itself."""
    return told_apart({key: recipe_title(key) for key in keys})


def meanings(titles: Iterable[str]) -> list[tuple[str, str]]:
    """Returns the words in some titles that need an explanation, each with it."""
    said = {part for name in titles for part in name.split(", ")[1:]}
    found = {next((word for word in _MEANINGS if part.startswith(word)), None) for part in said}
    return [(word, meaning) for word, meaning in _MEANINGS.items() if word in found]


def glossary(keys: Iterable[str]) -> list[tuple[str, str]]:
    """Returns what is to be explained in the names of some recipes: catalogue's names for several choices, and words.

    Args:
        keys: of the recipes.
    """
    recipes = [recipe for key in keys if (recipe := recipe_of(key)) is not None]
    named = {entry.name: _spelled(recipe) for recipe in recipes if (entry := entry_of(recipe)) and _parts(recipe)}
    return [*named.items(), *meanings([*map(title, recipes), *named.values()])]


def _spelled(recipe: Recipe) -> str:
    if recipe.start != OWN.start:  # nothing of the owner's is in it
        return _parts(recipe)[0]
    return ", ".join([OWN_TITLE if recipe.base == OWN.base else recipe.base, *_parts(recipe)])


def _parts(recipe: Recipe) -> list[str]:
    """Returns how each field beside the base is said that is not at its default."""
    values, usual = dataclasses.asdict(recipe), dataclasses.asdict(OWN)
    return [_said(name, values[name]) for name in _SAID if values[name] != usual[name]]


def _said(name: str, value: Any) -> str:
    said = _SAID[name]
    if callable(said):
        return said(value)
    # A calibration that is better known by its name than by words of ours: GradInit, NIO, Admin.
    return said[value] if value in said else CALIBRATION_ROWS[value].about.title
