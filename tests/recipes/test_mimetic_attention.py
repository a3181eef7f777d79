from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from graphs import linear, mlp, transformer
from torch import Tensor, nn

import autoinit
from autoinit.graph import Graph
from autoinit.recipes.formulas import mimetic

ROLES = ("query", "key", "value", "attention_out")


def attention(**changes: dict[str, Any]) -> Graph:
    """One attention of four square weights and two heads; `changes` by role."""
    facts: dict[str, Any] = {"attention": "query", "heads": 2}
    layers = []
    for role in ROLES:
        rest = {"out": 8, "inner": 8, "role": role, **facts, **changes.get(role, {})}
        layers.append(linear(role, **rest))
    return Graph(tuple(layers))


def test_each_weight_is_its_factor_of_a_shared_matrix() -> None:
    graph = attention()
    found = {role: mimetic(graph[role], graph) for role in ROLES}
    assert {role: (row.distribution, row.stream) for role, row in found.items() if row is not None} == {
        "query": ("mimetic_query", "queries"),
        "key": ("mimetic_key", "queries"),
        "value": ("mimetic_value", "values"),
        "attention_out": ("mimetic_out", "values"),
    }


def test_streams_are_shared_within_an_attention_and_not_between_two() -> None:
    graph = transformer(blocks=2)
    plan = autoinit.resolve("mimetic", graph)
    streams = {name: fill.stream for name, fill in plan.items() if fill.stream}
    assert streams == {
        "block.0.qkv.weight": "block.0.qkv.weight/values",
        "block.0.out.weight": "block.0.qkv.weight/values",
        "block.1.qkv.weight": "block.1.qkv.weight/values",
        "block.1.out.weight": "block.1.qkv.weight/values",
    }
    assert plan["block.0.up.weight"].untouched
    assert {plan[name].heads for name in streams} == {2}


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (attention(key={"out": 4}, value={"out": 4}), "keys and values shared by heads"),
        (attention(key={"heads": 1}, value={"heads": 1}), "fewer heads of keys"),
        (attention(value={"keep": "frozen"}), "a kept weight"),
        (attention(query={"inner": 4}), "inputs of another width"),
        (attention(**{role: {"cross": True} for role in ROLES}), "cross attention"),
        (attention(**{role: {"heads": 0} for role in ROLES}), "heads that could not be read"),
        (attention(**{role: {"attention": ""} for role in ROLES}), "no attention that could be read"),
        (attention(key={"role": "qkv", "out": 16, "slices": 2}), "fused keys and values"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_product_of_square_matrices_is_left(graph: Graph, why: str) -> None:
    assert [mimetic(layer, graph) for layer in graph.layers] == [None] * 4


def test_other_weights_are_left() -> None:
    assert [mimetic(layer, mlp()) for layer in mlp().layers] == [None] * len(mlp())


def test_one_that_does_not_fit_leaves_the_others() -> None:
    odd = tuple(dataclasses.replace(layer, keep="frozen", name="odd." + layer.name) for layer in attention().layers)
    moved = tuple(dataclasses.replace(layer, attention="odd") for layer in odd)
    graph = Graph((*attention().layers, *moved))
    assert mimetic(graph["query"], graph) is not None
    assert mimetic(graph["odd.query"], graph) is None


class Fused(nn.Module):
    """nn.MultiheadAttention and a head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x, need_weights=False)[0])

    def factors(self) -> list[Tensor]:
        return [*self.attention.in_proj_weight.detach().chunk(3), self.attention.out_proj.weight.detach()]


class Separate(nn.Module):
    """Query, key, value and output as four linear maps, and a head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.maps = nn.ModuleList(nn.Linear(width, width) for _ in range(4))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.maps[:3])
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.head(self.maps[3](mixed.transpose(1, 2).flatten(2)))

    def factors(self) -> list[Tensor]:
        return [part.get_parameter("weight").detach() for part in self.maps]


@pytest.mark.parametrize("kind", [Fused, Separate])
def test_products_of_a_real_attention_have_their_diagonals(kind: type[Fused | Separate]) -> None:
    """Trace of W_out·W_v = −0.4·d and of each head's W_qᵀW_k = 0.7·d, less what its rank cuts off."""
    width, heads = 64, 2
    model = kind(width, heads)
    autoinit.apply_(model, "mimetic", torch.randn(2, 5, width))
    query, key, value, out = model.factors()
    # A Gaussian of entries N(0, 1/d) has a trace of N(0, 1): within 5 of these.
    assert (out @ value).trace().item() == pytest.approx(-0.4 * width, abs=5 * 0.4)
    pairs = list(zip(query.chunk(heads), key.chunk(heads), strict=True))
    for q, k in pairs:  # the larger half of the singular values holds more than half of the trace
        assert (q.T @ k).trace().item() > 0.5 * 0.7 * width
    # The next hypothesis, that both heads have one product: its factors would match across heads too.
    assert abs((pairs[0][0].T @ pairs[1][1]).trace().item()) < 0.25 * 0.7 * width
