"""The last stages of the funnel: the best candidates against the owner's weights, on fresh batch orders."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from .budget import FORWARD_COST, evaluated
from .campaign import Campaign
from .gate import LEVELS, LOOKS, Pair, Spread, Verdict, judge
from .plan import Plan
from .records import OWN, Candidate, Record, ranking
from .score import CEILING, Curve, Reference, tail_loss
from .space import LR_STEPS
from .text import number

FINALISTS = 3
FINAL_ORDERS = 2
EARLY, LATE = (0.4, 0.5), (0.8, 0.9)
"""Where a gate run is evaluated besides its end, halfway and towards it: where the held-back loss is going, from more
than one iterate's, which is mostly the noise of its last steps."""
ENOUGH_TO_WANDER = 32
"""Steps below which there is one evaluation halfway and one at the end: one step moves little there, and costs less
than to look at it."""
EARLY_LEAD, EARLY_STEPS = 0.05, 16
"""The lead, in nats, that a candidate needs where probes have fewer than so many steps: the gate costs as much as the
search there. Of 32 smaller leads at eight steps four turned out to do harm and the median gained 6 %; of 85 larger ones
six did, and the median gained 41 % (docs/scoring.md)."""
SHORTEST_RUN = 8
"""Steps below which a run on a fresh batch order tells nothing."""

DRAW_COST = 1.05
"""Cost of a run in its own steps, without evaluations: a twentieth more for drawing the weights."""


@dataclass(frozen=True, slots=True)
class Finals:
    """Who goes to the gate.

    Attributes:
        own: the owner's weights at the best learning rate found for them.
        champion: the candidate that beats them; None where there is none.
        spread: of the finalists' paired differences, for the gate to pool.
        why: there is no champion, in words.
    """

    own: Candidate
    champion: Candidate | None
    spread: Spread = field(default_factory=Spread)
    why: str = ""


_Runs = dict[Candidate, list[Record]]


def finals(campaign: Campaign, *, tune_lr: bool) -> Finals:
    """Returns the champion after running the search's best again, next to the owner's weights.

    Args:
        campaign: with the records of the search.
        tune_lr: whether each finalist's neighbours on the learning-rate grid are tried too.
    """
    own, rivals = finalists(campaign.records)
    if not rivals:
        return Finals(own, None, why=_why_no_rival(campaign.records))
    if why := _too_early(campaign):
        decided = Finals(own, None, why=why)
        _say_who_goes_on(campaign, decided, {})
        return decided
    runs: _Runs = {}
    count, orders, steps = _layout(campaign, len(rivals), tune_lr)
    arms = [own, *rivals[:count]]
    for order in range(orders):
        entered = _with_neighbours(campaign, arms, steps) if tune_lr and order == 0 else arms
        jobs = campaign.jobs("final", [(arm, f"final {order}") for arm in entered], steps)
        for arm, record in zip(entered, campaign.run(jobs), strict=True):
            runs.setdefault(arm, []).append(record)
        if order == 0:
            arms = [_best_lr(runs, arm) for arm in arms]
        if campaign.left(campaign.schedule.finals_until, len(arms)) < len(arms) * _final_cost(campaign, steps):
            break
    decided = _decided(arms, runs)
    _say_who_goes_on(campaign, decided, runs)
    return decided


def _too_early(campaign: Campaign) -> str:
    """Returns why the search's leader is not worth a gate where all probes were very short; empty where it is."""
    (best, *others), steps = ranking(campaign.records), _probed(campaign)
    own = next((record for record in others if record.candidate.recipe == OWN), None)
    if steps >= EARLY_STEPS or own is None or (lead := own.total - best.total) >= EARLY_LEAD:
        return ""
    return (
        f"{best.candidate.recipe} led by {lead:.2g} in score after {steps} steps, and less than {EARLY_LEAD} so early "
        "tells little; twice the budget looks at more steps"
    )


def _probed(campaign: Campaign) -> int:
    """Returns the steps after which the search has ranked its candidates."""
    return max((record.curve.steps for record in ranking(campaign.records) if record.curve is not None), default=0)


def _final_cost(campaign: Campaign, steps: int) -> float:
    """Returns what a final run of some steps costs, evaluation included, in steps."""
    return DRAW_COST * steps + look_cost(campaign, steps)


def look_cost(campaign: Campaign, step: int) -> float:
    """Returns what an evaluation at some step of the search or the finals costs, in steps."""
    return len(evaluated(campaign.bench.task.probe_eval, step)) * FORWARD_COST


def _gate_cost(campaign: Campaign, steps: int) -> float:
    """Returns what a gate run of some steps costs, evaluations included, in steps."""
    early, late = _evaluations(steps)
    batches = len(evaluated(campaign.bench.task.gate_eval, steps))
    return DRAW_COST * steps + (len(early) + len(late) + 1) * batches * FORWARD_COST


def longest(most: int, left: float, cost: Callable[[int], float]) -> int:
    """Returns the most steps, `most` at the most, of a run that what is left pays for; 0 where it pays for none."""
    return next((steps for steps in range(most, 0, -1) if cost(steps) <= left), 0)


def _evaluations(steps: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the shares of a gate run's steps at which it is evaluated before its end: around its half, and later."""
    return (EARLY, LATE) if steps >= ENOUGH_TO_WANDER else (EARLY[-1:], ())


def _layout(campaign: Campaign, rivals: int, tune_lr: bool) -> tuple[int, int, int]:
    """Returns how many finalists run on how many batch orders for how many steps; (rivals, 0, 0) for no finals.

    Two orders tell the noise as well, which the gate pools; with learning rates to compare, an arm and its two
    neighbours come first. Runs below half of the search's or the gate's length would rank worse than the search did.
    """
    left = campaign.left(campaign.schedule.finals_until, 1 + min(rivals, FINALISTS))
    useful = max(SHORTEST_RUN, _probed(campaign) / 2, campaign.schedule.gate / 2)
    runs = 3 if tune_lr else FINAL_ORDERS
    for orders, most in ((runs, FINALISTS), (runs, FINALISTS - 1), (1, FINALISTS)):
        count = min(most, rivals)
        steps = longest(
            campaign.schedule.final, left / (orders * (1 + count)), lambda steps: _final_cost(campaign, steps)
        )
        if steps >= useful:
            return count, FINAL_ORDERS if tune_lr else orders, steps
    return rivals, 0, 0


def leader(campaign: Campaign) -> Finals:
    """Returns the search's own leader, for a search that was interrupted before its finals were over."""
    own, rivals = finalists(campaign.records)
    if not rivals:
        others = any(record.candidate.recipe != OWN for record in campaign.records)
        why = _why_no_rival(campaign.records) if others else "no other candidate had been tried yet"
        return Finals(own, None, why=why)
    why = _too_early(campaign)
    return Finals(own, None if why else rivals[0], why=why)


def finalists(records: list[Record]) -> tuple[Candidate, list[Candidate]]:
    """Returns the owner's candidate and the best of those that beat it in the search."""
    ranked = [record.candidate for record in ranking(records)]
    own = next((candidate for candidate in ranked if candidate.recipe == OWN), None)
    better = ranked[: ranked.index(own)] if own is not None else ranked
    return own or Candidate(OWN), better[:FINALISTS]


def _with_neighbours(campaign: Campaign, arms: list[Candidate], steps: int) -> list[Candidate]:
    """Returns the arms, and as many of their neighbours on the learning-rate grid as the budget allows."""
    entered = list(arms)
    for distance in (1, 2):
        around = [
            dataclasses.replace(arm, lr_step=arm.lr_step + sign * distance)
            for arm in arms
            for sign in (-1, 1)
            if arm.lr_step + sign * distance in LR_STEPS
        ]
        cost = (len(entered) + len(around)) * _final_cost(campaign, steps)
        if campaign.left(campaign.schedule.finals_until, len(entered)) < cost:
            break
        entered += around
    return entered


def _best_lr(runs: _Runs, arm: Candidate) -> Candidate:
    return min((other for other in runs if other.recipe == arm.recipe), key=lambda other: _mean(runs[other]))


def _mean(records: list[Record]) -> float:
    return sum(record.total for record in records) / len(records)


def _decided(arms: list[Candidate], runs: _Runs) -> Finals:
    own, rivals = arms[0], arms[1:]
    if not runs:
        return Finals(own, rivals[0])
    champion = min(rivals, key=lambda arm: _mean(runs[arm]))
    if _mean(runs[champion]) >= _mean(runs[own]):
        return Finals(own, None, why="on fresh batch orders no finalist beat the model's own weights")
    return Finals(own, champion, _spread(own, rivals, runs))


def _spread(own: Candidate, rivals: list[Candidate], runs: _Runs) -> Spread:
    """Returns the spread of the finalists' paired differences over the finals' batch orders."""

    def tails(arm: Candidate) -> dict[int, float]:
        scored = {record.seed: record.score for record in runs[arm]}
        return {seed: scores.training for seed, scores in scored.items() if scores and not scores.diverged}

    mine = tails(own)
    paired = [{seed: tail - mine[seed] for seed, tail in tails(arm).items() if seed in mine} for arm in rivals]
    return Spread.within([list(differences.values()) for differences in paired])


def _say_who_goes_on(campaign: Campaign, decided: Finals, runs: _Runs) -> None:
    """Notes at each candidate's last record why it goes no further."""
    best = decided.champion or decided.own
    entered = {best.recipe, decided.own.recipe, *(arm.recipe for arm in runs)}
    ranked = ranking(campaign.records)
    places = {record.candidate.recipe: (place, record.number) for place, record in enumerate(ranked, 1)}
    for record in campaign.records:
        if record.stage != "search" or record.state != "complete":
            continue
        place, number_of_best = places[record.candidate.recipe]
        if record.number != number_of_best:
            campaign.drop(record, f"its recipe did better in run {number_of_best}")
        elif record.candidate.recipe not in entered:
            campaign.drop(record, f"number {place} of {len(ranked)} in the search; {_who_went_on(len(entered) - 1)}")
    for arm, records in runs.items():
        if arm not in (best, decided.own):
            mine, theirs = number(_mean(records)), number(_mean(runs[best]))
            campaign.drop(records[-1], f"scored {mine} in the finals, {best.recipe.key} scored {theirs}")


def _who_went_on(rivals: int) -> str:
    return f"{rivals} went on, beside the model's own weights"


def _why_no_rival(records: list[Record]) -> str:
    if records and records[0].state == "failed":
        return f"training the model's own weights failed ({records[0].reason})"
    others = [record for record in records if record.candidate.recipe != OWN]
    if not others:
        return "the budget ended before another candidate could be tried"
    broken = [record for record in others if record.state in ("vetoed", "diverged", "failed")]
    if len(broken) == len(others):
        return f"every one of {len(others)} candidates was vetoed, diverged or failed (the first: {broken[0].reason})"
    return f"none of {len(others)} candidates beat the model's own weights in the search"


def duel(campaign: Campaign, entered: Finals, champion: Candidate, plan: Plan) -> Verdict | None:
    """Returns the gate's verdict on the champion; None where the budget is spent.

    Args:
        campaign: with what is left of the budget.
        entered: the finals' outcome.
        champion: fixed before.
        plan: its very draw.

    Raises:
        GateFailure: one of its runs raised.
    """
    # A stack holds one batch order's pair; worker processes run a whole look.
    together = 2 if campaign.executor.name == "stacked" else 2 * min(LOOKS)
    left = campaign.left(1.0, together)
    steps = longest(campaign.schedule.gate, left / (2 * min(LOOKS)), lambda steps: _gate_cost(campaign, steps))
    if steps < SHORTEST_RUN:
        return None
    pair = 2 * _gate_cost(campaign, steps)
    planned = [look for look in LOOKS if look * pair <= left] or [min(LOOKS)]
    pairs: list[Pair] = []
    verdict = None
    for look, level in zip(planned, LEVELS[len(planned)], strict=True):
        if pairs and campaign.left(1.0, together) < (look - len(pairs)) * pair:
            break  # the machine has become slower than it was when the looks were planned
        pairs += _pairs(campaign, entered.own, champion, plan, range(len(pairs), look), steps)
        verdict = judge(pairs, level, entered.spread)
        if verdict.state != "undecided":
            break
    if verdict is not None:
        campaign.drop(campaign.records[-1], f"the gate's verdict: {verdict.why}")
    return verdict


class GateFailure(Exception):
    """A run of the gate raised; the message says what."""


def _pairs(
    campaign: Campaign, own: Candidate, champion: Candidate, plan: Plan, orders: range, steps: int
) -> list[Pair]:
    """Returns the pairs on some fresh batch orders.

    Raises:
        GateFailure: out of memory, or whatever else went wrong in a run.
    """
    early, late = _evaluations(steps)
    rungs = tuple(int(part * steps) for part in (*early, *late))
    entries = [(arm, f"gate {order}") for order in orders for arm in (own, champion)]
    jobs = campaign.jobs("gate", entries, steps, rungs=rungs)
    jobs[1::2] = [dataclasses.replace(job, plan=plan) for job in jobs[1::2]]  # the owner's weights are what they are
    records = campaign.run(jobs)
    curves = [_curve(record) for record in records]
    reference = campaign.reference or Reference.of(campaign.bench.task.reference, curves[0].losses)
    duels = zip(curves[1::2], curves[::2], strict=True)
    return [_pair(champions, owners, reference, len(early)) for champions, owners in duels]


def _curve(record: Record) -> Curve:
    if record.curve is None:
        raise GateFailure(record.reason)
    return record.curve


def _pair(champion: Curve, own: Curve, reference: Reference, early_ones: int) -> Pair:
    def halfway(curve: Curve) -> float:
        return tail_loss(dataclasses.replace(curve, losses=curve.losses[: curve.steps // 2]), reference)

    def held_back(curve: Curve, part: slice) -> float:
        seen = [reference.u(loss) for _, loss in curve.held_back[part]]
        return sum(seen) / len(seen) if seen and curve.diverged_at is None else math.log(CEILING)

    early, late = slice(None, early_ones), slice(early_ones, None)
    seen = bool(own.held_back or champion.held_back)
    both_ended = own.diverged_at is None and champion.diverged_at is None
    return Pair(
        training=tail_loss(champion, reference) - tail_loss(own, reference),
        halfway=halfway(champion) - halfway(own),
        held_back=held_back(champion, late) - held_back(own, late) if seen else None,
        held_back_halfway=held_back(champion, early) - held_back(own, early) if seen else None,
        by_batch=tuple(
            reference.u(one) - reference.u(other) for one, other in zip(champion.by_batch, own.by_batch, strict=True)
        )
        if both_ended
        else (),
        own=tail_loss(own, reference),
        steps=own.steps,
    )
