"""Units that start equal and stay so, found by their gradients; equal weights alone are no fault."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from fresh_models import rows, zero
from helpers import unchanged
from torch import Tensor, nn
from torch.nn import functional as F

from autoinit.apply import apply_
from autoinit.diagnosis import diagnose


def equal_channels() -> tuple[nn.Module, Any]:
    """A CNN whose second convolution has equal channels, which the head reads alike."""
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(2), Mean(), nn.Linear(8, 5)
    )
    with torch.no_grad():
        model[2].weight.copy_(model[2].weight[:1].expand(8, 6, 3, 3).clone())
        model[2].bias.fill_(0.1)
        model[6].weight.copy_(model[6].weight[:, :1].expand(5, 8).clone())
    x, y = rows()
    return model, (x.reshape(-1, 1, 4, 4).repeat(1, 1, 2, 2), y)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(2)


def mlp(*widths: int, activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    pairs = itertools.pairwise(widths)
    return nn.Sequential(*[part for a, b in pairs for part in (nn.Linear(a, b), activation())][:-1])


def texts(model: nn.Module, data: Any, **options: Any) -> list[str]:
    with unchanged(model):
        return [f"{found.severity}: {found.text}" for found in diagnose(model, data, **options).findings]


def test_units_with_equal_weights_and_equal_gradients_are_an_error() -> None:
    model, data = equal_channels()
    F.cross_entropy(model(data[0]), data[1]).backward()
    gradient = model.get_parameter("2.weight").grad
    assert gradient is not None
    assert (gradient - gradient[:1]).abs().max() == 0
    model.zero_grad(set_to_none=True)
    expected = "error: the 8 units of 2.weight start equal and get the same gradient, so they never differ"
    assert expected in texts(model, data)


def test_equal_weights_that_are_read_differently_are_no_fault() -> None:
    model, data = equal_channels()
    nn.init.normal_(model.get_parameter("6.weight"), std=0.3)
    assert not any("never differ" in text for text in texts(model, data))


def test_the_remedy_of_equal_units_tells_them_apart() -> None:
    model, data = equal_channels()
    remedy = next(found.remedy for found in diagnose(model, data).findings if "never differ" in found.text)
    assert "apply_(model, 'he_normal', data)" in remedy
    apply_(model, "he_normal", data)
    assert not any("never differ" in text for text in texts(model, data))


class Gated(nn.Module):
    """A branch that a layer of zeros multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = nn.Linear(16, 24), nn.Linear(24, 24), nn.Linear(24, 5)
        self.gate = zero(nn.Linear(16, 24))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.stem(x).relu()
        return self.head(hidden + self.gate(x) * self.inner(hidden).sigmoid())


def test_a_gate_of_zeros_is_noted_only() -> None:
    found = texts(Gated(), rows())
    assert "note: gate.weight starts at a constant, as zero-initialized residual branches and heads do" in found
    assert not any(text.startswith("error") for text in found)


def test_zeros_that_stay_equal_are_an_error_whose_remedy_draws_them() -> None:
    """A whole layer of zeros whose units the next layer reads alike: no recipe draws what its owner starts at zero."""
    model, data = mlp(16, 24, 24, 5, activation=nn.Sigmoid), rows()
    zero(model[2])
    with torch.no_grad():
        model[4].weight.copy_(model[4].weight[:, :1].expand(5, 24).clone())
    finding = next(found for found in diagnose(model, data).findings if "never differ" in found.text)
    assert finding.severity == "error"
    call = finding.remedy.removeprefix("draw them at random: ")
    assert call == "nn.init.xavier_normal_(model.get_parameter('2.weight'))"
    exec(call, {"nn": nn, "model": model})
    assert not any("never differ" in text for text in texts(model, data))


def test_some_equal_units_are_a_warning() -> None:
    model, data = mlp(16, 24, 5), rows()
    with torch.no_grad():
        for index in range(3):
            model[0].weight[index] = model[0].weight[3]
            model[0].bias[index] = model[0].bias[3]
            model[2].weight[:, index] = model[2].weight[:, 3]
    expected = (
        "warning: 4 of 24 units of 0.weight are equal to another one and get the same gradient, so they never differ"
    )
    assert expected in texts(model, data)


def test_dropout_tells_equal_units_apart() -> None:
    model, data = equal_channels()
    dropped = nn.Sequential(*model[:4], nn.Dropout2d(0.5), *model[4:])
    assert not any("never differ" in text for text in texts(dropped, data))


def test_zeros_in_series_without_any_gradient_are_drawn_by_the_call_that_is_named() -> None:
    model, data = nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(3))), rows(classes=16)
    for place in (1, 2):
        nn.init.zeros_(model.get_parameter(f"{place}.weight"))
    finding = next(found for found in diagnose(model, data).findings if "every gradient is exactly zero" in found.text)
    assert finding.severity == "error"
    exec(finding.remedy.partition("draw anew: ")[2], {"nn": nn, "model": model})
    assert not any("exactly zero" in text for text in texts(model, data))
