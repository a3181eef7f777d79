"""A selection's reasons in words: why this choice, or none, and the budget that would decide."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .. import text
from ..judging.budget import ENOUGH_FOR_AN_ANSWER, LONGEST_GATE, SMALLEST_ALLOWANCE, Meter
from ..judging.gate import LOOKS, Verdict
from ..recipes.names import title
from ..task.losses import is_binary, split
from ..task.task import Task
from .campaign import Campaign
from .finals import NoChampion
from .funnel import Found

MOSTLY = 0.8
"""Share of a budget below which it is said why no more was spent."""

Answer = Literal["better", "no better", "unsure"]

OWN_TRAINING = "the given training"
"""How it begins what was trained by a generator of its owner's."""

_LOSSES = {
    "model": "the model's own loss",
    "cross_entropy": "cross-entropy",
    "mse": "mean squared error",
    "custom": "the given loss",
    "step": "the given step",
    "train": OWN_TRAINING,
}


def described_task(task: Task) -> str:
    """Returns what was trained: loss, optimizer and batches."""
    if task.own is not None:
        return f"{_LOSSES[task.loss_name]}, {_held_back_of(task)}"
    held_back = f"{len(task.probe_eval) + len(task.gate_eval)} more held back"
    if task.one_held_back:
        held_back = "one more held back, as a whole: the search has seen it as well as the gate"
    manner = f"; {task.manner}" if str(task.manner) else ""
    loss = f"{_LOSSES[task.loss_name]}{_meant(task)}"
    return f"{loss}, {task.optimizer_name}; {len(task.train)} batches, {held_back}{manner}"


def _held_back_of(task: Task) -> str:
    """Returns what a training of its own holds back."""
    count = len(task.probe_eval)
    if not count:
        return "nothing held back"
    return f"{'one held-back value' if count == 1 else f'{count} held-back values'} by validate"


def _meant(task: Task) -> str:
    """Returns a note where the squared error was inferred for targets that look like classes; else nothing."""
    if not task.infers_squares or not all(is_binary(split(batch)[2]) for batch in task.train[:4]):
        return ""
    return " (inferred: the targets are floats; if their 0 and 1 mean classes, pass integers, or loss=)"


@dataclass(frozen=True, slots=True)
class Reason:
    """What a search has answered, and why.

    Attributes:
        answer: whether other weights are better than the model's own, are not, or this search cannot tell.
        why: in words.
        remedy: what would tell, in words, as 'budget="91s" would'; empty where nothing is known to, or need be.
    """

    answer: Answer
    why: str
    remedy: str = ""


def reason(found: Found, meter: Meter, gate_share: float) -> Reason:
    """Returns the reason of the choice.

    Args:
        found: by the search.
        meter: with what was spent.
        gate_share: of the budget.
    """
    early = "interrupted by Ctrl-C; " if found.interrupted else ""
    verdict = found.verdict
    if verdict is not None and verdict.state == "win":
        return Reason("better", early + verdict.why)
    if found.champion is None:
        nobody = found.nobody or NoChampion("nothing was tried", open=True)
        open_, why = nobody.open, nobody.why
        remedy = f"{_budget(nobody.longer, meter)} looks at more steps" if nobody.longer else ""
        if nobody.short:
            remedy = f"{_enough(meter)} looks at smaller effects"
    elif verdict is None:
        open_, why = True, f"{title(found.champion.recipe)} led, but the budget ended before the gate could confirm it"
        remedy = f"{_budget(2.0, meter)} would"
    else:
        open_, why = verdict.open, f"{title(found.champion.recipe)} came as far as the gate, but {verdict.why}"
        if verdict.pairs_needed is not None and not open_:
            why += f"; an effect of this size is too small for {max(LOOKS)} paired runs to show"
        remedy = _what_would_decide(verdict, meter, gate_share)
    if found.interrupted:
        return Reason("unsure", early + why)
    return Reason("unsure", why, remedy) if open_ else Reason("no better", why)


def ended_early(campaign: Campaign, found: Found) -> str:
    """Returns why a good part of the budget was not needed, in words; empty where it was, or nothing was tried.

    Args:
        campaign: that has ended.
        found: by it.
    """
    done = campaign.meter.done()
    if not campaign.trials or not 0 < done < MOSTLY:
        return ""
    reasons = [campaign.ended] if campaign.ended else []
    if found.champion is None:
        reasons.append("nobody was left for the gate")
    elif found.verdict is not None:
        reasons.append("the gate had its answer" if found.verdict.state == "win" else "the gate had seen enough")
    return f"{1 - done:.0%} of the budget was not needed: {', and '.join(reasons)}" if reasons else ""


def _what_would_decide(verdict: Verdict, meter: Meter, gate_share: float) -> str:
    """Returns what would answer a question that the gate has left open, in words; empty where it has answered it."""
    if not verdict.open:
        return ""
    if verdict.longer is not None:
        if verdict.gain.steps >= LONGEST_GATE:
            return ""
        return f"{_budget(verdict.longer, meter)} looks at longer runs"
    if verdict.pairs_needed is not None:
        return f"{_budget(1 + gate_share * (verdict.pairs_needed / verdict.gain.pairs - 1), meter)} would"
    return "more held-back rows would (val_data)"


def _budget(factor: float, meter: Meter) -> str:
    """Returns the budget, as it is written, that is so many times what was spent, and a fifth to spare."""
    if meter.budget.seconds is None:
        return f"Budget(steps={rounded_up(1.2 * factor * meter.steps)})"
    return f'budget="{rounded_up(1.2 * factor * meter.seconds)}s"'


def _enough(meter: Meter) -> str:
    """Returns the budget, as it is written, that pays for gate runs of which a lead is believed."""
    if meter.budget.seconds is None:
        return f"Budget(steps={ENOUGH_FOR_AN_ANSWER})"
    return f'budget="{rounded_up(meter.begun + 1.2 * ENOUGH_FOR_AN_ANSWER * meter.step_seconds)}s"'


def too_small(meter: Meter) -> Reason:
    """Returns why nothing was searched, and the budget that would do."""
    limit = meter.budget.steps
    if limit is not None and limit - meter.steps < SMALLEST_ALLOWANCE:
        why = f"a budget of {limit} steps is too small for a choice that can be trusted"
        return Reason("unsure", why, f"Budget(steps={rounded_up(SMALLEST_ALLOWANCE + meter.steps)}) would")
    # Twice the least: evaluations and drawing weights take their share, and the first call is the slowest.
    needed = rounded_up(2 * SMALLEST_ALLOWANCE * meter.step_seconds + 2 * meter.seconds)
    why = (
        f"a step takes {text.seconds(meter.step_seconds)}, so the budget pays for {max(0, int(meter.left()))} steps, "
        "too few for a choice that can be trusted"
    )
    return Reason("unsure", why, f'budget="{needed}s" would')


def rounded_up(value: float) -> int:
    """Returns the value rounded up to two digits."""
    unit: int = 10 ** max(0, len(str(int(value))) - 2)
    return math.ceil(value / unit) * unit
