"""One optimizer for two models of one kind: of the parameters of either, it is made anew for the other."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from ..errors import OptimizerError
from ..task.assign import derived_name
from ..task.optimizers import inner_optimizer, rebuilt
from ..text import numberless


def optimizers_of(model: nn.Module, proxy: nn.Module, optimizer: Any) -> tuple[Any, Any]:
    """Returns what makes an optimizer for a model, and what makes one for its proxy.

    What makes an optimizer of given parameters suits both, and so does None. An Optimizer holds the parameters of one
    of the two, and its counterpart has the same class, the same groups and the same options.

    Args:
        model: unwrapped.
        proxy: unwrapped.
        optimizer: as of `select`.

    Raises:
        OptimizerError: to which group a parameter of the other model belongs cannot be told.
    """
    given = inner_optimizer(optimizer)
    if not isinstance(given, Optimizer):
        return optimizer, optimizer
    held = {id(parameter) for group in given.param_groups for parameter in group["params"]}
    if held <= {id(parameter) for parameter in model.parameters()}:
        return given, counterpart(given, model, proxy)
    if held <= {id(parameter) for parameter in proxy.parameters()}:
        return counterpart(given, proxy, model), given
    return given, given  # a parameter of neither: whoever builds it says so


def counterpart(optimizer: Optimizer, owner: nn.Module, other: nn.Module) -> Optimizer:
    """Returns an optimizer of another model's parameters, with the class, groups and options of a given one.

    A parameter goes into the group in which the owner's of the same name is; one of a further layer where the owner's
    layers of that name, whatever their numbers, all are. What is in no group there is in none here.

    Args:
        optimizer: of the owner's parameters.
        owner: a model.
        other: one of the same kind, with fewer or more layers.

    Raises:
        OptimizerError: layers of one name are in several groups, and none of them is that of a parameter.
    """
    places = {
        id(parameter): place for place, group in enumerate(optimizer.param_groups) for parameter in group["params"]
    }
    exact = {derived_name(name): places.get(id(parameter)) for name, parameter in owner.named_parameters()}
    alike: dict[str, set[int | None]] = {}
    for name, place in exact.items():
        alike.setdefault(numberless(name), set()).add(place)
    groups: list[list[nn.Parameter]] = [[] for _ in optimizer.param_groups]
    for name, parameter in other.named_parameters():
        if parameter.requires_grad and (place := _place(derived_name(name), exact, alike)) is not None:
            groups[place].append(parameter)
    return rebuilt(optimizer, groups)


def _place(name: str, exact: dict[str, int | None], alike: dict[str, set[int | None]]) -> int | None:
    """Returns the group of a parameter; None where it is in none."""
    if name in exact:
        return exact[name]
    found = alike.get(numberless(name), set())
    if len(found) != 1:
        said = "no layer of its name is there" if not found else f"layers of its name are in {len(found)} groups"
        raise OptimizerError(
            f"The optimizer holds the parameters of one of the two models, and to which group {name!r} of the other "
            f"belongs cannot be told: {said}. Pass what makes an optimizer of given parameters: optimizer=callable."
        )
    return next(iter(found))
