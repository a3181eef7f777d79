"""Probes on a small model in the place of a large one: the same architecture, fewer layers or narrower.

What a search finds is a `Recipe`, which names roles and no parameters; so it is found on the proxy, and resolved,
calibrated and drawn for the model that the proxy stands for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from ..apply import apply_plan, realize
from ..calibrations.subject import Subject
from ..errors import AutoInitError, ModelError, OptimizerError, RecipeError
from ..graph import Globs, Graph
from ..plans.plan import Plan
from ..plans.rules import resolve
from ..recipes.catalogue import check_fits
from ..recipes.recipe import Recipe
from ..recipes.space import Dimension, Space
from ..seeds import seed_of_use
from ..task.assign import derived_name
from ..task.checks import check_trainable, unwrap
from ..task.task import Task
from ..text import numberless
from ..tracing.choices import keep_choices
from ..tracing.tracing import trace_task
from .selection import Selection

_SHALLOWER = "without skips, what suits few layers may be too much or too little for many"
"""Said of a proxy with fewer layers and no residual adds: three of ten such recipes did harm, and no other one
(docs/large_models.md)."""


@dataclass(frozen=True)
class Original:
    """The model that a proxy stands for.

    Attributes:
        task: the model with the proxy's data and loss, on the device where it is; nothing is trained on it.
        graph: its architecture; what must stay is marked.
        proxy: the proxy's architecture, likewise.
    """

    task: Task
    graph: Graph
    proxy: Graph

    @property
    def measurable(self) -> bool:
        """Whether the model has weights, to be drawn and calibrated; on the meta device it has none."""
        return self.task.device.type != "meta"

    def __str__(self) -> str:
        """Returns how small the proxy is, in words."""
        both = (self.proxy, self.graph)
        counts = [
            ("parameters", *(f"{sum(layer.size for layer in graph.layers):,}" for graph in both)),
            ("layers of weights", *(str(1 + graph.weight_depths[1] - graph.weight_depths[0]) for graph in both)),
            ("residual adds", *(str(graph.residual_adds) for graph in both)),
        ]
        shares = [f"{small} of {large} {of}" for of, small, large in counts if large != "0"]
        few = "" if self.graph.residual_adds or counts[1][1] == counts[1][2] else f"; {_SHALLOWER}"
        return (
            f"measured on a proxy of {', '.join(shares)}; gain, learning rate and steps are the proxy's, and the model "
            f"itself was not trained{few}"
        )


@contextlib.contextmanager
def proxy_meant(made: bool = False) -> Iterator[None]:
    """Adds to what is wrong with a model inside the block that it is the proxy, which the owner would not look at.

    Args:
        made: whether the proxy was made from the model, so that its owner has not seen it.
    """
    try:
        yield
    except AutoInitError as problem:
        if isinstance(problem, ModelError) or "model" in str(problem):  # else it is about the data, or an argument
            notes = ["This is about the proxy, on which probes run in the model's place."]
            if made:
                notes.append("autoinit.smaller(model) made it; pass one of your own, proxy=small, where it cannot do.")
            if isinstance(problem, OptimizerError):
                notes.append("What makes an optimizer of given parameters suits both: optimizer=callable.")
            problem.args = (f"{problem} ({' '.join(notes)})",)
        raise


def original_of(
    model: nn.Module, proxy: Task, proxy_graph: Graph, *, only: Globs = None, exclude: Globs = None
) -> Original:
    """Returns the model that a proxy stands for, its architecture read on one of the proxy's batches.

    Args:
        model: on any device. On the meta device it has no weights: the plan is all that comes of it.
        proxy: the task of training the small model.
        proxy_graph: its architecture.
        only: globs of the parameters of `model` that may change; in the proxy those that they match as well.
        exclude: globs of those that must stay; in the proxy likewise.

    Raises:
        ModelError: the two are not of one kind, the proxy is the larger one or `model` itself, or `model` cannot be
            initialized.
        DataError: `model` does not take the proxy's batches.
    """
    inner = unwrap(model)
    check_trainable(inner)
    if inner is proxy.model:
        raise ModelError("proxy is the model itself. Pass a smaller one of the same architecture, or leave it out.")
    device = next(inner.parameters()).device
    task = dataclasses.replace(
        proxy,
        model=inner,
        device=device,
        autocast=proxy.autocast if device.type == proxy.device.type else None,
        untrained=_untrained(inner, proxy),
        _streams=True,
    )
    graph = keep_choices(inner, trace_task(task))
    check_kind((inner, graph), (proxy.model, proxy_graph))
    _check_size(graph, proxy_graph)
    small = proxy_graph.restricted(_met(only, proxy_graph), _met(exclude, proxy_graph))
    return Original(task, graph.restricted(only, exclude), small)


def _untrained(model: nn.Module, proxy: Task) -> frozenset[str]:
    """Returns what the optimizer would not hold of the model, by what it does not hold of the proxy.

    That is a parameter of the same name, and one of a further layer where the proxy's layers of that name, whatever
    their numbers, are all not held.
    """
    held = {derived_name(name) for name, _ in proxy.model.named_parameters()} - proxy.untrained
    patterns = {numberless(name) for name in proxy.untrained} - {numberless(name) for name in held}
    names = {derived_name(name) for name, _ in model.named_parameters()}
    return frozenset(name for name in names if name in proxy.untrained or numberless(name) in patterns)


def _met(globs: Globs, graph: Graph) -> Globs:
    """Returns the globs that name something in the proxy too, which may have fewer layers; None where none does."""
    names = [name for layer in graph.layers for name in (layer.name, *layer.tied_to)]
    patterns = [globs] if isinstance(globs, str) else list(globs or ())
    return [pattern for pattern in patterns if fnmatch.filter(names, pattern)] or None


def _check_size(graph: Graph, proxy: Graph) -> None:
    """Raises ModelError where a proxy is larger than the model, as when the two are mixed up, or just as large.

    Layers that share their weights make no more parameters: fewer of those are a proxy too.
    """
    size, small = (sum(layer.size for layer in one.layers) for one in (graph, proxy))
    as_deep = (graph.weight_depths, graph.residual_adds) == (proxy.weight_depths, proxy.residual_adds)
    if small > size or (small == size and as_deep):
        other = f"the model only {size:,}" if small > size else "the model no more"
        raise ModelError(
            f"The proxy has {small:,} parameters, and {other}: to probe the model itself costs less. Pass a smaller "
            "proxy, such as autoinit.smaller(model), or leave it out; it is autoinit.select(large, data, proxy=small)."
        )


def check_kind(model: tuple[nn.Module, Graph], proxy: tuple[nn.Module, Graph]) -> None:
    """Raises ModelError, naming what differs, where two models differ in more than depth and width.

    Args:
        model: with its architecture.
        proxy: with its architecture.
    """
    wanted, found = _kind(*model), _kind(*proxy)
    differences = [f"{facet}: {text_of}" for facet in wanted for text_of in _differences(wanted[facet], found[facet])]
    if differences:
        raise ModelError(
            f"The proxy is of another kind than the model: {'; '.join(differences)}. A proxy is the same architecture "
            "with fewer layers (of each sort at least one) or narrower ones; build it from the model's own config or "
            "class."
        )


def _differences(wanted: set[str], found: set[str]) -> Iterator[str]:
    for owner, more in (("model", wanted - found), ("proxy", found - wanted)):
        if more:
            yield f"only the {owner} has {', '.join(sorted(more))}"


def _kind(model: nn.Module, graph: Graph) -> dict[str, set[str]]:
    """Returns what two models must have in common, facet by facet: everything that does not follow the size."""
    layers = graph.layers
    matrices = [layer for layer in layers if layer.is_matrix]
    stacks = {f"an {layer.stack}" if layer.stack == "encoder" else "a decoder" for layer in layers if layer.stack}
    residual = {"residual adds": graph.residual_adds > 0}
    residual["a normalization after residual adds"] = any(layer.post_norm for layer in layers)
    residual["branches that end in a ReLU"] = any(layer.closes_branch and layer.rectified for layer in matrices)
    kinds: dict[str, set[str]] = {
        "roles": {layer.role for layer in layers if layer.role != "other"},
        "operations": {f"{layer.kind} {layer.role}" for layer in matrices},
        "activations": {str(layer.activation) for layer in matrices if layer.activation.name != "linear"},
        "normalizations": _normalizations(model),
        "weights before a normalization": {layer.role for layer in matrices if layer.normalized},
        "residual branches": {name for name, present in residual.items() if present},
        "attention": {"cross-attention" for layer in layers if layer.cross} | stacks,
        "recurrent cells": {f"{layer.cell} cells" for layer in layers if layer.cell},
        "parametrizations": {layer.parametrized for layer in layers} - {""},
    }
    return kinds


def _normalizations(model: nn.Module) -> set[str]:
    """Returns the classes of the normalizations; functional ones show in what they follow."""
    names = {type(module).__name__ for module in model.modules() if not module._modules}
    return {name for name in names if "norm" in name.lower()}


def joint_space(space: Space, other: Space, *, measurable: bool = True) -> Space:
    """Returns what a search on a proxy may choose from, so that whatever wins fits the model as well.

    Args:
        space: of the proxy.
        other: of the model.
        measurable: whether the model has weights to calibrate; on the meta device it has none.

    Raises:
        RecipeError: a listed recipe is calibrated, and the model has no weights to calibrate.
    """
    if space.listed:
        if calibrated := [recipe.key for recipe in space.listed if recipe.calibration != "none" and not measurable]:
            raise RecipeError(
                f"{calibrated[0]!r} is calibrated on batches, and the model is on the meta device, without weights. "
                "Leave it out, or give the model memory first with model.to_empty(device=…)."
            )
        return space
    theirs = {dimension.name: dimension for dimension in other.dimensions}
    shared = (_shared(one, theirs.get(one.name), measurable) for one in space.dimensions)
    joint = Space(tuple(dimension for dimension in shared if dimension is not None), ())
    known = set(other.opening)
    opening = (recipe for recipe in space.opening if recipe in known and (measurable or recipe.calibration == "none"))
    return dataclasses.replace(joint, opening=tuple(opening))


def _shared(one: Dimension, other: Dimension | None, measurable: bool) -> Dimension | None:
    """Returns the dimension with the choices of both; None where the other has none, or nothing is left to choose."""
    if other is None or (one.name == "calibration" and not measurable):
        return None
    if not one.choices:
        return one
    choices = tuple(choice for choice in one.choices if choice in other.choices)
    return dataclasses.replace(one, choices=choices) if len(choices) > 1 else None


def carry(recipe: Recipe, original: Original, seed: int = 0, *, apply: bool = True, draw_on: str = "") -> Plan:
    """Returns the plan of a recipe for the model itself, and sets the weights.

    A calibration is measured on the model, on the proxy's batches. Random states, buffers and modes are as before.
    A model on the meta device gets nothing but the plan.

    Args:
        recipe: that was found on the proxy.
        original: the model.
        seed: of the draws.
        apply: whether to set the weights; False leaves the model as it was.
        draw_on: the kind of device that draws are made on; empty for where the model lies.

    Raises:
        RecipeError: the recipe does not fit the model (see `joint_space`), or cannot be calibrated on it.
    """
    task, graph = original.task, original.graph
    check_fits(recipe, graph)
    plan = dataclasses.replace(resolve(recipe, graph, seed=seed), drawn_on=draw_on)
    if not original.measurable:
        if recipe.calibration != "none":
            raise RecipeError(f"{recipe.key!r} is calibrated on batches; a model on the meta device has no weights.")
        return plan
    subject = Subject(task, graph, seed=seed_of_use(seed, "calibration"))
    if apply and recipe.calibration == "none":  # no copy of a large model is taken where nothing is to be put back
        return realize(subject, plan, lambda: None)
    with task.preserved() as snapshot:
        plan = realize(subject, plan, snapshot.rewind)
    if apply:
        apply_plan(task.model, plan)
    return plan


def carried(
    selection: Selection, original: Original, seed: int = 0, *, apply: bool = True, draw_on: str = ""
) -> Selection:
    """Returns a proxy's selection as the model's: its plan and architecture, and in words what was not measured.

    Args:
        selection: what was chosen on the proxy.
        original: the model.
        seed: of the draws.
        apply: whether to set the model's weights, where they are not kept.
        draw_on: the kind of device that draws are made on; empty for where the model lies.
    """
    try:
        plan = carry(selection.recipe, original, seed, apply=apply and not selection.kept, draw_on=draw_on)
    except Exception as problem:  # out of memory in a calibration must not cost the user what the search has found
        problem.add_note(
            f"{selection.recipe.key!r} won on the proxy, but could not be carried over to the model. Set it with "
            f"autoinit.apply_(model, autoinit.Recipe.from_json({selection.recipe.to_json()!r}), data)."
        )
        raise
    why = f"{selection.why}; {original}"
    return dataclasses.replace(selection, plan=plan, graph=original.graph, why=why, on_proxy=True)
