"""Which learning rate each parameter gets: the family of an optimizer, and parameters matched to their fills."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

from .. import text
from ..errors import OptimizerError, PlanMismatchError, did_you_mean
from .fill import Fill

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


def matched(plan: Mapping[str, Fill], parameters: Iterable[tuple[str, Any]]) -> list[tuple[Any, Fill]]:
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


def _planned_name(name: str, plan: Mapping[str, Fill]) -> str:
    """Returns what a plan calls a parameter: without wrappers, "0.weight" for "0.parametrizations.weight.original0"."""
    path, between, attribute = f".{name}".partition(_PARAMETRIZED)
    name = f"{path}.{attribute.partition('.')[0]}"[1:] if between else name
    for wrapper in _WRAPPERS * 2:
        if name not in plan:
            name = name.removeprefix(wrapper)
    return name


def decayed(options: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Returns a group's options, in which lr × weight_decay is what it is at the base width."""
    decay = {"weight_decay": options["weight_decay"] / factor} if "weight_decay" in options else {}
    return {**options, **decay}
