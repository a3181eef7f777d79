"""Weights that have become stale, brought back: shrunk and perturbed, or dormant units drawn anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

from .apply import realize
from .calibrations.subject import Subject
from .drawing.renewed import PERTURB, SHRINK, THRESHOLD
from .errors import ArgumentError, did_you_mean
from .graph import Graph
from .plans.rules import resolve
from .recipes.catalogue import as_recipe
from .recipes.recipe import Recipe
from .renewal.dormant import Renewal, find_dormant, renew_dormant
from .renewal.renewal import shrink_and_perturb
from .seeds import check_seed
from .task.assign import assign_all, read, shapes
from .task.checks import unwrap
from .task.task import Task, example_task
from .text import few
from .tracing.choices import keep_choices
from .tracing.tracing import trace_task


def renew_(
    model: nn.Module,
    data: Any,
    *,
    method: Literal["shrink_and_perturb", "redo"] = "shrink_and_perturb",
    fresh: nn.Module | str | Recipe = "he_normal",
    shrink: float = SHRINK,
    perturb: float = PERTURB,
    threshold: float = THRESHOLD,
    seed: int = 0,
    loss: Callable[..., Tensor] | None = None,
    step: Callable[[nn.Module, Any], Tensor] | None = None,
) -> Renewal:
    """Sets weights that have become stale, in place, so that they can learn something new; returns what was done.

    A network that was trained on one thing after the other may learn the next one worse than a fresh one would. Two
    ways bring it back without starting anew: "shrink_and_perturb" makes all weights smaller and adds a part of a fresh
    draw (Ash & Adams 2020); "redo" draws only the units anew that are dormant on the data, at nothing for what the
    model puts out (Sokar et al. 2023). Either costs some of what was learned before: docs/stale_weights.md has what was
    measured, and where going on as it is was better.

    Args:
        model: The weights of this module are set.
        data: The architecture is read from a batch of this, of the kinds that `select` takes; with "redo" the units are
            measured on all of it, in evaluation mode: some hundred rows do.
        method: This names the way: "shrink_and_perturb" or "redo".
        fresh: The fresh draw: another instance of the model, freshly made, or a recipe by its name or itself.
        shrink: This share of the trained values is left, from 0 to 1.
        perturb: This share of the fresh draw is added, 0 or more.
        threshold: A unit is dormant up to this mean magnitude of its output, relative to the mean of its layer.
        seed: This whole number decides the draw of a recipe.
        loss: This callable (output, target) -> scalar tensor is the loss, for reading the architecture. None means that
            it is inferred, as in `select`.
        step: This callable (model, batch) -> scalar takes the place of `loss`.

    Returns:
        A `Renewal`. `given.why` says what each parameter got, `entries` which entries "redo" has set, and
        `clear_state(optimizer)` clears what the optimizer remembers of those.

    Raises:
        ArgumentError: A share, the threshold, the seed or the method is out of range, or the fresh model is no other
            instance of the model.
        RecipeError: The recipe is unknown, or for other architectures.
        SourceError: The trained values are not finite.
        DataError: The model cannot take the data.
        ModelError: Nothing of the model is trainable. After this and any other error the model is unchanged.

    Reference:
        Ash & Adams 2020, arXiv:1910.08475; Sokar et al. 2023, arXiv:2302.12902.

    Example:
        >>> import autoinit, torch
        >>> from torch import nn
        >>> model, rows = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)), torch.randn(64, 8)
        >>> _ = nn.init.constant_(model[0].bias[:3], -100.0)  # three units that are zero on all rows
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> renewed = autoinit.renew_(model, rows, method="redo")
        >>> renewed.clear_state(optimizer)
        >>> [(entry.name, entry.indices) for entry in renewed.entries if entry.name == "0.bias"]
        [('0.bias', (0, 1, 2))]
    """
    ways = ("shrink_and_perturb", "redo")
    if method not in ways:
        raise ArgumentError(f"method is {method!r}. {did_you_mean(str(method), ways)}")
    check_seed(seed)
    inner = unwrap(model)
    task = example_task(inner, data, loss=loss, step=step, whole=True)
    graph = keep_choices(inner, trace_task(task))
    drawn = _fresh(task, graph, fresh, seed)
    if method == "redo":
        found = find_dormant(inner, graph, task.train, threshold=threshold)
        renewal = renew_dormant(inner, graph, found, drawn)
    else:
        given = shrink_and_perturb(inner, drawn, graph, shrink=shrink, perturb=perturb)
        renewal = Renewal(given, (), dict(inner.named_parameters()))
    assign_all(inner, renewal.given.values)
    return renewal


def _fresh(task: Task, graph: Graph, fresh: nn.Module | str | Recipe, seed: int) -> dict[str, Tensor]:
    """Returns a fresh draw of every parameter by name; the model is as it was afterwards."""
    if isinstance(fresh, nn.Module):
        other = unwrap(fresh)
        _check_same(task.model, other)
        return {layer.name: read(other, layer.name).detach() for layer in graph.layers}
    with task.preserved() as snapshot:
        realize(Subject(task, graph, seed=seed), resolve(as_recipe(fresh), graph, seed=seed), snapshot.rewind)
        return {layer.name: read(task.model, layer.name).detach().clone() for layer in graph.layers}


def _check_same(model: nn.Module, other: nn.Module) -> None:
    """Raises ArgumentError where a fresh model is no other instance of a model."""
    mine, theirs = shapes(model), shapes(other)
    if differ := [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]:
        raise ArgumentError(f"fresh is no instance of the same model: {few(differ)} are other ones. Make it anew.")
