"""The distance of two networks' outputs, and that measuring it changes neither."""

from __future__ import annotations

import pytest
import torch
from grown import PICTURES, ROWS, WORDS, batch, cnn, fresh, grow, mlp, shaken
from helpers import unchanged
from torch import nn

from autoinit.errors import ModelError
from autoinit.growth.preserved import preserved


def test_the_largest_difference_over_the_largest_output() -> None:
    source, model = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        source.weight.copy_(torch.tensor([[2.0, 0.0]]))
        model.weight.copy_(torch.tensor([[2.5, 0.0]]))
    inputs = torch.tensor([[1.0, 0.0], [-4.0, 7.0]])
    assert preserved(source, model, inputs) == pytest.approx(0.25)  # |−10 + 8| / 8
    assert preserved(source, source, (inputs, torch.zeros(2, 1))) == 0


@pytest.mark.parametrize("name", ["cnn", "gpt2"])
def test_nothing_of_either_network_changes(name: str) -> None:
    pair = fresh(name)
    grow(pair, "clone")
    pair.source.train()
    pair.model.train()  # dropout and batch statistics would change what is said, and be changed
    with unchanged(pair.source), unchanged(pair.model):
        assert preserved(pair.source, pair.model, batch(pair.inputs)) < 1e-5
    pair.source.eval()


def test_other_outputs_cannot_be_compared() -> None:
    other = nn.Sequential(nn.Linear(5, 4))
    with pytest.raises(ModelError, match=r"shapes \(6, 3\) and \(6, 4\) cannot be compared"):
        preserved(mlp(8), other, ROWS)


def test_a_model_without_a_tensor_to_compare_is_named() -> None:
    class Mute(nn.Module):
        def forward(self, x: torch.Tensor) -> str:
            return "nothing"

    with pytest.raises(ModelError, match="returned no tensor"):
        preserved(Mute(), Mute(), WORDS["input_ids"])


def test_a_difference_is_seen() -> None:
    assert preserved(shaken(cnn(4), 1, PICTURES), shaken(cnn(8), 2, PICTURES), PICTURES) > 0.1
