"""A plan: what each parameter of one model gets, and why; as data, as a file and as text."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from .. import jsonfile
from ..errors import ArgumentError, ModelError, PlanFileError
from ..graph import ADDED
from ..recipes.catalogue import entry_of
from ..recipes.recipe import LATER, Recipe
from ..screen import chart, markup
from ..screen.columns import wrapped
from .beside import SavedValues
from .fill import Adjustment, Fill, adjusted
from .rates import HasParameters, decayed, family_of, matched
from .table import COLUMNS, coverage, fill_rows, fill_table

_OWNERS = (
    "What is rescaled is the model's own draw: another instance gets its own one, rescaled. To keep these, save the "
    "weights."
)

FORMAT, VERSION = "autoinit-plan", 1
BESIDE = ".safetensors"


Base = Literal["own", "trained"]


class Values(Protocol):
    """Tensors by the names of parameters, in memory or in a file: what the fills of a plan call given."""

    def tensor(self, name: str) -> Any:
        """Returns the tensor of a parameter."""

    def write(self, path: Path) -> None:
        """Writes all of them as safetensors."""


@dataclass(frozen=True, repr=False)
class Plan(Mapping[str, Fill]):
    """Parameter name → `Fill`, for every parameter of one model.

    A plan is a recipe that was resolved for one architecture: it says what each parameter gets, and why. `apply_`,
    `resolve` and `select` (as `Selection.plan`) make plans. Print one for a table; look a parameter up by its name,
    `plan["0.weight"].reason`; `save` it as JSON, from which `Plan.load` and `autoinit.apply_(model, path)` read it; and
    take `param_groups` from it for the learning rates of μP. What it draws is the same in every instance of the model,
    bit for bit.

    Attributes:
        recipe: the recipe that was resolved.
        seed: the seed of the draws; each parameter has a stream of its own, named by seed and name.
        fills: what each parameter gets, in the order of the graph.
        drawn_with: versions and device of the draws that the plan stands for; empty before a draw.
        drawn_on: the kind of device that its random numbers are made on, "cpu" or "cuda"; empty before a draw, which is
            made where the parameters lie, and in files of before.
        base: what stays, or is started from: the "own" weights of a model as its owner drew them, or "trained" ones,
            which another instance of the model has to have before the plan is applied to it.
        buffers: names of buffers that are set too, as statistics that come with trained weights.
        given: the values that no formula gives, which a saved plan has in a file beside it; None where there are none,
            or they are not worked out yet.
        notes: what the reader of the architecture could not see, and what the recipe's paper asks for beside weights,
            in words.
        made_with: the version of autoinit that resolved the recipe; empty where a file of an earlier one does not say.
    """

    recipe: Recipe
    seed: int
    fills: tuple[Fill, ...]
    drawn_with: str = ""
    notes: tuple[str, ...] = ()
    made_with: str = field(default="", compare=False)
    drawn_on: str = ""
    base: Base = "own"
    buffers: tuple[str, ...] = ()
    given: Values | None = field(default=None, compare=False)
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
        notes = "".join(f"\n{wrapped(f'Note: {note}', '  ')}" for note in self._all_notes)
        return f"{self._title}\n\n{fill_table(self.fills)}\n\n{wrapped(coverage(self.fills))}{notes}"

    def __repr__(self) -> str:
        return f"<Plan: {self._title}; {coverage(self.fills)[:-1]}>"

    def _repr_html_(self) -> str:
        stds = [
            (place, fill.std * abs(fill.factor))
            for place, fill in enumerate(fill for fill in self.fills if fill.std is not None and len(fill.shape) > 1)
            if fill.std is not None
        ]
        return markup.page(
            self._title,
            markup.facts([("", coverage(self.fills))]),
            chart.lines([chart.Series("std", stds)], "weight", "std", logarithmic=True),
            *(markup.facts([("note", note)]) for note in self._all_notes),
            markup.folded("What each parameter gets", markup.table(COLUMNS, fill_rows(self.fills))),
        )

    @property
    def pending(self) -> bool:
        """Whether values are yet to be worked out, from a model's own weights and its data."""
        return self.given is None and any(fill.distribution in ("given", "remainder") for fill in self.fills)

    @property
    def _title(self) -> str:
        entry = entry_of(self.recipe)
        key = self.recipe.key
        name = key if entry is None or entry.name == key else f"{entry.name} ({key})"
        return f"{name}, seed {self.seed}" if any(not fill.untouched for fill in self.fills) else name

    @property
    def _all_notes(self) -> tuple[str, ...]:
        owners = any(fill.distribution == "keep" and not fill.untouched for fill in self.fills)
        return (*self.notes, *[_OWNERS] * owners)

    def adjusted(self, adjustments: Mapping[str, Adjustment]) -> Plan:
        """Returns the plan with a calibration's adjustments in its fills, by parameter name."""
        fills = tuple(
            adjusted(fill, adjustments[fill.name], self.recipe.calibration) if fill.name in adjustments else fill
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
        for parameter, fill in matched(self, model.named_parameters()):
            if parameter.requires_grad:
                groups.setdefault(fill.lr_adam if family == "adam" else fill.lr_sgd, []).append(parameter)
        if not groups:
            raise ModelError("No parameter of the model is trainable. Unfreeze some with requires_grad_(True).")
        return [
            {**decayed(options, factor), "params": parameters, "lr": lr * factor}
            for factor, parameters in groups.items()
        ]

    def save(self, path: str | os.PathLike[str], provenance: Mapping[str, Any] | None = None) -> None:
        """Writes the plan as JSON; a crash on the way leaves an older file as it was.

        Values that no formula gives, as of adapters that start from trained weights, are written as safetensors beside
        it, under the same name with that ending: a plan travels with both.

        Args:
            path: of the file.
            provenance: whatever should stand beside the plan and the version that made it (JSON values).

        Raises:
            ArgumentError: the plan is of `resolve`, and has values that only a model's own weights give.
        """
        if self.pending:
            raise ArgumentError(
                "The plan has values that are not worked out yet, from a model's own weights: save the plan that "
                "apply_(model, recipe, data) returns, or a selection."
            )
        beside = Path(path).with_suffix(BESIDE)
        if self.given is not None:
            self.given.write(beside)
        data = {
            **({"values": beside.name} if self.given is not None else {}),
            "format": FORMAT,
            "version": VERSION,
            "plan": _to_data(self),
            "provenance": {**({"autoinit": self.made_with} if self.made_with else {}), **(provenance or {})},
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
        return _from_data(jsonfile.parse(content, PlanFileError, what), what, os.fspath(path))


@runtime_checkable
class HasPlan(Protocol):
    """Whatever carries a plan, so that it can be applied: a selection."""

    @property
    def plan(self) -> Plan:
        """The plan that it carries."""


def told(plan: Plan) -> dict[str, Any]:
    """Returns all that a plan says, as JSON values: everything but the given values themselves."""
    return {
        "recipe": jsonfile.to_data(plan.recipe),
        "fills": [jsonfile.to_data(fill) for fill in plan.fills],
        "notes": list(plan.notes),
        "buffers": list(plan.buffers),
        **{name: vars(plan)[name] for name in ("seed", "drawn_with", "drawn_on", "made_with", "base")},
    }


def _to_data(plan: Plan) -> dict[str, Any]:
    body = told(plan)
    del body["made_with"]  # it is told beside the plan
    body["recipe"] = jsonfile.as_before(body["recipe"], LATER)
    body["fills"] = [jsonfile.as_before(fill, ADDED) for fill in body["fills"]]
    return jsonfile.as_before(body, {"drawn_on": "", "base": "own", "buffers": []})


def _from_data(data: dict[str, Any], what: str, path: str) -> Plan:
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
    provenance = data.get("provenance")
    made_with = provenance.get("autoinit", "") if isinstance(provenance, dict) else ""
    beside = data.get("values")
    if beside is not None and (not isinstance(beside, str) or Path(beside).name != beside):
        raise PlanFileError(f"{what} is damaged: its 'values' name no file beside it.")
    return Plan(
        recipe=jsonfile.from_data(Recipe, body["recipe"], PlanFileError, what),
        seed=jsonfile.from_data(int, body["seed"], PlanFileError, what),
        fills=tuple(jsonfile.from_data(Fill, fill, PlanFileError, what) for fill in body["fills"]),
        drawn_with=jsonfile.from_data(str, body.get("drawn_with", ""), PlanFileError, what),
        drawn_on=jsonfile.from_data(str, body.get("drawn_on", ""), PlanFileError, what),
        base=jsonfile.from_data(Base, body.get("base", "own"), PlanFileError, what),  # type: ignore[arg-type]
        buffers=jsonfile.from_data(tuple[str, ...], body.get("buffers", ()), PlanFileError, what),
        given=None if beside is None else SavedValues(Path(path).parent / beside, path),
        notes=jsonfile.from_data(tuple[str, ...], body.get("notes", ()), PlanFileError, what),
        made_with=made_with if isinstance(made_with, str) else "",
    )
