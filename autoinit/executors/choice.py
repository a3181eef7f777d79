"""Which way of running jobs suits a model on this machine: measured on its first steps, not guessed."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from ..errors import ArgumentError
from ..executors import captured, captured_stack, processes, stacked
from ..judging.budget import BATCH
from ..probing.bench import Bench, steps_per_second
from ..task.machine import bytes_of, usable_cores, using_threads
from ..text import number
from .captured import Captured
from .captured_stack import CapturedStack
from .executor import Executor
from .processes import Processes
from .room import candidates_that_fit
from .sequential import Sequential
from .stacked import Stacked

ExecutorName = Literal["sequential", "processes", "stacked", "captured"]
NAMES: tuple[ExecutorName, ...] = get_args(ExecutorName)

WORTH_SWITCHING = 1.1
"""How much faster than one job after the other another way has to be measured to be chosen."""

MEASURED_STEPS = 10
"""Of each way, after one that warms up: enough to tell a tenth apart."""

MEASURED_SHARE = 0.02
"""Of the budget that ten steps may be; where they are more, nothing is measured."""

MEASURED_SHARE_ON_DEVICE = 0.05
"""The same on a device, where another way may be twenty times as fast, and not twice."""

STACKS = {"cpu": (8,)}
ACCELERATOR_STACKS = (32, 8)
"""Candidates at a time that are tried on a kind of device, and on all others, the most first."""

LAUNCH_BOUND = 50_000_000
"""Parameters up to which it is tried to replay steps; above, starting kernels takes no share of a step, and the memory
that a recorded one keeps would be missed."""

STACKING_SECONDS = 4.0
"""What the first try of a stack takes, mostly imports; more than a CPU's gain is worth in a short search."""

WEIGHTS_PER_WORKER = 6
"""Sizes of the model that one worker may need: weights, gradients, two moments, activations."""


SMALL = 1_000_000
"""Parameters up to which one thread may train as fast as several, and far faster where other programs are busy: threads
wait for one another at every operation."""

SLOW = 10.0
"""Steps per second below which the first timing has to do."""

FIRST_SECONDS = 0.25
"""For the first timing of a number of threads, after one step: ten steps, or fewer where they are slow."""


BESIDE = 2
"""Candidates for which there must be room where a step is recorded: it keeps its activations while plain steps run."""

ROOMS = 3
"""Times the room of its candidates that a recorded stack must have: for them, for the smaller stacks that they become,
and for what is computed operation by operation beside those. With Adam's moments, 2.6 times were seen."""


@dataclass(frozen=True)
class Choice:
    """How jobs are run.

    Attributes:
        executor: runs them.
        threads: of one job's arithmetic on the CPU.
        why: in words, with what was measured.
        pace: training steps per second of all jobs together; None where it was not measured.
        alone: the same of one job at a time, in the fastest way that was measured; None likewise.
    """

    executor: Executor
    threads: int
    why: str
    pace: float | None = None
    alone: float | None = None


def fastest_threads(bench: Bench) -> tuple[int, float, int]:
    """Returns the number of threads that trains fastest, torch's own or one, its steps per second, and the steps taken.

    Args:
        bench: of the model as its owner drew it; put back.
    """
    own = torch.get_num_threads()
    size = sum(parameter.numel() for parameter in bench.task.model.parameters())
    counts = [1, own] if own > 1 and size <= SMALL and bench.task.device.type == "cpu" else [own]
    paces: dict[int, float] = {}
    taken = 0
    for count in counts:
        with using_threads(count):
            first = steps_per_second(bench, 1)
            taken += 2
            if first < max(paces.values(), default=0.0) / 2:
                continue  # far slower: no need to know by how much
            if first < SLOW:
                paces[count] = first
                continue  # timing more of them would take a large share of the budget
            steps = max(2, min(MEASURED_STEPS, int(FIRST_SECONDS * first)))
            paces[count] = steps_per_second(bench, steps)
            taken += 1 + steps
    best = max(paces, key=lambda count: paces[count])
    return best, paces[best], taken


def choose(
    bench: Bench,
    *,
    executor: str | None = None,
    concurrency: int | None = None,
    threads: int = 1,
    repeatable: bool = False,
    affordable_steps: float = math.inf,
    patience: float = math.inf,
) -> Choice:
    """Returns how to run jobs, after measuring what is possible where nothing is asked for.

    Args:
        bench: of the model as its owner drew it; put back after measuring.
        executor: one of `NAMES`; None measures.
        concurrency: jobs at a time; None: as many as there are cores, or as fit a device.
        threads: of one job, where jobs run in this process.
        repeatable: whether the same seed must give the same selection on any number of cores: only executors that
            give the same bits. It takes one thread a job, too.
        affordable_steps: training steps of the whole budget; measuring takes a small share of them.
        patience: seconds that worker processes have to take their first step.

    Raises:
        ArgumentError: the executor that is asked for cannot run here.
    """
    if executor == "sequential" or (concurrency == 1 and executor != "captured"):
        asked = "as asked for" if executor in ("sequential", None) else "since concurrency=1 leaves nothing beside it"
        return Choice(Sequential(bench), threads, f"one job after the other, {asked}")
    if executor is not None:
        return _asked(bench, executor, concurrency, threads, repeatable, patience)
    if affordable_steps * _share(bench) < MEASURED_STEPS:
        return Choice(Sequential(bench), threads, "one job after the other: the budget is too small to measure others")
    refused: list[str] = []
    rivals = _rivals(bench, concurrency, threads, repeatable, affordable_steps, patience, refused)
    found = _measured(bench, threads, itertools.chain(_replays(bench, threads, repeatable, refused), rivals))
    return dataclasses.replace(found, why="".join([found.why, _unforked(bench), *refused]))


def check_executor(executor: str | None, concurrency: int | None) -> None:
    """Raises ArgumentError for an unknown executor, or a concurrency that is no positive number."""
    if executor is not None and executor not in NAMES:
        raise ArgumentError(f"executor is {executor!r}. Allowed: {', '.join(NAMES)}, or None to measure.")
    whole = isinstance(concurrency, int) and not isinstance(concurrency, bool) and concurrency > 0
    if concurrency is not None and not whole:
        raise ArgumentError(f"concurrency is {concurrency!r}. Allowed: a whole number from 1, or None to measure.")
    if executor in ("sequential", "captured") and concurrency not in (None, 1):
        raise ArgumentError(f"concurrency is {concurrency}, but the {executor} executor runs one job at a time.")


def _asked(
    bench: Bench, executor: str, concurrency: int | None, threads: int, repeatable: bool, patience: float
) -> Choice:
    why_not = {"processes": processes, "stacked": stacked, "captured": captured}[executor].why_not(bench)
    found = None
    if not why_not and executor == "processes":
        most = _workers_that_fit(bench) if concurrency is None else concurrency
        workers = Processes(bench, min(_workers(concurrency, repeatable), most), patience)
        found = Choice(workers, 1, f"{workers.concurrency} processes, as asked for")
        if not workers.pace(1):  # they would never answer later either
            why_not = workers.notes[-1]
    elif not why_not and executor == "captured":
        found = Choice(Captured(bench), threads, "one replayed step after the other, as asked for")
    elif not why_not:
        found = _stack_asked_for(bench, concurrency or min(ACCELERATOR_STACKS), threads)
    if found is None or why_not:
        raise ArgumentError(
            f"executor is {executor!r}, which cannot run here: {why_not}. Leave it out, or use another."
        )
    return found


def _stack_asked_for(bench: Bench, size: int, threads: int) -> Choice:
    """Returns a stack, whose training step is replayed where that can be."""
    refused: list[str] = []
    replayed = _replayed_stacks(bench, [size], candidates_that_fit(bench), threads, refused)
    found = next(replayed, Choice(Stacked(bench, size), threads, f"{size} stacked"))
    return dataclasses.replace(found, why="".join([found.why, ", as asked for", *refused]))


def _measured(bench: Bench, threads: int, rivals: Iterator[Choice]) -> Choice:
    """Returns the fastest of those that are possible; another way than the plain one has to be worth it."""
    best = _paced(
        Choice(Sequential(bench), threads, f"one job after the other on {threads} thread{'s' * (threads > 1)}")
    )
    alone = best.pace or 0.0
    worse, bar, seen = best, WORTH_SWITCHING * alone, [_said(best)]
    try:
        for rival in rivals:
            worse = rival
            paced = _paced(rival)
            seen.append(_said(paced))
            alone = max(alone, paced.pace or 0.0) if rival.executor.concurrency == 1 else alone
            worse, best = (best, paced) if (paced.pace or 0.0) > bar else (paced, best)
            bar = max(bar, best.pace or 0.0)
            worse.executor.close()
    except BaseException:  # Ctrl-C while one is measured
        worse.executor.close()
        best.executor.close()
        raise
    return dataclasses.replace(best, why=f"{best.why}; measured in steps/s: {', '.join(seen)}", alone=alone)


def _paced(choice: Choice) -> Choice:
    with using_threads(choice.threads):
        return dataclasses.replace(choice, pace=choice.executor.pace(MEASURED_STEPS))


def _said(choice: Choice) -> str:
    notes = "".join(f" ({note})" for note in choice.executor.notes)
    return f"{choice.why} {number(choice.pace or 0.0)}{notes}"


def _rivals(
    bench: Bench,
    concurrency: int | None,
    threads: int,
    repeatable: bool,
    affordable_steps: float,
    patience: float,
    refused: list[str],
) -> Iterator[Choice]:
    """Yields what is possible beside the plain sequential executor, each made when it is asked for.

    To `refused` it adds in words why candidates are not stacked, where they might have been.
    """
    count = min(_workers(concurrency, repeatable), _workers_that_fit(bench))
    if count > 1 and not processes.why_not(bench):
        yield Choice(Processes(bench, count, patience), 1, f"{count} processes")
    kind = bench.task.device.type
    if repeatable or (kind == "cpu" and patience < STACKING_SECONDS):  # stacked sums round otherwise
        return
    sizes = [concurrency] if concurrency else STACKS.get(kind, ACCELERATOR_STACKS)
    # A stack may take as long as its candidates one by one, though it hardly does where it is worth anything; on a
    # device it takes as long as one of them, where starting kernels is what takes the time.
    cost = 4 if kind == "cpu" else max(ACCELERATOR_STACKS)
    sizes = [size for size in sizes if affordable_steps * _share(bench) >= MEASURED_STEPS * size / cost]
    if not sizes:
        return
    if kind != "cpu" and (large := _too_large(bench)):  # a stack gains by starting fewer kernels, and takes the memory
        refused.append(f"; not stacked: {large}")
        return
    most, needed = room = candidates_that_fit(bench)
    fitting = [size for size in sizes if size <= most]
    reason = stacked.why_not(bench) if fitting else f"{min(sizes)} candidates have no room ({needed})"
    if reason:
        refused.append(f"; not stacked: {reason}")
        return
    replayed = next(_replayed_stacks(bench, fitting, room, threads, refused), None)
    if replayed is not None:
        yield replayed
    # A device is the faster the more it is given, and a stack that is replayed is faster than the same one that is not.
    if replayed is None or replayed.executor.concurrency < fitting[0]:
        yield Choice(Stacked(bench, fitting[0]), threads, f"{fitting[0]} stacked")


def _replayed_stacks(
    bench: Bench, sizes: list[int], room: tuple[float, str], threads: int, refused: list[str]
) -> Iterator[Choice]:
    """Yields stacks of some sizes whose training step is replayed, where that may be faster.

    To `refused` it adds why a step cannot be recorded, unless it has that of a single one.

    Args:
        bench: of a model that stacks.
        sizes: candidates of each stack.
        room: from `candidates_that_fit`.
        threads: of one job.
        refused: reasons so far.
    """
    if bench.task.device.type != "cuda":
        return
    most, needed = room
    fitting = [size for size in sizes if ROOMS * size <= most]
    tight = "" if fitting else f"the recorded step of {min(sizes)} stacked has no room ({needed})"
    why_not = _too_large(bench) or tight or captured_stack.why_not(bench)
    if not why_not:
        for size in fitting:
            yield Choice(CapturedStack(bench, size), threads, f"{size} stacked and replayed")
    elif not any(why_not in reason for reason in refused):
        refused.append(f"; no stack captured: {why_not}")


def _replays(bench: Bench, threads: int, repeatable: bool, refused: list[str]) -> Iterator[Choice]:
    """Yields the plain order with replayed steps where that may be faster; to `refused` it adds why it cannot be."""
    if bench.task.device.type != "cuda" or repeatable:  # a recorded optimizer rounds otherwise
        return
    large = _too_large(bench)
    most, needed = (math.inf, "") if large else candidates_that_fit(bench)
    tight = "" if most >= BESIDE else f"a recorded step has no room beside a plain one ({needed})"
    if why_not := large or tight or captured.why_not(bench):
        refused.append(f"; not captured: {why_not}")
    else:
        yield Choice(Captured(bench), threads, "one replayed step after the other")


def _share(bench: Bench) -> float:
    """Returns what share of the budget the first ten steps of a way may be, for it to be measured."""
    return MEASURED_SHARE if bench.task.device.type == "cpu" else MEASURED_SHARE_ON_DEVICE


def _too_large(bench: Bench) -> str:
    """Returns that a model is too large to gain by replays, in words; empty where it is not."""
    size = sum(parameter.numel() for parameter in bench.task.model.parameters())
    return f"with {size:,} parameters, starting kernels takes no share of a step" if size > LAUNCH_BOUND else ""


def _unforked(bench: Bench) -> str:
    """Returns why a model on the CPU gets no worker processes, in words; empty where they were tried, or on one core.

    With an accelerator beside it, it gets none and the remedy is its owner's: so it must not stay unsaid.
    """
    why_not = processes.why_not(bench) if bench.task.device.type == "cpu" and usable_cores() > 1 else ""
    return f"; no worker processes: {why_not}" if why_not else ""


def _workers(concurrency: int | None, repeatable: bool) -> int:
    """Returns how many worker processes are of use: a repeatable search has hardly more jobs at a time than a batch."""
    wanted = concurrency or usable_cores()
    return min(BATCH, wanted) if repeatable else wanted


def _workers_that_fit(bench: Bench) -> int:
    """Returns how many workers' weights fit into half of the free memory."""
    size = bytes_of(bench.task.model.parameters())
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 1
    return max(1, int(free / 2 / (WEIGHTS_PER_WORKER * max(1, size))))
