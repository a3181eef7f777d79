"""Shrink and perturb against its formula written out, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import bits, unchanged
from torch import Tensor, nn
from torch.nn import functional as F
from zoo import ZOO

import autoinit
from autoinit.errors import ArgumentError, SourceError
from autoinit.graph import Graph
from autoinit.renewal.renewal import shrink_and_perturb
from autoinit.tracing.choices import keep_choices


class Reader(nn.Module):
    """A table with a row for padding, a normalization, a frozen layer and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8, padding_idx=3)
        self.wide = nn.Linear(8, 12)
        self.norm = nn.BatchNorm1d(12)
        self.fixed = nn.Linear(12, 12).requires_grad_(False)
        self.head = nn.Linear(12, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = torch.relu(self.norm(self.wide(self.table(tokens).mean(1))))
        return self.head(torch.relu(self.fixed(hidden)))


@pytest.fixture
def trained() -> tuple[nn.Module, Graph]:
    torch.manual_seed(0)
    model = Reader()
    tokens, labels = torch.randint(0, 20, (32, 5)), torch.randint(0, 3, (32,))
    graph = autoinit.trace(model, (tokens, labels))
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(model(tokens), labels).backward()
        optimizer.step()
    return model, graph


def fresh_of(graph: Graph, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draw = {layer.name: torch.randn(layer.shape, generator=generator) for layer in graph.layers if not layer.keep}
    return {name: torch.ones_like(one) if "norm.weight" in name else one for name, one in draw.items()}


def test_every_value_is_what_the_formula_says(trained: Any) -> None:
    model, graph = trained
    fresh = fresh_of(graph)
    with unchanged(model):
        given = shrink_and_perturb(model, fresh, graph, shrink=0.4, perturb=0.1)
    old = dict(model.named_parameters())
    for name in ("wide.weight", "wide.bias", "norm.bias", "head.weight", "head.bias"):
        assert torch.equal(given.values[name], 0.4 * old[name] + 0.1 * fresh[name]), name
    torch.testing.assert_close(given.values["norm.weight"], 1 + 0.4 * (old["norm.weight"] - 1))
    assert (old["norm.weight"] - 1).abs().max() > 1e-3  # otherwise both formulas would give the same
    table = 0.4 * old["table.weight"] + 0.1 * fresh["table.weight"]
    table[3] = 0.0
    assert torch.equal(given.values["table.weight"], table)
    assert set(given.values) == set(old) - {"fixed.weight", "fixed.bias"} == set(given.why)
    assert all(bits(value) != bits(old[name]) for name, value in given.values.items())


def test_what_stays_is_named(trained: Any) -> None:
    model, graph = trained
    given = shrink_and_perturb(model, fresh_of(graph), graph, shrink=0.4, perturb=0.1)
    assert any("fixed.weight" in note and graph["fixed.weight"].keep in note for note in given.notes)
    assert any("norm.running_mean, norm.running_var" in note and "evaluation mode" in note for note in given.notes)
    assert "0.4 of the trained values and 0.1 of a fresh draw" in given.why["wide.weight"]
    assert "toward its start" in given.why["norm.weight"]


def test_the_ends_of_the_range(trained: Any) -> None:
    model, graph = trained
    fresh = fresh_of(graph)
    same = shrink_and_perturb(model, fresh, graph, shrink=1.0, perturb=0.0).values
    assert all(torch.allclose(value, model.get_parameter(name)) for name, value in same.items())
    anew = shrink_and_perturb(model, fresh, graph, shrink=0.0, perturb=1.0).values
    assert all(torch.equal(value, fresh[name]) for name, value in anew.items() if name != "table.weight")


def test_half_precision_is_summed_up_in_single() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).bfloat16()
    graph = autoinit.trace(model, (torch.randn(8, 4).bfloat16(), torch.randint(0, 2, (8,))))
    fresh = fresh_of(graph)
    given = shrink_and_perturb(model, fresh, graph, shrink=0.7, perturb=0.3)
    expected = (0.7 * model[0].weight.float() + 0.3 * fresh["0.weight"]).bfloat16()
    assert given.values["0.weight"].dtype == torch.bfloat16
    assert torch.equal(given.values["0.weight"], expected)


def test_a_tied_table_has_one_value_and_a_copy_stays_a_copy() -> None:
    torch.manual_seed(0)
    case = ZOO["gpt2"]()
    graph = autoinit.trace(case.model, case.batch, step=case.loss)
    given = shrink_and_perturb(case.model, fresh_of(graph), graph, shrink=0.5, perturb=0.1)
    assert "transformer.wte.weight" in given.values
    assert "lm_head.weight" not in given.values
    case = ZOO["dqn"]()
    graph = keep_choices(case.model, autoinit.trace(case.model, case.batch, step=case.loss))
    given = shrink_and_perturb(case.model, fresh_of(graph), graph, shrink=0.5, perturb=0.1)
    copies = [layer for layer in graph.layers if layer.copy_of]
    assert copies
    for layer in copies:
        assert bits(given.values[layer.name]) == bits(given.values[layer.copy_of])
        assert given.values[layer.name] is not given.values[layer.copy_of]
        assert not any(layer.name in note for note in given.notes)


@pytest.mark.parametrize("shares", [(-0.1, 0.1), (1.1, 0.1), (0.5, -1.0), (0.5, float("inf")), (float("nan"), 0.1)])
def test_shares_out_of_range(trained: Any, shares: tuple[float, float]) -> None:
    model, graph = trained
    with pytest.raises(ArgumentError, match=r"from 0 to 1|0 or more"):
        shrink_and_perturb(model, fresh_of(graph), graph, shrink=shares[0], perturb=shares[1])


def test_a_draw_is_missing_or_of_another_shape(trained: Any) -> None:
    model, graph = trained
    fresh = fresh_of(graph)
    with pytest.raises(ArgumentError, match=r"no fresh draw of head\.bias"):
        shrink_and_perturb(
            model, {key: one for key, one in fresh.items() if key != "head.bias"}, graph, shrink=0.5, perturb=0.1
        )
    with pytest.raises(ArgumentError, match=r"head\.weight has shape \(12, 3\), the model \(3, 12\)"):
        shrink_and_perturb(model, fresh | {"head.weight": torch.ones(12, 3)}, graph, shrink=0.5, perturb=0.1)


def test_weights_that_diverged_are_no_start(trained: Any) -> None:
    model, graph = trained
    with torch.no_grad():
        model.head.weight[1, 2] = float("nan")
    with unchanged(model), pytest.raises(SourceError, match=r"head\.weight holds values that are not finite"):
        shrink_and_perturb(model, fresh_of(graph), graph, shrink=0.5, perturb=0.1)
