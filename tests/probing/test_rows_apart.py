"""How far outputs differ between rows, against a slow reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from helpers import unchanged
from torch import Tensor, nn

from autoinit.probing.rows_apart import inputs_apart, rows_apart
from autoinit.task.task import measured_task
from autoinit.tracing.tracing import trace_task


def apart(model: nn.Module, data: Any, **options: Any) -> dict[str, float]:
    task = measured_task(model, data, **options)
    with unchanged(model):
        return rows_apart(task, trace_task(task))


def slow(values: Tensor) -> float:
    """The root mean square difference of two rows, over all pairs, divided by √2."""
    rows = values.detach().double()
    return math.sqrt(sum((a - b).square().mean().item() for a in rows for b in rows) / 2) / len(rows)


def test_it_is_what_two_rows_differ_by() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 4))
    x, y = torch.randn(8, 2, 6, 6), torch.arange(8) % 4
    found = apart(model, [(x, y)])
    assert found["0.weight"] == pytest.approx(slow(model[0](x)), rel=1e-5)
    assert found["3.weight"] == pytest.approx(slow(model(x)), rel=1e-5)


def test_biases_have_no_part_in_it() -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.Linear(16, 3))
    data = [(torch.randn(12, 6), torch.arange(12) % 3)]
    before = apart(model, data)
    for part in model:
        nn.init.normal_(part.bias, std=100.0)  # type: ignore[arg-type, union-attr]
    assert apart(model, data) == pytest.approx(before, rel=1e-4)


class Steps(nn.Module):
    """A cell that begins at zero, along time first or along rows first."""

    def __init__(self, time_first: bool) -> None:
        super().__init__()
        self.time_first, self.into, self.state = time_first, nn.Linear(3, 5), nn.Linear(5, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1) if self.time_first else x
        read = self.into(x)
        state = x.new_zeros(x.shape[1 if self.time_first else 0], 5)
        for step in range(7):
            state = torch.tanh(self.state(state) + (read[step] if self.time_first else read[:, step]))
        return self.head(state)


def test_rows_are_found_behind_time_and_the_largest_of_several_uses_counts() -> None:
    model = Steps(time_first=True)
    x, y = torch.randn(4, 7, 3), torch.arange(4) % 2
    found = apart(model, [(x, y)])
    assert found["into.weight"] == pytest.approx(slow(model.into(x)), rel=1e-5)
    assert found["state.weight"] > 0.01  # its first use reads zeros, whatever the row
    other = Steps(time_first=False)
    other.load_state_dict(model.state_dict())
    assert apart(other, [(x, y)]) == pytest.approx(found, rel=1e-5)


def test_a_batch_of_one_row_tells_nothing() -> None:
    assert apart(nn.Linear(3, 2), [(torch.randn(1, 3), torch.zeros(1, dtype=torch.long))]) == {}


def test_what_the_data_differ_by_is_measured_where_they_are_numbers() -> None:
    x = torch.randn(9, 3)
    labels = torch.arange(9) % 2
    assert inputs_apart(measured_task(nn.Linear(3, 2), [(x, labels)])) == pytest.approx(slow(x), rel=1e-5)
    words = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(4, 2))
    assert inputs_apart(measured_task(words, [(torch.arange(9)[:, None], labels)])) is None


def test_a_step_that_calls_backward_leaves_no_gradient() -> None:
    def step(model: nn.Module, batch: Any) -> Tensor:
        loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    assert len(apart(model, [(torch.randn(6, 3), torch.arange(6) % 2)], step=step)) == 2
    assert all(parameter.grad is None for parameter in model.parameters())
