"""Parts of a model that are compiled run as they were written in probes, and compiled again afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import unchanged
from torch import Tensor, nn

import autoinit
from autoinit.judging.budget import Budget
from autoinit.task.evaluation import uncompiled

pytestmark = pytest.mark.filterwarnings("ignore")  # those of torch about its own compiler
X = torch.randn(160, 6)
DATA = (X, X[:, :3].argmax(1))
COMPILED: list[str] = []


def counting(graph: Any, inputs: Any) -> Any:
    """A backend that notes each compilation."""
    COMPILED.append("once")
    return graph.forward


class Mixed(nn.Module):
    """A compiled submodule, and a compiled function that its forward pass calls."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.compile(nn.Sequential(nn.Linear(6, 16), nn.Tanh()), backend=counting)
        self.head = nn.Linear(16, 3)
        self.squash = torch.compile(torch.nn.functional.softsign, backend=counting)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.squash(self.body(x)))


@pytest.fixture
def model() -> Mixed:
    torch.manual_seed(0)
    torch.compiler.reset()  # what other tests have compiled counts towards a limit, after which nothing more is
    COMPILED.clear()
    return Mixed()


def test_nothing_is_compiled_while_a_model_is_read_and_probed(model: Mixed) -> None:
    with unchanged(model):
        graph = autoinit.trace(model, DATA)
        autoinit.diagnose(model, DATA)
        autoinit.select(model, DATA, budget=Budget(steps=200), apply=False)
    assert COMPILED == []
    assert [layer.role for layer in graph.weights] == ["input", "output"]


def test_it_is_compiled_again_afterwards_and_after_an_error(model: Mixed) -> None:
    with pytest.raises(autoinit.StepError):
        autoinit.select(model, DATA, step=lambda net, batch: 1 / 0)
    model(X)
    assert COMPILED


def test_it_is_compiled_again_after_blocks_that_do_not_end_in_the_order_of_their_beginnings(model: Mixed) -> None:
    """As those of two threads, or of a study's tasks; the stance is one for the whole process."""
    first, second = uncompiled(), uncompiled()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    model(X)
    assert COMPILED == []
    second.__exit__(None, None, None)
    model(X)
    assert COMPILED


def test_where_nothing_was_compiled_the_compiler_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(__import__("sys").modules, "torch._dynamo", raising=False)
    monkeypatch.setattr(torch.compiler, "set_stance", lambda stance: pytest.fail("the compiler was asked"))
    with uncompiled():
        pass
