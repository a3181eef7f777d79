"""Layers that are left out at random are read, whichever pass happens to be seen."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoinit.apply import apply_
from autoinit.graph import Graph
from autoinit.tracing.forward import UNREACHED
from autoinit.tracing.tracing import trace

X, Y = torch.randn(32, 6), torch.randint(0, 3, (32,))


def torch_draw() -> float:
    return float(torch.rand(1))


class Branch(nn.Module):
    """A residual branch that training leaves out half of the time."""

    def __init__(self, draw: Callable[[], float], always: bool) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.draw, self.always = draw, always

    def forward(self, x: Tensor) -> Tensor:
        if (self.training or self.always) and self.draw() < 0.5:
            return x
        return x + self.down(F.gelu(self.up(self.norm(x))))


class Deep(nn.Module):
    def __init__(self, draw: Callable[[], float] = torch_draw, always: bool = False) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.branches = nn.ModuleList(Branch(draw, always) for _ in range(6))
        self.spare = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            x = branch(x)
        y: Tensor = self.head(x)
        return y


def unseen(graph: Graph) -> set[str]:
    return {layer.name for layer in graph.layers if layer.keep == UNREACHED}


def seeded(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@pytest.mark.parametrize("draw", [torch_draw, np.random.rand, random.random])
@pytest.mark.parametrize("always", [False, True])
def test_a_layer_that_is_left_out_at_random_is_read_whatever_was_drawn(draw: Callable[[], float], always: bool) -> None:
    graphs = []
    for seed in range(4):
        seeded(seed)
        graphs.append(trace(Deep(draw, always), (X, Y)))
    assert all(graph == graphs[0] for graph in graphs)
    assert unseen(graphs[0]) == {"spare.weight", "spare.bias"}
    assert {graphs[0][f"branches.{at}.down.weight"].role for at in range(6)} == {"residual_out"}
    if not always:
        assert graphs[0].residual_adds == 6
        assert graphs[0] == trace(Deep().eval(), (X, Y))


def test_a_plan_draws_the_same_for_every_seed_of_the_pass() -> None:
    drawn = []
    for seed in range(3):
        model = Deep()
        seeded(seed)
        apply_(model, "he_normal", (X, Y))
        drawn.append(model.branches[3].get_parameter("up.weight").clone())
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


class Choice(nn.Module):
    """One of several layers is taken at random, in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.options = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.relu(self.options[int(torch.randint(0, 3, ()))](torch.relu(self.stem(x)))))
        return y


def test_of_layers_of_which_one_is_taken_all_are_read() -> None:
    torch.manual_seed(0)
    graph = trace(Choice(), (X, Y))
    assert not unseen(graph)
    assert {graph[f"options.{at}.weight"].role for at in range(3)} == {"hidden"}
    torch.manual_seed(5)
    assert trace(Choice(), (X, Y)) == graph


class Helped(Deep):
    """Has a second head in training only, and refuses evaluation where it is told so."""

    def __init__(self, refuses: bool) -> None:
        super().__init__()
        self.helper, self.refuses = nn.Linear(8, 3), refuses

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x) + 0.3 * self.helper(self.stem(x))
        if self.refuses:
            raise RuntimeError("only trained")
        return super().forward(x)


@pytest.mark.parametrize("refuses", [False, True])
def test_what_only_training_uses_is_read_and_a_model_that_is_not_evaluated_too(refuses: bool) -> None:
    for seed in range(3):
        torch.manual_seed(seed)
        assert unseen(trace(Helped(refuses), (X, Y))) == {"spare.weight", "spare.bias"}


def test_the_model_its_mode_and_the_random_states_stay() -> None:
    model = Deep().train()
    model.branches[2].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    seeded(1)
    states = torch.get_rng_state(), np.random.get_state()[2], random.getstate()
    trace(model, (X, Y))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[2], random.getstate()) == states[1:]
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


class Convolved(nn.Module):
    """One convolution, and its normalization, for as many times as was drawn; at times not even once."""

    def __init__(self, draw: Callable[[], float], always: bool, residual: bool) -> None:
        super().__init__()
        self.stem, self.block, self.norm = nn.Conv1d(1, 4, 1), nn.Conv1d(4, 4, 3, padding=1), nn.BatchNorm1d(4)
        self.head, self.draw, self.always, self.residual = nn.Linear(24, 3), draw, always, residual

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x[:, None])
        for _ in range(int(5 * self.draw()) if self.training or self.always else 4):
            passed = self.norm(self.block(x)).relu()
            x = x + passed if self.residual else passed
        y: Tensor = self.head(x.flatten(1))
        return y


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("draw", [torch_draw, np.random.rand, random.random])
@pytest.mark.parametrize("always", [False, True])
def test_a_shared_layer_that_is_repeated_at_random_is_read_at_full_length(
    draw: Callable[[], float], always: bool, residual: bool
) -> None:
    graphs = []
    for seed in range(5):
        seeded(seed)
        graphs.append(trace(Convolved(draw, always, residual), (X, Y)))
    assert all(graph == graphs[0] for graph in graphs)
    assert graphs[0]["head.weight"].depth == 5
    assert graphs[0].residual_adds == 4 * residual
    if not always:
        assert graphs[0] == trace(Convolved(draw, always, residual).eval(), (X, Y))


@pytest.mark.parametrize(("rate", "passes"), [(0.0, 1), (0.5, 2)])
def test_an_unused_parameter_costs_at_most_one_more_pass(rate: float, passes: int) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head, self.spare = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            calls.append(self.training)
            y: Tensor = self.head(F.dropout(torch.relu(self.body(x)), rate, self.training))
            return y

    calls: list[bool] = []
    assert unseen(trace(Plain(), (X, Y))) == {"spare.weight", "spare.bias"}
    assert calls == [True, False][:passes]


class Repeated(nn.Module):
    """One block comes three times, and training leaves out each time half of the time."""

    def __init__(self, draw: Callable[[], float], always: bool) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Linear(6, 8), Branch(draw, always), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = self.block(x)
        y: Tensor = self.head(x)
        return y


@pytest.mark.parametrize("draw", [torch_draw, np.random.rand, random.random])
@pytest.mark.parametrize("always", [False, True])
def test_a_layer_that_comes_again_is_not_taken_for_all_of_its_places(draw: Callable[[], float], always: bool) -> None:
    """No parameter is missed where one place is left out and another is not."""
    for seed in range(6):
        seeded(seed)
        graph = trace(Repeated(draw, always), (X, Y))
        assert graph["head.weight"].depth == 7
        assert graph.residual_adds == 3


@pytest.mark.parametrize("draw", [torch_draw, np.random.rand])
def test_of_several_passes_in_one_step_none_stands_for_the_whole(draw: Callable[[], float]) -> None:
    """What one pass of a step leaves out, another uses."""

    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        losses = [F.cross_entropy(model(batch[0]), batch[1]) for _ in range(8)]
        return torch.stack(losses).mean()

    whole = trace(Deep().eval(), (X, Y))
    for seed in range(4):
        seeded(seed)
        assert trace(Deep(draw), (X, Y), step=step) == whole


def test_dropout_alone_costs_no_further_pass() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            calls.append(self.training)
            x = F.dropout(torch.relu(self.body(x)), 0.5, self.training) * torch.rand(len(x), 1).round()
            y: Tensor = self.head(x)
            return y

    calls: list[bool] = []
    trace(Dropping(), (X, Y))
    assert calls == [True]
