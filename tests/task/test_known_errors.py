"""What a framework raises when a model's own step is called outside of it is quoted, with what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import unchanged
from torch import Tensor, nn

import autoinit
from autoinit.errors import hint
from autoinit.judging.budget import Budget

X, Y = torch.randn(64, 6), torch.randint(0, 3, (64,))

VERBS: dict[str, Callable[..., Any]] = {
    "trace": autoinit.trace,
    "diagnose": autoinit.diagnose,
    "apply_": lambda model, data, **rest: autoinit.apply_(model, "he_normal", data, **rest),
    "select": lambda model, data, **rest: autoinit.select(model, data, budget=Budget(steps=150), **rest),
}


class Misconfigured(Exception):
    """As Lightning's own error, which derives from no standard one."""


class Module(nn.Module):
    """Logs in its step as a LightningModule does: it fails with a trainer whose fit is over, and not without one.

    Its trainer is asked for the epoch where `asks` is true.
    """

    def __init__(self, trainer: object | None, asks: bool = False) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.trainer, self.asks = trainer, asks

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.body(x).relu())
        return y

    def log(self, name: str, value: Tensor) -> None:
        if self.trainer is not None:
            raise Misconfigured("You are trying to `self.log()` but the loop's result collection is not registered yet")

    def training_step(self, batch: Any, index: int) -> Tensor:
        if self.asks and self.trainer is None:
            raise RuntimeError("Module is not attached to a `Trainer`.")
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss


def step(model: Any, batch: Any) -> Tensor:
    loss: Tensor = model.training_step(batch, 0)
    return loss


@pytest.mark.parametrize("verb", VERBS)
def test_a_step_that_logs_after_its_training_is_told_to_be_detached_and_then_works(verb: str) -> None:
    model = Module(trainer=object())
    with (
        unchanged(model),
        pytest.raises(autoinit.StepError, match=r"Misconfigured: .*self\.log\(\).*\. .*module\.trainer = None"),
    ):
        VERBS[verb](model, (X, Y), step=step)
    model.trainer = None
    VERBS[verb](model, (X, Y), step=step)


def test_a_step_that_asks_its_trainer_is_told_to_attach_one() -> None:
    with pytest.raises(autoinit.StepError, match=r"not attached to a `Trainer`\. .*Trainer\(barebones=True\)"):
        autoinit.diagnose(Module(None, asks=True), (X, Y), step=step)


def test_a_step_that_is_passed_as_a_loss_is_told_to_be_none() -> None:
    with pytest.raises(autoinit.DataError, match=r"has no attribute 'training_step'\. .* pass .* as step="):
        autoinit.diagnose(Module(None), (X, Y), loss=step)


class Strict(nn.Linear):
    """Raises an error of its own in evaluation mode only."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            raise Misconfigured("made for training")
        return super().forward(x)


def test_an_error_of_a_library_s_own_is_met_like_any_other() -> None:
    autoinit.select(Strict(6, 3), (X, Y), budget=Budget(steps=150))
    with pytest.raises(autoinit.StepError, match="Misconfigured: no such thing"):
        autoinit.select(Strict(6, 3), (X, Y), step=fail, budget=Budget(steps=150))


def fail(model: nn.Module, batch: Any) -> Tensor:
    raise Misconfigured("no such thing")


def test_what_is_not_known_has_no_hint() -> None:
    assert hint(ValueError("mat1 and mat2 shapes cannot be multiplied")) == ""
