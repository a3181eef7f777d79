"""Data are cast to what a model computes in, and no finite number becomes infinite by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import autoinit
from autoinit.task.casting import Numbers
from autoinit.task.data import fetch

HALF = Numbers.all_in(torch.float16)
X, PRICES = np.random.default_rng(0).normal(size=(80, 6)), np.linspace(1e3, 3e5, 80)[:, None]


class HalfEncoder(nn.Module):
    """A frozen encoder in half precision before a trained head in full."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 12), nn.Tanh()).half().requires_grad_(False)
        self.head = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x.half()).float())


def kinds() -> dict[str, Any]:
    x, y = torch.tensor(X).float(), torch.tensor(PRICES).float()
    return {
        "arrays": (X, PRICES),
        "tensors": (x, y),
        "Dataset": TensorDataset(x, y),
        "batches": [(x[at : at + 8], y[at : at + 8]) for at in range(0, 80, 8)],
        "batches of arrays": [(X[at : at + 8], PRICES[at : at + 8]) for at in range(0, 80, 8)],
    }


@pytest.mark.parametrize("kind", kinds())
def test_targets_take_the_dtype_of_what_is_trained(kind: str) -> None:
    torch.manual_seed(0)
    model, data = HalfEncoder(), kinds()[kind]
    batches = fetch(data, numbers=Numbers.of(model))
    assert {batch[1].dtype for batch in batches} <= {torch.float32, torch.float64}
    assert max(batch[1].max().item() for batch in batches) == pytest.approx(3e5)
    assert 1e8 < autoinit.diagnose(model, data).signals.loss < 1e11


@pytest.mark.parametrize("kind", kinds())
def test_what_would_overflow_stays_in_full_precision_in_every_batch(kind: str) -> None:
    batches = fetch(kinds()[kind], numbers=HALF)
    assert all(batch[1].isfinite().all() for batch in batches)
    if kind != "batches of arrays":  # which are looked at one by one
        assert len({batch[1].dtype for batch in batches}) == 1


def test_inputs_and_targets_are_widened_apart_from_each_other() -> None:
    (x, y), *_ = HALF.cast([(torch.ones(3), torch.full((3,), 1e5))])
    assert (x.dtype, y.dtype) == (torch.float16, torch.float32)
    one, *_ = HALF.cast([{"pixels": torch.full((3,), 7e4), "labels": torch.ones(3), "ids": torch.arange(3)}])
    assert {key: value.dtype for key, value in one.items()} == {
        "pixels": torch.float32,
        "labels": torch.float16,
        "ids": torch.int64,
    }


def test_a_number_beyond_single_precision_stays_double() -> None:
    (large,) = Numbers().cast([torch.tensor([1e300], dtype=torch.float64)])
    assert large.item() == 1e300


def test_what_was_infinite_is_told_and_not_hidden() -> None:
    (found,) = HALF.cast([torch.tensor([float("inf"), 1.0])])
    assert (found.dtype, found[0].item()) == (torch.float16, float("inf"))
