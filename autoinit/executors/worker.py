"""What a worker process does: jobs come through a pipe, curves and outcomes go back.

| from the coordinator | from the worker |
|---|---|
| a Job to run | its Curve at a rung |
| True: go on, or False | … its Outcome, when it has ended |
| Measure the pace | True, once warmed up |
| True, once all are | steps per second, or what went wrong in words |
"""

from __future__ import annotations

import contextlib
import gc
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from ..errors import described
from ..judging.score import Curve
from ..judging.trials import Job
from ..probing.bench import Bench
from ..probing.probe import probe
from .turns import at_last_step


@dataclass(frozen=True, slots=True)
class Measure:
    """An order to measure the pace of so many training steps."""

    steps: int


def work(bench: Bench, pipe: Connection, foreign: Iterable[Connection]) -> None:
    """Does what comes through the pipe until the coordinator closes it or is gone.

    Runs in a forked process: model, data and loss are the coordinator's own, in memory that is shared until either
    side writes to it.

    Args:
        bench: the coordinator's, as it was at the fork.
        pipe: this worker's end.
        foreign: the coordinator's ends of all pipes, which the fork has copied: while a copy is open anywhere, the
            end of the coordinator goes unnoticed.
    """
    # What the coordinator had collected later is not this process's to finalize: files to delete, connections to close.
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the coordinator ends its workers
    # And not what the coordinator's program does then. A training of its own may have opened what it has to close.
    signal.signal(signal.SIGTERM, signal.SIG_DFL if bench.task.own is None else _leave)
    for end in foreign:
        end.close()
    # The coordinator's OpenMP threads are not there after a fork, and waiting for them would never end.
    torch.set_num_threads(1)
    with contextlib.closing(bench.paused), contextlib.suppress(EOFError, ConnectionError):
        while True:
            order = pipe.recv()
            if isinstance(order, Measure):
                _measure(bench, pipe, order.steps)
            else:
                _run(bench, pipe, order)


def _leave(number: int, frame: Any) -> None:
    raise SystemExit


def _run(bench: Bench, pipe: Connection, job: Job) -> None:
    def ask(curve: Curve) -> bool:
        pipe.send(curve)
        return at_last_step(job, curve) or bool(pipe.recv())

    pipe.send(bench.perform(job, ask))


def _measure(bench: Bench, pipe: Connection, steps: int) -> None:
    try:
        bench.snapshot.rewind()
        probe(bench.task, steps=1, seed=0)
        pipe.send(True)
        pipe.recv()
        curve = probe(bench.task, steps=steps, seed=0)
    except Exception as problem:
        pipe.send(described(problem))
    else:
        pipe.send(curve.steps / max(curve.seconds, 1e-9))
