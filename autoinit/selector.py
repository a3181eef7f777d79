"""`select`: one call chooses a model's initial weights."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .apply import apply_plan, check_seed
from .executors.choice import check_executor, choose, fastest_threads
from .executors.sequential import Sequential
from .graph import Graph
from .judging.budget import SMALLEST_ALLOWANCE, WORTH_FINALS, Budget, Meter, Schedule, parse_budget
from .judging.trials import Candidate
from .plans.rules import resolve
from .probing.bench import Bench
from .recipes.recipe import OWN, Recipe
from .recipes.space import LR_RATIO, Space, space_of
from .recommender.model import Recommender
from .recommender.source import recommender_from
from .recommender.warm import warmed
from .search.campaign import Campaign, Progress
from .search.funnel import Found, search
from .search.own_records import keep_records
from .search.proxy import Original, carried, joint_space, original_of, proxy_meant
from .search.reasons import described_task, too_small, why
from .search.selection import Cost, Selection, trial_table
from .task.batches import Batch
from .task.features import own_scales, task_features
from .task.machine import PeakMemory, peak_memory, using_threads
from .task.task import make_task
from .tracing.choices import keep_choices
from .tracing.tracing import trace_task


def select(
    model: nn.Module,
    data: Any,
    *,
    loss: Callable[[Any, Any], Tensor] | None = None,
    step: Callable[[nn.Module, Batch], Tensor] | None = None,
    optimizer: Any = None,
    lr: float | str | None = None,
    val_data: Any = None,
    budget: float | str | Budget | None = None,
    only: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    recipes: Sequence[str | Recipe] | None = None,
    storage: str | None = None,
    study_name: str | None = None,
    seed: int = 0,
    apply: bool = True,
    progress: Progress | bool | None = None,
    autocast: torch.dtype | None = None,
    device: str | torch.device | None = None,
    executor: str | None = None,
    concurrency: int | None = None,
    proxy: nn.Module | None = None,
    recommender: Recommender | str | os.PathLike[str] | None = None,
    record: bool = False,
) -> Selection:
    """Returns the best initial weights found for a model, and sets them.

    The weights as the model's own code drew them are candidate 0. They stay unless another candidate beats them
    beyond noise on fresh batch orders and on held-back data. Everything else about the model, and every random
    state, is as it was, also after an exception or Ctrl-C. A first Ctrl-C ends the search and lets the gate judge the
    best so far, which takes a while; a second one is raised.

    Args:
        model: what will be trained.
        data: DataLoader, Dataset, (X, y) as tensors, arrays or frames, or any iterable of batches.
        loss: callable(output, target) -> scalar; None: the output's `.loss`, cross-entropy for integer targets,
            mean squared error for others.
        step: callable(model, batch) -> scalar loss, in the place of `loss`, for whatever else trains by one loss.
            It may accumulate and clip gradients if it calls backward itself.
        optimizer: callable(params) -> Optimizer or (Optimizer, scheduler), or an existing Optimizer, which is
            left alone; None: AdamW. A scheduler is stepped after every training step.
        lr: a number; "search" to search around the optimizer's own; None: the given optimizer's own, or
            searched where none is given and the budget pays for 2,000 training steps.
        val_data: data to hold back, in the place of a fifth of `data`; of either, 1,024 rows at the most.
        budget: seconds (a number, "90s", "5m", "8h") or a `Budget`; None: a minute. Nothing is searched where it
            pays for fewer than 150 training steps.
        only: globs of the parameter names that may change.
        exclude: globs of the parameter names that must stay.
        recipes: the only candidates to consider, by name or as `Recipe`.
        storage: Optuna storage URL that keeps the trials.
        study_name: in that storage.
        seed: of the draws, the batch orders and the proposals.
        apply: whether to set the chosen weights; False leaves the model as it was.
        progress: called after each trial; True or False for a line on stderr or none; None: where it is a
            terminal.
        autocast: dtype of mixed precision; None: as an active torch.autocast has it.
        device: where to probe; None: where the model is.
        executor: how probes run: "sequential", "processes" (workers of one thread each, on a CPU), or "stacked"
            (several candidates in one pass); None: what is fastest, measured on the first steps.
        concurrency: probes at a time; None: measured. A budget in steps or trials gives the same selection for the
            same seed whatever the number of processes, since then each probe has one thread.
        proxy: a smaller model of the same architecture (fewer layers, narrower) to probe in the place of `model`; the
            recipe that it finds is drawn into `model`, which is not trained. Gain and learning rate are the proxy's.
        recommender: says what is tried first, and what need not be: "default" for the shipped knowledge, a
            `Recommender`, or the path of one, of knowledge or of records; None: the well-known recipes come first.
        record: whether what the search found is added to your own records (in $AUTOINIT_DATA, or in your data folder),
            for `autoinit recommender fit` to learn from.

    Raises:
        DataError: empty or one-batch data, values not finite, labels out of range, batches the model rejects.
        ModelError: nothing to train, no gradient arrives, or a proxy of another kind or larger than the model.
        StepError, OptimizerError, RecipeError, BudgetError, DeviceError: a wrong argument of that kind.
    """
    meter = Meter(budget=parse_budget(budget))
    check_seed(seed)
    check_executor(executor, concurrency)
    with contextlib.nullcontext() if proxy is None else proxy_meant():
        task = make_task(
            model if proxy is None else proxy,
            data,
            loss=loss,
            step=step,
            optimizer=optimizer,
            lr=lr,
            val_data=val_data,
            autocast=autocast,
            device=device,
            seed=seed,
        )
        graph = keep_choices(task.model, trace_task(task))
    original = None if proxy is None else original_of(model, task, graph, only=only, exclude=exclude)
    graph = original.proxy if original else graph.restricted(only, exclude)
    with task.preserved() as snapshot, _reporting(progress) as report, peak_memory(task.device) as memory:
        bench = Bench(task, graph, snapshot, seed)
        described = record or recommender is not None
        features, own = (task_features(task, graph), own_scales(task.model, graph)) if described else ({}, {})
        threads = _paced(bench, meter)
        if lr != "search" and meter.left() < WORTH_FINALS:
            task.lr_searched = False  # trying the owner's weights at five rates would leave little for others
        space = _space(graph, original, task.lr_searched, recipes, meter.left())
        if recommender is not None:
            space = warmed(space, graph, features, own, recommender_from(recommender), seed=seed)
        campaign = Campaign(bench, Sequential(bench), meter, Schedule.of(meter.left()), report)
        if meter.left() < SMALLEST_ALLOWANCE:
            found, how = Found(Candidate(OWN), why=too_small(meter)), ""
        else:
            with _running(campaign, executor, concurrency, threads) as how:
                found = search(campaign, space, storage=storage, study_name=study_name)
    selection = _selection(found, campaign, _cost(campaign, how, memory))
    if record:
        keep_records(campaign.records, task, graph, features, own, seed)
    if original is not None:
        return carried(selection, original, seed, apply=apply)
    if apply and not selection.kept:
        apply_plan(task.model, selection.plan)
    return selection


def _space(
    graph: Graph,
    original: Original | None,
    lr_searched: bool,
    recipes: Sequence[str | Recipe] | None,
    allowance: float,
) -> Space:
    """Returns what to choose from: for a proxy, what fits the model that it stands for too."""
    space = space_of(graph, lr_searched=lr_searched, recipes=recipes, allowance=allowance)
    if original is None:
        return space
    other = space_of(original.graph, lr_searched=lr_searched, recipes=recipes, allowance=allowance)
    return joint_space(space, other, measurable=original.measurable)


PATIENCE = 0.1
"""Share of a budget in seconds that worker processes have to take their first step."""


@contextlib.contextmanager
def _running(campaign: Campaign, executor: str | None, concurrency: int | None, threads: int) -> Iterator[str]:
    """Gives a campaign the executor that suits it, and lays its runs out anew; yields how jobs are run."""
    meter = campaign.meter
    choice = choose(
        campaign.bench,
        executor=executor,
        concurrency=concurrency,
        threads=threads,
        repeatable=meter.budget.seconds is None,
        affordable_steps=meter.left(),
        patience=PATIENCE * (meter.budget.seconds or math.inf),
    )
    campaign.executor = choice.executor
    meter.begun = meter.seconds
    try:
        if choice.pace is not None and meter.budget.seconds is not None:
            alone = meter.left()
            meter.pace(1 / choice.pace)
            campaign.schedule = Schedule.of(meter.left(), alone)
        with using_threads(choice.threads):
            yield choice.why
    finally:
        choice.executor.close()


def _paced(bench: Bench, meter: Meter) -> int:
    """Tells the meter what a training step takes; returns the threads of a job.

    Where the clock does not count, nothing may depend on it: one thread, and no step is timed.
    """
    if meter.budget.seconds is None:
        return 1
    threads, pace, steps = fastest_threads(bench)
    meter.spend(steps=steps)
    meter.pace(1 / pace)
    return threads


def _cost(campaign: Campaign, how: str, memory: PeakMemory) -> Cost:
    tried = sum(record.stage != "gate" for record in campaign.records)
    run = "; ".join([how, *campaign.executor.notes])
    return Cost(campaign.meter.seconds, campaign.meter.steps, tried, run, memory.bytes)


def _selection(found: Found, campaign: Campaign, cost: Cost) -> Selection:
    verdict, champion = found.verdict, found.champion
    won = verdict is not None and verdict.state == "win" and champion is not None and found.plan is not None
    chosen = champion if won and champion is not None else found.own
    plan = found.plan if won and found.plan is not None else resolve(OWN, campaign.bench.graph, campaign.bench.seed)
    bench = campaign.bench
    base = bench.task.lr
    return Selection(
        recipe=chosen.recipe,
        plan=plan,
        kept=not won,
        gain=verdict.gain if verdict else None,
        held_back=verdict.held_back if verdict else None,
        lr=None if base is None else base * LR_RATIO**chosen.lr_step,
        why=why(found, campaign.meter, 1 - campaign.schedule.finals_until),
        trials=trial_table(campaign.records, base),
        cost=cost,
        graph=bench.graph,
        interrupted=found.interrupted,
        task=described_task(bench.task),
        lr_searched=bench.task.lr_searched,
    )


@contextlib.contextmanager
def _reporting(progress: Progress | bool | None) -> Iterator[Progress]:
    """Gives what to call after each trial; a line on the terminal is wiped at the end."""
    if callable(progress):
        yield progress
    elif sys.stderr.isatty() if progress is None else progress:
        try:
            yield lambda event: _overwrite(f"{event.done:4.0%}  {event.stage}  {event.message}")
        finally:
            _overwrite("")
    else:
        yield lambda event: None


def _overwrite(line: str) -> None:
    """Puts one line on stderr, over the one before."""
    print(f"\r{line[:119]:<119}\r", end="", file=sys.stderr, flush=True)
