from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from helpers import unchanged
from sklearn.datasets import load_digits
from torch import nn

from autoinit.judging.score import RANGE_STEP, Curve, Glance
from autoinit.probing import probe as probing
from autoinit.probing.probe import probe
from autoinit.task import machine
from autoinit.task.task import Task, make_task

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)


def digits_task(lr: float = 0.1, dropout: float = 0.0) -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 10))
    return make_task(model, DATA, optimizer=lambda p: torch.optim.SGD(p, lr=lr, momentum=0.9))


def run(task: Task, **rest: object) -> Curve:
    with task.preserved():
        return probe(task, **{"steps": 30, "seed": 0, **rest})  # type: ignore[arg-type]


def test_it_trains() -> None:
    curve = run(digits_task())
    assert curve.steps == 30
    assert curve.losses[-1] < 0.5 * curve.losses[0]
    assert curve.seconds > 0


def test_it_is_plain_training() -> None:
    task = digits_task()
    with task.preserved():
        torch.manual_seed(5)
        optimizer = torch.optim.SGD(task.model.parameters(), lr=0.1, momentum=0.9)
        slow = []
        for x, y in task.order(5, 30):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(task.model(x), y)
            loss.backward()
            optimizer.step()
            slow.append(loss.item())
    assert run(task, seed=5).losses == tuple(slow)


def test_same_seed_same_curve_dropout_included() -> None:
    task = digits_task(dropout=0.5)
    assert run(task).losses == run(task).losses
    assert run(task).losses != run(task, seed=1).losses


@pytest.mark.parametrize("lr", [0.1, 1e9])
def test_losses_that_are_read_at_rungs_make_the_same_curve(lr: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device that computes while the program goes on; also where one of them is not finite."""
    task, asked = digits_task(lr=lr), list[int]()
    rest = {"steps": 30, "rungs": (4, 9), "held_back": task.probe_eval[:2]}
    at_once = dataclasses.replace(run(task, **rest), seconds=0.0)
    monkeypatch.setattr(probing, "runs_ahead", lambda device: True)
    monkeypatch.setattr(machine, "runs_ahead", lambda device: True)
    reads = list[int]()
    numbers = machine.numbers
    monkeypatch.setattr(probing, "numbers", lambda losses: reads.append(len(losses)) or numbers(losses))
    late = dataclasses.replace(run(task, **rest, on_rung=lambda c: asked.append(c.steps) is None), seconds=0.0)
    assert repr(late) == repr(at_once)  # in which NaN is NaN
    assert (at_once.diverged_at is None) == (lr < 1)
    assert reads == ([1, 3, 5, RANGE_STEP - 9, 30 - RANGE_STEP] if lr < 1 else [1, 3])
    assert asked == [step for step in (4, 9, 30) if at_once.diverged_at is None]


def test_learning_rate_factor() -> None:
    assert run(digits_task(lr=0.05), lr_factor=2.0).losses == run(digits_task(lr=0.1)).losses


def test_rungs_are_evaluated_and_may_stop_it() -> None:
    task = digits_task()
    seen: list[int] = []

    def on_rung(curve: Curve) -> bool:
        seen.append(curve.steps)
        return curve.steps < 20

    curve = run(task, rungs=(10, 20), on_rung=on_rung, held_back=task.probe_eval)
    assert seen == [10, 20]
    assert [step for step, _ in curve.held_back] == [10, 20]
    assert curve.steps == 20


def test_gradient_range_is_that_of_the_weights() -> None:
    task = digits_task()
    with task.preserved():
        probe(task, steps=RANGE_STEP - 1, seed=0)
        batches = list(task.order(0, RANGE_STEP))
        task.model.zero_grad()
        task.backward(batches[-1])
        norms = [p.grad.norm().item() for p in task.model.parameters() if p.ndim > 1]
    assert run(task).gradient_range == pytest.approx(math.log10(max(norms) / min(norms)), rel=1e-4)


def test_divergence_is_contained() -> None:
    curve = run(digits_task(lr=1e30))
    assert curve.diverged_at is not None
    assert curve.diverged_at == curve.steps <= 5


def test_evaluation_is_per_row_in_eval_mode_and_keeps_each_flag() -> None:
    task = digits_task(dropout=0.5)
    task.model[2].train(False)
    flags = [module.training for module in task.model.modules()]
    with unchanged(task.model):
        losses = task.evaluate(task.gate_eval)
    assert [module.training for module in task.model.modules()] == flags
    task.model.eval()
    slow = [nn.functional.cross_entropy(task.model(x), y).item() for x, y in task.gate_eval]
    assert losses == pytest.approx(slow, rel=1e-5)


def test_a_curve_holds_the_mean_per_row_and_the_last_loss_of_each_batch() -> None:
    task = digits_task(lr=1e-12)
    held_back = [task.gate_eval[0], tuple(part[:10] for part in task.gate_eval[1])]
    rows = [len(y) for _, y in held_back]
    assert len(set(rows)) > 1  # else the mean over batches would do
    curve = run(task, steps=4, held_back=held_back, rungs=(2,))
    each = zip(curve.by_batch, rows, strict=True)
    assert [step for step, _ in curve.held_back] == [2, 4]
    assert curve.held_back[-1][1] == pytest.approx(sum(loss * count for loss, count in each) / sum(rows))


def test_the_glance_is_taken_before_any_step_and_may_end_the_probe() -> None:
    task = digits_task()
    seen: list[Glance] = []
    curve = run(task, screen=lambda glance: bool(seen.append(glance)))
    assert (curve.steps, curve.held_back) == (1, ())
    assert seen == [curve.glance]
    with task.preserved():
        torch.manual_seed(0)
        task.model.train()
        loss = task.backward(next(iter(task.order(0, 1)))).item()
        norms = [float(p.grad.norm()) for p in task.model.parameters() if p.ndim > 1 and p.grad is not None]
    assert seen[0].loss == loss
    assert seen[0].gradient_norm == pytest.approx(math.hypot(*norms), rel=1e-5)
    assert seen[0].gradient_range == pytest.approx(math.log10(max(norms) / min(norms)), rel=1e-4)


@pytest.mark.parametrize("trained", ["bias", "1."])
def test_the_glance_at_a_model_without_trained_matrices_is_at_what_it_trains(trained: str) -> None:
    """Only biases, or only a normalization, as in BitFit and in adapting norms: their gradients are no zero."""
    model = nn.Sequential(nn.Linear(64, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 10))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained in name)
    curve = run(make_task(model, DATA), steps=2)
    assert curve.glance is not None
    assert curve.glance.gradient_norm > 0


def test_schedulers_are_stepped() -> None:
    model = nn.Linear(64, 10)

    def optimizer(parameters: object) -> tuple[torch.optim.Optimizer, object]:
        sgd = torch.optim.SGD(parameters, lr=0.1)  # type: ignore[arg-type]
        return sgd, torch.optim.lr_scheduler.StepLR(sgd, step_size=1, gamma=0.0)

    curve = run(make_task(model, DATA, optimizer=optimizer), steps=5)
    frozen = run(make_task(model, DATA, optimizer=lambda p: torch.optim.SGD(p, lr=0.1)), steps=5)
    assert curve.losses[:2] == frozen.losses[:2]  # after its first step the rate is zero
    assert curve.losses[4] != frozen.losses[4]


def test_the_model_is_put_back() -> None:
    task = digits_task(dropout=0.3)
    with unchanged(task.model):
        run(task)


def test_a_training_inside_the_owners_autocast_computes_with_the_weights_as_they_are() -> None:
    """Such a block keeps the casts of weights until it ends, however far training has moved these meanwhile."""

    def halved(**rest: object) -> Task:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        return make_task(model, DATA, optimizer=lambda p: torch.optim.SGD(p, lr=0.5), **rest)  # type: ignore[arg-type]

    batches = halved().probe_eval
    told = run(halved(autocast=torch.bfloat16), held_back=batches, rungs=(10, 20))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        task = halved()
        inputs = task.train[0][0]
        before = task.model(inputs)
        around = run(task, held_back=batches, rungs=(10, 20))
        assert torch.equal(task.model(inputs), before)  # and what is put back is what its owner goes on with
    assert around.losses == told.losses
    assert around.held_back == told.held_back
    assert around.losses[-1] < 0.5 * around.losses[0]
