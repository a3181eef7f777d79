"""Worker processes as the coordinator sees them: forked, given jobs, ended and waited for."""

from __future__ import annotations

import multiprocessing
import signal
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from ..probing.bench import Bench
from ..task.snapshot import uninterrupted
from .turns import Turns
from .worker import work

PARTING_SECONDS = 5.0
"""For a process whose pipe is closed to be gone."""


@dataclass(eq=False, slots=True)
class Worker:
    """A worker process.

    Attributes:
        process: to be ended and waited for.
        pipe: the coordinator's end.
        turns: of the batch that it works for; None where it is idle.
        place: of its job in that batch.
    """

    process: BaseProcess
    pipe: Connection
    turns: Turns | None = None
    place: int = 0

    def start(self, turns: Turns, place: int) -> bool:
        """Returns whether the worker was alive to get a job."""
        # Noted before: a Ctrl-C in between must not leave a worker that looks idle and is not.
        self.turns, self.place = turns, place
        return self.tell(turns.jobs[place])

    def tell(self, message: object) -> bool:
        """Returns whether the worker was alive to get a message."""
        try:
            self.pipe.send(message)
        except OSError:
            return False
        return True

    def manner_of_death(self) -> str:
        """Returns how a process ended whose pipe is closed, in words."""
        self.process.join(PARTING_SECONDS)
        code = self.process.exitcode
        if code is None:
            return "it closed its pipe"
        if code >= 0:
            return f"exit code {code}"
        known = {member.value: member.name for member in signal.Signals}
        hint = ", as from a system that lacks memory" if -code == signal.SIGKILL else ""
        return f"signal {-code}, {known.get(-code, 'unknown')}{hint}"


def _part(workers: Sequence[Worker]) -> None:
    """Asks workers to leave by themselves, and waits a moment: their trainings close what they have opened."""
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + PARTING_SECONDS
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))


class Crew:
    """The worker processes that live.

    Args:
        bench: what they work on.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.workers: list[Worker] = []

    def idle(self) -> list[Worker]:
        """Returns the workers without a job."""
        return [worker for worker in self.workers if worker.turns is None]

    def busy(self, turns: Turns) -> list[Worker]:
        """Returns the workers at the jobs of one batch."""
        return [worker for worker in self.workers if worker.turns is turns]

    def hire(self) -> Worker:
        """Returns a new worker; a Ctrl-C waits until it is on the list of those that are to be ended.

        Raises:
            OSError: the system allows no more processes, or has no memory for them.
        """
        context = multiprocessing.get_context("fork")
        with uninterrupted(), warnings.catch_warnings():
            # Python warns of forks beside threads, which may hold a lock for ever. Torch's own threads are the usual
            # ones here, and a worker does not use them; what hangs all the same is given up when it is measured.
            warnings.filterwarnings("ignore", r".*multi-threaded.*fork", DeprecationWarning)
            mine, theirs = context.Pipe()
            ends = [*(worker.pipe for worker in self.workers), mine]
            process = context.Process(target=work, args=(self._bench, theirs, ends), daemon=True)
            try:
                process.start()
            except BaseException:
                mine.close()
                raise
            finally:
                theirs.close()
            self.workers.append(Worker(process, mine))
        return self.workers[-1]

    def dismiss(self, workers: Sequence[Worker]) -> None:
        """Ends workers and waits for them; those that are gone already are passed over."""
        with uninterrupted():
            leaving = [worker for worker in workers if worker in self.workers]
            self.workers = [worker for worker in self.workers if worker not in leaving]
            if self._bench.task.own is not None:
                _part(leaving)
            for worker in leaving:
                worker.process.kill()
            for worker in leaving:
                worker.process.join()
                worker.pipe.close()
                if worker.process.exitcode is not None:  # it is None where another part of the program waited for it
                    worker.process.close()
