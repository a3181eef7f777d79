"""Held-back rows are evaluated where a loss can be had: with gradients, in training mode, in one piece."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import unchanged
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import autoinit
from autoinit.errors import DataError
from autoinit.task.evaluation import Manner
from autoinit.task.task import Task, make_task

DIGITS = load_digits()
DATA = (torch.tensor(DIGITS.data[:512] / 16, dtype=torch.float32), torch.tensor(DIGITS.target[:512]))
BUDGET = autoinit.Budget(steps=150)


class Energy(nn.Module):
    """Forces are the gradient of an energy, which the model takes itself."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 24), nn.Softplus(), nn.Linear(24, 24), nn.Softplus(), nn.Linear(24, 1))

    def forward(self, places: Tensor) -> Tensor:
        places = places.clone().requires_grad_()
        (forces,) = torch.autograd.grad(self.net(places).sum(), places, create_graph=True)
        return -forces


PLACES = torch.randn(256, 6, generator=torch.Generator().manual_seed(0))
FORCES = (PLACES, -PLACES + 0.1 * PLACES**3)


class Detector(nn.Module):
    """Returns losses in training mode and predictions in evaluation mode, with statistics and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2))
        self.kind, self.place = nn.Linear(32, 10), nn.Linear(32, 1)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        h = self.body(x)
        kind, place = self.kind(h), self.place(h)
        if not self.training:
            return [{"labels": one, "boxes": other} for one, other in zip(kind.argmax(-1), place, strict=True)]
        return {"kind": F.cross_entropy(kind, labels), "place": F.mse_loss(place[:, 0], labels / 10)}


def detecting(model: nn.Module, batch: Any) -> Tensor:
    return sum(model(*batch).values())


def whole_graph(nodes: int = 128) -> tuple[Any, Any]:
    """A step on one graph that is known to it as a whole, and its batch."""
    near = torch.cdist(DATA[0][:nodes], DATA[0][:nodes]).topk(4, largest=False).indices

    def step(model: Any, batch: Any) -> Tensor:
        x, labels = batch
        return F.cross_entropy(model((x + x[near].mean(1)) + 0 * x[nodes - 1]), labels)

    return step, (DATA[0][:nodes], DATA[1][:nodes])


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def taken(model: nn.Module, data: Any, **options: Any) -> Task:
    with unchanged(model):
        return make_task(model, data, **options)


def test_evaluation_is_in_evaluation_mode_without_gradients_where_that_gives_a_loss() -> None:
    assert taken(mlp(), DATA).manner == Manner()


def test_a_loss_that_differentiates_is_evaluated_with_gradients() -> None:
    model = Energy()
    task = taken(model, FORCES)
    assert task.manner == Manner(gradients=True)
    with unchanged(model):
        found = task.evaluate(task.gate_eval)
    expected = [F.mse_loss(model(x), y).item() for x, y in task.gate_eval]
    assert found == pytest.approx(expected)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_that_differentiates_is_selected_for() -> None:
    model = Energy()
    with unchanged(model):
        selection = autoinit.select(model, FORCES, budget=BUDGET, apply=False)
    assert "failed" not in set(selection.trials.state)
    assert "training mode" not in selection.task


@pytest.mark.parametrize("recipe", ["lsuv", "within_layer"])
def test_calibrations_pass_forward_through_a_model_that_differentiates(recipe: str) -> None:
    model = Energy()
    calibrated = recipe if recipe == "lsuv" else autoinit.Recipe(base="he_normal", calibration=recipe)
    autoinit.apply_(model, calibrated, [FORCES])
    outputs = [PLACES]
    for layer in model.net[:3:2]:
        outputs.append(layer(F.softplus(outputs[-1]) if len(outputs) > 1 else outputs[-1]))
    assert [round(output.std().item(), 1) for output in outputs[1:]] == [1.0, 1.0]


def test_a_model_whose_loss_is_in_training_mode_only_is_evaluated_there_and_left_as_it_was() -> None:
    model = Detector()
    task = taken(model, DATA, step=detecting)
    assert task.manner == Manner(training=True)
    with unchanged(model):
        first, second = (task.evaluate(task.probe_eval) for _ in range(2))
    assert first == second  # the masks of dropout are the same ones, and no statistics moved
    model.eval()
    with unchanged(model):
        task.evaluate(task.probe_eval)


def test_what_is_evaluated_in_training_mode_is_said_to_be() -> None:
    selection = autoinit.select(Detector(), DATA, step=detecting, budget=BUDGET)
    assert "failed" not in set(selection.trials.state)
    assert "held-back rows are evaluated in training mode" in selection.task
    assert "held-back rows are evaluated in training mode" in str(selection)


def test_a_loss_in_training_mode_is_not_compared_with_another_in_evaluation_mode() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            scores: Tensor = self.net(x)
            return F.multi_margin_loss(scores, y) if self.training else scores

    task = taken(Both(), {"x": DATA[0], "y": DATA[1]})
    assert task.loss_name == "model"
    assert task.manner.training


def test_a_batch_that_is_a_whole_is_not_halved() -> None:
    step, batch = whole_graph()
    model = mlp()
    task = taken(model, [batch], val_data=[batch], step=step)
    assert task.one_held_back
    assert task.halves(task.train[0]) is None
    assert torch.equal(task.probe_eval[0][0], batch[0])
    assert autoinit.diagnose(model, [batch, batch], step=step).signals.agreement is None
    selection = autoinit.select(model, [batch], val_data=[batch], step=step, budget=BUDGET, apply=False)
    assert "failed" not in set(selection.trials.state)
    assert "as a whole" in selection.task


@pytest.mark.parametrize("recipe", ["gradinit", "nio"])
def test_calibrations_do_not_halve_a_batch_that_is_a_whole(recipe: str) -> None:
    step, batch = whole_graph()
    model = mlp()
    before = model[0].weight.clone()
    autoinit.apply_(model, recipe, [batch, batch], step=step)
    assert not torch.equal(model[0].weight, before)


def test_a_batch_that_can_be_halved_is() -> None:
    task = taken(mlp(), [DATA], val_data=[DATA])
    assert not task.one_held_back
    assert task.halves(task.train[0]) is not None


def test_a_held_back_batch_that_cannot_be_evaluated_is_not_blamed_on_training() -> None:
    class Sized(nn.Module):
        """With a batch size built in."""

        def __init__(self) -> None:
            super().__init__()
            self.net, self.table = mlp(), nn.Parameter(torch.zeros(32, 10))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) + self.table

    model, batches = Sized(), [*zip(DATA[0].split(32), DATA[1].split(32), strict=True)]
    selection = autoinit.select(model, batches, val_data=[(x[:20], y[:20]) for x, y in batches[:4]], budget=BUDGET)
    assert selection.kept
    assert "evaluating a held-back batch, ([20, 64] float32, [20] int64), in evaluation mode failed" in selection.why
    assert "training" not in selection.why.replace("training mode", "")
    task = make_task(model, batches)
    with pytest.raises(DataError, match=r"nothing to do with the weights.*Pass val_data"):
        task.evaluate([(DATA[0][:7], DATA[1][:7])])
