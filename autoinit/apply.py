"""Setting a model's weights as a plan says: the same seed gives the same bits, whatever else the model holds."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .calibrations.closed_head import head_names, with_head, without_head
from .calibrations.methods import CALIBRATIONS
from .calibrations.subject import Subject
from .drawing.generators import check_draw_on
from .drawing.given import check_origins
from .drawing.members import check_measurable, is_measured, member_of, owner_drawn, unmeasured, warn_of_kept
from .drawing.memory import Drawn, Memory, room_beside
from .drawing.renewed import renewed
from .drawing.starting import started
from .drawing.weights import check_plan_fits, located, overwritten, set_weights, with_results
from .errors import RecipeError
from .graph import Graph
from .growth.sources import grown
from .inheritance.adapters import Watched
from .inheritance.checkpoints import Source
from .inheritance.starts import needs_data, worked_out
from .plans.plan import HasPlan, Plan
from .plans.rules import resolve
from .recipes.catalogue import NAMED, as_recipe, entry_name
from .recipes.recipe import Recipe
from .seeds import check_member, check_seed
from .task.checks import unwrap
from .task.task import Task, example_task
from .tracing.choices import keep_choices
from .tracing.tracing import trace, trace_task

Rewind = Callable[[Collection[nn.Parameter]], None]


def apply_plan(model: nn.Module, plan: Plan, memory: Memory | None = None) -> None:
    """Sets the weights of an unwrapped model as the plan says, in place.

    Args:
        model: whose parameters are set.
        plan: made for this architecture.
        memory: costly draws are looked up there, and added to it; the bits are the same without.

    Raises:
        PlanMismatchError: the plan names other parameters than the model has; nothing is changed.
    """
    check_plan_fits(model, plan)
    set_weights(model, plan, memory)


def realize(subject: Subject, plan: Plan, rewind: Rewind, memory: Memory | None = None) -> Plan:
    """Sets the weights and calibrates them; returns the plan that gives these very weights by itself.

    Args: as of `set_calibrated`.
    """
    return with_results(subject.model, set_calibrated(subject, plan, rewind, memory))


def set_calibrated(subject: Subject, plan: Plan, rewind: Rewind, memory: Memory | None = None) -> Plan:
    """Sets the weights and calibrates them; returns the plan as the calibration has changed it.

    Args:
        subject: the model and its data; only used by a calibration.
        plan: as `resolve` made it.
        rewind: puts the owner's weights and buffers back after a calibration, which has trodden on them; it may leave
            the parameters that it is given, which are set next.
        memory: of costly draws, as in `apply_plan`.
    """
    model = subject.model
    if heads := head_names(plan, subject):
        body = set_calibrated(subject, without_head(plan, heads), rewind, memory)
        return with_head(subject, body, heads)
    if plan.pending:
        plan = _worked_out(subject, plan, rewind, memory)
    if plan.recipe.calibration == "none" or plan.recipe.growth != "none":  # what is trained needs no measuring
        apply_plan(model, plan, memory)
        return plan
    check_plan_fits(model, plan)
    drawn = Drawn(room_beside(model))
    set_weights(model, plan, memory, drawn)
    targets, gradients = {fill.name: fill.scale for fill in plan.fills}, subject.task.differentiates
    subject = dataclasses.replace(subject, targets=targets, gradients=gradients)
    plan = plan.adjusted(CALIBRATIONS[plan.recipe.calibration](subject))
    rewind(overwritten(model, plan))
    set_weights(model, plan, memory, drawn)
    return plan


def _worked_out(subject: Subject, plan: Plan, rewind: Rewind, memory: Memory | None) -> Plan:
    """Returns a plan with the values that no formula gives, the model as its owner made it."""
    if plan.recipe.start != "none":
        return started(subject.model, plan, subject.task.starts)
    if plan.recipe.growth != "none":
        return grown(subject.model, plan, subject.task.source, subject.graph)

    if plan.recipe.renewal != "none":
        task, graph = subject.task, subject.graph
        return renewed(task, plan, graph, lambda: rewind(()), seed=subject.seed, spend=subject.spend, memory=memory)

    def work() -> Plan:
        whole = worked_out(subject.model, plan, subject.graph, Watched(subject.task, subject.seed, subject.spend))
        if needs_data(plan.recipe):
            rewind(())  # passes have trodden on the model
        return whole

    return work() if memory is None else memory.worked_out(plan, work)


def realize_for_good(subject: Subject, plan: Plan) -> Plan:
    """Sets the weights and calibrates them, and leaves the rest of the model as it was; returns the plan.

    What was drawn for the calibration stays: a large weight is not drawn once more. After an error nothing has changed.

    Args: as of `set_calibrated`.
    """
    with subject.task.preserved() as snapshot:
        plan = realize(subject, plan, snapshot.rewind)
        snapshot.leave(overwritten(subject.model, plan))
    set_weights(subject.model, plan, but=snapshot.left)
    return plan


def apply_(
    model: nn.Module,
    what: str | os.PathLike[str] | Recipe | Plan | HasPlan,
    data: Any = None,
    *,
    seed: int = 0,
    loss: Callable[..., Tensor] | None = None,
    step: Callable[[nn.Module, Any], Tensor] | None = None,
    draw_on: str | torch.device | None = None,
    checkpoint: Source | None = None,
    member: int = 0,
) -> Plan:
    """Sets the weights of a model in place and returns the plan of what was done.

    Name a recipe, and every parameter gets the distribution and the scale that are right for its place in the network:
    the architecture is read, the recipe is resolved for it, and the weights are drawn. Nothing is trained, nor
    searched. It takes a forward pass and a pass over the weights; a recipe with a calibration takes the passes that
    `catalogue()` tells.

    Only values of parameters change; buffers, modes, gradients and random states stay. What is frozen, or was set on
    purpose (weights of zeros, constant biases), is kept, and the plan says so: each parameter has its reason there. A
    frozen copy of weights that are drawn, as a target network is, stays equal to them.

    A plan, a selection or a saved plan gives the weights that it stands for: what it draws is the same in every
    instance of the model, bit for bit; what it keeps or rescales is the instance's own.

    Args:
        model: The parameters of this module are set. Wrappers of torch.compile and of data parallelism are looked
            through; on the meta device the plan is all that comes of it.
        what: This says what to draw: the name of a recipe ("he_normal"; `catalogue()` lists them), a `Recipe`, a
            `Plan`, a `Selection`, or the path of a saved plan.
        data: The architecture is read from one batch of this: batches, (X, y) with X of shape (rows, …) and y of shape
            (rows,) or (rows, …), or one example input. None means that transformers' `dummy_inputs` are used, or else
            that the module tree is read, which sees no residual branches and no functional calls. A calibration needs
            data; a plan does not use them.
        seed: This whole number decides the draws, each by the parameter's name. A plan has a seed of its own.
        loss: This callable (output, target) -> scalar tensor is the loss. None means that it is inferred, as in
            `select`.
        step: This callable (model, batch) -> scalar takes the place of `loss`, for whatever else trains by one loss.
        draw_on: The random numbers are made on the device of each parameter, "cpu" or "cuda", whose numbers differ;
            a plan's are made where it was drawn, if this machine has such a device. "cpu" makes them on the CPU
            wherever the model lies: bits that travel, at the CPU's speed.
        checkpoint: The model holds trained weights of this, of the kinds that `select` takes: what it has stays, bit
            for bit, and what it lacks is set. None means that none is known. A plan does not use it.
        member: This whole number tells the members of an ensemble apart: 0 is the draw itself, and each other one an
            independent draw of the same choice, with other random numbers for every weight that is drawn. A plan that
            was measured on its draw (a calibration) is measured anew, and takes `data`, `loss` and `step`. What is kept
            as your own code drew it is the same in all copies of a model, of which you are warned.

    Returns:
        A `Plan`, a mapping from the parameter's name to its `Fill`. Print it for the table of what was drawn and why,
        `save(path)` it to get the same weights again, and take `param_groups(model, lr)` from it for the learning rates
        of μP.

    Raises:
        RecipeError: The name is unknown, the recipe is for other architectures, or a calibration is given no data.
        ArgumentError: The seed is out of range, or `draw_on` names no device that is here.
        ModelError: The model is no module, nothing of it is trainable, or the loss reaches no parameter.
        StepError: The loss or the step cannot be called, or returns no scalar.
        DataError: The model cannot take the data, or a calibration cannot measure on them (NaN, infinity).
        CalibrationError: The model cannot be differentiated twice, where a calibration needs that.
        PlanFileError: A plan file cannot be read.
        SourceError: The checkpoint cannot be read, or is of another architecture.
        PlanMismatchError: A plan is of another architecture. After this and any other error the model is unchanged.

    Example:
        >>> import autoinit
        >>> from sklearn.datasets import load_iris
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> plan = autoinit.apply_(model, "he_normal", load_iris(return_X_y=True))
        >>> print(plan)
        he_normal, seed 0
        <BLANKLINE>
        parameter  shape  role    draw      std or value  why
        ─────────  ─────  ──────  ────────  ────────────  ────────────────────────────────
        0.weight   16×4   input   normal           0.707  He for relu: std = √2/√4 = 0.707
        0.bias     16     bias    constant             0  biases start at zero
        2.weight   3×16   output  normal            0.25  He: std = 1/√16 = 0.25
        2.bias     3      bias    constant             0  biases start at zero
        <BLANKLINE>
        Sets 4 and rescales 0 of 4 parameters (100 % of 131 values); keeps 0.
    """
    inner, kind = unwrap(model), check_draw_on(draw_on)
    check_member(member)
    plan, look = as_plan(what), _Look(data, loss, step, checkpoint)
    if plan is None:
        plan = _apply_recipe(inner, as_recipe(what), look, seed, kind, member)
    else:
        check_plan_fits(inner, plan)
        check_origins(inner, plan)
        plan = _apply_plan(inner, located(plan, kind), look, member)
    if member:
        warn_of_kept(owner_drawn(inner, plan))
    return plan


@dataclass(frozen=True, slots=True)
class _Look:
    """What a model is read from: the data, the loss or the step, and the trained weights that it holds."""

    data: Any
    loss: Callable[..., Tensor] | None
    step: Callable[[nn.Module, Any], Tensor] | None
    checkpoint: Source | None

    def graph(self, model: nn.Module) -> Graph:
        """Returns the architecture, with what must stay."""
        return keep_choices(model, trace(model, self.data, loss=self.loss, step=self.step), self.checkpoint)

    def task(self, model: nn.Module) -> tuple[Task, Graph]:
        """Returns what outputs, gradients and the frequency of labels are measured on, and the architecture."""
        task = example_task(model, self.data, loss=self.loss, step=self.step, whole=True)
        return task, keep_choices(task.model, trace_task(task), self.checkpoint)


def _apply_recipe(model: nn.Module, recipe: Recipe, look: _Look, seed: int, kind: str, member: int) -> Plan:
    check_seed(seed)
    measured = recipe.calibration != "none" or needs_data(recipe)
    if measured and look.data is None:
        raise RecipeError(f"Recipe {recipe.key!r} is calibrated on data. Pass data=, batches or one example input.")

    def resolved(graph: Graph) -> Plan:
        plan = dataclasses.replace(resolve(recipe, graph, seed=seed), drawn_on=kind)
        return member_of(model, plan, member)

    if measured or (recipe.head_bias == "label_prior" and look.data is not None):
        task, graph = look.task(model)
        plan = resolved(graph)
        return realize_for_good(Subject(task, graph, seed=plan.seed), plan)
    graph = look.graph(model)
    plan = worked_out(model, resolved(graph), graph)
    apply_plan(model, plan)
    return with_results(model, plan)


def _apply_plan(model: nn.Module, plan: Plan, look: _Look, member: int) -> Plan:
    if member and is_measured(plan):
        check_measurable(model, plan, member, look.data)
        task, graph = look.task(model)
        plan, graph = unmeasured(plan, graph)
        plan = member_of(model, plan, member)
        return realize_for_good(Subject(task, graph, seed=plan.seed), plan)
    plan = member_of(model, plan, member)
    set_weights(model, plan)
    return with_results(model, plan) if member else plan


def as_plan(what: object) -> Plan | None:
    """Returns the plan that `what` is, holds, or is the path of; None where it is a recipe or its name."""
    if isinstance(what, Plan):
        return what
    if isinstance(what, HasPlan):
        return what.plan
    if isinstance(what, os.PathLike) or (isinstance(what, str) and _is_path(what)):
        return Plan.load(what)
    return None


def _is_path(name: str) -> bool:
    """Whether a text names a file and not a recipe."""
    if entry_name(name) in NAMED:
        return False
    return name.endswith(".json") or os.sep in name or os.path.exists(name)
