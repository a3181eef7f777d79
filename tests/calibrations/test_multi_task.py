"""Heads that send equal gradients into their trunk, measured by hooks of our own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import unchanged
from once import mnist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import autoinit
from autoinit.calibrations.multi_task import LARGEST, PASSES, multi_task
from autoinit.calibrations.subject import Subject
from autoinit.errors import RecipeError
from autoinit.plans.plan import Plan
from autoinit.task.task import example_task
from autoinit.tracing.tracing import trace_task

ROWS, LABELS = mnist()
X, Y = torch.tensor(ROWS[::20] / 255, dtype=torch.float32), torch.tensor(LABELS[::20])
Step = Callable[[nn.Module, Any], Tensor]


class Tasks(nn.Module):
    """Digits, how much ink there is, and the lower half of the picture, from one trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.digit, self.ink, self.lower = nn.Linear(32, 10), nn.Linear(32, 1), nn.Linear(32, 392)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.trunk(x)
        return self.digit(hidden), self.ink(hidden), self.lower(hidden)


def weighed(digit: float = 1.0, ink: float = 1.0, lower: float = 1.0) -> Step:
    def step(model: nn.Module, batch: Any) -> Tensor:
        x, y = batch
        found = model(x)
        losses = (
            F.cross_entropy(found[0], y),
            F.mse_loss(found[1], x.mean(1, keepdim=True)),
            F.mse_loss(found[2], x[:, 392:]),
        )
        return sum((w * loss for w, loss in zip((digit, ink, lower), losses, strict=True)), torch.zeros(()))

    return step


def sent(model: nn.Module, step: Step, heads: tuple[str, ...], batch: Any = (X, Y)) -> dict[str, float]:
    """The norm of the gradient that each head sends back, as a hook on a copy of its input sees it."""
    inputs: dict[str, Tensor] = {}

    def copied(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            inputs[name] = args[0].clone()
            return (inputs[name],)

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(copied(name)) for name in heads]
    model.train()
    loss = step(model, batch)
    gradients = torch.autograd.grad(loss, list(inputs.values()))
    for handle in handles:
        handle.remove()
    return {name: gradient.norm().item() for name, gradient in zip(inputs, gradients, strict=True)}


ALL = ("digit", "ink", "lower")


def spread(norms: dict[str, float]) -> float:
    return max(norms.values()) / min(norms.values())


def mean(norms: dict[str, float]) -> float:
    return math.exp(sum(map(math.log, norms.values())) / len(norms))


@pytest.mark.parametrize(
    "step",
    [weighed(), weighed(ink=1000), weighed(digit=1000), weighed(lower=0.001, ink=30)],
    ids=["as they are", "ink × 1000", "digit × 1000", "both ways"],
)
def test_heads_of_losses_of_all_kinds_and_sizes_send_equal_gradients(step: Step) -> None:
    torch.manual_seed(0)
    model = Tasks()
    before, biases = sent(model, step, ALL), {name: p.clone() for name, p in model.named_parameters() if "bias" in name}
    trunk = model.get_parameter("trunk.0.weight").clone()
    plan = autoinit.apply_(model, "multi_task", [(X, Y)], step=step)
    after = sent(model, step, ALL)
    assert spread(before) > 1.5
    assert spread(after) < 1.05
    assert mean(after) == pytest.approx(mean(before), rel=0.02)
    assert all(torch.equal(model.get_parameter(name), bias) for name, bias in biases.items())
    assert torch.equal(model.get_parameter("trunk.0.weight"), trunk)
    assert {name for name, fill in plan.items() if fill.factor != 1} <= {f"{name}.weight" for name in ALL}


def test_two_losses_a_thousand_apart_meet_in_the_middle() -> None:
    class Twins(nn.Module):
        """Two heads that read the same and are the same, up to the size of their losses."""

        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.a, self.b = nn.Linear(784, 16), nn.Linear(16, 10), nn.Linear(16, 10)
            self.b.load_state_dict(self.a.state_dict())

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = torch.tanh(self.trunk(x))
            return self.a(hidden), self.b(hidden)

    def step(model: nn.Module, batch: Any) -> Tensor:
        a, b = model(batch[0])
        return F.cross_entropy(a, batch[1]) + 1000 * F.cross_entropy(b, batch[1])

    torch.manual_seed(0)
    model = Twins()
    before = sent(model, step, ("a", "b"))
    assert before["b"] / before["a"] == pytest.approx(1000, rel=1e-3)
    plan = autoinit.apply_(model, "multi_task", [(X, Y)], step=step)
    assert spread(sent(model, step, ("a", "b"))) < 1.05
    assert plan["b.weight"].factor < 0.1 < 5 < plan["a.weight"].factor


def adjusted(model: nn.Module, step: Step, batch: Any = (X, Y)) -> tuple[dict[str, float], int]:
    """The factors, and the passes that they took."""
    task = example_task(model, [batch], step=step, whole=True)
    passes: list[float] = []
    with task.preserved():
        found = multi_task(Subject(task, trace_task(task), spend=lambda *, forwards: passes.append(forwards)))
    return {name: by.factor for name, by in found.items()}, int(sum(passes))


def test_it_costs_as_many_passes_as_it_says() -> None:
    torch.manual_seed(0)
    factors, passes = adjusted(Tasks(), weighed())
    assert len(factors) == 3
    assert 2 <= passes <= PASSES


class Counting(torch.autograd.Function):
    """The identity, which counts how often it is differentiated."""

    times = 0

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        Counting.times += 1
        return gradients[0]


class Counted(Tasks):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = Counting.apply(self.trunk(x))
        return self.digit(hidden), self.ink(hidden), self.lower(hidden)


def test_the_trunk_is_not_differentiated() -> None:
    torch.manual_seed(0)
    task = example_task(Counted(), [(X, Y)], step=weighed(), whole=True)
    graph, before = trace_task(task), Counting.times
    assert before > 0
    with task.preserved():
        assert len(multi_task(Subject(task, graph))) == 3
    assert Counting.times == before


def test_a_head_of_zeros_stays_and_the_others_meet() -> None:
    torch.manual_seed(0)
    model, step = Tasks(), weighed(ink=100)
    nn.init.zeros_(model.lower.weight)
    autoinit.apply_(model, "multi_task", [(X, Y)], step=step)
    assert not model.lower.weight.any()
    assert spread(sent(model, step, ("digit", "ink"))) < 1.05
    zero = autoinit.apply_(Tasks(), autoinit.Recipe(head="zero", calibration="multi_task"), [(X, Y)], step=step)
    assert all(fill.factor == 1 for fill in zero.values())


def test_a_head_whose_loss_does_not_count_stays() -> None:
    torch.manual_seed(0)
    factors, _ = adjusted(Tasks(), weighed(lower=0.0))
    assert set(factors) == {"digit.weight", "ink.weight"}


def test_a_factor_is_bounded() -> None:
    torch.manual_seed(0)
    factors, passes = adjusted(Tasks(), weighed(ink=1e-9, lower=1e9))
    assert all(1 / LARGEST * 0.999 <= factor <= LARGEST * 1.001 for factor in factors.values())
    assert factors["ink.weight"] == pytest.approx(LARGEST)
    assert passes <= PASSES


class Agent(nn.Module):
    """An actor and a critic that share nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(784, 16), nn.Tanh(), nn.Linear(16, 10))
        self.critic = nn.Sequential(nn.Linear(784, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(x), self.critic(x)


def agreed(model: nn.Module, batch: Any) -> Tensor:
    scores, value = model(batch[0])
    return F.cross_entropy(scores, batch[1]) + value.square().mean()


def test_heads_of_separate_trunks_are_left() -> None:
    torch.manual_seed(0)
    assert adjusted(Agent(), agreed) == ({}, 1)


def test_a_step_that_goes_back_by_itself_is_measured_too() -> None:
    def step(model: nn.Module, batch: Any) -> Tensor:
        loss = weighed(ink=50)(model, batch)
        loss.backward()
        return loss.detach()

    torch.manual_seed(0)
    model = Tasks()
    with unchanged(model):
        own, _ = adjusted(model, step)
        returned, _ = adjusted(model, weighed(ink=50))
    assert own == returned
    assert len(own) == 3


def test_heads_of_several_uses_convolutions_and_parametrized_ones() -> None:
    class Maps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Conv2d(1, 8, 5, stride=2)
            self.mask = nn.Conv2d(8, 1, 1)
            self.digit = parametrizations.weight_norm(nn.Linear(8, 10))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            found = self.trunk(x.view(-1, 1, 28, 28)).relu()
            top, whole = self.digit(found[:, :, :6].mean((2, 3))), self.digit(found.mean((2, 3)))
            return self.mask(found), top, whole

    def step(model: nn.Module, batch: Any) -> Tensor:
        mask, top, whole = model(batch[0])
        return mask.square().mean() + F.cross_entropy(top, batch[1]) + F.cross_entropy(whole, batch[1])

    torch.manual_seed(0)
    model = Maps()
    first, _ = adjusted(model, step)
    assert set(first) == {"mask.weight", "digit.weight"}
    autoinit.apply_(model, "multi_task", [(X, Y)], step=step)
    again, passes = adjusted(model, step)
    assert passes == 1
    assert again == {}


def test_one_head_is_refused() -> None:
    model = nn.Sequential(nn.Linear(784, 8), nn.ReLU(), nn.Linear(8, 10))
    with pytest.raises(RecipeError, match=r"'multi_task' is for networks with two heads or more .* Use lsuv"):
        autoinit.apply_(model, "multi_task", (X, Y))


def test_the_plan_gives_the_same_weights_by_itself() -> None:
    torch.manual_seed(0)
    first, second = Tasks(), Tasks()
    recipe = autoinit.Recipe(base="he_normal", calibration="multi_task")
    plan: Plan = autoinit.apply_(first, recipe, [(X, Y)], step=weighed(ink=100))
    autoinit.apply_(second, plan)
    assert all(torch.equal(a, second.get_parameter(name)) for name, a in first.named_parameters())
    assert spread(sent(first, weighed(ink=100), ALL)) < 1.05
