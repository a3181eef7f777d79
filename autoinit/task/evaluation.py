"""How a held-back batch is evaluated: in evaluation mode and without gradients, wherever that gives the loss."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .interceptor import Interceptor
from .snapshot import Traces


@dataclass(frozen=True, slots=True)
class Manner:
    """A way of evaluating.

    Attributes:
        training: in training mode, for a model that gives its loss in no other; what a pass leaves there (statistics,
            random states) is put back.
        gradients: with gradients recorded, for a loss that differentiates by itself.
    """

    training: bool = False
    gradients: bool = False

    def __str__(self) -> str:
        """Returns what is unusual about it, in words; empty where nothing is."""
        if self.training:
            return "held-back rows are evaluated in training mode, as in evaluation mode there is no such loss"
        return ""


MANNERS = (Manner(), Manner(gradients=True), Manner(training=True), Manner(training=True, gradients=True))
"""In the order in which they are tried; the last one is how a training step computes its loss."""


@contextlib.contextmanager
def evaluating(model: nn.Module, manner: Manner) -> Iterator[None]:
    """Puts a model into the mode that a manner of evaluating asks for, and leaves it as it was."""
    with torch.set_grad_enabled(manner.gradients):
        if manner.training:
            with tracelessly(model):
                yield
        else:
            with eval_mode(model):
                yield


@contextlib.contextmanager
def tracelessly(model: nn.Module) -> Iterator[None]:
    """Puts a model into training mode, and back at the end, with all that forward passes leave in it."""
    traces = Traces(model)
    try:
        if not model.training:
            model.train()
        yield
    finally:
        traces.wipe()


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Puts every submodule into eval mode, and each one's own flag back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class ForwardOnly(Interceptor):
    """Passes over `loss.backward()`, which a step that clips or accumulates calls itself."""

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns what the function returns; None for a backward, which is left out."""
        return None if func is Tensor.backward else func(*args, **kwargs)


class _Suspension:
    """How many blocks want torch.compile suspended, and what puts its stance back after the last of them.

    The stance is one of the whole process, while blocks need not end in the order in which they began: two threads may
    choose at the same time, a study keeps a task open while it makes the next one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks = 0
        self._stance: Any = None

    def begin(self) -> None:
        with self._lock:
            self._blocks += 1
            if self._blocks == 1:
                self._stance = torch.compiler.set_stance("force_eager")

    def end(self) -> None:
        with self._lock:
            self._blocks -= 1
            if self._blocks == 0:
                self._stance.__exit__(None, None, None)


_SUSPENSION = _Suspension()


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Runs what was compiled as it was written, inside the block.

    Modes, gradients and hooks change all the time in short trainings, and each change would have a part compiled anew:
    that takes longer than the training. What watches operations would see none of a compiled part, either.
    """
    if "torch._dynamo" not in sys.modules:  # nothing has been compiled, and to import it takes seconds
        yield
        return
    _SUSPENSION.begin()
    try:
        yield
    finally:
        _SUSPENSION.end()
