from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from graphs import bias, linear, lstm, mlp, transformer
from torch import nn

import autoinit
from autoinit.graph import Graph, Layer
from autoinit.plans.width import WidthScale, mup, width_of
from autoinit.recipes.recipe import Recipe

MATRIX, VECTOR, SCALAR = WidthScale(1.0, 1 / 4, 1.0), WidthScale(1.0, 1.0, 4.0), WidthScale(1.0, 1.0, 1.0)
HEAD = WidthScale(1 / 2, 1 / 4, 1 / 4)
"""Table 3 of arXiv:2203.03466 at four times the base width."""

TABLE: list[tuple[Graph, str, WidthScale]] = [
    (mlp(width=8), "0.weight", VECTOR),
    (mlp(width=8), "0.bias", VECTOR),
    (mlp(width=8), "1.weight", MATRIX),
    (mlp(width=8), "1.bias", VECTOR),
    (mlp(width=8), "3.weight", HEAD),
    (mlp(width=8), "3.bias", SCALAR),
    (transformer(width=8), "embed.weight", VECTOR),
    (transformer(width=8), "block.0.norm.weight", VECTOR),
    (transformer(width=8), "block.0.qkv.weight", MATRIX),
    (transformer(width=8), "block.0.out.weight", MATRIX),
    (transformer(width=8), "block.1.up.weight", MATRIX),
    (transformer(width=8), "block.1.down.weight", MATRIX),
    (transformer(width=8), "head.weight", HEAD),
    (lstm(width=8), "weight_ih", VECTOR),
    (lstm(width=8), "weight_hh", MATRIX),
    (lstm(width=8), "bias_ih", VECTOR),
    (lstm(width=8), "head", HEAD),
]


@pytest.mark.parametrize(("graph", "name", "scale"), TABLE, ids=lambda value: value if isinstance(value, str) else "")
def test_factors_are_those_of_the_paper(graph: Graph, name: str, scale: WidthScale) -> None:
    assert mup(graph[name], graph, base_width=2) == scale
    assert mup(graph[name], graph, base_width=8) == SCALAR  # at the base width nothing changes


def test_what_has_no_width_is_left_alone() -> None:
    multiplier = Layer(name="alpha", shape=(1,), kind="other", role="layer_scale")
    assert mup(multiplier, Graph((*mlp(width=8).layers, multiplier)), 2) == SCALAR
    router, its_bias = linear("router", 4, 8, role="router"), bias("router.bias", "router", 4)
    graph = Graph((*mlp(width=8).layers, router, its_bias))
    assert (mup(router, graph, 2), mup(its_bias, graph, 2)) == (HEAD, SCALAR)


def test_kernels_of_single_channels_are_vectors() -> None:
    conv: dict[str, Any] = {"kind": "conv", "role": "hidden", "depth": 1, "out_axes": (0,), "in_axes": (1, 2, 3)}
    depthwise = Layer(name="w", shape=(8, 1, 3, 3), groups=8, fan_in=9, fan_out=9, **conv)
    grouped = Layer(name="w", shape=(8, 4, 3, 3), groups=2, fan_in=36, fan_out=36, **conv)
    assert mup(depthwise, mlp(width=8), 2) == VECTOR
    assert mup(grouped, mlp(width=8), 2) == MATRIX


def test_width_is_that_of_the_head_kept_or_not() -> None:
    graph = mlp(width=8)
    assert width_of(graph) == 8
    assert width_of(graph.restricted(exclude="3.weight")) == 8
    assert width_of(Graph(tuple(layer for layer in graph.layers if layer.name != "3.weight"))) == 8
    heads = [linear(f"head.{n}", 2, n, role="output") for n in (32, 8, 16)]
    assert width_of(Graph(tuple(heads))) == 16
    assert width_of(Graph(())) == 1


@pytest.mark.parametrize("recurrent", [True, False])
def test_what_follows_an_embedding_does_not_read_the_data(recurrent: bool) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(20, 8)
            self.body = nn.LSTM(8, 8, batch_first=True) if recurrent else nn.Linear(8, 8)
            self.head = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> Any:
            out = self.body(self.embed(x))
            return self.head((out[0] if recurrent else out.relu())[:, -1])

    graph = autoinit.trace(Reader(), torch.randint(0, 20, (4, 5)))
    first = "body.weight_ih_l0" if recurrent else "body.weight"
    assert mup(graph["embed.weight"], graph, 2) == VECTOR
    assert mup(graph[first], graph, 2) == MATRIX


def test_a_tied_head_is_noted() -> None:
    graph = transformer()
    layers = [layer for layer in graph.layers if layer.role != "output"]
    tied = Graph((dataclasses.replace(layers[0], tied_to=("head.weight",)), *layers[1:]))
    assert any("embed.weight is both, and stays as it is" in note for note in autoinit.resolve("mup", tied).notes)
    assert not any("is both" in note for note in autoinit.resolve("mup", graph).notes)
    assert not any("is both" in note for note in autoinit.resolve("he_normal", tied).notes)


def test_the_head_starts_smaller_and_every_fill_knows_its_learning_rate() -> None:
    graph = mlp(width=8)
    plan, standard = (
        autoinit.resolve(Recipe(base="he_normal", widths=w, base_width=2), graph) for w in ("mup", "standard")
    )
    assert plan["3.weight"].std == pytest.approx(standard["3.weight"].std / 2)
    assert "× 0.5 (μP, base width 2)" in plan["3.weight"].reason
    assert plan["1.weight"].std == standard["1.weight"].std
    assert {name: (fill.lr_adam, fill.lr_sgd) for name, fill in plan.items()} == {
        layer.name: dataclasses.astuple(mup(layer, graph, 2))[1:] for layer in graph.layers
    }
    assert {(fill.lr_adam, fill.lr_sgd) for fill in standard.fills} == {(1.0, 1.0)}
