"""Rows of tables and heads that stand out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fresh_models import VOCABULARY, char_gpt, gpt2, rows, transformer
from torch import Tensor, nn

from autoinit.diagnosis import diagnose
from autoinit.findings.finding import Finding


def findings(model: nn.Module, data: Any, said: str) -> list[Finding]:
    return [found for found in diagnose(model, data).findings if said in found.text]


@pytest.mark.parametrize("name", ["tokens.weight", "positions.weight", "head.weight"])
def test_rows_far_larger_than_the_others_are_named(name: str) -> None:
    model, data = char_gpt()
    with torch.no_grad():
        model.get_parameter(name)[[5, 9]] *= 250
    (found,) = findings(model, data, "far larger")
    assert found.severity == "warning"
    assert found.text.startswith(f"rows 5, 9 of {name} are far larger than the others")
    exec(found.remedy.removeprefix("draw them as the others: "), {"nn": nn, "model": model})
    assert not findings(model, data, "far larger")


def test_rows_of_zeros_in_a_head_are_named() -> None:
    data = rows(classes=5)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 7))
    with torch.no_grad():
        model[2].weight[4:6] = 0
    (found,) = findings(model, data, "zero, while")
    assert found.severity == "warning"
    assert found.text.startswith("rows 4, 5 of 2.weight are zero")
    exec(found.remedy.removeprefix("draw them as the others: "), {"nn": nn, "model": model})
    assert not findings(model, data, "zero, while")


def test_a_head_of_zeros_throughout_is_its_owners_choice() -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 7))
    nn.init.zeros_(model.get_parameter("2.weight"))
    assert not findings(model, rows(), "zero, while")


class Tied(nn.Module):
    """A table with a row for padding, whose weight is also the head's, registered first under the head's name."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, VOCABULARY, bias=False)
        self.embed = nn.Embedding(VOCABULARY, 16, padding_idx=3)
        self.head.weight = self.embed.weight

    def forward(self, codes: Tensor) -> Tensor:
        return self.head(self.embed(codes).tanh())


def test_the_row_of_padding_is_zero_on_purpose_wherever_it_stands() -> None:
    codes = torch.randint(4, VOCABULARY, (64, 9))
    assert not findings(Tied(), (codes, codes), "zero")
    model, data = transformer()
    with torch.no_grad():
        model.get_parameter("head.weight").copy_(model.get_parameter("embed.weight"))
    assert not findings(model, data, "zero, while")


def test_other_rows_of_zeros_in_a_tied_head_are_named() -> None:
    codes = torch.randint(4, VOCABULARY, (64, 9))
    model = Tied()
    with torch.no_grad():
        model.embed.weight[7] = 0
    (found,) = findings(model, (codes, codes), "zero, while")
    assert found.text.startswith("row 7 of")


def test_a_fresh_tied_table_has_no_rows_that_stand_out() -> None:
    assert not findings(*gpt2(), "row")
