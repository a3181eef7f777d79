"""The search from its first trial to the gate's verdict: explore, finals, duel."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from .. import text
from ..judging.gate import Verdict
from ..judging.trials import Candidate
from ..plans.plan import Plan
from ..recipes.calibrations import steps_of
from ..recipes.names import title
from ..recipes.space import Space
from .campaign import Campaign
from .duel import GateFailure, duel
from .explore import explore
from .finals import Finals, NoChampion, finalists, finals, leader
from .storing import stored


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        own: the owner's weights at the best learning rate found for them.
        champion: the best candidate; None where none beat the owner's weights.
        plan: the champion's exact draw.
        verdict: the gate's; None where it was not reached.
        nobody: why there is no champion; None where there is one.
        interrupted: whether Ctrl-C ended the search early.
        judged: the campaign of the finals and the gate; None where nothing was searched.
    """

    own: Candidate
    champion: Candidate | None = None
    plan: Plan | None = None
    verdict: Verdict | None = None
    nobody: NoChampion | None = None
    interrupted: bool = False
    judged: Campaign | None = field(default=None, compare=False)


Judge = Callable[[Campaign], AbstractContextManager[Campaign]]
"""Makes the campaign that finals and gate are on out of that of the search."""


def search(
    campaign: Campaign,
    space: Space,
    judge: Judge = contextlib.nullcontext,
    *,
    storage: str | None = None,
    study_name: str | None = None,
) -> Found:
    """Returns the champion and the gate's verdict; trials are in `campaign.trials`, the model is trodden on.

    A first Ctrl-C ends the search, and the best so far goes to a gate that takes a few seconds at most; one that comes
    in the gate itself begins a short one. A second one is raised, and says what was left undone.

    Args:
        campaign: what runs candidates and counts what they cost.
        space: what to choose from.
        judge: makes the campaign of the finals and the gate, where the search is on a proxy of the model.
        storage: an Optuna storage URL that keeps the trials; None for memory.
        study_name: in that storage; it must not exist yet.

    Raises:
        KeyboardInterrupt: a second Ctrl-C.
    """
    entered: Finals | None = None
    with contextlib.ExitStack() as stack:
        last = campaign
        try:
            # Of what somebody lists, or asks a learning rate of, each is wanted whatever it costs; and what is known of
            # leads is of networks that are trained from scratch, beside a constant guess: where that is unknown, the
            # way down to it looks like training that makes up for any lead.
            asked = space.listed or any(map(space.has, ("lr_step", "adapter", "growth", "rows")))
            known = campaign.bench.task.reference is not None
            campaign.spares = campaign.spares and known and not asked
            with stored(storage, study_name) as (study, write):
                explore(campaign, space, study, write)
            if finalists(campaign.trials)[1]:
                last = stack.enter_context(judge(campaign))
            entered = finals(last, tune_lr=space.has("lr_step"))
            return _judged(last, entered)
        except KeyboardInterrupt:
            seconds = campaign.meter.hurry()
        # Outside of the handler, so that what a second Ctrl-C raises does not drag the first one along.
        try:
            led = (entered or leader(campaign)).champion is not None
            gate = f"the gate, in {text.seconds(seconds)} at most; Ctrl-C again stops"
            campaign.say("finishing", gate if led else "nothing led yet")
            if led and last is campaign:
                last = stack.enter_context(judge(campaign))
            entered = entered or leader(last)
            return dataclasses.replace(_judged(last, entered), interrupted=True)
        except KeyboardInterrupt:
            pass
    raise KeyboardInterrupt(_undone(campaign, entered or leader(campaign)))


def _judged(campaign: Campaign, entered: Finals) -> Found:
    """Returns what the gate says of the champion that entered it."""
    champion = entered.champion
    if champion is None:
        return Found(entered.own, nobody=entered.nobody, judged=campaign)
    if (cost := steps_of(champion.recipe.calibration)) > campaign.meter.left():
        why = f"{title(champion.recipe)} led, but its calibration takes about {cost} training steps, which are not left"
        return Found(entered.own, nobody=NoChampion(why, open=True), judged=campaign)
    try:
        plan = campaign.bench.draw(champion.recipe, campaign.meter)
        verdict = duel(campaign, entered, champion, plan)
    except GateFailure as failure:  # out of memory in the last run must not cost the user the answer
        nobody = NoChampion(f"{title(champion.recipe)} led, but its gate failed ({failure})", open=True)
        return Found(entered.own, nobody=nobody, judged=campaign)
    return Found(entered.own, champion, plan, verdict, judged=campaign)


def _undone(campaign: Campaign, entered: Finals) -> str:
    """Returns what a search that was stopped has come to, and what it leaves undone."""
    who = "nothing led" if entered.champion is None else f"{title(entered.champion.recipe)} led, but was not confirmed"
    return f"select was stopped after {len(campaign.trials)} runs: {who}. The model's own weights are put back."
