"""The search from its first trial to the gate's verdict: explore, finals, duel."""

from __future__ import annotations

from dataclasses import dataclass

from ..judging.gate import Verdict
from ..judging.trials import Candidate
from ..plans.plan import Plan
from ..recipes.space import Space
from .campaign import Campaign
from .duel import GateFailure, duel
from .explore import explore
from .finals import NoChampion, finals, leader
from .sampling import new_study, quiet_optuna


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
    """

    own: Candidate
    champion: Candidate | None = None
    plan: Plan | None = None
    verdict: Verdict | None = None
    nobody: NoChampion | None = None
    interrupted: bool = False


def search(campaign: Campaign, space: Space, *, storage: str | None = None, study_name: str | None = None) -> Found:
    """Returns the champion and the gate's verdict; trials are in `campaign.trials`, the model is trodden on.

    A first Ctrl-C ends the search and goes on to the gate with the best so far; a second one is raised.

    Args:
        campaign: what runs candidates and counts what they cost.
        space: what to choose from.
        storage: an Optuna storage URL that keeps the trials; None for memory.
        study_name: in that storage; it must not exist yet.
    """
    interrupted = False
    try:
        with quiet_optuna():
            explore(campaign, space, new_study(storage, study_name))
        entered = finals(campaign, tune_lr=space.has("lr_step"))
    except KeyboardInterrupt:
        interrupted = True
        entered = leader(campaign)
    if entered.champion is None:
        return Found(entered.own, nobody=entered.nobody, interrupted=interrupted)
    try:
        plan = campaign.bench.draw(entered.champion.recipe, campaign.meter)
        verdict = duel(campaign, entered, entered.champion, plan)
    except GateFailure as failure:  # out of memory in the last run must not cost the user the answer
        nobody = NoChampion(f"{entered.champion.recipe} led, but its gate failed ({failure})", open=True)
        return Found(entered.own, nobody=nobody, interrupted=interrupted)
    return Found(entered.own, entered.champion, plan, verdict, interrupted=interrupted)
