"""What a signal goes through, by mean-field theory, beside what it does go through."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from autoinit.graph import Graph
from autoinit.knowledge.passage import MOST, Passage, Strength, passage
from autoinit.task.task import example_task
from autoinit.tracing.tracing import trace_task

WIDTH = 512


def plain(activation: type[nn.Module], depth: int = 8, width: int = WIDTH) -> nn.Sequential:
    hidden = [part for _ in range(depth) for part in (nn.Linear(width, width), activation())]
    return nn.Sequential(*hidden, nn.Linear(width, 10))


class Residual(nn.Module):
    def __init__(self, blocks: int = 4, width: int = WIDTH, norm: bool = True, post: bool = False) -> None:
        super().__init__()
        self.stem, self.head, self.post = nn.Linear(width, width), nn.Linear(width, 10), post
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width) if norm and not post else nn.Identity(),
                nn.Linear(width, width),
                nn.ReLU(),
                nn.Linear(width, width),
            )
            for _ in range(blocks)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks if post else 0))

    def trunk(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for place, block in enumerate(self.blocks):
            x = x + block(x)
            x = self.norms[place](x) if self.post else x
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(x))


def graph_of(model: nn.Module, width: int = WIDTH) -> Graph:
    return trace_task(example_task(model, torch.zeros(2, width)))


def drawn(model: nn.Module, factor: float) -> nn.Module:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, factor / math.sqrt(module.in_features))
            nn.init.zeros_(module.bias)
    return model


def of(model: nn.Module, factor: float, **changed: float) -> Passage:
    graph = graph_of(model, next(model.parameters()).shape[1])
    found = passage(graph, {one.name: Strength(changed.get(one.name, factor)) for one in graph.weights})
    assert found is not None
    return found


def seen(trunk: Any, head: Any) -> tuple[float, float, float, float]:
    """Returns signal, output, apart and backward as they are, of inputs that have nothing in common."""
    torch.manual_seed(1)
    x = torch.randn(256, WIDTH, requires_grad=True)
    units = trunk(x)
    alike = nn.functional.cosine_similarity(units[:128], units[128:]).mean()
    (back,) = torch.autograd.grad(units, x, torch.randn_like(units), retain_graph=True)
    sizes = (units.pow(2).mean().sqrt(), head(units).std(), 1 - alike, back.std())
    return tuple(math.log2(float(size.detach())) for size in sizes)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("activation", "factor"), [(nn.ReLU, math.sqrt(2)), (nn.ReLU, 1.0), (nn.Tanh, 1.3), (nn.Tanh, 3.0), (nn.GELU, 1.5)]
)
def test_theory_says_what_happens_in_a_wide_plain_network(activation: type[nn.Module], factor: float) -> None:
    model = drawn(plain(activation), factor)
    found = of(model, factor)
    expected = seen(model[:-1], model[-1])
    assert (found.signal, found.output, found.apart, found.backward) == pytest.approx(expected, abs=0.6)
    assert found.stream is found.branch_first is found.branch_last is None


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("factor", [0.6, 1.4])
def test_theory_says_what_happens_on_a_residual_stream(norm: bool, factor: float) -> None:
    model = drawn(Residual(norm=norm), factor)
    found = of(model, factor)
    expected = seen(model.trunk, model.head)
    assert (found.signal, found.output, found.apart, found.backward) == pytest.approx(expected, abs=0.5)
    torch.manual_seed(1)
    x = model.stem(torch.randn(256, WIDTH)).detach()
    shares, start = [], x.std()
    for block in model.blocks:
        with torch.no_grad():
            shares.append(math.log2(block(x).std() / x.std()))
            x = x + block(x)
    assert (found.branch_first, found.branch_last) == pytest.approx((shares[0], shares[-1]), abs=0.3)
    assert found.stream == pytest.approx(math.log2(x.std() / start), abs=0.3)


def test_a_normalization_behind_each_add_ends_what_has_grown() -> None:
    model = drawn(Residual(post=True), 2.0)
    found = of(model, 2.0)
    expected = seen(model.trunk, model.head)
    assert (found.signal, found.apart) == pytest.approx((0, expected[2]), abs=0.3)
    assert found.branch_last == pytest.approx(found.branch_first, abs=0.1)


def test_it_means_the_same_in_a_narrow_network_and_in_a_wide_one() -> None:
    assert of(plain(nn.GELU, width=16), 1.5) == of(plain(nn.GELU), 1.5)


def test_branches_at_zero_add_nothing_and_are_at_the_limit() -> None:
    model = Residual()
    closing = {f"blocks.{place}.3.weight": 0.0 for place in range(4)}
    found = of(model, 1.0, **closing)
    assert (found.branch_first, found.stream, found.backward) == pytest.approx((-MOST, 0, 0), abs=0.1)


def test_what_is_aimed_at_is_reached_whatever_comes_in() -> None:
    graph = graph_of(plain(nn.ReLU))
    aimed = passage(graph, {one.name: Strength(7.0, aimed=1.0) for one in graph.weights})
    assert aimed is not None
    assert aimed.output == 0
    assert aimed.signal == pytest.approx(-0.5, abs=0.01)


def test_units_bend_where_they_saturate_and_straight_ones_do_not() -> None:
    assert of(plain(nn.Identity), 1.0).bend == 0
    bends = [of(plain(nn.Tanh, depth=2), factor).bend for factor in (0.2, 1.0, 3.0)]
    assert bends == sorted(bends)
    assert bends[0] < 0.01 < 0.1 < bends[2]


def test_where_no_weight_is_known_nothing_is_said() -> None:
    assert passage(graph_of(plain(nn.ReLU)), {}) is None
