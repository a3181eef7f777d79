"""The search: Optuna proposes candidates, their probes are halved at rungs, the best go to the finals and the gate."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from .contest import GateFailure, duel, finalists, finals, leader
from .errors import ArgumentError
from .gate import Verdict
from .plan import Plan
from .score import Curve
from .space import LR_STEPS, Dimension, Space
from .trial import OWN, Bench, Candidate, Record, described, stream

NEAREST_FIRST = sorted(LR_STEPS, key=abs)

MOST_FAILURES = 10
"""Trials that fail one after the other before the search gives up."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        own: the owner's weights at the best learning rate found for them.
        champion: the best candidate; None where none beat the owner's weights.
        plan: the champion's exact draw.
        verdict: the gate's; None where it was not reached.
        why: why there is no champion, in words.
        interrupted: whether Ctrl-C ended the search early.
    """

    own: Candidate
    champion: Candidate | None = None
    plan: Plan | None = None
    verdict: Verdict | None = None
    why: str = ""
    interrupted: bool = False


def search(bench: Bench, space: Space, *, storage: str | None = None, study_name: str | None = None) -> Found:
    """Returns the champion and the gate's verdict; trials are in `bench.records`, the model is trodden on.

    A first Ctrl-C ends the search and goes on to the gate with the best so far; a second one is raised.

    Args:
        bench: where candidates are tried.
        space: what to choose from.
        storage: an Optuna storage URL that keeps the trials; None for memory.
        study_name: in that storage; it must not exist yet.
    """
    interrupted = False
    try:
        with _quiet_optuna():
            _explore(bench, space, _study(bench, storage, study_name))
        entered = finals(bench, tune_lr=space.has("lr_step"))
    except KeyboardInterrupt:
        interrupted = True
        entered = leader(bench.records)
    if entered.champion is None:
        return Found(entered.own, why=entered.why, interrupted=interrupted)
    try:
        plan = bench.draw(entered.champion.recipe)
        verdict = duel(bench, entered, entered.champion, plan)
    except GateFailure as failure:  # out of memory in the last run must not cost the user the answer
        why = f"{entered.champion.recipe} led, but its gate failed ({failure})"
        return Found(entered.own, why=why, interrupted=interrupted)
    return Found(entered.own, entered.champion, plan, verdict, interrupted=interrupted)


def _explore(bench: Bench, space: Space, study: optuna.Study) -> None:
    """Tries the owner's weights, the well-known recipes, then what TPE proposes, while the budget's share lasts."""
    lr_steps = NEAREST_FIRST if space.has("lr_step") else [0]
    for lr_step in lr_steps:
        study.enqueue_trial(space.encode(OWN, lr_step))
    for lr_step, recipe in itertools.product(lr_steps if space.listed else [0], space.opening):
        study.enqueue_trial(space.encode(recipe, lr_step))
    limit = float(bench.meter.budget.trials or math.inf)
    if space.listed:
        limit = min(limit, len(lr_steps) * len(space.listed))
    while len(bench.records) < limit:
        if bench.records and _spent(bench):
            return
        _try_next(bench, space, study)
        if _hopeless(bench.records):
            return


def _spent(bench: Bench) -> bool:
    """Whether the search has used its share; as long as nothing beats the owner's weights, the finals' share too."""
    schedule = bench.schedule
    _, rivals = finalists(bench.records)
    until = schedule.search_until if rivals else schedule.finals_until
    return bench.meter.left(until) < schedule.rungs[0]


def _hopeless(records: list[Record]) -> bool:
    """Whether the owner's own trial failed, or as many trials in a row as leave no hope for the next."""
    failed = [record.state == "failed" for record in records]
    return failed[0] or (len(failed) >= MOST_FAILURES and all(failed[-MOST_FAILURES:]))


def _try_next(bench: Bench, space: Space, study: optuna.Study) -> None:
    """Runs the study's next trial and tells its result."""
    asked = study.ask({dimension.name: _distribution(dimension) for dimension in space.dimensions})
    recipe, lr_step = space.decode(asked.params)
    candidate = Candidate(recipe, lr_step)
    rungs = bench.schedule.rungs
    prunable = candidate != Candidate(OWN)

    def on_rung(curve: Curve) -> bool:
        asked.report(bench.score(curve, rungs[-1]).total, step=curve.steps)
        return curve.steps == rungs[-1] or not (prunable and asked.should_prune())

    seed = stream(bench.seed, "search")
    _tell(study, asked, bench.run("search", candidate, seed=seed, steps=rungs[-1], rungs=rungs, on_rung=on_rung))


def _tell(study: optuna.Study, asked: optuna.Trial, record: Record) -> None:
    asked.set_user_attr("recipe", record.candidate.recipe.key)
    if record.reason:
        asked.set_user_attr("reason", record.reason)
    if record.score is None:
        study.tell(asked, state=TrialState.FAIL)
    elif record.state == "pruned":
        study.tell(asked, state=TrialState.PRUNED)
    else:
        study.tell(asked, record.score.total)


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices:
        return CategoricalDistribution(dimension.choices)
    if isinstance(dimension.default, int):
        return IntDistribution(int(dimension.low), int(dimension.high))
    return FloatDistribution(dimension.low, dimension.high)


def _study(bench: Bench, storage: str | None, name: str | None) -> optuna.Study:
    """Returns a new study: TPE, halved at the rungs.

    Raises:
        ArgumentError: the storage cannot be opened, or holds a study of that name already.
    """
    pruner = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=bench.schedule.rungs[0], reduction_factor=2, min_early_stopping_rate=0
    )
    try:
        return optuna.create_study(
            storage=storage,
            study_name=name,
            sampler=optuna.samplers.TPESampler(seed=stream(bench.seed, "tpe")),
            pruner=pruner,
        )
    except optuna.exceptions.DuplicatedStudyError:
        raise ArgumentError(f"Storage {storage!r} holds a study {name!r} already. Choose another study_name.") from None
    except Exception as problem:
        raise ArgumentError(
            f"Storage {storage!r} cannot be opened ({described(problem)}). Give a URL such as sqlite:///trials.db."
        ) from None


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Silences Optuna's per-study messages, and puts its level back."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
