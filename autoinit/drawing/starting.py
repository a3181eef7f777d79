"""Learned starts and tickets as candidates: known by a name, checked against a model, set like any recipe."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from ..episodic.learned import KIND, LearnedStart, differences
from ..errors import RecipeError, SourceError
from ..graph import Graph
from ..inheritance.values import HeldValues
from ..inheritance.weight_files import facts_of
from ..plans.inherited import stays
from ..plans.plan import Plan
from ..recipes.catalogue import NAMED, entry_name
from ..recipes.ready_starts import not_at_hand
from ..recipes.recipe import Recipe
from ..task.assign import lasting_buffers
from ..task.task import Start, Task
from ..text import few
from ..tickets.ticket import Ticket
from ..tickets.wearing import check_fits, wear

KEEPS_MASKS = (
    "A ticket: what it removes is zero, and stays so in a training only under its masks. After this plan is applied "
    "elsewhere, put them on by Ticket.load(path).apply_(model)."
)
"""A note of a plan that sets a ticket."""


def parted(what: Any) -> tuple[Any, list[Start]]:
    """Returns candidates as recipes and names alone, and the starts that some of these stand for.

    Args:
        what: of `select`: names, recipes, learned starts, tickets and paths of their files, one or several, or None.

    Raises:
        SourceError: a file is damaged, or holds something else.
    """
    if what is None or isinstance(what, Recipe):
        return what, []
    given = [what] if isinstance(what, (str, os.PathLike, LearnedStart, Ticket)) else what
    if isinstance(given, Mapping) or not isinstance(given, Iterable):
        raise RecipeError(f"`recipes` is a {type(what).__name__}. Pass names, recipes, learned starts or tickets.")
    starts: list[Start] = []
    found: list[Any] = []
    for one in given:
        loaded = load_start(one) if _is_file(one) else one
        if isinstance(loaded, (LearnedStart, Ticket)):
            starts.append(start_of(loaded))
            found.append(Recipe(start=starts[-1].name))
        else:
            found.append(loaded)
    return found, starts


def _is_file(what: object) -> TypeGuard[str | os.PathLike[str]]:
    if isinstance(what, os.PathLike):
        return True
    if not isinstance(what, str) or entry_name(what) in NAMED:
        return False
    return what.endswith(".safetensors") or os.path.isfile(what)


def load_start(path: str | os.PathLike[str]) -> LearnedStart | Ticket:
    """Returns the learned start or the ticket that a file holds.

    Raises:
        SourceError: it cannot be read, is damaged, or holds something else.
    """
    if not os.path.isfile(path):
        raise SourceError(
            f"There is no file {os.fspath(path)}. Pass one that LearnedStart.save or Ticket.save has written."
        )
    facts = facts_of(Path(path), f"the head of {os.fspath(path)}")
    kind = None if facts is None else facts.get("kind")
    if kind == KIND:
        return LearnedStart.load(path)
    if kind == "ticket":
        return Ticket.load(path)
    raise SourceError(
        f"{os.fspath(path)} holds no learned start and no ticket. Pass a file that LearnedStart.save or Ticket.save "
        "has written; plain weights are set by torch, or taken after by source=."
    )


def start_of(what: LearnedStart | Ticket) -> Start:
    """Returns what a search needs of a learned start or a ticket, under a name that its contents decide."""
    if isinstance(what, Ticket):
        values, masks, method = dict(what.weights), dict(what.masks), what.method
        kind, words = "ticket", f"a {method} ticket, {what.reached:.3g} of the weights removed"
    else:
        values, masks, method = {**what.parameters, **what.buffers}, {}, what.method
        kind, words = "learned", f"a start learned by {method}"
    return Start(f"{kind}-{_digest(method, values, masks)}", words, values, masks)


def _digest(method: str, *parts: Mapping[str, Tensor]) -> str:
    told = hashlib.blake2b(method.encode(), digest_size=4)
    for part in parts:
        for name in sorted(part):
            value = part[name].detach().to("cpu").contiguous()
            told.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            told.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return told.hexdigest()


def with_starts(task: Task, graph: Graph, starts: Sequence[Start]) -> Graph:
    """Returns the graph of a model that may start so, and has the task know the values.

    Args:
        task: of the model.
        graph: of the model, with what must stay.
        starts: learned ones and tickets.

    Raises:
        SourceError: one is of another architecture, or has masks where none can be kept.
    """
    for start in starts:
        check_start(task.model, graph, start)
    if not starts:
        return graph
    task.starts = {start.name: start for start in starts}
    return dataclasses.replace(graph, starts=tuple(task.starts))


def check_start(model: nn.Module, graph: Graph, start: Start) -> None:
    """Raises SourceError where a start is of another architecture than a model, and names the layers that differ."""
    if found := differences(model, start.values):
        raise SourceError(
            f"The model has another architecture than {start.words}: {few(found)}. Pass what was made for this one."
        )
    derived = [layer.name for layer in graph.layers if layer.parametrized]
    if derived:
        raise SourceError(
            f"{few(derived)}: parametrized in this model, of which a search cannot set the parts from {start.words}. "
            "Set it by apply_, and call select without it."
        )
    if start.masks:
        check_fits(model, start.masks, None)
    held = [name for name in start.masks if name not in graph or stays(graph[name])]
    if held:
        why = graph[held[0]].keep if held[0] in graph else "it is no weight of its own"
        raise SourceError(
            f"{few(held)}: must stay as they are ({why}), and {start.words} removes a part of them. Unfreeze them, or "
            "choose the ticket with exclude=."
        )


def started(model: nn.Module, plan: Plan, starts: Mapping[str, Start]) -> Plan:
    """Returns a plan with the values of the start that its recipe names, those that a ticket removes at zero.

    Args:
        model: that they are for; it is only read.
        plan: of such a recipe.
        starts: by name.

    Raises:
        RecipeError: the start is not at hand.
    """
    start = starts.get(plan.recipe.start)
    if start is None:
        raise not_at_hand(plan.recipe.start)
    own = {**dict(model.named_parameters()), **dict(lasting_buffers(model))}
    frozen = {fill.name for fill in plan.fills if fill.distribution != "given"}
    values = {name: _value(start, name).to(own[name].dtype) for name in start.values if name not in frozen}
    buffers = tuple(name for name, _ in lasting_buffers(model) if name in values)
    notes = (*plan.notes, *[KEEPS_MASKS] * bool(start.masks))
    return dataclasses.replace(plan, given=HeldValues.of(values), buffers=buffers, notes=notes)


def _value(start: Start, name: str) -> Tensor:
    value = start.values[name]
    return value * start.masks[name].to(value.dtype) if name in start.masks else value


@contextlib.contextmanager
def held(task: Task, recipe: Recipe) -> Iterator[None]:
    """Keeps what a ticket removes at zero in the trainings inside; does nothing for any other recipe.

    No gradient reaches what is removed, and after each step of an optimizer it is zero again: some move entries
    without a gradient, too.
    """
    start = task.starts.get(recipe.start)
    if start is None or not start.masks:
        yield
        return
    pairs = [(task.model.get_parameter(name), mask) for name, mask in start.masks.items()]
    pairs = [(weight, mask.to(weight.device, weight.dtype)) for weight, mask in pairs]
    before = [weight._backward_hooks for weight, _ in pairs]

    def hold(*_: object) -> None:
        with torch.no_grad():
            for weight, mask in pairs:
                weight.mul_(mask)

    handles: list[Any] = [weight.register_hook(lambda grad, mask=mask: grad * mask) for weight, mask in pairs]  # type: ignore[no-untyped-call]
    handles.append(register_optimizer_step_post_hook(hold))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for (weight, _), hooks in zip(pairs, before, strict=True):
            weight._backward_hooks = hooks


def wear_ticket(model: nn.Module, start: Start | None) -> None:
    """Puts the masks of a ticket on a model that its plan has set, so that its owner's training keeps them.

    Args:
        model: the owner's.
        start: that was chosen; nothing is done where it is no ticket, or None.
    """
    if start is not None and start.masks:
        wear(model, start.masks, {name: start.values[name] for name in start.masks})
