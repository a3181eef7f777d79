"""Members of an ensemble: the plan of another draw of the same choice, and in words what is the same in all of them."""

from __future__ import annotations

import dataclasses
import math
import warnings

from torch import nn

from ..errors import ArgumentError, PlanMismatchError, RecipeError
from ..graph import Graph
from ..plans.fill import Fill
from ..plans.inherited import OUT_OF_REACH
from ..plans.plan import Plan
from ..plans.rules import resolve
from ..recipes.inherited import CLOSED_HEADS
from ..recipes.recipe import Recipe
from ..seeds import seed_of_member
from ..task.assign import digest, read
from ..text import few

FIXED = frozenset({"keep", "constant", "copy", "remainder", "identity", "hadamard"})
"""Distributions without a random number of the plan's."""
DRAWN_ADAPTERS = frozenset({"orthogonal"})
"""Starts of adapters whose values are worked out with random numbers."""
DRAWN_ROWS = frozenset({"mean_cov", "small"})
"""The same of new rows of tables."""
_ANEW = "make its model anew under another seed of torch's (torch.manual_seed(k), then your own constructor)"


def member_of(model: nn.Module, plan: Plan, member: int) -> Plan:
    """Returns the plan of one member: other random numbers by a seed of its own, all else as it is.

    Args:
        model: that it is for, with its owner's weights in place; it is only read.
        plan: of member 0, nothing in it measured or worked out on that one's weights.
        member: its number; the plan itself is returned for 0.

    Raises:
        ArgumentError: the member would be the same as every other one.
    """
    if member == 0:
        return plan
    if plan.given is not None:
        raise _settled(plan, member)
    if not any(_is_drawn(fill, plan.recipe) for fill in plan.fills):
        raise _all_alike(model, plan, member)
    seed = seed_of_member(plan.seed, member)
    notes = (*plan.notes, f"Member {member} of the draws under seed {plan.seed}: other numbers of the same recipe.")
    if same := owner_drawn(model, plan):
        notes = (*notes, _told(same))
    return dataclasses.replace(plan, seed=seed, notes=notes)


def is_measured(plan: Plan) -> bool:
    """Whether a part of a plan is measured on the very weights that it draws: a calibration, a head in closed form."""
    return plan.recipe.calibration != "none" or plan.recipe.head in CLOSED_HEADS


def check_measurable(model: nn.Module, plan: Plan, member: int, data: object) -> None:
    """Checks that a member of a plan can be measured on a model.

    Raises:
        ArgumentError: the plan's values are not of a draw and data alone.
        RecipeError: there are no data.
        PlanMismatchError: the model's own weights are rescaled by this very plan already.
    """
    if plan.given is not None and not _by_data_alone(plan.recipe):
        raise _settled(plan, member)
    if data is None:
        raise RecipeError(
            f"Recipe {plan.recipe.key!r} is calibrated on data, and what the plan holds was measured on its own draw: "
            f"another one is measured anew. Pass data too: apply_(model, plan, data, member={member})."
        )
    rescaled = (fill for fill in plan.fills if fill.distribution == "keep" and fill.result)
    if again := [fill.name for fill in rescaled if digest(read(model, fill.name)) == fill.result]:
        raise PlanMismatchError(
            f"The model carries this plan's member 0, and {few(again)} would be rescaled once more. For each member "
            f"{_ANEW}."
        )


def unmeasured(plan: Plan, graph: Graph) -> tuple[Plan, Graph]:
    """Returns a plan as it was before it was measured, for another draw, and the graph in which it keeps what it kept.

    Args:
        plan: that was measured.
        graph: of the model, as it is read now.

    Raises:
        PlanMismatchError: the model is read otherwise than when the plan was made.
    """
    graph = graph.keeping({fill.name: fill.reason for fill in plan.fills if fill.untouched})
    fresh = resolve(plan.recipe, graph, seed=plan.seed)
    missing = sorted({*plan} ^ {*fresh})
    if other := missing or [name for name in plan if not _is_same_draw(plan[name], fresh[name])]:
        raise PlanMismatchError(
            f"With these data the model is read otherwise than when the plan was made: {few(other)}. Pass the data and "
            "the loss that it was made with, or apply its recipe: apply_(model, plan.recipe, data, member=k)."
        )
    return dataclasses.replace(fresh, drawn_on=plan.drawn_on), graph


def owner_drawn(model: nn.Module, plan: Plan) -> list[str]:
    """Returns the parameters that a plan keeps and that hold random numbers of their owner's, to be trained.

    No plan can draw those anew. What is frozen, trained already or left out by name stays on purpose.
    """
    kept = (fill for fill in plan.fills if fill.distribution == "keep" and not fill.reason.startswith(OUT_OF_REACH))
    return [fill.name for fill in kept if _is_random(model, fill)]


def warn_of_kept(names: list[str]) -> None:
    """Warns that some weights are the same in all members, on behalf of the caller's caller."""
    if names:
        warnings.warn(_told(names), UserWarning, stacklevel=3)


def _told(names: list[str]) -> str:
    few_of_them = f"{few(names)} {'are' if len(names) > 1 else 'is'}"
    return (
        f"{few_of_them} kept as drawn by your own code, the same in all copies of one model: for each member, {_ANEW}."
    )


def _is_drawn(fill: Fill, recipe: Recipe) -> bool:
    """Whether a parameter gets other numbers under another seed."""
    if fill.distribution != "given":
        return fill.distribution not in FIXED and fill.std != 0.0
    return recipe.renewal != "none" or recipe.adapter in DRAWN_ADAPTERS or recipe.rows in DRAWN_ROWS


def _is_random(model: nn.Module, fill: Fill) -> bool:
    """Whether the values of a parameter are several: of one without values, whether it is no vector."""
    tensor = read(model, fill.name)
    if tensor.is_meta or not tensor.numel():
        return len(fill.shape) > 1 and bool(fill.size)
    return bool((tensor != tensor.flatten()[0]).any())


def _is_same_draw(old: Fill, new: Fill) -> bool:
    """Whether a parameter's draw, before any measurement, is what it was; its values may have been measured since."""
    if new.distribution in FIXED or new.distribution == "given":
        return old.distribution in FIXED or old.distribution == "given"
    same_std = old.std is new.std or math.isclose(old.std or 0.0, new.std or 0.0, rel_tol=1e-6)
    return old.distribution == new.distribution and same_std


def _by_data_alone(recipe: Recipe) -> bool:
    """Whether the given values of a recipe are a head's in closed form, which needs the data and the body it is on."""
    starts = (recipe.start, recipe.growth, recipe.renewal)
    return recipe.head in CLOSED_HEADS and starts == ("none",) * 3 and (recipe.adapter, recipe.rows) == ("same",) * 2


def _settled(plan: Plan, member: int) -> ArgumentError:
    """Returns what is raised for a plan whose values are worked out, once for all."""
    recipe, begun = plan.recipe, f"member={member}, but the plan holds values that are worked out"
    if recipe.start != "none":
        return ArgumentError(
            f"{begun}, those of {recipe.start}: every member would start from the same. Make another one for each: "
            "meta_learn(…, seed=k) or ticket(…, seed=k)."
        )
    if recipe.growth != "none":
        return ArgumentError(
            f"{begun}, from a source: every member would take after it alike. Grow each by itself: "
            "inherit_(model, source, noise=…, seed=k)."
        )
    return ArgumentError(
        f"{begun}, from trained weights. Load those into the model and apply the recipe in the place of the plan: "
        f"apply_(model, plan.recipe, data, seed={plan.seed}, member={member})."
    )


def _all_alike(model: nn.Module, plan: Plan, member: int) -> ArgumentError:
    """Returns what is raised for a plan without a random number of its own."""
    begun = f"member={member} would be the same as every other: "
    kept = all(fill.untouched for fill in plan.fills)
    what = "the plan keeps all weights as they are" if kept else f"recipe {plan.recipe.key!r} draws nothing at random"
    anew = f"For each member {_ANEW}, and leave `member` out; or pass" if owner_drawn(model, plan) else "Pass"
    for_example = f", as in apply_(model, 'he_normal', data, member={member})" if plan.base == "own" else ""
    return ArgumentError(f"{begun}{what}. {anew} a recipe that draws{for_example}; catalogue() lists all.")
