"""How a search is set up: what a step takes, how jobs are run, and how its budget is laid out.

Where a proxy stands for the model there are two set-ups with one budget: candidates are searched on the proxy, and the
finals and the gate are on the model itself. What wins on a small model may do harm on a large one, and only the large
one can tell.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from .. import text
from ..errors import described
from ..executors.choice import Choice, choose, fastest_threads
from ..executors.sequential import Sequential
from ..judging.budget import SMALLEST_ALLOWANCE, Meter, Schedule
from ..judging.gate import LOOKS
from ..probing.bench import Bench
from ..task.machine import OUT_OF_MEMORY, using_threads
from .campaign import Campaign, Progress
from .costs import SHORTEST_RUN, gate_cost
from .reasons import Reason, rounded_up

PATIENCE = 0.1
"""Share of a budget in seconds that worker processes have to take their first step."""

LEAST_SEARCHED = 0.2
"""Share of the budget that a search on a proxy has at least, however slow the model is that its finds are judged on."""

JUDGED_STEPS = 48
"""Steps of the gate's runs on the model for which a search on its proxy leaves enough: of shorter ones only a rescue is
believed."""


@dataclass
class Setup:
    """A model with all that decides how jobs are run on it.

    Attributes:
        bench: with the model.
        executor: as asked for; None for the fastest.
        concurrency: likewise.
        threads: of one job.
        pace: training steps per second, one job after the other; None where the clock does not count.
    """

    bench: Bench
    executor: str | None = None
    concurrency: int | None = None
    threads: int = 1
    pace: float | None = None

    def time_steps(self, meter: Meter) -> None:
        """Finds out what a training step takes, and on how many threads it is fastest.

        Where the clock does not count, nothing may depend on it: one thread, and no step is timed.
        """
        if meter.budget.seconds is not None or meter.hurried:
            self.threads, self.pace, steps = fastest_threads(self.bench)
            meter.spend(steps=steps)

    def enter(self, meter: Meter) -> None:
        """Tells the meter what the steps that follow take."""
        if self.pace is not None:
            meter.pace(1 / self.pace, self.bench.aside)

    def choice(self, meter: Meter, allowance: float) -> Choice:
        """Returns how jobs are run, measured where nothing is asked for."""
        return choose(
            self.bench,
            executor=self.executor,
            concurrency=self.concurrency,
            threads=self.threads,
            repeatable=meter.budget.seconds is None,
            affordable_steps=allowance,
            patience=PATIENCE * (meter.budget.seconds or math.inf),
        )

    def gate_seconds(self, steps: int) -> float:
        """Returns what a gate's fewest runs of some steps take; 0 where the clock does not count."""
        return 0.0 if self.pace is None else 2 * min(LOOKS) * gate_cost(self.bench.task, steps) / self.pace


def timed(setup: Setup, judge: Setup, meter: Meter) -> Reason | None:
    """Finds out what steps take; returns why nothing can be judged on the model that a proxy stands for, if so.

    Args:
        setup: of the model that is searched on.
        judge: of the model that is judged on, which is the same where there is no proxy.
        meter: of the budget.
    """
    setup.time_steps(meter)
    if judge is not setup:
        try:
            judge.time_steps(meter)
        except OUT_OF_MEMORY as problem:
            judge.bench.snapshot.rewind()
            return no_room(problem)
    setup.enter(meter)
    return None if judge is setup else too_slow(judge, meter)


def no_room(problem: Exception) -> Reason:
    """Returns why nothing is searched where the model itself cannot take a step."""
    why = f"the model itself cannot be trained here, so nothing could be confirmed on it: {described(problem)}"
    return Reason("unsure", why, "a model on the meta device gets a plan that was judged on the proxy")


def too_slow(judge: Setup, meter: Meter) -> Reason | None:
    """Returns why nothing is searched where the budget does not pay for a gate on the model; None where it does."""
    if meter.budget.seconds is None or judge.pace is None:
        return None
    left, needed = meter.budget.seconds - meter.seconds, judge.gate_seconds(SHORTEST_RUN)
    if needed <= (1 - LEAST_SEARCHED) * left:
        return None
    enough = rounded_up(meter.seconds + judge.gate_seconds(JUDGED_STEPS) / (1 - LEAST_SEARCHED))
    why = (
        f"a step of the model itself takes {text.seconds(1 / judge.pace)}, and the shortest gate on it "
        f"{text.seconds(needed)}: nothing that the proxy finds could be confirmed"
    )
    return Reason("unsure", why, f'budget="{enough}s" would')


@contextlib.contextmanager
def searching(
    setup: Setup, meter: Meter, report: Progress, training_steps: float | None, *, judge: Setup, idle: bool
) -> Iterator[Campaign]:
    """Yields the campaign of a search, whose `how` is empty where nothing is run.

    Args:
        setup: of the model that is searched on.
        meter: of the budget, whose clock runs; `timed` has told it what a step takes.
        report: told after each job.
        training_steps: of the training that weights are chosen for; None where nobody says.
        judge: of the model that the gate is on: the same, or the one that a proxy stands for.
        idle: whether there is nothing to choose.
    """
    allowance = meter.left()
    if idle or allowance < SMALLEST_ALLOWANCE:
        schedule = Schedule.of(allowance)
        yield Campaign(setup.bench, Sequential(setup.bench), meter, schedule, report, training_steps=training_steps)
        return
    choice = setup.choice(meter, allowance)
    meter.begun = meter.seconds
    with contextlib.closing(choice.executor), using_threads(choice.threads):
        schedule = _schedule(meter, choice, allowance)
        if judge is not setup:
            schedule = _leaving_enough(schedule, judge, meter)
        yield Campaign(
            setup.bench,
            choice.executor,
            meter,
            schedule,
            report,
            training_steps=training_steps,
            how=choice.why,
            alone=_alone(choice),
            spares=judge is setup,  # that a proxy trains says nothing of the model
        )


def _alone(choice: Choice) -> float:
    """Returns the share of all jobs' pace that one has by itself; 0 where it was not measured."""
    return choice.alone / choice.pace if choice.alone and choice.pace else 0.0


def _schedule(meter: Meter, choice: Choice, allowance: float) -> Schedule:
    """Returns the layout of an allowance; by the clock, of what all jobs together were measured to do in the time."""
    if choice.pace is None or meter.budget.seconds is None:
        return Schedule.of(allowance)
    first = meter.left()  # at the pace of plain steps; where they can be replayed, one job alone is faster, too
    meter.pace(1 / choice.pace)
    return Schedule.of(meter.left(), max(first, _alone(choice) * meter.left()))


def _leaving_enough(schedule: Schedule, judge: Setup, meter: Meter) -> Schedule:
    """Returns a layout in which a search on a proxy leaves what a gate on the model takes, as far as that can be."""
    if judge.pace is None or meter.budget.seconds is None:
        return schedule
    needed = judge.gate_seconds(JUDGED_STEPS) / max(1e-9, meter.budget.seconds - meter.seconds)
    until = max(LEAST_SEARCHED, 1 - needed)
    if until >= schedule.search_until:
        return schedule
    return dataclasses.replace(schedule, search_until=until, finals_until=until)


@contextlib.contextmanager
def judging(judge: Setup, searched: Campaign) -> Iterator[Campaign]:
    """Yields the campaign that the finals and the gate are on, with what the search has left of the budget.

    Its trials are added to those of the search. Where the search was on the same model it is the very campaign.

    Args:
        judge: of the model that is judged on.
        searched: the campaign of the search, which is over.
    """
    if judge.bench is searched.bench:
        yield searched
        return
    searched.executor.close()
    meter = searched.meter
    if judge.pace is None:
        judge.time_steps(meter)  # only whoever is in a hurry counts seconds here
    judge.enter(meter)
    left = meter.left()
    choice = Choice(Sequential(judge.bench), judge.threads, "") if meter.hurried else judge.choice(meter, left)
    with contextlib.closing(choice.executor), using_threads(choice.threads):
        if choice.pace is not None:
            meter.pace(1 / choice.pace)
        until = searched.schedule.search_until
        whole = Schedule.of(meter.left() / (1 - until))
        share = (whole.finals_until - whole.search_until) / (1 - whole.search_until)
        schedule = dataclasses.replace(whole, search_until=until, finals_until=until + share * (1 - until))
        yield dataclasses.replace(
            searched,
            bench=judge.bench,
            executor=choice.executor,
            alone=_alone(choice),
            schedule=schedule,
            reference=None,
            since=len(searched.trials),
            extent=(math.inf, -math.inf),
            how=choice.why,
            searched_elsewhere=True,
        )
