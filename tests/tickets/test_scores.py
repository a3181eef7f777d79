"""SNIP against finite differences in the mask, GraSP against an explicit Hessian."""

from __future__ import annotations

import pytest
import torch
from lots import WEIGHTS, data, dense, task_of
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from autoinit.errors import CalibrationError
from autoinit.task.task import example_task
from autoinit.tickets.scores import grasp, snip


def test_snip_is_the_slope_of_the_loss_in_an_entry_of_the_mask() -> None:
    model = dense().double()
    batches = [(x.double(), y) for x, y in data()]
    found = snip(task_of(model, batches), WEIGHTS, batches=3, seed=0)

    def mean_loss(changed: dict[str, Tensor]) -> float:
        buffers = {name: value.clone() for name, value in model.named_buffers()}
        outputs = ((functional_call(model, {**buffers, **changed}, (x,)), y) for x, y in batches)
        return float(torch.stack([F.cross_entropy(output, y) for output, y in outputs]).mean().detach())

    for name in WEIGHTS:
        weight = model.get_parameter(name).detach()
        for entry in ((0, 0), (2, 5), (1, 7)):
            values = []
            for gate in (1 + 1e-5, 1 - 1e-5):
                mask = torch.ones_like(weight)
                mask[entry] = gate
                values.append(mean_loss({name: weight * mask}))
            slope = (values[0] - values[1]) / 2e-5
            assert float(found[name][entry]) == pytest.approx(abs(slope), rel=1e-4, abs=1e-9)


def test_grasp_is_weight_times_hessian_times_gradient() -> None:
    model = nn.Sequential(nn.Linear(8, 4, bias=False), nn.Tanh(), nn.Linear(4, 3, bias=False)).double()
    batches = [(x.double(), y) for x, y in data()]
    names = ["0.weight", "2.weight"]
    found = grasp(task_of(model, batches), names, batches=3, seed=0)
    flat = torch.cat([model.get_parameter(name).detach().flatten() for name in names])

    def mean_loss(vector: Tensor) -> Tensor:
        first, second = vector[:32].view(4, 8), vector[32:].view(3, 4)
        return torch.stack([F.cross_entropy((x @ first.T).tanh() @ second.T, y) for x, y in batches]).mean()

    hessian = torch.autograd.functional.hessian(mean_loss, flat)
    gradient = torch.autograd.functional.jacobian(mean_loss, flat)
    torch.testing.assert_close(torch.cat([found[name].flatten() for name in names]), flat * (hessian @ gradient))


def test_grasp_says_how_the_norm_of_the_gradient_falls_without_an_entry() -> None:
    """The sign: what has the highest score holds gᵀg up, and is kept."""
    model = nn.Sequential(nn.Linear(8, 4, bias=False), nn.Tanh(), nn.Linear(4, 3, bias=False)).double()
    batches = [(x.double(), y) for x, y in data()]
    score = grasp(task_of(model, batches), ["0.weight"], batches=3, seed=0)["0.weight"]
    weight = model.get_parameter("0.weight")

    def square(gate: float) -> float:
        old = weight.detach().clone()
        with torch.no_grad():
            weight[1, 2] *= gate
        loss = torch.stack([F.cross_entropy(model(x), y) for x, y in batches]).mean()
        (found,) = torch.autograd.grad(loss, [weight])
        with torch.no_grad():
            weight.copy_(old)
        return float(found.square().sum())

    slope = (square(1 - 1e-5) - square(1 + 1e-5)) / 2e-5  # toward its removal
    assert slope == pytest.approx(-2 * float(score[1, 2]), rel=1e-4)


def test_a_step_that_calls_backward_serves_snip_and_not_grasp() -> None:
    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        model.zero_grad()
        loss = F.cross_entropy(model(batch[0]), batch[1])
        loss.backward()
        return loss

    task = example_task(dense(), data(), step=step, whole=True)
    found = snip(task, WEIGHTS, batches=3, seed=0)
    plain = snip(task_of(dense(), data()), WEIGHTS, batches=3, seed=0)
    torch.testing.assert_close(found, plain)
    with pytest.raises(CalibrationError, match="calls backward by itself"):
        grasp(task, WEIGHTS, batches=3, seed=0)


def test_attention_can_be_differentiated_twice() -> None:
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(), nn.Linear(32, 3))
    x = torch.randn(16, 4, 8)
    found = grasp(task_of(model, [(x, torch.arange(16) % 3)]), ["0.linear1.weight"], batches=1, seed=0)
    assert found["0.linear1.weight"].abs().sum() > 0
