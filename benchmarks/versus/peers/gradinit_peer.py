"""The package `gradinit` (after Zhu et al. 2021, arXiv:2102.08098), called as its README says.

Two things are done for it that its README does not say: attention runs on the backend that can be differentiated
twice, without which it raises, and the bound on the gradient is the paper's and not 1 throughout, with which it would
lower the gradient of an Adam task without end.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...common.tasks import BenchTask
from .cost import Start, Watch

ITERATIONS = 60
"""About 200 training steps, half of a long training; the paper takes one or two passes of several hundred batches."""
LR = 1e-2


def prepare(model: nn.Module, task: BenchTask, seed: int, iterations: int = ITERATIONS) -> Start:
    """Scales the parameters of a drawn model so that its gradient, or its loss, is small."""
    from gradinit import GradInitWrapper

    batches = task.train_batches(seed)
    watch = Watch(model, task, batches)
    plain_sgd = isinstance(task.optimizer(model.parameters()), torch.optim.SGD)
    bound = 1.0 if plain_sgd else math.sqrt(sum(parameter.numel() for parameter in model.parameters()))
    model.train()
    with sdpa_kernel(SDPBackend.MATH), GradInitWrapper(model) as wrapped:
        optimizer = torch.optim.Adam(model.parameters(), lr=LR)
        for place in range(iterations):
            with watch.iteration():
                loss = task.loss_of(model, batches[place % len(batches)])
                value = wrapped.grad_loss(loss, norm=2 if plain_sgd else 1, gamma=bound)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                wrapped.clamp_scales()
    return Start(watch.steps, "measured")
