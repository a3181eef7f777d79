"""Rounds over candidates that are known: all of them for a few steps, the better half for twice as many, and so on.

So each is looked at before any is tried long. Judged one after the other, as a search judges what it does not know yet,
the first ones pass by chance where all stand still at first, each takes a full probe, and the last are never tried.
Trainings wait for their next round and go on with it where they can be paused; else they begin anew.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..judging.budget import FIRST_RUNG, LONGEST_PROBE
from ..judging.score import Curve
from ..judging.trials import Candidate, Trial
from ..probing.paused import can_be_paused
from ..recipes.recipe import OWN
from .campaign import Campaign
from .costs import DRAW_COST, longest, look_cost
from .finals import FINALISTS
from .prospects import nothing_left

WORTH_A_ROUND = 1.25
"""How many times as long the next round has to be."""

OWN_RATES = 2
"""At how many learning rates at least the owner's weights go on: a few steps tell little of a rate."""


@dataclass
class Rounds:
    """How the first candidates of a search are tried together.

    Attributes:
        campaign: with nothing tried yet.
        ladder: steps at which the rounds end.
        pauses: whether trainings go on in the next round.
        proposes: whether the search proposes others afterwards, up to the ladder's end.
        count: how many candidates take part.
        totals: of each of them by its trial's number, its score at the end of each round it was in.
    """

    campaign: Campaign
    ladder: tuple[int, ...]
    pauses: bool
    proposes: bool
    count: int = 0
    totals: defaultdict[int, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))

    @staticmethod
    def worth_it(campaign: Campaign, candidates: Sequence[Candidate], *, proposes: bool) -> Rounds | None:
        """Returns the rounds of a search; None where too few candidates could be paid for.

        Args:
            campaign: with nothing tried yet.
            candidates: the owner's weights first, at all their learning rates.
            proposes: whether the search proposes others afterwards. Then as many take part as all rounds can be paid
                for, up to a full probe's length, and only where trainings are paused: what begins anew in each round
                would be paid for out of what is proposed.
        """
        bench, schedule = campaign.bench, campaign.schedule
        pauses = campaign.executor.pauses and can_be_paused(bench.task, bench.snapshot, len(candidates), campaign.meter)
        ladder = _doublings(schedule.rungs[-1] if proposes else LONGEST_PROBE) if pauses else schedule.rungs
        rounds = Rounds(campaign, ladder, pauses, proposes)
        owners = sum(one.recipe == OWN for one in candidates)
        counts = range(len(candidates), owners + FINALISTS, -1) if proposes else [len(candidates)]
        whole = ladder if proposes else ladder[:1]
        affordable = (count for count in counts if rounds._whole(owners, count, whole) <= rounds._left(count))
        rounds.count = next(affordable, 0)
        return rounds if rounds.count > owners + FINALISTS and (pauses or not proposes) else None

    def run(self, candidates: Sequence[Candidate], after_round: Callable[[], None] = lambda: None) -> tuple[int, ...]:
        """Runs the rounds; who came to the last one is complete in `campaign.trials`, and all others are pruned.

        Args:
            candidates: those that take part.
            after_round: called when the trials of a round, the last one apart, say who goes on.

        Returns:
            The steps at which rounds ended, for others to be judged there too.
        """
        trials, reached = self._first(candidates), self.ladder[0]
        drawing = {one.number: max(0.0, one.spent - self._cost(0, reached)) for one in trials}
        for twice in self.ladder[1:]:
            owners, others = _ranked(trials, own=True), _ranked(trials, own=False)
            settled = self.campaign.left_over is not None or _owner_failed(trials)
            if settled or not (others or (owners and self.proposes)):
                return self.ladder
            standing, steps = self._standing(owners, others, (reached, twice), drawing)
            if steps < WORTH_A_ROUND * reached or nothing_left(
                self.campaign, self._round(standing, (reached, steps), drawing)
            ):
                break
            trials = self._next(standing, steps, pauses=self.pauses and steps == twice < self.ladder[-1])
            for group in (owners, others):
                self._leave_behind(group, standing, reached)
            after_round()
            reached = steps
            if steps < twice:
                break
        return (*(steps for steps in self.ladder if steps < reached), reached)

    def _standing(
        self, owners: Sequence[Trial], others: Sequence[Trial], reach: tuple[int, int], drawing: Mapping[int, float]
    ) -> tuple[list[Trial], int]:
        """Returns who is in the next round, and to which step it goes.

        The better half goes on for twice as many steps; where that is too much, the finalists do as far as it is not.

        Args:
            owners: the owner's weights at the learning rates that are left, best first.
            others: likewise.
            reach: the steps of the last round, and twice as many.
            drawing: what it cost to set each candidate's weights, calibrations included, by its trial's number.
        """
        reached, twice = reach

        def cost(trials: Sequence[Trial], steps: int) -> float:
            return self._round(trials, (reached, steps), drawing)

        better = [*owners[: _better(len(owners), OWN_RATES)], *others[: _better(len(others), FINALISTS)]]
        if cost(better, twice) <= self._left(len(better)):
            return better, twice
        few = [*owners[:1], *others[:FINALISTS]]
        return few, longest(twice, self._left(len(few)), lambda steps: cost(few, steps))

    def _round(self, trials: Sequence[Trial], reach: tuple[int, int], drawing: Mapping[int, float]) -> float:
        """Returns what it costs to train candidates from the last round's steps to those of the next."""
        if self.pauses:
            return len(trials) * self._cost(*reach)
        return sum(drawing[one.number] + self._cost(0, reach[1]) for one in trials)

    def _leave_behind(self, group: Sequence[Trial], standing: Sequence[Trial], reached: int) -> None:
        """Says why who is not in the next round is not."""
        numbers = {trial.number for trial in standing}
        on = sum(trial.number in numbers for trial in group)
        for place, trial in enumerate(group, 1):
            if trial.number not in numbers:
                why = f"number {place} of {len(group)} at step {reached}, of which {on} went on"
                self.campaign.prune(trial, why)

    def _first(self, candidates: Sequence[Candidate]) -> list[Trial]:
        """Returns the candidates' trials in their order; only the owner's where that failed."""
        campaign, steps = self.campaign, self.ladder[0]
        own, *others = candidates
        found = campaign.run_first(campaign.jobs("search", [(own, "search")], steps, pauses=self.pauses))
        campaign.meter.pace_again()  # it ran alone, which says little of a round's pace
        whole = len(others) * (DRAW_COST - 1) * steps + len(others) * self._cost(0, steps)
        if found[0].state != "failed" and not nothing_left(campaign, whole, self._again):
            entries = [(other, "search") for other in others]  # all are measured against it
            jobs = campaign.jobs("search", entries, steps, pauses=self.pauses, reference=campaign.reference)
            found += campaign.run(jobs)
        return self._noted(found)

    def _again(self, steps: int, enough: Callable[[Curve], bool]) -> Curve | None:
        """Returns the owner's training after more steps than the first round's; the trial stays that of the round.

        Args:
            steps: at most.
            enough: ends it where the steps have doubled.
        """
        if not self.pauses:
            return None
        campaign, own = self.campaign, self.campaign.trials[0]
        rungs = tuple(rung for rung in _doublings(steps) if rung < steps)
        (job,) = campaign.jobs("search", [(own.candidate, "search")], steps, rungs=rungs, goes_on=True)
        try:
            job = dataclasses.replace(job, number=own.number)
            (longer,) = campaign.run([job], lambda job, curve: "it trains" if enough(curve) else "")
        finally:
            campaign.trials[own.number] = own
        return longer.curve

    def _next(self, standing: Sequence[Trial], steps: int, *, pauses: bool) -> list[Trial]:
        """Returns the trials of those that are left, in their order."""
        campaign = self.campaign
        entries = [(trial.candidate, "search") for trial in standing]
        # What was lost begins anew, and looks where the rounds before ended: its curve is as if it had gone on.
        rungs = tuple(rung for rung in self.ladder if rung < steps) if self.pauses else ()
        more = {"pauses": pauses, "goes_on": self.pauses, "rungs": rungs, "reference": campaign.reference}
        jobs = campaign.jobs("search", entries, steps, **more)
        numbered = [dataclasses.replace(job, number=one.number) for job, one in zip(jobs, standing, strict=True)]
        return self._noted(campaign.run_on(numbered))

    def _noted(self, trials: list[Trial]) -> list[Trial]:
        for trial in trials:
            if trial.state == "complete" and trial.curve is not None:
                self.totals[trial.number][trial.curve.steps] = trial.total
        return trials

    def _left(self, jobs: int) -> float:
        return self.campaign.left(self.campaign.schedule.search_until, jobs)

    def _whole(self, owners: int, count: int, ladder: Sequence[int]) -> float:
        """Returns what rounds of so many candidates cost, in steps."""
        others, cost = count - owners, count * (DRAW_COST - 1) * ladder[0]
        for before, steps in itertools.pairwise((0, *ladder)):
            cost += (owners + others) * self._cost(before, steps)
            owners, others = _better(owners, OWN_RATES), _better(others, FINALISTS)
        return cost

    def _cost(self, before: int, steps: int) -> float:
        """Returns what it costs to train one candidate from some step to another one, and evaluate it there."""
        return steps - before + look_cost(self.campaign.bench.task, steps)


def _doublings(top: int) -> tuple[int, ...]:
    """Returns all rungs up to some steps: where trainings go on, a round pays for its new steps only."""
    return tuple(FIRST_RUNG * 2**doublings for doublings in range(int(math.log2(top / FIRST_RUNG)) + 1))


def _ranked(trials: Sequence[Trial], *, own: bool) -> list[Trial]:
    """Returns the trials that are complete, of the owner's weights or of the others, best first."""
    alive = [one for one in trials if one.state == "complete" and (one.candidate.recipe == OWN) == own]
    return sorted(alive, key=lambda one: one.total)


def _owner_failed(trials: Sequence[Trial]) -> bool:
    """Whether the owner's weights could not be trained at any learning rate that was left."""
    states = {one.state for one in trials if one.candidate.recipe == OWN}
    return states == {"failed"}


def _better(alive: int, fewest: int) -> int:
    """Returns how many of so many are the better ones."""
    return min(alive, max(fewest, math.ceil(alive / 2)))
