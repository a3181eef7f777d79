"""Residual branches, and how deep each weight lies."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from block_net import Net, read
from torch import Tensor, nn

from autoinit.tracing.choices import keep_choices
from autoinit.tracing.tracing import read_graph

RESIDUAL: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "plain": lambda m, x: x + m.b(torch.relu(m.a(x))),
    "reversed": lambda m, x: m.b(torch.relu(m.a(x))) + x,
    "in place": lambda m, x: m.b(torch.relu(m.a(x))).add_(x),
    "pre-norm": lambda m, x: x + m.b(torch.relu(m.a(m.norm(x)))),
    "post-norm": lambda m, x: m.norm(x + m.b(torch.relu(m.a(x)))),
    "dropout": lambda m, x: x + F.dropout(m.b(torch.relu(m.a(x))), 0.5),
    "scaled skip (DeepNorm)": lambda m, x: m.norm(1.7 * x + m.b(torch.relu(m.a(x)))),
    "scaled branch": lambda m, x: x + 0.1 * m.b(torch.relu(m.a(x))),
    "ReZero": lambda m, x: x + m.alpha * m.b(torch.relu(m.a(x))),
    "projection": lambda m, x: m.c(x) + m.b(torch.relu(m.a(x))),
    "normalized projection": lambda m, x: torch.relu(m.norm(m.c(x)) + m.b(torch.relu(m.a(x)))),
    "subtraction": lambda m, x: x - m.b(torch.relu(m.a(x))),
    "stochastic depth": lambda m, x: x + m.b(torch.relu(m.a(x))) * torch.ones(4, 1, 1),
}


@pytest.mark.parametrize("name", RESIDUAL)
def test_residual_branches(name: str) -> None:
    graph = read(RESIDUAL[name])
    assert graph.residual_adds == 1
    assert graph["b.weight"].role == "residual_out"
    assert graph["b.weight"].closes_branch
    assert (graph["a.weight"].role, graph["a.weight"].in_branch, graph["a.weight"].closes_branch) == (
        "hidden", True, False,
    )  # fmt: skip
    assert graph["a.weight"].branch_weights == graph["b.weight"].branch_weights == 2
    assert not graph["stem.weight"].in_branch
    assert not graph["c.weight"].in_branch
    assert (graph["a.weight"].residual_depth, graph["head.weight"].residual_depth) == (0, 1)


PLAIN: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "two branches": lambda m, x: torch.relu(m.a(x)) + torch.tanh(m.b(x)),
    "two projections": lambda m, x: torch.relu(m.a(x) + m.b(x)),
    "no weight on the branch": lambda m, x: m.a(x + torch.relu(x)),
    "the mean taken off": lambda m, x: m.a(x - x.mean(-1, keepdim=True)),
    "concatenation": lambda m, x: torch.cat([x[..., :4], torch.relu(m.a(x))[..., 4:]], -1),
    "highway": lambda m, x: torch.sigmoid(m.a(x)) * torch.relu(m.b(x)) + (1 - torch.sigmoid(m.a(x))) * x,
    "a shift by a condition": lambda m, x: m.b(torch.relu(x * (c := m.a(x.mean(1, keepdim=True))))) + c,
    "an expanded shift": lambda m, x: m.b(torch.relu(x * (c := m.a(x.mean(1, keepdim=True))))) + c.expand(4, 6, 8),
    "rotation": lambda m, x: m.a(x * 0.8 + torch.cat([-x[..., 4:], x[..., :4]], -1) * 0.6),
}


@pytest.mark.parametrize("name", PLAIN)
def test_sums_that_are_no_residual_branch(name: str) -> None:
    graph = read(PLAIN[name])
    assert graph.residual_adds == 0
    assert not any(layer.in_branch or layer.closes_branch for layer in graph.layers)


def test_two_branches_of_one_trunk_both_close() -> None:
    def block(m: Net, x: Tensor) -> Tensor:
        y = m.norm(x)
        return x + m.b(torch.relu(m.a(y))) + m.d(torch.relu(m.c(y)))

    graph = read(block)
    assert [name for name, layer in graph.items() if layer.closes_branch] == ["b.weight", "d.weight"]


def test_adds_are_counted_along_the_longest_path() -> None:
    def block(m: Net, x: Tensor) -> Tensor:
        x = x + m.b(torch.relu(m.a(x)))
        return x + m.d(torch.relu(m.c(x)))

    graph = read(block)
    assert graph.residual_adds == 2
    assert [graph[f"{name}.weight"].residual_depth for name in ("a", "b", "c", "d", "head")] == [0, 0, 1, 1, 2]
    assert [graph[f"{name}.weight"].depth for name in ("stem", "a", "b", "c", "d", "head")] == [0, 1, 2, 3, 4, 5]


def parallel(m: Net, x: Tensor, *, joined: bool) -> Tensor:
    """Attention of queries `a`, keys and values x, output `b`, beside an MLP of `c` and `d`."""
    y = m.norm(x)
    attended = m.b(F.scaled_dot_product_attention(m.a(y), y, y))
    inner = m.d(torch.relu(m.c(y)))
    return x + (attended + inner) if joined else x + attended + inner


@pytest.mark.parametrize("joined", [True, False])
def test_attention_and_mlp_side_by_side_are_two_branches(joined: bool) -> None:
    graph = read(lambda m, x: parallel(m, x, joined=joined))
    assert graph.residual_adds == 2
    assert [name for name, layer in graph.items() if layer.closes_branch] == ["b.weight", "d.weight"]


def test_a_low_rank_addition_to_an_attention_is_no_second_branch() -> None:
    def block(m: Net, x: Tensor) -> Tensor:
        y = F.scaled_dot_product_attention(m.a(x), x, x)
        return x + (m.b(y) + F.linear(F.linear(y, m.c.weight[:2]), m.d.weight[:, :2]))

    assert read(block).residual_adds == 1


class Modulated(nn.Module):
    """Two branches whose normalized inputs are shifted by a condition, which weighs the first branch too."""

    def __init__(self) -> None:
        super().__init__()
        self.modulation = nn.Linear(8, 32)
        self.mix, self.up, self.down = nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(16, 8)
        nn.init.zeros_(self.modulation.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, share, scale, other = self.modulation(condition).unsqueeze(1).chunk(4, -1)
        x = x + share * self.mix(torch.relu(F.layer_norm(x, (8,)) + shift))
        return x + self.down(torch.relu(self.up(F.layer_norm(x, (8,)) * (1 + scale) + other)))


class Conditioned(nn.Module):
    """Blocks that share one condition, which shifts what the last of them gives as well."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.time = nn.Linear(3, 8), nn.Linear(1, 8)
        self.blocks = nn.ModuleList(Modulated() for _ in range(2))
        self.last, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x, condition = self.stem(x), F.silu(self.time(time))
        for block in self.blocks:
            x = block(x, condition)
        return self.head(F.layer_norm(x, (8,)) + self.last(condition).unsqueeze(1))


def test_what_a_condition_adds_to_a_normalized_stream_is_no_skip() -> None:
    model, x, time = Conditioned(), torch.randn(4, 6, 3), torch.rand(4, 1)
    graph = read_graph(model, lambda: model(x, time).pow(2).mean())
    closing = {layer.name: layer.residual_depth for layer in graph.layers if layer.closes_branch}
    assert closing == {
        "blocks.0.mix.weight": 0, "blocks.0.down.weight": 1, "blocks.1.mix.weight": 2, "blocks.1.down.weight": 3,
    }  # fmt: skip
    assert graph.residual_adds == graph["head.weight"].residual_depth == 4
    modulations = [graph[f"blocks.{at}.modulation.weight"] for at in range(2)]
    places = {(layer.role, layer.slices, layer.fan_out, layer.in_branch) for layer in modulations}
    assert places == {("hidden", 4, 8, False)}
    kept = {name for name, layer in keep_choices(model, graph).items() if layer.keep == "its owner starts it at zero"}
    assert kept == {layer.name for layer in modulations}
