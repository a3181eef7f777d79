"""What does not stack is refused, with the reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import unchanged
from stacking import ROWS, benched, mlp, momentum
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from autoinit.stacks.stackable import why_not


def own_backward(model: nn.Module, batch: Any) -> Tensor:
    loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
    loss.backward()
    return loss


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(8, 12, batch_first=True)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x.view(-1, 8, 8))[0][:, -1])


class Branching(nn.Module):
    """Takes another way where its output is large."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        return x / 2 if x.abs().mean() > 1 else x


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * grad


class OwnFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return Doubled.apply(self.layer(x))


class Remembering(nn.Module):
    """Adds what it saw before, which it keeps outside of its buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.seen: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        out = out + self.seen
        self.seen = out.detach().mean(0)
        return out


class Counting(nn.Module):
    """What it returns depends on how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x) * (1.0 + 0.1 * (self.calls % 3))


class Listing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(self.layer(x))
        return self.seen[-1]


class Noisy(nn.Module):
    """Draws from a generator that a seed does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.generator = np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.generator.uniform(0.5, 1.5)


class Cut(nn.Module):
    """A hook on its output divides the gradient by its norm, which in a stack is that of all candidates."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        if out.requires_grad:
            out.register_hook(lambda grad: grad / grad.norm())
        return out


class Slow(nn.Module):
    """An operation that torch runs one by one under vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def spectral() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(64, 16)), nn.ReLU(), nn.Linear(16, 10))


def hooked() -> nn.Module:
    model = mlp()
    model[0].weight.register_hook(lambda grad: grad / max(1.0, float(grad.norm())))
    return model


def plateau(parameters: Any) -> tuple[torch.optim.Optimizer, Any]:
    sgd = torch.optim.SGD(parameters, lr=0.1)
    return sgd, ReduceLROnPlateau(sgd)


def clipping(parameters: Any) -> torch.optim.Optimizer:
    parameters = list(parameters)
    sgd = torch.optim.SGD(parameters, lr=0.1)
    sgd.register_step_pre_hook(lambda *_: nn.utils.clip_grad_norm_(parameters, 1.0) and None)
    return sgd


class Normalized(torch.optim.SGD):
    """Divides each gradient by its norm, which of a stack is that of all candidates."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad /= parameter.grad.norm() + 1e-12
        return super().step(closure)


REFUSED: dict[str, tuple[Callable[[], nn.Module], Any, dict[str, Any], str]] = {
    "LSTM": (Recurrent, momentum, {}, r"torch.vmap cannot run it \(RuntimeError: .*lstm"),
    "data-dependent": (Branching, momentum, {}, "data-dependent control flow"),
    "own autograd function": (OwnFunction, momentum, {}, "autograd.Function"),
    "spectral norm": (spectral, momentum, {}, "torch.vmap cannot run it"),
    "an operation without a rule": (Slow, momentum, {}, "one by one .*_weight_norm"),
    "own backward": (mlp, momentum, {"step": own_backward}, "calls backward itself"),
    "float16": (mlp, momentum, {"autocast": torch.float16}, "loss scale of its own"),
    "hooks on gradients": (hooked, momentum, {}, "hooks on the gradients"),
    "own optimizer": (mlp, lambda p: Normalized(p, lr=0.01), {}, "Normalized is not known to move each entry"),
    "hooks on steps": (mlp, clipping, {}, "hooks on the steps of SGD"),
    "plateau": (mlp, plateau, {}, "ReduceLROnPlateau sets the learning rate by the loss"),
    "a number that counts": (Counting, momentum, {}, "attribute calls changes"),
    "a tensor that is no buffer": (Remembering, momentum, {}, "attribute seen changes"),
    "tensors in a list": (Listing, momentum, {}, r"attribute seen\[0\] changes"),
    "numbers of its own": (Noisy, momentum, {}, r"loss is [\d.]+ in a stack, [\d.]+ by itself"),
    "a gradient of its own": (Cut, lambda p: torch.optim.SGD(p, lr=1e-10), {}, "the gradient of layer.weight differs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_stack_is_refused_with_the_reason(case: str) -> None:
    make, optimizer, rest, reason = REFUSED[case]
    with benched(make, ROWS, optimizer, **rest) as bench, unchanged(bench.task.model):
        assert re.search(reason, why_not(bench))


def test_parameters_that_are_no_plain_tensors_are_refused() -> None:
    class Typed(nn.Parameter):
        pass

    def make() -> nn.Module:
        model = mlp()
        model[0].weight = Typed(model[0].weight.detach().double())
        return model

    with benched(make, ROWS) as bench:
        assert "no plain tensors (Typed)" in why_not(bench)
