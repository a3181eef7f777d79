"""MetaInit, written from the paper (Dauphin & Schoenholz 2019, NeurIPS) apart from the library's own.

The norm of every weight of two axes or more is moved by the sign of the gradient quotient's slope, with momentum, in
steps of a fixed size, in evaluation mode, as in the code of the paper's appendix. Differences: the batches are the
task's and not noise, so that token models have an input; attention runs on the backend that can be differentiated; a
weight that is all zeros, which has no direction to scale along, stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...common.tasks import BenchTask
from .cost import Start, Watch

ITERATIONS = 50
"""The paper takes 500, which is more than 5,000 training steps: more than any allowance here pays for."""
LR, MOMENTUM, EPSILON = 0.1, 0.9, 1e-5


def prepare(model: nn.Module, task: BenchTask, seed: int, iterations: int = ITERATIONS) -> Start:
    """Rescales the weights of a drawn model so that its gradient changes little along a gradient step."""
    batches = task.train_batches(seed)
    watch = Watch(model, task, batches)
    for _ in descent(model, task, batches, iterations, watch):
        pass
    return Start(watch.steps, "measured")


def descent(
    model: nn.Module, task: BenchTask, batches: Sequence[Any], iterations: int, watch: Watch | None = None
) -> Iterator[float]:
    """Moves the norms in place, and yields the gradient quotient before each move."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = [weight for weight in parameters if weight.ndim >= 2 and bool(weight.any())]
    moves = [0.0] * len(weights)
    model.eval()
    for place in range(iterations):
        with watch.iteration() if watch else nullcontext():
            with sdpa_kernel(SDPBackend.MATH):
                quotient = gradient_quotient(task.loss_of(model, batches[place % len(batches)]), parameters)
                slopes = torch.autograd.grad(quotient, weights, materialize_grads=True)
            moves = _moved(weights, slopes, moves)
        yield quotient.item()
    model.train()


def _moved(weights: Sequence[Tensor], slopes: Sequence[Tensor], moves: Sequence[float]) -> list[float]:
    """Adds the next moves to the norms in place, and returns them."""
    following = []
    with torch.no_grad():
        for weight, slope, move in zip(weights, slopes, moves, strict=True):
            norm = weight.norm()
            following.append(MOMENTUM * move - LR * float(torch.sign((weight * slope).sum() / norm)))
            weight.mul_((norm + following[-1]) / norm)
    return following


def gradient_quotient(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Returns the mean over entries of |(g − Hg)/(g + ε·sign g) − 1|, differentiable.

    Args:
        loss: a scalar.
        parameters: with respect to which g and the Hessian H are taken.
    """
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    half_square = torch.stack([g.square().sum() for g in gradients]).sum() / 2
    products = torch.autograd.grad(half_square, parameters, create_graph=True, materialize_grads=True)
    total = torch.stack([_deviations(g, product).sum() for g, product in zip(gradients, products, strict=True)]).sum()
    return total / sum(parameter.numel() for parameter in parameters)


def _deviations(gradient: Tensor, product: Tensor) -> Tensor:
    sign = 2 * (gradient.detach() >= 0).to(gradient.dtype) - 1
    return ((gradient - product) / (gradient + EPSILON * sign) - 1).abs()
