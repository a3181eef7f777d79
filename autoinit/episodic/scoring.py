"""How far a start comes on new tasks: the loss and the accuracy after a few steps, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import torch
from scipy.special import stdtrit

from ..errors import USER_ERRORS, AutoInitError
from ..seeds import seed_of_use
from ..task.machine import OUT_OF_MEMORY
from ..task.snapshot import Traces, seed_generators
from .directions import refused
from .inner import adapted, copies, leaves
from .objective import Objective, Tensors
from .stream import Episode, Stream


@dataclass(frozen=True)
class Estimate:
    """A mean over episodes with its 95 % interval.

    Attributes:
        mean: of all episodes.
        low: lower end of Student's interval.
        high: upper end.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Returns the mean of values; the interval of a single one is infinite; NaN where one is not finite."""
        if not all(map(math.isfinite, values)):  # the rate was too large for some of them
            return cls(math.nan, math.nan, math.nan)
        middle = mean(values)
        if len(values) < 2:
            return cls(middle, -math.inf, math.inf)
        half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / math.sqrt(len(values))
        return cls(middle, middle - half, middle + half)

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.high - self.mean:.2g}"


@dataclass(frozen=True)
class EpisodeScores:
    """What some steps of adaptation bring on the queries of episodes.

    Attributes:
        before: the loss at the start.
        loss: the loss after adaptation.
        accuracy: the share of labels that are right then; None where there are no classes.
        losses: after adaptation, of each episode.
        inner_steps: how many steps.
        inner_lr: their rate.
    """

    before: Estimate
    loss: Estimate
    accuracy: Estimate | None
    losses: tuple[float, ...]
    inner_steps: int
    inner_lr: float

    def __str__(self) -> str:
        right = "" if self.accuracy is None else f"; accuracy {self.accuracy}"
        return (
            f"{len(self.losses)} episodes, {self.inner_steps} steps at rate {self.inner_lr:g}: query loss "
            f"{self.before} before, {self.loss} after{right}"
        )


@dataclass(frozen=True)
class Scorer:
    """What scores the episodes of a stream.

    Attributes:
        objective: the loss.
        inside: names of the weights that adapt.
        inner_steps: how many steps; 0 for none.
        inner_lr: their rate.
        seed: of what passes draw.
    """

    objective: Objective
    inside: Sequence[str]
    inner_steps: int
    inner_lr: float
    seed: int

    def scores(
        self, weights: Tensors, buffers: Tensors, stream: Stream, episodes: int, traces: Traces
    ) -> EpisodeScores:
        """Returns the scores of the next episodes; fewer where there are no more."""
        before: list[float] = []
        losses: list[float] = []
        right: list[float] = []
        while len(losses) < episodes:
            number = stream.taken
            try:
                episode = next(stream)
            except StopIteration:
                break
            seed_generators(seed_of_use(self.seed, f"pass {number}"), next(iter(weights.values())).device)
            first, last, share = self._one(weights, buffers, episode, f"episode {number}")
            traces.wipe()
            before.append(first)
            losses.append(last)
            right += [] if share is None else [share]
        accuracy = Estimate.of(right) if right else None
        steps, lr = self.inner_steps, self.inner_lr
        return EpisodeScores(Estimate.of(before), Estimate.of(losses), accuracy, tuple(losses), steps, lr)

    def _one(
        self, weights: Tensors, buffers: Tensors, episode: Episode, where: str
    ) -> tuple[float, float, float | None]:
        """Returns the loss before and after adaptation, and the share of labels that are right."""
        try:
            self.objective.check(weights, copies(buffers), episode, where)
            return self._adapted(weights, copies(buffers), episode)
        except (AutoInitError, *OUT_OF_MEMORY):
            raise
        except USER_ERRORS as problem:
            raise refused(problem, episode, where) from problem

    def _adapted(self, weights: Tensors, buffers: Tensors, episode: Episode) -> tuple[float, float, float | None]:
        support, query = episode
        with torch.no_grad():
            before = float(self.objective.loss(weights, copies(buffers), query))
        steps = [support] * self.inner_steps
        start, lr = leaves(weights), self.inner_lr
        end, _ = adapted(self.objective, start, buffers, steps, names=self.inside, lr=lr, through=False)
        with torch.no_grad():
            loss = float(self.objective.loss(end, copies(buffers), query))
            scores = self.objective.scores(end, buffers, query) if self.objective.classifies else None
        return before, loss, None if scores is None else self.objective.accuracy(scores, query[1])
