"""Float16 with a loss scale: like float32 within tolerance, and an overflow is a skipped step."""

from __future__ import annotations

import gc
import itertools
import math
import weakref
from typing import Any

import pytest
import torch
from helpers import unchanged
from sklearn.datasets import load_digits
from torch import Tensor, nn

from autoinit.judging.score import RANGE_STEP, Curve, Glance
from autoinit.probing.probe import probe
from autoinit.task.precision import LossScale
from autoinit.task.task import Task, make_task

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)
CPU = torch.device("cpu")


class Overflow(torch.autograd.Function):
    """Hands its input on; its gradient is inf wherever it would be above a limit, as in float16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, limit: float) -> Tensor:
        ctx.limit = limit
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        return torch.where(grad.abs() > ctx.limit, torch.inf, grad), None


class Limited(nn.Module):
    """A net whose gradients overflow at the loss scale that training starts with."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        return Overflow.apply(self.net(x), self.limit)  # type: ignore[no-any-return,no-untyped-call]


def task_of(model: nn.Module, autocast: torch.dtype | None, **rest: Any) -> Task:
    return make_task(
        model, DATA, autocast=autocast, optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), **rest
    )


def digits_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def run(task: Task, **rest: Any) -> Curve:
    with unchanged(task.model), task.preserved():
        return probe(task, **{"steps": 40, "seed": 0, **rest})


def test_float16_trains_like_float32() -> None:
    half, full = run(task_of(digits_net(), torch.float16)), run(task_of(digits_net(), None))
    assert half.losses != full.losses
    torch.testing.assert_close(torch.tensor(half.losses), torch.tensor(full.losses), rtol=0.02, atol=0.01)
    assert half.gradient_range == pytest.approx(full.gradient_range, abs=0.05)
    assert half.glance is not None
    assert full.glance is not None
    assert half.glance.gradient_norm == pytest.approx(full.glance.gradient_norm, rel=0.01)


def faint(output: Tensor, target: Tensor) -> Tensor:
    """A loss so small that the gradients of float16 activations are zero, unless it is scaled up."""
    return 1e-7 * nn.functional.cross_entropy(output.float(), target)


def test_small_gradients_survive_by_the_scale() -> None:
    def norm(autocast: torch.dtype | None) -> float:
        glance = run(make_task(digits_net(), DATA, loss=faint, autocast=autocast), steps=2).glance
        assert glance is not None
        return glance.gradient_norm

    assert norm(torch.float16) == pytest.approx(norm(None), rel=0.02)
    task = make_task(digits_net(), DATA, loss=faint, autocast=torch.float16)
    with task.preserved():
        task.backward(task.train[0])  # without a scale there is nothing left of them
        first = next(task.model.parameters()).grad
        assert first is not None
        assert not first.any()


def test_an_overflow_skips_the_step_and_is_no_divergence() -> None:
    """Gradients of the logits are about 1/640 × 65536 = 100 at first; a limit of 20 is met at a scale of 2^13."""
    task = task_of(Limited(20.0), torch.float16)
    weights: list[Tensor] = []
    glances: list[tuple[int, Glance]] = []

    def note(module: nn.Module, *_: Any) -> None:
        weights.append(next(module.parameters()).detach().clone())

    hook = task.model.register_forward_pre_hook(note)

    def screen(glance: Glance) -> bool:
        glances.append((len(weights), glance))
        return True

    curve = run(task, screen=screen)
    hook.remove()
    same = [one.equal(other) for one, other in itertools.pairwise(weights)]
    skipped = same.index(False)
    assert skipped >= 1
    assert not any(same[skipped:])
    assert curve.diverged_at is None
    assert curve.losses[-1] < 0.7 * curve.losses[0]
    ((seen_at, glance),) = glances  # asked once, at the first gradients that mean something
    assert seen_at == skipped + 1
    assert math.isfinite(glance.gradient_norm)


def test_the_gradient_range_waits_for_finite_gradients() -> None:
    plain = run(task_of(Limited(math.inf), torch.float16), steps=2)
    waiting = run(task_of(Limited(20.0), torch.float16), steps=12, rungs=(1,))
    assert plain.gradient_range is not None
    assert waiting.gradient_range is not None
    assert math.isfinite(waiting.gradient_range)


def test_gradients_that_are_never_finite_end_as_a_veto_and_not_in_an_error() -> None:
    seen: list[Glance] = []

    def screen(glance: Glance) -> bool:
        seen.append(glance)
        return False

    curve = run(task_of(Limited(-1.0), torch.float16), steps=40, screen=screen)
    assert curve.steps == RANGE_STEP
    assert not math.isfinite(seen[0].gradient_norm)


def test_the_scheduler_waits_for_the_first_step_that_is_taken() -> None:
    """Stepped before the optimizer, torch's schedulers warn, and warnings are errors here."""

    def build(params: Any) -> Any:
        optimizer = torch.optim.SGD(params, lr=0.1)
        return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.5)

    task = make_task(Limited(20.0), DATA, autocast=torch.float16, optimizer=build)
    assert run(task).diverged_at is None


@pytest.mark.parametrize("case", ["bfloat16", "float32", "own backward", "half weights"])
def test_what_needs_no_scale_has_none(case: str) -> None:
    def own(model: nn.Module, batch: Any) -> Tensor:
        loss = nn.functional.cross_entropy(model(batch[0]).float(), batch[1])
        (loss * 1024).backward()
        for parameter in model.parameters():
            parameter.grad /= 1024
        return loss.detach()

    model = digits_net()
    options: dict[str, Any] = {"optimizer": lambda p: torch.optim.SGD(p, lr=0.1)}
    options["autocast"] = None if case == "float32" else torch.float16
    if case == "bfloat16":
        options["autocast"] = torch.bfloat16
    if case == "own backward":
        options["step"] = own
    if case == "half weights":
        model.half()
    task = make_task(model, DATA, **options)
    with task.preserved():
        assert task.loss_scale(task.build_optimizer()[0]) is None
    assert run(task, steps=5).diverged_at is None


def test_every_training_starts_with_a_fresh_scale() -> None:
    task = task_of(Limited(20.0), torch.float16)
    assert run(task).losses == run(task).losses


def test_the_scale_is_halved_by_an_overflow() -> None:
    weight = nn.Parameter(torch.ones(1))
    scale = LossScale(torch.optim.SGD([weight], lr=0.5), CPU)
    start = scale.factor
    scale.backward((weight * torch.tensor([torch.inf])).sum())
    assert not scale.step()
    assert (scale.factor, weight.item()) == (start / 2, 1.0)
    weight.grad = None
    scale.backward(weight.sum())
    assert weight.grad is not None
    assert weight.grad.item() == 1.0
    assert scale.step()
    assert (scale.factor, weight.item()) == (start / 2, 0.5)


def test_it_keeps_no_optimizer_alive() -> None:
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(1))])
    scale = LossScale(optimizer, CPU)
    alive = weakref.ref(optimizer)
    gc.disable()
    try:
        del optimizer, scale
        assert alive() is None
    finally:
        gc.enable()
