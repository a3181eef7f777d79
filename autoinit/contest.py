"""The finals and the gate: the best candidates against the owner's weights, on fresh batch orders."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

from .budget import FORWARD_COST
from .gate import LEVELS, LOOKS, Pair, Spread, Verdict, judge
from .plan import Plan
from .probe import probe
from .score import CEILING, Curve, tail_loss
from .space import LR_RATIO, LR_STEPS
from .trial import OWN, Bench, Candidate, Record, described, ranking, stream

FINALISTS = 3
FINAL_ORDERS = 2
EARLY, LATE = (0.4, 0.5), (0.8, 0.9)
"""Where a gate run is evaluated besides its end, halfway and towards it: where the held-back loss is going, from more
than one iterate's, which is mostly the noise of its last steps."""
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


def finals(bench: Bench, *, tune_lr: bool) -> Finals:
    """Returns the champion after running the search's best again, next to the owner's weights.

    Args:
        bench: with the records of the search.
        tune_lr: whether each finalist's neighbours on the learning-rate grid are tried too.
    """
    own, rivals = finalists(bench.records)
    if not rivals:
        return Finals(own, None, why=_why_no_rival(bench.records))
    runs: dict[Candidate, list[Record]] = {}
    count, orders, steps = _layout(bench, len(rivals), tune_lr)
    arms = [own, *rivals[:count]]
    for order in range(orders):
        entered = _with_neighbours(bench, arms, steps) if tune_lr and order == 0 else arms
        for arm in entered:
            seed = stream(bench.seed, f"final {order}")
            runs.setdefault(arm, []).append(bench.run("final", arm, seed=seed, steps=steps))
        if order == 0:
            arms = [_best_lr(runs, arm) for arm in arms]
        if bench.meter.left(bench.schedule.finals_until) < len(arms) * _final_cost(bench, steps):
            break
    return _decided(arms, runs)


def _final_cost(bench: Bench, steps: int) -> float:
    """Returns what a final run of some steps costs, evaluation included, in steps."""
    return DRAW_COST * steps + len(bench.task.probe_eval) * FORWARD_COST


def _gate_cost(bench: Bench, steps: int) -> float:
    """Returns what a gate run of some steps costs, evaluations included, in steps."""
    return DRAW_COST * steps + (2 + len(EARLY) + len(LATE)) * len(bench.task.gate_eval) * FORWARD_COST


def _layout(bench: Bench, rivals: int, tune_lr: bool) -> tuple[int, int, int]:
    """Returns how many finalists run on how many batch orders for how many steps; (rivals, 0, 0) for no finals.

    Two orders tell the noise as well, which the gate pools; with learning rates to compare, an arm and its two
    neighbours come first. Runs below half of the search's or the gate's length would rank worse than the search did.
    """
    left = bench.meter.left(bench.schedule.finals_until)
    evaluation = _final_cost(bench, 0)
    useful = max(SHORTEST_RUN, bench.schedule.rungs[-1] / 2, bench.schedule.gate / 2)
    runs = 3 if tune_lr else FINAL_ORDERS
    for orders, most in ((runs, FINALISTS), (runs, FINALISTS - 1), (1, FINALISTS)):
        count = min(most, rivals)
        steps = min(bench.schedule.final, (left / (orders * (1 + count)) - evaluation) / DRAW_COST)
        if steps >= useful:
            return count, FINAL_ORDERS if tune_lr else orders, int(steps)
    return rivals, 0, 0


def leader(records: list[Record]) -> Finals:
    """Returns the search's own leader, for a search that was interrupted before its finals were over."""
    own, rivals = finalists(records)
    if not rivals:
        return Finals(own, None, why=_why_no_rival(records))
    return Finals(own, rivals[0])


def finalists(records: list[Record]) -> tuple[Candidate, list[Candidate]]:
    """Returns the owner's candidate and the best of those that beat it in the search."""
    ranked = [record.candidate for record in ranking(records)]
    own = next((candidate for candidate in ranked if candidate.recipe == OWN), None)
    better = ranked[: ranked.index(own)] if own is not None else ranked
    return own or Candidate(OWN), better[:FINALISTS]


def _with_neighbours(bench: Bench, arms: list[Candidate], steps: int) -> list[Candidate]:
    """Returns the arms, and as many of their neighbours on the learning-rate grid as the budget allows."""
    entered = list(arms)
    for distance in (1, 2):
        around = [
            dataclasses.replace(arm, lr_step=arm.lr_step + sign * distance)
            for arm in arms
            for sign in (-1, 1)
            if arm.lr_step + sign * distance in LR_STEPS
        ]
        cost = (len(entered) + len(around)) * _final_cost(bench, steps)
        if bench.meter.left(bench.schedule.finals_until) < cost:
            break
        entered += around
    return entered


def _best_lr(runs: dict[Candidate, list[Record]], arm: Candidate) -> Candidate:
    return min((other for other in runs if other.recipe == arm.recipe), key=lambda other: _mean(runs[other]))


def _mean(records: list[Record]) -> float:
    return sum(record.total for record in records) / len(records)


def _decided(arms: list[Candidate], runs: dict[Candidate, list[Record]]) -> Finals:
    own, rivals = arms[0], arms[1:]
    if not runs:
        return Finals(own, rivals[0])
    champion = min(rivals, key=lambda arm: _mean(runs[arm]))
    if _mean(runs[champion]) >= _mean(runs[own]):
        return Finals(own, None, why="on fresh batch orders no finalist beat the model's own weights")
    return Finals(own, champion, _spread(own, rivals, runs))


def _spread(own: Candidate, rivals: list[Candidate], runs: dict[Candidate, list[Record]]) -> Spread:
    """Returns the spread of the finalists' paired differences over the finals' batch orders."""

    def tails(arm: Candidate) -> dict[int, float]:
        scored = {record.seed: record.score for record in runs[arm]}
        return {seed: scores.training for seed, scores in scored.items() if scores and not scores.diverged}

    mine = tails(own)
    paired = [{seed: tail - mine[seed] for seed, tail in tails(arm).items() if seed in mine} for arm in rivals]
    return Spread.within([list(differences.values()) for differences in paired])


def _why_no_rival(records: list[Record]) -> str:
    if records and records[0].state == "failed":
        return f"training the model's own weights failed ({records[0].reason})"
    others = [record for record in records if record.candidate.recipe != OWN]
    if not others:
        return "the budget ended before another candidate could be tried"
    broken = [record for record in others if record.state in ("diverged", "failed")]
    if len(broken) == len(others):
        return f"every one of {len(others)} candidates diverged or failed (the first: {broken[0].reason})"
    return f"none of {len(others)} candidates beat the model's own weights in the search"


def duel(bench: Bench, entered: Finals, champion: Candidate, plan: Plan) -> Verdict | None:
    """Returns the gate's verdict on the champion; None where the budget is spent.

    Args:
        bench: with what is left of the budget.
        entered: the finals' outcome.
        champion: fixed before.
        plan: its very draw.

    Raises:
        GateFailure: one of its runs raised.
    """
    longest = (bench.meter.left() / (2 * min(LOOKS)) - _gate_cost(bench, 0)) / DRAW_COST
    steps = int(min(bench.schedule.gate, longest))
    if steps < SHORTEST_RUN:
        return None
    planned = [look for look in LOOKS if 2 * look * _gate_cost(bench, steps) <= bench.meter.left()] or [min(LOOKS)]
    pairs: list[Pair] = []
    verdict = None
    for look, level in zip(planned, LEVELS[len(planned)], strict=True):
        if pairs and bench.meter.left() < 2 * (look - len(pairs)) * _gate_cost(bench, steps):
            break  # the machine has become slower than it was when the looks were planned
        while len(pairs) < look:
            seed = stream(bench.seed, f"gate {len(pairs)}")
            mine = _gate_run(bench, entered.own, None, seed, steps)
            pairs.append(_pair(bench, _gate_run(bench, champion, plan, seed, steps), mine))
            bench.announce("gate")
        verdict = judge(pairs, level, entered.spread)
        if verdict.state != "undecided":
            break
    return verdict


class GateFailure(Exception):
    """A run of the gate raised; the message says what."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One training at the gate: its curve, and at its end the loss of each held-back batch."""

    curve: Curve
    batches: tuple[float, ...]


def _gate_run(bench: Bench, candidate: Candidate, plan: Plan | None, seed: int, steps: int) -> _Run:
    """Returns the training of a plan's exact weights, or of the owner's where there is no plan.

    Raises:
        GateFailure: out of memory, or whatever else went wrong in this run.
    """
    try:
        return _trained(bench, candidate, plan, seed, steps)
    except Exception as problem:
        raise GateFailure(described(problem)) from problem


def _trained(bench: Bench, candidate: Candidate, plan: Plan | None, seed: int, steps: int) -> _Run:
    if plan is None:
        bench.snapshot.rewind()
    else:
        bench.set(plan)
    curve = probe(
        bench.task,
        steps=steps,
        seed=seed,
        lr_factor=LR_RATIO**candidate.lr_step,
        held_back=bench.task.gate_eval,
        rungs=tuple(int(part * steps) for part in (*EARLY, *LATE)),
    )
    bench.charge(curve, len(bench.task.gate_eval))
    return _Run(curve, () if curve.diverged_at is not None else curve.by_batch)


def _pair(bench: Bench, challenger: _Run, owner: _Run) -> Pair:
    champion, own = challenger.curve, owner.curve
    reference = bench.reference
    if reference is None:
        raise ValueError("A gate needs the reference of a search.")

    def halfway(curve: Curve) -> float:
        return tail_loss(dataclasses.replace(curve, losses=curve.losses[: curve.steps // 2]), reference)

    def held_back(curve: Curve, part: slice) -> float:
        seen = [reference.u(loss) for _, loss in curve.held_back[part]]
        return sum(seen) / len(seen) if seen and curve.diverged_at is None else math.log(CEILING)

    early, late = slice(None, len(EARLY)), slice(len(EARLY), None)

    seen = bool(bench.task.gate_eval)
    return Pair(
        training=tail_loss(champion, reference) - tail_loss(own, reference),
        halfway=halfway(champion) - halfway(own),
        held_back=held_back(champion, late) - held_back(own, late) if seen else None,
        held_back_halfway=held_back(champion, early) - held_back(own, early) if seen else None,
        by_batch=tuple(
            reference.u(one) - reference.u(other)
            for one, other in zip(challenger.batches, owner.batches, strict=False)  # none where one diverged
        ),
        own=tail_loss(own, reference),
    )
