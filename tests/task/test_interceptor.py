"""Every call of torch's functions in a block goes through an interceptor, as it was made, and none after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from autoinit.task.interceptor import Interceptor


class Kept(Interceptor):
    """Keeps the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]] = []

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        self.calls.append((func, args, kwargs))
        return func(*args, **kwargs)


class Doubled(Interceptor):
    """Makes relu twice as large."""

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return 2 * F.relu(*args, **kwargs) if func is F.relu else func(*args, **kwargs)


def test_a_call_is_handed_over_as_it_was_made() -> None:
    x = torch.tensor([-1.0, 2.0])
    with Kept() as kept:
        torch.relu(x)
        torch.sum(x, dim=0)
        x.mul(3)
        torch.ones(2)
    assert kept.calls[0] == (torch.relu, (x,), {})  # an empty mapping, never None
    assert kept.calls[1] == (torch.sum, (x,), {"dim": 0})
    assert kept.calls[2] == (Tensor.mul, (x, 3), {})
    assert kept.calls[3] == (torch.ones, (2,), {})  # of no tensor at all


def test_its_own_calls_go_past_it() -> None:
    with Kept() as kept:
        F.relu(torch.tensor([-1.0]))
    assert [func.__name__ for func, _, _ in kept.calls].count("relu") == 1  # torch.relu is called by F.relu


def test_the_caller_gets_what_it_returns() -> None:
    x = torch.tensor([-1.0, 2.0])
    with Doubled():
        assert F.relu(x).tolist() == [0.0, 4.0]
        assert F.relu(x, inplace=False).tolist() == [0.0, 4.0]


def test_the_inner_one_calls_the_outer_one() -> None:
    x = torch.tensor([2.0])
    with Doubled(), Kept() as kept, Doubled():
        assert F.relu(x).tolist() == [8.0]
    assert [func for func, _, _ in kept.calls if func is F.relu] == [F.relu]


def test_nothing_is_handed_over_after_the_block_nor_after_an_exception() -> None:
    kept = Kept()
    with pytest.raises(ZeroDivisionError), kept:
        raise ZeroDivisionError
    torch.ones(2) + 1
    assert kept.calls == []


def test_what_it_raises_reaches_the_caller() -> None:
    class Refused(Interceptor):
        def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
            raise LookupError(func.__name__)

    with pytest.raises(LookupError, match="ones"), Refused():
        torch.ones(2)
    assert torch.ones(2).tolist() == [1.0, 1.0]
