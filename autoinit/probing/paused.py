"""Trainings that have stopped and may go on: their weights wait in memory while others train in the same model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..judging.budget import Tally
from ..task.machine import bytes_of
from ..task.snapshot import Snapshot
from ..task.task import Task
from .probe import Training

MOST_BYTES = 256 * 2**20
"""What all paused trainings of a search may hold together: 24 of a net with 900,000 weights that Adam trains."""


class PausedTrainings:
    """The paused trainings of one copy of a model, each under the number of its job."""

    def __init__(self) -> None:
        self._paused: dict[int, tuple[Training, Snapshot]] = {}

    def __len__(self) -> int:
        return len(self._paused)

    def pause(self, number: int, training: Training, model: nn.Module) -> None:
        """Pauses a training as it stands, where there is memory for it.

        Args:
            number: of its job.
            training: at its end.
            model: as that left it.
        """
        try:
            self._paused[number] = training, _stopped(model, training)
        except (MemoryError, RuntimeError):  # what torch raises where the host has no memory left
            training.close()

    def take(self, number: int) -> Training | None:
        """Returns a paused training, the model and all random states put back to where it stopped; None if it is gone.

        Shorter ones are forgotten: they were left behind in an earlier round.
        """
        training, stopped = self._paused.pop(number, (None, None))
        if training is None or stopped is None:
            return None
        for other, (one, _) in list(self._paused.items()):
            if one.steps < training.steps:
                self._paused.pop(other)
                one.close()
        stopped.restore()
        return training

    def close(self) -> None:
        """Ends all, so that they close what they have opened, and forgets them."""
        for training, _ in self._paused.values():
            training.close()
        self._paused.clear()


def can_be_paused(task: Task, snapshot: Snapshot, count: int, tally: Tally) -> bool:
    """Whether so many trainings of a model may be paused: it is on the host, and they are small.

    A step is trained to see: what an optimizer keeps, and what a model stores in a pass, is theirs to say. On another
    device than the host the optimizer's state would stay there and take the room of what trains.

    Args:
        task: whose model is trained.
        snapshot: to rewind it to.
        count: trainings.
        tally: told of the step.
    """
    own = [*task.model.parameters(), *task.model.buffers()]
    if any(tensor.device.type != "cpu" for tensor in own) or count * _bytes(own) > MOST_BYTES:
        return False
    tally.spend(steps=1)
    try:
        before = {id(tensor) for tensor in _stored(task.model)}
        with contextlib.closing(Training(task, seed=0)) as training:
            training.go_on(1)
            left = [tensor for tensor in _stored(task.model) if id(tensor) not in before]  # by a pass; held as it is
            kept = {id(tensor): tensor for tensor in training.kept()}
            for tensor in own:
                kept.pop(id(tensor), None)
            return count * (_stopped(task.model, training).bytes + _bytes(left) + _bytes(kept.values())) <= MOST_BYTES
    except Exception:  # whatever it is, the first trial meets it too and can say so
        return False
    finally:
        snapshot.rewind()


def _stopped(model: nn.Module, training: Training) -> Snapshot:
    if training.drops_gradients:
        for parameter in model.parameters():
            parameter.grad = None  # each step begins so: the copy would be for nothing
    return Snapshot(model)


def _stored(model: nn.Module) -> list[Tensor]:
    """Returns every tensor that a model's modules hold, in containers too, each once."""
    leaves = tree_leaves([list(vars(module).values()) for module in model.modules()])
    return list({id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}.values())


def _bytes(values: Iterable[Any]) -> int:
    return bytes_of(value for value in values if isinstance(value, Tensor))
