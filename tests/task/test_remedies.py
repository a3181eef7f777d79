"""What people give at first, and the remedy that they are told."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import autoinit
from autoinit.search.reasons import described_task
from autoinit.task.losses import BINARY
from autoinit.task.task import make_task

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
YES = (X[:, 0] > 0).long()


def net(out: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, out))


@pytest.mark.parametrize(
    ("model", "target"),
    [(net(), YES), (net(), YES[:, None]), (net(), YES.bool()), (nn.Sequential(net(), nn.Flatten(0)), YES)],
    ids=["a column", "a column each", "truth values", "no column"],
)
def test_one_logit_of_yes_or_no_gets_the_loss_that_works(model: nn.Module, target: torch.Tensor) -> None:
    with pytest.raises(autoinit.DataError, match="binary_cross_entropy_with_logits") as refused:
        make_task(model, (X, target))
    assert BINARY in str(refused.value)
    loss = eval(BINARY.removeprefix("loss="), {"torch": torch})
    assert make_task(model, (X, target), loss=loss).loss_name == "custom"


def test_squared_error_of_zeros_and_ones_is_noted_where_nobody_asked_for_it() -> None:
    note = "inferred: the targets are floats; if their 0 and 1 mean classes"
    one_hot = F.one_hot(YES, 2).float()
    assert note in described_task(make_task(net(2), (X, one_hot)))
    assert note in described_task(make_task(net(), (X, YES.float()[:, None])))
    assert note not in described_task(make_task(net(2), (X, one_hot), loss=F.mse_loss))
    assert note not in described_task(make_task(net(), (X, X[:, :1])))
    with pytest.raises(autoinit.DataError, match=r"one-hot classes, target\.argmax\(-1\)"):
        make_task(net(2), (X, F.one_hot(YES, 2)))
