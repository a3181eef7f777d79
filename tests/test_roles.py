"""The role of each weight."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo import ZOO

from autoinit.tracing import read_graph


@pytest.mark.parametrize(
    ("zoo", "roles"),
    [
        ("tanh_mlp", {"0.weight": "input", "4.weight": "hidden", "8.weight": "output"}),
        ("two_heads_two_inputs", {"left.weight": "input", "right.weight": "input", "trunk.weight": "hidden",
                                  "classes.weight": "output", "value.weight": "output", "unused.weight": "other"}),
        ("lstm", {"embed.weight": "embedding", "rnn.weight_ih_l1": "recurrent_input", "rnn.weight_hh_l0": "recurrent"}),
        ("tied_characters", {"tokens.weight": "embedding", "places.weight": "position"}),
        ("hand_written", {"lora_a.weight": "lora", "lora_b.weight": "lora", "frozen.weight": "hidden",
                          "layer_scale": "layer_scale", "scale": "norm_scale", "logit_scale": "scalar"}),
        ("mixtral", {"model.layers.0.mlp.gate.weight": "router",
                     "model.layers.0.mlp.experts.down_proj": "residual_out"}),
        ("gpt2", {"transformer.h.0.attn.c_attn.weight": "qkv", "transformer.h.0.attn.c_proj.weight": "attention_out"}),
        ("resnet", {"4.conv2.weight": "residual_out", "4.downsample.0.weight": "hidden"}),
    ],
)  # fmt: skip
def test_roles(zoo: str, roles: dict[str, str]) -> None:
    case = ZOO[zoo]()
    graph = read_graph(case.model, lambda: case.loss(case.model, case.batch))
    assert {name: graph[name].role for name in roles} == roles


class Projections(nn.Module):
    """Attention whose projections are fused as the test says."""

    def __init__(self, fused: str) -> None:
        super().__init__()
        self.stem, self.out = nn.Linear(3, 8), nn.Linear(8, 8)
        self.fused = fused
        self.all, self.two, self.one = nn.Linear(8, 24), nn.Linear(8, 16), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.fused == "reshaped":
            q, k, v = self.all(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        elif self.fused == "chunked":
            q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.all(x).chunk(3, -1))
        elif self.fused == "sliced":
            y = self.all(x)
            q, k, v = (y[..., 8 * i : 8 * i + 8].unflatten(-1, (2, 4)).transpose(1, 2) for i in range(3))
        else:
            q = self.one(x).unflatten(-1, (2, 4)).transpose(1, 2)
            k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.two(x).chunk(2, -1))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("fused", ["reshaped", "chunked", "sliced"])
def test_fans_of_a_fused_projection_are_those_of_a_slice(fused: str) -> None:
    model = Projections(fused)
    layer = read_graph(model, lambda: model(torch.randn(2, 5, 3)).pow(2).mean())["all.weight"]
    assert (layer.role, layer.slices, layer.fan_in, layer.fan_out) == ("qkv", 3, 8, 8)


def test_fused_keys_and_values_are_two_slices() -> None:
    model = Projections("pair")
    graph = read_graph(model, lambda: model(torch.randn(2, 5, 3)).pow(2).mean())
    assert (graph["two.weight"].role, graph["two.weight"].slices) == ("qkv", 2)
    assert (graph["one.weight"].role, graph["out.weight"].role) == ("query", "attention_out")


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"kdim": 6, "vdim": 5}])
def test_multihead_attention(weights: bool, sizes: dict[str, int]) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(3, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **sizes)

        def forward(self, x: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return self.attention(self.stem(x), key, value, need_weights=weights)[0]

    model = Model()
    key, value = torch.randn(2, 7, sizes.get("kdim", 8)), torch.randn(2, 7, sizes.get("vdim", 8))
    graph = read_graph(model, lambda: model(torch.randn(2, 5, 3), key, value).pow(2).mean())
    assert graph["attention.out_proj.weight"].role == "attention_out"
    if sizes:
        found = [graph[f"attention.{name}_proj_weight"].role for name in "qkv"]
        assert found == ["query", "key", "value"]
    else:
        layer = graph["attention.in_proj_weight"]
        assert (layer.role, layer.slices, layer.fan_in, layer.fan_out) == ("qkv", 3, 8, 8)


def test_a_low_rank_product_of_weights_is_kept() -> None:
    model = nn.ParameterDict(
        {
            "w": nn.Parameter(torch.randn(6, 6)),
            "a": nn.Parameter(torch.randn(6, 2)),
            "b": nn.Parameter(torch.randn(2, 6)),
        }
    )
    x = torch.randn(4, 6)
    graph = read_graph(model, lambda: torch.tanh(x @ (model["w"] + model["a"] @ model["b"])).sum())
    assert graph["w"].keep == ""
    assert "product" in graph["a"].keep
    assert "product" in graph["b"].keep


def test_a_weight_used_twice_is_one_layer() -> None:
    shared, head = nn.Linear(4, 4), nn.Linear(4, 2)
    model = nn.ModuleList([shared, head])
    x = torch.randn(3, 4)
    graph = read_graph(model, lambda: head(torch.relu(shared(torch.relu(shared(x))))).sum())
    assert [(layer.name, layer.role) for layer in graph.weights] == [("0.weight", "input"), ("1.weight", "output")]
