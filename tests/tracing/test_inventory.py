"""Which tensors there are to initialize, and under which names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from autoinit.errors import ModelError
from autoinit.tracing.inventory import inventory


def test_tied_names_are_one_item() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    model["head"].weight = model["embed"].weight
    assert [(item.name, item.tied_to) for item in inventory(model)] == [("embed.weight", ("head.weight",))]


def test_parametrized_tensors_replace_their_originals() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3)), parametrizations.orthogonal(nn.Linear(3, 3)))
    items = {item.name: item for item in inventory(model)}
    assert set(items) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert (items["0.weight"].shape, items["0.weight"].parametrized) == ((3, 4), "weight_norm")
    assert items["1.weight"].parametrized == "orthogonal"


def test_a_parametrization_that_takes_no_value_is_kept() -> None:
    class Symmetric(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x.mT

    layer = nn.Linear(3, 3)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    item = next(item for item in inventory(layer) if item.name == "weight")
    assert item.parametrized == "symmetric"
    assert "right_inverse" in item.keep


def test_frozen_parameters_say_so() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert [item.keep for item in inventory(model)] == ["", "frozen (requires_grad is False)"]


def test_no_parameters_and_lazy_parameters_are_errors() -> None:
    with pytest.raises(ModelError, match="no parameters"):
        inventory(nn.ReLU())
    with pytest.raises(ModelError, match="Call the model once"):
        inventory(nn.LazyLinear(3))


def test_reading_changes_no_spectral_norm_state() -> None:
    model = parametrizations.spectral_norm(nn.Linear(4, 4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inventory(model)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
