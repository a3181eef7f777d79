"""Scores of weights before any training: SNIP and GraSP, from the loss on a few batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import CalibrationError, described
from ..seeds import seed_of_use
from ..task.batches import Batch
from ..task.snapshot import seed_generators
from ..task.task import Task

_BATCHES = "ticket batches"


def snip(task: Task, names: Sequence[str], *, batches: int, seed: int) -> dict[str, Tensor]:
    """Returns |g ⊙ w| of each weight, g the gradient of the mean loss over some batches.

    It is how strongly the loss depends on an entry c of the mask at c = 1, as ∂L/∂c = g·w. The paper divides by the
    sum over all entries, which changes no ranking. Source: Lee, Ajanthan & Torr 2019, "SNIP: Single-shot Network
    Pruning based on Connection Sensitivity", arXiv:1810.02340.

    Args:
        task: the model, in whose training mode the loss is taken, and its data; the model is put back.
        names: of the weights.
        batches: how many of the training batches the gradient is the mean of.
        seed: of their order and of dropout.
    """
    with task.preserved():
        task.model.train()
        seed_generators(seed_of_use(seed, _BATCHES), task.device)
        weights = [task.model.get_parameter(name) for name in names]
        total = [torch.zeros_like(weight, dtype=_kind(weight)) for weight in weights]
        for batch in task.order(seed, batches):
            task.model.zero_grad(set_to_none=True)  # a step that calls backward itself may do so, too
            task.backward(batch)
            for one, weight in zip(total, weights, strict=True):
                if weight.grad is not None:
                    one.add_(weight.grad, alpha=1 / batches)
        return {name: (one * weight.detach()).abs() for name, one, weight in zip(names, total, weights, strict=True)}


def grasp(task: Task, names: Sequence[str], *, batches: int, seed: int) -> dict[str, Tensor]:
    """Returns w ⊙ Hg of each weight, g and H gradient and Hessian of the mean loss over some batches.

    Removing an entry changes gᵀg, by which the loss falls in a small step, by −2·w·Hg to first order: what has the
    highest score holds the gradient up, and stays. The paper's score is −w ⊙ Hg, of which the lowest stay. H is that
    of the weights that may be thinned out; the paper's temperature of 200 on the logits is left out, as it knows no
    other loss than cross-entropy. Source: Wang, Zhang & Grosse 2020, "Picking Winning Tickets Before Training by
    Preserving Gradient Flow", arXiv:2002.07376.

    Args:
        task: the model, in whose training mode the loss is taken, and its data; the model is put back.
        names: of the weights.
        batches: how many of the training batches the loss is the mean of.
        seed: of their order and of dropout.

    Raises:
        CalibrationError: the loss cannot be differentiated twice, or a step calls backward by itself.
    """
    if task._own_backward:
        raise CalibrationError(
            "GraSP differentiates the loss twice, and this step calls backward by itself. Pass a step that returns the "
            "loss, or choose method='snip'."
        )
    with task.preserved(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        task.model.train()
        weights: list[Tensor] = [task.model.get_parameter(name) for name in names]
        products = _hessian_gradient(task, weights, list(task.order(seed, batches)), seed_of_use(seed, _BATCHES))
        return {
            name: product * weight.detach().to(product.dtype)
            for name, weight, product in zip(names, weights, products, strict=True)
        }


def _hessian_gradient(task: Task, weights: list[Tensor], batches: Sequence[Batch], seed: int) -> list[Tensor]:
    """Returns Hg of the mean loss, from two passes over the batches: one for g, one for the derivative of gᵀ·∇L."""
    mean = [torch.zeros_like(weight, dtype=_kind(weight)) for weight in weights]
    products = [torch.zeros_like(one) for one in mean]
    seed_generators(seed, task.device)
    for batch in batches:
        _add(mean, _gradient(task.loss(batch), weights), 1 / len(batches))
    seed_generators(seed, task.device)  # dropout leaves out the same units again
    for batch in batches:
        gradients = _gradient(task.loss(batch), weights, create_graph=True)
        along = torch.stack([(one * g).sum() for one, g in zip(mean, gradients, strict=True)]).sum()
        _add(products, _gradient(along, weights), 1 / len(batches))
    return products


def _add(total: list[Tensor], parts: Sequence[Tensor], share: float) -> None:
    for one, part in zip(total, parts, strict=True):
        one.add_(part.detach(), alpha=share)


def _gradient(output: Tensor, inputs: list[Tensor], *, create_graph: bool = False) -> list[Tensor]:
    """Returns the gradient of a scalar by each input, zero where it does not depend on it."""
    if not output.requires_grad:  # the gradient of a linear function is a constant
        return [torch.zeros_like(one) for one in inputs]
    try:
        found = torch.autograd.grad(output, inputs, create_graph=create_graph, allow_unused=True)
    except RuntimeError as problem:
        raise CalibrationError(
            f"GraSP differentiates the loss twice, which fails here: {described(problem)}. Choose method='snip'."
        ) from problem
    return [torch.zeros_like(one) if part is None else part for one, part in zip(inputs, found, strict=True)]


def _kind(weight: Tensor) -> torch.dtype:
    """Returns the dtype that sums are taken in: single at least."""
    return torch.promote_types(weight.dtype, torch.float32)
