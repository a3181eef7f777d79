"""The gate's runs: the champion's exact draw against the owner's exact weights, on fresh batch orders."""

from __future__ import annotations

import dataclasses
import math

from ..judging.gate import LEVELS, LOOKS, Pair, Verdict, judge
from ..judging.score import CEILING, Curve, Reference, tail_loss
from ..judging.trials import Candidate, Trial
from ..plans.plan import Plan
from .campaign import Campaign
from .costs import SHORTEST_RUN, evaluations, gate_cost, longest
from .finals import Finals


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
    steps = longest(campaign.schedule.gate, left / (2 * min(LOOKS)), lambda steps: gate_cost(campaign, steps))
    if steps < SHORTEST_RUN:
        return None
    pair = 2 * gate_cost(campaign, steps)
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
        campaign.drop(campaign.trials[-1], f"the gate's verdict: {verdict.why}")
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
    early, late = evaluations(steps)
    rungs = tuple(int(part * steps) for part in (*early, *late))
    entries = [(arm, f"gate {order}") for order in orders for arm in (own, champion)]
    jobs = campaign.jobs("gate", entries, steps, rungs=rungs)
    jobs[1::2] = [dataclasses.replace(job, plan=plan) for job in jobs[1::2]]  # the owner's weights are what they are
    trials = campaign.run(jobs)
    curves = [_curve(trial) for trial in trials]
    reference = campaign.reference or Reference.of(campaign.bench.task.reference, curves[0].losses)
    duels = zip(curves[1::2], curves[::2], strict=True)
    return [_pair(champions, owners, reference, len(early)) for champions, owners in duels]


def _curve(trial: Trial) -> Curve:
    if trial.curve is None:
        raise GateFailure(trial.reason)
    return trial.curve


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
