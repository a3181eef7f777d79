"""Jobs in worker processes of one thread each, forked from this one."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

import torch

from ..errors import ArgumentError, described
from ..judging.score import Curve
from ..judging.trials import Job, Outcome
from ..probing.bench import Bench
from .crew import Crew, Worker
from .executor import OnRung
from .turns import Turns
from .worker import Measure

WORKER_DIED = "the worker process died"
"""How the reason of a job begins whose worker is gone."""

LEAST_PATIENCE = 5.0
"""Seconds that workers have for their first step in any case: forking and warming up take a moment."""
PACE_SECONDS = 60.0
"""After which workers that have not done a first step are given up."""

PATIENCE_FACTOR = 3
"""Times the seconds that the first step suggests for the others, before workers are given up."""


def why_not(bench: Bench) -> str:
    """Returns why jobs cannot run in worker processes here, in words; empty where they can.

    Args:
        bench: whose task would be trained.
    """
    if sys.platform == "darwin" or "fork" not in multiprocessing.get_all_start_methods():
        return f"processes cannot be forked safely on {sys.platform}"
    if multiprocessing.current_process().daemon:
        return "this process is a daemon, such as a worker of a DataLoader, and may start no processes"
    if bench.task.device.type != "cpu":
        return f"the model is on {bench.task.device}, which forked processes cannot use"
    # Even unused: with a device present, the first backward pass starts autograd's threads, and a forked process
    # then refuses every backward pass ("Unable to handle autograd's threading in combination with fork").
    if torch.accelerator.is_available():
        return (
            "autograd keeps threads for this machine's accelerator, which do not survive a fork "
            "(hide it with CUDA_VISIBLE_DEVICES='' where it is not needed)"
        )
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return "torch.distributed is initialized, whose connections forked processes must not use"
    return _shared_memory(bench)


def _shared_memory(bench: Bench) -> str:
    model: Any = bench.task.model
    dense = (tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.layout is torch.strided)
    if any(tensor.is_shared() for tensor in dense):
        return "the model is in shared memory, where workers would overwrite each other's weights"
    return ""


class Processes:
    """Runs jobs in worker processes of one thread each.

    Workers are forked when they are first needed, so that nothing is pickled but jobs, curves and outcomes, and the
    data are in memory once. A worker that dies costs one job; another takes its place.

    Attributes:
        notes: why `pace` gave the workers up, in words.

    Args:
        bench: what they work on. Each job rewinds the model; whatever else changes is not seen by living workers.
        count: workers.
        patience: seconds that `pace` waits for their first step.

    Raises:
        ArgumentError: no workers are asked for, or they cannot work here (see `why_not`).
    """

    name = "processes"
    pauses = True

    def __init__(self, bench: Bench, count: int, patience: float = PACE_SECONDS) -> None:
        if count < 1:
            raise ArgumentError(f"{count} worker processes cannot run anything. Allowed: a whole number from 1.")
        if problem := why_not(bench):
            raise ArgumentError(f"Jobs cannot run in worker processes: {problem}. Run them one after the other.")
        self.concurrency = count
        self.notes: list[str] = []
        self._patience = min(PACE_SECONDS, max(LEAST_PATIENCE, patience))
        self._crew = Crew(bench)
        self._current: Turns | None = None
        self._keepers: dict[int, Worker] = {}

    def run(self, jobs: Sequence[Job], on_rung: OnRung) -> Iterator[Outcome]:
        """Yields what came of each job, in their order."""
        self._settle()
        turns = self._current = Turns(jobs, on_rung)
        unstarted = list(range(len(jobs)))
        try:
            for place in range(len(jobs)):
                while True:
                    if self._current is not turns:
                        raise RuntimeError("This run was given up: its executor was closed, or has begun another run.")
                    self._hand_out(turns, unstarted)
                    if (outcome := turns.outcome(place)) is not None:
                        break
                    self._listen(turns)
                yield outcome
        finally:  # a run that is given up, by Ctrl-C above all, leaves no worker at its jobs
            self._crew.dismiss(self._crew.busy(turns))

    def pace(self, steps: int, timeout: float | None = None) -> float:
        """Returns the training steps per second of all workers together, working at the same time; 0 on failure.

        Where a worker dies, fails or does not answer in time, all are ended and `notes` says why.

        Args:
            steps: of each worker, after one that warms up.
            timeout: seconds for the first step, in the place of the patience that was given; the others have as long,
                or more where the first one was slow.
        """
        timeout = self._patience if timeout is None else timeout
        self._settle()
        try:
            while len(self._crew.workers) < self.concurrency:
                self._crew.hire()
            started = time.monotonic()
            self._ask_all(Measure(steps), timeout)
            first = time.monotonic() - started
            return sum(self._ask_all(True, max(timeout, PATIENCE_FACTOR * steps * first)))
        except (_NoPaceError, OSError) as problem:
            self.notes.append(str(problem))
            self.close()
            return 0.0
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the workers and waits for them."""
        self._current = None
        self._crew.dismiss(self._crew.workers)

    def _settle(self) -> None:
        """Ends workers that are still at what an earlier run left; its generator may outlive it."""
        self._current = None
        idle = self._crew.idle()
        self._crew.dismiss([worker for worker in self._crew.workers if worker not in idle])

    def _hand_out(self, turns: Turns, unstarted: list[int]) -> None:
        """Starts the jobs that need not wait for a worker, in their order, and takes them off the list."""
        for place in tuple(unstarted):
            if self._start(turns, place):
                unstarted.remove(place)

    def _start(self, turns: Turns, place: int) -> bool:
        """Returns whether a job was started, or failed for want of a worker; False where it has to wait for one."""
        keeper = self._keeper(turns.jobs[place])
        for worker in self._crew.idle():
            if keeper in (None, worker):
                if self._begun(worker, turns, place):
                    return True
                self._crew.dismiss([worker])  # it died while it was idle, and with it what it had paused
                keeper = None
        if keeper is not None or len(self._crew.workers) >= self.concurrency:
            return False
        try:
            self._begun(self._crew.hire(), turns, place)
        except OSError as problem:
            if self._crew.busy(turns):
                return False
            turns.end(place, Outcome(None, 1, f"no worker process could be started ({described(problem)})"))
        return True

    def _begun(self, worker: Worker, turns: Turns, place: int) -> bool:
        """Returns whether a worker was alive to get a job, whose training it may pause."""
        self._keepers[turns.jobs[place].number] = worker
        return worker.start(turns, place)

    def _keeper(self, job: Job) -> Worker | None:
        """Returns the living worker that has paused what a job goes on with; None where any one will do."""
        keeper = self._keepers.get(job.number) if job.goes_on else None
        return keeper if keeper in self._crew.workers else None

    def _listen(self, turns: Turns) -> None:
        """Waits for messages of this batch's workers, and answers the questions whose turn has come."""
        busy: dict[Any, Worker] = {worker.pipe: worker for worker in self._crew.busy(turns)}
        for pipe in wait(list(busy)):
            worker = busy[pipe]
            try:
                message = worker.pipe.recv()
            except (EOFError, OSError):
                message = self._bury(worker, turns)
            if isinstance(message, Curve):
                turns.ask(worker.place, message)
            else:
                turns.end(worker.place, message)
                worker.turns = None
        at = {worker.place: worker for worker in self._crew.busy(turns)}
        for place, goes_on in turns.answers():
            at[place].tell(goes_on)  # one that has died meanwhile is found out by listening to it

    def _bury(self, worker: Worker, turns: Turns) -> Outcome:
        """Returns the outcome of a job whose worker died; it is charged with the steps that were seen of it."""
        reason = f"{WORKER_DIED} ({worker.manner_of_death()})"
        self._crew.dismiss([worker])
        return Outcome(None, max(1, turns.seen(worker.place)), reason)

    def _ask_all(self, order: Measure | bool, timeout: float) -> list[float]:
        """Returns every worker's answer to an order, waiting so many seconds at the most.

        Raises:
            _NoPaceError: a worker died, failed or did not answer in time.
        """
        deadline = time.monotonic() + timeout
        for worker in self._crew.workers:
            worker.tell(order)
        return [_answer(worker, deadline) for worker in self._crew.workers]


class _NoPaceError(Exception):
    """A worker's pace cannot be measured; the message says why."""


def _answer(worker: Worker, deadline: float) -> float:
    if not worker.pipe.poll(max(0.0, deadline - time.monotonic())):
        raise _NoPaceError("a worker process did not answer in time")
    try:
        answer: float | str = worker.pipe.recv()
    except (EOFError, OSError):
        raise _NoPaceError(f"a worker process died ({worker.manner_of_death()})") from None
    if isinstance(answer, str):
        raise _NoPaceError(f"a worker process could not train: {answer}")
    return answer
