"""What people give at first, and the remedy that they are told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset

import autoinit
from autoinit.search.reasons import described_task
from autoinit.task.losses import BINARY
from autoinit.task.task import make_task

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
YES = (X[:, 0] > 0).long()


def net(out: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, out))


ROWS = [{"input_ids": [1] * (3 + row % 5), "labels": row % 2} for row in range(40)]


class Raw(Dataset[Any]):
    def __len__(self) -> int:
        return len(ROWS)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return ROWS[index]


LEFT_AS_THEY_ARE: dict[str, Any] = {
    "a raw data set": (Raw(), r"collate_fn.*transformers\.DataCollatorWithPadding\(tokenizer\)"),
    "a raw list": (ROWS, r"looks like a single example.*DataLoader.*DataCollatorWithPadding\(tokenizer\)"),
    "a list of single examples": (
        [{"x": X[row], "labels": YES[row]} for row in range(40)],
        r"looks like a single example.*torch\.utils\.data\.DataLoader\(data, batch_size=32\)",
    ),
    "a dict of one example": (
        {"x": X[0], "labels": YES[0]},
        r"data is one dict, \{x: \[8\] float32, labels: \[\] int64\}, whose values have no axis of rows in common",
    ),
}


@pytest.mark.parametrize("what", LEFT_AS_THEY_ARE)
def test_data_that_nobody_has_batched_get_the_remedy(what: str) -> None:
    data, told = LEFT_AS_THEY_ARE[what]
    with pytest.raises(autoinit.DataError, match=told):
        make_task(net(2), data)


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
