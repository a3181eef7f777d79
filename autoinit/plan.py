"""A plan: what each parameter of one model gets, and why; as data, as a file and as text."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from . import jsonfile, text
from .entries import entry_of
from .errors import ArgumentError, ModelError, OptimizerError, PlanFileError, PlanMismatchError, did_you_mean
from .formulas import Distribution
from .recipe import Recipe

FORMAT, VERSION = "autoinit-plan", 1

Family = Literal["adam", "sgd"]

FAMILIES: dict[str, Family] = {
    "adam": "adam",
    "adamw": "adam",
    "adamax": "adam",
    "nadam": "adam",
    "radam": "adam",
    "rmsprop": "adam",
    "adagrad": "adam",
    "rprop": "adam",
    "sgd": "sgd",
    "asgd": "sgd",
}
"""Optimizer, in small letters → which learning-rate factors are its own.

"adam": the step does not depend on the gradient's size, as every entry is divided by it. "sgd": the step is
proportional to the gradient.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """What one parameter gets.

    Attributes:
        name: the parameter's, as in `Layer.name`.
        shape: of the tensor.
        role: what the parameter is for.
        distribution: of its entries; "keep" is the owner's own draw, times `factor` and `slice_factors`.
        std: standard deviation of the entries before `factor`; None where the draw is kept.
        values: of a constant: one for all entries, one per slice, or one per entry.
        factor: multiplies the draw; a calibration sets it.
        scale: the recipe's own factors on this matrix, a part of `std` (of `factor`, where the draw is kept);
            a calibration aims at it.
        slice_factors: multiply the slices of a fused weight, in order; empty for none.
        channel_factors: multiply the output units, in order; a calibration sets them; empty for none.
        out_axes, in_axes, groups, slices, kernel_axes, heads: the geometry that structured draws need, as in `Layer`.
        stream: the parameter whose random stream the draw uses; empty for its own. A pair that is drawn as one
            (queries and keys) shares a stream.
        lr_adam, lr_sgd: factor on the parameter's learning rate (μP), under Adam and its kin, and under SGD.
        result: of a rescaled draw, the fingerprint of what it became; tells it from a fresh one.
        reason: why, in words.
    """

    name: str
    shape: tuple[int, ...]
    role: str
    distribution: Distribution
    std: float | None = None
    values: tuple[float, ...] = ()
    factor: float = 1.0
    scale: float = 1.0
    slice_factors: tuple[float, ...] = ()
    channel_factors: tuple[float, ...] = ()
    out_axes: tuple[int, ...] = ()
    in_axes: tuple[int, ...] = ()
    groups: int = 1
    slices: int = 1
    kernel_axes: tuple[int, ...] = ()
    heads: int = 1
    stream: str = ""
    lr_adam: float = 1.0
    lr_sgd: float = 1.0
    result: str = ""
    reason: str

    @property
    def untouched(self) -> bool:
        """Whether the parameter stays exactly as it is."""
        rescaled = self.factor != 1.0 or self.slice_factors or self.channel_factors
        return self.distribution == "keep" and not rescaled

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What a calibration does to one parameter that has been drawn.

    Attributes:
        factor: multiplies it.
        channels: multiply its output units, in order; empty for none.
        values: replace it, one per entry (of a bias); empty where it is only multiplied.
    """

    factor: float = 1.0
    channels: tuple[float, ...] = ()
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Plan(Mapping[str, Fill]):
    """Parameter name → `Fill`, for every parameter of one model.

    Attributes:
        recipe: what was resolved.
        seed: of the draws; each parameter has a stream of its own, named by seed and name.
        fills: in the order of the graph.
        drawn_with: versions and device of the draws that the plan stands for; empty before a draw.
        notes: what the reader of the architecture could not see, in words.
    """

    recipe: Recipe
    seed: int
    fills: tuple[Fill, ...]
    drawn_with: str = ""
    notes: tuple[str, ...] = ()
    _by_name: dict[str, Fill] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {fill.name: fill for fill in self.fills})

    def __getitem__(self, name: str) -> Fill:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self.fills)

    def __str__(self) -> str:
        return _render(self)

    def adjusted(self, adjustments: Mapping[str, Adjustment]) -> Plan:
        """Returns the plan with a calibration's adjustments in its fills, by parameter name."""
        fills = tuple(
            _adjusted(fill, adjustments[fill.name], self.recipe.calibration) if fill.name in adjustments else fill
            for fill in self.fills
        )
        return dataclasses.replace(self, fills=fills)

    def param_groups(
        self, model: HasParameters, lr: float, *, optimizer: str | type = "adam", **options: Any
    ) -> list[dict[str, Any]]:
        """Returns the groups of a model's parameters for an optimizer, each with its own learning rate.

        A parameter's learning rate is lr × `Fill.lr_adam` or lr × `Fill.lr_sgd`. These are not 1 under μP (Yang et al.
        2022, arXiv:2203.03466, table 3), and where a multiplier has been folded into a weight. Parameters of one
        factor share a group; a trainable parameter is in exactly one, tied ones once. The tensors behind a
        parametrized weight get that weight's factor.

            plan = autoinit.apply_(model, "mup", data)
            optimizer = torch.optim.Adam(plan.param_groups(model, lr=3e-3))

        Weight decay: torch's optimizers shrink a weight by lr × weight_decay in each step (AdamW) or add
        weight_decay × weight to its gradient. So that both do the same at every width, a `weight_decay` among the
        options is divided by the group's factor; one that is given to the optimizer itself is not. A `momentum` or
        `betas` need no factor; an `eps` should stay far below the gradients, which shrink with the width.

        Args:
            model: that the plan was made for.
            lr: learning rate at the base width.
            optimizer: whose factors to take: "adam", "sgd", the name of another one of torch.optim, or its class.
            options: more entries of each group.

        Raises:
            OptimizerError: an optimizer whose family is not known.
            PlanMismatchError: the plan names other parameters than the model has.
            ModelError: no parameter of the model is trainable.
            ArgumentError: a learning rate that is no positive number.
        """
        family = family_of(optimizer)
        if isinstance(lr, bool) or not isinstance(lr, (int, float)) or not (math.isfinite(lr) and lr > 0):
            raise ArgumentError(f"lr is the learning rate at the base width, a positive number. Got {lr!r}.")
        groups: dict[float, list[Any]] = {}
        for parameter, fill in _matched(self, model.named_parameters()):
            if parameter.requires_grad:
                groups.setdefault(fill.lr_adam if family == "adam" else fill.lr_sgd, []).append(parameter)
        if not groups:
            raise ModelError("No parameter of the model is trainable. Unfreeze some with requires_grad_(True).")
        return [
            {**_decayed(options, factor), "params": parameters, "lr": lr * factor}
            for factor, parameters in groups.items()
        ]

    def save(self, path: str | os.PathLike[str], provenance: Mapping[str, Any] | None = None) -> None:
        """Writes the plan as JSON; a crash on the way leaves an older file as it was.

        Args:
            path: of the file.
            provenance: whatever should stand beside the plan (JSON values).
        """
        data = {
            "format": FORMAT,
            "version": VERSION,
            "plan": _to_data(self),
            "provenance": dict(provenance or {}),
        }
        jsonfile.write(path, data)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Plan:
        """Returns the plan that `save` wrote.

        Raises:
            PlanFileError: the file is missing, damaged, no plan, or from a newer version of autoinit.
        """
        what = f"Plan file {os.fspath(path)!r}"
        try:
            content = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise PlanFileError(f"{what} cannot be read: {problem}.") from None
        return _from_data(jsonfile.parse(content, PlanFileError, what), what)


class HasParameters(Protocol):
    """Whatever has named parameters: a torch.nn.Module."""

    def named_parameters(self) -> Iterable[tuple[str, Any]]:
        """Yields each parameter once, with its name."""


def family_of(optimizer: str | type) -> Family:
    """Returns which learning-rate factors an optimizer needs, of its name or class.

    Raises:
        OptimizerError: it is neither, or its family is not known.
    """
    name = optimizer.__name__ if isinstance(optimizer, type) else optimizer
    if not isinstance(name, str):
        raise OptimizerError(
            f"optimizer is a name such as 'adam', or a class such as torch.optim.SGD. Got {type(optimizer).__name__}."
        )
    if name.lower() not in FAMILIES:
        raise OptimizerError(
            f"How the learning rate of {name!r} follows the width is not known. {did_you_mean(name.lower(), FAMILIES)} "
            "Pass 'adam' if its steps do not depend on the gradient's size, 'sgd' if they are proportional to it."
        )
    return FAMILIES[name.lower()]


def _matched(plan: Plan, parameters: Iterable[tuple[str, Any]]) -> list[tuple[Any, Fill]]:
    """Returns each parameter with its fill.

    Raises:
        PlanMismatchError: a parameter without a fill, of another shape, or a fill without a parameter.
    """
    found: list[tuple[Any, Fill]] = []
    problems: list[str] = []
    unseen = dict.fromkeys(plan)
    for full, parameter in parameters:
        name = _planned_name(full, plan)
        unseen.pop(name, None)
        if name not in plan:
            problems.append(f"the plan says nothing about {name}")
        elif _PARAMETRIZED not in full and tuple(parameter.shape) != plan[name].shape:
            problems.append(f"{name} has shape {tuple(parameter.shape)}, in the plan {plan[name].shape}")
        else:
            found.append((parameter, plan[name]))
    problems += [f"the model has no {name}" for name in unseen]
    if problems:
        raise PlanMismatchError(
            f"The plan does not fit the model: {text.few(problems)}. Make one for it: apply_(model, plan.recipe)."
        )
    return found


_PARAMETRIZED = ".parametrizations."
_WRAPPERS = ("_orig_mod.", "module.")
"""What torch.compile and data parallelism put before a name."""


def _planned_name(name: str, plan: Plan) -> str:
    """Returns what a plan calls a parameter: without wrappers, "0.weight" for "0.parametrizations.weight.original0"."""
    path, between, attribute = f".{name}".partition(_PARAMETRIZED)
    name = f"{path}.{attribute.partition('.')[0]}"[1:] if between else name
    for wrapper in _WRAPPERS * 2:
        if name not in plan:
            name = name.removeprefix(wrapper)
    return name


def _decayed(options: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Returns a group's options, in which lr × weight_decay is what it is at the base width."""
    decay = {"weight_decay": options["weight_decay"] / factor} if "weight_decay" in options else {}
    return {**options, **decay}


def _adjusted(fill: Fill, by: Adjustment, calibration: str) -> Fill:
    if by.values and fill.distribution == "constant" and any(fill.values):
        return fill  # a label prior is set on purpose
    if by.values:
        reason = f"measured on a batch ({calibration})"
        return dataclasses.replace(
            fill, distribution="constant", std=0.0, values=by.values, factor=1.0, slice_factors=(), reason=reason
        )
    reason = "as its owner drew it" if fill.untouched else fill.reason
    said = [f"; × {text.number(by.factor)} ({calibration})"] if by.factor != 1.0 else []
    if by.channels:
        low, high = (text.number(choose(by.channels)) for choose in (min, max))
        said.append(f"; units × {low}…{high} ({calibration})")
    old = fill.channel_factors or (1.0,) * len(by.channels)
    channels = tuple(a * b for a, b in zip(old, by.channels, strict=True)) if by.channels else fill.channel_factors
    return dataclasses.replace(
        fill, factor=fill.factor * by.factor, channel_factors=channels, reason=reason + "".join(said)
    )


@runtime_checkable
class HasPlan(Protocol):
    """Whatever carries a plan, so that it can be applied: a selection."""

    @property
    def plan(self) -> Plan:
        """The plan that it carries."""


def _to_data(plan: Plan) -> dict[str, Any]:
    return {
        "recipe": jsonfile.to_data(plan.recipe),
        "seed": plan.seed,
        "drawn_with": plan.drawn_with,
        "notes": list(plan.notes),
        "fills": [jsonfile.to_data(fill) for fill in plan.fills],
    }


def _from_data(data: dict[str, Any], what: str) -> Plan:
    if data.get("format") != FORMAT:
        raise PlanFileError(f"{what} is not an autoinit plan: its format is {data.get('format')!r}, not {FORMAT!r}.")
    version = data.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise PlanFileError(
            f"{what} has version {version!r}; this autoinit reads up to {VERSION}. Upgrade torch-autoinit to read it."
        )
    body = data.get("plan")
    if not isinstance(body, dict) or {"recipe", "seed", "fills"} - body.keys() or not isinstance(body["fills"], list):
        raise PlanFileError(f"{what} is damaged: its 'plan' lacks a recipe, a seed or a list of fills.")
    return Plan(
        recipe=jsonfile.from_data(Recipe, body["recipe"], PlanFileError, what),
        seed=jsonfile.from_data(int, body["seed"], PlanFileError, what),
        fills=tuple(jsonfile.from_data(Fill, fill, PlanFileError, what) for fill in body["fills"]),
        drawn_with=str(body.get("drawn_with", "")),
        notes=tuple(map(str, body.get("notes", ()))),
    )


def _render(plan: Plan) -> str:
    """Returns the plan as a table; rows that differ in numbers within the name only are one row."""
    groups = [list(same) for _, same in groupby(_by_pattern(plan.fills), key=_pattern)]
    rows = [_row(group) for group in groups]
    header = ("parameter", "shape", "role", "draw", "std or value", "why")
    seed = f", seed {plan.seed}" if any(not fill.untouched for fill in plan.fills) else ""
    notes = "".join(f"\nNote: {note}" for note in plan.notes)
    return f"{_title(plan.recipe)}{seed}\n\n{text.table(header, rows, '<<<<><')}\n\n{coverage(plan)}{notes}"


def _title(recipe: Recipe) -> str:
    """Returns a recipe's name with what it stands for, where it has one."""
    entry = entry_of(recipe)
    return recipe.key if entry is None or entry.name == recipe.key else f"{entry.name} ({recipe.key})"


def _by_pattern(fills: tuple[Fill, ...]) -> list[Fill]:
    """Returns the fills with equal patterns beside each other, patterns in order of appearance."""
    order: dict[tuple[str, ...], int] = {}
    for fill in fills:
        order.setdefault(_pattern(fill), len(order))
    return sorted(fills, key=lambda fill: order[_pattern(fill)])


def _pattern(fill: Fill) -> tuple[str, ...]:
    why = re.sub(r"[-+]?\d[\d.e+-]*", "*", fill.reason)
    return re.sub(r"\d+", "*", fill.name), str(fill.shape), fill.role, fill.distribution, why


def _row(group: list[Fill]) -> tuple[str, ...]:
    first = group[0]
    stds = sorted({value for fill in group for value in _sizes(fill)})
    if len(stds) > 1 and text.number(stds[0]) != text.number(stds[-1]):
        spread = f"{text.number(stds[0])}…{text.number(stds[-1])}"
    else:
        spread = text.number(stds[0]) if stds else "-"
    draw = "rescale" if first.distribution == "keep" and not first.untouched else first.distribution
    reason = first.reason if len({fill.reason for fill in group}) == 1 else f"{first.reason} (and alike)"
    return _joint_name(group), "×".join(map(str, first.shape)) or "1", first.role, draw, spread, reason


def _sizes(fill: Fill) -> tuple[float, ...]:
    """Returns what tells the size of a fill: the values of a constant, the std of a draw, nothing of what is kept."""
    if fill.distribution == "constant":
        return tuple(value * fill.factor for value in fill.values)
    return () if fill.std is None else (fill.std * abs(fill.factor),)


def _joint_name(group: list[Fill]) -> str:
    """Returns the name that some fills share, a star for each number in it that differs."""
    if len(group) == 1:
        return group[0].name
    parts = [re.split(r"(\d+)", fill.name) for fill in group]
    joint = (same[0] if len(set(same)) == 1 else "*" for same in zip(*parts, strict=True))
    return f"{''.join(joint)} ({len(group)})"


def coverage(plan: Plan) -> str:
    """Returns what is drawn, rescaled and kept, in one sentence."""
    total = sum(fill.size for fill in plan.fills)
    drawn = [fill for fill in plan.fills if fill.distribution != "keep"]
    rescaled = [fill for fill in plan.fills if fill.distribution == "keep" and not fill.untouched]
    kept = len(plan.fills) - len(drawn) - len(rescaled)
    share = sum(fill.size for fill in (*drawn, *rescaled)) / max(1, total)
    return (
        f"Sets {len(drawn)} and rescales {len(rescaled)} of {len(plan.fills)} parameters "
        f"({text.percent(share)} of {text.count(total)} values); keeps {kept}."
    )
