"""A lottery ticket for a model: which of its weights are worth training, by one of five methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .errors import ArgumentError, did_you_mean
from .graph import Globs, Graph
from .seeds import check_seed
from .task.checks import unwrap
from .task.optimizers import OptimizerBuilder
from .task.task import Task, example_task
from .tickets.at_random import at_random, counts_of, with_densities
from .tickets.magnitude import STEPS, Rounds, magnitude, state_of, usual_rounds
from .tickets.prunable import Prunable, find_prunable
from .tickets.ranking import Masks, Scope, best, check_sparsity, collapse
from .tickets.scores import grasp, snip
from .tickets.synflow import ROUNDS, synflow
from .tickets.ticket import Ticket
from .tracing.tracing import trace_task
from .version import __version__

BATCHES = 16
"""Batches that SNIP and GraSP measure where no number is given, or fewer where there are fewer."""
_USED = {
    "magnitude": {"rounds", "rewind_to", "steps", "optimizer", "lr", "scope"},
    "snip": {"steps", "scope"},
    "grasp": {"steps", "scope"},
    "synflow": {"rounds"},
    "random": {"densities", "scope"},
}
"""Method → the options that mean something to it."""


@dataclass(frozen=True)
class _Wish:
    """What was asked for, as it was given."""

    method: str
    sparsity: float
    rounds: int | None
    rewind_to: int | None
    steps: int | None
    scope: Scope | None
    densities: Mapping[str, float] | Ticket | None
    seed: int


def ticket(
    model: nn.Module,
    data: Any,
    sparsity: float,
    *,
    method: Literal["magnitude", "snip", "grasp", "synflow", "random"] = "magnitude",
    rounds: int | None = None,
    rewind_to: int | None = None,
    steps: int | None = None,
    optimizer: Any = None,
    lr: float | None = None,
    scope: Scope | None = None,
    densities: Mapping[str, float] | Ticket | None = None,
    only: Globs = None,
    exclude: Globs = None,
    loss: Callable[..., Tensor] | None = None,
    step: Callable[[nn.Module, Any], Tensor] | None = None,
    seed: int = 0,
) -> Ticket:
    """Returns a lottery ticket: masks that leave a share of a model's weights, and the values to train them from.

    The model stays as it is. "magnitude" trains it in rounds, removes the smallest weights and rewinds the others
    (Frankle & Carbin 2019); it costs several trainings and finds the best masks. Before any training "snip" keeps what
    the loss depends on most, "grasp" what holds up the gradient, and "synflow" what most flows through, of ones
    in the place of data. "random" is what each has to beat. Matrices are thinned out, the head included; biases, scales
    of normalizations and tables stay whole. docs/tickets.md has what was measured.

    Args:
        model: The weights of this module are ranked; it is put back bit for bit.
        data: The batches are trained or measured on, all of them; they are of the kinds that `select` takes.
        sparsity: This share of the weights is removed, between 0 and 1.
        method: This names the way: "magnitude", "snip", "grasp", "synflow" or "random".
        rounds: So many times "magnitude" trains, and "synflow" ranks. None means as many as remove a fifth of what is
            left in each round, and the hundred of the paper.
        rewind_to: After this training step the weights are those that "magnitude" goes back to. None means the start.
        steps: A training of "magnitude" has so many steps in each round; "snip" and "grasp" measure so many batches.
            None means a thousand steps, and sixteen batches or as many as there are.
        optimizer: This callable (params) -> Optimizer, or an existing one, is what "magnitude" trains with. None means
            AdamW.
        lr: This number is its learning rate. None means the optimizer's own.
        scope: With "global" all layers are ranked together, with "layer" each by itself at one density. None means
            "global".
        densities: For "random", shares that are left of each weight by name, or another ticket, whose are taken.
        only: Weights whose names match these globs may be thinned out. None means all.
        exclude: Weights whose names match these globs stay whole. None means none.
        loss: This callable (output, target) -> scalar tensor is the loss. None means that it is inferred, as in
            `select`.
        step: This callable (model, batch) -> scalar takes the place of `loss`.
        seed: This whole number decides the order of the batches and random masks.

    Returns:
        A `Ticket`. `apply_(model)` sets its weights and puts its masks on, `apply_(model, weights=False)` the masks
        alone; `save(path)` keeps it, and printing it shows what is left of each layer.

    Raises:
        ArgumentError: The sparsity, the method, the seed or an option is out of range, or the method does not use it.
        CalibrationError: The loss cannot be differentiated twice, which "grasp" needs.
        DataError: The model cannot take the data.
        OptimizerError: The optimizer or its learning rate cannot be used.
        ModelError: Nothing can be thinned out, or scores are not finite. After this and any other error, and after
            Ctrl-C, the model is unchanged.

    Reference:
        Frankle & Carbin 2019, arXiv:1803.03635; Frankle et al. 2020, arXiv:1912.05671; Lee et al. 2019,
        arXiv:1810.02340; Wang et al. 2020, arXiv:2002.07376; Tanaka et al. 2020, arXiv:2006.05467.

    Example:
        >>> import autoinit, torch
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
        >>> rows, labels = torch.randn(64, 8), torch.randint(4, (64,))
        >>> found = autoinit.ticket(model, (rows, labels), 0.75, method="synflow")
        >>> found.apply_(model)
        >>> print(repr(found))
        <Ticket: synflow ticket, sparsity 0.75 (asked 0.75): 96 of 384 weights are left>
        >>> int((model[0].weight != 0).sum() + (model[2].weight != 0).sum())
        96
    """
    options = {
        "rounds": rounds,
        "rewind_to": rewind_to,
        "steps": steps,
        "optimizer": optimizer,
        "lr": lr,
        "scope": scope,
        "densities": densities,
    }
    _check(method, options)
    check_seed(seed)
    wish = _Wish(method, sparsity, rounds, rewind_to, steps, scope, densities, seed)
    inner = unwrap(model)
    task = example_task(inner, data, loss=loss, step=step, whole=True)
    graph = trace_task(task).restricted(only, exclude)
    if method != "magnitude":
        return _without_training(task, graph, find_prunable(task, graph), wish)
    with task.preserved():
        builder = OptimizerBuilder(inner, optimizer, lr)
    graph = graph.keeping(dict.fromkeys(builder.untrained, "the optimizer does not train it"))
    return _by_magnitude(task, builder, find_prunable(task, graph), wish)


def _check(method: Any, options: Mapping[str, Any]) -> None:
    """Raises ArgumentError for an unknown method, an option that it does not use, or one that is out of range."""
    if method not in _USED:
        raise ArgumentError(f"method is {method!r}. {did_you_mean(str(method), _USED)}")
    if idle := [name for name, value in options.items() if value is not None and name not in _USED[method]]:
        raise ArgumentError(
            f"{idle[0]} is given, and method={method!r} does not use it. It takes {', '.join(sorted(_USED[method]))}."
        )
    for name, least in (("rounds", 1), ("rewind_to", 0), ("steps", 1)):
        value = options[name]
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ArgumentError(f"{name} is {value!r}, but it is a whole number from {least} on.")
    if options["scope"] not in (None, "global", "layer"):
        raise ArgumentError(
            f"scope is {options['scope']!r}. {did_you_mean(str(options['scope']), ('global', 'layer'))}"
        )
    if options["lr"] == "search":
        raise ArgumentError("lr is 'search', which only select does. Pass a number.")
    if (options["rewind_to"] or 0) >= (options["steps"] or STEPS):
        raise ArgumentError(
            f"rewind_to is {options['rewind_to']}, but a training has {options['steps'] or STEPS} steps. Go back to an "
            "earlier one, or pass more steps."
        )


def _by_magnitude(task: Task, builder: OptimizerBuilder, found: Prunable, wish: _Wish) -> Ticket:
    check_sparsity(wish.sparsity, found.sizes)
    rounds = Rounds(
        wish.rounds or usual_rounds(wish.sparsity),
        wish.steps or STEPS,
        wish.rewind_to or 0,
        wish.scope or "global",
        wish.seed,
    )
    masks, scores, weights = magnitude(task, builder, list(found.sizes), wish.sparsity, rounds)
    told = {
        "rounds": rounds.count,
        "steps": rounds.steps,
        "rewind_to": rounds.rewind_to,
        "scope": rounds.scope,
        "optimizer": builder.name,
        "lr": builder.lr,
    }
    return _ticket(wish, found, (masks, scores), weights, told)


def _without_training(task: Task, graph: Graph, found: Prunable, wish: _Wish) -> Ticket:
    check_sparsity(wish.sparsity, found.sizes)
    names, scope = list(found.sizes), wish.scope or "global"
    told: dict[str, Any] = {"scope": scope}
    if wish.method == "synflow":
        told = {"rounds": wish.rounds or ROUNDS}
        chosen = synflow(task, graph, names, wish.sparsity, rounds=told["rounds"])
    elif wish.method == "random":
        chosen = _random(task, found, wish, scope)
    else:
        told["batches"] = wish.steps or min(BATCHES, len(task.train))
        measure = {"snip": snip, "grasp": grasp}[wish.method]
        scores = measure(task, names, batches=told["batches"], seed=wish.seed)
        chosen = best(scores, wish.sparsity, scope=scope), scores
    return _ticket(wish, found, chosen, state_of(task.model), told)


def _random(task: Task, found: Prunable, wish: _Wish, scope: Scope) -> tuple[Masks, Masks]:
    weights = {name: task.model.get_parameter(name).detach() for name in found.sizes}
    given = wish.densities
    if given is None:
        return at_random(weights, wish.sparsity, scope=scope, seed=wish.seed)
    densities = given.densities if isinstance(given, Ticket) else given
    return with_densities(weights, counts_of(densities, found.sizes, wish.sparsity), seed=wish.seed)


def _ticket(
    wish: _Wish, found: Prunable, chosen: tuple[Masks, Masks], weights: Mapping[str, Tensor], told: Mapping[str, Any]
) -> Ticket:
    masks, scores = chosen
    versions = {"autoinit": __version__, "torch": str(torch.__version__)}
    return Ticket(
        wish.method,
        float(wish.sparsity),
        {name: mask.cpu() for name, mask in masks.items()},
        {name: value.cpu() for name, value in weights.items()},
        (*found.notes, *collapse(scores, masks)),
        {"seed": wish.seed, **told, **versions},
    )
