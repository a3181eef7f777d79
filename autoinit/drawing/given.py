"""Setting what no formula gives: values that stand beside a plan, and weights less what their adapter adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..errors import PlanFileError, PlanMismatchError
from ..plans.fill import Fill
from ..plans.plan import Plan
from ..task.assign import assign_all, digest, read
from ..text import few

GIVEN = ("given", "remainder")
"""Distributions of fills that are set here, after what is drawn."""


def checked_values(model: nn.Module, plan: Plan, fills: Sequence[Fill]) -> dict[str, Tensor]:
    """Returns the given values that a model does not hold yet, by name.

    Args:
        model: that is about to be set.
        plan: whose values are worked out.
        fills: of the plan, all that are to be set.

    Raises:
        PlanFileError: the file beside the plan is missing, or its values are not those that the plan was saved with.
    """
    if plan.given is None:
        return {}
    wanted = [fill for fill in fills if fill.distribution == "given" and not _is_set(model, fill)]
    values = {fill.name: _checked(fill, plan.given.tensor(fill.name)) for fill in wanted}
    return values | {name: plan.given.tensor(name) for name in plan.buffers}


def set_given(model: nn.Module, values: Mapping[str, Tensor], fills: Sequence[Fill]) -> None:
    """Sets given values, and then those fills that are a remainder beside them, in place.

    What holds already what the plan says is left: to take from a weight twice would be wrong.

    Args:
        model: with its owner's weights where something is taken from them.
        values: from `checked_values`.
        fills: of the plan, all that are to be set.
    """
    assign_all(model, values)
    for fill in fills:
        if fill.distribution == "remainder" and not _is_set(model, fill):
            weight = read(model, fill.name)
            weight.copy_((weight.double() - _added(model, fill)).to(weight.dtype))


def check_origins(model: nn.Module, plan: Plan) -> None:
    """Raises PlanMismatchError where a plan takes from weights that are other ones than those it was made for.

    Args:
        model: that the plan is about to be applied to.
        plan: with fingerprints of what it took from.
    """
    taken = [fill for fill in plan.fills if fill.distribution == "remainder" and fill.origin]
    if other := [fill.name for fill in taken if digest(read(model, fill.name)) not in (fill.origin, fill.result)]:
        raise PlanMismatchError(
            f"The plan takes from trained weights that are others here: {few(other)}. Load the weights that it was "
            "made for, or apply its recipe to these: apply_(model, plan.recipe, data)."
        )


@torch.no_grad()
def give_back(model: nn.Module, plan: Plan) -> list[str]:
    """Gives to each weight what a plan has taken from it, and returns the names of those that hold their old bits.

    Args:
        model: that the plan was applied to.
        plan: with its values.

    Raises:
        PlanMismatchError: a weight is neither what the plan made of it nor what it was before; nothing is changed.
        PlanFileError: the file beside the plan cannot be used.
    """
    taken = [fill for fill in plan.fills if fill.distribution == "remainder" and fill.origin]
    states = {fill.name: digest(read(model, fill.name)) for fill in taken}
    if other := [fill.name for fill in taken if states[fill.name] not in (fill.result, fill.origin)]:
        raise PlanMismatchError(
            f"The plan was not applied to these weights, or they were trained since: {few(other)}. Load the weights "
            "that it was made for."
        )
    back = [fill for fill in taken if states[fill.name] == fill.result != fill.origin]
    values = {name: _of(plan, name) for fill in back for name in fill.less}
    for fill in back:
        weight, (up, down) = read(model, fill.name), (values[name].to(read(model, name).device) for name in fill.less)
        weight.copy_((weight.double() + _product(fill, up, down)).to(weight.dtype))
        if torch.equal(read(model, fill.less[0]).detach().cpu(), values[fill.less[0]]):
            read(model, fill.less[0]).zero_()  # it was not trained: beside the old weight it is to add nothing
    return [fill.name for fill in back if digest(read(model, fill.name)) == fill.origin]


def _of(plan: Plan, name: str) -> Tensor:
    """Returns the given value of a parameter of a plan."""
    if plan.given is None:
        raise PlanMismatchError("The plan has no values beside it: it was never worked out.")
    return _checked(plan[name], plan.given.tensor(name))


def _is_set(model: nn.Module, fill: Fill) -> bool:
    return bool(fill.result) and digest(read(model, fill.name)) == fill.result


def _checked(fill: Fill, value: Tensor) -> Tensor:
    if tuple(value.shape) != fill.shape:
        raise PlanFileError(f"The values beside the plan have another shape for {fill.name}: {tuple(value.shape)}.")
    if fill.result and digest(value) != fill.result:
        raise PlanFileError(
            f"The values beside the plan are not those that it was saved with ({fill.name}). Copy both files together."
        )
    return value


def _added(model: nn.Module, fill: Fill) -> Tensor:
    """Returns what an adapter adds to a weight at the start, in the weight's own layout."""
    up, down = (read(model, name) for name in fill.less)
    return _product(fill, up, down)


def _product(fill: Fill, up: Tensor, down: Tensor) -> Tensor:
    product = fill.scale * (up.double().flatten(1) @ down.double().flatten(1))
    return (product.T if fill.out_axes == (1,) else product).reshape(fill.shape)
