from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from autoinit.task.assign import assign, derived_name, is_parametrized, padding_rows, read, shapes


def test_names_of_parametrized_weights_are_those_of_the_derived_tensors() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 2)), nn.Linear(2, 2, bias=False))
    assert shapes(model) == {"0.bias": (2,), "0.weight": (2, 3), "1.weight": (2, 2)}
    assert derived_name("0.parametrizations.weight.original1") == "0.weight"
    assert derived_name("0.bias") == "0.bias"
    assert is_parametrized(model, "0.weight")
    assert not is_parametrized(model, "1.weight")


def test_a_plain_parameter_is_set_in_place() -> None:
    layer = nn.Linear(3, 2)
    weight, value = layer.weight, torch.randn(2, 3)
    assign(layer, "weight", value)
    assert layer.weight is weight
    assert torch.equal(read(layer, "weight"), value)


def test_weight_norm_is_set_through_its_parametrization() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 2)))
    value = torch.randn(2, 3)
    assign(model, "0.weight", value)
    assert torch.allclose(model[0].weight, value, atol=1e-6)


def test_an_orthogonal_parametrization_takes_an_orthogonal_matrix() -> None:
    layer = parametrizations.orthogonal(nn.Linear(4, 4))
    value = torch.linalg.qr(torch.randn(4, 4))[0]
    assign(layer, "weight", value)
    assert torch.allclose(layer.weight.abs(), value.abs(), atol=1e-5)


def test_no_right_inverse_is_an_error_of_torch() -> None:
    class Square(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x**2

    layer = nn.Linear(2, 2)
    parametrize.register_parametrization(layer, "weight", Square())
    with pytest.raises(Exception, match="right_inverse"):
        assign(layer, "weight", torch.ones(2, 2))


def test_a_padding_row_has_every_name_of_its_table() -> None:
    head, table = nn.Linear(4, 9, bias=False), nn.Embedding(9, 4, padding_idx=2)
    head.weight = table.weight
    model = nn.ModuleDict({"head": head, "lookup": table, "plain": nn.Embedding(9, 4)})
    assert padding_rows(model) == {"head.weight": 2, "lookup.weight": 2}
    parametrizations.weight_norm(model["plain"])
    model["plain"].padding_idx = 5
    assert padding_rows(model) == {"head.weight": 2, "lookup.weight": 2, "plain.weight": 5}
    assert padding_rows(nn.Linear(2, 2)) == {}


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_takes_rows_of_zeros(dim: int | None) -> None:
    model = parametrizations.weight_norm(nn.Linear(3, 4), dim=dim)
    value = torch.randn(4, 3)
    value[1], value[:, 0] = 0.0, 0.0
    for wanted in (value, torch.zeros(4, 3)):
        assign(model, "weight", wanted)
        torch.testing.assert_close(model.weight, wanted)
    model(torch.ones(1, 3)).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    assert bool(model.parametrizations.weight.original0.grad.any())  # so that it can grow again
