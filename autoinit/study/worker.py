"""The process of one slot: orders come through a socket, replies go back. Started as `python -m autoinit.study.worker`.

A program of its own, and no fork of the coordinator: threads and devices are set before torch is loaded, and nothing
of the coordinator's can be broken by what a user's model does here.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from .orders import Ready, carried_out
from .performer import Performer
from .spec import Study

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Carries out orders until the coordinator closes the socket or is gone."""
    descriptor, threads, parent = map(int, sys.argv[1:4])
    device = sys.argv[4] or None
    _end_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM):  # a cluster may send them to all; the coordinator ends its workers
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(threads)
    pipe = Connection(descriptor)
    with contextlib.suppress(EOFError, ConnectionError):
        spec, folders = pipe.recv()
        performer = Performer(Study.model_validate(spec), [Path(folder) for folder in folders], device)
        pipe.send(Ready())
        while True:
            order = pipe.recv()
            for reply in carried_out(performer, order):
                pipe.send(reply)


def _end_with(parent: int) -> None:
    """Has this process end when the coordinator does, also where it is killed while this one trains."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before the line above
        sys.exit(1)


if __name__ == "__main__":
    main()
