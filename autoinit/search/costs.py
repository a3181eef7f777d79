"""What a search costs: its runs, in training steps, how long a budget lets them be, and all of it together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..judging.budget import FORWARD_COST, evaluated
from ..judging.payback import Payback, payback
from ..judging.trials import Trial
from ..recipes.recipe import OWN
from ..task.task import Task

EARLY, LATE = (0.4, 0.5), (0.8, 0.9)
"""Where a gate run is evaluated besides its end, halfway and towards it: where the held-back loss is going, from more
than one iterate's, which is mostly the noise of its last steps."""
ENOUGH_TO_WANDER = 32
"""Steps below which there is one evaluation halfway and one at the end: one step moves little there, and costs less
than to look at it."""
SHORTEST_RUN = 8
"""Steps below which a run on a fresh batch order tells nothing."""
DRAW_COST = 1.05
"""Cost of a run in its own steps, without evaluations: a twentieth more for drawing the weights."""


def final_cost(task: Task, steps: int) -> float:
    """Returns what a final run of some steps costs, evaluation included, in steps."""
    return DRAW_COST * steps + look_cost(task, steps)


def look_cost(task: Task, step: int) -> float:
    """Returns what an evaluation at some step of the search or the finals costs, in steps."""
    return task.forwards(evaluated(task.probe_eval, step)) * FORWARD_COST


def gate_cost(task: Task, steps: int) -> float:
    """Returns what a gate run of some steps costs, evaluations included, in steps."""
    early, late = evaluations(steps)
    look = task.forwards(evaluated(task.gate_eval, steps)) * FORWARD_COST
    return DRAW_COST * steps + (len(early) + len(late) + 1) * look


def longest(most: int, left: float, cost: Callable[[int], float]) -> int:
    """Returns the most steps, `most` at the most, of a run that what is left pays for; 0 where it pays for none."""
    return next((steps for steps in range(most, 0, -1) if cost(steps) <= left), 0)


def evaluations(steps: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the shares of a gate run's steps at which it is evaluated before its end: around its half, and later."""
    return (EARLY, LATE) if steps >= ENOUGH_TO_WANDER else (EARLY[-1:], ())


@dataclass(frozen=True, slots=True)
class Cost:
    """What a selection cost.

    Attributes:
        seconds: wall time of the whole call.
        steps: training steps, evaluations and calibrations counted as their share of one.
        trials: probes run in the search and the finals.
        executor: how they were run, in words; empty where none was.
        memory: the most bytes of tensors at a time on the device; None on a CPU, which does not count them.
        early: why a good part of the budget was not needed, in words; empty where it was.
        training_steps: of the training that the weights are for; None where nobody says.
        budget: how the budget came about, in words, where it is a share of that training; else empty.
    """

    seconds: float
    steps: float
    trials: int
    executor: str = ""
    memory: int | None = None
    early: str = ""
    training_steps: float | None = None
    budget: str = ""

    @property
    def share(self) -> float | None:
        """The steps as a share of those of the training; None where nobody says how long that is."""
        return None if self.training_steps is None else self.steps / self.training_steps


def saved_by(trials: Sequence[Trial]) -> Payback | None:
    """Returns what the champion saves of a training, by the gate's runs; None where there were none."""
    curves: dict[int, dict[bool, tuple[float, ...]]] = {}
    for trial in trials:
        if trial.stage == "gate" and trial.curve is not None and trial.curve.losses:
            curves.setdefault(trial.seed, {})[trial.candidate.recipe == OWN] = trial.curve.losses
    return payback([(arms[False], arms[True]) for arms in curves.values() if len(arms) == 2])
