"""The architecture without data, as far as modules tell it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from zoo import ZOO

from autoinit.tracing.modules import read_modules
from autoinit.tracing.tracing import read_graph


@pytest.mark.parametrize("name", ["tanh_mlp", "cnn_bn", "convolutions", "siren", "parametrized_mlp"])
def test_a_sequential_model_is_read_as_with_data(name: str) -> None:
    case = ZOO[name]()
    graph = read_modules(case.model)
    expected = read_graph(case.model, lambda: case.loss(case.model, case.batch))
    same = ("shape", "kind", "role", "fan_in", "fan_out", "in_axes", "out_axes", "groups", "of", "parametrized", "keep")
    if name != "siren":  # a sine of its own class is not known
        same = (*same, "activation", "normalized")
    for layer in expected.layers:
        for attribute in same:
            assert vars_of(graph[layer.name])[attribute] == vars_of(layer)[attribute], (layer.name, attribute)
    assert graph.source == "modules"
    assert graph.notes


def vars_of(layer: object) -> dict[str, object]:
    return {name: layer.__getattribute__(name) for name in type(layer).__slots__}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ZOO)
def test_every_parameter_appears_once(name: str) -> None:
    case = ZOO[name]()
    expected = read_graph(case.model, lambda: case.loss(case.model, case.batch))
    graph = read_modules(case.model)
    assert list(graph) == list(expected)
    assert [layer.tied_to for layer in graph.layers] == [layer.tied_to for layer in expected.layers]


def test_what_modules_do_not_tell_is_kept_with_a_reason() -> None:
    graph = read_modules(ZOO["einsum_attention"]().model)
    assert "pass data" in graph["wq"].keep
    assert graph["stem.weight"].keep == ""


def test_recurrent_modules_and_attention() -> None:
    graph = read_modules(ZOO["lstm"]().model)
    assert (graph["rnn.weight_hh_l1"].role, graph["rnn.weight_hh_l1"].slices) == ("recurrent", 4)
    graph = read_modules(ZOO["encoder_pre_ln"]().model)
    assert graph["encoder.layers.0.self_attn.in_proj_weight"].role == "qkv"
    assert graph["encoder.layers.0.self_attn.out_proj.weight"].role == "attention_out"


def test_transposed_linear_layers_of_transformers() -> None:
    layer = read_modules(ZOO["gpt2"]().model)["transformer.h.0.mlp.c_fc.weight"]
    assert (layer.fan_in, layer.fan_out, layer.in_axes) == (16, 64, (0,))


def test_models_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 2))
    assert str(read_modules(model)["0.weight"].activation) == "gelu"


class Called(nn.Module):
    """Its activation is called, and so stands in no module."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)))


def test_activations_that_are_not_seen_are_noted() -> None:
    graph = read_modules(Called())
    assert graph["first.weight"].activation.name == "linear"
    assert "between modules are not seen without data (first.weight, last.weight: linear); pass data" in graph.notes[1]
    chain = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 2))
    assert len(read_modules(nn.ModuleDict({"body": chain, "head": nn.Linear(2, 2)})).notes) == 1
    assert len(read_modules(chain).notes) == len(read_modules(nn.Linear(4, 5)).notes) == 1


def test_what_attention_modules_tell() -> None:
    """Heads, groups, cross attention and stacks as they are read with data."""
    model = nn.ModuleDict({"stem": nn.Linear(3, 8), "body": nn.Transformer(8, 4, 1, 1, 16, batch_first=True)})
    graph = read_modules(model)
    x = torch.randn(2, 5, 3)
    expected = read_graph(model, lambda: model["body"](model["stem"](x), model["stem"](x)).pow(2).mean())
    weights = [layer for layer in expected.layers if layer.is_matrix and layer.name.startswith("body.")]
    assert {layer.heads for layer in weights} == {0, 4}
    assert {layer.stack for layer in weights} == {"encoder", "decoder"}
    for layer in weights:
        found = graph[layer.name]
        assert (found.heads, found.attention, found.cross, found.stack) == (
            layer.heads, layer.attention, layer.cross, layer.stack,
        ), layer.name  # fmt: skip
    separate = read_modules(nn.MultiheadAttention(8, 2, kdim=6, vdim=5))
    assert {layer.attention for layer in separate.layers if layer.is_matrix} == {"q_proj_weight"}
    assert {layer.stack for layer in read_modules(ZOO["encoder_pre_ln"]().model).layers} == {""}
