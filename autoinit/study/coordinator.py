"""The one who runs a study: plans trials, has them run, writes down what came of them, and survives what dies."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from .. import text
from ..judging.budget import parse_budget
from ..knowledge.lines import Line
from ..recipes.recipe import OWN, Recipe
from .jobs import LAYERS, Described, StudyJob, dense_jobs, long_jobs, trials_of
from .orders import Describe, Died, Ended, Layers, Order, Raised, Reply, RunTrials, Workers
from .performer import failed_line
from .proposals import parameters_of, params_of, search_jobs
from .spec import Study
from .storage import Claimed, Store

TRIES = 2
"""Of a trial whose worker dies or has too little memory."""
LOOK_AROUND = 30.0
"""Seconds between looks for trials that another coordinator left behind."""
START = 600.0
"""Seconds that a worker has to load torch, or to be given its place on a cluster, before it can be at a trial."""
GRACE = 10.0
"""Seconds that running trials have to end, once a study is asked to stop."""
SHORT = 2.0
"""Seconds of a trial below which the next one is claimed ahead, so that no worker waits for the storage. Longer ones
are better left to another coordinator that is idle."""
WAIT = 0.5
"""Seconds between looks at whether to stop."""


@dataclass(frozen=True, slots=True)
class StudyProgress:
    """How far a study is.

    Attributes:
        done: trials that ended, of this run and of earlier ones.
        failed: those of them that failed.
        running: now, in this coordinator.
        total: trials of the study; an estimate while tasks are not built yet.
        unbuilt: how many those are; the estimate takes them to be like the others, in number and pace.
        seconds: of this run.
        left: seconds to the end at this run's pace; None where nothing tells.
        news: what happened, where it is worth a line; empty otherwise.
    """

    done: int
    failed: int
    running: int
    total: int
    unbuilt: int
    seconds: float
    left: float | None
    news: str = ""


@dataclass
class _Slot:
    """What a worker is at.

    Attributes:
        order: what it was given; None where it is free.
        since: when it was given it, or last told something of it; of the monotonic clock.
        claimed: the trials of it that have not ended, in their order.
        ended: those that have, with their lines, until the order has.
        layers: what it has measured so far.
        task: that it was last at, so that it stays there.
        ready: whether its worker has started.
    """

    order: Order | None = None
    since: float = 0.0
    claimed: list[Claimed] = field(default_factory=list)
    ended: list[tuple[Claimed, Line]] = field(default_factory=list)
    layers: list[list[dict[str, Any]]] = field(default_factory=list)
    task: str = ""
    ready: bool = False


class Coordinator:
    """Runs a study to its end, or until it is asked to stop; what ended is in the store, whatever happens then.

    Args:
        study: what to run.
        store: the study's own, open for writing.
        workers: carry out the orders.
        report: told after every trial and of everything that is worth a line.
        stop: asked several times a second; the reason to stop, or "".
    """

    def __init__(
        self,
        study: Study,
        store: Store,
        workers: Workers,
        *,
        report: Callable[[StudyProgress], None] = lambda progress: None,
        stop: Callable[[], str] = lambda: "",
    ) -> None:
        self._study, self._store, self._workers = study, store, workers
        self._report, self._stop = report, stop
        self._timeout = None if study.timeout is None else parse_budget(study.timeout).seconds
        self._slots = {slot: _Slot() for slot in workers.slots}
        self._described: dict[str, Described] = {}
        self._closed: set[str] = set()
        self._deaths: defaultdict[str, int] = defaultdict(int)
        self._planned: dict[str, int] = {}
        self._ahead: defaultdict[str, list[list[Claimed]]] = defaultdict(list)
        self._unwritten: list[tuple[Claimed, Line]] = []
        self._done, self._failed = 0, 0

    def run(self) -> str:
        """Returns why the study ended: "" where everything is done, or what asked it to stop."""
        self._started, self._ran = time.monotonic(), 0
        self._store.begin_run()
        self._load()
        looked = time.monotonic()
        reason = ""
        while not reason:
            self._fill()
            self._write()  # while the workers are at it
            if not self._busy():
                if len(self._closed) == len(self._study.tasks):
                    break
                time.sleep(WAIT)  # another coordinator runs what is left
            for slot, reply in self._workers.replies(WAIT):
                self._take(slot, reply)
            self._end_hung()
            if time.monotonic() - looked > LOOK_AROUND:
                looked = time.monotonic()
                self._store.recover()
            reason = self._stop()
        self._wind_up()
        return reason

    # The study as it was found

    def _load(self) -> None:
        for task in self._study.tasks:
            self._store.add_task(task.name, {"family": task.family, "dataset": task.dataset})
            info = self._store.task_info(task.name)
            if info.get("described"):  # one that could not be built is built again: its cause may be mended
                self._described[task.name] = Described.from_data(info["described"])
                self._add_params(task.name)  # one that was killed, or is of an earlier version, may lack some
        recovered = self._store.recover()
        for name, states in self._store.counts().items():
            self._done += states["complete"] + states["fail"]
            self._failed += states["fail"]
            if described := self._described.get(name):
                self._planned[name] = max(trials_of(self._study, len(described.candidates)), sum(states.values()))
        self._tell(f"{recovered} trials that were interrupted are run again" if recovered else "")

    # What to do next

    def _busy(self) -> int:
        return sum(slot.order is not None for slot in self._slots.values())

    def _fill(self) -> None:
        for number, slot in self._slots.items():
            if slot.order is None and (order := self._next(slot)) is not None:
                slot.order, slot.since, slot.layers = order, time.monotonic(), []
                slot.task = order.task
                self._workers.give(number, order)

    def _next(self, slot: _Slot) -> Order | None:
        """Returns the next order: of the task that the worker is at, or else of the first one with something left."""
        names = [task.name for task in self._study.tasks if task.name not in self._closed]
        for name in sorted(names, key=lambda name: name != slot.task):
            order = self._of_task(name, slot)
            if order is not None:
                return order
        return None

    def _of_task(self, name: str, slot: _Slot) -> Order | None:
        described = self._described.get(name)
        at_work = [other.order for other in self._slots.values() if other.order is not None and other.task == name]
        if described is None:
            return None if at_work else Describe(name)
        claimed = self._claim(name)
        if not claimed and not at_work:
            self._write()
            with self._store.planning(name):
                self._plan(name, described)
            claimed = self._claim(name)
        if claimed:
            slot.claimed = claimed
            jobs = tuple(StudyJob.from_data(one.job) for one in claimed)
            return RunTrials(name, jobs, replace(described, candidates=()))
        if at_work or self._store.counts()[name]["running"]:
            return None
        if LAYERS not in self._store.task_info(name):
            if recipes := self._before_and_after(name):
                return Layers(name, recipes)
            self._store.set_task_info(name, LAYERS, None)
        self._planned[name] = sum(self._store.counts()[name].values())  # fewer leaders than asked for, perhaps
        self._closed.add(name)
        return None

    def _claim(self, name: str) -> list[Claimed]:
        """Returns trials to run together: one, or a stack's worth of one seed; what is tried again is tried alone."""
        ahead = self._ahead[name]
        return ahead.pop(0) if ahead else self._claimed_now(name)

    def _claimed_now(self, name: str) -> list[Claimed]:
        claimed = self._store.claim(name, self._study.stack)
        fitting = [one for one in claimed if one is claimed[0] or _stack_well(claimed[0], one)]
        for other in claimed:
            if other not in fitting:
                self._store.release(other)
        return fitting

    def _claim_ahead(self, name: str) -> None:
        """Claims what the workers at a task run next."""
        ahead = self._ahead[name]
        workers = sum(slot.order is not None and slot.task == name for slot in self._slots.values())
        while len(ahead) < workers and (claimed := self._claimed_now(name)):
            ahead.append(claimed)

    def _plan(self, name: str, described: Described) -> None:
        """Adds the trials that come next in a task, where all that there are have ended."""
        study = self._study
        states = self._store.counts()[name]
        if states["waiting"] or states["running"]:  # one is tried again, or another coordinator is at it
            return
        have = sum(states.values())
        if study.mode == "dense":
            jobs = dense_jobs(study, name, described)
            planned = len(jobs)
            jobs = jobs[have:]
        else:
            planned = study.trials or 0
            jobs = search_jobs(study, name, described, self._probes(name), have) if have < planned else []
        if not jobs and study.long is not None:
            more = long_jobs(study, name, self._leaders(name), planned)
            jobs = more[max(0, have - planned) :]
        if jobs:
            self._store.extend(name, [job.to_data() for job in jobs])
            self._add_params(name)
        self._planned[name] = max(trials_of(study, len(described.candidates)), have + len(jobs))

    def _add_params(self, name: str) -> None:
        ranges = parameters_of(self._study, self._described[name])
        if ranges:
            self._store.add_params(name, ranges, lambda job: params_of(StudyJob.from_data(job), ranges))

    def _probes(self, name: str) -> list[Line]:
        return [line for line in self._store.lines(name) if line["stage"] == "probe"]

    def _leaders(self, name: str) -> list[tuple[Recipe, int]]:
        """Returns the best candidates of a task by their mean score over the seeds, without as-is."""
        top = self._study.long.top if self._study.long is not None else 1
        fields: dict[tuple[str, int], dict[str, Any]] = {}
        totals: defaultdict[tuple[str, int], list[float | None]] = defaultdict(list)
        for line in self._store.lines(name):  # one at a time: those of a large task would fill the memory
            if line["stage"] == "probe":
                candidate = line["recipe"], line["lr_step"]
                fields.setdefault(candidate, line["fields"])
                totals[candidate].append(line["score"]["total"] if line["state"] == "complete" else None)
        means = {
            candidate: fmean(total for total in each if total is not None)
            for candidate, each in totals.items()
            if candidate[0] != OWN.key and None not in each
        }
        leaders = sorted(means, key=lambda candidate: means[candidate])[:top]  # of equals the one that was tried first
        return [(Recipe.from_data(fields[candidate]), candidate[1]) for candidate in leaders]

    def _before_and_after(self, name: str) -> tuple[Recipe, ...]:
        leaders = self._leaders(name)  # at whatever learning rate: before the first step it tells nothing
        return (OWN, leaders[0][0]) if leaders else ()

    # What came of it

    def _take(self, number: int, reply: Reply) -> None:
        slot = self._slots[number]
        order, slot.since = slot.order, time.monotonic()
        slot.ready = not isinstance(reply, Died)
        if isinstance(reply, Described):
            self._described[slot.task] = reply
            self._store.set_task_info(slot.task, "described", reply.to_data())
            self._store.set_task_info(slot.task, "error", None)
            left = f", {len(reply.left_out)} recipes do not fit it or say nothing new" if reply.left_out else ""
            self._tell(f"{slot.task}: {len(reply.candidates)} candidates{left}")
        elif isinstance(reply, dict):
            claimed = slot.claimed.pop(0)
            # The last one is written when its worker is at the next order: it does not wait for the storage.
            (self._unwritten if slot.claimed else slot.ended).append((claimed, reply))
        elif isinstance(reply, list):
            slot.layers.append(reply)
        elif isinstance(reply, Raised):
            self._raised(slot, reply)
        elif isinstance(reply, Died):
            self._died(slot, reply.reason)
        elif isinstance(order, Layers) and isinstance(reply, Ended):
            self._keep_layers(order, slot.layers)
        if isinstance(reply, (Ended, Raised, Died)):
            self._unwritten += slot.ended
            slot.order, slot.claimed, slot.ended = None, [], []

    def _write(self) -> None:
        """Writes down what has ended."""
        unwritten, self._unwritten = self._unwritten, []
        for claimed, line in unwritten:
            self._keep(claimed, line)
        for name in {claimed.task for claimed, line in unwritten if line["seconds"] < SHORT}:
            self._claim_ahead(name)

    def _keep(self, claimed: Claimed, line: Line) -> None:
        if line["state"] == "failed" and _out_of_memory(line["reason"]) and claimed.attempts < TRIES:
            self._store.retry(claimed, line["reason"])
            self._tell(f"{claimed.task}: {line['recipe']}: {line['reason']}; it is tried once more")
            return
        self._finish(claimed, line)

    def _finish(self, claimed: Claimed, line: Line) -> None:
        line = {**line, "attempts": claimed.attempts}
        if self._store.finish(claimed, line, None if line["score"] is None else line["score"]["total"]):
            self._done, self._ran = self._done + 1, self._ran + 1
            self._failed += line["state"] == "failed"
        failed = f"{claimed.task}: {line['recipe']} failed: {line['reason']}" if line["state"] == "failed" else ""
        self._tell(failed)

    def _raised(self, slot: _Slot, raised: Raised) -> None:
        """Fails the trials of an order that could not be carried out, or the whole task where it cannot be built."""
        if isinstance(slot.order, Describe):
            self._fail_task(slot.task, raised.reason, raised.trace)
        elif isinstance(slot.order, Layers):
            self._store.set_task_info(slot.task, LAYERS, None)
        self._fail_claimed(slot, raised.reason)

    def _died(self, slot: _Slot, reason: str) -> None:
        """Has the trial that a worker died at tried once more; of a stack nobody knows which it was, so each alone."""
        self._deaths[slot.task] += isinstance(slot.order, (Describe, Layers))
        if self._deaths[slot.task] >= TRIES:
            if isinstance(slot.order, Describe):
                self._fail_task(slot.task, reason, f"Building the task: {reason}, {TRIES} times.")
            elif isinstance(slot.order, Layers):
                self._store.set_task_info(slot.task, LAYERS, None)
        together = self._study.stack > 1
        for claimed in slot.claimed[: len(slot.claimed) if together else 1]:
            if claimed.attempts < TRIES:
                self._store.retry(claimed, reason)
                self._tell(f"{claimed.task}: trial {claimed.number}: {reason}; it is tried once more")
            else:
                self._finish(claimed, self._failed_line(claimed, reason))

    def _end_hung(self) -> None:
        """Ends workers that have said nothing for longer than any trial may take; then they have died."""
        if self._timeout is None:
            return
        for number, slot in self._slots.items():
            allowed = self._timeout * max(1, len(slot.claimed))  # a stack tells of its trials when all have ended
            allowed += 0 if slot.ready else START  # no trial's time: it may be long on a machine that is busy
            if slot.order is not None and time.monotonic() - slot.since > allowed:
                slot.since = time.monotonic()
                self._workers.end(number, f"nothing was heard of it for {text.seconds(allowed)}: the worker was ended")

    def _fail_claimed(self, slot: _Slot, reason: str) -> None:
        for claimed in slot.claimed:
            self._finish(claimed, self._failed_line(claimed, reason))

    def _failed_line(self, claimed: Claimed, reason: str) -> Line:
        return failed_line(self._study, StudyJob.from_data(claimed.job), self._described[claimed.task], reason)

    def _fail_task(self, name: str, reason: str, trace: str) -> None:
        self._store.set_task_info(name, "error", trace)
        self._closed.add(name)
        self._tell(f"{name} failed as a whole: {reason}")

    def _keep_layers(self, order: Layers, found: Sequence[list[dict[str, Any]]]) -> None:
        names = ("as_is", "best")[: len(found)]
        kept = dict(zip(names, found, strict=True))
        self._store.set_task_info(order.task, LAYERS, {**kept, "best_recipe": order.recipes[-1].key})

    # How far it is, and its end

    def _tell(self, news: str = "") -> None:
        seconds = time.monotonic() - self._started
        known = list(self._planned.values())
        unknown = sum(task.name not in self._planned and task.name not in self._closed for task in self._study.tasks)
        guess = round(fmean(known)) if known else self._guess()
        total = max(self._done, sum(known) + unknown * guess)
        left = (total - self._done) * seconds / self._ran if self._ran else None
        self._report(StudyProgress(self._done, self._failed, self._busy(), total, unknown, seconds, left, news))

    def _guess(self) -> int:
        """Returns how many trials a task will have, before any was built."""
        space = self._study.space
        return trials_of(self._study, 1 + len(space.chosen) + space.random + 20 * space.opening)

    def _wind_up(self) -> None:
        """Lets running trials end for a moment; what is cut off waits for the next run."""
        deadline = time.monotonic() + GRACE
        while self._busy() and (left := deadline - time.monotonic()) > 0:
            for slot, reply in self._workers.replies(min(WAIT, left)):
                self._take(slot, reply)
        self._workers.close()
        for cut in self._slots.values():
            self._unwritten += cut.ended
            self._ahead[cut.task].append(cut.claimed)
            cut.order, cut.claimed, cut.ended = None, [], []
        for claimed, line in self._unwritten:
            self._keep(claimed, line)
        for one in (one for groups in self._ahead.values() for group in groups for one in group):
            self._store.release(one)


def _stack_well(first: Claimed, other: Claimed) -> bool:
    """Says whether two trials can be trained in lockstep, and neither may have been the end of a worker."""
    alike = (first.job["seed"], first.job["steps"]) == (other.job["seed"], other.job["steps"])
    return alike and first.attempts == other.attempts == 1


def _out_of_memory(reason: str) -> bool:
    return reason.startswith(("OutOfMemoryError", "MemoryError")) or "can't allocate memory" in reason
