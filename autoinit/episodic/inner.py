"""Inside of an episode: steps of gradient descent on its support, which can be differentiated through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, ModelError, did_you_mean
from ..task.batches import map_tensors, rows, select_rows, tensors
from .objective import Objective, Tensors
from .stream import Episode, Side


def adapted(
    objective: Objective,
    weights: Tensors,
    buffers: Tensors,
    steps: Sequence[Side],
    *,
    names: Sequence[str],
    lr: float,
    through: bool,
) -> tuple[Tensors, Tensors]:
    """Returns the weights after plain gradient descent, and the buffers as the first pass left them.

    Args:
        objective: the loss.
        weights: where it begins; they stay as they are.
        buffers: what passes change in them stays in them.
        steps: the rows of each step.
        names: of the weights that move.
        lr: the rate.
        through: whether the gradients of the steps can be differentiated themselves; else they are constants.
    """
    first: Tensors = {}
    for number, side in enumerate(steps):
        loss = objective.loss(weights, buffers, side)
        if not number:
            first = copies(buffers)
        moving = [weights[name] for name in names]
        gradients = torch.autograd.grad(loss, moving, create_graph=through, allow_unused=True)
        moved = {
            name: value if gradient is None else value - lr * gradient
            for name, value, gradient in zip(names, moving, gradients, strict=True)
        }
        weights = {**weights, **moved}
    return weights, first


def copies(values: Tensors) -> Tensors:
    """Returns copies that nothing connects with their originals."""
    return {name: value.detach().clone() for name, value in values.items()}


def leaves(values: Tensors) -> Tensors:
    """Returns copies that gradients are taken of."""
    return {name: value.detach().clone().requires_grad_() for name, value in values.items()}


def minibatches(episode: Episode, steps: int, generator: torch.Generator) -> Iterator[Side]:
    """Yields rows for Reptile's steps: of support and query together, as many at a time as the support has.

    All are used once in a drawn order before any is used again, as in the authors' own program.

    Args:
        episode: its two sides.
        steps: how many are yielded.
        generator: of the order, on the CPU.
    """
    support, whole = episode[0], _joined(episode)
    size, count = rows(support), rows(whole)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < size:
            order = torch.randperm(count, generator=generator)
        yield select_rows(whole, order[:size].to(support[1].device))
        order = order[size:]


def _joined(episode: Episode) -> Side:
    """Returns the rows of both sides together."""
    support, query = episode
    parts = [torch.cat(pair) for pair in zip(tensors(support), tensors(query), strict=True)]
    joined: Side = map_tensors(lambda _: parts.pop(0), support)
    return joined


def head_of(model: nn.Module, path: str | None, episode: Episode, objective: Objective) -> tuple[str, list[str]]:
    """Returns the path of the part of a model that adapts alone, and the names of its trainable weights.

    Args:
        model: whose part it is.
        path: of the part; None for the linear layer that a pass comes to last.
        episode: for that pass.
        objective: that makes it.

    Raises:
        ArgumentError: there is no such part.
        ModelError: there is no linear layer, nothing in the part is trainable, or its weights are others' too.
    """
    parts = dict(model.named_modules())
    if path is not None and (path not in parts or not path):
        known = [name for name, part in parts.items() if name and any(True for _ in part.parameters(recurse=False))]
        raise ArgumentError(f"head is {path!r}, which is no part of the model. {did_you_mean(str(path), known)}")
    found = _last_linear(model, episode, objective) if path is None else path
    inside = {id(one) for one in parts[found].parameters() if one.requires_grad}
    names = [name for name, one in model.named_parameters() if id(one) in inside]
    if not names:
        raise ModelError(f"nothing in the head {found!r} is trainable. Name another part by head=, or unfreeze it.")
    places = [name for name, one in model.named_parameters(remove_duplicate=False) if id(one) in inside]
    if outside := [name for name in places if not name.startswith(f"{found}.")]:
        raise ModelError(
            f"the head {found!r} shares weights with {', '.join(outside)}, which would adapt, too. Name another part "
            "by head=, or pass method='maml', with which all adapts."
        )
    return found, names


def _last_linear(model: nn.Module, episode: Episode, objective: Objective) -> str:
    called: list[str] = []
    watched = [
        module.register_forward_hook(lambda *_, path=path: called.append(path))
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and path
    ]
    try:
        weights = {name: one.detach() for name, one in model.named_parameters()}
        objective.scores(weights, copies(dict(model.named_buffers())), episode[0])
    finally:
        for hook in watched:
            hook.remove()
    if not called:
        raise ModelError("no linear layer inside the model is called in a pass. Name the part that adapts by head=.")
    return called[-1]


def subtracted(one: Tensors, other: Tensors) -> dict[str, Tensor]:
    """Returns the difference of two sets of weights of the same names, without gradient."""
    return {name: value.detach() - other[name].detach() for name, value in one.items()}
