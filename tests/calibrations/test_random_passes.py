"""Calibrations of models that leave layers out at random measure every layer that they set."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoinit.apply import apply_
from autoinit.calibrations.methods import CALIBRATIONS
from autoinit.calibrations.standardize import standardize
from autoinit.calibrations.subject import Subject
from autoinit.task.products import watch_products
from autoinit.task.task import example_task
from autoinit.tracing.tracing import trace_task

X, Y = torch.randn(256, 12), torch.randint(0, 3, (256,))


def torch_draw() -> float:
    return float(torch.rand(()))


class Branch(nn.Module):
    def __init__(self, rate: float, draw: Callable[[], float], post_norm: bool) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(24), nn.Linear(24, 32), nn.Linear(32, 24)
        self.rate, self.draw, self.post_norm = rate, draw, post_norm

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.draw() < self.rate:
            return x
        if self.post_norm:
            y: Tensor = self.norm(x + self.down(F.relu(self.up(x))))
            return y
        return x + self.down(F.relu(self.up(self.norm(x))))


class Deep(nn.Module):
    """Leaves branches out in training, each at a rate; may refuse evaluation."""

    def __init__(
        self, rate: float, draw: Callable[[], float] = torch_draw, post_norm: bool = False, refuses: bool = False
    ) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(12, 24), nn.Linear(24, 3)
        self.branches = nn.Sequential(*(Branch(rate, draw, post_norm) for _ in range(5)))
        self.refuses = refuses

    def forward(self, x: Tensor) -> Tensor:
        if self.refuses and not self.training:
            raise RuntimeError("only trained")
        y: Tensor = self.head(self.branches(self.stem(x)))
        return y


def deviations(model: nn.Module) -> dict[str, float]:
    """The standard deviation of each product's output, with all layers at work."""
    found: dict[str, float] = {}
    for module in model.modules():
        module.training = False
    model.refuses = False
    with torch.no_grad(), watch_products(model, lambda name, output: found.update({name: output.std().item()})):
        model(X)
    return found


@pytest.mark.parametrize("recipe", ["lsuv", "lsuv_centred"])
@pytest.mark.parametrize("draw", [torch_draw, random.random])
@pytest.mark.parametrize("refuses", [False, True])
def test_layers_that_a_pass_leaves_out_are_measured_in_another(
    recipe: str, draw: Callable[[], float], refuses: bool
) -> None:
    model = Deep(0.4, draw, refuses=refuses)
    with torch.no_grad():
        for branch in model.branches:
            branch.get_parameter("up.weight").mul_(20)
    apply_(model, recipe, (X, Y))
    found = {name: std for name, std in deviations(model).items() if name.startswith("branches")}
    assert len(found) == 10
    assert all(0.85 < std < 1.2 for std in found.values()), found


def test_admin_measures_the_pass_with_all_branches() -> None:
    torch.manual_seed(0)
    dropping, whole = Deep(0.5, post_norm=True), Deep(0.0, post_norm=True)
    whole.load_state_dict(dropping.state_dict())
    factors = []
    for model in (dropping, whole):
        task = example_task(model, (X, Y), whole=True)
        with task.preserved():
            factors.append(CALIBRATIONS["admin"](Subject(task, trace_task(task))))
    assert factors[0] == factors[1]
    assert len(factors[0]) == 10


@pytest.mark.parametrize(("rate", "others"), [(0.0, 0), (0.3, 4)])
def test_a_weight_that_no_pass_meets_costs_a_few_passes_at_most(rate: float, others: int) -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen, self.hidden = nn.Linear(12, 24), nn.Parameter(torch.randn(24, 3))

        def forward(self, x: Tensor) -> Tensor:
            passes.append(self.training)
            x = F.dropout(torch.relu(self.seen(x)), rate, self.training)
            return torch.tensordot(x, self.hidden, 1)

    passes: list[bool] = []
    task = example_task(Hidden(), (X, Y))
    graph = trace_task(task)
    subject = Subject(task, graph)
    passes.clear()
    with task.preserved():
        found = standardize(task.model, graph, subject.forward, iterations=1, further=subject.further())
    assert "hidden" not in found
    assert passes == [True, *[True, True, True, False][:others]]
