"""From one row of the rank benchmark to one number per predictor, lower is better: pure arithmetic, no training.

A *static* predictor looks at one forward and backward pass before training, a *dynamic* one at the first `steps` steps
of the probe. What cannot be measured on a task (the saturation of a ReLU) is the same for all of its candidates.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autoinit.judging.score import RANGE_STEP, Curve, Reference, score

from ..common.jobs import Row

Static = Callable[[Row], float]
Dynamic = Callable[[Row, int], float]

WORST = 1e9
"""Stands for what is not finite, so that it ranks last."""
TINY = 1e-30
EARLY_RUNGS = (2, 4, 8)
"""Before step 20 a probe knows the range of gradients at its first rung; the benchmark's rows have them at these."""


def reference(row: Row) -> Reference:
    """Returns what the row's losses are measured against."""
    return Reference.of(row["reference"], ())


def curve_at(row: Row, steps: int) -> Curve:
    """Returns the probe's curve as it was after so many steps."""
    probe = row["probe"]
    held_back = tuple((int(step), loss) for step, loss in probe["held_back"].items() if int(step) <= steps)
    diverged_at = probe["diverged_at"]
    return Curve(
        losses=tuple(probe["losses"][:steps]),
        held_back=held_back,
        gradient_range=range_at(row, min(steps, RANGE_STEP)),
        diverged_at=diverged_at if diverged_at is not None and diverged_at <= steps else None,
    )


def range_at(row: Row, step: int) -> float | None:
    """Returns the range of gradients at step 20, else at the last rung up to `step` (before 20, up to 8)."""
    probe = row["probe"]
    if step == RANGE_STEP:
        return None if probe["gradient_range"] is None else float(probe["gradient_range"])
    rungs = [int(rung) for rung in probe["grad_norms"] if int(rung) <= step]
    if step < RANGE_STEP:
        rungs = [rung for rung in rungs if rung in EARLY_RUNGS]
    return log_range(probe["grad_norms"][str(max(rungs))]) if rungs else None


def log_range(values: Sequence[float | None]) -> float | None:
    """Returns log10 of the largest over the smallest; inf where only some are zero, None where all are, or one is."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if len(finite) < 2 or max(finite) == 0:
        return None
    return math.log10(max(finite) / min(finite)) if min(finite) > 0 else math.inf


def ranked(value: float) -> float:
    """Returns the value, or what ranks last in its place where it is not finite."""
    return value if math.isfinite(value) else WORST


# Before training


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _loss(row: Row) -> float:
    return math.log(max(row["signals"]["loss"], TINY) / row["reference"])


def _gradient_norm(row: Row) -> float:
    return math.log10(max(row["signals"]["grad_norm"], TINY))


def _gradient_range(row: Row) -> float:
    found = log_range(row["signals"]["layer_grad_norm"])
    return math.inf if found is None else found


def _ratio_range(row: Row) -> float:
    signals = row["signals"]
    pairs = zip(signals["layer_grad_norm"], signals["weight_norm"], strict=True)
    found = log_range([grad / weight for grad, weight in pairs if grad is not None and weight > 0])
    return math.inf if found is None else found


def _forward_logs(row: Row) -> list[float]:
    return [math.log10(max(std, TINY)) for std in _known(row["signals"]["forward_std"])]


def _forward_range(row: Row) -> float:
    logs = _forward_logs(row)
    return max(logs) - min(logs)


def _forward_size(row: Row) -> float:
    return statistics.fmean(abs(size) for size in _forward_logs(row))


def _shift(row: Row) -> float:
    signals = row["signals"]
    pairs = zip(signals["forward_mean"], signals["forward_std"], strict=True)
    return max(math.log10((abs(mean) + TINY) / max(std, TINY)) for mean, std in pairs if std is not None)


def _share(key: str) -> Static:
    def share(row: Row) -> float:
        values = _known(row["signals"][key])
        return statistics.fmean(values) if values else 0.0

    return share


def _disagreement(row: Row) -> float:
    agreement = row["signals"]["agreement"]
    return 1.0 if agreement is None else -float(agreement)


def separation(row: Row) -> float:
    """Returns the share of the output's mean square that differs between rows; 1 where there is no output to see."""
    found = row["signals"]["separation"]
    return 1.0 if found is None else float(found)


def _collapse(row: Row) -> float:
    return -math.log10(max(separation(row), TINY))


STATIC: dict[str, Static] = {
    "initial loss": _loss,
    "initial loss, distance to the constant's": lambda row: abs(_loss(row)),
    "gradient norm, large first": lambda row: -_gradient_norm(row),
    "gradient norm, distance to 1": lambda row: abs(_gradient_norm(row)),
    "gradient range": _gradient_range,
    "range of gradient over weight": _ratio_range,
    "range of forward std": _forward_range,
    "forward std, distance to 1": _forward_size,
    "forward |mean| over std": _shift,
    "dead share": _share("dead"),
    "saturated share": _share("saturated"),
    "disagreement of half batches": _disagreement,
    "rows look alike": _collapse,
    "gradient range + forward range": lambda row: _gradient_range(row) + _forward_range(row),
    "initial loss + 0.1 gradient range": lambda row: max(0.0, _loss(row)) + 0.1 * min(12.0, _gradient_range(row)),
    "gradient range + rows look alike": lambda row: _gradient_range(row) + 0.5 * _collapse(row),
}
"""Every predictor that needs no training step."""


# After some steps


@dataclass(frozen=True)
class Form:
    """A score's form: the loss part, and what is added to it.

    Attributes:
        tail: share of the steps whose batches count, from the end.
        held_back: weight of the held-back loss; the batches have the rest.
        weight: of the range of gradients.
        cap: on that range.
        until: steps after which the range no longer counts.
        fading: whether the range counts by 20/steps after step 20.
        unlearnt: whether the range counts by the share of the reference's loss that is left.
        progress: weight of the change of u between the two halves of the tail's steps and those before.
        spikes: weight of the largest rise of u above its lowest so far.
        late: whether the range is the last rung's instead of step 20's.
        rungs: held-back losses that count, from the end.
    """

    tail: float = 0.25
    held_back: float = 0.5
    weight: float = 0.0
    cap: float = 12.0
    until: int = 10**9
    fading: bool = False
    unlearnt: bool = False
    progress: float = 0.0
    spikes: float = 0.0
    late: bool = False
    rungs: int = 1

    def __call__(self, row: Row, steps: int) -> float:
        """Returns the score of the probe's first `steps` steps."""
        curve, unit = curve_at(row, steps), reference(row)
        if curve.diverged_at is not None or not curve.losses:
            return 100.0 - (curve.diverged_at or 0) / steps
        us = [unit.u(loss) for loss in curve.losses]
        training = statistics.fmean(us[-math.ceil(self.tail * len(us)) :])
        evaluated = [unit.u(loss) for _, loss in curve.held_back[-self.rungs :]]
        held_back = statistics.fmean(evaluated) if evaluated else training
        total = (1 - self.held_back) * training + self.held_back * held_back
        if self.weight and steps <= self.until:
            left = min(1.0, math.exp(total)) if self.unlearnt else 1.0
            left *= min(1.0, RANGE_STEP / steps) if self.fading else 1.0
            total += self.weight * left * self._range(row, steps)
        if self.progress:
            total += self.progress * _change(us)
        if self.spikes:
            total += self.spikes * _rise(us)
        return total

    def _range(self, row: Row, steps: int) -> float:
        found = range_at(row, steps if self.late else min(steps, RANGE_STEP))
        return self.cap if found is None else min(self.cap, found)


def _change(us: Sequence[float]) -> float:
    """Returns by how much the mean u of the last quarter is above the quarter's before; negative while it falls."""
    quarter = math.ceil(len(us) / 4)
    before = us[-2 * quarter : -quarter]
    return statistics.fmean(us[-quarter:]) - statistics.fmean(before) if before else 0.0


def _rise(us: Sequence[float]) -> float:
    """Returns the largest rise of u above its lowest value so far."""
    return max(u - low for u, low in zip(us, itertools.accumulate(us, min), strict=True))


def _library(row: Row, steps: int) -> float:
    return score(curve_at(row, steps), reference(row), steps).total


DYNAMIC: dict[str, Dynamic] = {
    "last batch": Form(tail=1e-9, held_back=0.0),
    "batches: last quarter": Form(held_back=0.0),
    "batches: last half": Form(tail=0.5, held_back=0.0),
    "batches: all": Form(tail=1.0, held_back=0.0),
    "held-back": Form(held_back=1.0),
    "held-back, two rungs": Form(held_back=1.0, rungs=2),
    "loss: quarter and held-back": Form(),
    "loss: half and held-back": Form(tail=0.5),
    "loss: all and held-back": Form(tail=1.0),
    "loss + 0.02 range": Form(weight=0.02),
    "loss + 0.05 range": Form(weight=0.05),
    "loss + 0.1 range": Form(weight=0.1),
    "loss + 0.2 range": Form(weight=0.2),
    "loss + 0.02 min(3, range)": Form(weight=0.02, cap=3.0),
    "loss + 0.05 min(3, range)": Form(weight=0.05, cap=3.0),
    "loss + 0.1 min(3, range)": Form(weight=0.1, cap=3.0),
    "loss + 0.2 min(3, range)": Form(weight=0.2, cap=3.0),
    "loss + 0.1 range to step 30": Form(weight=0.1, until=30),
    "loss + 0.05 min(3, range) fading": Form(weight=0.05, cap=3.0, fading=True),
    "loss + 0.1 min(3, range) fading": Form(weight=0.1, cap=3.0, fading=True),
    "loss + 0.1 range x share unlearnt": Form(weight=0.1, unlearnt=True),
    "loss + 0.1 range of now": Form(weight=0.1, late=True),
    "loss + 0.5 change": Form(progress=0.5),
    "loss + 1 change": Form(progress=1.0),
    "loss + 0.1 rise": Form(spikes=0.1),
    "loss - 0.1 rise": Form(spikes=-0.1),
    "the library's score": _library,
}
"""Every predictor that needs a probe, after any number of steps."""
