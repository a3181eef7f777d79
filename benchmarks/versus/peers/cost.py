"""What a method took, in training steps, and what it changed besides weights."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...common.tasks import BenchTask

FORWARD = 1 / 3
"""A forward pass in training steps: backward costs about twice as much as forward."""


@dataclass(frozen=True)
class Start:
    """What setting the weights took.

    Attributes:
        steps: in training steps of the task.
        how: they were found: "none", "counted", "measured" or "reported".
        recipe: what was chosen, where something was.
        kept: whether a search left the owner's weights.
        notes: what is worth knowing about it.
    """

    steps: float
    how: str
    recipe: str = ""
    kept: bool = False
    notes: tuple[str, ...] = ()


FREE = Start(0.0, "none")


@dataclass
class Passes:
    """Forward passes of a model in batches of its task, apart for those that a backward pass can follow."""

    plain: float = 0.0
    differentiated: float = 0.0

    @property
    def steps(self) -> float:
        """In training steps; a pass with gradients counts as a whole one, as if a backward pass always followed."""
        return FORWARD * self.plain + self.differentiated


@contextmanager
def counted(model: nn.Module, rows: int) -> Iterator[Passes]:
    """Yields the count of the model's own forward passes inside the block; one over more rows counts as more.

    Args:
        model: called with tensors whose first axis is the rows.
        rows: of a batch.
    """
    passes = Passes()

    def note(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        first = next(value for value in (*args, *named.values()) if isinstance(value, Tensor))
        if first.is_meta:  # of a copy without weights, which has the hook too: nothing is computed
            return
        batches = len(first) / rows
        if torch.is_grad_enabled():
            passes.differentiated += batches
        else:
            passes.plain += batches

    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield passes
    finally:
        handle.remove()


class Watch:
    """Prices iterations in plain training steps by processor time, where passes have no fixed price.

    After each iteration one plain step of a copy of the model is timed, so that a machine that is busy for a while
    slows both alike. The price is the median ratio.
    """

    def __init__(self, model: nn.Module, task: BenchTask, batches: Sequence[Any]) -> None:
        self._model = copy.deepcopy(model).train()
        self._optimizer = task.optimizer(self._model.parameters())
        self._task, self._batches = task, batches
        self._ratios: list[float] = []
        self._plain_step()  # the first one is slower than all others

    @contextmanager
    def iteration(self) -> Iterator[None]:
        """Times the block, and a plain step after it."""
        start = time.process_time()
        yield
        taken = time.process_time() - start
        self._ratios.append(taken / max(1e-9, self._plain_step()))

    def _plain_step(self) -> float:
        batch = self._batches[len(self._ratios) % len(self._batches)]
        start = time.process_time()
        self._optimizer.zero_grad()
        self._task.loss_of(self._model, batch).backward()
        self._optimizer.step()
        return time.process_time() - start

    @property
    def steps(self) -> float:
        """What all iterations took, in plain training steps."""
        return len(self._ratios) * statistics.median(self._ratios) if self._ratios else 0.0


@dataclass(frozen=True)
class Identity:
    """What initializing must not change.

    Attributes:
        ties: groups of names that are one parameter.
        trained: whether each name gets gradients.
        shapes: of each name.
        buffers: values, by name.
    """

    ties: frozenset[frozenset[str]]
    trained: dict[str, bool]
    shapes: dict[str, tuple[int, ...]]
    buffers: dict[str, Tensor]

    @staticmethod
    def of(model: nn.Module) -> Identity:
        """Returns that of a model as it is."""
        named = list(model.named_parameters(remove_duplicate=False))
        groups: dict[int, set[str]] = {}
        for name, parameter in named:
            groups.setdefault(id(parameter), set()).add(name)
        return Identity(
            frozenset(frozenset(group) for group in groups.values() if len(group) > 1),
            {name: parameter.requires_grad for name, parameter in named},
            {name: tuple(parameter.shape) for name, parameter in named},
            {name: buffer.detach().clone() for name, buffer in model.named_buffers()},
        )


def changes(before: Identity, after: Identity) -> list[str]:
    """Returns what is different besides the values of parameters, in words."""
    found = [f"unties {' and '.join(sorted(group))}" for group in sorted(before.ties - after.ties, key=sorted)]
    found += [f"ties {' and '.join(sorted(group))}" for group in sorted(after.ties - before.ties, key=sorted)]
    shared = [name for name in before.shapes if name in after.shapes]
    found += [f"loses {name}" for name in before.shapes if name not in after.shapes]
    found += [f"adds {name}" for name in after.shapes if name not in before.shapes]
    found += [f"reshapes {name}" for name in shared if before.shapes[name] != after.shapes[name]]
    differ = [name for name in shared if before.trained[name] != after.trained[name]]
    found += [f"{'freezes' if before.trained[name] else 'unfreezes'} {name}" for name in differ]
    moved = [
        name for name, value in before.buffers.items() if name in after.buffers and not value.equal(after.buffers[name])
    ]
    return [*found, *([f"moves {len(moved)} buffers, {moved[0]} first"] if moved else [])]
