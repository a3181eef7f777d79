from __future__ import annotations

import pytest
import torch
from helpers import unchanged
from sklearn.datasets import load_digits
from torch import Tensor, nn

from autoinit.probing.probe import Training, probe
from autoinit.probing.stepping import Eager, Stepper
from autoinit.task.batches import Batch
from autoinit.task.task import Task, make_task

DIGITS = load_digits()
DATA = ((DIGITS.data / 16).astype("float32"), DIGITS.target)


def digits_task() -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))

    def optimizer(parameters: list[nn.Parameter]) -> tuple[torch.optim.Optimizer, object]:
        made = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
        return made, torch.optim.lr_scheduler.ExponentialLR(made, 0.5)

    return make_task(model, DATA, optimizer=optimizer)


def test_an_eager_step_is_that_of_a_loop_by_hand() -> None:
    task = digits_task()
    weights = list(task.model.parameters())
    with task.preserved() as snapshot:
        optimizer, scheduler = task.build_optimizer(0.5)
        slow = []
        for batch in task.train[:4]:
            optimizer.zero_grad()
            loss = task.loss(batch)
            loss.backward()
            optimizer.step()
            scheduler.step()
            slow.append(loss.item())
        by_hand = [weight.detach().clone() for weight in weights]
        snapshot.rewind()
        stepper = Eager(task, 0.5)
        for batch, expected in zip(task.train[:4], slow, strict=True):
            found = stepper.backward(batch)
            assert found.item() == expected
            stepper.step(found)
        assert all(map(torch.equal, weights, by_hand))


def test_a_step_begins_without_the_gradients_of_the_one_before() -> None:
    task = digits_task()
    with task.preserved():
        stepper = Eager(task)
        weight = next(task.model.parameters())
        stepper.backward(task.train[0])
        assert weight.grad is not None
        first = weight.grad.clone()
        stepper.backward(task.train[0])
        assert torch.equal(weight.grad, first)


class Counting(Eager):
    """Counts what it is asked for."""

    def __init__(self, task: Task, lr_factor: float = 1.0) -> None:
        super().__init__(task, lr_factor)
        self.calls: list[str] = []

    def backward(self, batch: Batch) -> Tensor:
        self.calls.append("backward")
        return super().backward(batch)

    def step(self, loss: Tensor) -> None:
        self.calls.append("step")
        super().step(loss)


def test_a_training_takes_its_steps_by_the_stepper_it_is_given() -> None:
    task, made = digits_task(), list[Counting]()

    def stepper(task: Task, lr_factor: float) -> Stepper:
        made.append(Counting(task, lr_factor))
        return made[-1]

    with unchanged(task.model), task.preserved() as snapshot:
        training = Training(task, seed=0, lr_factor=0.5, stepper=stepper)
        curve = training.go_on(3)
        assert made[0].calls == ["backward", "step"] * 3
        momenta = {id(state) for state in made[0].optimizer.state.values() for state in state.values()}
        assert {id(tensor) for tensor in training.kept()} <= momenta
        assert training.kept()
        snapshot.rewind()
        assert probe(task, steps=3, seed=0, lr_factor=0.5, stepper=stepper).losses == curve.losses
        snapshot.rewind()
        assert probe(task, steps=3, seed=0, lr_factor=0.5).losses == curve.losses
    assert len(made) == 2


@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_it_says_whether_the_loss_is_scaled(dtype: torch.dtype | None) -> None:
    torch.manual_seed(0)
    task = make_task(nn.Linear(64, 10), DATA, autocast=dtype)
    with task.preserved():
        assert Eager(task).scaled == (dtype is not None)
