"""What a remedy says is done to the letter, and the finding is gone: also where a recipe would leave the parameter."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fresh_models import Fresh, images, rows
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import autoinit
from autoinit.diagnosis import diagnose
from autoinit.findings.finding import Finding


def finding(model: nn.Module, data: Any, said: str) -> Finding | None:
    return next((found for found in diagnose(model, data).findings if said in found.text), None)


def statements(remedy: str) -> list[str]:
    """Returns what a remedy says to run, in order."""
    setting, tried, call = remedy.partition("try ")
    setting = setting.partition("first ")[2].partition("; then ")[0] if tried else setting.partition("random: ")[2]
    return [setting or "pass", call[: call.index(", data)") + len(", data)")] if tried else "pass"]


def tanh_net(width: int = 24, depth: int = 8) -> nn.Sequential:
    pairs = itertools.pairwise([16, *[width] * depth, 5])
    return nn.Sequential(*[part for a, b in pairs for part in (nn.Linear(a, b), nn.Tanh())][:-1])


def narrowing_convolutions() -> Fresh:
    """Two convolutions that hold one number, behind which hardly a gradient passes."""
    parts = [part for _ in range(4) for part in (nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU())]
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), *parts, nn.Flatten(), nn.Linear(8 * 256, 5))
    for place in (4, 6):
        nn.init.constant_(model.get_parameter(f"{place}.weight"), 1e-5)
    return model, images()


def many_constants() -> Fresh:
    model = tanh_net()
    for place in (4, 6, 8, 10):
        nn.init.constant_(model.get_parameter(f"{place}.weight"), 1e-3)
    return model, rows()


def large_constant(place: int = 4) -> Fresh:
    model = tanh_net()
    nn.init.constant_(model.get_parameter(f"{place}.weight"), 30.0)
    return model, rows()


def derived_constant() -> Fresh:
    """A constant of a weight that is derived from others."""
    model = tanh_net()
    model[4] = weight_norm(model[4])
    with torch.no_grad():
        model[4].weight = torch.full((24, 24), -3.0)
    return model, rows()


def constant_biases() -> Fresh:
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 5))
    nn.init.constant_(model.get_parameter("2.bias"), -9.0)
    return model, rows()


def far_off() -> Fresh:
    """Outputs that a constant bias keeps far from every target."""
    model = nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 1))
    nn.init.constant_(model.get_parameter("2.bias"), 40.0)
    x, _ = rows()
    return model, (x, x[:, :1])


FAULTY: dict[str, tuple[Callable[[], Fresh], str]] = {
    "convolutions of one number": (narrowing_convolutions, "gradients vanish"),
    "many matrices of one number": (many_constants, "gradients vanish"),
    "a large number": (large_constant, "saturated units"),
    "one number in a derived weight": (derived_constant, "saturated units"),
    "one number is noted": (large_constant, "at one number throughout"),
    "one number in a derived weight is noted": (derived_constant, "at one number throughout"),
    "biases of one number": (constant_biases, "dead units"),
    "a head's bias of one number": (far_off, "the loss starts at"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_the_remedy_mends_what_a_recipe_alone_would_leave(case: str) -> None:
    build, said = FAULTY[case]
    model, data = build()
    found = finding(model, data, said)
    assert found is not None
    for statement in statements(found.remedy):
        exec(statement, {"nn": nn, "torch": torch, "autoinit": autoinit, "model": model, "data": data})
    assert finding(model, data, said) is None


def test_what_a_recipe_reaches_needs_no_statement_before() -> None:
    model, data = constant_biases()
    nn.init.zeros_(model.get_parameter("2.bias"))
    model.get_parameter("2.bias").data[1:] = -9.0
    found = finding(model, data, "dead units")
    assert found is not None
    assert found.remedy.startswith("try autoinit.apply_(model, 'he_normal', data)")
