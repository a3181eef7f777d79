"""A selection's reasons in words: why this choice, or none, and the budget that would decide."""

from __future__ import annotations

import math

from .. import text
from ..judging.budget import SMALLEST_ALLOWANCE, Meter
from ..judging.gate import LOOKS, Verdict
from ..task.task import Task
from .funnel import Found

_LOSSES = {
    "model": "the model's own loss",
    "cross_entropy": "cross-entropy",
    "mse": "mean squared error",
    "custom": "the given loss",
    "step": "the given step",
}


def described_task(task: Task) -> str:
    """Returns what was trained: loss, optimizer and batches."""
    held_back = len(task.probe_eval) + len(task.gate_eval)
    return f"{_LOSSES[task.loss_name]}, {task.optimizer_name}; {len(task.train)} batches, {held_back} more held back"


def why(found: Found, meter: Meter, gate_share: float) -> str:
    """Returns the reason of the choice.

    Args:
        found: by the search.
        meter: with what was spent.
        gate_share: of the budget.
    """
    early = "interrupted by Ctrl-C; " if found.interrupted else ""
    if found.champion is None:
        return early + found.why
    if found.verdict is None:
        return f"{early}{found.champion.recipe} led, but the budget ended before the gate could confirm it"
    if found.verdict.state == "win":
        return early + found.verdict.why
    reason = f"{early}{found.champion.recipe} came as far as the gate, but {found.verdict.why}"
    return reason + _what_would_decide(found.verdict, meter, gate_share)


def _what_would_decide(verdict: Verdict, meter: Meter, gate_share: float) -> str:
    """Returns the budget that pays for the pairs which an effect of the size seen needs; nothing where none does."""
    if verdict.state == "undecided" and verdict.longer is not None:
        return f"; {_budget(verdict.longer, meter)} looks at longer runs"
    if verdict.state != "undecided" or verdict.pairs_needed is None:
        return ""
    if verdict.pairs_needed > max(LOOKS):
        return f"; an effect of this size is too small for {max(LOOKS)} paired runs to show"
    factor = 1 + gate_share * (verdict.pairs_needed / verdict.gain.pairs - 1)
    return f"; {_budget(factor, meter)} would decide an effect of this size"


def _budget(factor: float, meter: Meter) -> str:
    """Returns the budget, as it is written, that is so many times what was spent, and a fifth to spare."""
    if meter.budget.seconds is None:
        return f"Budget(steps={_rounded_up(1.2 * factor * meter.steps)})"
    return f'budget="{_rounded_up(1.2 * factor * meter.seconds)}s"'


def too_small(meter: Meter) -> str:
    """Returns why nothing was searched, and the budget that would do."""
    limit = meter.budget.steps
    if limit is not None and limit - meter.steps < SMALLEST_ALLOWANCE:
        return (
            f"a budget of {limit} steps is too small for a choice that can be trusted; "
            f"Budget(steps={_rounded_up(SMALLEST_ALLOWANCE + meter.steps)}) would do"
        )
    # Twice the least: evaluations and drawing weights take their share, and the first call is the slowest.
    needed = _rounded_up(2 * SMALLEST_ALLOWANCE * meter.step_seconds + 2 * meter.seconds)
    return (
        f"a step takes {text.seconds(meter.step_seconds)}, so the budget pays for {max(0, int(meter.left()))} steps, "
        f'too few for a choice that can be trusted; budget="{needed}s" would do'
    )


def _rounded_up(value: float) -> int:
    """Returns the value rounded up to two digits."""
    unit: int = 10 ** max(0, len(str(int(value))) - 2)
    return math.ceil(value / unit) * unit
