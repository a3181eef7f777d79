"""What is not finite is named with the call that sets it anew; the call does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fresh_models import llama, rows
from helpers import unchanged
from torch import Tensor, nn

import autoinit
from autoinit.diagnosis import diagnose
from autoinit.errors import ModelError


class Everything(nn.Module):
    """A token, a table of places, a norm by hand, a scale, a mask and statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 16)
        self.token = nn.Parameter(torch.randn(1, 1, 16) * 0.02)
        self.places = nn.Parameter(torch.randn(1, 5, 16) * 0.02)
        self.scale = nn.Parameter(torch.ones(16))
        self.register_buffer("factor", torch.full((16,), 0.5), persistent=False)
        self.register_buffer("mask", torch.full((5, 5), -math.inf).triu(1))
        self.norm, self.group, self.head = nn.BatchNorm1d(16), nn.GroupNorm(4, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), 1, 16), self.stem(x.unflatten(1, (4, 4)))], 1) + self.places
        x = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * self.scale
        x = (x @ x.mT + self.get_buffer("mask")).softmax(-1) @ x * self.get_buffer("factor")
        return self.head(self.group(self.norm(x.mean(1))))


def finite(model: nn.Module) -> bool:
    return all(bool(p.isfinite().all()) for p in model.parameters())


CALLS = {
    "group.weight": "model.get_submodule('group').reset_parameters()",
    "norm.weight": "model.get_submodule('norm').reset_parameters()",
    "scale": "nn.init.ones_(model.get_parameter('scale'))",
    "token": "nn.init.trunc_normal_(model.get_parameter('token'), std=0.02)",
    "places": "nn.init.trunc_normal_(model.get_parameter('places'), std=0.02)",
}


@pytest.mark.parametrize("name", CALLS)
def test_a_parameter_that_no_recipe_draws_is_set_by_the_call_that_is_named(name: str) -> None:
    model, data = Everything(), rows()
    with torch.no_grad():
        model.get_parameter(name).view(-1)[1] = math.nan
    with unchanged(model):
        (finding,) = diagnose(model, data).findings
    assert finding.text.startswith(f"{name} itself holds NaN or inf (1 of ")
    assert CALLS[name] in finding.remedy
    assert "apply_" not in finding.remedy
    exec(CALLS[name], {"nn": nn, "model": model})
    assert finite(model)


def test_a_matrix_is_drawn_by_the_recipe_that_is_named() -> None:
    model, data = Everything(), rows()
    with torch.no_grad():
        model.stem.weight[0, 0] = math.inf
        model.scale[2] = math.nan
    matrix, scale = sorted(diagnose(model, data).findings, key=lambda finding: finding.text, reverse=True)
    assert "autoinit.apply_(model, 'he_normal', data)" in matrix.remedy
    assert "nn.init.ones_" in scale.remedy
    autoinit.apply_(model, "he_normal", data)
    nn.init.ones_(model.scale)
    assert finite(model)


def test_a_norm_of_a_library_without_a_reset_is_set_to_ones() -> None:
    model, data = llama()
    name = "model.layers.1.post_attention_layernorm.weight"
    with torch.no_grad():
        model.get_parameter(name)[3] = math.nan
    (finding,) = diagnose(model, data).findings
    assert f"nn.init.ones_(model.get_parameter('{name}'))" in finding.remedy


def test_a_frozen_parameter_is_named_too() -> None:
    model, data = Everything(), rows()
    model.group.requires_grad_(False).weight[0] = math.nan
    (finding,) = diagnose(model, data).findings
    assert finding.text.startswith("group.weight itself holds NaN")


def not_a_number(name: str) -> Callable[[Any], None]:
    return lambda model: model.get_buffer(name).view(-1)[:1].fill_(math.nan)


def test_a_buffer_is_named_and_what_makes_it() -> None:
    model, data = Everything(), rows()
    not_a_number("factor")(model)
    with unchanged(model):
        (finding,) = diagnose(model, data).findings
    assert finding.severity == "error"
    assert finding.text == "factor, a buffer, itself holds NaN or inf (1 of 16 values)"
    assert "make the model again: Everything computes factor" in finding.remedy
    assert "weights are too large" not in str(finding)


def test_running_statistics_are_named_though_training_does_not_use_them() -> None:
    model, data = Everything(), rows()
    not_a_number("norm.running_mean")(model)
    finding = diagnose(model, data).findings[0]
    assert finding.severity == "error"
    assert finding.text.startswith("norm.running_mean, a buffer, itself holds NaN")
    assert "model.get_submodule('norm').reset_running_stats()" in finding.remedy
    model.norm.reset_running_stats()
    assert diagnose(model, data).healthy


def test_a_mask_of_minus_infinity_is_no_fault() -> None:
    assert diagnose(Everything(), rows()).healthy


class Leftover(Everything):
    """A module whose reset leaves its own token as it is."""

    def reset_parameters(self) -> None:
        self.stem.reset_parameters()


def test_a_reset_that_leaves_the_parameter_is_not_named() -> None:
    model, data = Leftover(), rows()
    nn.init.constant_(model.token, math.nan)
    with unchanged(model):
        (finding,) = diagnose(model, data).findings
    assert "reset_parameters" not in finding.remedy
    assert CALLS["token"] in finding.remedy


def test_a_search_names_the_call_too() -> None:
    model, data = Everything(), rows()
    nn.init.constant_(model.group.bias, math.nan)
    with pytest.raises(ModelError, match=r"model\.get_submodule\('group'\)\.reset_parameters\(\)"):
        autoinit.select(model, data, budget="1s")
