"""The model that a proxy stands for: the same architecture, with more layers or wider ones.

What a search finds is a `Recipe`, which names roles and no parameters: so it can be found on the proxy, and drawn for
the model, where it has to win once more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import AutoInitError, ModelError, OptimizerError, RecipeError
from ..graph import Globs, Graph
from ..plans.plan import Plan
from ..plans.rules import resolve
from ..recipes.catalogue import check_fits
from ..recipes.recipe import Recipe
from ..task.assign import derived_name
from ..task.checks import check_memory, check_trainable, check_weights, device_of, unwrap
from ..task.optimizers import OptimizerBuilder
from ..task.snapshot import preserved_random
from ..task.task import Task
from ..text import numberless
from ..tracing.choices import ALL, Parts, keep_choices
from ..tracing.tracing import trace_task

_SHALLOWER = "without skips, what suits few layers may be too much or too little for many"
"""Said of a proxy with fewer layers and no residual adds: three of ten such recipes did harm, and no other one
(docs/large_models.md)."""


@dataclass(frozen=True)
class Original:
    """The model that a proxy stands for.

    Attributes:
        task: the model with the proxy's data and loss, and an optimizer of its own. On the meta device nothing can be
            trained on it.
        graph: its architecture; what must stay is marked.
        proxy: the proxy's architecture, likewise.
    """

    task: Task
    graph: Graph
    proxy: Graph

    @property
    def measurable(self) -> bool:
        """Whether the model has weights, to be drawn, calibrated and trained; on the meta device it has none."""
        return self.task.device.type != "meta"

    def plan(self, recipe: Recipe, seed: int, draw_on: str = "") -> Plan:
        """Returns the plan of a recipe for the model, of which nothing is measured or changed.

        Raises:
            RecipeError: the recipe does not fit the model, or would have to be calibrated on it.
        """
        check_fits(recipe, self.graph)
        if recipe.calibration != "none":
            raise RecipeError(f"{recipe.key!r} is calibrated on batches; a model on the meta device has no weights.")
        return dataclasses.replace(resolve(recipe, self.graph, seed=seed), drawn_on=draw_on)

    def __str__(self) -> str:
        """Returns how small the proxy is, and what was seen of it only, in words."""
        both = (self.proxy, self.graph)
        counts = [
            ("parameters", *(f"{sum(layer.size for layer in graph.layers):,}" for graph in both)),
            ("layers of weights", *(str(1 + graph.weight_depths[1] - graph.weight_depths[0]) for graph in both)),
            ("residual adds", *(str(graph.residual_adds) for graph in both)),
        ]
        shares = ", ".join(f"{small} of {large} {of}" for of, small, large in counts if large != "0")
        if self.measurable:
            return f"searched on a proxy of {shares}; finals and gate are the model's own"
        few = "" if self.graph.residual_adds or counts[1][1] == counts[1][2] else f"; {_SHALLOWER}"
        return f"measured on a proxy of {shares}: gain, learning rate and steps are the proxy's{few}"


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
    model: nn.Module,
    proxy: Task,
    proxy_graph: Graph,
    *,
    optimizer: Any = None,
    lr: float | str | None = None,
    device: str | torch.device | None = None,
    parts: Parts = ALL,
) -> Original:
    """Returns the model that a proxy stands for, its architecture read on one of the proxy's batches.

    Args:
        model: on any device. On the meta device it has no weights: the plan is all that comes of it.
        proxy: the task of training the small model.
        proxy_graph: its architecture.
        optimizer: of the model: a callable, an Optimizer of its parameters, or None for AdamW.
        lr: as of `select`.
        device: where the model is trained, if it has weights; where None, where it is.
        parts: which parameters of `model` may change; in the proxy what its globs match there as well.

    Raises:
        ModelError: the two are not of one kind, the proxy is the larger one or `model` itself, or `model` cannot be
            initialized.
        DataError: `model` does not take the proxy's batches.
        OptimizerError: the optimizer cannot be made for `model`.
    """
    inner = unwrap(model)
    check_trainable(inner)
    if inner is proxy.model:
        raise ModelError("proxy is the model itself. Pass a smaller one of the same architecture, or leave it out.")
    target = next(inner.parameters()).device
    if target.type != "meta":
        target = device_of(inner, device)
        check_memory(target, "train")
        check_weights(inner)
    task = dataclasses.replace(
        proxy,
        model=inner,
        device=target,
        autocast=proxy.autocast if target.type == proxy.device.type else None,
        untrained=_untrained(inner, proxy),
        _streams=True,
    )
    if target.type != "meta":
        with preserved_random():
            task._builder = builder = OptimizerBuilder(inner, optimizer, lr)
        task.lr, task.untrained = builder.lr, builder.untrained
    graph = keep_choices(inner, trace_task(task), parts.checkpoint)
    check_kind((inner, graph), (proxy.model, proxy_graph))
    _check_size(graph, proxy_graph)
    small = proxy_graph.restricted(_met(parts.only, proxy_graph), _met(parts.exclude, proxy_graph))
    return Original(task, graph.restricted(parts.only, parts.exclude), small)


def _untrained(model: nn.Module, proxy: Task) -> frozenset[str]:
    """Returns what an optimizer would not hold of a model on the meta device, by what it does not hold of the proxy.

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
