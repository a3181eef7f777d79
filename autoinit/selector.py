"""`select`: one call chooses a model's initial weights."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .apply import apply_plan
from .drawing.generators import check_draw_on
from .drawing.starting import parted, wear_ticket, with_starts
from .episodic.learned import LearnedStart
from .errors import ArgumentError
from .executors.choice import ExecutorName, check_executor
from .graph import Graph
from .growth.sources import with_source
from .inherit import trained_network
from .inheritance.checkpoints import Source
from .judging.budget import WORTH_FINALS, Allotted, Budget, Meter, allotted
from .judging.curves import kept_curves
from .judging.trials import Candidate
from .knowledge.features import Features
from .own.task import own_task
from .own.training import check_beside_data, check_beside_train
from .plans.rules import resolve
from .probing.bench import Bench
from .probing.first_pass import pass_features
from .proxies.counterparts import optimizers_of
from .proxies.miniatures import proxy_for
from .proxies.originals import Original, original_of, proxy_meant
from .proxies.spaces import joint_space
from .recipes.recipe import OWN, Recipe
from .recipes.space import LR_RATIO, Space, space_of
from .recommender.model import Recommender
from .recommender.source import recommender_from
from .recommender.warm import warmed
from .screen.bar import progress_shown
from .search.before_after import Layers, before_and_after
from .search.campaign import Campaign, Progress, ProgressEvent
from .search.costs import Cost, saved_by
from .search.distinct import nothing_to_choose
from .search.finals import NoChampion
from .search.funnel import Found, search
from .search.own_records import keep_records
from .search.reasons import Reason, described_task, ended_early, reason, too_small
from .search.selection import Selection, trial_table
from .search.sparse import told_of_ticket
from .search.staging import Setup, judging, searching, timed
from .seeds import check_seed
from .task.batches import Batch
from .task.data import length_of_training
from .task.features import own_scales, task_features
from .task.machine import PeakMemory, answering_device, ordered_sums, peak_memory, quick_collections
from .task.snapshot import preserved_random
from .task.task import Task, make_task
from .tickets.ticket import Ticket
from .tracing.choices import Parts, keep_choices
from .tracing.tracing import trace_task

Candidates = str | os.PathLike[str] | Recipe | LearnedStart | Ticket
"""What one candidate may be given as."""

STOPPED = "select was stopped before it had an answer; the model is as it was."
"""What is said where Ctrl-C comes before the search, or once more behind it."""


def select(
    model: nn.Module,
    data: Any = None,
    *,
    loss: Callable[[Any, Any], Tensor] | None = None,
    step: Callable[[nn.Module, Batch], Tensor] | None = None,
    train: Callable[[nn.Module, int], Iterator[Any]] | None = None,
    example: Any = None,
    validate: Callable[[nn.Module, int], Any] | None = None,
    timeout: float | None = None,
    optimizer: Any = None,
    lr: float | str | None = None,
    val_data: Any = None,
    budget: float | str | Budget | None = None,
    training_steps: int | None = None,
    epochs: float | None = None,
    only: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    checkpoint: Source | None = None,
    source: Source | None = None,
    recipes: Candidates | Sequence[Candidates] | None = None,
    storage: str | None = None,
    study_name: str | None = None,
    seed: int = 0,
    apply: bool = True,
    progress: Progress | bool | None = None,
    autocast: torch.dtype | None = None,
    device: str | torch.device | None = None,
    executor: ExecutorName | None = None,
    concurrency: int | None = None,
    draw_on: str | torch.device | None = None,
    proxy: nn.Module | str | None = None,
    recommender: Recommender | str | os.PathLike[str] | Literal[False] | None = None,
    record: bool = False,
) -> Selection:
    """Returns the best initial weights found for a model, and sets them.

    `select` trains the model for a few steps from many different starts, on your data, with your loss and your
    optimizer, or by a training of your own (adversaries, agents, several losses), and finds the start that trains best.
    Your own weights are candidate 0: they stay unless another start beats them beyond noise, in fresh paired runs on
    other batch orders and on held-back data. "No change" is an answer.

    It takes as long as the budget says. Afterwards the model carries the chosen weights, untrained, and you train it as
    you were going to. Everything else about the model (buffers, modes, hooks, gradients), your optimizer, your data and
    every random state are as they were, also after an exception or Ctrl-C. A first Ctrl-C ends the search and lets the
    gate judge the best so far, which takes a few seconds; a second one is raised, and so is one before the search.

    Args:
        model: The weights of this module are chosen; one parameter at least is trainable. Wrappers of torch.compile and
            of data parallelism are looked through.
        data: The probes are trained on this: a DataLoader, a Dataset, (X, y) as tensors, numpy arrays or pandas frames
            (X of shape (rows, …); y of shape (rows,) int64 for classes, or of the output's shape for numbers), or any
            iterable of batches, two at least. An iterator is consumed as far as it is read. None beside `train`.
        loss: This callable (output, target) -> scalar tensor is minimized. None means the output's own `.loss` where it
            has one, cross-entropy for integer targets, and the mean squared error for others.
        step: This callable (model, batch) -> scalar loss takes the place of `loss`, for whatever else trains by one
            loss. It may accumulate and clip gradients if it calls backward itself, and steps no optimizer.
        train: This generator function (model, seed) takes the place of `data`, loss and optimizer: it trains the model
            from its weights, in any way, and yields one number after each step, lower is better (or a `Step`). What it
            needs beside the model (optimizers, environments, buffers) it makes itself, out of the seed. It is closed
            when enough is seen. docs/any_training.md has examples.
        example: The architecture is read from this, beside `train`: an input, a batch, or a callable (model) -> scalar
            tensor that touches every part of the model, each network by itself. Calibrations measure on it. None means
            that the module tree is read, and that there are no calibrations.
        validate: This callable (model, part) returns what `train` does not see, lower is better: a number, or one for
            each group of as many rows. `part` is 0 in the search and 1 at the gate, which should be other rows. None
            means that nothing is held back.
        timeout: A step of `train`, or a call of `validate`, may take so many seconds. None means five minutes.
        optimizer: This callable (params) -> Optimizer or (Optimizer, scheduler) makes the optimizer of each probe; an
            existing Optimizer is copied and left alone. None means AdamW. A scheduler is stepped after every training
            step. Parameters that the optimizer does not hold stay as they are.
        lr: A number is the learning rate of every probe, and "search" has rates around the optimizer's own tried along.
            None means the given optimizer's own; without an optimizer rates are searched if the budget pays for 2,000
            training steps.
        val_data: This is held back to judge candidates, and is of any kind that `data` may be. None means that a fifth
            of `data` is held back, more where that is few rows. Of either about 1,024 rows are used.
        budget: A number or a text ("90s", "5m", "8h") is wall time in seconds, minutes or hours; a `Budget` may limit
            training steps or trials instead. None means a twentieth of the training where its length is given, though
            1,000 steps at the least, which an answer takes; else a minute. Nothing is searched where it pays for fewer
            than 150 training steps: the weights stay, and the answer names a budget that would do.
        training_steps: The weights are chosen for a training of so many steps. None means one that is ten times as long
            as the gate's runs. The longer it is, the more a lead has to hold: what trains sooner need not train better.
            Beside weights that train, the search ends where it costs such a training more than it can find.
        epochs: The same in passes through `data`, a DataLoader or a list of batches; give one of the two.
        only: Only parameters whose names match these globs, such as "head.*", may change; one text or several. None
            means all.
        exclude: Parameters whose names match these globs stay as they are; one text or several. None means that none
            has to.
        checkpoint: The model holds trained weights of this: a file of safetensors or of `torch.save` (read without
            running code in it), a folder of transformers with its shards, a mapping of names to tensors, or a module.
            What it has stays, bit for bit, but under recipes that renew; what it lacks is new. None means that only
            frozen parameters, those that the optimizer does not hold, and weights beside low-rank adapters are known to
            be trained.
        source: The model may take after this trained network of the same kind and another size, a module or whatever
            `checkpoint` may be: the ways of growing that fit it are candidates, beside those from scratch. None means
            that there is none.
        recipes: These are the only candidates beside your own weights, by name or as `Recipe`, one or several. A
            `LearnedStart`, a `Ticket` or the path of its file is one, too: a ticket is trained under its masks, and
            the model gets them where it wins. None means those that are known to suit the architecture, and variations
            of them.
        storage: The trials are kept in this Optuna storage, a URL such as "sqlite:///trials.db". None means in memory.
        study_name: The trials have this name in the storage, where it must be new. None means that Optuna makes one up.
        seed: This whole number decides the draws, the batch orders and the proposals; no global generator is used. With
            a budget in steps or trials the same seed gives the same selection, on any number of processes.
        apply: Whether the chosen weights are set. False leaves the model as it was; `apply_(model, selection)` sets
            them later.
        progress: This callable is told after each trial where the search stands: its `stage`, the share `done` of the
            budget, and a `message`. True writes a line on stderr and False nothing; None writes one where stderr is a
            terminal.
        autocast: Probes run in mixed precision of this dtype, torch.bfloat16 or torch.float16. None means as an active
            torch.autocast has it.
        device: Probes run on this device, such as "cuda"; afterwards the model is where it was. None means where the
            model is.
        executor: This is how probes run: "sequential" (one after the other), "processes" (workers of one thread each,
            on a CPU), "stacked" (several candidates in one pass, replayed as a CUDA graph where that can be) or
            "captured" (one after the other, the training step replayed as a CUDA graph). None means what is fastest,
            measured on the first steps. `cost.executor` says what it was, and why no step was captured.
        concurrency: This many probes run at a time. None means as many as were measured to pay.
        draw_on: Random numbers are made on this kind of device, "cpu" or "cuda", whose numbers differ; those of "cpu"
            are the same on every machine. None means where the model lies.
        proxy: This smaller model of the same architecture (fewer layers, or narrower) is searched on in the place of
            `model`; the best that it finds meet your own weights on `model` itself, with what is left of the budget,
            half of it as a rule. A model on the meta device cannot be trained: there gain and learning rate are the
            proxy's. "auto" makes one with `smaller(model)`. None means that `model` itself is searched on.
        recommender: This names recipes that are tried first, by turns with the well-known ones: a `Recommender`, or the
            path of a fitted one (.npz), of knowledge (.jsonl.xz) or of records of studies, which are added to the
            shipped ones. None or "default" means the one that is fitted to what ships; False means that only the
            well-known recipes come first.
        record: Whether what the search found is added to your own records, in the folder $AUTOINIT_DATA or in your data
            folder. `autoinit recommender fit` learns from them.

    Returns:
        A `Selection`. Print it for the reason, the gain with its interval and the leaderboard; `kept` tells whether
        your weights stayed, `lr` is the learning rate to train with, and `save(path)` writes the plan, which `apply_`
        gives to another instance.

    Raises:
        DataError: The data are empty or one batch, hold NaN or infinity, have labels out of range, or the model rejects
            them.
        ModelError: Nothing is trainable, no gradient arrives, weights are NaN or on the meta device, a glob matches
            nothing, the proxy is of another kind or as large as the model, or none can be made.
        StepError: The loss or the step cannot be called or returns no scalar, or the step trains the model itself.
            `train` is no generator, fails, ends, yields no number or takes too long, or does not give the same numbers
            twice, since something goes over from one training to the next; `validate` fails or trains the model.
        OptimizerError: The optimizer is none and makes none, or the learning rate is no positive number.
        RecipeError: A recipe is unknown, or for other architectures than this one.
        BudgetError: The budget is not a positive amount, or not understood.
        DeviceError: The device is not on this machine, or no longer answers, or autocast has another dtype.
        ArgumentError: The seed, executor, concurrency, training_steps, epochs, draw_on or recommender is out of range,
            the storage cannot be opened, or `train` stands beside what it takes the place of.
        KnowledgeError: The recommender's file cannot be used.
        SourceError: The checkpoint or the source cannot be read, or is of another architecture.

    Example:
        Fifteen tanh layers do not train from PyTorch's default weights. Four hundred training steps find weights that
        do:

        >>> import autoinit, torch
        >>> from sklearn.datasets import load_digits
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> pixels, labels = load_digits(return_X_y=True)
        >>> hidden = [nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(14)]
        >>> model = nn.Sequential(*hidden, nn.Linear(64, 10))
        >>> def sgd(parameters):
        ...     return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)
        >>> selection = autoinit.select(model, (pixels / 16, labels), optimizer=sgd, budget=autoinit.Budget(steps=400))
        >>> selection.kept
        False
        >>> selection.answer
        'better'
        >>> selection.why
        "from the model's own weights the loss stays at 2.3..., from these it reaches ... in ... steps"
        >>> selection.recipe.base
        'orthogonal'
        >>> selection.gain.factor < 0.5  # the training loss after as many steps, against that from your own weights
        True
    """
    kind = check_draw_on(draw_on)
    if train is None:
        check_beside_data(data, example=example, validate=validate, timeout=timeout)
        make = functools.partial(make_task, data=data, val_data=val_data, loss=loss, step=step, lr=lr)
        make = functools.partial(make, autocast=autocast)
    else:
        check_beside_train(data=data, val_data=val_data, loss=loss, step=step, optimizer=optimizer, lr=lr,
                           autocast=autocast, epochs=epochs, proxy=proxy)  # fmt: skip
        make = functools.partial(own_task, train=train, example=example, validate=validate, timeout=timeout)
    make = functools.partial(make, device=device, seed=seed)
    length = length_of_training(training_steps, epochs, data)
    allowed = allotted(budget, length)
    named, starts = parted(recipes)
    meter = _started(allowed, seed, executor, concurrency)
    with preserved_random():  # what is loaded for it on first use draws from Python's generator
        learned = None if recommender is False else recommender_from(recommender)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_stopped_in_words())  # first, so that it speaks when all is as it was
        stack.enter_context(answering_device())
        report = progress if callable(progress) else stack.enter_context(progress_shown(progress))
        report(ProgressEvent("reading", 0.0, "the data and the model"))
        parts = Parts(only, exclude, checkpoint)
        if allowed.budget.seconds is None:  # the same seed gives the same selection
            stack.enter_context(ordered_sums())
        task, graph, original = _traced(make, model, proxy, optimizer, lr, parts)
        if source is not None:
            graph = _growing(task, graph, source, loss, step, proxy)
        if starts and proxy is not None:
            raise ArgumentError("Learned starts and tickets are for the model itself. Leave them or the proxy out.")
        graph = with_starts(task, graph, starts)
        setup = Setup(_bench(stack, task, graph, seed, kind), executor, concurrency)
        judge = setup
        if original is not None and original.measurable:
            judge = Setup(_bench(stack, original.task, original.graph, seed, kind), executor, concurrency)
        memory = stack.enter_context(peak_memory(judge.bench.task.device))
        stack.enter_context(quick_collections(judge.bench.task.device))
        report(ProgressEvent("timing", 0.0, "a few training steps"))
        cannot = timed(setup, judge, meter)
        if lr != "search" and meter.left() < WORTH_FINALS:
            task.lr_searched = False  # trying the owner's weights at five rates would leave little for others
        space = _space(graph, original, task, named, meter.left())
        idle = nothing_to_choose(graph, space)
        with searching(setup, meter, report, length, judge=judge, idle=bool(idle or cannot)) as campaign:
            small = None if campaign.how or idle else cannot or too_small(meter)
            searched = not idle and small is None
            found = Found(Candidate(OWN), nobody=NoChampion(idle))
            told = _described(task, graph, meter) if searched and (record or learned is not None) else ({}, {})
            if searched:
                if learned is not None:
                    space = warmed(space, graph, *told, learned)
                place = functools.partial(judging, judge)
                found = search(campaign, space, place, storage=storage, study_name=study_name)
        cost = _cost(campaign, memory, found, allowed)
        shown = bool(campaign.trials) and not found.interrupted  # who presses Ctrl-C waits for nothing more
        layers = before_and_after(judge.bench, found.plan) if shown else ((), ())
    selection = _selection(found, campaign, judge.bench, cost, small, layers)
    if record:
        keep_records(campaign.trials, task, graph, *told, seed)
    if original is not None:
        selection = _carried(selection, original, seed, kind)
    sets = apply and not selection.kept and not selection.on_proxy  # a model on the meta device has no weights to set
    if sets:
        apply_plan(judge.bench.task.model, selection.plan)
        wear_ticket(judge.bench.task.model, task.starts.get(selection.recipe.start))
    return dataclasses.replace(selection, applied=sets or selection.kept)


@contextlib.contextmanager
def _stopped_in_words() -> Iterator[None]:
    """Says what a Ctrl-C leaves undone where the search does not, which has its own words."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        if stopped.args:
            raise
        raise KeyboardInterrupt(STOPPED) from None


def _started(allowed: Allotted, seed: int, executor: str | None, concurrency: int | None) -> Meter:
    """Returns the meter of a budget, whose clock runs, after checks of what else needs no model to be checked."""
    meter = Meter(budget=allowed.budget)
    check_seed(seed)
    check_executor(executor, concurrency)
    return meter


def _traced(
    make: functools.partial[Task],
    model: nn.Module,
    proxy: nn.Module | str | None,
    optimizer: Any,
    lr: Any,
    parts: Parts,
) -> tuple[Task, Graph, Original | None]:
    """Returns the task of a model, its architecture and None; with a proxy, those of the proxy and what that is for."""
    small = proxy_for(model, proxy, make.keywords["seed"])
    if small is None:
        task = make(model) if optimizer is None else make(model, optimizer=optimizer)
        return task, parts.free(task.model, trace_task(task)), None
    with proxy_meant(made=isinstance(proxy, str)):
        own, other = optimizers_of(model, small, optimizer)
        task = make(small, optimizer=other)
        graph = keep_choices(task.model, trace_task(task))
    device = make.keywords["device"]
    original = original_of(model, task, graph, optimizer=own, parts=parts, lr=lr, device=device)
    return task, original.proxy, original


def _growing(task: Task, graph: Graph, source: Source, loss: Any, step: Any, proxy: Any) -> Graph:
    """Returns the graph of a model that may take after a trained network."""
    if proxy is not None:
        raise ArgumentError("A source is for the model itself, and a proxy has another size. Leave one of them out.")
    return with_source(task, graph, trained_network(source, [task.train[0]], loss=loss, step=step))


def _described(task: Task, graph: Graph, meter: Meter) -> tuple[Features, dict[str, float]]:
    """Returns all that describes a task, and the root mean square of each weight as its owner drew it, by name.

    The pass of the owner's weights that tells some of it is paid for.
    """
    own = own_scales(task.model, graph)
    told = task_features(task, graph, own)
    meter.spend(steps=1)
    return told | pass_features(task, graph, told, once=True), own


def _bench(stack: contextlib.ExitStack, task: Task, graph: Graph, seed: int, kind: str) -> Bench:
    """Returns a bench with a model that is put back when the stack is unwound."""
    bench = Bench(task, graph, stack.enter_context(task.preserved()), seed, kind)
    stack.callback(bench.paused.close)
    return bench


def _space(
    graph: Graph,
    original: Original | None,
    task: Task,
    recipes: str | Recipe | Sequence[str | Recipe] | None,
    allowance: float,
) -> Space:
    """Returns what to choose from: for a proxy, what fits the model that it stands for too."""
    told = functools.partial(
        space_of, lr_searched=task.lr_searched, recipes=recipes, allowance=allowance, measured=task.measured
    )
    space = told(graph)
    if original is None:
        return space
    other = told(original.graph)
    return joint_space(space, other, measurable=original.measurable)


def _cost(campaign: Campaign, memory: PeakMemory, found: Found, allowed: Allotted) -> Cost:
    """Returns what a search took, that on a proxy and what was judged on the model together."""
    judged = found.judged
    tried = sum(trial.stage != "gate" for trial in campaign.trials)
    run = "; ".join([campaign.how, *campaign.executor.notes])
    if judged is not None and judged.bench is not campaign.bench and judged.how:
        run = f"{run}; the model itself: {'; '.join([judged.how, *judged.executor.notes])}"
    early = "" if found.interrupted else ended_early(campaign, found)
    spent, length = (campaign.meter.seconds, campaign.meter.steps), campaign.training_steps
    return Cost(*spent, tried, run, memory.bytes, early, training_steps=length, budget=allowed.why)


def _selection(
    found: Found, searched: Campaign, bench: Bench, cost: Cost, untried: Reason | None, layers: tuple[Layers, Layers]
) -> Selection:
    """Returns what was found as an answer; with a reason where nothing was tried.

    Args:
        found: by the search.
        searched: its campaign.
        bench: with the model that it was judged on.
        cost: of all.
        untried: why nothing was tried; None where something was.
        layers: before and after.
    """
    judged, verdict, champion = found.judged or searched, found.verdict, found.champion
    said = untried or reason(found, searched.meter, 1 - judged.schedule.finals_until)
    won = verdict is not None and verdict.state == "win" and champion is not None and found.plan is not None
    chosen = champion if won and champion is not None else found.own
    on_it = [trial for trial in searched.trials if searched.bench is bench or trial.stage != "search"]
    if not on_it:
        chosen = Candidate(OWN)  # a proxy's learning rate is not the model's
    plan = found.plan if won and found.plan is not None else resolve(OWN, bench.graph, seed=bench.seed)
    base = bench.task.lr
    ticket = bench.task.starts.get(champion.recipe.start) if verdict is not None and champion is not None else None
    return Selection(
        recipe=chosen.recipe,
        plan=plan,
        kept=not won,
        gain=verdict.gain if verdict else None,
        held_back=verdict.held_back if verdict else None,
        lr=None if base is None else base * LR_RATIO**chosen.lr_step,
        why=said.why,
        trials=trial_table(searched.trials, base),
        cost=cost,
        graph=bench.graph,
        interrupted=found.interrupted,
        task=described_task(bench.task),
        lr_searched=bench.task.lr_searched and len({trial.candidate.lr_step for trial in on_it}) > 1,
        answer=said.answer,
        remedy=said.remedy,
        contender=champion.recipe if verdict is not None and champion is not None else None,
        alike=tuple(searched.alike.items()),
        given_lr=base,
        lr_given=bench.task.lr_given,
        curves=kept_curves(on_it, champion.recipe if champion is not None else None, base),
        before=layers[0],
        after=layers[1],
        sparse=""
        if ticket is None or not ticket.masks
        else told_of_ticket(bench.task, ticket, searched.trials, worn=won),
        payback=saved_by(searched.trials) if won else None,
    )


def _carried(selection: Selection, original: Original, seed: int, kind: str) -> Selection:
    """Returns a selection with the proxy told; what was judged on the proxy as well is resolved for the model."""
    if original.measurable:
        return dataclasses.replace(selection, proxy=str(original))
    plan = original.plan(selection.recipe, seed, kind)
    return dataclasses.replace(selection, plan=plan, graph=original.graph, proxy=str(original), on_proxy=True)
