"""Whether a search has anything left to find that is worth its cost, in the numbers of its campaign."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..judging.budget import SHARE_OF_TRAINING, evaluated
from ..judging.gate import LOOKS
from ..judging.score import Curve, Reference
from ..judging.trials import Trial
from ..judging.worth import Ahead, Guess, Worth, trains, worth
from ..recipes.recipe import OWN
from .campaign import Campaign
from .costs import gate_cost, longest, look_cost

LOOK_SHARE = 0.1
"""Share of what the search would spend next, that a longer look at the owner's weights may take."""

Again = Callable[[int, Callable[[Curve], bool]], Curve | None]
"""Looks at the owner's weights for so many steps, or until a curve is enough; None where that cannot be done."""


def nothing_left(campaign: Campaign, steps: float, again: Again | None = None) -> bool:
    """Returns whether what is left to find is worth less than its cost; the campaign then has what it is.

    Asked between rounds and batches only, so that the answer is the same however many trials run at a time. It goes on
    wherever the owner's weights may stand still: whoever trains rescues them.

    Args:
        campaign: with the owner's weights tried first.
        steps: that the next candidates take; 0 where the gate comes next.
        again: asked where the search would end if the owner's weights trained, and cannot be seen to do so yet.
    """
    own, reference = campaign.trials[0], campaign.reference
    if not campaign.spares or campaign.meter.hurried or own.curve is None or own.state != "complete":
        return False
    curve = _longest(campaign, own.curve)
    if reference is None or (found := _found(campaign, curve, reference, steps)).pays:
        return False

    def enough(curve: Curve) -> bool:
        return trains(curve, reference, _guess(campaign, curve))

    longer = _worth_looking(campaign, curve.steps, found.ahead.steps)
    if again is not None and not enough(curve) and longer > curve.steps:
        campaign.further = again(longer, enough)
        curve = _longest(campaign, own.curve)
    found = _found(campaign, curve, reference, steps)
    if found.pays or not enough(curve):
        return False
    campaign.left_over, campaign.ended = found, "nothing is left to find that is worth its cost"
    campaign.say("finishing", campaign.ended)
    return True


def _worth_looking(campaign: Campaign, reached: int, spent_next: float) -> int:
    """Returns how far a look at the owner's weights goes on: as often twice as far as it may cost."""
    steps, task = reached, campaign.bench.task
    while 2 * steps - reached + look_cost(task, 2 * steps) <= LOOK_SHARE * spent_next:
        steps *= 2
    return steps


def _longest(campaign: Campaign, own: Curve) -> Curve:
    """Returns the longest curve of the owner's weights."""
    further = campaign.further
    return further if further is not None and further.steps > own.steps else own


def _guess(campaign: Campaign, own: Curve) -> Guess:
    """Returns what is known of a constant guess, on the rows that a curve was evaluated on."""
    task = campaign.bench.task
    return Guess(task.reference_spread, task.best_constant_on(evaluated(task.probe_eval, own.steps)))


def _found(campaign: Campaign, own: Curve, reference: Reference, steps: float) -> Worth:
    others = [one.curve for one in campaign.trials if _tells(one, own.steps) and one.curve is not None]
    return worth(own, others, reference, _guess(campaign, own), _ahead(campaign, steps))


def _tells(trial: Trial, steps: int) -> bool:
    """Whether a trial of another candidate was in the owner's batch order, and no longer."""
    alive = trial.stage == "search" and trial.state in ("complete", "pruned") and trial.candidate.recipe != OWN
    return alive and trial.curve is not None and trial.curve.steps <= steps


def _ahead(campaign: Campaign, steps: float) -> Ahead:
    """Returns what comes next: so many steps of candidates, and the gate's first look.

    A training of which nobody said how long it is counts as long as makes the budget the usual share of it.
    """
    task, known, pairs = campaign.bench.task, campaign.training_steps, min(LOOKS)
    left = campaign.left_for_pairs(pairs, after=steps)
    most = int(min(campaign.schedule.gate, known or math.inf))
    gate = longest(most, left / (2 * pairs), lambda length: gate_cost(task, length))
    training = known or (campaign.meter.steps + campaign.meter.left()) / SHARE_OF_TRAINING
    return Ahead(steps + 2 * pairs * gate_cost(task, max(1, gate)), gate, training, assumed=known is None)
