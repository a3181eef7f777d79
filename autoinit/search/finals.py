"""The finals: the search's best against the owner's weights again, on fresh batch orders."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch

from ..judging.budget import ENOUGH_FOR_AN_ANSWER, SHARE_OF_TRAINING
from ..judging.gate import Spread
from ..judging.trials import Candidate, Trial, ranking
from ..recipes.names import title
from ..recipes.recipe import OWN
from ..recipes.space import LR_STEPS
from ..text import number
from .campaign import Campaign
from .costs import SHORTEST_RUN, final_cost, longest
from .prospects import nothing_left

FINALISTS = 3
FINAL_ORDERS = 2
EARLY_LEAD, EARLY_STEPS = 0.05, 16
"""The lead, in nats, that a candidate needs where probes have fewer than so many steps: the gate costs as much as the
search there. Of 32 smaller leads at eight steps four turned out to do harm and the median gained 6 %; of 85 larger ones
six did, and the median gained 41 % (docs/scoring.md)."""


@dataclass(frozen=True, slots=True)
class NoChampion:
    """Why nobody goes to the gate.

    Attributes:
        why: in words.
        open: whether a larger budget may find somebody.
        longer: how many times the budget, where that is known.
        short: whether that is one whose gate has runs long enough to believe a lead.
    """

    why: str
    open: bool = False
    longer: float | None = None
    short: bool = False


@dataclass(frozen=True, slots=True)
class Finals:
    """Who goes to the gate.

    Attributes:
        own: the owner's weights at the best learning rate found for them.
        champion: the candidate that beats them; None where there is none.
        spread: of the finalists' paired differences, for the gate to pool.
        nobody: why there is no champion; None where there is one.
    """

    own: Candidate
    champion: Candidate | None
    spread: Spread = field(default_factory=Spread)
    nobody: NoChampion | None = None


_Runs = dict[Candidate, list[Trial]]


def finals(campaign: Campaign, *, tune_lr: bool) -> Finals:
    """Returns the champion after running the search's best again, next to the owner's weights.

    Args:
        campaign: with the trials of the search.
        tune_lr: whether each finalist's neighbours on the learning-rate grid are tried too.
    """
    own, rivals = _entrants(campaign)
    if not rivals:
        none_tried = "the budget ended before another candidate could be tried"
        return Finals(own, None, nobody=_no_rival(campaign, none_tried))
    if nobody := _too_early(campaign) or _too_dear(campaign):
        decided = Finals(own, None, nobody=nobody)
        _say_who_goes_on(campaign, decided, {})
        return decided
    runs: _Runs = {}
    count, orders, steps = _layout(campaign, len(rivals), tune_lr)
    arms = [own, *rivals[:count]]
    for order in range(orders):
        entered = _with_other_rates(campaign, arms, steps) if tune_lr and order == 0 else arms
        jobs = campaign.jobs("final", [(arm, f"final {order}") for arm in entered], steps)
        for arm, trial in zip(entered, campaign.run(jobs), strict=True):
            runs.setdefault(arm, []).append(trial)
        runs = {arm: [campaign.trials[trial.number] for trial in trials] for arm, trials in runs.items()}
        if order == 0:
            arms = [_best_lr(runs, arm) for arm in arms]
        again = len(arms) * final_cost(campaign.bench.task, steps)
        if campaign.left(campaign.schedule.finals_until, len(arms), places=len(arms)) < again:
            break
    decided = _decided(arms, runs)
    _say_who_goes_on(campaign, decided, runs)
    return decided


def _too_early(campaign: Campaign) -> NoChampion | None:
    """Returns why the search's leader is not worth a gate where all probes were very short; None where it is."""
    (best, *others), steps = ranking(campaign.trials), _probed(campaign)
    own = next((trial for trial in others if trial.candidate.recipe == OWN), None)
    if steps >= EARLY_STEPS or own is None or (lead := own.total - best.total) >= EARLY_LEAD:
        return None
    why = (
        f"{title(best.candidate.recipe)} led by {lead:.2g} in score after {steps} steps, and less than {EARLY_LEAD} so "
        "early tells little"
    )
    return NoChampion(why, open=True, longer=max(2.0, EARLY_STEPS / max(1, steps)))


def _too_dear(campaign: Campaign) -> NoChampion | None:
    """Returns why the search's leader is not worth a gate; None where it is."""
    if campaign.searched_elsewhere or not nothing_left(campaign, 0.0):
        return None
    return _nothing_left(campaign, f"{title(ranking(campaign.trials)[0].candidate.recipe)} led, but ")


def _nothing_left(campaign: Campaign, before: str) -> NoChampion | None:
    """Returns why a search ended before its budget did, behind some words; None where that was not for its cost."""
    left = campaign.left_over
    if left is None:
        return None
    # A budget that a lead can be told with is the answer only where it is no large part of the training.
    affordable = left.ahead.assumed or SHARE_OF_TRAINING * left.ahead.training >= ENOUGH_FOR_AN_ANSWER
    short = left.too_short and affordable
    return NoChampion(f"{before}{left}", open=short, short=short)


def _probed(campaign: Campaign) -> int:
    """Returns the steps after which the search has ranked its candidates."""
    return max((trial.curve.steps for trial in ranking(campaign.trials) if trial.curve is not None), default=0)


def _layout(campaign: Campaign, rivals: int, tune_lr: bool) -> tuple[int, int, int]:
    """Returns how many finalists run on how many batch orders for how many steps; (rivals, 0, 0) for no finals.

    Two orders tell the noise as well, which the gate pools; with learning rates to compare, an arm and its two
    neighbours come first. Runs below half of the search's or the gate's length would rank worse than the search did,
    if that was on this model.
    """
    task = campaign.bench.task
    most = 1 + min(rivals, FINALISTS)
    left = campaign.left(campaign.schedule.finals_until, most, places=FINAL_ORDERS * most)
    searched = 0 if campaign.searched_elsewhere else _probed(campaign)
    useful = max(SHORTEST_RUN, searched / 2, campaign.schedule.gate / 2)
    runs = 3 if tune_lr else FINAL_ORDERS
    for orders, most in ((runs, FINALISTS), (runs, FINALISTS - 1), (1, FINALISTS)):
        count = min(most, rivals)
        steps = longest(campaign.schedule.final, left / (orders * (1 + count)), lambda steps: final_cost(task, steps))
        if steps >= useful:
            return count, FINAL_ORDERS if tune_lr else orders, steps
    return rivals, 0, 0


def leader(campaign: Campaign) -> Finals:
    """Returns the search's own leader, for a search that was interrupted before its finals were over."""
    own, rivals = _entrants(campaign)
    if not rivals:
        return Finals(own, None, nobody=_no_rival(campaign, "no other candidate had been tried yet"))
    early = _too_early(campaign)
    return Finals(own, None if early else rivals[0], nobody=early)


def finalists(trials: list[Trial]) -> tuple[Candidate, list[Candidate]]:
    """Returns the owner's candidate and the best of those that beat it in the search."""
    ranked = [trial.candidate for trial in ranking(trials)]
    own = next((candidate for candidate in ranked if candidate.recipe == OWN), None)
    better = ranked[: ranked.index(own)] if own is not None else ranked
    return own or Candidate(OWN), better[:FINALISTS]


def _entrants(campaign: Campaign) -> tuple[Candidate, list[Candidate]]:
    """Returns the owner's candidate and the finalists.

    A learning rate that a proxy did best with may be too high for the model: there the owner's weights have their own.
    """
    own, rivals = finalists(campaign.trials)
    return (Candidate(OWN) if campaign.searched_elsewhere else own), rivals


def _with_other_rates(campaign: Campaign, arms: list[Candidate], steps: int) -> list[Candidate]:
    """Returns the arms at all learning rates to compare: as many neighbours on the grid as the budget allows.

    Of rates that were found on a proxy, and of the owner's own, each arm has both.
    """
    entered = list(arms)
    if campaign.searched_elsewhere:
        found = [finalists(campaign.trials)[0], *(dataclasses.replace(arm, lr_step=0) for arm in arms)]
        entered += [arm for arm in dict.fromkeys(found) if arm not in entered]
    for distance in (1, 2):
        around = [
            dataclasses.replace(arm, lr_step=arm.lr_step + sign * distance)
            for arm in arms
            for sign in (-1, 1)
            if arm.lr_step + sign * distance in LR_STEPS
        ]
        around = [arm for arm in around if arm not in entered]
        cost = (len(entered) + len(around)) * final_cost(campaign.bench.task, steps)
        if campaign.left(campaign.schedule.finals_until, len(entered)) < cost:
            break
        entered += around
    return entered


def _best_lr(runs: _Runs, arm: Candidate) -> Candidate:
    return min((other for other in runs if other.recipe == arm.recipe), key=lambda other: _mean(runs[other]))


def _mean(trials: list[Trial]) -> float:
    return sum(trial.total for trial in trials) / len(trials)


def _decided(arms: list[Candidate], runs: _Runs) -> Finals:
    own, rivals = arms[0], arms[1:]
    if not runs:
        return Finals(own, rivals[0])
    if all(trial.state == "failed" for trial in runs[own]):
        return Finals(own, None, nobody=_own_failed(runs[own][0]))
    champion = min(rivals, key=lambda arm: _mean(runs[arm]))
    if _mean(runs[champion]) >= _mean(runs[own]):
        return Finals(own, None, nobody=NoChampion("on fresh batch orders no finalist beat the model's own weights"))
    return Finals(own, champion, _spread(own, rivals, runs))


def _spread(own: Candidate, rivals: list[Candidate], runs: _Runs) -> Spread:
    """Returns the spread of the finalists' paired differences over the finals' batch orders."""

    def tails(arm: Candidate) -> dict[int, float]:
        scored = {trial.seed: trial.score for trial in runs[arm]}
        return {seed: scores.training for seed, scores in scored.items() if scores and not scores.diverged}

    mine = tails(own)
    paired = [{seed: tail - mine[seed] for seed, tail in tails(arm).items() if seed in mine} for arm in rivals]
    return Spread.within([list(differences.values()) for differences in paired])


def _say_who_goes_on(campaign: Campaign, decided: Finals, runs: _Runs) -> None:
    """Notes at each candidate's last trial why it goes no further."""
    best = decided.champion or decided.own
    entered = {best.recipe, decided.own.recipe, *(arm.recipe for arm in runs)}
    ranked = ranking(campaign.trials)
    places = {trial.candidate.recipe: (place, trial.number) for place, trial in enumerate(ranked, 1)}
    for trial in campaign.trials:
        if trial.stage != "search" or trial.state != "complete":
            continue
        place, number_of_best = places[trial.candidate.recipe]
        if trial.number != number_of_best:
            campaign.drop(trial, f"its recipe did better in run {number_of_best}")
        elif trial.candidate.recipe not in entered:
            campaign.drop(trial, f"number {place} of {len(ranked)} in the search; {_who_went_on(len(entered) - 1)}")
    for arm, trials in runs.items():
        if arm not in (best, decided.own):
            mine, theirs = number(_mean(trials)), number(_mean(runs[best]))
            campaign.drop(trials[-1], f"scored {mine} in the finals, {title(best.recipe)} scored {theirs}")


def _who_went_on(rivals: int) -> str:
    return f"{rivals} went on, beside the model's own weights"


def _no_rival(campaign: Campaign, none_tried: str) -> NoChampion:
    trials = campaign.trials
    if trials and trials[0].state == "failed":
        return _own_failed(trials[0])
    others = [trial for trial in trials if trial.candidate.recipe != OWN]
    if not others and (nobody := _nothing_left(campaign, "")):
        return nobody
    if not others:
        rates = len({trial.candidate.lr_step for trial in trials})
        only = f"only learning rates were tried, {rates} of them on the model's own weights: " if rates > 1 else ""
        return NoChampion(only + none_tried, open=True, longer=2.0)
    broken = [trial for trial in others if trial.state in ("vetoed", "diverged", "failed")]
    if len(broken) == len(others):
        why = f"every one of {len(others)} candidates was vetoed, diverged or failed (the first: {broken[0].reason})"
        return NoChampion(why + _own_diverged(campaign))
    whoever = f"none of {len(others)} candidates beat" if len(others) > 1 else "the one candidate did not beat"
    why = f"{whoever} the model's own weights in the search"
    return _nothing_left(campaign, f"{why}, and ") or NoChampion(why)


def _own_failed(trial: Trial) -> NoChampion:
    return NoChampion(f"the run from the model's own weights failed ({trial.reason})", open=True)


def _own_diverged(campaign: Campaign) -> str:
    """Returns that the owner's weights diverge too, which is no fault of any weights; empty where they do not."""
    own = [trial for trial in campaign.trials if trial.candidate.recipe == OWN]
    if not own or any(trial.state != "diverged" for trial in own):
        return ""
    why = f"; the model's own weights diverge as well ({own[0].reason})"
    task = campaign.bench.task
    if any(parameter.dtype == torch.float16 for parameter in task.model.parameters() if parameter.requires_grad):
        return (
            f"{why}: trained parameters are float16, in which small numbers of {task.optimizer_name} round to zero. "
            "Keep them in float32, and pass autocast=torch.float16"
        )
    return f"{why}: look at the learning rate, the loss and the data"
