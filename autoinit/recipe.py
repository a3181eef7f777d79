"""A portable choice of initial weights: one rule per role, naming no parameter of any model."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from . import jsonfile
from .errors import RecipeError, did_you_mean
from .graph import ROLES
from .schemes import SCHEMES, scheme

ResidualOut = Literal["same", "scaled", "zero"]
Head = Literal["same", "eighth", "zero"]
HeadBias = Literal["as_is", "zero", "label_prior"]
Embedding = Literal["same", "small", "inverse_sqrt"]
Recurrent = Literal["same", "orthogonal", "orthogonal_forget", "identity"]
Bias = Literal["same", "zero"]
Calibration = Literal["none", "lsuv"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to draw the weights of any network.

    Attributes:
        base: the scheme of every weight matrix, a name of `autoinit.schemes.SCHEMES`.
        log2_gain: log2 of a factor on every weight matrix, relative to the base's own gain.
        depth_slope: log2 of the ratio of the last matrix's factor to the first's; the middle keeps factor 1.
        branch_power: p in the factor L^−p on the interior weights of residual branches (L residual adds).
        residual_out: last weight of each residual branch: the same rule, times 1/√L ("scaled"), or zero.
        head: the output weight: the same rule, times 1/8 ("eighth"), or zero.
        head_bias: the output bias: as other biases ("as_is"), zero, or the log frequencies of the labels.
        embedding: token embeddings: the base's rule, std 0.02 ("small"), or 1/√width ("inverse_sqrt").
        qk_log2: log2 of a factor on query and key weights.
        recurrent: recurrent matrices: the base's rule, orthogonal, orthogonal with the forget gate's bias at
            1, or the identity.
        bias: other biases: the base's rule (kept with as_is, zero with any other base), or zero.
        calibration: a rescaling measured on batches, after the draw.
        rules: (role, scheme) pairs: matrices of that role follow that scheme and not the base.
    """

    base: str = "as_is"
    log2_gain: float = 0.0
    depth_slope: float = 0.0
    branch_power: float = 0.0
    residual_out: ResidualOut = "same"
    head: Head = "same"
    head_bias: HeadBias = "as_is"
    embedding: Embedding = "same"
    qk_log2: float = 0.0
    recurrent: Recurrent = "same"
    bias: Bias = "same"
    calibration: Calibration = "none"
    rules: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        pairs = self.rules.items() if isinstance(self.rules, Mapping) else self.rules
        object.__setattr__(self, "rules", tuple(sorted((role, name) for role, name in pairs)))
        _check(self)

    @property
    def key(self) -> str:
        """A stable, readable name: the base and every field that is not at its default."""
        parts = [f"{name}={_short(value)}" for name, value in _changed(self).items() if name != "base"]
        return " ".join([self.base, *parts])

    def to_json(self) -> str:
        """Returns the recipe as JSON, fields at their default left out."""
        return json.dumps(_changed(self), ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Recipe:
        """Returns the recipe that `to_json` wrote.

        Raises:
            RecipeError: damaged JSON, an unknown field, or a value outside its range.
        """
        return Recipe.from_data(jsonfile.parse(text, RecipeError, "The recipe"))

    @staticmethod
    def from_data(data: Mapping[str, Any]) -> Recipe:
        """Returns the recipe of a plain mapping of field names to values (see `from_json`)."""
        known = [field.name for field in dataclasses.fields(Recipe)]
        for name in data:
            if name not in known:
                raise RecipeError(f"A recipe has no field {name!r}. {did_you_mean(name, known)}")
        return jsonfile.from_data(Recipe, dict(data), RecipeError, "The recipe")

    def __str__(self) -> str:
        return self.key


def _changed(recipe: Recipe) -> dict[str, Any]:
    """Returns the fields that are not at their default, in the order of the class."""
    values = dataclasses.asdict(recipe)
    return {
        field.name: values[field.name] for field in dataclasses.fields(recipe) if values[field.name] != field.default
    }


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ",".join(f"{role}:{name}" for role, name in value)
    return str(value)


_CHOICES: dict[str, tuple[str, ...]] = {
    "residual_out": get_args(ResidualOut),
    "head": get_args(Head),
    "head_bias": get_args(HeadBias),
    "embedding": get_args(Embedding),
    "recurrent": get_args(Recurrent),
    "bias": get_args(Bias),
    "calibration": get_args(Calibration),
}
_NUMBERS = ("log2_gain", "depth_slope", "branch_power", "qk_log2")


def _check(recipe: Recipe) -> None:
    scheme(recipe.base)
    values = dataclasses.asdict(recipe)
    for name, allowed in _CHOICES.items():
        value = values[name]
        if value not in allowed:
            raise RecipeError(f"Recipe field {name!r} must be one of {', '.join(allowed)}. Got {value!r}.")
    for name in _NUMBERS:
        value = values[name]
        if not (isinstance(value, (int, float)) and math.isfinite(value) and abs(value) <= 30):
            raise RecipeError(f"Recipe field {name!r} must be a number from -30 to 30. Got {value!r}.")
    for role, name in recipe.rules:
        if role not in ROLES:
            raise RecipeError(f"No role is called {role!r}. {did_you_mean(role, ROLES)}")
        scheme(name)


NAMED: dict[str, Recipe] = {
    **{name: Recipe(base=name) for name in SCHEMES},
    "gpt2": Recipe(base="truncated_normal_002", residual_out="scaled"),
    "zero_residual": Recipe(residual_out="zero"),
    "lsuv": Recipe(base="orthogonal", calibration="lsuv"),
}
"""Whole-network recipes that have a name."""


ALIASES = {
    "kaiming_normal": "he_normal",
    "kaiming_uniform": "he_uniform",
    "glorot_normal": "xavier_normal",
    "glorot_uniform": "xavier_uniform",
    "trunc_normal": "truncated_normal_002",
}
"""Other names that people know them by."""


def named(name: str) -> Recipe:
    """Returns the whole-network recipe called `name`; PyTorch's and Keras's names are understood.

    Raises:
        RecipeError: unknown name; the message holds the nearest known one.
    """
    try:
        return NAMED[ALIASES.get(name, name)]
    except KeyError:
        raise RecipeError(f"No recipe is called {name!r}. {did_you_mean(name, NAMED)}") from None


def as_recipe(what: object) -> Recipe:
    """Returns a recipe from its name or from itself.

    Raises:
        RecipeError: an unknown name, or something that is neither.
    """
    if isinstance(what, Recipe):
        return what
    if isinstance(what, str):
        return named(what)
    raise RecipeError(f'A recipe is a name such as "he_normal", or a Recipe. Got {type(what).__name__}.')
