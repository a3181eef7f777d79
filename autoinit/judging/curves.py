"""The loss curves that an answer keeps of its search: thinned, few, and plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..recipes.recipe import OWN, Recipe
from ..recipes.space import LR_RATIO
from .trials import Stage, Trial, ranking

POINTS = 100
"""Most points of a kept curve."""

CURVES = 64
"""Most curves that an answer keeps: a night's search has thousands, and nobody looks at the worst of them."""

_DIGITS = 6


@dataclass(frozen=True, slots=True)
class LossCurve:
    """The loss over one training of a search, as far as it was finite.

    Attributes:
        number: of its trial, which is its row in `Selection.trials`.
        stage: what it was run for; the runs of the gate are in pairs of one seed.
        recipe: whose weights it began from.
        lr: its learning rate; None where the optimizer has none to read.
        seed: of its batch order.
        length: training steps that it had.
        steps: where the losses stand, from 1; of a thinned curve the middle of the steps that were averaged.
        losses: training loss at each of them, before the step.
        held_back: (steps done, loss on held-back rows), in order.
    """

    number: int
    stage: Stage
    recipe: Recipe
    lr: float | None
    seed: int
    length: int
    steps: tuple[float, ...]
    losses: tuple[float, ...]
    held_back: tuple[tuple[int, float], ...] = ()


def kept_curves(trials: Sequence[Trial], champion: Recipe | None, lr: float | None) -> tuple[LossCurve, ...]:
    """Returns the curves that tell the most, at most `CURVES` of them, in the order of their trials.

    The gate's come first, then the owner's and the champion's, then those of the search's best recipes.

    Args:
        trials: of a search.
        champion: the recipe that met the owner's weights in the gate; None where none did.
        lr: learning rate in the middle of the grid; None where the optimizer has none to read.
    """
    places = {trial.number: place for place, trial in enumerate(ranking(trials))}

    def importance(trial: Trial) -> tuple[float, ...]:
        mine = trial.candidate.recipe in (OWN, champion)
        return trial.stage != "gate", not mine, places.get(trial.number, len(trials)), trial.total, trial.number

    having = [trial for trial in trials if trial.curve is not None and trial.curve.losses]
    kept = sorted(having, key=importance)[:CURVES]
    return tuple(_curve(trial, lr) for trial in sorted(kept, key=lambda trial: trial.number))


def _curve(trial: Trial, lr: float | None) -> LossCurve:
    curve = trial.curve
    assert curve is not None
    finite = next((step for step, loss in enumerate(curve.losses) if not math.isfinite(loss)), curve.steps)
    steps, losses = thinned(curve.losses[:finite], POINTS)
    seen = [(step, _short(loss)) for step, loss in curve.held_back if math.isfinite(loss)]
    return LossCurve(
        number=trial.number,
        stage=trial.stage,
        recipe=trial.candidate.recipe,
        lr=None if lr is None else lr * LR_RATIO**trial.candidate.lr_step,
        seed=trial.seed,
        length=curve.steps,
        steps=tuple(steps),
        losses=tuple(map(_short, losses)),
        held_back=tuple(seen[-POINTS:]),
    )


def _short(loss: float) -> float:
    return float(f"{loss:.{_DIGITS}g}")


def thinned(losses: Sequence[float], most: int) -> tuple[list[float], list[float]]:
    """Returns steps, from 1, and losses of a curve as at most so many points: means of neighbouring steps."""
    count = min(len(losses), most)
    edges = [round(place * len(losses) / count) for place in range(count + 1)] if count else []
    spans = list(pairwise(edges))
    return [(first + 1 + last) / 2 for first, last in spans], [
        math.fsum(losses[first:last]) / (last - first) for first, last in spans
    ]
