"""Workers on this machine: a supervised process for each slot, of its own threads and its own device."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from ..errors import ArgumentError
from ..task.machine import usable_cores
from .orders import Died, Ended, Order, Raised, Reply
from .spec import Study


@dataclass
class _Slot:
    """One place for a worker; the process is started with the first order, and anew after it has died."""

    device: str | None = None
    process: subprocess.Popen[bytes] | None = None
    pipe: Connection | None = None
    busy: bool = False
    ended: str = ""
    """Why it was ended, where the coordinator asked for that."""


class Local:
    """Carries out orders in processes of this machine.

    Attributes:
        slots: one for each worker.

    Args:
        study: whose tasks are run.
        folders: where their modules are looked up besides the current folder.
        workers: how many at a time; None for one on each GPU, or else on each core.

    Raises:
        ArgumentError: there would be no worker.
    """

    def __init__(self, study: Study, folders: Sequence[Path] = (), workers: int | None = None) -> None:
        devices = gpus()
        count = workers if workers is not None else (len(devices) or max(1, usable_cores() // study.threads))
        if count < 1:
            raise ArgumentError(f"{count} workers cannot run anything. Allowed: a whole number from 1.")
        self.slots = tuple(range(count))
        self._study, self._folders = study, [str(folder) for folder in folders]
        self._slots = [_Slot(devices[place % len(devices)] if devices else None) for place in self.slots]

    def give(self, slot: int, order: Order) -> None:
        """Has an order carried out at a slot that is free."""
        at = self._slots[slot]
        at.busy = True
        try:
            for one in self._slots:  # all of them: the others load torch while the first builds its task
                if one.pipe is None:
                    self._start(one)
            assert at.pipe is not None
            at.pipe.send(order)
        except ConnectionError:
            pass  # it died while it was idle: `replies` finds the closed pipe

    def replies(self, timeout: float) -> Iterator[tuple[int, Reply]]:
        """Yields what has come back, with its slot, waiting so many seconds at most for the first."""
        pipes = {at.pipe: slot for slot, at in enumerate(self._slots) if at.busy and at.pipe is not None}
        for pipe in wait(list(pipes), timeout):
            assert isinstance(pipe, Connection)
            slot = pipes[pipe]
            reply = self._received(self._slots[slot], pipe)
            if isinstance(reply, (Ended, Raised, Died)):
                self._slots[slot].busy = False
            yield slot, reply

    def end(self, slot: int, reason: str) -> None:
        """Kills the worker of a slot that is not free; `Died` comes back from it, with this reason."""
        at = self._slots[slot]
        at.ended = reason
        if at.process is not None:
            at.process.kill()

    def pids(self) -> list[int]:
        """Returns the living workers' process numbers."""
        return [at.process.pid for at in self._slots if at.process is not None and at.process.poll() is None]

    def close(self) -> None:
        """Ends all workers at once, whatever they are at."""
        for at in self._slots:
            if at.process is not None:
                at.process.kill()
        for at in self._slots:
            _buried(at)

    def _received(self, at: _Slot, pipe: Connection) -> Reply:
        try:
            reply: Reply = pipe.recv()
            return reply
        except (EOFError, OSError):
            return Died(_buried(at))

    def _start(self, at: _Slot) -> None:
        ours, theirs = socket.socketpair()
        threads = str(self._study.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if at.device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = at.device
        device = "cuda" if at.device is not None else ""
        with theirs:
            at.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "autoinit.study.worker",
                    str(theirs.fileno()),
                    threads,
                    str(os.getpid()),
                    device,
                ],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C is for the coordinator, also while the worker still loads torch
            )
        at.pipe = Connection(ours.detach())
        at.pipe.send((self._study.model_dump(mode="json"), self._folders))


def _buried(at: _Slot) -> str:
    """Returns how a worker ended, in words; its slot takes a new one with the next order."""
    process, at.process = at.process, None
    asked, at.ended = at.ended, ""
    if at.pipe is not None:
        at.pipe.close()
        at.pipe = None
    if process is None:
        return "the worker process was gone"
    try:
        code = process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    if asked:
        return asked
    if code >= 0:
        return f"the worker process ended with code {code}"
    name = signal.Signals(-code).name
    memory = ", as one is that needs more memory than there is" if -code == signal.SIGKILL else ""
    return f"the worker process was ended by {name}{memory}"


def gpus() -> list[str]:
    """Returns the numbers of the GPUs that this process may use, without starting CUDA in it."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [one for one in visible.split(",") if one.strip() and one.strip() != "-1"] if _has_cuda() else []
    if not _has_cuda():
        return []
    import torch

    return [str(place) for place in range(torch.cuda.device_count())]


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()
