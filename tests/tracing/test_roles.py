"""The role of each weight."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo import ZOO

from autoinit.apply import apply_
from autoinit.graph import Graph
from autoinit.recipes.recipe import Recipe
from autoinit.tracing.tracing import read_graph


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
        self.four = nn.Linear(8, 32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.fused == "reshaped":
            q, k, v = self.all(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        elif self.fused == "chunked":
            q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.all(x).chunk(3, -1))
        elif self.fused == "sliced":
            y = self.all(x)
            q, k, v = (y[..., 8 * i : 8 * i + 8].unflatten(-1, (2, 4)).transpose(1, 2) for i in range(3))
        elif self.fused == "value first":
            v, q, k = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.all(x).chunk(3, -1))
        elif self.fused == "from the end":
            y = self.all(x)
            q, k, v = (y[..., i : i + 8 or None].unflatten(-1, (2, 4)).transpose(1, 2) for i in (-24, -16, -8))
        elif self.fused == "key first":
            y = self.all(x).unflatten(-1, (3, 2, 4)).transpose(1, 3)
            q, k, v = (y[:, :, i] for i in (1, 0, -1))
        elif self.fused == "GPT-NeoX":
            q, k, v = self.all(x).view(*x.shape[:2], 2, 12).transpose(1, 2).chunk(3, -1)
        elif self.fused == "BLOOM":
            y = self.all(x).view(*x.shape[:2], 2, 3, 4)
            q, k, v = (y[..., i, :].transpose(1, 2) for i in range(3))
        elif self.fused == "channels":
            q, k, v = self.all(x).unflatten(-1, (2, 4, 3)).transpose(1, 2).unbind(-1)
        elif self.fused == "four":
            q, k, v, gate = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.four(x).chunk(4, -1))
            v = v * torch.sigmoid(gate)
        elif self.fused == "weight, blocks":
            q, k, v = ((x @ w.T).unflatten(-1, (2, 4)).transpose(1, 2) for w in self.all.weight.chunk(3))
        elif self.fused == "weight, interleaved":
            parts = self.all.weight.view(2, 12, 8).split(4, 1)
            q, k, v = ((x @ w.reshape(8, 8).T).unflatten(-1, (2, 4)).transpose(1, 2) for w in parts)
        elif self.fused == "einsum, blocks":
            q, k, v = (
                torch.einsum("bte,ide->ibtd", x, self.all.weight.view(3, 8, 8)).unflatten(-1, (2, 4)).transpose(2, 3)
            )
        elif self.fused == "convolution":
            y = F.conv1d(x.transpose(1, 2), self.all.weight[..., None])
            q, k, v = (part.unflatten(1, (2, 4)).transpose(2, 3) for part in y.chunk(3, 1))
        elif self.fused == "one for all":
            q = k = v = self.one(x).unflatten(-1, (2, 4)).transpose(1, 2)
        elif self.fused == "pair, interleaved":
            q = self.one(x).unflatten(-1, (2, 4)).transpose(1, 2)
            k, v = self.two(x).unflatten(-1, (2, 8)).transpose(1, 2).chunk(2, -1)
        else:
            q = self.one(x).unflatten(-1, (2, 4)).transpose(1, 2)
            k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.two(x).chunk(2, -1))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def projected(fused: str, device: str = "cpu") -> Graph:
    model = Projections(fused).to(device)
    return read_graph(model, lambda: model(torch.randn(2, 5, 3, device=device)).pow(2).mean())


@pytest.mark.parametrize(
    "fused", ["reshaped", "chunked", "sliced", "from the end", "weight, blocks", "einsum, blocks", "convolution"]
)
def test_fans_of_a_fused_projection_are_those_of_a_slice(fused: str) -> None:
    layer = projected(fused)["all.weight"]
    assert (layer.role, layer.slices, layer.fan_in, layer.fan_out) == ("qkv", 3, 8, 8)
    assert projected(fused, "meta") == projected(fused)


@pytest.mark.parametrize("fused", ["GPT-NeoX", "BLOOM", "channels"])
def test_interleaved_queries_keys_and_values_are_one_matrix(fused: str) -> None:
    """Thirds of the rows would hold some of each, so no slice of it may be scaled alone."""
    graph = projected(fused)
    assert (graph["all.weight"].role, graph["all.weight"].slices, graph["all.weight"].fan_out) == ("qkv", 1, 24)
    assert graph.notes == ("all.weight holds queries, keys and values interleaved; it is treated as one matrix.",)
    assert projected(fused, "meta") == graph
    model = Projections(fused)
    before = model.all.weight.detach().clone()
    apply_(model, Recipe(base="as_is", qk_log2=-2.0), torch.randn(2, 5, 3))
    assert torch.equal(model.all.weight, before)


@pytest.mark.parametrize("fused", ["value first", "key first"])
def test_thirds_in_another_order_are_one_matrix(fused: str) -> None:
    """A rule for the first third would take it for the queries."""
    graph = projected(fused)
    assert (graph["all.weight"].role, graph["all.weight"].slices, graph["all.weight"].heads) == ("qkv", 1, 2)
    expected = "all.weight holds queries, keys and values in another order; it is treated as one matrix."
    assert graph.notes == (expected,)
    assert projected(fused, "meta") == graph


def test_no_part_of_a_fused_projection_is_taken_for_another() -> None:
    four, one, pair, weight = map(projected, ("four", "one for all", "pair, interleaved", "weight, interleaved"))
    assert four["four.weight"].slices == 1
    assert "beside other outputs" in four.notes[0]
    assert (one["one.weight"].slices, one.notes) == (1, ())
    assert (pair["two.weight"].slices, pair["two.weight"].fan_out) == (1, 16)
    assert (weight["all.weight"].role, weight["all.weight"].slices) == ("qkv", 1)


def test_fused_keys_and_values_are_two_slices() -> None:
    graph = projected("pair")
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
