"""A step moves nothing: what would be trained behind the comparison is refused, and nothing has moved."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import unchanged
from sklearn.datasets import load_wine
from torch import Tensor, nn
from torch.nn import functional as F

import autoinit
from autoinit.errors import StepError
from autoinit.task.task import make_task

X, Y = (torch.tensor(part) for part in load_wine(return_X_y=True))
DATA = ((X - X.mean(0)).div(X.std(0)).float(), Y)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(13, 16), nn.BatchNorm1d(16), nn.SiLU(), nn.Linear(16, 3))


Step = Callable[[nn.Module, Any], Tensor]


def trains_itself(optimizer: torch.optim.Optimizer) -> Step:
    def step(model: nn.Module, batch: Any) -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def used(model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer that has taken a step."""
    optimizer = torch.optim.NAdam(model.parameters(), lr=1e-2)
    F.cross_entropy(model(DATA[0]), DATA[1]).backward()
    optimizer.step()
    return optimizer


VERBS: dict[str, Callable[..., Any]] = {
    "diagnose": lambda model, step: autoinit.diagnose(model, DATA, step=step),
    "select": lambda model, step: autoinit.select(model, DATA, step=step, budget=autoinit.Budget(steps=200)),
    "lsuv": lambda model, step: autoinit.apply_(model, "lsuv", DATA, step=step),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_step_that_steps_its_optimizer_is_refused_before_anything_moves(verb: str) -> None:
    model = net()
    optimizer = used(model)
    before = copy.deepcopy(optimizer.state_dict())
    told = r"NAdam\.step\(\) on 6 of the model's.*return the loss.*optimizer="
    with unchanged(model), pytest.raises(StepError, match=told):
        VERBS[verb](model, trains_itself(optimizer))
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


def test_reading_an_architecture_steps_no_optimizer() -> None:
    model = net()
    optimizer = used(model)
    before = copy.deepcopy(optimizer.state_dict())
    with unchanged(model):
        graph = autoinit.trace(model, DATA, step=trains_itself(optimizer))
    assert graph["3.weight"].role == "output"
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


def test_a_step_that_goes_on_after_an_exception_is_refused_too() -> None:
    model = net()
    inner = trains_itself(torch.optim.SGD(model.parameters(), lr=0.1))

    def step(model: nn.Module, batch: Any) -> Tensor:
        with contextlib.suppress(Exception):
            inner(model, batch)
        return F.cross_entropy(model(batch[0]), batch[1])

    with unchanged(model), pytest.raises(StepError, match=r"SGD\.step\(\)"):
        make_task(model, DATA, step=step)


def test_an_optimizer_that_steps_as_gradients_arrive_is_refused() -> None:
    model = net()
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: optimizers[p].step())
    with unchanged(model), pytest.raises(StepError, match=r"SGD\.step\(\) on 1 of"):
        make_task(model, DATA)


def by_hand(model: nn.Module, batch: Any) -> Tensor:
    """A bias before a normalization gets no gradient and stays."""
    loss = F.cross_entropy(model(batch[0]), batch[1])
    for parameter, gradient in zip(model.parameters(), torch.autograd.grad(loss, [*model.parameters()]), strict=True):
        parameter.data -= 1e-3 * gradient
    return loss.detach()


def test_a_step_that_moves_weights_by_hand_is_refused() -> None:
    model = net()
    with unchanged(model), pytest.raises(StepError, match="changes 5 of the model's parameters itself"):
        make_task(model, DATA, step=by_hand)


def test_weights_that_are_kept_within_bounds_are_no_training() -> None:
    model = net()

    def clamped(model: Any, batch: Any) -> Tensor:
        model[0].weight.data.clamp_(-0.1, 0.1)
        return F.cross_entropy(model(batch[0]), batch[1])

    with unchanged(model):
        make_task(model, DATA, step=clamped)


class Averaged(nn.Module):
    """With a moving average of its weights, which the step moves."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.online, self.target = net(), net().requires_grad_(not frozen)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.online.parameters(), strict=True):
                slow.lerp_(fast, 0.01)
            aim = self.target(x).softmax(-1)
        return F.cross_entropy(self.online(x), aim)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_moving_average_is_no_training(frozen: bool) -> None:
    model = Averaged(frozen)
    with unchanged(model):
        make_task(model, DATA, step=lambda model, batch: model(batch[0]))


def test_an_optimizer_of_another_network_is_refused_and_put_back() -> None:
    model, critic = net(), net()
    optimizer = used(critic)
    before = copy.deepcopy(optimizer.state_dict())
    train_critic = trains_itself(optimizer)

    def step(model: nn.Module, batch: Any) -> Tensor:
        train_critic(critic, batch)
        return F.cross_entropy(model(batch[0]) + critic(batch[0]), batch[1])

    weights = [parameter.clone() for parameter in critic.parameters()]
    with unchanged(model), pytest.raises(StepError, match="weights that do not belong to the model"):
        autoinit.diagnose(model, DATA, step=step)
    assert all(map(torch.equal, weights, critic.parameters()))
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


def test_an_inner_loop_on_copies_is_allowed() -> None:
    model = net()

    def step(model: nn.Module, batch: Any) -> Tensor:
        fast = copy.deepcopy(model)
        optimizer = torch.optim.Adam(fast.parameters())
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        F.cross_entropy(fast(batch[0]), batch[1]).backward()
        optimizer.step()
        schedule.step()
        return F.cross_entropy(model(batch[0]), fast(batch[0]).detach().argmax(-1))

    with unchanged(model):
        make_task(model, DATA, step=step)
