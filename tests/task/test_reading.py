"""What data and steps raise is told as an error about them, with the error's own words and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from helpers import unchanged
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import autoinit
from autoinit.judging.budget import Budget


class Rows(Dataset[Any]):
    """Forty rows, each made by a function of its number."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __len__(self) -> int:
        return 40

    def __getitem__(self, at: int) -> Any:
        if at >= 40:
            raise IndexError(at)
        return self.make(at)


def ragged(at: int) -> dict[str, Any]:
    return {"signal": torch.zeros(20 + at % 3), "label": at % 2}


def lost(at: int) -> Any:
    raise FileNotFoundError(f"no recording {at}.wav")


def streamed() -> Iterator[Tensor]:
    yield torch.zeros(4, 6)
    raise ConnectionResetError("the server is away")


class NotIterable:
    """An iterable whose iteration fails."""

    def __iter__(self) -> Iterator[Any]:
        raise ArithmeticError("shards do not divide")


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))


VERBS: dict[str, Callable[..., object]] = {
    "trace": autoinit.trace,
    "apply_": lambda model, data, **given: autoinit.apply_(model, "lsuv", data, **given),
    "diagnose": autoinit.diagnose,
    "recommend": autoinit.recommend,
    "select": lambda model, data, **given: autoinit.select(model, data, budget=Budget(steps=150), **given),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("make", "said", "remedy"),
    [
        (lambda: Rows(ragged), "RuntimeError: stack expects each tensor to be equal size", "collate_fn"),
        (lambda: Rows(lambda at: None), "TypeError: default_collate", "collate_fn"),
        (lambda: DataLoader(Rows(ragged), batch_size=4), "stack expects", "pad_sequence"),
        (lambda: Rows(lost), "FileNotFoundError: no recording", r"next\(iter\(data\)\)"),
        (lambda: NotIterable(), "ArithmeticError: shards do not divide", r"next\(iter\(data\)\)"),
        (lambda: (torch.eye(64, 6).to_sparse(), torch.zeros(64)), "parse", "dense tensors"),
    ],
    ids=["rows of several lengths", "rows of nothing", "a loader of them", "lost files", "no iteration", "sparse"],
)
def test_what_data_raise_is_quoted_with_a_remedy(verb: str, make: Any, said: str, remedy: str) -> None:
    net = model()
    with unchanged(net), pytest.raises(autoinit.DataError, match=f"(?s)could not be read: .*{said}.*{remedy}"):
        VERBS[verb](net, make())


def test_a_stream_that_breaks_off_is_told() -> None:
    with pytest.raises(autoinit.DataError, match="ConnectionResetError: the server is away"):
        autoinit.select(model(), streamed(), budget=Budget(steps=150))


def test_validation_data_are_told_apart() -> None:
    good = [(torch.randn(8, 6), torch.zeros(8, dtype=torch.long))] * 4
    with pytest.raises(autoinit.DataError, match=r"^val_data could not be read: FileNotFoundError"):
        autoinit.select(model(), good, val_data=Rows(lost), budget=Budget(steps=150))


def test_what_a_worker_process_raises_is_quoted_and_not_that_there_was_one() -> None:
    loader = DataLoader(Rows(lost), batch_size=4, num_workers=1)
    with pytest.raises(autoinit.DataError, match=r"^data could not be read: FileNotFoundError: no recording 0\.wav"):
        autoinit.trace(model(), loader)


@pytest.mark.parametrize("verb", VERBS)
def test_what_a_step_raises_is_a_step_error(verb: str) -> None:
    def step(net: nn.Module, batch: Any) -> Tensor:
        return net(batch["pixels"]).sum() / 0

    x = torch.randn(64, 6)
    net = model()
    with (
        unchanged(net),
        pytest.raises(autoinit.StepError, match=r"step failed on a batch of \(\[.*, 6\] float32.*Error"),
    ):
        VERBS[verb](net, (x, x), step=step)
    with unchanged(net), pytest.raises(autoinit.StepError, match="ZeroDivisionError: division by zero"):
        VERBS[verb](net, (x, x), step=lambda net, batch: 1 / 0)


def test_nothing_given_is_told_by_all() -> None:
    for verb in VERBS.values():
        with pytest.raises(autoinit.DataError):
            verb(model(), ())
