"""The gate's runs: the champion's exact draw against the owner's exact weights, on fresh batch orders."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from ..judging.budget import evaluated
from ..judging.gate import LOOKS, Arm, Pair, Verdict, judge, planned
from ..judging.score import CEILING, Curve, Reference, tail_loss
from ..judging.trials import Candidate, Job, Trial
from ..own.leaks import check_repeated
from ..plans.plan import Plan
from ..task.batches import rows
from .campaign import Campaign
from .costs import SHORTEST_RUN, evaluations, gate_cost, longest
from .finals import Finals

PLANNED_IN_A_HURRY = 0.75
"""Share of the seconds left that a gate after Ctrl-C plans to take: they are a promise, and machines slow down."""


def duel(campaign: Campaign, entered: Finals, champion: Candidate, plan: Plan) -> Verdict | None:
    """Returns the gate's verdict on the champion; None where the budget is spent.

    Args:
        campaign: with what is left of the budget.
        entered: the finals' outcome.
        champion: fixed before.
        plan: its very draw.

    Raises:
        GateFailure: one of its runs raised.
        StepError: a training that its owner wrote does not repeat itself, so that nothing was compared.
    """
    task = campaign.bench.task
    hurried = PLANNED_IN_A_HURRY if campaign.meter.hurried else 1.0
    left = campaign.left_for_pairs(min(LOOKS)) * hurried
    most = int(min(campaign.schedule.gate, campaign.training_steps or math.inf))
    steps = longest(most, left / (2 * min(LOOKS)), lambda steps: gate_cost(task, steps))
    if steps < SHORTEST_RUN:
        return None
    pair = 2 * gate_cost(task, steps)
    duels: list[tuple[Curve, Curve]] = []
    verdict = None
    for look, level in _looks(campaign, pair / hurried).items():
        new = look - len(duels)
        if duels and campaign.left_for_pairs(new) < new * pair:
            break  # the machine has become slower than it was when the looks were planned
        try:
            duels += _duels(campaign, entered.own, champion, plan, range(len(duels), look), steps)
        except _OutOfTime:
            break
        verdict = judge(_pairs(campaign, duels, steps), level, entered.spread, campaign.length_after(steps))
        if verdict.state != "undecided":
            break
    if verdict is not None and verdict.state == "win":
        _check_again(campaign, steps)
    if verdict is not None:
        campaign.drop(campaign.trials[-1], f"the gate's verdict: {verdict.why}")
    return verdict


def _check_again(campaign: Campaign, steps: int) -> None:
    """Runs the first run of a gate again, where its owner wrote the training: candidates may have left it something.

    It has a share of a gate's time at the most, and none of its steps: a search by `loss` has nothing of the kind.
    """
    own, bench = campaign.bench.task.own, campaign.bench
    first = next(trial for trial in campaign.trials if trial.stage == "gate")
    if own is None or first.curve is None or campaign.meter.hurried:
        return
    seen = first.curve

    def run() -> Curve:
        job = Job(first.number, "gate", first.candidate, first.seed, min(steps, seen.steps))
        outcome = bench.perform(job, lambda curve: True)
        if outcome.curve is None:
            raise GateFailure(outcome.reason)
        return outcome.curve

    check_repeated(own, bench.task.model, seen.losses, run)


def _looks(campaign: Campaign, pair: float) -> dict[int, float]:
    """Returns the looks, with their levels, of the most pairs that the budget pays for; of the fewest in any case.

    Args:
        campaign: with what is left of it.
        pair: cost of one, in steps.
    """

    def share(looks: Iterable[int]) -> float:
        """Returns the share of what is left that they take: a look of fewer jobs than there are workers costs more."""
        return sum(
            (now - before) * pair / campaign.left_for_pairs(now - before) for before, now in pairwise((0, *looks))
        )

    plans = (planned(pairs) for pairs in range(max(LOOKS), min(LOOKS), -1))
    return next((plan for plan in plans if share(plan) <= 1), planned(min(LOOKS)))


class _OutOfTime(BaseException):
    """The seconds that were promised after Ctrl-C are over; like that itself it ends what runs, and is no failure."""


class GateFailure(Exception):
    """A run of the gate raised; the message says what."""


def _duels(
    campaign: Campaign, own: Candidate, champion: Candidate, plan: Plan, orders: range, steps: int
) -> list[tuple[Curve, Curve]]:
    """Returns the trainings of the champion and of the owner's weights on some fresh batch orders.

    Raises:
        GateFailure: out of memory, or whatever else went wrong in a run.
    """
    early, late = evaluations(steps)
    rungs = tuple(int(part * steps) for part in (*early, *late))
    entries = [(arm, f"gate {order}") for order in orders for arm in (own, champion)]
    jobs = campaign.jobs("gate", entries, steps, rungs=rungs)
    jobs[1::2] = [dataclasses.replace(job, plan=plan) for job in jobs[1::2]]  # the owner's weights are what they are
    curves = [_curve(trial) for trial in campaign.run(jobs, functools.partial(_in_time, campaign))]
    return list(zip(curves[1::2], curves[::2], strict=True))


def _pairs(campaign: Campaign, duels: Sequence[tuple[Curve, Curve]], steps: int) -> list[Pair]:
    """Returns what the gate looks at of its runs, of earlier looks too: what they are measured against may change."""
    reference = campaign.reference or Reference.of(campaign.bench.task.reference, duels[0][1].losses)
    held_back = evaluated(campaign.bench.task.gate_eval, steps)
    early = len(evaluations(steps)[0])
    return [pair_of(*arms, reference, early, [rows(group) for group in held_back]) for arms in duels]


def _in_time(campaign: Campaign, job: Job, curve: Curve) -> str:
    """Ends no run by itself.

    Raises:
        _OutOfTime: what was promised after Ctrl-C is over.
    """
    if campaign.meter.seconds > campaign.meter.deadline:
        raise _OutOfTime
    return ""


def _curve(trial: Trial) -> Curve:
    if trial.curve is None:
        raise GateFailure(trial.reason)
    return trial.curve


def pair_of(champion: Curve, own: Curve, reference: Reference, early_ones: int, rows: Sequence[int]) -> Pair:
    """Returns what the gate looks at of two trainings on the same batches.

    Args:
        champion: its training.
        own: that of the owner's weights.
        reference: of the task.
        early_ones: evaluations around the half of each; the others are towards the end.
        rows: in each group of held-back rows.
    """
    ended = own.diverged_at is None and champion.diverged_at is None
    return Pair(
        champion=_arm(champion, reference, early_ones, ended),
        own=_arm(own, reference, early_ones, ended),
        steps=own.steps,
        rows=tuple(rows) if ended else (),
        ratios=reference.ratios,
        unit=reference.scale,
        guess=reference.guess,
    )


def _arm(curve: Curve, reference: Reference, early_ones: int, ended: bool) -> Arm:
    """Returns what one arm showed.

    Args:
        curve: of its training.
        reference: of the task.
        early_ones: evaluations around its half; the others are towards its end.
        ended: whether both arms came to their end: else their groups of rows are those of different steps.
    """
    tail = curve.losses[-math.ceil(curve.steps / 4) :]

    def held_back(part: slice) -> float | None:
        if curve.diverged_at is not None:
            return math.log(CEILING)
        seen = [reference.u(loss) for _, loss in curve.held_back[part]]
        return sum(seen) / len(seen) if seen else None

    return Arm(
        end=tail_loss(curve, reference),
        halfway=tail_loss(dataclasses.replace(curve, losses=curve.losses[: curve.steps // 2]), reference),
        loss=sum(tail) / len(tail) if tail else math.nan,
        held_back=held_back(slice(early_ones, None)),
        held_back_halfway=held_back(slice(None, early_ones)),
        groups=tuple(map(reference.relative, curve.by_batch)) if ended else (),
    )
