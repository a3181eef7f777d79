"""He, Xavier and orthogonal everywhere, as people do it: one function of `torch.nn.init` over every weight."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from ...common.tasks import BenchTask
from .cost import FREE, Start


def he(model: nn.Module, task: BenchTask, seed: int) -> Start:
    """Sets std = √(2/fan-in); see `everywhere`."""
    return everywhere(model, lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"))


def xavier(model: nn.Module, task: BenchTask, seed: int) -> Start:
    """Sets std = √(2/(fan-in + fan-out)), uniform; see `everywhere`."""
    return everywhere(model, nn.init.xavier_uniform_)


def orthogonal(model: nn.Module, task: BenchTask, seed: int) -> Start:
    """Sets orthogonal rows or columns; see `everywhere`."""
    return everywhere(model, nn.init.orthogonal_)


def everywhere(model: nn.Module, draw: Callable[[Tensor], Tensor]) -> Start:
    """Draws every parameter of two axes or more, embeddings and heads too, and sets every bias to zero.

    Scales of normalizations, which have one axis and are no biases, stay.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            draw(parameter)
        elif "bias" in name.rsplit(".", 1)[-1]:
            nn.init.zeros_(parameter)
    return FREE
