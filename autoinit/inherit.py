"""Starts that come from trained weights: of another size, under a new head; and what an adapter took, given back."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

from .apply import apply_plan, as_plan
from .drawing.given import give_back
from .drawing.weights import check_plan_fits, with_results
from .errors import ArgumentError, RecipeError, did_you_mean
from .graph import Graph
from .growth.growth import growth
from .growth.sources import carried
from .inheritance.checkpoints import Source, tensors_of
from .inheritance.given import Given
from .inheritance.heads import class_means, least_squares
from .plans.fill import kept, make
from .plans.plan import HasPlan, Plan
from .recipes.recipe import Recipe
from .seeds import check_seed
from .task.assign import assign_all
from .task.checks import unwrap
from .task.task import Trained, example_task
from .tracing.tracing import trace, trace_task
from .version import __version__


def inherit_(
    model: nn.Module,
    source: Source,
    data: Any = None,
    *,
    method: str = "clone",
    seed: int = 0,
    noise: float = 0.0,
    exact: bool = False,
    loss: Callable[..., Tensor] | None = None,
    step: Callable[[nn.Module, Any], Tensor] | None = None,
) -> Plan:
    """Sets the weights of a model from a trained network of the same kind and another size, and returns the plan.

    A wider or deeper model starts where the trained one has come to: every unit, head and block takes after one of the
    source's, and what is added changes no output where that can be (`exact` refuses where it cannot, and the plan's
    notes say where). A smaller model takes a part of a larger one. Layers are paired by name, blocks by their numbers;
    what the source has no counterpart of, a new head for example, stays as it is.

    Parameters are set, and the buffers that come with them, such as BatchNorm's statistics. The source is not changed.
    It takes a forward and backward pass of each network, and a pass over the weights.

    Args:
        model: The weights of this module are set.
        source: The trained network: a module, which also tells its heads and groups, or its weights alone: a file of
            safetensors or of `torch.save`, a folder of transformers, a mapping of names to tensors.
        data: The architecture is read from one batch of this, which both networks take, of the kinds that `apply_`
            takes. None means that transformers' `dummy_inputs` are used, or else that the module tree is read.
        method: This names the way: "clone" (HyperCloning: units are repeated and divided), "net2net" (repeated at
            random), "zero_pad", "identity" and "stack" for new blocks, "select_uniform", "select_consecutive" and
            "select_magnitude" for a model that is smaller than its source. `catalogue()` tells what each keeps.
        seed: This whole number decides what is random: the units of net2net, and the noise.
        noise: Copies of a unit get noise of this standard deviation, relative to each tensor's own, which parts them in
            training; over all copies it adds up to zero, so that outputs stay. With 0 they train alike.
        exact: Whether a growth that changes outputs is refused.
        loss: This callable (output, target) -> scalar tensor is the loss, for reading the architecture. None means that
            it is inferred, as in `select`.
        step: This callable (model, batch) -> scalar takes the place of `loss`.

    Returns:
        A `Plan` of what each parameter got, and why. Print it; `save(path)` writes the values beside it, from which
        `apply_(another instance, path)` sets them again.

    Raises:
        SourceError: The source cannot be read, is of another architecture (the message names layers that do not fit,
            and the nearest method that would), has the wrong size for the method, or cannot be grown exactly where
            that is asked. After this and any other error the model is unchanged.
        ArgumentError: The seed or the noise is out of range.
        ModelError: The model is no module, or nothing of it is trainable.
        DataError: A network cannot take the data.
        StepError: The loss or the step cannot be called, or returns no scalar.

    Reference:
        Samragh et al. 2024, arXiv:2409.12903 (clone); Chen, Goodfellow & Shlens 2016, arXiv:1511.05641 (net2net); Xu et
        al. 2024, arXiv:2311.18823 (select).

    Example:
        >>> import autoinit, torch
        >>> from torch import nn
        >>> def network(width):
        ...     return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))
        >>> rows, small, large = torch.randn(32, 8), network(16), network(32)
        >>> plan = autoinit.inherit_(large, small, rows)
        >>> torch.allclose(large(rows), small(rows), atol=1e-6)
        True
        >>> plan["2.weight"].reason
        '...'
    """
    inner = unwrap(model)
    check_seed(seed)
    trained = trained_network(source, data, loss=loss, step=step)
    graph = trace(inner, data, loss=loss, step=step)
    weights, told = trained.weights, trained.graph
    found = growth(inner, weights, method, graph, seed=seed, source_graph=told, noise=noise, exact=exact)
    plan = _planned(inner, graph, found, Recipe(growth=method), seed)
    apply_plan(inner, plan)
    return with_results(inner, plan)


def trained_network(
    source: Source,
    data: Any,
    *,
    loss: Callable[..., Tensor] | None = None,
    step: Callable[[nn.Module, Any], Tensor] | None = None,
) -> Trained:
    """Returns a trained network that others may take after; a module's architecture is read as `trace` reads it.

    Args: as of `inherit_`.
    """
    if not isinstance(source, nn.Module):
        return Trained(tensors_of(source))
    inner = unwrap(source)
    return Trained(inner, trace(inner, data, loss=loss, step=step))


def _planned(model: nn.Module, graph: Graph, found: Given, recipe: Recipe, seed: int) -> Plan:
    """Returns the plan by which a model gets given values, and keeps all else."""
    fills = tuple(
        make(layer, "given", found.why[layer.name])
        if layer.name in found.values
        else kept(layer, layer.keep or "the source has nothing like it")
        for layer in graph.layers
    )
    return carried(Plan(recipe, seed, fills, made_with=__version__), model, found)


def head_(
    model: nn.Module,
    data: Any,
    *,
    head: str | None = None,
    method: Literal["class_means", "least_squares"] = "class_means",
) -> dict[str, str]:
    """Sets a new head on a trained body in closed form, from the features that the body has for the data, in place.

    A head that is drawn begins with a guess, and its first steps train the body towards nothing. "class_means" begins
    where linear discriminant analysis ends: with each class's mean, weighed by what varies inside of classes (Fisher
    1936, shrunk as in Friedman 1989), and with scores as sure as they are right. "least_squares" is ridge regression,
    for numbers. Nothing is trained: it takes a forward pass over the data, and all else of the model stays, bit for
    bit.

    The features are those of evaluation mode. Train on with a small learning rate of the body: at larger ones a head of
    zeros overtakes it (docs/rows_and_heads.md has what was measured).

    Args:
        model: The head of this module is set.
        data: The features are taken on this, of the kinds that `select` takes, with labels or numbers as targets. A
            thousand rows do.
        head: This is the path of the head, a linear layer, such as "classifier" or "fc". None means the layer that
            gives the output, as it is read from a step.
        method: This names the way: "class_means" for whole numbers as labels, "least_squares" for numbers.

    Returns:
        Name of each tensor that was set → what it got and why.

    Raises:
        ArgumentError: There is no such layer, or no such method.
        ModelError: The layer shares its weight, or is not called once in a pass.
        DataError: The data are empty or not finite, labels are no classes of the head, or the model cannot take them.

    Example:
        >>> import autoinit, torch
        >>> from sklearn.datasets import load_digits
        >>> from torch import nn
        >>> pixels, labels = load_digits(return_X_y=True)
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        >>> told = autoinit.head_(model, (pixels / 16, labels))
        >>> scores = model(torch.tensor(pixels / 16, dtype=torch.float32))
        >>> bool((scores.argmax(1).numpy() == labels).mean() > 0.9)
        True
    """
    ways = {"class_means": class_means, "least_squares": least_squares}
    if method not in ways:
        raise ArgumentError(f"method is {method!r}. {did_you_mean(str(method), ways)}")
    inner = unwrap(model)
    task = example_task(inner, data, whole=True)
    found = ways[method](inner, task.train, head or _output_of(trace_task(task)))
    assign_all(inner, found.values)
    return dict(found.why)


def _output_of(graph: Graph) -> str:
    """Returns the path of the one layer that gives a model's output.

    Raises:
        ArgumentError: there is none, or several.
    """
    found = [layer.name.rpartition(".")[0] for layer in graph.layers if layer.role == "output"]
    if len(found) != 1:
        raise ArgumentError(f"Which layer is the head? {', '.join(found) or 'None'} could be read; name it: head=….")
    return found[0]


def restore_(model: nn.Module, what: str | os.PathLike[str] | Plan | HasPlan) -> tuple[str, ...]:
    """Sets trained weights to what they were before a start of adapters took from them, in place.

    PiSSA, OLoRA, LoRA-GA and CorDA start an adapter at a part of the trained weight beside it, and take that part from
    the weight, so that both together are what the weight was. Afterwards the weight is the trained one again, up to a
    rounding in its last place. An adapter that has not been trained since is set to add nothing. One that has been
    trained stays as it is: it belongs to the weight that is no more, and the model is another one than it was, unless
    you take what the adapter started as from it (its plan has that; in peft:
    `save_pretrained(path, path_initial_model_for_weight_conversion=…)`).

    Args:
        model: The weights of this module are set; those that the plan took nothing from stay.
        what: This plan was applied to the model: a `Plan`, a `Selection`, or the path of a saved plan.

    Returns:
        The names of the weights that hold the very bits that they held before the plan; of the others an entry may
        differ in its last place.

    Raises:
        PlanMismatchError: The plan is of another architecture, or the weights are not those that it left. Nothing is
            changed.
        PlanFileError: The file of the plan, or that beside it, cannot be used.
        RecipeError: What was given is no plan.

    Example:
        A model as peft makes it, with a low-rank pair beside a trained layer:

        >>> import autoinit, torch
        >>> from torch import nn
        >>> class Adapted(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.base = nn.Linear(32, 16).requires_grad_(False)
        ...         self.down, self.up = nn.Linear(32, 4, bias=False), nn.Linear(4, 16, bias=False)
        ...     def forward(self, x):
        ...         return self.base(x) + 2 * self.up(self.down(x))
        >>> model = Adapted()
        >>> trained = model.base.weight.clone()
        >>> plan = autoinit.apply_(model, "pissa", torch.randn(8, 32))
        >>> torch.allclose(model.base.weight, trained)
        False
        >>> _ = autoinit.restore_(model, plan)
        >>> torch.allclose(model.base.weight, trained)
        True
    """
    inner, plan = unwrap(model), as_plan(what)
    if plan is None:
        raise RecipeError(f"restore_ takes the plan that was applied, a selection or the path of one. Got {what!r}.")
    check_plan_fits(inner, plan)
    return tuple(give_back(inner, plan))
