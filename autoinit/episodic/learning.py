"""The loop outside of the episodes: the start moves once a round, and the state of all of it can be kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..seeds import seed_of_use
from ..task.snapshot import Traces, seed_generators
from .directions import Direction, Method
from .inner import copies, leaves
from .objective import Tensors
from .settings import Settings
from .stream import Stream

_MEMORY = ("step", "exp_avg", "exp_avg_sq")
"""What Adam remembers of each weight."""


@dataclass
class Progress:
    """How far a start has been learned: all that a later run needs to go on.

    Attributes:
        weights: the trainable weights.
        buffers: the start's buffers.
        adam: what Adam remembers, by what it is and by the weight's name; empty for Reptile and before the first round.
        rounds: how many are done.
        history: of each round the loss before and after adaptation.
        last: fingerprint of the last episode.
    """

    weights: Tensors
    buffers: Tensors
    adam: dict[str, Tensors] = field(default_factory=dict)
    rounds: int = 0
    history: list[tuple[float, float]] = field(default_factory=list)
    last: str = ""


class Learning:
    """The rounds of learning one start on a model that others put back."""

    def __init__(self, model: nn.Module, method: Method, stream: Stream, progress: Progress) -> None:
        self._model, self._method, self._stream = model, method, stream
        self.progress = progress
        self._weights = leaves(progress.weights)
        self._adam = None if method.settings.method == "reptile" else self._optimizer(method.settings)
        self._traces = Traces(model)

    def run(self, rounds: int, every: int, write: Callable[[Progress], None] | None) -> None:
        """Learns until so many rounds are done in all.

        Args:
            rounds: in all, those that were done before included.
            every: rounds after which the state is written.
            write: what writes it; None where none is kept.
        """
        while self.progress.rounds < rounds:
            self._round()
            done = self.progress.rounds
            if write is not None and (done % every == 0 or done == rounds):
                self._remember()
                write(self.progress)
        self._remember()

    def _round(self) -> None:
        progress, found = self.progress, []
        for _ in range(self._method.settings.meta_batch):
            found.append(self._episode())
        self._move({name: _mean([one.gradients[name] for one in found]) for name in self._weights})
        progress.buffers = {name: _mean([one.buffers[name] for one in found]) for name in progress.buffers}
        progress.history.append((_average([one.before for one in found]), _average([one.after for one in found])))
        progress.rounds += 1

    def _episode(self) -> Direction:
        number = self._stream.taken
        episode = next(self._stream)
        weights, buffers = self._weights, self.progress.buffers
        seed_generators(seed_of_use(self._method.settings.seed, f"pass {number}"), next(iter(weights.values())).device)
        try:
            self._method.objective.check(weights, copies(buffers), episode, f"episode {number}")
            return self._method.direction(weights, buffers, episode, number)
        finally:
            self._traces.wipe()  # what modules keep beside buffers: nothing of an episode is left for the next one

    def _move(self, gradients: Tensors) -> None:
        if self._adam is None:
            with torch.no_grad():
                for name, gradient in gradients.items():
                    self._weights[name].sub_(gradient, alpha=self._method.settings.outer_lr)
            return
        for name, gradient in gradients.items():
            self._weights[name].grad = gradient
        self._adam.step()

    def _optimizer(self, settings: Settings) -> torch.optim.Adam:
        optimizer = torch.optim.Adam(list(self._weights.values()), lr=settings.outer_lr)
        for name, weight in self._weights.items() if self.progress.adam else ():
            optimizer.state[weight] = {key: self.progress.adam[key][name].clone() for key in _MEMORY}
        return optimizer

    def _remember(self) -> None:
        self.progress.weights, self.progress.last = copies(self._weights), self._stream.last
        if self._adam is not None and self._adam.state:
            state = self._adam.state
            self.progress.adam = {
                key: {name: state[weight][key].clone() for name, weight in self._weights.items()} for key in _MEMORY
            }


def _mean(values: list[Tensor]) -> Tensor:
    """Returns the mean of tensors; of whole numbers, counts of batches for example, the first."""
    if not (values[0].is_floating_point() or values[0].is_complex()):
        return values[0]
    return torch.stack(values).mean(0)


def _average(values: list[Any]) -> float:
    return float(sum(values) / len(values))
