"""The exploring half of a search: Optuna proposes candidates, and their probes are halved at rungs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import optuna
from optuna.trial import TrialState

from ..judging.budget import BATCH
from ..judging.halving import Halving
from ..judging.score import Curve
from ..judging.trials import Candidate, Job, Trial
from ..recipes.recipe import OWN, Recipe
from ..recipes.space import LR_STEPS, Space
from ..seeds import seed_of_use
from ..task.snapshot import uninterrupted
from .campaign import Campaign
from .distinct import Distinct
from .finals import finalists
from .prospects import nothing_left
from .rounds import Rounds
from .sampling import distribution_of

NEAREST_FIRST = sorted(LR_STEPS, key=abs)

MOST_FAILURES = 10
"""Trials that fail one after the other before the search gives up."""

MOST_REPEATS = 64
"""Proposals one after the other that are tried already before a space counts as exhausted."""


def explore(campaign: Campaign, space: Space, study: optuna.Study, write: Callable[[], None] = lambda: None) -> None:
    """Tries the owner's weights, the well-known recipes, then what TPE proposes, while the budget's share lasts.

    Args:
        campaign: with nothing tried yet.
        space: what to choose from.
        study: a new one, that proposes and is told.
        write: called when it was told something, so that it can be kept.
    """
    lr_steps = NEAREST_FIRST if space.has("lr_step") else [0]
    known = [Candidate(OWN, lr_step) for lr_step in lr_steps]
    known += [Candidate(one, lr_step) for lr_step in (lr_steps if space.listed else [0]) for one in space.opening]
    distinct = Distinct(campaign.bench.graph)
    known = _without_doubles(known, distinct, campaign.alike)
    limit = min(float(campaign.meter.budget.trials or math.inf), len(known) if space.listed else math.inf)
    known = known[: int(min(limit, len(known)))]
    for candidate in known:
        study.enqueue_trial(space.encode(candidate.recipe, candidate.lr_step))
    halving = Halving(campaign.schedule.rungs)
    # Not where learning rates are listed too: one recipe at all of them would fill the last round alone.
    together = not (space.listed and len(lr_steps) > 1)
    rounds = Rounds.worth_it(campaign, known, proposes=not space.listed) if together else None
    if rounds is not None:
        halving = Halving(_try_known(campaign, space, study, rounds, write))
        if not campaign.settled:
            halving.recall(rounds.totals)
        halving.learn(campaign.trials)
        if space.listed:
            campaign.ended = _all_tried(campaign, limit)
        if space.listed or campaign.left_over is not None or _hopeless(campaign.trials):
            return
    while count := int(min(limit - len(campaign.trials), _affordable(campaign, halving.rungs[-1]))):
        if campaign.trials and nothing_left(campaign, count * _expected(campaign)):
            return
        # A sampler of its own for each batch: what it proposes then depends on the trials before, and on nothing else.
        study.sampler = optuna.samplers.TPESampler(seed=seed_of_use(campaign.bench.seed, f"tpe {len(campaign.trials)}"))
        settled = campaign.settled
        trials = _try_batch(campaign, space, study, halving, distinct, count, write)
        if campaign.settled != settled:
            halving, trials = Halving(halving.rungs), campaign.trials  # what it knew was measured otherwise
        if not trials:
            campaign.ended = "all that differ on this model were tried"
            return
        halving.learn(trials)
        if count == len(campaign.trials):
            campaign.meter.pace_again()  # the owner's trial ran alone, which says little of a batch's pace
        if _hopeless(campaign.trials):
            return
        campaign.ended = _all_tried(campaign, limit)


def _all_tried(campaign: Campaign, limit: float) -> str:
    """Returns why there is nothing more to try, in words; empty where there is."""
    if len(campaign.trials) < limit:
        return ""
    if limit == campaign.meter.budget.trials:
        return f"the {limit:.0f} trials that it allows were run"
    return "every listed recipe was tried"


def _without_doubles(known: list[Candidate], distinct: Distinct, alike: dict[Recipe, Recipe]) -> list[Candidate]:
    """Returns the candidates that give weights of their own, and notes of all others which one stands for them."""
    found = []
    for candidate in known:
        first = distinct.standing_for(candidate)
        if first == candidate:
            found.append(candidate)
        elif first.recipe != candidate.recipe:
            alike[candidate.recipe] = first.recipe
    return found


def _try_known(
    campaign: Campaign, space: Space, study: optuna.Study, rounds: Rounds, write: Callable[[], None]
) -> tuple[int, ...]:
    """Tries the study's first trials in rounds; returns the steps at which these ended."""
    distributions = {dimension.name: distribution_of(dimension) for dimension in space.dimensions}
    asked: list[optuna.Trial] = []
    reported: set[tuple[int, int]] = set()
    told: set[int] = set()

    def tell(*, all_: bool) -> None:
        for proposal, trial in itertools.zip_longest(asked, campaign.trials):
            for steps, total in rounds.totals[proposal.number].items():
                if (proposal.number, steps) not in reported:
                    reported.add((proposal.number, steps))
                    proposal.report(total, step=steps)
            # One that is complete may go on; any other has ended.
            if proposal.number not in told and (all_ or (trial is not None and trial.state != "complete")):
                told.add(proposal.number)
                _tell(study, proposal, trial, spared=campaign.left_over is not None)

    def after_round() -> None:
        tell(all_=False)
        write()

    try:
        while len(asked) < rounds.count:
            asked.append(study.ask(distributions))
        return rounds.run([Candidate(*space.decode(proposal.params)) for proposal in asked], after_round)
    finally:  # also after Ctrl-C: no trial is left running in the storage
        with uninterrupted():
            tell(all_=True)
            write()


def _affordable(campaign: Campaign, top: int) -> int:
    """Returns how many trials the next batch has; 0 where the search's share cannot pay for another full probe.

    What has no time to reach the last rung cannot catch the leader. As long as nothing beats the owner's weights, the
    search uses the finals' share too.

    Args:
        campaign: with what is left of the budget.
        top: steps of a full probe.
    """
    trials, schedule = campaign.trials, campaign.schedule
    if not trials:
        return 1  # the owner's weights alone: they set the reference that all others are measured against
    _, rivals = finalists(trials)
    left = campaign.meter.left(schedule.search_until if rivals else schedule.finals_until)
    full = max(trials[0].spent, float(top))
    if left < full:
        return 0
    # Batches of one size are what makes a search repeatable; neither stacks nor seconds are.
    free = campaign.executor.name == "stacked" or campaign.meter.budget.seconds is not None
    together = max(BATCH, campaign.executor.concurrency if free else 0)
    # Most of a batch is pruned early; that half of it is not must not overrun what is left.
    return int(max(1.0, min(together, left / _expected(campaign), 2 * left / full)))


def _expected(campaign: Campaign) -> float:
    """Returns what a further trial costs, in steps, by those so far."""
    return sum(trial.spent for trial in campaign.trials) / len(campaign.trials)


def _hopeless(trials: list[Trial]) -> bool:
    """Whether the owner's own trial failed, or as many trials in a row as leave no hope for the next."""
    failed = [trial.state == "failed" for trial in trials]
    return failed[0] or (len(failed) >= MOST_FAILURES and all(failed[-MOST_FAILURES:]))


def _try_batch(
    campaign: Campaign,
    space: Space,
    study: optuna.Study,
    halving: Halving,
    distinct: Distinct,
    count: int,
    write: Callable[[], None],
) -> list[Trial]:
    """Runs the study's next trials and tells their results in the order of their numbers; none where all are tried."""
    first, rungs = len(campaign.trials), halving.rungs
    asked: list[optuna.Trial] = []
    told = 0

    def decide(job: Job, curve: Curve) -> str:
        total = campaign.score(curve, rungs[-1]).total
        asked[job.number - first].report(total, step=curve.steps)
        why = halving.judge(job.number, curve.steps, total)
        return why if job.candidate.recipe != OWN else ""

    def tell(trial: Trial) -> None:
        nonlocal told
        told += 1
        _tell(study, asked[told - 1], trial)
        write()

    try:
        entries = []
        for proposal, candidate in _proposals(campaign, space, study, distinct, count):
            asked.append(proposal)
            entries.append((candidate, "search"))
        if not entries:
            return []
        jobs = campaign.jobs("search", entries, rungs[-1], rungs=rungs, reference=campaign.reference)
        # The first one is told when it is certain: where its worker dies it is run again.
        return campaign.run(jobs, decide, tell) if first else campaign.run_first(jobs, decide)
    finally:  # also after Ctrl-C: no trial is left running in the storage
        with uninterrupted():
            for proposal, trial in itertools.zip_longest(asked[told:], campaign.trials[first + told :]):
                _tell(study, proposal, trial)
            write()


def _proposals(
    campaign: Campaign, space: Space, study: optuna.Study, distinct: Distinct, count: int
) -> Iterator[tuple[optuna.Trial, Candidate]]:
    """Yields up to `count` of the study's next trials with their candidates, none of which has been tried.

    A proposal that is another's double is told what that came to; the proposer learns it at no cost.
    """
    distributions = {dimension.name: distribution_of(dimension) for dimension in space.dimensions}
    tried = {trial.candidate: trial for trial in campaign.trials}
    fresh, repeats = set[Candidate](), 0
    while len(fresh) < count and repeats < MOST_REPEATS:
        proposal = study.ask(distributions)
        candidate = Candidate(*space.decode(proposal.params))
        stands = distinct.standing_for(candidate)
        if stands == candidate and candidate not in tried and candidate not in fresh:
            fresh.add(candidate)
            repeats = 0
            yield proposal, candidate
            continue
        repeats += 1
        proposal.set_user_attr("reason", f"gives the same weights as {stands.recipe.key}")
        _tell(study, proposal, tried.get(stands))


def _tell(study: optuna.Study, proposal: optuna.Trial, trial: Trial | None, *, spared: bool = False) -> None:
    if trial is None:
        if spared:
            proposal.set_user_attr("reason", "not run: nothing was left to find that is worth its cost")
        study.tell(proposal, state=TrialState.PRUNED if spared else TrialState.FAIL)
        return
    proposal.set_user_attr("recipe", trial.candidate.recipe.key)
    if trial.reason:
        proposal.set_user_attr("reason", trial.reason)
    if trial.state == "failed":
        study.tell(proposal, state=TrialState.FAIL)
    elif trial.state in ("pruned", "vetoed") or trial.score is None:
        study.tell(proposal, state=TrialState.PRUNED)
    else:
        study.tell(proposal, trial.score.total)
