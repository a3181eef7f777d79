"""The arithmetic of `benchmarks/concurrency.py`; nothing is timed here."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

pytest.importorskip("sklearn")
pytest.importorskip("mlxtend")

from benchmarks.speed.concurrency import (
    Subject,
    alone_loss,
    optimizer_kind,
    peak,
    stacked_loss,
    step_ms,
    stepped,
    table,
    whole,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject("tabular_class", CPU)


def test_a_table_is_markdown_with_numbers_to_the_right() -> None:
    assert table(["model", "ms"], [["mlp", "1.5"]]) == "| model | ms |\n| --- | ---: |\n| mlp | 1.5 |"


def test_a_stack_of_copies_has_the_sum_of_their_losses_and_each_one_s_gradient(subject: Subject) -> None:
    alone, (stacked, leaves) = alone_loss(subject, subject.model), stacked_loss(subject, 3)
    assert stacked().item() == pytest.approx(3 * alone().item(), rel=1e-5)
    stacked().backward()
    alone().backward()
    for leaf, parameter in zip(leaves, subject.model.parameters(), strict=True):
        assert leaf.grad is not None
        assert parameter.grad is not None
        assert torch.allclose(leaf.grad, parameter.grad.expand_as(leaf), rtol=1e-3, atol=1e-6)
        parameter.grad = None


def test_a_step_trains_and_blocks_of_steps_are_counted() -> None:
    layer, calls = nn.Linear(2, 1), list[int]()
    step = stepped(lambda: layer(torch.ones(4, 2)).square().mean(), list(layer.parameters()))
    before = layer.weight.detach().clone()

    def counted() -> None:
        calls.append(1)
        step()

    assert step_ms(counted, CPU, steps=5, repeats=2) > 0
    assert len(calls) == 15  # a block that warms up, and two that are timed
    assert not torch.equal(before, layer.weight)


def test_the_forms_of_an_optimizer_are_torch_s_own() -> None:
    made = optimizer_kind(torch.optim.AdamW, "fused")(nn.Linear(2, 2).parameters())
    assert made.defaults["fused"] is True
    assert optimizer_kind(torch.optim.SGD, "loop")(nn.Linear(2, 2).parameters()).defaults["foreach"] is False


def test_memory_is_only_counted_on_a_device() -> None:
    assert math.isnan(peak(lambda: None, CPU))


def test_a_whole_search_s_row(subject: Subject) -> None:
    name, *times, over, note = whole(subject, CPU, 3, 4)
    assert name.startswith("tabular_class, 3")
    assert all(float(cell.removesuffix(" s")) >= 0 for cell in times)
    assert float(over.removesuffix("×")) > 0
    assert note == "3 at a time"
