from __future__ import annotations

import dataclasses

import pytest
import torch
from adapted import ByHand, Inherited, batches, peft_model
from helpers import unchanged
from torch import Tensor, nn

import autoinit
from autoinit.graph import Graph
from autoinit.inheritance.pairs import find_pairs, why_not_lent, with_pairs
from autoinit.tracing.choices import keep_choices


def graph_of(model: nn.Module) -> Graph:
    return keep_choices(model, autoinit.trace(model, batches()))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}], ids=["lora", "dora", "rslora"])
def test_pairs_of_peft_are_found_with_their_scale(kind: str, options: dict[str, bool]) -> None:
    model = peft_model(kind, **options)
    pairs = find_pairs(model)
    trained = [name for name, p in model.named_parameters() if p.requires_grad and "magnitude" not in name]
    assert sorted(trained) == sorted(name for pair in pairs for name in (pair.down, pair.up))
    assert {pair.scale for pair in pairs} == {8 / (2 if options.get("use_rslora") else 4)}
    assert {pair.transposed for pair in pairs} == {kind == "gpt2"}
    for pair in pairs:
        weight, down, up = (model.get_parameter(name) for name in (pair.base, pair.down, pair.up))
        product = (up @ down).T if pair.transposed else up @ down
        assert product.shape == weight.shape


def test_pairs_in_a_table_and_in_a_convolution_are_told_apart() -> None:
    model = peft_model("llama", target_modules=["embed_tokens", "q_proj"])
    assert sorted({pair.kind for pair in find_pairs(model)}) == ["embedding", "linear"]


@pytest.mark.parametrize(("module", "scale"), [(ByHand(), 0.5), (Inherited(), 1.5)], ids=["layers", "parameters"])
def test_pairs_of_one_s_own_are_found_and_their_scale_is_measured(module: nn.Module, scale: float) -> None:
    model = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), module)
    with unchanged(model):
        (pair,) = find_pairs(model)
    assert pair.scale == pytest.approx(scale, rel=1e-4)
    assert pair.base.startswith("2.")
    assert model.get_parameter(pair.down).shape == (4, 24)
    assert model.get_parameter(pair.up).shape == (20, 4)


class Bent(ByHand):
    """A bottleneck beside a frozen layer, which is no low-rank addition: something bends it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * self.up(self.down(x).relu())


class Apart(ByHand):
    """The shapes of a pair, used for something else."""

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x + 1))


@pytest.mark.parametrize("module", [Bent(), Apart(), ByHand().requires_grad_(True)], ids=["bent", "apart", "trained"])
def test_what_only_looks_like_a_pair_is_none(module: nn.Module) -> None:
    nn.init.normal_(module.get_parameter("up.weight"))
    with unchanged(module):
        assert find_pairs(module) == ()


def test_adapters_are_free_and_the_weight_beside_may_lend() -> None:
    model = peft_model()
    graph = graph_of(model)
    for pair in find_pairs(model):
        assert (graph[pair.down].adapter, graph[pair.up].adapter) == ("down", "up")
        assert (graph[pair.down].of, graph[pair.up].multiplier) == (pair.base, 2.0)
        assert not graph[pair.down].keep
        assert not graph[pair.up].keep
        assert graph[pair.base].lends
        assert graph[pair.base].keep
    assert graph.weights == ()
    assert [layer.name for layer in graph.layers if layer.lends] == [pair.base for pair in find_pairs(model)]


def test_frozen_adapters_stay_and_nothing_is_lent_to_them() -> None:
    model = peft_model()
    for pair in find_pairs(model):
        model.get_parameter(pair.down).requires_grad_(False)
    graph = graph_of(model)
    assert all(graph[pair.down].keep for pair in find_pairs(model))
    assert not any(layer.lends for layer in graph.layers)


def test_two_adapters_beside_one_weight_cannot_both_take_from_it() -> None:
    from peft import LoraConfig

    model = peft_model()
    model.add_adapter("second", LoraConfig(r=2, target_modules=["q_proj"]))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    marked = with_pairs(model, dataclasses.replace(graph_of(model)))
    lent = {layer.name.split(".")[-3] for layer in marked.layers if layer.lends}
    assert lent == {"v_proj", "down_proj"}


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_packed_weights_lend_nothing(dtype: torch.dtype) -> None:
    model = ByHand()
    model.base.weight = nn.Parameter(torch.zeros(20, 24, dtype=dtype), requires_grad=False)
    assert "quantized" in why_not_lent(model, "base.weight")


def test_excluded_weights_lend_nothing() -> None:
    graph = graph_of(peft_model())
    assert not any(layer.lends for layer in graph.restricted(only="*lora*").layers)
    assert not any(layer.lends for layer in graph.restricted(exclude="*base_layer*").layers)
    assert any(layer.lends for layer in graph.restricted(exclude="*lm_head*").layers)
