"""Setting a model's weights as a plan says: the same seed gives the same bits, whatever else the model holds."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .calibrations.methods import CALIBRATIONS
from .calibrations.subject import Subject
from .errors import PlanMismatchError, RecipeError
from .initializers.draws import COSTLY, DRAWS
from .initializers.geometry import Geometry
from .initializers.recurrent import chrono_
from .plans.fill import Fill
from .plans.plan import HasPlan, Plan
from .plans.rules import resolve
from .recipes.catalogue import NAMED, as_recipe, entry_name
from .recipes.recipe import Recipe
from .seeds import check_seed, seed_of_parameter
from .task.assign import assign, is_parametrized, padding_rows, read, shapes
from .task.checks import unwrap
from .task.machine import using_threads
from .task.task import Task, example_task
from .text import few
from .tracing.choices import keep_choices
from .tracing.tracing import trace, trace_task
from .version import __version__

Memory = dict[tuple[int, str, str], Tensor]
"""Costly draws of unit std by seed, parameter name and distribution: a search makes each of them once."""

LARGEST_REMEMBERED = 2**20
"""Entries of a tensor above which a costly draw is rather made again than remembered; of all plain draws together."""


class _Drawn:
    """The draws of a plan before any factor: of the plan that a calibration makes of it they are the same."""

    def __init__(self) -> None:
        self._values: dict[str, Tensor] = {}
        self._room = LARGEST_REMEMBERED

    def fill(self, tensor: Tensor, name: str) -> bool:
        """Fills a tensor with the draw of a parameter, and returns whether it is there."""
        known = self._values.get(name)
        if known is not None:
            tensor.copy_(known)
        return known is not None

    def remember(self, tensor: Tensor, name: str) -> None:
        """Keeps a copy of a draw, as long as there is room."""
        if tensor.numel() <= self._room:
            self._values[name] = tensor.clone()
            self._room -= tensor.numel()


def apply_plan(model: nn.Module, plan: Plan, memory: Memory | None = None) -> None:
    """Sets the weights of an unwrapped model as the plan says, in place.

    Draws are made on the CPU, in float32 (float64 for float64 parameters), and then cast and copied, so that
    the bits do not depend on the device. Parameters on the meta device are passed over.

    Args:
        model: whose parameters are set.
        plan: made for this architecture.
        memory: costly draws are looked up there, and added to it; the bits are the same without.

    Raises:
        PlanMismatchError: the plan names other parameters than the model has; nothing is changed.
    """
    check_plan_fits(model, plan)
    _set_all(model, plan, {} if memory is None else memory)


def _set_all(model: nn.Module, plan: Plan, memory: Memory, drawn: _Drawn | None = None) -> None:
    """Sets the weights as a plan says that fits the model; what has been drawn is not drawn again."""
    padding = padding_rows(model)
    with torch.no_grad():
        for fill in plan.fills:
            if not (fill.untouched or fill.copy_of):
                _set(model, fill, plan.seed, memory, drawn, padding.get(fill.name))
        for fill in plan.fills:
            if fill.copy_of and not read(model, fill.name).is_meta:
                assign(model, fill.name, read(model, fill.copy_of))


def check_plan_fits(model: nn.Module, plan: Plan) -> None:
    """Raises PlanMismatchError, naming missing, extra and differently shaped parameters."""
    present = shapes(model)
    problems = []
    if extra := [name for name in plan if name not in present]:
        problems.append(f"the model has no {few(extra, 5)}")
    if missing := [name for name in present if name not in plan]:
        problems.append(f"the plan says nothing about {few(missing, 5)}")
    differ = [name for name in plan if name in present and plan[name].shape != present[name]]
    if differ:
        shown = [f"{name} (plan {plan[name].shape}, model {present[name]})" for name in differ]
        problems.append(f"shapes differ: {few(shown, 5)}")
    if lost := [name for name, fill in plan.items() if not _is_placed(fill, present)]:
        problems.append(f"there is nothing to copy to {few(lost, 5)}")
    if problems:
        raise PlanMismatchError(
            f"The plan does not fit the model: {'; '.join(problems)}. "
            "Apply it to the architecture that it was made for, or apply its recipe: apply_(model, plan.recipe)."
        )


def _is_placed(fill: Fill, present: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a copy has an original of its shape, and nothing else has one."""
    if fill.distribution != "copy":
        return not fill.copy_of
    return present.get(fill.copy_of) == fill.shape


def _set(
    model: nn.Module, fill: Fill, seed: int, memory: Memory, drawn: _Drawn | None, padding: int | None = None
) -> None:
    target = read(model, fill.name)
    if target.is_meta or target.numel() == 0 or (fill.result and digest(target) == fill.result):
        return
    if not is_parametrized(model, fill.name) and _drawable(target):
        _fill(target, fill, seed, memory, drawn, padding)
        return
    dtype = target.dtype if target.dtype == torch.float64 or target.is_complex() else torch.float32
    if fill.distribution == "keep":
        value = target.detach().to("cpu", dtype, copy=True)
    else:
        value = torch.empty(target.shape, dtype=dtype)
    _fill(value, fill, seed, memory, drawn, padding)
    if is_parametrized(model, fill.name):
        assign(model, fill.name, value.to(target.device, target.dtype))
    else:
        target.copy_(value)  # casts on the way, without a copy in between


def digest(tensor: Tensor) -> str:
    """Returns a short fingerprint of a tensor's bits."""
    content = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(content.numpy().tobytes(), digest_size=8).hexdigest()


def _drawable(target: Tensor) -> bool:
    """Whether a draw in place gives the bits that a draw into a fresh CPU tensor would."""
    return target.device.type == "cpu" and target.is_contiguous() and target.dtype in (torch.float32, torch.float64)


def _fill(
    tensor: Tensor, fill: Fill, seed: int, memory: Memory, drawn: _Drawn | None, padding: int | None = None
) -> None:
    geometry = Geometry(
        fill.out_axes or (0,),
        fill.in_axes,
        fill.groups,
        fill.slices,
        fill.kernel_axes,
        fill.heads,
        interleaved=fill.interleaved,
    )
    if fill.distribution == "constant":
        _fill_constant(tensor, fill, geometry)
    elif fill.distribution == "chrono":
        chrono_(tensor, geometry, int(fill.values[0]), _generator(seed, fill))
    elif fill.distribution != "keep" and not (drawn and drawn.fill(tensor, fill.name)):
        _draw(tensor, fill, geometry, seed, memory)
        if drawn:
            drawn.remember(tensor, fill.name)
    if fill.slice_factors:
        for part, factor in zip(geometry.slice_views(tensor), fill.slice_factors, strict=False):
            part.mul_(factor)
    if fill.channel_factors:
        geometry.scale_rows_(tensor, torch.tensor(fill.channel_factors))
    if fill.factor != 1.0:
        tensor.mul_(fill.factor)
    if padding is not None:
        tensor[padding] = 0.0


def _draw(tensor: Tensor, fill: Fill, geometry: Geometry, seed: int, memory: Memory) -> None:
    """Fills a tensor with the draw of a fill, before its factors.

    The two parts of a complex tensor are drawn by themselves, half of the variance each.
    """
    if tensor.is_complex():
        for part, name in ((tensor.real, fill.name), (tensor.imag, f"{fill.name} (imaginary)")):
            drawn = torch.empty(tensor.shape, dtype=part.dtype)
            stream = fill.stream and f"{fill.stream}{name.removeprefix(fill.name)}"
            _draw(drawn, dataclasses.replace(fill, name=name, stream=stream), geometry, seed, memory)
            part.copy_(drawn.mul_(math.sqrt(0.5)))
        return
    std = 1.0 if fill.std is None else fill.std
    if fill.distribution in COSTLY:
        _draw_costly(tensor, fill, geometry, seed, memory)
        tensor.mul_(std)
    else:
        DRAWS[fill.distribution](tensor, geometry, std, _generator(seed, fill))


def _draw_costly(tensor: Tensor, fill: Fill, geometry: Geometry, seed: int, memory: Memory) -> None:
    """Fills a tensor with the draw of std 1, remembered or new."""
    key = (seed, fill.name, fill.distribution)
    if key in memory:
        tensor.copy_(memory[key])
        return
    with using_threads(1):  # decompositions round by the number of threads, and a plan gives the same bits on any
        DRAWS[fill.distribution](tensor, geometry, 1.0, _generator(seed, fill))
    if tensor.numel() <= LARGEST_REMEMBERED:
        memory[key] = tensor.clone()


def _generator(seed: int, fill: Fill) -> torch.Generator:
    """Returns the generator of one parameter, or of the ones that share a stream."""
    return torch.Generator().manual_seed(seed_of_parameter(seed, fill.stream or fill.name))


def _fill_constant(tensor: Tensor, fill: Fill, geometry: Geometry) -> None:
    if len(fill.values) == tensor.numel():
        tensor.copy_(torch.tensor(fill.values, dtype=tensor.dtype).reshape(tensor.shape))
    elif len(fill.values) == 1:
        tensor.fill_(fill.values[0])
    else:
        for part, value in zip(geometry.slice_views(tensor), fill.values, strict=True):
            part.fill_(value)


def realize(subject: Subject, plan: Plan, rewind: Callable[[], None], memory: Memory | None = None) -> Plan:
    """Sets the weights and calibrates them; returns the plan that gives these very weights by itself.

    Args: as of `set_calibrated`.
    """
    return with_results(subject.model, set_calibrated(subject, plan, rewind, memory))


def set_calibrated(subject: Subject, plan: Plan, rewind: Callable[[], None], memory: Memory | None = None) -> Plan:
    """Sets the weights and calibrates them; returns the plan as the calibration has changed it.

    Args:
        subject: the model and its data; only used by a calibration.
        plan: as `resolve` made it.
        rewind: puts the owner's weights and buffers back; called after a calibration, which has trodden on them.
        memory: of costly draws, as in `apply_plan`.
    """
    model = subject.model
    if plan.recipe.calibration == "none":
        apply_plan(model, plan, memory)
        return plan
    check_plan_fits(model, plan)
    memory, drawn = {} if memory is None else memory, _Drawn()
    _set_all(model, plan, memory, drawn)
    targets, gradients = {fill.name: fill.scale for fill in plan.fills}, subject.task.differentiates
    subject = dataclasses.replace(subject, targets=targets, gradients=gradients)
    plan = plan.adjusted(CALIBRATIONS[plan.recipe.calibration](subject))
    rewind()
    _set_all(model, plan, memory, drawn)
    return plan


def with_results(model: nn.Module, plan: Plan) -> Plan:
    """Returns the plan of a model's present weights with what they were drawn with, and what rescaled ones have become.

    By that an owner's draw that carries the plan's factors already is told from a fresh one, and not rescaled again.
    """
    fills = tuple(_with_result(model, fill) for fill in plan.fills)
    return dataclasses.replace(plan, fills=fills, drawn_with=f"autoinit {__version__}, torch {torch.__version__}, cpu")


def _with_result(model: nn.Module, fill: Fill) -> Fill:
    if fill.untouched or fill.distribution != "keep":
        return fill
    tensor = read(model, fill.name)
    return fill if tensor.is_meta else dataclasses.replace(fill, result=digest(tensor))


def apply_(
    model: nn.Module,
    what: str | os.PathLike[str] | Recipe | Plan | HasPlan,
    data: Any = None,
    *,
    seed: int = 0,
    loss: Callable[..., Tensor] | None = None,
    step: Callable[[nn.Module, Any], Tensor] | None = None,
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

    Returns:
        A `Plan`, a mapping from the parameter's name to its `Fill`. Print it for the table of what was drawn and why,
        `save(path)` it to get the same weights again, and take `param_groups(model, lr)` from it for the learning rates
        of μP.

    Raises:
        RecipeError: The name is unknown, the recipe is for other architectures, or a calibration is given no data.
        ArgumentError: The seed is out of range.
        ModelError: The model is no module, nothing of it is trainable, or the loss reaches no parameter.
        StepError: The loss or the step cannot be called, or returns no scalar.
        DataError: The model cannot take the data, or a calibration cannot measure on them (NaN, infinity).
        CalibrationError: The model cannot be differentiated twice, where a calibration needs that.
        PlanFileError: A plan file cannot be read.
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
    inner = unwrap(model)
    plan = _as_plan(what)
    if plan is not None:
        apply_plan(inner, plan)
        return plan
    recipe = as_recipe(what)
    check_seed(seed)
    if recipe.calibration != "none" and data is None:
        raise RecipeError(f"Recipe {recipe.key!r} is calibrated on data. Pass data=, batches or one example input.")
    if recipe.calibration != "none" or (recipe.head_bias == "label_prior" and data is not None):
        return _apply_measured(example_task(inner, data, loss=loss, step=step, whole=True), recipe, seed)
    plan = resolve(recipe, keep_choices(inner, trace(inner, data, loss=loss, step=step)), seed=seed)
    apply_plan(inner, plan)
    return with_results(inner, plan)


def _as_plan(what: object) -> Plan | None:
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


def _apply_measured(task: Task, recipe: Recipe, seed: int) -> Plan:
    """Applies a recipe that looks at the data: at outputs and gradients, or at the frequency of labels."""
    graph = keep_choices(task.model, trace_task(task))
    plan = resolve(recipe, graph, seed=seed)
    with task.preserved() as snapshot:
        plan = realize(Subject(task, graph, seed=seed), plan, snapshot.rewind)
    apply_plan(task.model, plan)
    return plan
