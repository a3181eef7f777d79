"""A portable choice of initial weights: one rule per role, naming no parameter of any model."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from .. import jsonfile
from ..errors import RecipeError, did_you_mean
from ..graph import ROLES
from .adapters import AdapterName
from .calibrations import CalibrationName
from .growths import GrowthName
from .inherited import CLOSED_HEADS, RenewalName, RowsName
from .ready_starts import start_kind
from .schemes import SCHEMES, scheme, scheme_name

FanMode = Literal["own", "fan_in", "fan_out", "fan_avg", "fan_geometric"]
ResidualOut = Literal["same", "scaled", "zero"]
DepthRule = Literal["none", "fixup", "t_fixup", "deepnorm"]
Attention = Literal["same", "mimetic"]
Head = Literal["same", "eighth", "zero", "class_means"]
HeadBias = Literal["as_is", "zero", "label_prior"]
Embedding = Literal["same", "small", "inverse_sqrt"]
Recurrent = Literal["same", "orthogonal", "orthogonal_forget", "identity", "chrono"]
Bias = Literal["same", "zero"]
Norms = Literal["same", "around_one"]
Modulation = Literal["same", "zero"]
Widths = Literal["standard", "mup"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to draw the weights of any network.

    A recipe names roles (hidden weights, heads, biases, residual branches) and no parameter, so one recipe serves every
    architecture. `autoinit.catalogue()` lists those that have a name; make one to vary them, as
    `autoinit.Recipe(base="orthogonal", head="zero")`, or take a `Selection`'s. `apply_` draws it into a model,
    `resolve` says what it gives each parameter, and `select(recipes=[…])` tries it. Every field has a default that
    changes nothing: a recipe without fields leaves all weights as they are. A value outside its range is a
    `RecipeError`.

    Attributes:
        base: the scheme of every weight matrix, a name of `autoinit.recipes.schemes.SCHEMES`.
        mode: the fan that a variance is divided by, in the place of the base's own.
        log2_gain: log2 of a factor on every weight matrix, relative to the base's own gain.
        depth_slope: log2 of the ratio of the last matrix's factor to the first's; the middle keeps factor 1.
        branch_power: p in the factor L^−p on the interior weights of residual branches (L residual adds).
        residual_out: last weight of each residual branch: the same rule, times 1/√L ("scaled"), or zero. Where the
            branch ends in a multiplier of its own (ReZero, SkipInit, LayerScale), zero means that multiplier.
        depth_rule: how a paper scales residual branches with depth: Fixup, T-Fixup or DeepNorm.
        head: the output weight: the same rule, times 1/8 ("eighth"), zero, or with its bias from the means of each
            class's features ("class_means").
        head_bias: the output bias: as other biases ("as_is"), zero, or the log frequencies of the labels.
        embedding: embeddings of tokens and tables of positions: the base's rule, std 0.02 ("small"), or 1/√width
            ("inverse_sqrt").
        qk_log2: log2 of a factor on query and key weights.
        attention: self-attention's weights: the base's rule, or mimetic.
        recurrent: recurrent matrices: the base's rule, orthogonal, orthogonal with the forget gate's bias at
            1, or the identity; "chrono" leaves them and spreads the gates' biases over the sequence's time scales.
        bias: other biases: the base's rule (kept with as_is, zero or as its formula says with any other), or zero.
        norms: scales of normalizations: kept, or drawn from N(1, 0.02²).
        modulation: weights and biases that shift, scale and gate streams by a condition: the same rule, or zero, and
            then std 0.02 for the weights that make the condition.
        widths: how scales and learning rates follow the width: as the base has it, or μP.
        base_width: under μP, the head's fan_in at which both are the same.
        calibration: a rescaling measured on batches, after the draw.
        adapter: how low-rank adapters beside trained weights start: as their owner drew them, or a name of
            `autoinit.recipes.adapters.ADAPTER_ROWS`.
        growth: how it comes from a trained network of another size, a name of `autoinit.recipes.growths.GROWTH_ROWS`:
            of plans that `inherit_` makes.
        rows: what rows of a table get that the checkpoint's has not: what they hold, or a name of
            `autoinit.recipes.inherited.NEW_ROWS`.
        renewal: how the model's own weights, which are trained, are mixed with what the other fields draw: a name of
            `autoinit.recipes.inherited.RENEWALS`. It alone moves what is in a checkpoint.
        start: the name of a learned start or of a ticket, which sets every weight: "learned-3fa2b1c4", made of what is
            in it. `select(recipes=[…])` takes the object itself, or its file.
        rules: (role, scheme) pairs: matrices of that role follow that scheme and not the base.
    """

    base: str = "as_is"
    mode: FanMode = "own"
    log2_gain: float = 0.0
    depth_slope: float = 0.0
    branch_power: float = 0.0
    residual_out: ResidualOut = "same"
    depth_rule: DepthRule = "none"
    head: Head = "same"
    head_bias: HeadBias = "as_is"
    embedding: Embedding = "same"
    qk_log2: float = 0.0
    attention: Attention = "same"
    recurrent: Recurrent = "same"
    bias: Bias = "same"
    norms: Norms = "same"
    modulation: Modulation = "same"
    widths: Widths = "standard"
    base_width: int = 64
    calibration: CalibrationName = "none"
    adapter: AdapterName = "same"
    growth: GrowthName = "none"
    rows: RowsName = "same"
    renewal: RenewalName = "none"
    start: str = "none"
    rules: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        pairs = self.rules.items() if isinstance(self.rules, Mapping) else self.rules
        named = ((role, scheme_name(name)) for role, name in pairs)
        object.__setattr__(self, "rules", tuple(sorted(named)))
        object.__setattr__(self, "base", scheme_name(self.base))
        _check(self)

    def base_of(self, role: str) -> str:
        """Returns the scheme of the matrices of one role."""
        return dict(self.rules).get(role, self.base)

    @property
    def key(self) -> str:
        """A stable, readable name: the base and every field that is not at its default."""
        parts = [f"{name}={_short(value)}" for name, value in _changed(self).items() if name != "base"]
        return " ".join([self.base, *parts])

    @property
    def inherited(self) -> tuple[str, ...]:
        """What it takes from trained weights, a text for each such field; nothing of a start from scratch."""
        fields = {"adapter": self.adapter, "growth": self.growth, "rows": self.rows, "renewal": self.renewal}
        fields["start"] = self.start
        closed = {"head": self.head} if self.head in CLOSED_HEADS else {}
        return tuple(f"{name}={value}" for name, value in (fields | closed).items() if value != LATER.get(name))

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
    "mode": get_args(FanMode),
    "residual_out": get_args(ResidualOut),
    "depth_rule": get_args(DepthRule),
    "attention": get_args(Attention),
    "widths": get_args(Widths),
    "head": get_args(Head),
    "head_bias": get_args(HeadBias),
    "embedding": get_args(Embedding),
    "recurrent": get_args(Recurrent),
    "bias": get_args(Bias),
    "norms": get_args(Norms),
    "modulation": get_args(Modulation),
    "calibration": get_args(CalibrationName),
    "adapter": get_args(AdapterName),
    "growth": get_args(GrowthName),
    "rows": get_args(RowsName),
    "renewal": get_args(RenewalName),
}
_WITHOUT_FANS = frozenset({"bias", "norm_scale", "layer_scale", "scalar", "position"})
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
    if not (isinstance(recipe.base_width, int) and recipe.base_width >= 1):
        raise RecipeError(f"Recipe field 'base_width' must be a whole number from 1. Got {recipe.base_width!r}.")
    if recipe.renewal != "none" and (recipe.base == "as_is" or recipe.calibration != "none"):
        raise RecipeError(
            f"Recipe field 'renewal' is {recipe.renewal!r}, which adds a fresh draw: name a base other than 'as_is', "
            f"and no calibration. Got base {recipe.base!r} and calibration {recipe.calibration!r}."
        )
    _check_start(recipe)
    if recipe.mode != "own" and scheme(recipe.base).mode is None:
        modes = [name for name, row in SCHEMES.items() if row.mode is not None]
        raise RecipeError(
            f"Recipe field 'mode' is {recipe.mode!r}, but the variance of {recipe.base!r} is divided by no fan. "
            f"Leave it at 'own', or use one of {', '.join(modes)}."
        )
    for role, name in recipe.rules:
        if role not in ROLES:
            raise RecipeError(f"No role is called {role!r}. {did_you_mean(role, ROLES)}")
        if role in _WITHOUT_FANS:
            raise RecipeError(
                f"A scheme is for weight matrices and embeddings; a {role.replace('_', ' ')} is neither. "
                "Use the fields bias, head_bias, residual_out or recurrent for what is not."
            )
        scheme(name)


def _check_start(recipe: Recipe) -> None:
    """Raises RecipeError where a start has another form of name, or something beside it."""
    if recipe.start == "none":
        return
    if not (isinstance(recipe.start, str) and start_kind(recipe.start)):
        raise RecipeError(
            f"Recipe field 'start' must be the name of a learned start or a ticket, such as 'learned-3fa2b1c4', or "
            f"'none'. Got {recipe.start!r}. Pass the object itself to select(recipes=[…])."
        )
    if others := [name for name in _changed(recipe) if name != "start"]:
        raise RecipeError(
            f"Recipe field 'start' is {recipe.start!r}, which sets every weight: leave out {', '.join(others)}."
        )


LATER = {
    "adapter": "same",
    "growth": "none",
    "rows": "same",
    "renewal": "none",
    "start": "none",
    "norms": "same",
    "modulation": "same",
}
"""Fields of recipes that came later, with what was true before: files leave that out."""

OWN = Recipe()
"""The owner's own weights: candidate 0."""
