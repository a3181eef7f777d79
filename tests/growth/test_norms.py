"""What only a model's modules tell."""

from __future__ import annotations

import pytest
import torch
from grown import fresh
from torch import nn

from autoinit.growth.norms import constants, norms, resizing


def test_normalizations_are_told_apart() -> None:
    pair = fresh("llama")
    found = norms(pair.model, pair.graph)
    assert found.whole == found.rms == {name for name in pair.graph if "norm" in name}
    pair = fresh("gpt2")
    found = norms(pair.model, pair.graph)
    assert found.whole == {name for name in pair.graph if "ln_" in name and name.endswith("weight")}
    assert not found.rms
    pair = fresh("group norm, larger groups")
    found = norms(pair.model, pair.graph)
    assert found.grouped == {"1.weight": 2, "4.weight": 2}
    assert not found.whole | found.flat
    pair = fresh("cnn")
    found = norms(pair.model, pair.graph)
    assert found.flat == {"8.weight"}  # BatchNorm1d, after the picture has been flattened
    assert set(found.eps) == {"1", "4", "8"}


def test_a_number_beside_a_table_multiplies_it() -> None:
    pair = fresh("gemma2")
    found = constants(pair.model, pair.graph)
    assert found["model.embed_tokens.weight"] == pytest.approx(32**0.5)
    assert found["model.norm.weight"] == 1


@pytest.mark.parametrize(
    ("layer", "resizes"),
    [
        (nn.Conv2d(3, 3, 3, padding=1), False),
        (nn.Conv2d(3, 3, 3, padding="same"), False),
        (nn.Conv2d(3, 3, 3, padding=2, dilation=2), False),
        (nn.Conv2d(3, 3, 3, padding=1, stride=2), True),
        (nn.Conv2d(3, 3, 3), True),
        (nn.Conv1d(3, 3, 1), False),
    ],
)
def test_convolutions_that_change_the_size_of_pictures(layer: nn.Module, resizes: bool) -> None:
    assert resizing(layer) == ({"weight"} if resizes else set())
    size = 9
    with torch.no_grad():
        after = layer(torch.zeros(1, 3, *[size] * (layer.weight.dim() - 2))).shape[-1]
    assert (after != size) == resizes
